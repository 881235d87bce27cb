//! The Delta table that a query writes. Its log is the query's memory: positions travel as `txn` actions in the same
//! commit as the rows, so there is no second store that could disagree.

pub mod app_id;
mod changes;
mod checkpoint;
mod column_type;
mod commit;
mod compare;
mod create;
mod data_file;
mod definition;
mod entry;
mod history;
mod kept;
mod litter;
mod log;
mod maintain;
mod noting;
mod parquet_file;
mod replace;
mod side;
mod swap;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

pub use app_id::{GONE, Owner, Position, hash63, topic_hash};
pub use changes::{Change, ChangedFile, Changes, EntryMark, FileRows, TableShape};
pub use commit::{CommitRetries, Committed, SinkCommit};
pub use create::Created;
pub use deltalake::kernel::{Add, Remove};
pub use history::{History, PastCommit};
pub use kept::LastCommit;
pub use litter::Litter;
pub use maintain::{Maintained, Maintainer, Round, TableRole, TableUpkeep};
pub use parquet_file::ParquetFile;
pub use side::{SideCommit, SideFiles, positions};
pub use swap::{Swap, in_partition};
pub use writer::SinkWriter;

use crate::clock::Clock;
use crate::contract::Check;
use crate::error::{Error, Result};
use crate::pipeline::SinkSpec;
use crate::storage::{self, Storage};
use definition::{Definition, Metadata};
use log::{Anchor, LogState, TableLog};

/// The rows in the files that a commit adds, by the files' own statistics.
///
/// # Errors
/// `Unavailable` when a file says nothing of its rows.
pub fn rows_of(adds: &[Add]) -> Result<u64> {
    let mut rows = 0;
    for add in adds {
        let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<serde_json::Value>(stats).ok());
        let count = stats.and_then(|stats| stats.get("numRecords")?.as_u64());
        rows += count.ok_or_else(|| {
            Error::unavailable(format!(
                "data file {} says nothing of its rows; nothing was committed, run again",
                add.path
            ))
        })?;
    }
    Ok(rows)
}

/// A Delta table that is written by one query.
#[derive(Debug)]
pub struct DeltaSink {
    spec: SinkSpec,
    owner: Owner,
    storage: Storage,
    clock: Arc<dyn Clock>,
    retries: CommitRetries,
    schema: SchemaRef,
    log: TableLog,
    /// `None`: there is no table yet.
    state: Option<TableState>,
    /// The table's own checks.
    checks: Vec<Check>,
    /// The definition that the contract wants, when it adds columns.
    pending: Option<Metadata>,
    /// False while it is not known what the log holds.
    settled: bool,
}

/// What is known of a table that exists.
#[derive(Debug)]
struct TableState {
    version: u64,
    definition: Definition,
    txns: HashMap<String, i64>,
    anchor: Anchor,
    /// The newest checkpoint that is known, or the version for which one is under way.
    checkpoint: Option<u64>,
}

impl DeltaSink {
    /// Opens the table, or the place where it will be made: nothing is written. A table that exists is compared with
    /// the contract. The list of its files is not read.
    ///
    /// # Errors
    /// `Invalid` when contract and table differ (with the difference), or when the table uses what can't be written
    /// faithfully. `Unavailable` when the store fails.
    pub async fn open(spec: &SinkSpec, owner: Owner, storage: &Storage, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut sink = Self::unread(spec, owner, storage, clock)?;
        sink.reload().await?;
        Ok(sink)
    }

