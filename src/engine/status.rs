//! Where a pipeline stands: committed offsets, ends, lag, table versions. Nothing is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::letter_list::count_letters;
use super::{Deps, quarantine};
use crate::error::Result;
use crate::pipeline::{Pipeline, QueryKind, QuerySpec, SinkFormat};
use crate::sink::{DeltaSink, LastCommit, Owner};

/// One partition of a topic as a query sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// The partition's number.
    pub partition: i32,
    /// The next offset to read; none before the first commit.
    pub committed: Option<i64>,
    /// The end of the partition.
    pub end: i64,
    /// Records between the two.
    pub lag: u64,
}

/// One topic of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicStatus {
    /// The topic's name.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueryStatus {
    /// The query's name.
    pub query: String,
    /// The sink's location.
    pub table: String,
    /// The sink's version; none when there is no table yet.
    pub version: Option<i64>,
    /// When the last commit was made, RFC 3339.
    pub last_commit: Option<String>,
    /// Its topics.
    pub topics: Vec<TopicStatus>,
    /// Its dead letters that no retry has committed since.
    pub dead_letters: u64,
    /// Rows in its quarantine table.
    pub quarantined: u64,
    /// Name and version of its lookups, as of the last commit of ours that the log still has.
    pub lookups: BTreeMap<String, String>,
    /// Name and SHA-256 of its models, likewise.
    pub models: BTreeMap<String, String>,
}

/// The status of every query of a pipeline.
///
/// # Errors
/// What table, broker or store return.
pub async fn status(deps: &Deps, pipeline: &Pipeline) -> Result<Vec<QueryStatus>> {
    let mut all = Vec::with_capacity(pipeline.queries.len());
    for query in &pipeline.queries {
        all.push(of_query(deps, pipeline, query).await?);
    }
    Ok(all)
}

async fn of_query(deps: &Deps, pipeline: &Pipeline, query: &QuerySpec) -> Result<QueryStatus> {
    let spec = super::sink_of(pipeline, query)?;
    if spec.format == SinkFormat::Parquet {
        return Ok(QueryStatus {
            query: query.name.clone(),
            table: spec.location.clone(),
            version: None,
            last_commit: None,
            topics: Vec::new(),
            dead_letters: 0,
            quarantined: 0,
            lookups: BTreeMap::new(),
            models: BTreeMap::new(),
        });
    }
    let owner = Owner::new(&pipeline.name, &query.name);
    let sink = DeltaSink::open(spec, owner, &deps.storage, Arc::clone(&deps.clock)).await?;
    let last = sink.last_commit().await?;
    let written = sink.last_written().await?;
    let mut topics = Vec::new();
    let (mut dead_letters, mut quarantined) = (0, 0);
    if query.kind == QueryKind::Streaming {
        dead_letters = count_letters(deps, pipeline, query).await?;
        quarantined = quarantine::count(deps, spec).await?;
        for source in pipeline.sources.iter().filter(|s| query.sources.contains(&s.name)) {
            let log = deps.topics.open(source, deps.patience)?;
            let positions = sink.positions(&source.topic);
            let bounds = log.bounds().await?;
            let partitions = bounds.iter().map(|b| {
                let committed = positions.get(&b.partition).copied();
                let lag = (b.high - committed.unwrap_or(b.low)).max(0) as u64;
                PartitionStatus { partition: b.partition, committed, end: b.high, lag }
            });
            topics.push(TopicStatus { topic: source.topic.clone(), partitions: partitions.collect() });
        }
    }
    Ok(QueryStatus {
        query: query.name.clone(),
        table: spec.location.clone(),
        version: sink.version().map(|v| v as i64),
        last_commit: last.as_ref().map(|last| last.time.clone()),
        topics,
        dead_letters,
        quarantined,
        lookups: written.as_ref().map(LastCommit::lookups).unwrap_or_default(),
        models: written.as_ref().map(LastCommit::models).unwrap_or_default(),
    })
}
