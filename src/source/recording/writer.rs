//! Writes recordings: one Parquet file for each partition, and the manifest last.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{MANIFEST, Manifest, columns, is_part};
use crate::error::{Error, Result};
use crate::offsets::PartitionRange;
use crate::source::{RawBatch, TopicIdentity};

/// The records of a row group at most.
const GROUP_RECORDS: usize = 1 << 16;
/// The bytes of all unfinished row groups together, about.
const UNFINISHED_BYTES: usize = 64 << 20;

/// A recording that is being written. Without [`RecordingWriter::finish`] its files are cut off.
pub struct RecordingWriter {
    dir: PathBuf,
    identity: TopicIdentity,
    parts: BTreeMap<i32, Part>,
}

struct Part {
    path: PathBuf,
    writer: ArrowWriter<File>,
    /// The first offset that may come next.
    next: i64,
}

impl RecordingWriter {
    /// Begins a recording in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// `Invalid` when there is a recording in `dir` already; `Unavailable` when it cannot be made.
    pub fn create(dir: &Path, identity: TopicIdentity) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|error| unwritten(dir, error))?;
        for entry in fs::read_dir(dir).map_err(|error| unwritten(dir, error))? {
            let path = entry.map_err(|error| unwritten(dir, error))?.path();
            if is_part(&path) || path.ends_with(MANIFEST) {
                return Err(Error::invalid(format!(
                    "{} holds a recording already: name another directory",
                    dir.display()
                )));
            }
        }
        Ok(Self { dir: dir.to_path_buf(), identity, parts: BTreeMap::new() })
    }

    /// Appends records. Those of one partition have to come in offset order, over all calls.
    ///
    /// # Errors
    /// `Invalid` when they do not; `Unavailable` when the file cannot be written.
    pub fn write(&mut self, batch: &RawBatch) -> Result<()> {
        let (Some(first), Some(last)) = (batch.offsets.first(), batch.offsets.last()) else { return Ok(()) };
        if !self.parts.contains_key(&batch.partition) {
            let part = self.part(batch.partition)?;
            self.parts.insert(batch.partition, part);
        }
        let limit = UNFINISHED_BYTES / self.parts.len();
        let Some(part) = self.parts.get_mut(&batch.partition) else { return Ok(()) };
        if *first < part.next || !batch.offsets.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid(format!(
                "{}: offset {first} of partition {} comes after offset {}: write the records in offset order",
                part.path.display(),
                batch.partition,
                part.next - 1
            )));
        }
        part.next = last + 1;
        let batch = columns::columns(&self.identity.topic, batch).map_err(|error| unwritten(&part.path, error))?;
        part.writer.write(&batch).map_err(|error| unwritten(&part.path, error))?;
        if part.writer.in_progress_size() > limit {
            part.writer.flush().map_err(|error| unwritten(&part.path, error))?;
        }
        Ok(())
    }

    /// Ends the recording. `ranges`: what was recorded of each partition, also of those without a record.
    ///
    /// # Errors
    /// `Unavailable` when the files cannot be written.
    pub fn finish(self, ranges: &[PartitionRange]) -> Result<()> {
        for part in self.parts.into_values() {
            part.writer.close().map_err(|error| unwritten(&part.path, error))?;
        }
        let manifest = Manifest::new(self.identity, ranges);
        let path = self.dir.join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest).map_err(|error| unwritten(&path, error))?;
        fs::write(&path, text + "\n").map_err(|error| unwritten(&path, error))
    }

    fn part(&self, partition: i32) -> Result<Part> {
        let path = self.dir.join(format!("partition-{partition:05}.parquet"));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_RECORDS))
            .build();
        let file = File::create_new(&path).map_err(|error| unwritten(&path, error))?;
        let writer = ArrowWriter::try_new(file, columns::schema(), Some(properties));
        Ok(Part { writer: writer.map_err(|error| unwritten(&path, error))?, path, next: 0 })
    }
}

impl fmt::Debug for RecordingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingWriter")
            .field("dir", &self.dir)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

fn unwritten(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable(format!("{} cannot be written: free the disk or mend the rights", path.display()))
        .caused_by(error)
}
