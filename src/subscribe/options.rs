//! The limits of a hub. Everything that a subscription may hold is bounded by one of them.

use std::time::Duration;

use crate::error::{Error, Result};

/// The limits of the hub of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Subscribers at once. Default: 10,000.
    pub max_subscribers: usize,
    /// Bytes of the recent rows that subscribers share, as columns and as messages. One chunk may be over it. Default:
    /// 64 MiB.
    pub ring_bytes: usize,
    /// Versions whose rows are shared. Default: 256.
    pub ring_versions: usize,
    /// Rows that are filtered and encoded at once. Default: 1,024.
    pub chunk_rows: usize,
    /// Bytes of the columns that are filtered and encoded at once; a single row may be over it. Default: 1 MiB.
    pub chunk_bytes: usize,
    /// Bytes of one message. A row that is longer ends the subscriptions that want it. Default: 4 MiB.
    pub message_bytes: usize,
    /// Chunks that wait for a client to take them. Default: 4.
    pub queue_chunks: usize,
    /// How long they may wait before the client is sent back to its cursor. Default: 30 seconds.
    pub stall_limit: Duration,
    /// Subscribers that read old versions at once, one version each; others wait for their turn. Default: 4.
    pub readers: usize,
    /// How often a new version is looked for. Default: 20 milliseconds.
    pub poll_interval: Duration,
    /// The same after a second without one. With the time that reading takes it bounds how old a message is when it is
    /// sent. Default: 40 milliseconds.
    pub idle_interval: Duration,
    /// How often is looked whether it is still the same table. Default: 1 second.
    pub identity_interval: Duration,
    /// How long the store may be away before subscriptions end. Default: 30 seconds.
    pub outage_limit: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            max_subscribers: 10_000,
            ring_bytes: 64 << 20,
            ring_versions: 256,
            chunk_rows: 1_024,
            chunk_bytes: 1 << 20,
            message_bytes: 4 << 20,
            queue_chunks: 4,
            stall_limit: Duration::from_secs(30),
            readers: 4,
            poll_interval: Duration::from_millis(20),
            idle_interval: Duration::from_millis(40),
            identity_interval: Duration::from_secs(1),
            outage_limit: Duration::from_secs(30),
        }
    }
}

impl HubOptions {
    /// Looks whether a hub can work with them.
    ///
    /// # Errors
    /// `Invalid` names every limit that is 0.
    pub fn check(&self) -> Result<()> {
        let numbers = [
            ("max_subscribers", self.max_subscribers),
            ("ring_bytes", self.ring_bytes),
            ("ring_versions", self.ring_versions),
            ("chunk_rows", self.chunk_rows),
            ("chunk_bytes", self.chunk_bytes),
            ("message_bytes", self.message_bytes),
            ("queue_chunks", self.queue_chunks),
            ("readers", self.readers),
        ];
        let times = [
            ("stall_limit", self.stall_limit),
            ("poll_interval", self.poll_interval),
            ("idle_interval", self.idle_interval),
            ("identity_interval", self.identity_interval),
            ("outage_limit", self.outage_limit),
        ];
        let mut wrong: Vec<&str> = numbers.iter().filter(|(_, number)| *number == 0).map(|(name, _)| *name).collect();
        wrong.extend(times.iter().filter(|(_, time)| time.is_zero()).map(|(name, _)| *name));
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("{}: 0 is no limit; say at least 1", wrong.join(", "))))
    }
}
