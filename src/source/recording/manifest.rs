//! What a recording says of itself: `manifest.json`, written last.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::wrong;
use crate::error::{Error, Result};
use crate::source::TopicIdentity;

/// Its name in the recording's directory.
pub(super) const MANIFEST: &str = "manifest.json";
/// The form that is written. A manifest without a number is of this one.
const VERSION: u32 = 1;

/// What a recording holds and where it comes from. By hand, `topic` and `partitions` are enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the recording.
    #[serde(default = "version")]
    pub version: u32,
    /// The topic's name.
    pub topic: String,
    /// Kafka's topic id, empty where none is known.
    #[serde(default)]
    pub topic_id: String,
    /// Kafka's cluster id, empty where none is known.
    #[serde(default)]
    pub cluster_id: String,
    /// What was recorded of each partition, ordered by partition.
    pub partitions: Vec<ManifestPartition>,
    /// All records together.
    #[serde(flatten)]
    pub all: Counted,
    /// How it came about.
    #[serde(flatten)]
    pub about: About,
}

/// What was recorded of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPartition {
    /// Its number.
    pub partition: i32,
    /// The first offset that was read.
    pub from: i64,
    /// The offset after the last one that was read.
    pub to: i64,
    /// Its records.
    #[serde(flatten)]
    pub counted: Counted,
}

/// Records, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How many.
    #[serde(default)]
    pub records: u64,
    /// The bytes of their keys and values.
    #[serde(default)]
    pub bytes: u64,
    /// SHA-256 of what they say, in hexadecimal digits; `None` in a manifest that was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// How a recording came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What the values are, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueAbout>,
    /// Which share of the keys it holds, such as `1/100`; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// The fields that were made unrecognizable, and how, as in `user_id=hash`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
    /// Which program wrote it, and when (RFC 3339).
    #[serde(default)]
    pub tool: String,
    /// When it was written, RFC 3339.
    #[serde(default)]
    pub recorded_at: String,
}

/// What the values of a recording are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueAbout {
    /// The message's full name.
    pub message: String,
    /// The file with its descriptor set, beside the manifest; named after the set's SHA-256.
    pub descriptor: String,
}

fn version() -> u32 {
    VERSION
}

impl Manifest {
    /// A manifest of these partitions, ordered by partition.
    pub(super) fn new(identity: TopicIdentity, partitions: Vec<ManifestPartition>, about: About) -> Self {
        let TopicIdentity { topic, topic_id, cluster_id } = identity;
        let all = all(&partitions);
        Self { version: VERSION, topic, topic_id, cluster_id, partitions, all, about }
    }

    /// Which topic was recorded.
    pub fn identity(&self) -> TopicIdentity {
        let (topic, topic_id) = (self.topic.clone(), self.topic_id.clone());
        TopicIdentity { topic, topic_id, cluster_id: self.cluster_id.clone() }
    }

    /// The manifest in `dir`; `None` when there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        /// What every form has.
        #[derive(Deserialize)]
        struct Form {
            #[serde(default = "version")]
            version: u32,
        }
        let path = dir.join(MANIFEST);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(super::unreadable(&path, error)),
        };
        let broken = |error: serde_json::Error| {
            Error::invalid(format!("{}: {error}. Record the topic again, or mend the file", path.display()))
        };
        let Form { version } = serde_json::from_str(&text).map_err(broken)?;
        if version > VERSION {
            return Err(Error::invalid(format!(
                "{}: the recording is of form {version}, and this program knows form {VERSION} and older ones; use a \
                 newer flumen",
                path.display()
            )));
        }
        let manifest: Manifest = serde_json::from_str(&text).map_err(broken)?;
        let mut last = -1;
        for p in &manifest.partitions {
            if p.partition <= last || p.from < 0 || p.from > p.to {
                return Err(wrong(&path, &format!("partition {} [{}, {}) is out of order", p.partition, p.from, p.to)));
            }
            last = p.partition;
        }
        Ok(Some(manifest))
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        replace(&dir.join(MANIFEST), (text + "\n").as_bytes(), PUBLIC)
    }
}

/// All records of these partitions: of their hash, see [`super::content`].
pub(super) fn all(partitions: &[ManifestPartition]) -> Counted {
    let mut hash = Some(Sha256::new());
    let mut all = Counted::default();
    for ManifestPartition { partition, from, to, counted } in partitions {
        all.records += counted.records;
        all.bytes += counted.bytes;
        let of = counted.sha256.as_ref().and_then(|hash| hex::decode(hash).ok());
        hash = hash.zip(of).map(|(mut hash, of)| {
            hash.update(partition.to_le_bytes());
            hash.update(from.to_le_bytes());
            hash.update(to.to_le_bytes());
            hash.update(of);
            hash
        });
    }
    all.sha256 = hash.map(|hash| hex::encode(hash.finalize()));
    all
}

/// For everybody to read, and for its owner alone.
pub(super) const PUBLIC: u32 = 0o644;
pub(super) const PRIVATE: u32 = 0o600;

/// Puts a file in the place of what was there, whole or not at all, with these rights where the system has such.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}
