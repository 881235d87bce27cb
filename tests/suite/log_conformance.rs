//! What every [`Log`] does, told as a script of what happened to a topic: run for Kafka on a real broker, for
//! recordings and for topics in memory. What only Kafka can show comes at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use flumen::error::{Error, ErrorKind};
use flumen::kafka::KafkaConfig;
use flumen::offsets::{PartitionBounds, PartitionRange};
use flumen::source::kafka::KafkaLog;
use flumen::source::memory::MemoryLog;
use flumen::source::recording::{About, RecordingLog, RecordingWriter};
use flumen::source::{Headers, Log, Payloads, RawBatch, TopicIdentity, Wanted};
use tempfile::TempDir;

use crate::broker::{Broker, NewRecord, PATIENCE};

const EVERYTHING: Wanted = Wanted { key: true, headers: true };
const NOTHING: Wanted = Wanted { key: false, headers: false };

/// Something that happened to a partition.
enum Step {
    /// These records were appended.
    Records(Vec<NewRecord>),
    /// These records were appended in a transaction; its end takes an offset.
    Committed(Vec<NewRecord>),
    /// So many offsets (2 at least) hold no record that is read: an aborted transaction.
    Gap(i64),
    /// Everything before this offset was deleted.
    DeletedBefore(i64),
}

/// A topic: the steps of each partition.
type Story = Vec<Vec<Step>>;

/// A record as it has to be read.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    offset: i64,
    record: NewRecord,
}

/// A log that holds a story. Whatever it needs lives as long as it.
struct Opened {
    log: Box<dyn Log>,
    topic: String,
    _dir: Option<TempDir>,
}

/// A kind of log.
#[async_trait]
trait Place: Sync {
    async fn tell(&self, name: &str, story: &Story) -> Opened;
}

struct OnKafka;
struct InRecording;
struct InMemory;

