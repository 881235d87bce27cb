//! The hub of one table.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::outlet::Outlet;
use super::pump::Pump;
use super::reader::Reader;
use super::state::State;
use super::subscription::Subscription;
use crate::error::Result;
use crate::subscribe::cursor::{Cursor, Place, TableId};
use crate::subscribe::ending::{Code, Ending};
use crate::subscribe::filter::Filter;
use crate::subscribe::metrics::Metrics;
use crate::subscribe::options::HubOptions;
use crate::subscribe::start::Start;
use crate::subscribe::versions::Versions;

/// The subscribers of one table.
#[derive(Debug, Clone)]
pub struct Hub {
    state: Arc<State>,
}

impl Hub {
    /// A hub for a table. Nothing happens until [`Hub::run`] is polled.
    ///
    /// # Errors
    /// `Invalid` when a limit is 0.
    pub fn new(versions: Arc<dyn Versions>, options: HubOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { state: Arc::new(State::new(versions, options)) })
    }

    /// Reads new versions for all subscribers, until the hub is drained. It is run once, as a task of its own.
    pub async fn run(&self) {
        Reader::new(self.state.clone()).run().await;
    }

    /// A new version was committed: the hub looks at once instead of at its next poll. Only a pipeline in the same
    /// process knows it.
    pub fn tell_news(&self) {
        self.state.news.notify_one();
    }

    /// Begins a subscription. It must be called in a tokio runtime: each subscription is a task.
    ///
    /// # Errors
    /// The status that the call ends with: too many subscribers, a cursor of another table, a place that cannot be
    /// read, no table.
    pub async fn subscribe(&self, outlet: &Arc<Outlet>, filter: Filter, start: Start) -> Result<Subscription, Ending> {
        let state = &self.state;
        if state.bell.is_draining() {
            return Err(going_down());
        }
        let signal = state.bell.listen();
        let epoch = signal.borrow().epoch;
        let seat = state.registry.take(state.options.max_subscribers).ok_or_else(|| self.is_full())?;
        let table = state.table().await.map_err(|error| Ending::from(&error))?;
        let place = self.place(start, table).await?;
        // From the earliest on is what can still be read: what was vacuumed on the way is passed over.
        let passes_over = if start == Start::Earliest { state.newest() } else { 0 };
        seat.is_at(place.version);
        let (parcels, queue) = mpsc::channel(state.options.queue_chunks);
        let (ending, ended) = oneshot::channel();
        let (state, outlet) = (state.clone(), outlet.clone());
        let subscription = Subscription::new(queue, ended, table, state.counters.clone());
        let pump = Pump { state, outlet, filter, table, place, passes_over, epoch, seat, parcels, signal };
        tokio::spawn(pump.run(ending));
        Ok(subscription)
    }

    /// Ends all subscriptions and lets no more begin: clients are told to connect again. What is in their queues is
    /// still sent.
    pub fn drain(&self) {
        self.state.bell.end(going_down(), true);
        self.state.news.notify_one();
    }

    /// The counters as they are now.
    pub fn metrics(&self) -> Metrics {
        let state = &self.state;
        let newest = state.newest();
        let (max_lag_versions, sum_lag_versions) = state.registry.lag(newest);
        let (ring_bytes, ring_chunks) = state.with_ring(|ring| (ring.bytes(), ring.len())).unwrap_or_default();
        Metrics {
            subscribers: state.registry.len() as u64,
            max_lag_versions,
            sum_lag_versions,
            newest_version: newest,
            rows_sent: state.counters.rows_sent.get(),
            versions_read: state.counters.versions_read.get(),
            versions_read_alone: state.counters.versions_read_alone.get(),
            ring_bytes: ring_bytes as u64,
            ring_chunks: ring_chunks as u64,
            sent_back: state.counters.sent_back.get(),
            read_failures: state.counters.read_failures.get(),
        }
    }

    /// Where a subscription begins.
    async fn place(&self, start: Start, table: TableId) -> Result<Place, Ending> {
        let failed = |error| Ending::from(&error);
        let state = &self.state;
        let newest = state.look_for_newest(None).await.map_err(failed)?;
        let place = match start {
            Start::Latest => {
                let place = Place::before(newest).next_version();
                state.begin_ring_once(place);
                return Ok(place);
            }
            Start::Earliest => {
                return Ok(Place::before(state.versions.oldest().await.map_err(failed)?.min(newest)));
            }
            Start::Version(version) => Place::before(version),
            Start::Cursor(Cursor { table: other, .. }) if other != table => return Err(self.is_another()),
            // Behind the newest version, when nothing of the next one was there yet.
            Start::Cursor(cursor) if cursor.place == Place::before(newest).next_version() => return Ok(cursor.place),
            Start::Cursor(cursor) => cursor.place,
        };
        if place.version > newest {
            return Err(self.is_to_come(place.version, newest));
        }
        let oldest = state.versions.oldest().await.map_err(failed)?;
        if place.version < oldest {
            return Err(state.out_of_range(place.version, oldest));
        }
        Ok(place)
    }

    fn is_full(&self) -> Ending {
        Ending::new(
            Code::ResourceExhausted,
            format!(
                "table {} has {} subscribers, which is the limit: try again later, or raise it",
                self.state.versions.name(),
                self.state.options.max_subscribers
            ),
        )
    }

    fn is_another(&self) -> Ending {
        Ending::new(
            Code::FailedPrecondition,
            format!(
                "the cursor is of another table than {} is now, or of one that was deleted and made again: subscribe \
                 without it",
                self.state.versions.name()
            ),
        )
    }

    fn is_to_come(&self, version: u64, newest: u64) -> Ending {
        Ending::new(
            Code::OutOfRange,
            format!(
                "table {} has no version {version} yet; the newest is {newest}: subscribe with `start` `latest` for \
                 what comes next",
                self.state.versions.name()
            ),
        )
    }
}

fn going_down() -> Ending {
    Ending::new(Code::Unavailable, "the server is going down: connect again with the last cursor")
}
