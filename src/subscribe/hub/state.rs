//! What the hub, its reader and its subscribers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::registry::Registry;
use super::ring::{Behind, Ring};
use super::signal::Bell;
use crate::error::{Error, Result};
use crate::subscribe::cursor::{Place, TableId};
use crate::subscribe::ending::{Code, Ending};
use crate::subscribe::metrics::Counters;
use crate::subscribe::options::HubOptions;
use crate::subscribe::versions::{ReadFault, Rows, Versions};

/// The shared state of a hub.
#[derive(Debug)]
pub(super) struct State {
    pub(super) versions: Arc<dyn Versions>,
    pub(super) options: HubOptions,
    /// `None` until the reader has looked where the head is.
    ring: Mutex<Option<Ring>>,
    /// The newest version that was seen.
    newest: AtomicU64,
    /// Which table it is, as long as somebody keeps looking. Who finds nothing looks for all.
    table: tokio::sync::Mutex<Option<TableId>>,
    pub(super) bell: Bell,
    pub(super) registry: Arc<Registry>,
    /// Turns to read old versions.
    pub(super) readers: Semaphore,
    pub(super) counters: Arc<Counters>,
    /// Somebody says that there is a new version.
    pub(super) news: Notify,
}

impl State {
    pub(super) fn new(versions: Arc<dyn Versions>, options: HubOptions) -> Self {
        Self {
            versions,
            readers: Semaphore::new(options.readers),
            options,
            ring: Mutex::default(),
            newest: AtomicU64::new(0),
            table: tokio::sync::Mutex::default(),
            bell: Bell::new(),
            registry: Arc::default(),
            counters: Arc::default(),
            news: Notify::new(),
        }
    }

    /// Does something with the ring, if there is one.
    pub(super) fn with_ring<T>(&self, with: impl FnOnce(&mut Ring) -> T) -> Option<T> {
        self.ring.lock().as_mut().map(with)
    }

    /// Begins with an empty ring at a place.
    pub(super) fn begin_ring(&self, place: Place) {
        *self.ring.lock() = Some(Ring::at(place));
    }

    /// The same, unless there is a ring already: the first one who subscribes to what comes next says where that is.
    pub(super) fn begin_ring_once(&self, place: Place) {
        self.ring.lock().get_or_insert_with(|| Ring::at(place));
    }

    /// Nobody reads, or from somewhere else from now on.
    pub(super) fn forget_ring(&self) {
        *self.ring.lock() = None;
    }

    /// What lies behind a place.
    pub(super) fn behind(&self, place: Place) -> Behind {
        self.with_ring(|ring| ring.behind(place)).unwrap_or(Behind::Nothing(place))
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Looks for the newest version, beginning with the one that is known.
    pub(super) async fn look_for_newest(&self, known: Option<u64>) -> Result<u64> {
        let newest = self.versions.newest(known).await?;
        self.newest.store(newest, Ordering::Relaxed);
        Ok(newest)
    }

    /// Which table it is.
    pub(super) async fn table(&self) -> Result<TableId> {
        let mut known = self.table.lock().await;
        match *known {
            Some(table) => Ok(table),
            None => Ok(*known.insert(self.versions.table().await?)),
        }
    }

    /// Looks again which table it is. Returns whether it is still the same.
    pub(super) async fn look_at_table(&self) -> Result<bool> {
        let table = self.versions.table().await?;
        let mut known = self.table.lock().await;
        Ok(known.replace(table).is_none_or(|known| known == table))
    }

    /// Nobody keeps looking which table it is.
    pub(super) async fn forget_table(&self) {
        *self.table.lock().await = None;
    }

    /// The version is gone: what there is instead.
    pub(super) async fn gone(&self, version: u64) -> Ending {
        match self.oldest_readable(version).await {
            Ok(oldest) => self.out_of_range(version, oldest),
            Err(error) => Ending::from(&error),
        }
    }

    /// The oldest version after one that is gone whose rows are all there, as far as versions go one after the other.
    async fn oldest_readable(&self, gone: u64) -> Result<u64> {
        let mut low = self.versions.oldest().await?.max(gone.saturating_add(1));
        let mut high = self.newest().max(low);
        while low < high {
            let middle = low + (high - low) / 2;
            let first = match self.versions.rows(middle, 0).await {
                Ok(mut rows) => rows.next().await.transpose().map(drop),
                Err(fault) => Err(fault),
            };
            match first {
                Ok(()) => high = middle,
                Err(ReadFault::Gone) => low = middle + 1,
                Err(ReadFault::Failed(error)) => return Err(error),
            }
        }
        Ok(low)
    }

    /// A version before the oldest one that can be read.
    pub(super) fn out_of_range(&self, version: u64, oldest: u64) -> Ending {
        Ending::new(
            Code::OutOfRange,
            format!(
                "version {version} of table {} can no longer be read; the oldest version is {oldest}: subscribe with \
                 `from_version` {oldest} or `start` `earliest`; the rows in between are lost to this subscription",
                self.versions.name()
            ),
        )
    }

    /// Rows have to follow the ones before.
    pub(super) fn check_gap(&self, rows: &Rows, place: Place) -> Result<()> {
        if rows.first <= place.rows {
            return Ok(());
        }
        Err(Error::violated(format!(
            "version {} of table {} was read from row {} on instead of row {}; look whether its log was changed",
            place.version,
            self.versions.name(),
            rows.first,
            place.rows
        )))
    }
}
