//! Writes recordings: Parquet files of one partition each, and the manifest last.
//!
//! A file has its name once it is whole, so that whoever goes on after an interrupt finds whole files only. The journal
//! is there until the manifest is: a recording that was interrupted is never taken for a whole one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::content::Content;
use super::journal::{Journal, Lock, refuse_whole};
use super::manifest::{About, Manifest, ManifestPartition, PUBLIC, replace};
use super::{RecordingLog, columns, is_part, unharmed, unwritten};
use crate::error::{Error, Result};
use crate::offsets::PartitionRange;
use crate::source::{RawBatch, TopicIdentity, Wanted};

/// The records of a row group at most.
const GROUP_RECORDS: usize = 1 << 16;
/// The bytes of all unfinished row groups together, about.
const UNFINISHED_BYTES: usize = 64 << 20;
/// The bytes of keys and values in a file, about: an interrupt costs no more of a partition.
const PART_BYTES: u64 = 256 << 20;

/// A recording that is being written. Dropped before [`RecordingWriter::finish`], it can be gone on with.
pub struct RecordingWriter {
    dir: PathBuf,
    journal: Journal,
    lanes: BTreeMap<i32, Lane>,
    lock: Option<Lock>,
}

/// One partition on its way to files.
#[derive(Default)]
struct Lane {
    /// Its whole files.
    parts: u32,
    open: Option<Part>,
    /// The first offset that may come next.
    next: i64,
    content: Content,
}

struct Part {
    path: PathBuf,
    writer: ArrowWriter<File>,
    bytes: u64,
}

impl RecordingWriter {
    /// Begins a recording in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// `Invalid` when there is a recording in `dir` already, or one under way; `Unavailable` when it cannot be made.
    pub fn create(dir: &Path, identity: TopicIdentity) -> Result<Self> {
        if Journal::read(dir)?.is_some() {
            return Err(Error::invalid(format!(
                "a recording is under way in {}: go on with it, or name another directory",
                dir.display()
            )));
        }
        Self::begin(dir, Journal::new(&identity, &[]))
    }

