//! What happens on a call: unary, upload, bidirectional, rows, track.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::drain::Drain;
use super::limits::Rates;
use super::publisher::Placed;
use super::publishing::{Publishing, Submitted, is_about_the_message, shorter};
use super::rules::SubscribePlan;
use super::status;
use super::subscriber::{Rows, Subscriber, Tracked, Wants};
use crate::clock::{Clock, Stopwatch};
use crate::subscribe::Followed;

/// How long rows have for ending by themselves when the gateway shuts down.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What a call answers.
pub(super) type Answers = BoxStream<'static, Result<Bytes, Status>>;

/// What calls are bounded with.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) drain: Drain,
    pub(super) rates: Arc<Rates>,
    pub(super) clock: Arc<dyn Clock>,
    /// Messages of one stream that are not acknowledged.
    pub(super) in_flight: usize,
    /// How long a call of one message may take.
    pub(super) longest: Duration,
}

/// The messages of a call, one after the other.
struct Source {
    messages: Streaming<Bytes>,
    drained: BoxFuture<'static, ()>,
    bounds: Bounds,
    caller: Caller,
    index: u64,
}

impl Source {
    fn new(messages: Streaming<Bytes>, bounds: Bounds, caller: Caller) -> Self {
        Self { messages, drained: bounds.drain.signal(), bounds, caller, index: 0 }
    }

    /// The next message with its number. None: the client sends no more.
    async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Status> {
        let next = tokio::select! {
            biased;
            () = &mut self.drained => return Err(status::reconnect()),
            next = self.messages.message() => next.map_err(status::of_framing)?,
        };
        let Some(message) = next else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        // The call itself has paid for the first one.
        while index > 0
            && let Err(wait) = self.bounds.rates.take(&self.caller.principal.rate, self.bounds.clock.now())
        {
            tokio::select! {
                () = &mut self.drained => return Err(status::reconnect()),
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(Some((index, message)))
    }
}

/// The one message of a call.
async fn only(mut messages: Streaming<Bytes>) -> Result<Bytes, Status> {
    let first = messages.message().await.map_err(status::of_framing)?;
    let message = first.ok_or_else(|| status::wrong("", "the call has no message; send one"))?;
    match messages.message().await.map_err(status::of_framing)? {
        None => Ok(message),
        Some(_) => Err(status::wrong("", "the call has more than one message; send one")),
    }
}

/// One message in, one response out.
pub(super) async fn unary(
    publishing: Arc<Publishing>,
    messages: Streaming<Bytes>,
    bounds: Bounds,
    caller: Caller,
) -> Result<Bytes, Status> {
    let call = async {
        let message = only(messages).await?;
        let submitted = publishing.submit(&caller, None, message).await?;
        let placed = publishing.acknowledged(submitted).await?;
        Ok(publishing.response(placed, ""))
    };
    let within = shorter(caller.deadline, bounds.longest);
    tokio::time::timeout(within, call).await.unwrap_or_else(|_| Err(status::too_late()))
}

/// Many messages in, one response out.
pub(super) async fn upload(
    publishing: Arc<Publishing>,
    messages: Streaming<Bytes>,
    bounds: Bounds,
    caller: Caller,
) -> Result<Bytes, Status> {
    let deadline = caller.deadline;
    let call = async {
        let mut results = pin!(published(Arc::clone(&publishing), Refused::Ends, messages, bounds, caller));
        let (mut count, mut last) = (0_u64, None);
        while let Some(result) = results.next().await {
            match result {
                Ok(placed) => last = Some(placed),
                Err(error) => return Err(after(count, &error)),
            }
            count += 1;
        }
        let message = match count {
            1 => "1 message is published".to_owned(),
            count => format!("{count} messages are published"),
        };
        Ok(match last {
            Some(placed) => publishing.response(placed, &message),
            None => publishing.empty_response(&message),
        })
    };
    match deadline {
        Some(deadline) => tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| Err(status::too_late())),
        None => call.await,
    }
}

/// The status of the message that follows `count` others.
fn after(count: u64, error: &Status) -> Status {
    let message = format!("message {count}: {}; the {count} messages before it are published", error.message());
    Status::with_details(error.code(), message, Bytes::copy_from_slice(error.details()))
}

/// Many messages in, a response for each.
pub(super) fn bidirectional(
    publishing: Arc<Publishing>,
    messages: Streaming<Bytes>,
    bounds: Bounds,
    caller: Caller,
) -> Answers {
    let deadline = caller.deadline;
    let refused = if publishing.answers_refusals() { Refused::GoesOn } else { Refused::Ends };
    let results = published(Arc::clone(&publishing), refused, messages, bounds, caller);
    let answers = results.map(move |result| match result {
        Ok(placed) => Ok(publishing.response(placed, "")),
        Err(status) => publishing.refusal(&status).ok_or(status),
    });
    ended_by(answers.boxed(), late(deadline))
}

/// What a stream does after a message that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    GoesOn,
    /// No more messages are read: their client would not know what became of them.
    Ends,
}

