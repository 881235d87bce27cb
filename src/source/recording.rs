//! A recorded topic as a bounded log: a directory of Parquet files, and optionally `manifest.json`.
//!
//! Within a file the records are ordered by partition and offset. The manifest tells the topic's identity and what was
//! recorded of each partition, so that empty partitions and ends behind the last record are known too.

mod columns;
mod content;
mod journal;
mod manifest;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
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
use tokio::sync::mpsc;

use self::content::Content;
pub use self::journal::Journal;
use self::manifest::MANIFEST;
pub use self::manifest::{About, Counted, Manifest, ManifestPartition, ValueAbout};
pub use self::writer::RecordingWriter;
use super::{Log, RawBatch, RawStream, TopicIdentity, Wanted};
use crate::error::{Error, Result};
use crate::offsets::{PartitionBounds, PartitionRange};

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
    manifest: Option<Manifest>,
    bounds: Vec<PartitionBounds>,
    parts: Vec<Part>,
    /// For each partition where its records are, in offset order.
    segments: BTreeMap<i32, Vec<Segment>>,
}

/// What all of a recording holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its records.
    pub records: u64,
    /// The latest timestamp of a record.
    pub last: Option<DateTime<Utc>>,
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

impl RecordingLog {
    /// Opens the recording in `dir`: reads the files' footers.
    ///
    /// # Errors
    /// `Invalid`, naming the file: wrong columns, a file that is cut off, records out of order or outside the manifest,
    /// nothing there.
    pub fn open(dir: &Path) -> Result<Self> {
        unharmed(dir, || {
            if Journal::read(dir)?.is_some() {
                let why = "the recording was interrupted. Record again what was being recorded: it goes on";
                return Err(Error::invalid(format!("{}: {why}", dir.display())));
            }
            let manifest = Manifest::read(dir)?;
            Self::read_footers(dir, manifest, None)
        })
    }

    /// Whether `dir` says that it is a recording, whole or not.
    pub fn is_one(dir: &Path) -> bool {
        dir.join(MANIFEST).is_file() || Journal::is_there(dir)
    }

    /// What is there of a recording that is under way; `None` when nothing is.
    fn under_way(dir: &Path, identity: TopicIdentity) -> Result<Option<Self>> {
        let is_there = fs::read_dir(dir).map_err(|error| unreadable(dir, error))?.flatten().any(|e| is_part(&e.path()));
        is_there.then(|| Self::read_footers(dir, None, Some(identity))).transpose()
    }

    fn read_footers(dir: &Path, manifest: Option<Manifest>, identity: Option<TopicIdentity>) -> Result<Self> {
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
        let identity = match (identity, &manifest) {
            (Some(identity), _) => identity,
            (None, Some(manifest)) => manifest.identity(),
            (None, None) => {
                TopicIdentity { topic: first_topic(dir, &parts)?, topic_id: String::new(), cluster_id: String::new() }
            }
        };
        parts.iter().try_for_each(|part| part.check_topic(&identity.topic))?;
        let bounds = bounds(dir, manifest.as_ref(), &segments)?;
        let dir = dir.to_path_buf();
        Ok(Self { recording: Arc::new(Recording { dir, identity, manifest, bounds, parts, segments }) })
    }

    /// What the recording says of itself; `None` when it says nothing.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.recording.manifest.as_ref()
    }

    /// The name of the topic that was recorded.
    pub fn topic(&self) -> &str {
        &self.recording.identity.topic
    }

    /// Reads all of it and holds it to its manifest.
    ///
    /// # Errors
    /// `Invalid` when records are missing, added or changed, naming the partition.
    pub fn verify(&self) -> Result<Found> {
        unharmed(&self.recording.dir, || self.recording.verify())
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

    /// Holds the records to the manifest's hashes, where it has some.
    fn verify(&self) -> Result<Found> {
        let all = Wanted { key: true, headers: true };
        let mut found = Found { records: 0, last: None };
        for bounds in &self.bounds {
            let range = PartitionRange { partition: bounds.partition, from: bounds.low, to: bounds.high };
            let mut content = Content::default();
            let mut last = -1;
            self.read(range, all, &mut |batch| {
                content.add(&batch);
                last = batch.timestamps.iter().copied().fold(last, i64::max);
                true
            })?;
            let is = content.counted();
            found.records += is.records;
            found.last = found.last.max(DateTime::from_timestamp_millis(last).filter(|_| last >= 0));
            let told = self.manifest.iter().flat_map(|manifest| &manifest.partitions);
            let told = told.into_iter().find(|told| told.partition == bounds.partition);
            let Some(told) = told.filter(|told| told.counted.sha256.is_some() && told.counted != is) else { continue };
            let why = format!(
                "it tells of {} records of partition {} with hash {}, and there are {} with hash {}",
                told.counted.records,
                told.partition,
                told.counted.sha256.as_deref().unwrap_or_default(),
                is.records,
                is.sha256.as_deref().unwrap_or_default()
            );
            return Err(wrong(&self.dir.join(MANIFEST), &why));
        }
        match &self.manifest {
            Some(manifest) if manifest.all.sha256.is_some() && manifest.all != manifest::all(&manifest.partitions) => {
                Err(wrong(&self.dir.join(MANIFEST), "its sums are not those of its partitions"))
            }
            _ => Ok(found),
        }
    }

    /// The files that hold records of a partition.
    fn parts_of(&self, partition: i32) -> u32 {
        let segments = self.segments.get(&partition).map_or(&[][..], Vec::as_slice);
        segments.iter().map(|segment| segment.part).collect::<BTreeSet<_>>().len() as u32
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

/// The records of `batch` that belong to `range`.
fn within(batch: &RecordBatch, range: PartitionRange) -> Result<RecordBatch, arrow::error::ArrowError> {
    let (partitions, offsets) = columns::places(batch)?;
    let belongs = |row: usize| partitions[row] == range.partition && (range.from..range.to).contains(&offsets[row]);
    let rows: Vec<u64> = (0..batch.num_rows()).filter(|&row| belongs(row)).map(|row| row as u64).collect();
    match (rows.first(), rows.last()) {
        (Some(&first), Some(&last)) if last - first + 1 > rows.len() as u64 => {
            arrow::compute::take_record_batch(batch, &arrow::array::UInt64Array::from(rows))
        }
        // They lie together.
        (Some(&first), _) => Ok(batch.slice(first as usize, rows.len())),
        _ => Ok(batch.slice(0, 0)),
    }
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

fn unwritten(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable(format!("{} cannot be written: free the disk or mend the rights", path.display()))
        .caused_by(error)
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::invalid(format!("{}: {why}. Record the topic again, or mend the file", path.display()))
}

#[cfg(test)]
mod tests;
