//! Who is subscribed, and how far each has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The subscribers of a hub.
#[derive(Debug, Default)]
pub(super) struct Registry {
    seats: Mutex<Seats>,
    /// Somebody came.
    pub(super) arrival: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    /// The version that each is at; a free seat is `None`.
    taken: Vec<Option<Arc<AtomicU64>>>,
    free: Vec<usize>,
}

/// The seat of one subscriber. It is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    registry: Arc<Registry>,
    number: usize,
    version: Arc<AtomicU64>,
}

impl Registry {
    /// A seat, if there is one.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Option<Seat> {
        let version = Arc::new(AtomicU64::new(u64::MAX));
        let mut seats = self.seats.lock();
        let number = match seats.free.pop() {
            Some(number) => number,
            None if seats.taken.len() < max => {
                seats.taken.push(None);
                seats.taken.len() - 1
            }
            None => return None,
        };
        if let Some(seat) = seats.taken.get_mut(number) {
            *seat = Some(version.clone());
        }
        drop(seats);
        self.arrival.notify_one();
        Some(Seat { registry: self.clone(), number, version })
    }

    /// The number of subscribers.
    pub(super) fn len(&self) -> usize {
        let seats = self.seats.lock();
        seats.taken.len() - seats.free.len()
    }

    /// How many versions up to `newest` the farthest one has before it, and all together.
    pub(super) fn lag(&self, newest: u64) -> (u64, u64) {
        let seats = self.seats.lock();
        let lags = seats.taken.iter().flatten().map(|version| {
            let at = version.load(Ordering::Relaxed);
            newest.saturating_add(1).saturating_sub(at)
        });
        lags.fold((0, 0), |(max, sum), lag| (max.max(lag), sum + lag))
    }
}

impl Seat {
    /// The subscriber has come to this version.
    pub(super) fn is_at(&self, version: u64) {
        self.version.store(version, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.registry.seats.lock();
        if let Some(seat) = seats.taken.get_mut(self.number) {
            *seat = None;
        }
        seats.free.push(self.number);
    }
}