/// Publishes messages, many at once; what became of each, in their order. After a status that is not about one message
/// no more are read.
fn published(
    publishing: Arc<Publishing>,
    refused: Refused,
    messages: Streaming<Bytes>,
    bounds: Bounds,
    caller: Caller,
) -> impl Stream<Item = Result<Placed, Status>> + Send {
    let in_flight = bounds.in_flight;
    let source = Source::new(messages, bounds, caller);
    let waiting = Arc::clone(&publishing);
    stream::unfold(Some(source), move |source| {
        let publishing = Arc::clone(&publishing);
        async move {
            let mut source = source?;
            let submitted = submit_next(&publishing, &mut source).await?;
            let is_bearable = |status: &Status| refused == Refused::GoesOn && is_about_the_message(status);
            let goes_on = submitted.as_ref().err().is_none_or(is_bearable);
            Some((submitted, goes_on.then_some(source)))
        }
    })
    .map(move |submitted| {
        let publishing = Arc::clone(&waiting);
        async move { publishing.acknowledged(submitted?).await }
    })
    .buffered(in_flight)
}

async fn submit_next(publishing: &Publishing, source: &mut Source) -> Option<Result<Submitted, Status>> {
    match source.next().await {
        Ok(None) => None,
        Ok(Some((index, message))) => Some(publishing.submit(&source.caller, Some(index), message).await),
        Err(status) => Some(Err(status)),
    }
}

/// One request in, rows out.
pub(super) async fn rows(
    subscriber: &dyn Subscriber,
    plan: &SubscribePlan,
    request: impl Fn(&[u8]) -> Result<(), Status>,
    messages: Streaming<Bytes>,
    bounds: Bounds,
    caller: Caller,
) -> Result<Answers, Status> {
    let (deadline, watch) = (caller.deadline, Stopwatch::start());
    let opened = async {
        let message = only(messages).await?;
        request(&message)?;
        subscriber.subscribe(plan, Wants::Request(message)).await
    };
    let within = shorter(deadline, bounds.longest);
    let rows = tokio::time::timeout(within, opened).await.unwrap_or_else(|_| Err(status::too_late()))?;
    let drained = bounds.drain.signal();
    // The rows end by themselves then, with the place where the client goes on.
    let over = drained.then(|()| tokio::time::sleep(DRAIN_GRACE)).map(|()| status::reconnect());
    let rows = ended_by(rows, over.boxed());
    Ok(ended_by(rows, late(left(deadline, &watch))))
}

/// Many messages in, rows out.
pub(super) async fn track(
    publishing: Arc<Publishing>,
    subscriber: &dyn Subscriber,
    plan: &SubscribePlan,
    messages: Streaming<Bytes>,
    bounds: Bounds,
    mut caller: Caller,
) -> Result<Answers, Status> {
    let (deadline, watch) = (caller.deadline, Stopwatch::start());
    let keys = Arc::new(Followed::default());
    caller.follows = Some(Arc::clone(&keys));
    let tracked = Tracked { request_id: Arc::clone(&caller.request_id), keys, start: caller.start.clone() };
    let opened = subscriber.subscribe(plan, Wants::Own(tracked));
    let within = shorter(deadline, bounds.longest);
    let rows = tokio::time::timeout(within, opened).await.unwrap_or_else(|_| Err(status::too_late()))?;
    let drained = bounds.drain.signal();
    let results = published(publishing, Refused::Ends, messages, bounds, caller);
    // A message that is refused ends the call.
    let failures = results.filter_map(async |result| result.err().map(Err));
    // Also a client that sends no more is told to reconnect.
    let over = drained.then(|()| tokio::time::sleep(DRAIN_GRACE)).map(|()| Err(status::reconnect()));
    let failures = failures.chain(stream::once(over));
    Ok(ended_by(failures_first(failures.boxed(), rows), late(left(deadline, &watch))))
}

/// The rows, until they end or there is a failure.
fn failures_first(mut failures: Answers, mut rows: Rows) -> Rows {
    let mut has_failures = true;
    stream::poll_fn(move |context| {
        if has_failures && let Poll::Ready(failure) = failures.poll_next_unpin(context) {
            match failure {
                Some(failure) => return Poll::Ready(Some(failure)),
                None => has_failures = false,
            }
        }
        rows.poll_next_unpin(context)
    })
    .boxed()
}

/// What is left of a deadline.
fn left(deadline: Option<Duration>, watch: &Stopwatch) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_sub(watch.elapsed()))
}

/// When the deadline is over, with the status for it.
fn late(deadline: Option<Duration>) -> BoxFuture<'static, Status> {
    match deadline {
        None => futures::future::pending().boxed(),
        Some(deadline) => tokio::time::sleep(deadline).map(|()| status::too_late()).boxed(),
    }
}

/// The stream up to its first error, or up to the status of `end`.
fn ended_by(mut answers: Answers, mut end: BoxFuture<'static, Status>) -> Answers {
    let mut is_over = false;
    stream::poll_fn(move |context| {
        if is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = end.poll_unpin(context) {
            is_over = true;
            return Poll::Ready(Some(Err(status)));
        }
        let next = std::task::ready!(answers.poll_next_unpin(context));
        is_over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    })
    .boxed()
}
