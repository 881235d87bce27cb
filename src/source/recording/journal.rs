//! A recording that is under way: `recording.json`, there from the start until the manifest is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST, PRIVATE, replace};
use super::{is_part, unreadable, unwritten};
use crate::error::{Error, Result};
use crate::offsets::PartitionRange;
use crate::source::TopicIdentity;

const JOURNAL: &str = "recording.json";
/// Held by the process that writes the recording.
const LOCK: &str = "recording.lock";

/// What is being recorded: read by the process that goes on after an interrupt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The topic's name.
    pub topic: String,
    /// Kafka's topic id.
    pub topic_id: String,
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// The ranges that were resolved at the start: partition, from, to.
    pub ranges: Vec<(i32, i64, i64)>,
    /// What was asked for, word by word: going on needs the same.
    pub asked: BTreeMap<String, String>,
    /// What hashes of redacted values are salted with; it goes away with this file.
    #[serde(default)]
    pub salt: String,
}

/// The right to write into a directory, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Journal {
    /// A journal of a topic's ranges.
    pub fn new(identity: &TopicIdentity, ranges: &[PartitionRange]) -> Self {
        Self {
            topic: identity.topic.clone(),
            topic_id: identity.topic_id.clone(),
            cluster_id: identity.cluster_id.clone(),
            ranges: ranges.iter().map(|r| (r.partition, r.from, r.to)).collect(),
            asked: BTreeMap::new(),
            salt: String::new(),
        }
    }

    /// The journal of the recording that is under way in `dir`; `None` when none is.
    ///
    /// # Errors
    /// `Invalid` when it cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(JOURNAL);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                Error::invalid(format!("{}: {error}. Remove the directory and record again", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Whether a recording is under way in `dir`.
    pub(super) fn is_there(dir: &Path) -> bool {
        dir.join(JOURNAL).is_file()
    }

    /// Which topic is recorded.
    pub fn identity(&self) -> TopicIdentity {
        let (topic, topic_id) = (self.topic.clone(), self.topic_id.clone());
        TopicIdentity { topic, topic_id, cluster_id: self.cluster_id.clone() }
    }

    /// What is recorded of each partition.
    pub fn ranges(&self) -> Vec<PartitionRange> {
        self.ranges.iter().map(|&(partition, from, to)| PartitionRange { partition, from, to }).collect()
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        replace(&dir.join(JOURNAL), &serde_json::to_vec_pretty(self)?, PRIVATE)
    }

    /// Takes it away: the recording is whole.
    pub(super) fn remove(dir: &Path) -> io::Result<()> {
        fs::remove_file(dir.join(JOURNAL))
    }
}

impl Lock {
    /// Takes the right to write into `dir`.
    ///
    /// # Errors
    /// `Unavailable` when another process has it, or the file cannot be made.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        let file = File::create(&path).map_err(|error| unwritten(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::unavailable(format!(
                "another process records into {}: wait for its end, or name another directory",
                dir.display()
            ))),
            Err(fs::TryLockError::Error(error)) => Err(unwritten(&path, error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Left behind, it does no harm.
        drop(fs::remove_file(&self.path));
    }
}

/// Refuses a directory that holds a whole recording, or files of one that nobody tells of.
pub(super) fn refuse_whole(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        if is_part(&path) || path.ends_with(MANIFEST) {
            return Err(Error::invalid(format!("{} holds a recording already: name another directory", dir.display())));
        }
    }
    Ok(())
}
