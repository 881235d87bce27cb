//! A recorded topic as a bounded log: a directory of Parquet files, and optionally `manifest.json`.
//!
//! Within a file the records are ordered by partition and offset. The manifest tells the topic's identity and what was
//! recorded of each partition, so that empty partitions and ends behind the last record are known too.

mod columns;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::writer::RecordingWriter;
use super::{Log, RawBatch, RawStream, TopicIdentity, Wanted};
use crate::error::{Error, Result};
use crate::offsets::{PartitionBounds, PartitionRange};

const MANIFEST: &str = "manifest.json";
/// The batches that wait in a stream at most.
const STREAM_BATCHES: usize = 4;
/// The records and, about, the bytes of a batch.
const BATCH_RECORDS: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;

/// A recorded topic. It does not change while it is open.
#[derive(Debug, Clone)]
pub struct RecordingLog {
    recording: Arc<Recording>,
}

#[derive(Debug)]
struct Recording {
    dir: PathBuf,
    identity: TopicIdentity,
    bounds: Vec<PartitionBounds>,
    parts: Vec<Part>,
    /// For each partition where its records are, in offset order.
    segments: BTreeMap<i32, Vec<Segment>>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

/// The records of one partition in one row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    part: usize,
    group: usize,
    first: i64,
    last: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    topic: String,
    #[serde(default)]
    topic_id: String,
    #[serde(default)]
    cluster_id: String,
    partitions: Vec<ManifestPartition>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ManifestPartition {
    partition: i32,
    from: i64,
    to: i64,
}

impl Manifest {
    fn new(identity: TopicIdentity, ranges: &[PartitionRange]) -> Self {
        let mut partitions: Vec<ManifestPartition> =
            ranges.iter().map(|r| ManifestPartition { partition: r.partition, from: r.from, to: r.to }).collect();
        partitions.sort_by_key(|p| p.partition);
        let TopicIdentity { topic, topic_id, cluster_id } = identity;
        Self { topic, topic_id, cluster_id, partitions }
    }

    fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(MANIFEST);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, error)),
        };
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| {
            Error::invalid(format!("{}: {error}. Record the topic again, or mend the file", path.display()))
        })?;
        let mut last = -1;
        for p in &manifest.partitions {
            if p.partition <= last || p.from < 0 || p.from > p.to {
                return Err(wrong(&path, &format!("partition {} [{}, {}) is out of order", p.partition, p.from, p.to)));
            }
            last = p.partition;
        }
        Ok(Some(manifest))
    }
}

impl RecordingLog {
    /// Opens the recording in `dir`: reads the files' footers.
    ///
    /// # Errors
    /// `Invalid`, naming the file: wrong columns, a file that is cut off, records out of order or outside the manifest,
    /// nothing there.
    pub fn open(dir: &Path) -> Result<Self> {
        unharmed(dir, || Self::read_footers(dir))
    }

    fn read_footers(dir: &Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let parts = open_parts(dir)?;
        let mut segments: BTreeMap<i32, Vec<Segment>> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            part.index(index, &mut segments)?;
        }
        for (partition, of) in &mut segments {
            of.sort_by_key(|segment| segment.first);
            if let Some(pair) = of.windows(2).find(|pair| pair[1].first <= pair[0].last) {
                let why = format!("offset {} of partition {partition} is recorded twice", pair[1].first);
                return Err(wrong(&parts[pair[1].part].path, &why));
            }
        }
        let identity = match &manifest {
            Some(m) => {
                let (topic, topic_id) = (m.topic.clone(), m.topic_id.clone());
                TopicIdentity { topic, topic_id, cluster_id: m.cluster_id.clone() }
            }
            None => {
                TopicIdentity { topic: first_topic(dir, &parts)?, topic_id: String::new(), cluster_id: String::new() }
            }
        };
        parts.iter().try_for_each(|part| part.check_topic(&identity.topic))?;
        let bounds = bounds(dir, manifest.as_ref(), &segments)?;
        Ok(Self { recording: Arc::new(Recording { dir: dir.to_path_buf(), identity, bounds, parts, segments }) })
    }
}

/// Reads files of `dir`: a damaged one may be more than the library that reads it bears.
fn unharmed<T>(dir: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(wrong(dir, "a file is damaged")))
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
}

