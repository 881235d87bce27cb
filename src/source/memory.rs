//! A topic in memory, which grows: for the cases of a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Headers, Log, Payloads, RawBatch, RawStream, TopicIdentity, Wanted, check_ranges};
use crate::error::{Error, Result};
use crate::offsets::{PartitionBounds, PartitionRange};

/// The records of a batch at most.
const BATCH_RECORDS: usize = 8192;

/// A record that is appended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The key; `None` where there is none.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in their order.
    pub headers: Headers,
}

/// A topic in memory. Clones are the same topic.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    identity: TopicIdentity,
    partitions: Arc<Mutex<BTreeMap<i32, Kept>>>,
}

#[derive(Debug, Default)]
struct Kept {
    low: i64,
    high: i64,
    /// With keys and headers.
    records: RawBatch,
}

impl MemoryLog {
    /// An empty topic with partitions from 0 on.
    pub fn new(topic: &str, partitions: u32) -> Self {
        let identity =
            TopicIdentity { topic: topic.to_owned(), topic_id: "memory".into(), cluster_id: "memory".into() };
        let log = Self { identity, partitions: Arc::default() };
        (0..partitions).for_each(|partition| _ = log.partitions.lock().entry(partition as i32).or_default());
        log
    }

    /// All that `log` holds now, with its offsets.
    ///
    /// # Errors
    /// What reading it returns.
    pub async fn copy(log: &dyn Log) -> Result<Self> {
        let copy = Self { identity: log.identity().await?, partitions: Arc::default() };
        let bounds = log.bounds().await?;
        let range = |b: &PartitionBounds| PartitionRange { partition: b.partition, from: b.low, to: b.high };
        let ranges: Vec<PartitionRange> = bounds.iter().map(range).collect();
        let mut read = log.read(&ranges, Wanted { key: true, headers: true })?;
        while let Some(batch) = read.recv().await {
            let batch = batch?;
            let mut partitions = copy.partitions.lock();
            let kept = partitions.entry(batch.partition).or_default();
            (0..batch.len()).for_each(|row| kept.push(batch.offsets[row], record(&batch, row)));
        }
        for PartitionBounds { partition, low, high } in bounds {
            let mut partitions = copy.partitions.lock();
            let kept = partitions.entry(partition).or_default();
            (kept.low, kept.high) = (low, high);
        }
        Ok(copy)
    }

    /// Appends records, each to its partition, which is made when it is new. A reader sees none or all of them.
    pub fn append(&self, records: impl IntoIterator<Item = (i32, NewRecord)>) {
        let mut partitions = self.partitions.lock();
        for (partition, record) in records {
            let kept = partitions.entry(partition).or_default();
            let offset = kept.high;
            kept.push(offset, record);
            kept.high = offset + 1;
        }
    }

    /// The offset behind the last record of each partition that holds any offset.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        let partitions = self.partitions.lock();
        let held = partitions.iter().filter(|(_, kept)| kept.low < kept.high);
        held.map(|(&partition, kept)| (partition, kept.high)).collect()
    }

    /// The latest timestamp of a record, in milliseconds since the epoch.
    pub fn last_timestamp(&self) -> Option<i64> {
        self.partitions.lock().values().flat_map(|kept| kept.records.timestamps.iter().copied()).max()
    }

    fn batches(&self, range: PartitionRange, wanted: Wanted) -> Result<Vec<RawBatch>> {
        let partitions = self.partitions.lock();
        let PartitionRange { partition, from, to } = range;
        let topic = &self.identity.topic;
        let Some(kept) = partitions.get(&partition) else {
            let text = format!("topic {topic} has no partition {partition}: read those that it has");
            return Err(Error::violated(text));
        };
        let (low, high) = (kept.low, kept.high);
        if from < low || to > high {
            let gone = if from < low { (from, low.min(to)) } else { (high.max(from), to) };
            return Err(Error::violated(format!(
                "topic {topic} partition {partition}: offsets [{}, {}) are gone; it keeps [{low}, {high}). Begin anew",
                gone.0, gone.1
            )));
        }
        let offsets = &kept.records.offsets;
        let (first, end) = (offsets.partition_point(|o| *o < from), offsets.partition_point(|o| *o < to));
        let rows: Vec<u32> = (first as u32..end as u32).collect();
        let batch = |rows: &[u32]| {
            let batch = RawBatch { partition, ..kept.records.only(rows) };
            let (keys, headers) = (batch.keys.filter(|_| wanted.key), batch.headers.filter(|_| wanted.headers));
            RawBatch { keys, headers, ..batch }
        };
        Ok(rows.chunks(BATCH_RECORDS).map(batch).collect())
    }
}

impl Kept {
    fn push(&mut self, offset: i64, record: NewRecord) {
        self.records.offsets.push(offset);
        self.records.timestamps.push(record.timestamp);
        self.records.values.push(record.value.as_deref());
        self.records.keys.get_or_insert_with(Payloads::default).push(record.key.as_deref());
        self.records.headers.get_or_insert_with(Vec::new).push(record.headers);
    }
}

fn record(batch: &RawBatch, row: usize) -> NewRecord {
    let owned = |payloads: &Payloads| payloads.get(row).map(<[u8]>::to_vec);
    NewRecord {
        timestamp: batch.timestamps[row],
        key: batch.keys.as_ref().and_then(owned),
        value: owned(&batch.values),
        headers: batch.headers.as_ref().map(|headers| headers[row].clone()).unwrap_or_default(),
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn identity(&self) -> Result<TopicIdentity> {
        Ok(self.identity.clone())
    }

    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        let partitions = self.partitions.lock();
        let bounds = partitions.iter().map(|(&partition, kept)| (partition, kept.low, kept.high));
        Ok(bounds.map(|(partition, low, high)| PartitionBounds { partition, low, high }).collect())
    }

    async fn offsets_at(&self, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        let millis = time.timestamp_millis();
        let at = |kept: &Kept| {
            let mut records = kept.records.offsets.iter().zip(&kept.records.timestamps);
            records.find(|(_, timestamp)| **timestamp >= millis).map_or(kept.high, |(offset, _)| *offset)
        };
        Ok(self.partitions.lock().iter().map(|(&partition, kept)| (partition, at(kept))).collect())
    }

    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream> {
        let ranges = check_ranges(&self.identity.topic, ranges)?;
        let mut batches: Vec<Result<RawBatch>> = Vec::new();
        for range in ranges {
            match self.batches(range, wanted) {
                Ok(of) => batches.extend(of.into_iter().map(Ok)),
                Err(error) => {
                    batches.push(Err(error));
                    break;
                }
            }
        }
        // The topic is in memory: that its batches are too is no more than twice as much.
        let (sender, stream) = mpsc::channel(batches.len().max(1));
        batches.into_iter().for_each(|batch| drop(sender.try_send(batch)));
        Ok(stream)
    }
}
