//! The one read of each version: from the table into the ring.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::sleep;

use super::chunk::Chunk;
use super::state::State;
use super::timer::Timer;
use crate::error::{Error, ErrorKind};
use crate::subscribe::cursor::Place;
use crate::subscribe::ending::{Code, Ending};
use crate::subscribe::versions::ReadFault;

/// So long after the last new version the table is looked at less often.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// The longest pause while the store is away.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Keeps the ring at the head of the table.
pub(super) struct Reader {
    state: Arc<State>,
    /// The head has to be looked for anew.
    is_fresh: bool,
    /// Over when there was nothing new for a while.
    quiet: Timer,
    /// Over when it is time to look which table it is.
    identity: Timer,
    /// While the store is away: over when it was so for too long, and the next pause.
    outage: Option<(Timer, Duration)>,
}

impl Reader {
    pub(super) fn new(state: Arc<State>) -> Self {
        let identity = Timer::new(state.options.identity_interval);
        Self { state, is_fresh: true, quiet: Timer::new(IDLE_AFTER), identity, outage: None }
    }

    /// Reads as long as the hub is not drained. Without subscribers it waits for one.
    pub(super) async fn run(mut self) {
        let mut signal = self.state.bell.listen();
        while !self.state.bell.is_draining() {
            if self.state.registry.len() == 0 {
                self.forget();
                self.state.forget_table().await;
                let state = self.state.clone();
                tokio::select! {
                    () = state.registry.arrival.notified() => {}
                    _ = signal.changed() => {}
                }
                continue;
            }
            let pause = match self.step().await {
                Ok(true) => {
                    self.outage = None;
                    self.quiet = Timer::new(IDLE_AFTER);
                    continue;
                }
                Ok(false) => {
                    self.outage = None;
                    match self.quiet.is_over() {
                        true => self.state.options.idle_interval,
                        false => self.state.options.poll_interval,
                    }
                }
                Err(error) => self.failed(&error),
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.state.news.notified() => {}
            }
        }
    }

    /// Reads the next version, if there is one. Returns whether something was new.
    async fn step(&mut self) -> Result<bool, Error> {
        let known = if self.is_fresh { None } else { Some(self.state.newest()) };
        let due = self.identity.is_over();
        let newest = self.state.look_for_newest(known).await?;
        if self.is_fresh || due || known.is_some_and(|known| newest < known) {
            self.identity = Timer::new(self.state.options.identity_interval);
            if !self.state.look_at_table().await? {
                self.state.bell.end(self.another_table(), false);
                self.forget();
                return Ok(true);
            }
        }
        if self.is_fresh {
            self.state.begin_ring_once(Place::before(newest).next_version());
            self.is_fresh = false;
            self.state.bell.ring();
            return Ok(true);
        }
        match self.state.with_ring(|ring| ring.end()) {
            Some(place) if place.version <= newest => match self.read(place).await {
                Ok(()) => Ok(true),
                Err(ReadFault::Failed(error)) => Err(error),
                // Who is there sees for itself that it is gone.
                Err(ReadFault::Gone) => {
                    self.state.begin_ring(place.next_version());
                    self.state.bell.ring();
                    Ok(true)
                }
            },
            _ => Ok(false),
        }
    }

    /// Reads the rest of a version into the ring.
    async fn read(&self, mut place: Place) -> Result<(), ReadFault> {
        let state = &self.state;
        let version = place.version;
        let mut stream = state.versions.rows(version, place.rows).await?;
        while let Some(rows) = stream.next().await {
            let rows = rows?;
            state.check_gap(&rows, place)?;
            for chunk in Chunk::cut(rows, place, &state.options) {
                place = chunk.end();
                state.with_ring(|ring| ring.push(Arc::new(chunk), &state.options));
                state.bell.ring();
                // Subscribers get their turn between chunks.
                tokio::task::yield_now().await;
            }
        }
        state.with_ring(|ring| ring.finish(version));
        state.counters.versions_read.add(1);
        state.bell.ring();
        Ok(())
    }

    /// Where the head is, is looked for anew.
    fn forget(&mut self) {
        self.is_fresh = true;
        self.state.forget_ring();
    }

    /// The table could not be read. Returns how long to wait.
    fn failed(&mut self, error: &Error) -> Duration {
        self.state.counters.read_failures.add(1);
        let state = self.state.clone();
        let begin = || (Timer::new(state.options.outage_limit), state.options.poll_interval);
        let (mut limit, pause) = self.outage.take().unwrap_or_else(begin);
        let is_over = limit.is_over();
        if error.kind() != ErrorKind::Unavailable || is_over {
            self.state.bell.end(Ending::from(error), false);
            self.forget();
        }
        let limit = if is_over { begin().0 } else { limit };
        self.outage = Some((limit, (pause * 2).min(MAX_PAUSE)));
        pause
    }

    fn another_table(&self) -> Ending {
        Ending::new(
            Code::FailedPrecondition,
            format!(
                "table {} was deleted and made again; its cursors are no longer valid: subscribe without one",
                self.state.versions.name()
            ),
        )
    }
}
