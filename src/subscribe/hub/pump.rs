//! The task of one subscriber: it moves the place and fills the queue.

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::chunk::{Chunk, Parcel};
use super::outlet::Outlet;
use super::registry::Seat;
use super::ring::Behind;
use super::signal::Signal;
use super::state::State;
use crate::error::Error;
use crate::subscribe::cursor::{Cursor, Place, TableId};
use crate::subscribe::ending::{Code, Ending};
use crate::subscribe::filter::Filter;
use crate::subscribe::versions::ReadFault;

/// One subscriber.
pub(super) struct Pump {
    pub(super) state: Arc<State>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) filter: Filter,
    pub(super) table: TableId,
    /// Every wanted row before it is in the queue, or was.
    pub(super) place: Place,
    /// Versions before this one that are gone are passed over.
    pub(super) passes_over: u64,
    /// Subscriptions of earlier epochs have ended.
    pub(super) epoch: u64,
    pub(super) seat: Seat,
    /// In boxes: a queue has room for 32 from the start, and most wait for nothing.
    pub(super) parcels: mpsc::Sender<Box<Parcel>>,
    pub(super) signal: watch::Receiver<Signal>,
}

/// Why a subscriber's task ends.
enum Stop {
    /// The client has gone.
    Left,
    /// The subscription ends.
    Ended(Box<Ending>),
}

/// How far a subscriber came that reads by itself.
enum Alone {
    /// Through the version.
    Through,
    /// The queue is full.
    Full,
}

impl From<Ending> for Stop {
    fn from(ending: Ending) -> Self {
        Stop::Ended(Box::new(ending))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Ending::from(&error).into()
    }
}

impl Pump {
    /// Moves on until the subscription ends or the client has gone.
    pub(super) async fn run(mut self, ending: oneshot::Sender<Ending>) {
        if let Err(Stop::Ended(last)) = self.pump().await {
            let cursor = Cursor { table: self.table, place: self.place };
            // The client may have gone meanwhile.
            let _ = ending.send(last.at(cursor));
        }
    }

    async fn pump(&mut self) -> Result<(), Stop> {
        loop {
            // The bell is looked at before the ring: what comes in between rings again.
            self.check()?;
            self.seat.is_at(self.place.version);
            match self.state.behind(self.place) {
                Behind::Chunk(chunk) => {
                    // Nothing lies between the place and the chunk.
                    self.place = self.place.max(chunk.first);
                    self.take(&chunk).await?;
                }
                Behind::Elsewhere => Box::pin(self.read_alone()).await?,
                Behind::Nothing(place) => {
                    self.place = place;
                    self.seat.is_at(self.place.version);
                    tokio::select! {
                        _ = self.signal.changed() => {}
                        () = self.parcels.closed() => return Err(Stop::Left),
                    }
                }
            }
        }
    }

    /// Whether all subscriptions were ended.
    fn check(&mut self) -> Result<(), Stop> {
        let signal = self.signal.borrow_and_update();
        match &signal.ending {
            Some(ending) if signal.epoch != self.epoch => Err(Ending::clone(ending).into()),
            _ => Ok(()),
        }
    }

    /// Puts what is wanted of a shared chunk into the queue.
    async fn take(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        if self.offer(chunk, true)? {
            tokio::task::consume_budget().await;
            return Ok(());
        }
        Box::pin(self.room(1)).await
    }

    /// Puts what is wanted of a chunk into the queue and moves behind it; `false` when the queue is full.
    fn offer(&mut self, chunk: &Chunk, shared: bool) -> Result<bool, Stop> {
        if self.parcels.capacity() == 0 && !self.parcels.is_closed() {
            return Ok(false);
        }
        let parcel = chunk.parcel(self.place, &self.outlet, &self.filter, self.table, shared)?;
        let Some(mut parcel) = parcel else {
            self.place = chunk.end();
            return if self.parcels.is_closed() { Err(Stop::Left) } else { Ok(true) };
        };
        let fault = parcel.cut_at_fault();
        if !parcel.rows.is_empty() {
            match self.parcels.try_send(Box::new(parcel)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return Ok(false),
                Err(TrySendError::Closed(_)) => return Err(Stop::Left),
            }
        }
        match fault {
            None => {
                self.place = chunk.end();
                Ok(true)
            }
            Some((place, reason)) => {
                self.place = place;
                Err(Ending::new(Code::FailedPrecondition, reason).into())
            }
        }
    }

    /// Waits until the queue has room. A client that takes nothing for too long is sent back to its cursor.
    async fn room(&mut self, chunks: usize) -> Result<(), Stop> {
        let limit = tokio::time::sleep(self.state.options.stall_limit);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                room = self.parcels.reserve_many(chunks) => return room.map(drop).map_err(|_| Stop::Left),
                _ = self.signal.changed() => {}
                () = &mut limit => {
                    self.state.counters.sent_back.add(1);
                    return Err(self.sent_back().into());
                }
            }
            self.check()?;
        }
    }

    fn sent_back(&self) -> Ending {
        Ending::new(
            Code::Aborted,
            format!(
                "the client took no message of table {} for {:?}: connect again with the last cursor, and read faster \
                 or filter more",
                self.state.versions.name(),
                self.state.options.stall_limit
            ),
        )
    }

    /// Reads what the ring no longer has: one version, then it is somebody else's turn. While the queue is full nothing
    /// is held.
    async fn read_alone(&mut self) -> Result<(), Stop> {
        let state = self.state.clone();
        let turn = loop {
            tokio::select! {
                turn = state.readers.acquire() => break turn,
                _ = self.signal.changed() => self.check()?,
                () = self.parcels.closed() => return Err(Stop::Left),
            }
        };
        let came = self.read_version().await?;
        drop(turn);
        match came {
            Alone::Through => {
                self.place = self.place.next_version();
                Ok(())
            }
            Alone::Full => self.room(self.parcels.max_capacity().div_ceil(2)).await,
        }
    }

    async fn read_version(&mut self) -> Result<Alone, Stop> {
        let version = self.place.version;
        self.state.counters.versions_read_alone.add(1);
        let mut stream = match self.state.versions.rows(version, self.place.rows).await {
            Ok(stream) => stream,
            Err(ReadFault::Gone) if version < self.passes_over => return Ok(Alone::Through),
            Err(fault) => return Err(self.unreadable(version, fault).await),
        };
        while let Some(rows) = stream.next().await {
            let rows = match rows {
                Ok(rows) => rows,
                Err(ReadFault::Gone) if version < self.passes_over => return Ok(Alone::Through),
                Err(fault) => return Err(self.unreadable(version, fault).await),
            };
            self.state.check_gap(&rows, self.place)?;
            for chunk in Chunk::cut(rows, self.place, &self.state.options) {
                if !self.offer(&chunk, false)? {
                    return Ok(Alone::Full);
                }
                self.check()?;
                tokio::task::consume_budget().await;
            }
        }
        Ok(Alone::Through)
    }

    async fn unreadable(&self, version: u64, fault: ReadFault) -> Stop {
        match fault {
            ReadFault::Gone => self.state.gone(version).await.into(),
            ReadFault::Failed(error) => {
                self.state.counters.read_failures.add(1);
                error.into()
            }
        }
    }
}