fn open_parts(dir: &Path) -> Result<Vec<Part>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        if is_part(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(Part::open).collect()
}

/// The name in the first record: for a recording without a manifest.
fn first_topic(dir: &Path, parts: &[Part]) -> Result<String> {
    for part in parts {
        for batch in part.groups(None, &["topic"], 1)? {
            let batch = batch.map_err(|error| part.broken(&error))?;
            if let Some(topic) = columns::topic(&batch).map_err(|error| part.broken(&error))? {
                return Ok(topic);
            }
        }
    }
    Err(Error::invalid(format!("{} is no recording: it has neither records nor {MANIFEST}", dir.display())))
}

/// What each partition holds: the manifest's word, which the records have to keep to, else the records'.
fn bounds(
    dir: &Path,
    manifest: Option<&Manifest>,
    segments: &BTreeMap<i32, Vec<Segment>>,
) -> Result<Vec<PartitionBounds>> {
    let recorded = segments.iter().filter_map(|(&partition, of)| {
        let (first, last) = (of.first()?, of.last()?);
        Some(PartitionBounds { partition, low: first.first, high: last.last.saturating_add(1) })
    });
    let Some(manifest) = manifest else { return Ok(recorded.collect()) };
    let told: Vec<PartitionBounds> = manifest
        .partitions
        .iter()
        .map(|p| PartitionBounds { partition: p.partition, low: p.from, high: p.to })
        .collect();
    for is in recorded {
        let within = |b: &&PartitionBounds| b.partition == is.partition && b.low <= is.low && is.high <= b.high;
        if told.iter().find(within).is_none() {
            let why = format!("it does not tell of offsets [{}, {}) of partition {}", is.low, is.high, is.partition);
            return Err(wrong(&dir.join(MANIFEST), &why));
        }
    }
    Ok(told)
}

