//! The names of `txn` actions: a durable map from app id to number that lives in the table's own log.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const POSITION: &str = "flumen";
const TOPIC: &str = "flumen-topic";
const SCHEMA: &str = "flumen-schema";
const SIDE: &str = "flumen-side";
const RETRY: &str = "flumen-retry";
const SETTLED: &str = "flumen-settled";
const CLOSE: &str = "flumen-close";
const LATE: &str = "flumen-late";

/// Whose positions a `txn` holds: one query of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The pipeline's name.
    pub pipeline: String,
    /// The query's name.
    pub query: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query `{}` of pipeline `{}`", self.query, self.pipeline)
    }
}

/// The position in a partition that is gone.
pub const GONE: i64 = -1;

/// Who may owe a side table something by a version with a `txn` of this app id: `pipeline:query`.
pub fn debtor(app_id: &str) -> Option<&str> {
    [SIDE, RETRY].iter().find_map(|kind| app_id.strip_prefix(kind)?.strip_prefix(':'))
}

/// [`Owner::settled`] of the query that [`debtor`] names.
pub fn settled_of(debtor: &str) -> String {
    format!("{SETTLED}:{debtor}")
}

impl Owner {
    /// Names are `[A-Za-z0-9_.-]+`, so that a colon separates them.
    pub fn new(pipeline: impl Into<String>, query: impl Into<String>) -> Self {
        Self { pipeline: pipeline.into(), query: query.into() }
    }

    /// What a commit that reads no topic says of itself: whose it is.
    pub fn info(&self) -> Map<String, Value> {
        let mut info = Map::new();
        info.insert("pipeline".into(), json!(self.pipeline));
        info.insert("query".into(), json!(self.query));
        info
    }

    /// The app id whose number is the next offset to read of a partition.
    pub fn position(&self, topic: &str, partition: i32) -> String {
        format!("{POSITION}:{}:{}:{topic}:{partition}", self.pipeline, self.query)
    }

    /// The app id whose number is the hash of the topic's identity.
    pub fn topic(&self, topic: &str) -> String {
        format!("{TOPIC}:{}:{}:{topic}", self.pipeline, self.query)
    }

    /// The app id whose number is the hash of the descriptor set.
    pub fn schema(&self, topic: &str) -> String {
        format!("{SCHEMA}:{}:{}:{topic}", self.pipeline, self.query)
    }

    /// The app id whose number is the micro-batch whose side tables are owed; 0 when none are.
    pub fn side(&self) -> String {
        format!("{SIDE}:{}:{}", self.pipeline, self.query)
    }

    /// The app id whose number is that of the last retry of dead letters.
    pub fn retry(&self) -> String {
        format!("{RETRY}:{}:{}", self.pipeline, self.query)
    }

    /// The app id whose number is a version: up to it the side tables have got what they were owed. Upkeep writes it
    /// before the log's entries go, which alone would say so.
    pub fn settled(&self) -> String {
        format!("{SETTLED}:{}:{}", self.pipeline, self.query)
    }

    /// The app id whose number is that of the closing whose rows the table has for a date.
    pub fn close(&self, date: &str) -> String {
        format!("{CLOSE}:{}:{}:{date}", self.pipeline, self.query)
    }

    /// The app id whose number is the next offset of a partition to look at for late rows.
    pub fn late(&self, topic: &str, topic_id: &str, partition: i32) -> String {
        format!("{LATE}:{}:{}:{topic}:{topic_id}:{partition}", self.pipeline, self.query)
    }

    /// The app id whose number is that of the closing of a date whose late rows were looked for.
    pub fn late_of(&self, date: &str) -> String {
        format!("{LATE}-of:{}:{}:{date}", self.pipeline, self.query)
    }

    /// The app id whose number is the version of the landing table up to which retried rows were looked at.
    pub fn late_version(&self) -> String {
        format!("{LATE}:{}:{}", self.pipeline, self.query)
    }

