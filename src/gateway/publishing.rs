//! From a message to an acknowledged record.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tonic::Status;

use super::caller::Caller;
use super::idempotency::{Claim, Idempotency, Outcome, Repeat};
use super::metrics::Metrics;
use super::publisher::{Placed, PublishError, PublishErrorKind, Record};
use super::queue::{Queue, Sent};
use super::recall;
use super::response::Answer;
use super::rules::PublishPlan;
use super::stamp::{self, Facts};
use super::status;
use super::validate::{BrokenRule, Refusal, Validation};
use super::wire::WireFault;
use crate::clock::{Clock, Stopwatch};

/// What all methods publish with.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) queue: Arc<Queue>,
    pub(super) idempotency: Arc<Idempotency>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

/// How the messages of one method become records.
#[derive(Debug)]
pub(super) struct Publishing {
    plan: PublishPlan,
    path: Arc<str>,
    topic: Arc<str>,
    validation: Arc<Validation>,
    means: Means,
}

/// A message that is under way.
#[derive(Debug)]
pub(super) struct Submitted {
    state: State,
    watch: Stopwatch,
}

#[derive(Debug)]
enum State {
    Sent(Sent),
    /// As `Sent`, by a task that also remembers the outcome.
    Remembered(JoinHandle<Outcome>),
    Again(Repeat),
}

impl Publishing {
    /// `validation` is of the plan's message.
    pub(super) fn new(plan: PublishPlan, path: Arc<str>, validation: Arc<Validation>, means: Means) -> Self {
        let topic = Arc::from(plan.topic.as_str());
        Self { plan, path, topic, validation, means }
    }

    /// Takes a message of a call, `index` being its number on a stream. Messages are in the topic in the order of these
    /// calls.
    pub(super) async fn submit(
        &self,
        caller: &Caller,
        index: Option<u64>,
        payload: Bytes,
    ) -> Result<Submitted, Status> {
        caller.messages.fetch_add(1, Ordering::Relaxed);
        let watch = Stopwatch::start();
        let (key, value) = self.prepared(caller, index, &payload).map_err(|refusal| {
            self.means.metrics.refused.fetch_add(1, Ordering::Relaxed);
            status::refused(refusal)
        })?;
        if let (Some(follows), Some(Ok(key))) = (&caller.follows, key.as_deref().map(std::str::from_utf8)) {
            follows.add(key);
        }
        let (mut headers, mut turn) = (Vec::new(), None);
        if let Some(idempotency_key) = &caller.idempotency_key {
            let scope = [&*self.path, &*caller.principal.name, &**idempotency_key];
            match self.means.idempotency.claim(scope, index, &payload) {
                Claim::First(first) => turn = Some(first),
                Claim::Differs => return Err(status::key_differs()),
                Claim::Full => return Err(self.too_many_keys()),
                Claim::NotYet => {
                    let message = "the idempotency keys of before are still being read; try again";
                    return Err(status::unavailable(message));
                }
                Claim::Again(repeat) => {
                    self.means.metrics.repeated.fetch_add(1, Ordering::Relaxed);
                    return Ok(Submitted { state: State::Again(repeat), watch });
                }
            }
            headers.push(("idempotency-key", header(idempotency_key, index)));
            headers.extend(turn.as_ref().map(|turn| (recall::HEADER, turn.header())));
        }
        let size = value.len() + key.as_ref().map_or(0, Bytes::len);
        let room = self.means.queue.room(size).await;
        let room = room.ok_or_else(|| status::unavailable("too many records wait for the broker; try again later"))?;
        let record = Record { topic: Arc::clone(&self.topic), key, value, headers };
        let sent = self.means.queue.send(room, record).await;
        self.count_queue();
        let state = match turn {
            None => State::Sent(sent),
            // The outcome is remembered also when the client does not wait for it.
            Some(turn) => State::Remembered(tokio::spawn(async move {
                let outcome = sent.outcome().await;
                turn.finish(&outcome);
                outcome
            })),
        };
        Ok(Submitted { state, watch })
    }

