//! What happens on one connection: whether it is idle, and whether its client cancels call after call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A connection, as its calls see it.
#[derive(Debug, Clone)]
pub(super) struct ConnectionInfo {
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// The subject of the client's certificate.
    pub(super) subject: Option<Arc<str>>,
    /// What happens on it.
    pub(super) activity: Arc<Activity>,
}

/// Counts of one connection's calls.
#[derive(Debug)]
pub(super) struct Activity {
    started: AtomicU64,
    ended: AtomicU64,
    cancelled: AtomicU64,
    most_cancelled: u64,
    abused: Notify,
}

impl Activity {
    /// For a connection whose client may cancel so many calls more than it lets end.
    pub(super) fn new(most_cancelled: u64) -> Self {
        Self {
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            most_cancelled,
            abused: Notify::new(),
        }
    }

    pub(super) fn call_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call_cancelled(&self) {
        let cancelled = self.cancelled.fetch_add(1, Ordering::Relaxed) + 1;
        if cancelled > self.ended.load(Ordering::Relaxed).saturating_add(self.most_cancelled) {
            self.abused.notify_one();
        }
    }

    /// Waits until too many calls were cancelled.
    pub(super) async fn is_abused(&self) {
        self.abused.notified().await;
    }

    /// How many calls have started so far, and whether one is open.
    pub(super) fn calls(&self) -> (u64, bool) {
        let started = self.started.load(Ordering::Relaxed);
        let over = self.ended.load(Ordering::Relaxed) + self.cancelled.load(Ordering::Relaxed);
        (started, started > over)
    }
}