#[async_trait]
impl Place for OnKafka {
    async fn tell(&self, name: &str, story: &Story) -> Opened {
        let broker = Broker::shared();
        let topic = broker.new_topic(name, story.len() as i32).await;
        for (partition, steps) in story.iter().enumerate() {
            for step in steps {
                match step {
                    Step::Records(records) => broker.produce(&topic, &of(partition, records)),
                    Step::Committed(records) => broker.transact(&topic, &of(partition, records), true),
                    Step::Gap(size) => {
                        let aborted = vec![record("aborted"); *size as usize - 1];
                        broker.transact(&topic, &of(partition, &aborted), false);
                    }
                    Step::DeletedBefore(offset) => broker.delete_records(&topic, partition as i32, *offset).await,
                }
            }
        }
        let log = kafka_log(broker, &topic, Some(PATIENCE));
        // The end of a transaction reaches the log a moment after the producer's call.
        let told = bounds(story);
        while log.bounds().await.unwrap() != told {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Opened { log: Box::new(log), topic, _dir: None }
    }
}

#[async_trait]
impl Place for InRecording {
    async fn tell(&self, name: &str, story: &Story) -> Opened {
        let dir = tempfile::tempdir().unwrap();
        let identity = TopicIdentity { topic: name.into(), topic_id: "id".into(), cluster_id: "cluster".into() };
        let mut writer = RecordingWriter::create(dir.path(), identity).unwrap();
        for (partition, steps) in story.iter().enumerate() {
            for part in seen(steps).chunks(1000) {
                writer.write(&batch(partition as i32, part)).unwrap();
            }
        }
        let ranges: Vec<PartitionRange> =
            bounds(story).iter().map(|b| PartitionRange { partition: b.partition, from: b.low, to: b.high }).collect();
        writer.finish(&ranges, About::default()).unwrap();
        let log = RecordingLog::open(dir.path()).unwrap();
        Opened { log: Box::new(log), topic: name.into(), _dir: Some(dir) }
    }
}

#[async_trait]
impl Place for InMemory {
    async fn tell(&self, name: &str, story: &Story) -> Opened {
        let recorded = InRecording.tell(name, story).await;
        let log = MemoryLog::copy(recorded.log.as_ref()).await.unwrap();
        Opened { log: Box::new(log), topic: name.into(), _dir: None }
    }
}

fn kafka_log(broker: &Broker, topic: &str, broker_timeout: Option<Duration>) -> KafkaLog {
    let config = KafkaConfig::new(broker.address(), &BTreeMap::new()).unwrap();
    KafkaLog::open(config, topic, broker_timeout).unwrap()
}

fn of(partition: usize, records: &[NewRecord]) -> Vec<NewRecord> {
    records.iter().cloned().map(|record| NewRecord { partition: partition as i32, ..record }).collect()
}

fn record(value: &str) -> NewRecord {
    NewRecord { value: Some(value.into()), timestamp: 1_700_000_000_000, ..NewRecord::default() }
}

fn numbered(count: usize) -> Vec<NewRecord> {
    (0..count).map(|i| record(&format!("value {i}"))).collect()
}

/// Records that do not all fit into a stream, or into what a partition keeps.
fn large(count: usize) -> Vec<NewRecord> {
    (0..count).map(|i| record(&format!("{i:060000}"))).collect()
}

/// The records that a partition's steps leave behind.
fn seen(steps: &[Step]) -> Vec<Seen> {
    let (mut next, mut low, mut seen) = (0, 0, vec![]);
    for step in steps {
        match step {
            Step::Records(records) | Step::Committed(records) => {
                seen.extend((next..).zip(records).map(|(offset, record)| Seen { offset, record: record.clone() }));
                next += records.len() as i64 + i64::from(matches!(step, Step::Committed(_)));
            }
            Step::Gap(size) => next += size,
            Step::DeletedBefore(offset) => low = *offset,
        }
    }
    seen.retain(|seen: &Seen| seen.offset >= low);
    seen
}

fn bounds(story: &Story) -> Vec<PartitionBounds> {
    let bounds = story.iter().enumerate().map(|(partition, steps)| {
        let (mut low, mut high) = (0, 0);
        for step in steps {
            match step {
                Step::Records(records) => high += records.len() as i64,
                Step::Committed(records) => high += records.len() as i64 + 1,
                Step::Gap(size) => high += size,
                Step::DeletedBefore(offset) => low = *offset,
            }
        }
        PartitionBounds { partition: partition as i32, low, high }
    });
    bounds.collect()
}

fn batch(partition: i32, seen: &[Seen]) -> RawBatch {
    let (mut values, mut keys) = (Payloads::default(), Payloads::default());
    for seen in seen {
        values.push(seen.record.value.as_deref());
        keys.push(seen.record.key.as_deref());
    }
    RawBatch {
        partition,
        offsets: seen.iter().map(|seen| seen.offset).collect(),
        timestamps: seen.iter().map(|seen| seen.record.timestamp).collect(),
        values,
        keys: Some(keys),
        headers: Some(seen.iter().map(|seen| seen.record.headers.clone()).collect()),
    }
}

fn range(partition: i32, from: i64, to: i64) -> PartitionRange {
    PartitionRange { partition, from, to }
}

/// Reads `ranges`; what each partition gave.
async fn read(log: &dyn Log, ranges: &[PartitionRange], wanted: Wanted) -> Result<BTreeMap<i32, Vec<Seen>>, Error> {
    let mut stream = log.read(ranges, wanted)?;
    let mut found: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
    while let Some(batch) = tokio::time::timeout(PATIENCE, stream.recv()).await.expect("the stream ends") {
        let batch = batch?;
        assert!(!batch.is_empty());
        found.entry(batch.partition).or_default().extend(records(&batch, wanted));
    }
    Ok(found)
}

fn records(batch: &RawBatch, wanted: Wanted) -> Vec<Seen> {
    let rows = batch.len();
    assert_eq!((batch.timestamps.len(), batch.values.len()), (rows, rows));
    assert_eq!(batch.keys.as_ref().map(Payloads::len), wanted.key.then_some(rows));
    assert_eq!(batch.headers.as_ref().map(Vec::len), wanted.headers.then_some(rows));
    let value = |payloads: &Payloads, row: usize| {
        let null = payloads.nulls.contains(&(row as u32));
        assert!(!null || payloads.value(row).is_empty());
        (!null).then(|| payloads.value(row).to_vec())
    };
    let headers = |row: usize| batch.headers.as_ref().map_or_else(Headers::new, |headers| headers[row].clone());
    let seen = (0..rows).map(|row| Seen {
        offset: batch.offsets[row],
        record: NewRecord {
            partition: 0,
            key: batch.keys.as_ref().and_then(|keys| value(keys, row)),
            value: value(&batch.values, row),
            headers: headers(row),
            timestamp: batch.timestamps[row],
        },
    });
    seen.collect()
}

/// The records of `steps` within `[from, to)`.
fn within(steps: &[Step], from: i64, to: i64) -> Vec<Seen> {
    seen(steps).into_iter().filter(|seen| (from..to).contains(&seen.offset)).collect()
}

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod kafka {
            $(#[tokio::test]
            async fn $case() { super::$case(&super::OnKafka).await })*
        }
        mod recording {
            $(#[tokio::test]
            async fn $case() { super::$case(&super::InRecording).await })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $case() { super::$case(&super::InMemory).await })*
        }
    };
}