    /// The key and the value of the record.
    fn prepared(
        &self,
        caller: &Caller,
        index: Option<u64>,
        payload: &Bytes,
    ) -> Result<(Option<Bytes>, Bytes), Refusal> {
        let broken = |fault: WireFault| {
            Refusal::Wrong(vec![BrokenRule { field: String::new(), description: fault.to_string() }])
        };
        self.validation.decodes(payload)?;
        let request_id = match index {
            Some(index) if !self.plan.stamps.is_empty() => format!("{}-{index}", caller.request_id),
            _ => caller.request_id.to_string(),
        };
        let facts = Facts { time: self.means.clock.now(), request_id: &request_id, peer: caller.peer };
        let value = stamp::stamp(payload, &self.plan.stamps, &facts).map_err(broken)?;
        self.validation.keeps_rules(&value)?;
        let key = self.plan.key.as_ref().map(|key| key.of(&value)).transpose().map_err(broken)?.flatten();
        Ok((key, value))
    }

    fn count_queue(&self) {
        self.means.metrics.queue.store(self.means.queue.length() as u64, Ordering::Relaxed);
    }

    fn too_many_keys(&self) -> Status {
        status::exhausted("no more idempotency keys can be remembered; try again later", Some(status::RETRY))
    }

    /// Waits until a message is acknowledged.
    pub(super) async fn acknowledged(&self, submitted: Submitted) -> Result<Placed, Status> {
        let Submitted { state, watch } = submitted;
        let (is_first, has_key) = (!matches!(state, State::Again(_)), !matches!(state, State::Sent(_)));
        let wait = self.means.queue.acknowledgement();
        let outcome = tokio::time::timeout(wait, state.outcome()).await.map_err(|_| status::unacknowledged())?;
        self.count_queue();
        let placed = status::of_outcome(outcome, has_key)?;
        if is_first {
            self.means.metrics.acknowledged(watch.elapsed());
        }
        Ok(placed)
    }

    /// The response to an acknowledged message.
    pub(super) fn response(&self, placed: Placed, message: &str) -> Bytes {
        let place = Some((&*self.topic, placed.partition, placed.offset));
        self.plan.response.encode(&Answer { code: 0, message, place })
    }

    /// The response to an upload of nothing.
    pub(super) fn empty_response(&self, message: &str) -> Bytes {
        self.plan.response.encode(&Answer { code: 0, message, place: None })
    }

    /// Whether a refusal can be said in a response, so that a stream goes on.
    pub(super) fn answers_refusals(&self) -> bool {
        self.plan.response.has_code()
    }

    /// The response to a message that is refused, when it can be said in one and the stream goes on.
    pub(super) fn refusal(&self, status: &Status) -> Option<Bytes> {
        let code = i32::from(status.code());
        let answer = Answer { code, message: status.message(), place: None };
        (self.answers_refusals() && is_about_the_message(status)).then(|| self.plan.response.encode(&answer))
    }
}

/// Whether a status says that one message is wrong: the next one may be right.
pub(super) fn is_about_the_message(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition)
}

impl State {
    async fn outcome(self) -> Outcome {
        let error = |kind, message: &str| Err(PublishError { kind, message: message.to_owned() });
        match self {
            State::Sent(sent) => sent.outcome().await,
            State::Remembered(task) => {
                task.await.unwrap_or_else(|_| error(PublishErrorKind::Uncertain, "publishing ended without a result"))
            }
            State::Again(repeat) => repeat.outcome().await.unwrap_or_else(|| {
                error(PublishErrorKind::Away, "the first message with this idempotency-key was given up")
            }),
        }
    }
}

/// How long a call that brings one message may take.
pub(super) fn shorter(deadline: Option<Duration>, most: Duration) -> Duration {
    deadline.map_or(most, |deadline| deadline.min(most))
}

/// The record's header: the key, and on a stream the message's number.
fn header(key: &str, index: Option<u64>) -> Bytes {
    match index {
        None => Bytes::copy_from_slice(key.as_bytes()),
        Some(index) => Bytes::from(format!("{key}/{index}")),
    }
}
