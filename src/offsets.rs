//! Offsets: positions in the partitions of a topic. An offset is always the *next* one to read, a range is `[from, to)`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

/// The offsets `[from, to)` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition's number.
    pub partition: i32,
    /// The first offset to read.
    pub from: i64,
    /// The offset to stop before.
    pub to: i64,
}

/// What a partition holds now: the first offset still kept and the end (the next one to be written; for
/// `read_committed` the last stable offset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The partition's number.
    pub partition: i32,
    /// The first offset that is still kept.
    pub low: i64,
    /// The offset after the last one that may be read.
    pub high: i64,
}

/// Where a query without a position begins: the option `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The first offset that is kept.
    Earliest,
    /// The end: only what comes later.
    Latest,
    /// The first record at or after this time.
    At(DateTime<Utc>),
    /// These offsets; a partition that is not named starts at its earliest offset.
    Offsets(BTreeMap<i32, i64>),
}