conformance!(
    it_tells_what_it_is,
    ranges_are_read_exactly,
    gaps_end_nothing_and_end_ranges,
    empty_partitions_are_there,
    nulls_keys_and_headers_come_through,
    what_is_not_wanted_is_not_copied,
    lost_offsets_are_told,
    times_become_offsets,
    consecutive_ranges_give_everything_once,
    partitions_may_wait_for_each_other,
    a_dropped_stream_is_read_again,
    ranges_that_make_no_sense_are_refused,
);

async fn it_tells_what_it_is(place: &dyn Place) {
    let opened = place.tell("identity", &vec![vec![]]).await;
    let identity = opened.log.identity().await.unwrap();
    assert_eq!(identity.topic, opened.topic);
    assert!(!identity.topic_id.is_empty() && !identity.cluster_id.is_empty(), "{identity:?}");
    assert_eq!(opened.log.identity().await.unwrap(), identity);
}

async fn ranges_are_read_exactly(place: &dyn Place) {
    let story = vec![vec![Step::Records(numbered(100))], vec![Step::Records(numbered(40))]];
    let opened = place.tell("ranges", &story).await;
    for ranges in [
        vec![range(0, 0, 100), range(1, 0, 40)],
        vec![range(0, 17, 60)],
        vec![range(1, 39, 40), range(0, 0, 1)],
        vec![range(0, 99, 100), range(1, 5, 5)],
        vec![range(0, 100, 100)],
        vec![],
    ] {
        let mut expected = BTreeMap::new();
        for r in ranges.iter().filter(|r| r.from < r.to) {
            expected.insert(r.partition, within(&story[r.partition as usize], r.from, r.to));
        }
        assert_eq!(read(&*opened.log, &ranges, EVERYTHING).await.unwrap(), expected, "{ranges:?}");
    }
}

async fn gaps_end_nothing_and_end_ranges(place: &dyn Place) {
    let steps =
        vec![Step::Records(numbered(3)), Step::Gap(4), Step::Committed(numbered(2)), Step::Gap(3), Step::Gap(2)];
    let story = vec![steps];
    let opened = place.tell("gaps", &story).await;
    assert_eq!(opened.log.bounds().await.unwrap(), [PartitionBounds { partition: 0, low: 0, high: 15 }]);
    for (from, to) in [(0, 15), (0, 5), (5, 8), (3, 7), (8, 15), (9, 10), (10, 15), (14, 15), (0, 3), (2, 9)] {
        let found = read(&*opened.log, &[range(0, from, to)], EVERYTHING).await.unwrap();
        assert_eq!(found.get(&0).cloned().unwrap_or_default(), within(&story[0], from, to), "[{from}, {to})");
    }
}

