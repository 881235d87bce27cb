//! One entry of a table's log: the actions that matter to a sink.

use deltalake::kernel::Remove;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::sink::definition::{Metadata, Protocol};

/// SHA-256 of a log entry.
pub type Digest = [u8; 32];

/// What one version of the log says.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// `commitInfo.flumen.attempt`: which attempt wrote it.
    pub attempt: Option<String>,
    /// Its `txn` actions.
    pub txns: Vec<(String, i64)>,
    /// A new protocol.
    pub protocol: Option<Protocol>,
    /// A new schema or new properties.
    pub metadata: Option<Metadata>,
    /// How many files it adds.
    pub adds: usize,
    /// The files that it removes.
    pub removes: Vec<String>,
    /// What its bytes are.
    pub digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    protocol: Option<Protocol>,
    meta_data: Option<Metadata>,
    add: Option<IgnoredAny>,
    remove: Option<Remove>,
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
struct CommitInfo {
    flumen: Option<Value>,
}

impl Entry {
    /// Reads the lines of a log entry, or of a checkpoint that was written as lines.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut entry = Entry { digest: Sha256::digest(bytes).into(), ..Entry::default() };
        for line in serde_json::Deserializer::from_slice(bytes).into_iter::<Line>() {
            let line = line?;
            entry.txns.extend(line.txn.map(|txn| (txn.app_id, txn.version)));
            entry.protocol = line.protocol.or(entry.protocol);
            entry.metadata = line.meta_data.or(entry.metadata);
            entry.adds += usize::from(line.add.is_some());
            entry.removes.extend(line.remove.map(|remove| remove.path));
            let attempt = line.commit_info.and_then(|info| Some(info.flumen?["attempt"].as_str()?.to_string()));
            entry.attempt = attempt.or(entry.attempt);
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_for_what_matters() {
        let entry = Entry::parse(
            br#"{"commitInfo":{"operation":"STREAMING UPDATE","flumen":{"attempt":"a-1"}}}
{"txn":{"appId":"x","version":7,"lastUpdated":1}}
{"add":{"path":"p","size":1}}
{"add":{"path":"q","size":1}}
{"remove":{"path":"r","dataChange":true}}
{"somethingNew":{}}"#,
        )
        .unwrap();
        assert_eq!(entry.attempt.as_deref(), Some("a-1"));
        assert_eq!(entry.txns, [("x".to_string(), 7)]);
        assert_eq!((entry.adds, entry.removes), (2, vec!["r".to_string()]));
        assert!(Entry::parse(b"{\"add\"").is_err());
    }
}