    /// Begins the recording of `journal` in `dir`, which is made when it is missing, or goes on with it: see
    /// [`RecordingWriter::next`].
    ///
    /// # Errors
    /// `Invalid` when there is a recording in `dir` already, or another one under way; `Unavailable` when it cannot be
    /// made, or somebody else is making it.
    pub fn begin(dir: &Path, journal: Journal) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|error| unwritten(dir, error))?;
        let lock = Lock::take(dir)?;
        let mut writer = Self { dir: dir.to_owned(), journal, lanes: BTreeMap::new(), lock: Some(lock) };
        match Journal::read(dir)? {
            None => {
                refuse_whole(dir)?;
                writer.journal.write(dir).map_err(|error| unwritten(dir, error))?;
            }
            Some(before) if before == writer.journal => unharmed(dir, || writer.take_up())?,
            Some(_) => {
                return Err(Error::invalid(format!(
                    "another recording is under way in {}: ask for the same, or remove the directory",
                    dir.display()
                )));
            }
        }
        Ok(writer)
    }

    /// The offset from which a partition is missing, where some of it is there.
    pub fn next(&self, partition: i32) -> Option<i64> {
        self.lanes.get(&partition).map(|lane| lane.next)
    }

    /// Appends records. Those of one partition have to come in offset order, over all calls.
    ///
    /// # Errors
    /// `Invalid` when they do not; `Unavailable` when the file cannot be written.
    pub fn write(&mut self, batch: &RawBatch) -> Result<()> {
        let (Some(first), Some(last)) = (batch.offsets.first(), batch.offsets.last()) else { return Ok(()) };
        let limit = UNFINISHED_BYTES / self.lanes.len().max(1);
        let lane = self.lanes.entry(batch.partition).or_default();
        if *first < lane.next || !batch.offsets.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid(format!(
                "{}: offset {first} of partition {} comes after offset {}: write the records in offset order",
                self.dir.display(),
                batch.partition,
                lane.next - 1
            )));
        }
        lane.next = last + 1;
        lane.content.add(batch);
        let part = match &mut lane.open {
            Some(part) => part,
            None => lane.open.insert(Part::create(&self.dir, batch.partition, lane.parts)?),
        };
        let columns = columns::columns(&self.journal.topic, batch).map_err(|error| unwritten(&part.path, error))?;
        part.writer.write(&columns).map_err(|error| unwritten(&part.path, error))?;
        if part.writer.in_progress_size() > limit {
            part.writer.flush().map_err(|error| unwritten(&part.path, error))?;
        }
        part.bytes += batch.bytes() as u64;
        if part.bytes > PART_BYTES { lane.end_part() } else { Ok(()) }
    }

    /// Keeps a file beside the manifest, such as a descriptor set.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        replace(&path, bytes, PUBLIC).map_err(|error| unwritten(&path, error))
    }

    /// Ends the files under way: whoever goes on finds all that was written.
    ///
    /// # Errors
    /// `Unavailable` when the files cannot be written.
    pub fn pause(mut self) -> Result<()> {
        self.lanes.values_mut().try_for_each(Lane::end_part)
    }

    /// Takes everything away that was written.
    ///
    /// # Errors
    /// `Unavailable` when files cannot be removed.
    pub fn discard(mut self) -> Result<()> {
        self.lanes.clear();
        for entry in fs::read_dir(&self.dir).map_err(|error| unwritten(&self.dir, error))? {
            let path = entry.map_err(|error| unwritten(&self.dir, error))?.path();
            if is_part(&path) || path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(|error| unwritten(&path, error))?;
            }
        }
        Journal::remove(&self.dir).map_err(|error| unwritten(&self.dir, error))?;
        self.lock.take();
        // It stays where something else is in it.
        drop(fs::remove_dir(&self.dir));
        Ok(())
    }

    /// Ends the recording. `ranges`: what was recorded of each partition, also of those without a record.
    ///
    /// # Errors
    /// `Unavailable` when the files cannot be written.
    pub fn finish(mut self, ranges: &[PartitionRange], about: About) -> Result<Manifest> {
        self.lanes.values_mut().try_for_each(Lane::end_part)?;
        let mut partitions: Vec<ManifestPartition> = ranges
            .iter()
            .map(|&PartitionRange { partition, from, to }| {
                let counted = self.lanes.entry(partition).or_default().content.counted();
                ManifestPartition { partition, from, to, counted }
            })
            .collect();
        partitions.sort_by_key(|p| p.partition);
        let manifest = Manifest::new(self.journal.identity(), partitions, about);
        let written = manifest.write(&self.dir).and_then(|()| Journal::remove(&self.dir));
        written.map_err(|error| unwritten(&self.dir, error))?;
        Ok(manifest)
    }

    /// Takes up what is there: whole files stay, the rest goes.
    fn take_up(&mut self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(|error| unwritten(&self.dir, error))? {
            let path = entry.map_err(|error| unwritten(&self.dir, error))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(|error| unwritten(&path, error))?;
            }
        }
        let Some(log) = RecordingLog::under_way(&self.dir, self.journal.identity())? else { return Ok(()) };
        let all = Wanted { key: true, headers: true };
        for bounds in &log.recording.bounds {
            let lane = self.lanes.entry(bounds.partition).or_default();
            lane.parts = log.recording.parts_of(bounds.partition);
            let range = PartitionRange { partition: bounds.partition, from: bounds.low, to: bounds.high };
            log.recording.read(range, all, &mut |batch| {
                lane.content.add(&batch);
                true
            })?;
            lane.next = bounds.high;
        }
        Ok(())
    }
}

impl Lane {
    /// Gives the file under way its name, if there is one.
    fn end_part(&mut self) -> Result<()> {
        let Some(Part { path, writer, .. }) = self.open.take() else { return Ok(()) };
        let aside = path.with_extension("tmp");
        let file = writer.into_inner().map_err(|error| unwritten(&aside, error))?;
        file.sync_all().and_then(|()| fs::rename(&aside, &path)).map_err(|error| unwritten(&path, error))?;
        self.parts += 1;
        Ok(())
    }
}

impl Part {
    fn create(dir: &Path, partition: i32, number: u32) -> Result<Self> {
        let path = dir.join(format!("partition-{partition:05}-{number:05}.parquet"));
        let aside = path.with_extension("tmp");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_RECORDS))
            .build();
        let file = File::create(&aside).map_err(|error| unwritten(&aside, error))?;
        let writer = ArrowWriter::try_new(file, columns::schema(), Some(properties));
        Ok(Self { writer: writer.map_err(|error| unwritten(&path, error))?, path, bytes: 0 })
    }
}

impl fmt::Debug for RecordingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingWriter")
            .field("dir", &self.dir)
            .field("topic", &self.journal.topic)
            .finish_non_exhaustive()
    }
}
