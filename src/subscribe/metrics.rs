//! What a hub tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a hub, as they are now. The names are those of the Prometheus metrics, after `flumen_subscribe_`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Subscribers now.
    pub subscribers: u64,
    /// Versions that the subscriber farthest behind has not been through yet.
    pub max_lag_versions: u64,
    /// The same of all subscribers together.
    pub sum_lag_versions: u64,
    /// The newest version that is known.
    pub newest_version: u64,
    /// Messages that clients took, since the start.
    pub rows_sent: u64,
    /// Versions that were read once for all, since the start.
    pub versions_read: u64,
    /// Versions that a subscriber read by itself, since the start.
    pub versions_read_alone: u64,
    /// Bytes of the ring.
    pub ring_bytes: u64,
    /// Chunks in the ring.
    pub ring_chunks: u64,
    /// Subscribers that were sent back to their cursor, since the start.
    pub sent_back: u64,
    /// Reads of the table that failed, since the start.
    pub read_failures: u64,
}

impl Metrics {
    /// Each counter's name, whether it only grows, and its value.
    pub fn named(&self) -> [(&'static str, bool, u64); 11] {
        [
            ("subscribers", false, self.subscribers),
            ("max_lag_versions", false, self.max_lag_versions),
            ("sum_lag_versions", false, self.sum_lag_versions),
            ("newest_version", false, self.newest_version),
            ("rows_sent_total", true, self.rows_sent),
            ("versions_read_total", true, self.versions_read),
            ("versions_read_alone_total", true, self.versions_read_alone),
            ("ring_bytes", false, self.ring_bytes),
            ("ring_chunks", false, self.ring_chunks),
            ("sent_back_total", true, self.sent_back),
            ("read_failures_total", true, self.read_failures),
        ]
    }
}

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters that are kept; the others are looked up when somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows_sent: Counter,
    pub(crate) versions_read: Counter,
    pub(crate) versions_read_alone: Counter,
    pub(crate) sent_back: Counter,
    pub(crate) read_failures: Counter,
}
