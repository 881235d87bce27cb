//! The engine over recordings: where the topic is cut into micro-batches never changes a table, and a recording gives
//! the rows that the broker gave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use parking_lot::Mutex;

use flumen::clock::{self, FixedClock};
use flumen::engine::{self, Deps, Facts, OpenTopic, RunOptions, Stopper};
use flumen::error::Result;
use flumen::kafka::KafkaConfig;
use flumen::memory::Memory;
use flumen::observe::{Observer, Progress, Silent};
use flumen::offsets::{PartitionBounds, PartitionRange};
use flumen::pipeline::{Environment, Pipeline, SourceSpec};
use flumen::source::kafka::KafkaLog;
use flumen::source::recording::{About, RecordingLog, RecordingWriter};
use flumen::source::{Log, RawBatch, RawStream, TopicIdentity, Wanted};
use flumen::storage::Storage;

use crate::ads::{impression, impressions};
use crate::binary::{finish, flumen, repository, workspace};
use crate::broker::Broker;
use crate::{chance::Chance, topics};

use prost::Message;

const PIPELINE: &str = "tests/pipelines/row_wise.sql";

/// A recording of `records` impressions in each of three partitions, with gaps, tombstones and headers.
fn record(dir: &Path, records: u64) -> u64 {
    let identity = TopicIdentity { topic: "ad-impressions".into(), topic_id: "id".into(), cluster_id: "c".into() };
    let mut writer = RecordingWriter::create(dir, identity).unwrap();
    let mut ranges = Vec::new();
    let mut count = 0;
    for partition in 0..3 {
        let mut batch = RawBatch { partition, keys: Some(Default::default()), ..RawBatch::default() };
        let mut headers = Vec::new();
        let mut offset = 10;
        for n in 0..records {
            offset += 1 + i64::from(n % 17 == 0) * 5;
            batch.offsets.push(offset);
            batch.timestamps.push(1_795_132_800_000 + n as i64);
            let value = impression(n * 31 + partition as u64).encode_to_vec();
            batch.values.push((n % 23 > 0).then_some(value.as_slice()));
            batch.keys.as_mut().unwrap().push(None);
            headers.push((0..n % 3).map(|i| (format!("h{i}"), None)).collect());
            count += 1;
        }
        batch.headers = Some(headers);
        writer.write(&batch).unwrap();
        ranges.push(PartitionRange { partition, from: 5, to: offset + 4 });
    }
    writer.finish(&ranges, About::default()).unwrap();
    count
}

/// How far a log has grown, for all that read it.
#[derive(Debug)]
struct Growth {
    shown: Mutex<(Chance, BTreeMap<i32, i64>)>,
    /// Offsets that a look adds to a partition at most.
    step: u64,
}

/// A log whose end comes nearer in random steps: each look shows a little more of it.
#[derive(Debug)]
struct Growing {
    log: RecordingLog,
    growth: Arc<Growth>,
}

#[async_trait]
impl Log for Growing {
    async fn identity(&self) -> Result<TopicIdentity> {
        self.log.identity().await
    }

    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        let mut bounds = self.log.bounds().await?;
        let (chance, shown) = &mut *self.growth.shown.lock();
        for bound in &mut bounds {
            let high = shown.entry(bound.partition).or_insert(bound.low);
            *high = bound.high.min(*high + chance.below(self.growth.step) as i64);
            bound.high = *high;
        }
        Ok(bounds)
    }

    async fn offsets_at(&self, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        self.log.offsets_at(time).await
    }

    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream> {
        self.log.read(ranges, wanted)
    }
}

/// Opens the recording whole, or cut by chance.
#[derive(Debug)]
struct Recorded {
    dir: PathBuf,
    growth: Option<Arc<Growth>>,
}

impl OpenTopic for Recorded {
    fn open(&self, _source: &SourceSpec, _patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        let log = RecordingLog::open(&self.dir)?;
        Ok(match &self.growth {
            None => Arc::new(log),
            Some(growth) => Arc::new(Growing { log, growth: Arc::clone(growth) }),
        })
    }
}

/// Stops the run when every query has read `goal` records in all, or earlier.
struct Until {
    goal: u64,
    queries: usize,
    read: Mutex<BTreeMap<String, u64>>,
    stopper: Stopper,
}

impl Observer for Until {
    fn progress(&self, progress: &Progress) {
        let mut read = self.read.lock();
        *read.entry(progress.name.clone()).or_default() += progress.records.read;
        if read.len() == self.queries && read.values().all(|read| *read >= self.goal) {
            self.stopper.stop();
        }
    }

    fn note(&self, _text: &str) {}
}

fn load(root: &Path, file: &Path, settings: &[(&str, &str)]) -> Arc<Pipeline> {
    let environment = Environment {
        root: root.to_path_buf(),
        params: [("dear".to_string(), "50".to_string())].into(),
        settings: settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Environment::default()
    };
    let text = std::fs::read_to_string(file).unwrap();
    let pipeline = Pipeline::load(&text, file, &environment, &Facts { storage: &Storage::new() });
    Arc::new(pipeline.unwrap_or_else(|faults| panic!("{faults}")))
}

fn deps(topics: Recorded, observer: Arc<dyn Observer>) -> Deps {
    let clock = Arc::new(FixedClock(DateTime::UNIX_EPOCH));
    let memory = Memory::new(1_000_000_000).unwrap();
    Deps { storage: Storage::new(), clock, observer, memory, topics: Arc::new(topics), patience: None, cuts: None }
}