impl Part {
    fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(|error| unreadable(&path, error))?;
        // The writer's own Arrow types do not matter, only what Parquet says.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| {
            let text = format!("{} is not a whole Parquet file: record the topic again", path.display());
            Error::invalid(text).caused_by(error)
        })?;
        match columns::misfit(metadata.schema()) {
            None => Ok(Self { path, metadata }),
            Some(name) => {
                let why = format!("column {name} is missing or has another type; a recording has {}", columns::TYPES);
                Err(wrong(&path, &why))
            }
        }
    }

    /// Reads one row group, or all.
    fn groups(&self, group: Option<usize>, names: &[&str], batch_records: usize) -> Result<ParquetRecordBatchReader> {
        let file = File::open(&self.path).map_err(|error| unreadable(&self.path, error))?;
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]);
        }
        let schema = self.metadata.schema();
        let roots = names.iter().filter_map(|name| schema.index_of(name).ok());
        let projection = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder.with_projection(projection).with_batch_size(batch_records).build();
        reader.map_err(|error| self.broken(&error))
    }

    /// Adds the segments of each row group.
    fn index(&self, part: usize, segments: &mut BTreeMap<i32, Vec<Segment>>) -> Result<()> {
        for (group, metadata) in self.metadata.metadata().row_groups().iter().enumerate() {
            if metadata.num_rows() == 0 {
                continue;
            }
            if let Some((partition, first, last)) = only_partition(metadata) {
                segments.entry(partition).or_default().push(Segment { part, group, first, last });
                continue;
            }
            for batch in self.groups(Some(group), &["partition", "offset"], BATCH_RECORDS)? {
                let batch = batch.map_err(|error| self.broken(&error))?;
                let (partitions, offsets) = columns::places(&batch).map_err(|error| self.broken(&error))?;
                for (&partition, &offset) in partitions.iter().zip(offsets) {
                    let of = segments.entry(partition).or_default();
                    match of.last_mut() {
                        Some(last) if last.part == part && last.group == group && offset > last.last => {
                            last.last = offset
                        }
                        Some(last) if last.part == part && last.group == group => {
                            return Err(self.disordered(partition, offset));
                        }
                        _ => of.push(Segment { part, group, first: offset, last: offset }),
                    }
                }
            }
        }
        Ok(())
    }

    /// Every record has to be of one topic, as far as the statistics tell.
    fn check_topic(&self, topic: &str) -> Result<()> {
        for group in self.metadata.metadata().row_groups() {
            let Some(Statistics::ByteArray(names)) = statistics(group, "topic") else { continue };
            for name in
                [names.min_opt().filter(|_| names.min_is_exact()), names.max_opt().filter(|_| names.max_is_exact())]
            {
                if let Some(name) = name.filter(|name| name.data() != topic.as_bytes()) {
                    let name = String::from_utf8_lossy(name.data());
                    return Err(wrong(
                        &self.path,
                        &format!("it holds records of topic {name}, the recording is of {topic}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The records of a batch that take about [`BATCH_BYTES`].
    fn batch_records(&self, group: usize) -> usize {
        let group = self.metadata.metadata().row_group(group);
        let bytes = usize::try_from(group.total_byte_size()).unwrap_or(0).max(1);
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        (rows.saturating_mul(BATCH_BYTES) / bytes).clamp(1, BATCH_RECORDS)
    }

    fn disordered(&self, partition: i32, offset: i64) -> Error {
        let why = format!("offset {offset} of partition {partition} is not in order (partition, then offset)");
        wrong(&self.path, &why)
    }

    fn broken(&self, error: &dyn std::error::Error) -> Error {
        Error::invalid(format!("{} is damaged: {error}. Record the topic again", self.path.display()))
    }
}

fn statistics<'a>(group: &'a RowGroupMetaData, name: &str) -> Option<&'a Statistics> {
    group.columns().iter().find(|column| column.column_path().string() == name)?.statistics()
}

/// Partition, first and last offset of a row group of a single partition, from its statistics.
fn only_partition(group: &RowGroupMetaData) -> Option<(i32, i64, i64)> {
    let (Statistics::Int32(partition), Statistics::Int64(offset)) =
        (statistics(group, "partition")?, statistics(group, "offset")?)
    else {
        return None;
    };
    let only = *partition.min_opt()?;
    (only == *partition.max_opt()?).then_some((only, *offset.min_opt()?, *offset.max_opt()?))
}

impl Recording {
    /// Reads `range` and gives its batches to `take` until that says stop.
    fn read(&self, range: PartitionRange, wanted: Wanted, take: &mut dyn FnMut(RawBatch) -> bool) -> Result<bool> {
        self.check_kept(range)?;
        let segments = self.segments.get(&range.partition).map_or(&[][..], Vec::as_slice);
        let mut next = range.from;
        for segment in segments.iter().filter(|s| s.last >= range.from && s.first < range.to) {
            let part = &self.parts[segment.part];
            let records = part.batch_records(segment.group);
            for batch in part.groups(Some(segment.group), &columns::names(wanted), records)? {
                let batch = batch.map_err(|error| part.broken(&error))?;
                let found = within(&batch, range).map_err(|error| part.broken(&error))?;
                if found.num_rows() == 0 {
                    continue;
                }
                let found = columns::records(&found, range.partition, wanted).map_err(|error| part.broken(&error))?;
                if let Some(offset) = out_of_order(&found.offsets, next) {
                    return Err(part.disordered(range.partition, offset));
                }
                next = found.offsets.last().map_or(next, |last| last.saturating_add(1));
                if !take(found) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn check_kept(&self, range: PartitionRange) -> Result<()> {
        let PartitionRange { partition, from, to } = range;
        let place = format!("recording {} (topic {}) partition {partition}", self.dir.display(), self.identity.topic);
        let way_out = "Record more of the topic, or replay into an empty table";
        let Some(kept) = self.bounds.iter().find(|b| b.partition == partition) else {
            return Err(Error::violated(format!("{place}: it is not in the recording. {way_out}")));
        };
        let (low, high) = (kept.low, kept.high);
        let gone = match () {
            () if from < low => (from, low.min(to)),
            () if to > high => (high.max(from), to),
            () => return Ok(()),
        };
        Err(Error::violated(format!(
            "{place}: offsets [{}, {}) are gone; the recording keeps [{low}, {high}). {way_out}",
            gone.0, gone.1
        )))
    }

    /// The first offset of each partition whose record is of `millis` or later.
    fn offsets_at(&self, millis: i64) -> Result<BTreeMap<i32, i64>> {
        let mut found = BTreeMap::new();
        for bounds in &self.bounds {
            let segments = self.segments.get(&bounds.partition).map_or(&[][..], Vec::as_slice);
            let mut offset = bounds.high;
            for segment in segments {
                if let Some(first) = self.first_at(*segment, bounds.partition, millis)? {
                    offset = first;
                    break;
                }
            }
            found.insert(bounds.partition, offset);
        }
        Ok(found)
    }

    fn first_at(&self, segment: Segment, partition: i32, millis: i64) -> Result<Option<i64>> {
        let part = &self.parts[segment.part];
        for batch in part.groups(Some(segment.group), &["partition", "offset", "timestamp"], BATCH_RECORDS)? {
            let batch = batch.map_err(|error| part.broken(&error))?;
            let (partitions, offsets) = columns::places(&batch).map_err(|error| part.broken(&error))?;
            let times = columns::timestamps(&batch).map_err(|error| part.broken(&error))?;
            let row = (0..offsets.len()).find(|&row| partitions[row] == partition && times[row] >= millis.max(0));
            if let Some(row) = row {
                return Ok(Some(offsets[row]));
            }
        }
        Ok(None)
    }
}

/// The records of `batch` that belong to `range`; they lie together.
fn within(batch: &RecordBatch, range: PartitionRange) -> Result<RecordBatch, arrow::error::ArrowError> {
    let (partitions, offsets) = columns::places(batch)?;
    let belongs = |row: usize| partitions[row] == range.partition && (range.from..range.to).contains(&offsets[row]);
    let first = (0..batch.num_rows()).find(|&row| belongs(row)).unwrap_or(batch.num_rows());
    let count = (first..batch.num_rows()).take_while(|&row| belongs(row)).count();
    Ok(batch.slice(first, count))
}

/// The first offset that is not larger than the one before it, beginning at `next`.
fn out_of_order(offsets: &[i64], next: i64) -> Option<i64> {
    let mut next = next;
    offsets.iter().copied().find(|&offset| {
        let wrong = offset < next;
        next = offset.saturating_add(1);
        wrong
    })
}

#[async_trait]
impl Log for RecordingLog {
    async fn identity(&self) -> Result<TopicIdentity> {
        Ok(self.recording.identity.clone())
    }

    async fn bounds(&self) -> Result<Vec<PartitionBounds>> {
        Ok(self.recording.bounds.clone())
    }

    async fn offsets_at(&self, time: DateTime<Utc>) -> Result<BTreeMap<i32, i64>> {
        let recording = self.recording.clone();
        let find = move || unharmed(&recording.dir, || recording.offsets_at(time.timestamp_millis()));
        let found = tokio::task::spawn_blocking(find).await;
        found.map_err(|error| Error::unavailable("reading a recording stopped: run it again").caused_by(error))?
    }

    fn read(&self, ranges: &[PartitionRange], wanted: Wanted) -> Result<RawStream> {
        let recording = self.recording.clone();
        let ranges = super::check_ranges(&recording.identity.topic, ranges)?;
        let (batches, stream) = mpsc::channel(STREAM_BATCHES);
        // The thread ends with the last range, or with the stream: then it finds the channel closed.
        let started = std::thread::Builder::new().name("recording-reader".into()).spawn(move || {
            for range in ranges {
                let mut hand_over = |batch| batches.blocking_send(Ok(batch)).is_ok();
                // The stream must not look as if it had ended.
                match unharmed(&recording.dir, || recording.read(range, wanted, &mut hand_over)) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        // Nobody listens when this fails.
                        let _ = batches.blocking_send(Err(error));
                        return;
                    }
                }
            }
        });
        let unstarted = |error| Error::unavailable("no thread to read the recording: run it again").caused_by(error);
        started.map(|_| stream).map_err(unstarted)
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let text = format!("{} cannot be read: name a directory with a recording", path.display());
    Error::invalid(text).caused_by(error)
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::invalid(format!("{}: {why}. Record the topic again, or mend the file", path.display()))
}

#[cfg(test)]
mod tests {
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
        writer.finish(&[range(1, 0, 0), range(0, 2, 9)]).unwrap();
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
}
