//! The table's log, read for what a sink needs and nothing else: the newest version, the definition and every `txn`.
//! The list of data files is never built, so that opening costs the same for ten files and for a hundred thousand.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use deltalake::logstore::{LogStore as _, LogStoreRef};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::sink::checkpoint;
use crate::sink::definition::{Metadata, Protocol};
use crate::sink::entry::{Digest, Entry};

const LOG: &str = "_delta_log";
/// Log entries that are read at once.
const READ_AHEAD: usize = 8;

/// What must still be in the log before the next version is written after it.
#[derive(Debug, Clone, PartialEq)]
pub enum Anchor {
    /// The entry of this version, with these bytes.
    Entry(u64, Digest),
    /// This checkpoint, when the entry of its version was cleaned up before.
    Checkpoint(Path),
}

/// What the log says up to its newest version.
#[derive(Debug, Clone)]
pub struct LogState {
    /// The newest version.
    pub version: u64,
    /// The table's protocol.
    pub protocol: Protocol,
    /// The table's schema and properties.
    pub metadata: Metadata,
    /// Every `txn`, the newest of each app id.
    pub txns: HashMap<String, i64>,
    /// The newest version's entry.
    pub anchor: Anchor,
    /// The version of the newest checkpoint.
    pub checkpoint: Option<u64>,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct TableLog {
    store: LogStoreRef,
}

/// The files of a log that matter.
#[derive(Debug, Default)]
struct Listing {
    commits: BTreeMap<u64, Path>,
    /// Version, then number of parts (0: a checkpoint with a unique name), then the parts.
    checkpoints: BTreeMap<u64, BTreeMap<u32, Vec<ObjectMeta>>>,
}

impl TableLog {
    /// The log in this store.
    pub fn new(store: LogStoreRef) -> Self {
        Self { store }
    }

    /// The store below.
    pub fn store(&self) -> &LogStoreRef {
        &self.store
    }

    /// One version's entry; `None` when it is not there.
    pub async fn entry(&self, version: u64) -> Result<Option<Entry>> {
        let Some(bytes) = self.bytes(version).await? else { return Ok(None) };
        Entry::parse(&bytes).map(Some).map_err(|e| {
            Error::invalid(format!("version {version} of the log is damaged; repair the table")).caused_by(e)
        })
    }

    /// The `commitInfo` of a version; `None` when the entry or the action is not there.
    pub async fn commit_info(&self, version: u64) -> Result<Option<Value>> {
        let Some(bytes) = self.bytes(version).await? else { return Ok(None) };
        Ok(actions(&bytes).find_map(|mut action| action.get_mut("commitInfo").map(Value::take)))
    }

    /// The actions of a version; `None` when its entry is not there.
    pub async fn actions(&self, version: u64) -> Result<Option<Vec<Value>>> {
        Ok(self.bytes(version).await?.map(|bytes| actions(&bytes).collect()))
    }

    async fn bytes(&self, version: u64) -> Result<Option<Bytes>> {
        let read = self.store.read_commit_entry(version).await;
        read.map_err(|e| unreadable(format!("version {version} of the log")).caused_by(e))
    }

    /// The oldest and the newest version whose entry is there; `None` when there is none.
    pub async fn versions(&self) -> Result<Option<(u64, u64)>> {
        let commits = self.list(0).await?.commits;
        Ok(commits.first_key_value().zip(commits.last_key_value()).map(|((oldest, _), (newest, _))| (*oldest, *newest)))
    }

    /// Whether the log still has what the next version builds on.
    pub async fn holds(&self, anchor: &Anchor) -> Result<bool> {
        match anchor {
            Anchor::Entry(version, digest) => {
                let bytes = self.bytes(*version).await?;
                Ok(bytes.is_some_and(|bytes| Digest::from(Sha256::digest(&bytes)) == *digest))
            }
            Anchor::Checkpoint(path) => match self.store.object_store(None).head(path).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(e) => Err(unreadable(format!("`{path}`")).caused_by(e)),
            },
        }
    }

    /// Reads the newest checkpoint and the entries after it; `None` when there is no table.
    pub async fn read(&self) -> Result<Option<LogState>> {
        let hint = self.checkpoint_hint().await?;
        let mut listing = self.list(hint).await?;
        if hint > 0 && listing.newest_checkpoint().is_none() {
            listing = self.list(0).await?;
        }
        let checkpoint = listing.newest_checkpoint();
        let base = checkpoint.as_ref().map(|(version, _)| *version);
        let Some(version) = listing.commits.keys().last().copied().max(base) else { return Ok(None) };

        let mut state = Replay::default();
        if let Some((version, parts)) = &checkpoint {
            for part in parts {
                state.apply(checkpoint::read(&self.store, part).await?);
            }
            // Every checkpoint has both. A clean-up that takes the file between two looks at it leaves none of them.
            if state.protocol.is_none() || state.metadata.is_none() {
                return Err(hole(*version));
            }
        }
        let first = base.map_or(0, |base| base + 1);
        let mut entries = futures::stream::iter(first..=version)
            .map(|version| async move { Ok::<_, Error>((version, self.entry(version).await?)) })
            .buffered(READ_AHEAD);
        while let Some((version, entry)) = entries.try_next().await? {
            let Some(entry) = entry else { return Err(hole(version)) };
            state.anchor = Some(Anchor::Entry(version, entry.digest));
            state.apply(entry);
        }
        if state.anchor.is_none() {
            state.anchor = self.anchor_of(version, checkpoint).await?;
        }
        state.finish(version, base).map(Some)
    }