async fn empty_partitions_are_there(place: &dyn Place) {
    let story = vec![vec![], vec![Step::Records(numbered(2))], vec![]];
    let opened = place.tell("empty", &story).await;
    assert_eq!(opened.log.bounds().await.unwrap(), bounds(&story));
    let found = read(&*opened.log, &[range(0, 0, 0), range(1, 0, 2), range(2, 0, 0)], NOTHING).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&1]);
}

async fn nulls_keys_and_headers_come_through(place: &dyn Place) {
    let records = vec![
        NewRecord { value: None, key: Some(b"tombstone".to_vec()), timestamp: 1_700_000_000_001, ..Default::default() },
        NewRecord { value: Some(vec![]), key: None, timestamp: 1_700_000_000_002, ..Default::default() },
        NewRecord {
            value: Some(vec![0, 255]),
            key: Some(vec![]),
            headers: vec![("a".into(), Some(vec![1])), ("a".into(), None), ("b".into(), Some(vec![]))],
            timestamp: 1_700_000_000_003,
            ..Default::default()
        },
        NewRecord {
            value: None,
            headers: vec![("only".into(), None)],
            timestamp: 1_700_000_000_000,
            ..Default::default()
        },
    ];
    let story = vec![vec![Step::Records(records)]];
    let opened = place.tell("nulls", &story).await;
    let found = read(&*opened.log, &[range(0, 0, 4)], EVERYTHING).await.unwrap();
    assert_eq!(found[&0], seen(&story[0]));
}

async fn what_is_not_wanted_is_not_copied(place: &dyn Place) {
    let full = NewRecord { key: Some(b"k".to_vec()), headers: vec![("h".into(), None)], ..record("v") };
    let story = vec![vec![Step::Records(vec![full])]];
    let opened = place.tell("wanted", &story).await;
    for wanted in [NOTHING, EVERYTHING, Wanted { key: true, headers: false }, Wanted { key: false, headers: true }] {
        let found = read(&*opened.log, &[range(0, 0, 1)], wanted).await.unwrap();
        assert_eq!(found[&0][0].record.key.is_some(), wanted.key);
        assert_eq!(found[&0][0].record.headers.len(), usize::from(wanted.headers));
    }
}

async fn lost_offsets_are_told(place: &dyn Place) {
    let story = vec![vec![Step::Records(numbered(10)), Step::DeletedBefore(6)], vec![Step::Records(numbered(10))]];
    let opened = place.tell("lost", &story).await;
    assert_eq!(opened.log.bounds().await.unwrap(), bounds(&story));
    let error = read(&*opened.log, &[range(0, 2, 9), range(1, 0, 10)], NOTHING).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Violated, "{error}");
    let message = error.to_string();
    for part in [opened.topic.as_str(), "partition 0", "offsets [2, 6) are gone", "[6, 10)"] {
        assert!(message.contains(part), "{message}");
    }
    let found = read(&*opened.log, &[range(0, 6, 10), range(1, 0, 10)], EVERYTHING).await.unwrap();
    assert_eq!(found[&0], seen(&story[0]));
    assert_eq!(found[&1], seen(&story[1]));
}

async fn times_become_offsets(place: &dyn Place) {
    let at = |millis: i64| NewRecord { timestamp: 1_700_000_000_000 + millis, ..record("v") };
    let story =
        vec![vec![Step::Records(vec![at(10), at(20), at(15), at(30)])], vec![], vec![Step::Records(vec![at(25)])]];
    let opened = place.tell("times", &story).await;
    for (millis, expected) in [
        (-1_700_000_000_000, [0, 0, 0]),
        (0, [0, 0, 0]),
        (10, [0, 0, 0]),
        (11, [1, 0, 0]),
        (21, [3, 0, 0]),
        (26, [3, 0, 1]),
        (31, [4, 0, 1]),
    ] {
        let time = DateTime::from_timestamp_millis(1_700_000_000_000 + millis).unwrap();
        let found = opened.log.offsets_at(time).await.unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), expected, "{millis}");
    }
}

