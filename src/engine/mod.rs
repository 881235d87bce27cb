//! The engine: the loop of a run, and one micro-batch.
//!
//! A micro-batch is a bounded plan: `[from, to)` of each partition, read, decoded, joined, scored, checked and written
//! by one DataFusion plan over all cores, then committed with its offsets in one Delta commit. While the files of one
//! micro-batch are closed and committed, the next one is already read and run.

mod alert;
mod batch;
mod checks;
mod commit_info;
mod culprit;
mod explain;
mod first_of_key;
mod fit;
mod held;
mod letter;
mod letter_box;
mod letter_list;
mod letter_log;
mod models;
mod position;
mod quarantine;
mod query;
mod query_plan;
mod query_topic;
mod record_key;
mod records;
mod retry;
mod row_filter;
mod run;
mod runner;
mod selection;
mod session;
mod side;
mod status;
mod stop;
mod topic;
mod upkeep;
mod versions;
mod write;
mod writer_schemas;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::observe::Observer;
use crate::pipeline::{Pipeline, QuerySpec, SinkSpec, SourceSpec};
use crate::source::Log;
use crate::storage::Storage;

pub use batch::{Staged, stage};
pub use checks::broken_checks;
pub use explain::{Explained, ExplainedSource, explain};
pub use letter_list::{LetterGroup, LetterSample, LetterView, list_letters};
pub use retry::{Retried, retry_letters};
pub use run::{RunOptions, conclude, follow, land, run};
pub(crate) use session::config as session_config;
pub use session::{Facts, QuerySession, SessionParts, StandIn, StandIns};
pub use side::{settle, side_table};
pub use status::{QueryStatus, TopicStatus, status};
pub use stop::{Stop, Stopper, stopper};
pub use upkeep::{in_words as upkeep_in_words, maintain};

/// Opens the topics of a run: from Kafka, or from recordings.
pub trait OpenTopic: fmt::Debug + Send + Sync {
    /// A reader of `source`. A broker that is away is waited for `patience` long (`None`: for ever).
    ///
    /// # Errors
    /// `Invalid` for options that the client does not know.
    fn open(&self, source: &SourceSpec, patience: Option<Duration>) -> Result<Arc<dyn Log>>;
}

/// What a run needs from outside: stores, time, topics, and somebody to tell.
#[derive(Clone)]
pub struct Deps {
    /// The stores of tables.
    pub storage: Storage,
    /// Time and identities.
    pub clock: Arc<dyn Clock>,
    /// Hears of each micro-batch.
    pub observer: Arc<dyn Observer>,
    /// What all queries together may hold.
    pub memory: Memory,
    /// Opens topics.
    pub topics: Arc<dyn OpenTopic>,
    /// How long a broker that is away is waited for; `None`: for ever.
    pub patience: Option<Duration>,
    /// Micro-batches take by chance fewer records than they might; the same ones for the same seed. `None`: never.
    pub cuts: Option<u64>,
}

/// The table that a query writes.
fn sink_of<'p>(pipeline: &'p Pipeline, query: &QuerySpec) -> Result<&'p SinkSpec> {
    pipeline.sink(&query.name).ok_or_else(|| {
        Error::invalid(format!("pipeline {}: query {} has no sink; check the file", pipeline.name, query.name))
    })
}

/// The queries that were asked for: all, or the one of this name.
///
/// # Errors
/// `Invalid` when the file has no such query, naming those that it has.
pub fn chosen_queries(pipeline: &Pipeline, name: Option<&str>) -> Result<Vec<QuerySpec>> {
    let Some(name) = name else { return Ok(pipeline.queries.clone()) };
    pipeline.query(name).map(|query| vec![query.clone()]).ok_or_else(|| {
        let names: Vec<&str> = pipeline.queries.iter().map(|q| q.name.as_str()).collect();
        Error::invalid(format!(
            "pipeline {} has no query `{name}`; a query is named after its sink: {}",
            pipeline.name,
            names.join(", ")
        ))
    })
}