    /// The same before its log is read.
    fn unread(spec: &SinkSpec, owner: Owner, storage: &Storage, clock: Arc<dyn Clock>) -> Result<Self> {
        let columns = spec.contract.columns.iter();
        let fields: Vec<Field> =
            columns.map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable)).collect();
        Definition::of_contract(spec, String::new(), 0)?;
        Ok(Self {
            log: TableLog::new(storage.log_store(&spec.location)?),
            spec: spec.clone(),
            owner,
            storage: storage.clone(),
            clock,
            retries: CommitRetries::default(),
            schema: Arc::new(Schema::new(fields)),
            state: None,
            checks: Vec::new(),
            pending: None,
            settled: false,
        })
    }

    /// The same with another patience for unclear commits.
    #[must_use]
    pub fn with_retries(mut self, retries: CommitRetries) -> Self {
        self.retries = retries;
        self
    }

    /// Reads the log anew: version, definition and positions.
    ///
    /// # Errors
    /// As [`DeltaSink::open`].
    pub async fn reload(&mut self) -> Result<()> {
        self.settled = false;
        self.state = None;
        self.pending = None;
        self.checks = Vec::new();
        let read = self.log.read().await;
        read.and_then(|read| self.take(read)).map_err(|e| e.within(format!("table `{}`", self.location())))
    }

    /// Knows what the log says, when nothing was known before.
    fn take(&mut self, read: Option<LogState>) -> Result<()> {
        if let Some(LogState { version, protocol, metadata, txns, anchor, checkpoint }) = read {
            let definition = Definition::new(protocol, metadata)?;
            definition.refuse_unsupported(self.spec.mode)?;
            self.pending = compare::compare(&definition, &self.spec)?;
            self.checks = definition.checks()?;
            self.state = Some(TableState { version, definition, txns, anchor, checkpoint });
        }
        self.settled = true;
        Ok(())
    }

    /// Whether the table exists.
    pub fn exists(&self) -> bool {
        self.state.is_some()
    }

    /// The newest version that is known; `None` when there is no table.
    pub fn version(&self) -> Option<u64> {
        self.state.as_ref().map(|state| state.version)
    }

    /// Whether columns of the contract wait to be added ([`DeltaSink::add_columns`]).
    pub fn has_pending_columns(&self) -> bool {
        self.pending.is_some()
    }

    /// The schema that batches must have: the contract's, exactly.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the sink was declared as.
    pub fn spec(&self) -> &SinkSpec {
        &self.spec
    }

    /// Whose positions it keeps.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The location without secrets, for messages.
    pub fn location(&self) -> String {
        storage::shown(&self.spec.location)
    }

    /// The table's own CHECK constraints and invariants. They hold beside the contract's; plain files bypass whoever
    /// else would enforce them.
    pub fn table_checks(&self) -> &[Check] {
        &self.checks
    }

    /// The newest number of an app id.
    pub fn txn(&self, app_id: &str) -> Option<i64> {
        self.state.as_ref()?.txns.get(app_id).copied()
    }

    /// The newest number of every app id.
    pub fn txns(&self) -> impl Iterator<Item = (&str, i64)> {
        self.state.iter().flat_map(|state| state.txns.iter().map(|(app_id, &version)| (app_id.as_str(), version)))
    }

    /// The next offset to read of each partition of a topic; empty when the query never read it.
    pub fn positions(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.state.as_ref().map(|state| self.owner.positions(&state.txns, topic)).unwrap_or_default()
    }

    /// The others that have positions in this topic when this query has none: it was renamed, or the location is
    /// another pipeline's.
    pub fn strangers(&self, topic: &str) -> Vec<Owner> {
        match &self.state {
            Some(state) if self.owner.positions(&state.txns, topic).is_empty() => {
                self.owner.strangers(&state.txns, topic)
            }
            _ => Vec::new(),
        }
    }

    /// Refuses a table in which only others have positions for this topic.
    ///
    /// # Errors
    /// `Invalid`, naming both.
    pub fn refuse_strangers(&self, topic: &str) -> Result<()> {
        let strangers = self.strangers(topic);
        let Some(first) = strangers.first() else { return Ok(()) };
        let names: Vec<_> = strangers.iter().map(Owner::to_string).collect();
        Err(Error::invalid(format!(
            "table `{}` holds positions in topic `{topic}` of {}, and none of {}: it would read everything again; to \
             go on from there, name the pipeline so (SET flumen.pipeline = '{}') and its sink `{}`, else use another \
             LOCATION",
            self.location(),
            names.join(", "),
            self.owner,
            first.pipeline,
            first.query
        )))
    }

    fn ready(&self) -> Result<()> {
        if !self.settled {
            return Err(Error::unavailable(format!(
                "table `{}`: what the log holds is not known after the last error; run it again",
                self.location()
            )));
        }
        if self.pending.is_some() {
            return Err(Error::invalid(format!(
                "table `{}`: columns of the contract are not added yet; run it again",
                self.location()
            )));
        }
        Ok(())
    }

    fn missing(&self) -> Error {
        Error::invalid(format!("table `{}` does not exist yet; create it first", self.location()))
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