async fn consecutive_ranges_give_everything_once(place: &dyn Place) {
    let story = vec![vec![Step::Records(numbered(20_000))], vec![Step::Records(numbered(5_000))]];
    let opened = place.tell("consecutive", &story).await;
    let mut found: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
    for step in 0..20 {
        let ranges = [range(0, step * 1000, (step + 1) * 1000), range(1, step * 250, (step + 1) * 250)];
        for (partition, seen) in read(&*opened.log, &ranges, NOTHING).await.unwrap() {
            found.entry(partition).or_default().extend(seen);
        }
    }
    assert!(found[&0] == seen(&story[0]) && found[&1] == seen(&story[1]));
}

async fn partitions_may_wait_for_each_other(place: &dyn Place) {
    let story = vec![vec![Step::Records(large(300))], vec![Step::Records(large(300))]];
    let opened = place.tell("waiting", &story).await;
    let mut found: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
    for ranges in [
        vec![range(0, 0, 1), range(1, 0, 1)],
        vec![range(0, 1, 200)],
        vec![range(0, 200, 300)],
        vec![range(1, 1, 250)],
        vec![range(1, 250, 300)],
    ] {
        for (partition, seen) in read(&*opened.log, &ranges, NOTHING).await.unwrap() {
            found.entry(partition).or_default().extend(seen);
        }
    }
    assert!(found[&0] == seen(&story[0]) && found[&1] == seen(&story[1]));
}

async fn a_dropped_stream_is_read_again(place: &dyn Place) {
    let large = large(200);
    let story = vec![vec![Step::Records(large)]];
    let opened = place.tell("dropped", &story).await;
    for from in [0, 0, 50] {
        let mut stream = opened.log.read(&[range(0, from, 200)], NOTHING).unwrap();
        let first = stream.recv().await.unwrap().unwrap();
        assert_eq!(first.offsets[0], from);
        drop(stream);
    }
    let never_polled = opened.log.read(&[range(0, 0, 200)], NOTHING).unwrap();
    drop(never_polled);
    let found = read(&*opened.log, &[range(0, 10, 200)], NOTHING).await.unwrap();
    assert!(found[&0] == within(&story[0], 10, 200));
}