    /// The newest version is a checkpoint's: its entry is the anchor, or the checkpoint when the entry is gone.
    async fn anchor_of(&self, version: u64, checkpoint: Option<(u64, Vec<ObjectMeta>)>) -> Result<Option<Anchor>> {
        if let Some(entry) = self.entry(version).await? {
            return Ok(Some(Anchor::Entry(version, entry.digest)));
        }
        Ok(checkpoint.and_then(|(_, parts)| Some(Anchor::Checkpoint(parts.into_iter().next()?.location))))
    }

    /// The version in `_last_checkpoint`: where listing may begin. 0 when there is none or it is not readable.
    async fn checkpoint_hint(&self) -> Result<u64> {
        let path = Path::from(format!("{LOG}/_last_checkpoint"));
        let bytes = match self.store.object_store(None).get(&path).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(0),
            Err(e) => Err(e),
        };
        let bytes = bytes.map_err(|e| unreadable(format!("`{path}`")).caused_by(e))?;
        Ok(serde_json::from_slice::<Value>(&bytes).ok().and_then(|hint| hint["version"].as_u64()).unwrap_or(0))
    }

    async fn list(&self, from: u64) -> Result<Listing> {
        let store = self.store.object_store(None);
        let offset = Path::from(format!("{LOG}/{from:020}"));
        let mut files = store.list_with_offset(Some(&Path::from(LOG)), &offset);
        let mut listing = Listing::default();
        while let Some(file) = files.try_next().await.map_err(|e| unreadable("the log".into()).caused_by(e))? {
            listing.add(file);
        }
        Ok(listing)
    }
}

impl Listing {
    fn add(&mut self, file: ObjectMeta) {
        if file.location.parts().count() != 2 {
            return;
        }
        let Some(name) = file.location.filename() else { return };
        let parts: Vec<_> = name.split('.').collect();
        let Some(version) = parts.first().filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok())
        else {
            return;
        };
        let count = match parts[1..] {
            ["json"] => {
                self.commits.insert(version, file.location);
                return;
            }
            ["checkpoint", "parquet"] => 1,
            ["checkpoint", _, count, "parquet"] => match count.parse() {
                Ok(count) => count,
                Err(_) => return,
            },
            ["checkpoint", _, "parquet" | "json"] => 0,
            _ => return,
        };
        self.checkpoints.entry(version).or_default().entry(count).or_default().push(file);
    }

    /// The newest checkpoint that has all its parts.
    fn newest_checkpoint(&self) -> Option<(u64, Vec<ObjectMeta>)> {
        self.checkpoints.iter().rev().find_map(|(version, by_count)| {
            by_count.iter().rev().find_map(|(&count, parts)| match count {
                0 => Some((*version, vec![parts.first()?.clone()])),
                count => (parts.len() == count as usize).then(|| (*version, parts.clone())),
            })
        })
    }
}

#[derive(Default)]
struct Replay {
    protocol: Option<Protocol>,
    metadata: Option<Metadata>,
    txns: HashMap<String, i64>,
    anchor: Option<Anchor>,
}

impl Replay {
    fn apply(&mut self, entry: Entry) {
        self.txns.extend(entry.txns);
        self.protocol = entry.protocol.or(self.protocol.take());
        self.metadata = entry.metadata.or(self.metadata.take());
    }

    fn finish(self, version: u64, checkpoint: Option<u64>) -> Result<LogState> {
        let (Some(protocol), Some(metadata), Some(anchor)) = (self.protocol, self.metadata, self.anchor) else {
            return Err(Error::invalid(format!(
                "the log up to version {version} defines no table: its first entries are gone and no checkpoint \
                 replaces them; restore `{LOG}` or use another LOCATION"
            )));
        };
        Ok(LogState { version, protocol, metadata, txns: self.txns, anchor, checkpoint })
    }
}

/// The actions of an entry, one after the other.
fn actions(entry: &[u8]) -> impl Iterator<Item = Value> {
    serde_json::Deserializer::from_slice(entry).into_iter::<Value>().flatten()
}

fn unreadable(what: String) -> Error {
    Error::unavailable(format!("{what} could not be read; check the store and run it again"))
}

fn hole(version: u64) -> Error {
    Error::unavailable(format!(
        "version {version} of the log is missing between others; if a clean-up is under way, run it again, else \
         restore `{LOG}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> ObjectMeta {
        ObjectMeta {
            location: Path::from(name),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: 1,
            e_tag: None,
            version: None,
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_counts() {
        let mut listing = Listing::default();
        for name in [
            "_delta_log/00000000000000000003.json",
            "_delta_log/00000000000000000004.json",
            "_delta_log/00000000000000000002.checkpoint.parquet",
            "_delta_log/00000000000000000004.checkpoint.0000000001.0000000002.parquet",
            "_delta_log/00000000000000000004.crc",
            "_delta_log/_sidecars/00000000000000000009.checkpoint.parquet",
            "_delta_log/_last_checkpoint",
        ] {
            listing.add(file(name));
        }
        assert_eq!(listing.commits.keys().copied().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(listing.newest_checkpoint().unwrap().0, 2);
        listing.add(file("_delta_log/00000000000000000004.checkpoint.0000000002.0000000002.parquet"));
        let (version, parts) = listing.newest_checkpoint().unwrap();
        assert_eq!((version, parts.len()), (4, 2));
        listing.add(file("_delta_log/00000000000000000005.checkpoint.80a083e8-7026.json"));
        assert_eq!(listing.newest_checkpoint().unwrap().0, 5);
    }
}
