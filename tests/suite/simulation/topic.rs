//! A topic in memory: what it holds, what of it can be seen so far, and the ways in which it fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;

use flumen::engine::OpenTopic;
use flumen::error::{Error, Result};
use flumen::offsets::{PartitionBounds, PartitionRange};
use flumen::pipeline::SourceSpec;
use flumen::source::recording::{About, RecordingLog, RecordingWriter};
use flumen::source::{Log, RawBatch, RawStream, TopicIdentity, Wanted};

use super::World;
use crate::ads::impression;

/// Where a record has to be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Sink,
    Letters,
    Quarantine,
    /// A tombstone: counted, and nowhere.
    Nowhere,
}

/// The record at an offset; `None` where a compacted topic has a gap.
pub fn place(partition: i32, offset: i64) -> Option<Place> {
    match (offset + i64::from(partition)) % 13 {
        3 => Some(Place::Letters),
        5 => Some(Place::Quarantine),
        7 => Some(Place::Nowhere),
        9 => None,
        _ => Some(Place::Sink),
    }
}

/// The partitions, the first offset that each keeps and its end.
pub const PARTITIONS: [(i64, i64); 3] = [(0, 60), (20, 70), (5, 45)];

fn value(partition: i32, offset: i64) -> Option<Vec<u8>> {
    let mut one = impression(offset as u64 * 3 + partition as u64);
    match place(partition, offset)? {
        Place::Sink => Some(one.encode_to_vec()),
        Place::Letters => Some(vec![0x0a, 0xff, 0x01]),
        Place::Quarantine => {
            one.bid = -1.0;
            Some(one.encode_to_vec())
        }
        Place::Nowhere => None,
    }
}

fn batch(partition: i32, offsets: impl Iterator<Item = i64>) -> RawBatch {
    let mut batch = RawBatch { partition, keys: Some(Default::default()), ..RawBatch::default() };
    let mut headers = Vec::new();
    for offset in offsets.filter(|offset| place(partition, *offset).is_some()) {
        batch.offsets.push(offset);
        batch.timestamps.push(1_795_132_800_000 + offset);
        batch.values.push(value(partition, offset).as_deref());
        batch.keys.as_mut().unwrap().push(None);
        headers.push(Vec::new());
    }
    batch.headers = Some(headers);
    batch
}

fn identity() -> TopicIdentity {
    TopicIdentity { topic: "ads".into(), topic_id: "id".into(), cluster_id: "c".into() }
}

/// The same records as a recording, made once.
fn recording() -> &'static PathBuf {
    static RECORDING: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let made = RECORDING.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording");
        let mut writer = RecordingWriter::create(&path, identity()).unwrap();
        let mut ranges = Vec::new();
        for (partition, (low, high)) in (0..).zip(PARTITIONS) {
            writer.write(&batch(partition, low..high)).unwrap();
            ranges.push(PartitionRange { partition, from: low, to: high });
        }
        writer.finish(&ranges, About::default()).unwrap();
        (dir, path)
    });
    &made.1
}

/// How much of each partition can be seen: the topic grows, and gets a partition more.
#[derive(Debug, Default)]
pub struct Growth(Mutex<BTreeMap<i32, i64>>);

impl Growth {
    pub fn new() -> Self {
        Self(Mutex::new((0..2).map(|partition| (partition, PARTITIONS[partition as usize].0)).collect()))
    }

    /// More of a partition, which may be new.
    pub fn grow(&self, partition: i32, records: i64) {
        let (low, high) = PARTITIONS[partition as usize];
        let mut shown = self.0.lock();
        let end = shown.entry(partition).or_insert(low);
        *end = high.min(*end + records);
    }

    pub fn finish(&self) {
        (0..).zip(PARTITIONS).for_each(|(partition, (_, high))| self.grow(partition, high));
    }

    fn bounds(&self) -> Vec<PartitionBounds> {
        let bound = |(&partition, &high): (&i32, &i64)| PartitionBounds {
            partition,
            low: PARTITIONS[partition as usize].0,
            high,
        };
        self.0.lock().iter().map(bound).collect()
    }
}

#[derive(Debug)]
struct Simulated {
    world: Arc<World>,
    /// `None`: the records come from memory.
    recording: Option<RecordingLog>,
}

fn away() -> Error {
    Error::unavailable("topic ads: the broker does not answer; run it again")
}

#[async_trait]
impl Log for Simulated {
    async fn identity(&self) -> Result<TopicIdentity> {
        self.world.trouble("identity").await.then(away).map_or_else(|| Ok(identity()), Err)
    }

    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        if self.world.trouble("bounds").await { Err(away()) } else { Ok(self.world.growth.bounds()) }
    }

    async fn offsets_at(&self, _time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        Ok(self.world.growth.bounds().iter().map(|bound| (bound.partition, bound.low)).collect())
    }

    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream> {
        if let Some(recording) = &self.recording {
            return Ok(standing_still(recording.read(ranges, wanted)?));
        }
        let (sender, receiver) = mpsc::channel(2);
        let (world, ranges) = (Arc::clone(&self.world), ranges.to_vec());
        tokio::spawn(async move {
            for range in ranges {
                let mut from = range.from;
                while from < range.to {
                    let place = format!("read {} {from}", range.partition);
                    let to = range.to.min(from + 1 + world.dice(&place).below(20) as i64);
                    let part = match world.trouble(&place).await {
                        true => Err(away()),
                        false => Ok(batch(range.partition, from..to)),
                    };
                    let failed = part.is_err();
                    if sender.send(part).await.is_err() || failed {
                        return;
                    }
                    from = to;
                }
            }
        });
        Ok(receiver)
    }
}

/// A stream that comes from a thread: the simulated time stands still until the thread is done.
fn standing_still(mut stream: RawStream) -> RawStream {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let all =
            tokio::task::spawn_blocking(move || std::iter::from_fn(|| stream.blocking_recv()).collect::<Vec<_>>());
        for batch in all.await.expect("no panic") {
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Opens the one topic, from memory or from the recording.
#[derive(Debug)]
pub struct Topics(pub Arc<World>);

impl OpenTopic for Topics {
    fn open(&self, _source: &SourceSpec, _patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        let recording = if self.0.is_recorded { Some(RecordingLog::open(recording())?) } else { None };
        Ok(Arc::new(Simulated { world: Arc::clone(&self.0), recording }))
    }
}