async fn ranges_that_make_no_sense_are_refused(place: &dyn Place) {
    let opened = place.tell("refused", &vec![vec![]]).await;
    for ranges in [vec![range(0, -1, 0)], vec![range(0, 0, 0), range(0, 0, 0)], vec![range(-1, 0, 0)]] {
        assert_eq!(opened.log.read(&ranges, NOTHING).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let error = read(&*opened.log, &[range(5, 0, 1)], NOTHING).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Violated, "{error}");
    assert!(error.to_string().contains("partition 5"), "{error}");
}

#[tokio::test]
async fn new_partitions_and_new_records_are_seen() {
    let broker = Broker::shared();
    let topic = broker.new_topic("growing", 1).await;
    let log = kafka_log(broker, &topic, Some(PATIENCE));
    broker.produce(&topic, &of(0, &numbered(10)));
    assert_eq!(read(&log, &[range(0, 0, 10)], NOTHING).await.unwrap()[&0].len(), 10);
    broker.grow_topic(&topic, 3).await;
    broker.produce(&topic, &of(2, &numbered(5)));
    broker.produce(&topic, &of(0, &numbered(10)));
    let bound = |partition, high| PartitionBounds { partition, low: 0, high };
    assert_eq!(log.bounds().await.unwrap(), [bound(0, 20), bound(1, 0), bound(2, 5)]);
    let found = read(&log, &[range(0, 10, 20), range(2, 0, 5)], NOTHING).await.unwrap();
    assert_eq!((found[&0].len(), found[&2].len()), (10, 5));
}

#[tokio::test]
async fn an_open_transaction_holds_the_end() {
    let broker = Broker::shared();
    let topic = broker.new_topic("open", 1).await;
    broker.produce(&topic, &of(0, &numbered(3)));
    let producer: rdkafka::producer::BaseProducer = broker.client().set("transactional.id", &topic).create().unwrap();
    use rdkafka::producer::Producer;
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let record = rdkafka::producer::BaseRecord::<(), str>::to(&topic).partition(0).payload("open");
    assert!(producer.send(record).is_ok());
    producer.flush(PATIENCE).unwrap();
    let committed = kafka_log(broker, &topic, Some(PATIENCE));
    assert_eq!(committed.bounds().await.unwrap()[0].high, 3);
    assert_eq!(read(&committed, &[range(0, 0, 3)], NOTHING).await.unwrap()[&0].len(), 3);
    assert_eq!(committed.held().await.unwrap(), BTreeMap::from([(0, 1)]));
    producer.abort_transaction(PATIENCE).unwrap();
    while !committed.held().await.unwrap().is_empty() {}
    // Whoever asks for what is not committed is refused: it may never have been.
    let properties = BTreeMap::from([("isolation.level".to_string(), "read_uncommitted".to_string())]);
    let refused = KafkaConfig::new(broker.address(), &properties).unwrap_err();
    assert!(refused.message().contains("aborted transactions"), "{refused}");
}

#[tokio::test]
async fn a_topic_that_was_made_again_is_another_one() {
    let broker = Broker::shared();
    let topic = broker.new_topic("again", 1).await;
    broker.produce(&topic, &of(0, &numbered(10)));
    let log = kafka_log(broker, &topic, Some(PATIENCE));
    let before = log.identity().await.unwrap();
    broker.delete_topic(&topic).await;
    broker.create_topic(&topic, 1).await;
    broker.produce(&topic, &of(0, &numbered(4)));
    let after = log.identity().await.unwrap();
    assert_eq!((&before.topic, &before.cluster_id), (&after.topic, &after.cluster_id));
    assert_ne!(before.topic_id, after.topic_id);
    for (from, gone) in [(7, "[4, 10)"), (2, "[4, 10)")] {
        let error = read(&log, &[range(0, from, 10)], NOTHING).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Violated, "{error}");
        assert!(error.to_string().contains(&format!("offsets {gone} are gone; the log ends at 4")), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_topic_is_told_with_its_neighbours() {
    let broker = Broker::shared();
    let topic = broker.new_topic("ad-impressions", 1).await;
    let name = topic.replace("impressions", "impresions");
    let error = kafka_log(broker, &name, None).bounds().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("topic `{name}` does not exist")), "{error}");
    assert!(error.to_string().contains(&format!("`{topic}`")), "{error}");
}

#[tokio::test]
async fn mirrored_positions_reach_kafka() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let broker = Broker::shared();
    let topic = broker.new_topic("mirror", 2).await;
    broker.produce(&topic, &of(0, &numbered(3)));
    let properties = BTreeMap::from([("group.id".to_string(), topic.clone())]);
    let log = KafkaLog::open(KafkaConfig::new(broker.address(), &properties).unwrap(), &topic, None).unwrap();
    log.mirror(&BTreeMap::from([(0, 3), (1, 0)]));
    let consumer: BaseConsumer = broker.client().set("group.id", &topic).create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition(&topic, 0);
    loop {
        let committed = consumer.committed_offsets(list.clone(), PATIENCE).unwrap();
        if committed.elements()[0].offset() == rdkafka::Offset::Offset(3) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_broker_that_goes_in_the_middle_is_waited_for() {
    let broker = Broker::own();
    let topic = broker.new_topic("away", 1).await;
    let large = large(1000);
    broker.produce(&topic, &of(0, &large));
    let log = kafka_log(&broker, &topic, None);
    let mut stream = log.read(&[range(0, 0, 1000)], NOTHING).unwrap();
    let mut offsets = stream.recv().await.unwrap().unwrap().offsets;
    broker.stop();
    let impatient = kafka_log(&broker, &topic, Some(Duration::from_millis(100)));
    assert_eq!(impatient.bounds().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = read(&impatient, &[range(0, 0, 1000)], NOTHING).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(broker.address()), "{error}");
    broker.start_again();
    while let Some(batch) = tokio::time::timeout(PATIENCE, stream.recv()).await.expect("it comes back") {
        offsets.extend(batch.unwrap().offsets);
    }
    assert!(offsets == (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dropped_log_ends_its_stream_with_an_error() {
    let broker = Broker::shared();
    let topic = broker.new_topic("closed", 1).await;
    let large = large(300);
    broker.produce(&topic, &of(0, &large));
    let log = kafka_log(broker, &topic, None);
    let mut stream = log.read(&[range(0, 0, 300)], NOTHING).unwrap();
    stream.recv().await.unwrap().unwrap();
    drop(log);
    let mut last = None;
    while let Some(batch) = tokio::time::timeout(PATIENCE, stream.recv()).await.expect("it ends") {
        last = Some(batch);
    }
    assert!(last.unwrap().unwrap_err().to_string().contains("was closed while it was read"));
}

/// What is fetched ahead of one partition while another is read makes it pause.
#[tokio::test]
async fn a_partition_that_was_paused_is_read_anew() {
    let broker = Broker::shared();
    let topic = broker.new_topic("paused", 2).await;
    let large = large(1000);
    broker.produce(&topic, &of(0, &large));
    broker.produce(&topic, &of(1, &large));
    let log = kafka_log(broker, &topic, None);
    read(&log, &[range(0, 0, 1), range(1, 0, 1)], NOTHING).await.unwrap();
    read(&log, &[range(0, 1, 1000)], NOTHING).await.unwrap();
    let again = tokio::time::timeout(PATIENCE, read(&log, &[range(1, 0, 1000)], NOTHING)).await;
    assert_eq!(again.expect("it is resumed").unwrap()[&1].len(), 1000);
}

/// Each read takes partitions away from librdkafka that it may still be starting or stopping: it aborts the process
/// when one is stopped twice.
#[tokio::test]
async fn reads_may_follow_each_other_at_once() {
    let broker = Broker::shared();
    let topic = broker.new_topic("hasty", 2).await;
    let story = [vec![Step::Records(numbered(1000))], vec![Step::Records(numbered(1000))]];
    broker.produce(&topic, &of(0, &numbered(1000)));
    broker.produce(&topic, &of(1, &numbered(1000)));
    for round in 0..20 {
        let log = kafka_log(broker, &topic, None);
        for turn in 0..25 {
            let mut stream = log.read(&[range(turn % 2, i64::from(turn), 1000)], NOTHING).unwrap();
            if (round + turn) % 7 == 0 {
                stream.recv().await.unwrap().unwrap();
            }
        }
        if round % 10 == 0 {
            let found = read(&log, &[range(0, 10, 1000), range(1, 0, 1000)], NOTHING).await.unwrap();
            assert!(found[&0] == within(&story[0], 10, 1000) && found[&1] == seen(&story[1]));
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_waited_for() {
    let broker = Broker::with_password("reader", "right-password");
    let open = |password: &str| {
        let properties = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "reader"),
            ("sasl.password", password),
        ];
        let properties = properties.map(|(name, value)| (name.to_string(), value.to_string()));
        let config = KafkaConfig::new(broker.address(), &BTreeMap::from(properties)).unwrap();
        KafkaLog::open(config, "none", None).unwrap()
    };
    let log = open("wrong-password");
    for error in [log.bounds().await.unwrap_err(), read(&log, &[range(0, 0, 1)], NOTHING).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let message = error.to_string();
        assert!(message.contains("does not let us in") && message.contains("Authentication failed"), "{message}");
        assert!(!message.contains("wrong-password"), "{message}");
    }
    let error = open("right-password").bounds().await.unwrap_err();
    assert!(error.to_string().contains("topic `none` does not exist"), "{error}");
}
