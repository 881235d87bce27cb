//! Recordings of others, broken ones, and what their manifests say.

use super::*;
use crate::error::ErrorKind;
use crate::source::Payloads;
use parquet::arrow::ArrowWriter;

fn raw(partition: i32, offsets: &[i64]) -> RawBatch {
    let mut values = Payloads::default();
    offsets.iter().for_each(|offset| values.push(Some(format!("{partition}:{offset}").as_bytes())));
    let timestamps = offsets.iter().map(|offset| offset * 10).collect();
    RawBatch { partition, offsets: offsets.to_vec(), timestamps, values, keys: None, headers: None }
}

/// One row group with all of `batches`.
fn write_part(path: &Path, topic: &str, batches: &[RawBatch]) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), columns::schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(&columns::columns(topic, batch).unwrap()).unwrap());
    writer.close().unwrap();
}

async fn read(log: &RecordingLog, ranges: &[PartitionRange]) -> Result<Vec<(i32, i64)>> {
    let mut stream = log.read(ranges, Wanted::default())?;
    let mut found = vec![];
    while let Some(batch) = stream.recv().await {
        let batch = batch?;
        found.extend(batch.offsets.iter().map(|offset| (batch.partition, *offset)));
    }
    Ok(found)
}

fn range(partition: i32, from: i64, to: i64) -> PartitionRange {
    PartitionRange { partition, from, to }
}

fn open_error(dir: &Path) -> String {
    let error = RecordingLog::open(dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

#[tokio::test]
async fn files_of_others_need_no_manifest_and_no_order_between_them() {
    let dir = tempfile::tempdir().unwrap();
    write_part(&dir.path().join("b.parquet"), "t", &[raw(0, &[1, 4]), raw(2, &[7])]);
    write_part(&dir.path().join("a.parquet"), "t", &[raw(0, &[5, 9]), raw(2, &[2, 3])]);
    let log = RecordingLog::open(dir.path()).unwrap();
    assert_eq!(log.identity().await.unwrap().topic, "t");
    let bound = |partition, low, high| PartitionBounds { partition, low, high };
    assert_eq!(log.bounds().await.unwrap(), [bound(0, 1, 10), bound(2, 2, 8)]);
    let all = read(&log, &[range(0, 1, 10), range(2, 2, 8)]).await.unwrap();
    assert_eq!(all, [(0, 1), (0, 4), (0, 5), (0, 9), (2, 2), (2, 3), (2, 7)]);
    assert_eq!(read(&log, &[range(0, 4, 9)]).await.unwrap(), [(0, 4), (0, 5)]);
    let time = DateTime::from_timestamp_millis(41).unwrap();
    assert_eq!(log.offsets_at(time).await.unwrap(), BTreeMap::from([(0, 5), (2, 7)]));
}

#[tokio::test]
async fn partitions_may_take_turns_in_files_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let turns: Vec<RawBatch> = (0..6).map(|n| raw(n % 2, &[i64::from(n / 2)])).collect();
    write_part(&dir.path().join("a.parquet"), "t", &turns);
    let log = RecordingLog::open(dir.path()).unwrap();
    assert_eq!(read(&log, &[range(0, 0, 3), range(1, 0, 3)]).await.unwrap().len(), 6);
    assert_eq!(read(&log, &[range(1, 1, 3)]).await.unwrap(), [(1, 1), (1, 2)]);
    assert_eq!(log.verify().unwrap().records, 6);
}

#[test]
fn what_is_no_recording_is_told_by_file() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open_error(&dir.path().join("missing")).contains("missing cannot be read"));
    assert!(open_error(dir.path()).contains("neither records nor manifest.json"));
    let path = dir.path().join("a.parquet");
    write_part(&path, "t", &[raw(0, &[1, 2])]);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 1, 4, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(open_error(dir.path()).contains("a.parquet is not a whole Parquet file"));
    }
    let batch =
        RecordBatch::try_from_iter([("topic", Arc::new(arrow::array::Int32Array::from(vec![1])) as _)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let message = open_error(dir.path());
    assert!(message.contains("a.parquet: column topic is missing or has another type"), "{message}");
}

#[test]
fn records_have_to_be_in_order_once_and_of_one_topic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write_part(&path, "t", &[raw(0, &[5]), raw(1, &[1]), raw(0, &[3])]);
    assert!(open_error(dir.path()).contains("offset 3 of partition 0 is not in order"));
    write_part(&path, "t", &[raw(0, &[1, 5])]);
    write_part(&dir.path().join("b.parquet"), "t", &[raw(0, &[5, 6])]);
    assert!(open_error(dir.path()).contains("offset 5 of partition 0 is recorded twice"));
    write_part(&dir.path().join("b.parquet"), "u", &[raw(0, &[6])]);
    assert!(open_error(dir.path()).contains("b.parquet: it holds records of topic u"));
}

