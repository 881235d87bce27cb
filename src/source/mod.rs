//! Topics as bounded logs. Kafka and recordings are two implementations of [`Log`], and nothing above can tell them
//! apart: one conformance suite (`tests/suite/log_conformance.rs`) holds for both.

pub mod kafka;
pub mod memory;
pub mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow::array::BinaryArray;
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::offsets::{PartitionBounds, PartitionRange};

/// Which topic this is: a topic that was deleted and made again has another `topic_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// The topic's name.
    pub topic: String,
    /// Kafka's topic id (a UUID in base64), empty where the broker has none.
    pub topic_id: String,
    /// Kafka's cluster id, empty where the broker has none.
    pub cluster_id: String,
}

/// What a reader wants besides offset, timestamp and value; the rest is not copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The records' keys.
    pub key: bool,
    /// The records' headers.
    pub headers: bool,
}

/// Byte strings of consecutive records in one arena. Record `i` is `bytes[ends[i-1]..ends[i]]`.
#[derive(Debug, Clone, Default)]
pub struct Payloads {
    /// All byte strings, one after the other.
    pub bytes: Vec<u8>,
    /// The end of each byte string in `bytes`; the arena stays below 2 GiB.
    pub ends: Vec<u32>,
    /// The records (ascending) whose byte string is null: a tombstone's value, a missing key.
    pub nulls: Vec<u32>,
}

/// The headers of one record, in their order; a value may be null.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Consecutive records of one partition, as they came from the log, in offset order (gaps are normal).
#[derive(Debug, Clone, Default)]
pub struct RawBatch {
    /// The partition of all these records.
    pub partition: i32,
    /// Each record's offset.
    pub offsets: Vec<i64>,
    /// Each record's timestamp in milliseconds since the epoch; -1 where there is none.
    pub timestamps: Vec<i64>,
    /// Each record's value.
    pub values: Payloads,
    /// Each record's key, when wanted.
    pub keys: Option<Payloads>,
    /// Each record's headers, when wanted.
    pub headers: Option<Vec<Headers>>,
}

/// Raw batches of all the ranges that were asked for, in no order between partitions. It ends (`None`) when every range
/// has been read to its end; after an error nothing more comes. The channel is bounded: a slow reader holds up the log.
pub type RawStream = mpsc::Receiver<Result<RawBatch>>;

/// What a read of a log holds that says nothing else: some batches of a MiB, and what they are made of.
const READ_BYTES: usize = 16 << 20;

/// A topic as a bounded log.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync {
    /// Which topic this is.
    ///
    /// # Errors
    /// `Unavailable` when the topic does not exist (with the names that look like it) or the broker stays away.
    async fn identity(&self) -> Result<TopicIdentity>;

    /// What each partition holds now, ordered by partition.
    ///
    /// # Errors
    /// As [`Log::identity`].
    async fn bounds(&self) -> Result<Vec<PartitionBounds>>;

    /// For each partition the offset of the first record whose timestamp is `time` or later; the end where there is
    /// none. Kafka also counts what is not read, such as the ends of transactions.
    ///
    /// # Errors
    /// As [`Log::identity`].
    async fn offsets_at(&self, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>>;

    /// For each partition whose end is held by a transaction that is still open: how many offsets are behind it. A log
    /// without transactions holds none.
    ///
    /// # Errors
    /// As [`Log::identity`].
    async fn held(&self) -> Result<BTreeMap<i32, u64>> {
        Ok(BTreeMap::new())
    }

    /// Reads these ranges. A range is done when its end is reached, also when no record with the last offset exists
    /// (compaction, control records, aborted transactions). Ranges that follow on from the last call's are the fast
    /// case.
    ///
    /// # Errors
    /// Through the stream: `Violated` when offsets of a range are gone, `Unavailable` when the broker stays away.
    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream>;

    /// The bytes that a read holds at most, besides the batches that its stream has handed over.
    fn read_bytes(&self) -> usize {
        READ_BYTES
    }

    /// Tells the log's own lag tools how far the query is, after a commit. Best effort: nothing reads it back.
    fn mirror(&self, _positions: &BTreeMap<i32, i64>) {}
}

impl Payloads {
    /// The number of byte strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends a byte string, or a null.
    pub fn push(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes.extend_from_slice(value),
            None => self.nulls.push(self.ends.len() as u32),
        }
        self.ends.push(self.bytes.len() as u32);
    }

    /// The byte strings as a column; the arena is copied once.
    ///
    /// # Errors
    /// The arena holds more than a column's offsets reach: 2 GiB.
    pub fn column(&self) -> Result<BinaryArray, ArrowError> {
        let ends = self.ends.iter().map(|&end| i32::try_from(end));
        let ends: Result<Vec<i32>, _> = std::iter::once(Ok(0)).chain(ends).collect();
        let ends = ends.map_err(|_| ArrowError::OffsetOverflowError(self.bytes.len()))?;
        let nulls = (!self.nulls.is_empty()).then(|| {
            let mut valid = vec![true; self.len()];
            self.nulls.iter().for_each(|&row| valid[row as usize] = false);
            NullBuffer::from(valid)
        });
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        BinaryArray::try_new(offsets, Buffer::from_slice_ref(&self.bytes), nulls)
    }

    /// The byte strings of these records, copied.
    #[must_use]
    pub fn only(&self, rows: &[u32]) -> Payloads {
        let mut only = Payloads::default();
        rows.iter().for_each(|row| only.push(self.get(*row as usize)));
        only
    }

    /// The byte string of record `row`; `None` for a null.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        (self.nulls.is_empty() || self.nulls.binary_search(&(row as u32)).is_err()).then(|| self.value(row))
    }

    /// All byte strings; `None` for a null.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut nulls = self.nulls.iter().peekable();
        (0..self.len()).map(move |row| nulls.next_if_eq(&&(row as u32)).is_none().then(|| self.value(row)))
    }

    /// The bytes of record `row`; empty for a null (see [`Payloads::nulls`]).
    pub fn value(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..self.ends[row] as usize]
    }
}

impl RawBatch {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.values.bytes.len() + self.keys.as_ref().map_or(0, |keys| keys.bytes.len())
    }

    /// These records of it, copied; `rows` are ascending.
    #[must_use]
    pub fn only(&self, rows: &[u32]) -> RawBatch {
        let picked = || rows.iter().map(|&row| row as usize);
        RawBatch {
            partition: self.partition,
            offsets: picked().map(|row| self.offsets[row]).collect(),
            timestamps: picked().map(|row| self.timestamps[row]).collect(),
            values: self.values.only(rows),
            keys: self.keys.as_ref().map(|keys| keys.only(rows)),
            headers: self.headers.as_ref().map(|headers| picked().map(|row| headers[row].clone()).collect()),
        }
    }
}

/// The ranges that hold anything. A partition may be named once.
fn check_ranges(topic: &str, ranges: &[PartitionRange]) -> Result<Vec<PartitionRange>> {
    let mut seen = BTreeSet::new();
    for range in ranges {
        if range.partition < 0 || range.from < 0 || !seen.insert(range.partition) {
            return Err(Error::invalid(format!(
                "topic {topic}: partition {} [{}, {}) cannot be read: it is negative or named twice",
                range.partition, range.from, range.to
            )));
        }
    }
    Ok(ranges.iter().filter(|range| range.from < range.to).copied().collect())
}