/// The rows of a table, sorted.
async fn rows(table: &Path) -> Vec<String> {
    let context = SessionContext::new();
    let url = url::Url::from_directory_path(table).unwrap();
    let delta = deltalake::open_table(url).await.unwrap();
    context.register_table("t", delta.table_provider().await.unwrap()).unwrap();
    let batches = context.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap();
    let mut lines = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut lines);
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    let mut rows: Vec<String> = String::from_utf8(lines).unwrap().lines().map(str::to_string).collect();
    rows.sort();
    rows
}

async fn tables(root: &Path) -> [Vec<String>; 2] {
    [rows(&root.join("tables/row_wise")).await, rows(&root.join("tables/counted")).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn borders_of_micro_batches_never_change_a_table() {
    let recording = tempfile::tempdir().unwrap();
    let records = record(recording.path(), 400);
    let file = repository().join(PIPELINE);
    let dir = recording.path().to_path_buf();

    let whole = workspace();
    let pipeline = load(whole.path(), &file, &[]);
    let (_stopper, stop) = engine::stopper();
    let all = RunOptions { available_now: true, ..RunOptions::default() };
    let topics = Recorded { dir: dir.clone(), growth: None };
    engine::run(pipeline, all, deps(topics, Arc::new(Silent)), stop).await.unwrap();
    let expected = tables(whole.path()).await;
    assert_eq!(expected[1].len() as u64, records, "tombstones are rows here");
    let forms: std::collections::BTreeSet<&str> =
        expected[0].iter().map(|row| row.split('"').nth(3).unwrap()).collect();
    assert_eq!(forms.len(), 14, "every branch gives rows: {forms:?}");

    for seed in 1..=4u64 {
        let cut = workspace();
        // Many small cuts, or few large ones; stopped half-way and started again.
        let step = [40, 90, 300, 700][seed as usize % 4];
        let max_rows = (Chance::new(seed).below(200) + 20).to_string();
        let settings = [("flumen.trigger", "0 seconds"), ("flumen.max_rows", max_rows.as_str())];
        let growth = Arc::new(Growth { shown: Mutex::new((Chance::new(seed), BTreeMap::new())), step });
        let mut left = BTreeMap::new();
        for share in [2, 1] {
            let pipeline = load(cut.path(), &file, &settings);
            let (stopper, stop) = engine::stopper();
            let goal = records / share;
            let observer = Arc::new(Until { goal, queries: 2, read: Mutex::new(left.clone()), stopper });
            let topics = Recorded { dir: dir.clone(), growth: Some(Arc::clone(&growth)) };
            let run = engine::run(pipeline, RunOptions::default(), deps(topics, observer.clone()), stop);
            tokio::time::timeout(Duration::from_secs(120), run).await.unwrap().unwrap();
            left = observer.read.lock().clone();
        }
        assert_eq!(left.values().copied().collect::<Vec<_>>(), [records, records], "seed {seed}: each record once");
        let got = tables(cut.path()).await;
        assert!(got == expected, "seed {seed}, cuts of {step}, max_rows {max_rows}: other rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_gives_the_rows_that_the_broker_gave() {
    let broker = Broker::shared();
    let topic = topics::new_topic(broker, "recorded", 2);
    topics::produce(broker, &topic, 0, &impressions(0..1_500));
    topics::produce(broker, &topic, 1, &impressions(9_000..11_000));
    let text = std::fs::read_to_string(repository().join(PIPELINE)).unwrap();
    let text = text.replace("localhost:9092/ad-impressions", &format!("{}/{topic}", broker.address()));
    let (live, replayed) = (workspace(), workspace());
    for root in [live.path(), replayed.path()] {
        std::fs::write(root.join("row_wise.sql"), &text).unwrap();
    }
    let args = ["run", "row_wise.sql", "--available-now", "--param", "dear=50", "--set", "flumen.max_rows=700"];
    finish(&mut flumen(live.path(), args)).exits(0);

    let config = KafkaConfig::new(broker.address(), &BTreeMap::new()).unwrap();
    let log = KafkaLog::open(config, &topic, Some(Duration::from_secs(60))).unwrap();
    let ranges: Vec<PartitionRange> = log
        .bounds()
        .await
        .unwrap()
        .iter()
        .map(|b| PartitionRange { partition: b.partition, from: b.low, to: b.high })
        .collect();
    let recording = replayed.path().join("recording");
    let mut writer = RecordingWriter::create(&recording, log.identity().await.unwrap()).unwrap();
    let mut stream = log.read(&ranges, Wanted { key: true, headers: true }).unwrap();
    while let Some(batch) = stream.recv().await {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.finish(&ranges, About::default()).unwrap();

    let pipeline = load(replayed.path(), &replayed.path().join("row_wise.sql"), &[]);
    let (_stopper, stop) = engine::stopper();
    let all = RunOptions { available_now: true, ..RunOptions::default() };
    let topics = Recorded { dir: recording, growth: None };
    let deps = Deps { clock: clock::system(), ..deps(topics, Arc::new(Silent)) };
    engine::run(pipeline, all, deps, stop).await.unwrap();
    let (live, replayed) = (tables(live.path()).await, tables(replayed.path()).await);
    assert_eq!(live[1].len(), 3_500);
    assert!(live == replayed, "the recording gives other rows than the broker");
}