#[tokio::test]
async fn a_manifest_has_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let identity = TopicIdentity { topic: "t".into(), topic_id: "id".into(), cluster_id: "c".into() };
    let mut writer = RecordingWriter::create(dir.path(), identity.clone()).unwrap();
    writer.write(&raw(0, &[3, 4])).unwrap();
    assert_eq!(writer.write(&raw(0, &[4])).unwrap_err().kind(), ErrorKind::Invalid);
    writer.finish(&[range(1, 0, 0), range(0, 2, 9)], About::default()).unwrap();
    let log = RecordingLog::open(dir.path()).unwrap();
    assert_eq!(log.identity().await.unwrap(), identity);
    let bound = |partition, low, high| PartitionBounds { partition, low, high };
    assert_eq!(log.bounds().await.unwrap(), [bound(0, 2, 9), bound(1, 0, 0)]);
    assert!(RecordingWriter::create(dir.path(), identity).is_err());
    let path = dir.path().join(MANIFEST);
    fs::write(&path, r#"{"topic":"t","partitions":[{"partition":0,"from":4,"to":9}]}"#).unwrap();
    assert!(open_error(dir.path()).contains("offsets [3, 5) of partition 0"));
    fs::write(&path, "{").unwrap();
    assert!(open_error(dir.path()).contains("manifest.json"));
}

fn identity() -> TopicIdentity {
    TopicIdentity { topic: "t".into(), topic_id: "id".into(), cluster_id: "c".into() }
}

/// Records two partitions into `dir`, going on after each of `stops` batches; the manifest's words.
fn record_with_stops(dir: &Path, stops: &[usize]) -> Manifest {
    let ranges = [range(0, 0, 100), range(1, 0, 100)];
    let journal = Journal::new(&identity(), &ranges);
    let batches: Vec<RawBatch> =
        (0..10).flat_map(|n| [0, 1].map(|p| raw(p, &(n * 10..n * 10 + 10).collect::<Vec<_>>()))).collect();
    for &stop in stops {
        let mut writer = RecordingWriter::begin(dir, journal.clone()).unwrap();
        let missing = |writer: &RecordingWriter, batch: &RawBatch| {
            writer.next(batch.partition).is_none_or(|next| batch.offsets[0] >= next)
        };
        let left: Vec<&RawBatch> = batches.iter().filter(|batch| missing(&writer, batch)).collect();
        left.iter().take(stop).for_each(|batch| writer.write(batch).unwrap());
        if stop % 2 == 0 {
            writer.pause().unwrap();
        }
        let error = RecordingLog::open(dir).unwrap_err();
        assert!(error.message().contains("was interrupted"), "{error}");
    }
    let mut writer = RecordingWriter::begin(dir, journal).unwrap();
    for batch in &batches {
        if writer.next(batch.partition).is_none_or(|next| batch.offsets[0] >= next) {
            writer.write(batch).unwrap();
        }
    }
    writer.finish(&ranges, About::default()).unwrap()
}

#[tokio::test]
async fn a_recording_that_was_interrupted_is_the_same_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let whole = record_with_stops(&dir.path().join("whole"), &[]);
    assert_eq!(whole.all.records, 200);
    for (n, stops) in [&[4][..], &[3], &[2, 6, 0, 5, 4], &[20]].into_iter().enumerate() {
        let place = dir.path().join(format!("{n}"));
        assert_eq!(record_with_stops(&place, stops), whole, "{stops:?}");
        let log = RecordingLog::open(&place).unwrap();
        log.verify().unwrap();
        assert_eq!(read(&log, &[range(0, 0, 100)]).await.unwrap().len(), 100);
        let left: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.iter().all(|path| is_part(path) || path.ends_with(MANIFEST)), "{left:?}");
    }
}

#[test]
fn one_process_records_and_goes_on_with_the_same_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(&identity(), &[range(0, 0, 10)]);
    let writer = RecordingWriter::begin(dir.path(), journal.clone()).unwrap();
    let error = RecordingWriter::begin(dir.path(), journal.clone()).unwrap_err();
    assert!(error.message().contains("another process records into"), "{error}");
    drop(writer);
    let error = RecordingWriter::begin(dir.path(), Journal::new(&identity(), &[range(0, 0, 11)])).unwrap_err();
    assert!(error.message().contains("another recording is under way"), "{error}");
    assert!(RecordingWriter::create(dir.path(), identity()).unwrap_err().message().contains("is under way"));
    let mut writer = RecordingWriter::begin(dir.path(), journal).unwrap();
    writer.write(&raw(0, &[1])).unwrap();
    writer.discard().unwrap();
    assert!(!dir.path().exists());
}

#[test]
fn what_was_changed_afterwards_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = RecordingWriter::create(dir.path(), identity()).unwrap();
    writer.write(&raw(0, &[1, 2])).unwrap();
    writer.write(&raw(1, &[7])).unwrap();
    writer.finish(&[range(0, 0, 9), range(1, 0, 9)], About::default()).unwrap();
    let log = RecordingLog::open(dir.path()).unwrap();
    log.verify().unwrap();
    let part = dir.path().join("partition-00000-00000.parquet");
    let other = RawBatch { timestamps: vec![10, 21], ..raw(0, &[1, 2]) };
    write_part(&part, "t", &[other]);
    let changed = RecordingLog::open(dir.path()).unwrap().verify().unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::Invalid);
    assert!(changed.message().contains("2 records of partition 0 with hash"), "{changed}");
    fs::remove_file(&part).unwrap();
    let missing = RecordingLog::open(dir.path()).unwrap().verify().unwrap_err();
    assert!(missing.message().contains("there are 0 with hash"), "{missing}");
    let manifest = dir.path().join(MANIFEST);
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"version\": 1", "\"version\": 9, \"more\": []")).unwrap();
    assert!(open_error(dir.path()).contains("of form 9, and this program knows form 1 and older ones"));
}
