//! The object `flumen` of a commit: what was read and written, in words for people, lineage and replay.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::observe::{Records, Rows};
use crate::pipeline::Pipeline;
use crate::sink::SideFiles;

/// What a commit says of itself besides its actions; the sink adds the attempt.
pub(crate) struct CommitInfo<'a> {
    /// The micro-batch's number; a batch job has none.
    pub(crate) batch: Option<i64>,
    /// The time between two micro-batches of a run that goes on; a bounded one has none.
    pub(crate) trigger: Option<Duration>,
    /// The micro-batch's clock.
    pub(crate) clock: DateTime<Utc>,
    /// The ranges that were read.
    pub(crate) sources: Vec<Value>,
    /// The ranges that were due and are gone, and were passed over.
    pub(crate) lost: Vec<Value>,
    /// Name and version of each lookup.
    pub(crate) lookups: &'a [(String, String)],
    /// Name and SHA-256 of each model.
    pub(crate) models: &'a [(String, String)],
    /// The files of side tables.
    pub(crate) side: Vec<SideFiles>,
    /// What became of the records.
    pub(crate) records: Records,
    /// What became of the rows.
    pub(crate) rows: Rows,
}

impl CommitInfo<'_> {
    /// The object for a query of a pipeline.
    pub(crate) fn of(self, pipeline: &Pipeline, query: &str) -> Map<String, Value> {
        let mut info = Map::new();
        let mut put = |key: &str, value: Value| drop(info.insert(key.to_owned(), value));
        put("pipeline", json!(pipeline.name));
        put("query", json!(query));
        put("pipeline_sha256", json!(pipeline.sha256));
        if let Some(batch) = self.batch {
            put("batch", json!(batch));
        }
        if let Some(trigger) = self.trigger {
            put("trigger_ms", json!(trigger.as_millis() as u64));
        }
        put("clock", json!(self.clock.to_rfc3339_opts(SecondsFormat::Micros, true)));
        put("sources", Value::Array(self.sources));
        if !self.lost.is_empty() {
            put("lost", Value::Array(self.lost));
        }
        put("lookups", self.lookups.iter().map(|(t, v)| json!({ "table": t, "version": v })).collect());
        put("models", self.models.iter().map(|(n, s)| json!({ "name": n, "sha256": s })).collect());
        put("side", json!(self.side));
        put("records", json!(self.records));
        put("rows", json!(self.rows));
        info
    }
}