    /// Whether another attempt's `txn` with this app id means that somebody else runs this query. A
    /// `flumen-retry` fences no stream.
    pub fn is_fenced_by(&self, app_id: &str) -> bool {
        [POSITION, TOPIC, SCHEMA].iter().any(|kind| {
            app_id
                .strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix(':')?.strip_prefix(&self.pipeline)?.strip_prefix(':'))
                .and_then(|rest| rest.strip_prefix(&self.query))
                .is_some_and(|rest| rest.starts_with(':'))
        })
    }

    /// The next offset to read of each partition of a topic.
    pub fn positions(&self, txns: &HashMap<String, i64>, topic: &str) -> BTreeMap<i32, i64> {
        txns.iter()
            .filter_map(|(app_id, &offset)| {
                let position = Position::parse(app_id)?;
                let is_it = position.owner == *self && position.topic == topic && offset != GONE;
                is_it.then_some((position.partition, offset))
            })
            .collect()
    }

    /// The others that have positions in this topic, in order.
    pub fn strangers(&self, txns: &HashMap<String, i64>, topic: &str) -> Vec<Owner> {
        let mut strangers: Vec<_> = txns
            .keys()
            .filter_map(|app_id| Position::parse(app_id))
            .filter(|position| position.topic == topic && position.owner != *self)
            .map(|position| position.owner)
            .collect();
        strangers.sort();
        strangers.dedup();
        strangers
    }
}

/// A position's app id, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Whose position it is.
    pub owner: Owner,
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl Position {
    /// Reads `flumen:<pipeline>:<query>:<topic>:<partition>`; `None` for any other app id.
    pub fn parse(app_id: &str) -> Option<Self> {
        let mut parts = app_id.split(':');
        if parts.next()? != POSITION {
            return None;
        }
        let owner = Owner::new(parts.next()?, parts.next()?);
        let topic = parts.next()?.to_string();
        let partition = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { owner, topic, partition })
    }
}

/// 63 bits of the SHA-256 of some bytes (the first eight, big endian, without the lowest bit): fits a `txn` version.
pub fn hash63(bytes: &[u8]) -> i64 {
    let digest = Sha256::digest(bytes);
    let first = digest.iter().take(8).fold(0u64, |high, &byte| (high << 8) | u64::from(byte));
    (first >> 1) as i64
}

/// The identity of a topic as a `txn` version: [`hash63`] of cluster id, a zero byte, topic id.
pub fn topic_hash(cluster_id: &str, topic_id: &str) -> i64 {
    hash63(&[cluster_id.as_bytes(), &[0], topic_id.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let owner = Owner::new("p", "q");
        assert_eq!(owner.position("t.x", 3), "flumen:p:q:t.x:3");
        assert_eq!(owner.topic("t"), "flumen-topic:p:q:t");
        assert_eq!(owner.schema("t"), "flumen-schema:p:q:t");
        let position = Position::parse("flumen:p:q:t.x:3").unwrap();
        assert_eq!((position.owner, position.topic.as_str(), position.partition), (owner, "t.x", 3));
        for other in ["flumen:p:q:t", "flumen:p:q:t:x", "flumen:p:q:t:3:4", "flumen-topic:p:q:t:3", "spark"] {
            assert_eq!(Position::parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_own_query_fences() {
        let owner = Owner::new("p", "q");
        for own in ["flumen:p:q:t:0", "flumen:p:q:other:9", "flumen-topic:p:q:t", "flumen-schema:p:q:t"] {
            assert!(owner.is_fenced_by(own), "{own}");
        }
        for foreign in ["flumen:p:q2:t:0", "flumen:p2:q:t:0", "flumen-retry:p:q", "flumen:p:q", "x", "flumenx:p:q:t:0"]
        {
            assert!(!owner.is_fenced_by(foreign), "{foreign}");
        }
    }

    #[test]
    fn positions_and_strangers() {
        let owner = Owner::new("p", "q");
        let txns = HashMap::from([
            ("flumen:p:q:t:0".to_string(), 10),
            ("flumen:p:q:t:11".to_string(), 7),
            ("flumen:p:q:u:0".to_string(), 1),
            ("flumen:old:q:t:0".to_string(), 99),
            ("flumen:old:q:t:1".to_string(), 98),
        ]);
        assert_eq!(owner.positions(&txns, "t"), BTreeMap::from([(0, 10), (11, 7)]));
        assert_eq!(owner.strangers(&txns, "t"), [Owner::new("old", "q")]);
        assert!(owner.strangers(&txns, "u").is_empty());
    }

    #[test]
    fn a_hash_is_the_first_63_bits() {
        // SHA-256("abc") = ba7816bf 8f01cfea …
        assert_eq!(hash63(b"abc"), (0xba78_16bf_8f01_cfea_u64 >> 1) as i64);
        assert!(hash63(b"") > 0);
    }
}
