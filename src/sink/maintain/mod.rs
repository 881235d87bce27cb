//! A table is kept in order: checkpoints and clean-up of its log, compaction of small files, vacuum.
//!
//! None of it holds up or breaks whoever writes at the same time. A checkpoint says again what the log says. A
//! compaction is a commit like any other: it is put at the next version, and gives up when a version in between has
//! removed one of its files. A vacuum takes only what has been out of every version for a day at least.
//!
//! The list of files is read as a stream; what is kept of it are small files alone.

mod bins;
mod compact;
mod log;
mod vacuum;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::pipeline::{LEAST_VACUUM_RETENTION, SinkSpec, UpkeepSpec, units};
use crate::sink::definition::schema_contract;
use crate::sink::log::TableLog;
use crate::sink::{DeltaSink, Owner};
use crate::storage::{self, Storage};

/// Versions between two checkpoints where nobody says otherwise.
const CHECKPOINT_INTERVAL: u64 = 100;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As Delta has it.
const LOG_RETENTION: Duration = DAY.saturating_mul(30);
/// As Delta has it.
const VACUUM_RETENTION: Duration = DAY.saturating_mul(7);
/// A sink's commit names files of its side tables before they do. Another pipeline that shares such a table may be
/// down in between: so long.
const SIDE_VACUUM_RETENTION: Duration = DAY.saturating_mul(30);

/// A table that is to be kept in order.
#[derive(Debug, Clone)]
pub struct TableUpkeep {
    /// The table's location.
    pub location: String,
    /// When a data file is large enough, in bytes.
    pub target_file_size: u64,
    /// How it is kept.
    pub spec: UpkeepSpec,
    /// What it keeps of its log.
    pub role: TableRole,
}

/// What a table is to the query that writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableRole {
    /// Its sink. Up to this version its side tables have got all that its commits owe them; what later ones owe, only
    /// the log says, and it stays.
    Sink {
        /// The newest such version.
        settled: u64,
    },
    /// A side table: it owes nobody anything.
    Side,
}

impl TableUpkeep {
    /// The upkeep of a sink whose side tables have got what they are owed up to the version `settled`.
    pub fn of_sink(sink: &SinkSpec, settled: u64) -> Self {
        Self {
            location: sink.location.clone(),
            target_file_size: sink.target_file_size,
            spec: sink.upkeep.clone(),
            role: TableRole::Sink { settled },
        }
    }

    /// The upkeep of one of its side tables: they are kept as it is.
    #[must_use]
    pub fn of_side(&self, location: &str) -> Self {
        Self { location: location.to_owned(), role: TableRole::Side, ..self.clone() }
    }
}

/// What was done for a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Maintained {
    /// The query that writes it.
    pub query: String,
    /// The table's location, without secrets.
    pub table: String,
    /// Its newest version.
    pub version: u64,
    /// The version of a new checkpoint.
    pub checkpoint: Option<u64>,
    /// Files of the log that were cleaned up.
    pub log_files_removed: usize,
    /// Small files that were made larger ones.
    pub files_compacted: usize,
    /// The files they were made.
    pub files_written: usize,
    /// Compactions that gave up, because others changed the same files.
    pub compactions_given_up: usize,
    /// Files that no version named, and that are gone.
    pub files_vacuumed: usize,
}

impl Maintained {
    /// Whether anything was done.
    pub fn is_any(&self) -> bool {
        self.checkpoint.is_some() || self.log_files_removed + self.files_compacted + self.files_vacuumed > 0
    }
}

/// What a round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// What is due: checkpoint and clean-up after so many versions, a vacuum once a day.
    Due,
    /// Everything there is to do.
    Whole,
}

/// Keeps one table in order.
#[derive(Debug)]
pub struct Maintainer {
    upkeep: TableUpkeep,
    clock: Arc<dyn Clock>,
    memory: Memory,
    /// The table as it defines itself: the contract may know less of it.
    sink: DeltaSink,
}

impl Maintainer {
    /// Opens a table; `None` when there is none.
    ///
    /// # Errors
    /// `Invalid` when the table uses what cannot be written faithfully; `Unavailable` when the store fails.
    pub async fn open(
        upkeep: TableUpkeep,
        owner: Owner,
        storage: &Storage,
        clock: Arc<dyn Clock>,
        memory: Memory,
    ) -> Result<Option<Self>> {
        let within = |e: Error| e.within(format!("table `{}`", storage::shown(&upkeep.location)));
        let log = TableLog::new(storage.log_store(&upkeep.location)?);
        let Some(state) = log.read().await.map_err(within)? else { return Ok(None) };
        let contract = schema_contract(&state.metadata.schema_string)
            .map_err(|e| within(Error::invalid(format!("its schema cannot be read ({e}); repair the table"))))?;
        let spec = SinkSpec {
            partition_by: state.metadata.partition_columns.clone(),
            target_file_size: upkeep.target_file_size,
            merge_schema: true,
            ..SinkSpec::append("maintenance", &upkeep.location, contract)
        };
        let mut sink = DeltaSink::unread(&spec, owner, storage, Arc::clone(&clock))?;
        sink.take(Some(state)).map_err(within)?;
        Ok(Some(Self { upkeep, clock, memory, sink }))
    }

    /// Does a round.
    ///
    /// # Errors
    /// `Unavailable` when the store fails. Nothing is lost then, and the next round takes up what is left.
    pub async fn round(&mut self, round: Round) -> Result<Maintained> {
        let mut done =
            Maintained { query: self.sink.owner().query.clone(), table: self.sink.location(), ..Maintained::default() };
        self.compact(&mut done).await?;
        self.keep_log(round, &mut done).await?;
        if round == Round::Whole || self.is_vacuum_due().await? {
            self.vacuum(&mut done).await?;
        }
        done.version = self.sink.version().unwrap_or_default();
        Ok(done)
    }

    /// A version came after the newest one; `owes` says whether it may owe a side table something.
    fn note_version(&mut self, version: u64, owes: bool) {
        if let TableRole::Sink { settled } = &mut self.upkeep.role
            && !owes
            && settled.checked_add(1) == Some(version)
        {
            *settled = version;
        }
    }

    fn table(&self) -> Result<&super::TableState> {
        self.sink.state.as_ref().ok_or_else(|| self.sink.missing())
    }

    /// How long files stay that no version names.
    fn vacuum_retention(&self) -> Duration {
        let property = self.duration_property("delta.deletedFileRetentionDuration");
        let wanted = self.upkeep.spec.vacuum_retention.or(property).unwrap_or(VACUUM_RETENTION);
        let wanted = wanted.max(LEAST_VACUUM_RETENTION);
        match self.upkeep.role {
            TableRole::Sink { .. } => wanted,
            TableRole::Side => wanted.max(SIDE_VACUUM_RETENTION),
        }
    }

    fn log_retention(&self) -> Duration {
        let property = self.duration_property("delta.logRetentionDuration");
        self.upkeep.spec.log_retention.or(property).unwrap_or(LOG_RETENTION)
    }

    /// A property of the form `interval 7 days`.
    fn duration_property(&self, key: &str) -> Option<Duration> {
        let text = self.property(key)?;
        let text = text.trim().strip_prefix("interval").unwrap_or(text);
        units::duration(text).ok()
    }

    fn property(&self, key: &str) -> Option<&str> {
        self.sink.state.as_ref()?.definition.metadata.configuration.get(key).map(String::as_str)
    }

    /// The time so long ago.
    fn before(&self, span: Duration) -> DateTime<Utc> {
        let span = chrono::Duration::from_std(span).unwrap_or(chrono::Duration::MAX);
        self.clock.now().checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    fn unavailable(&self, what: &str) -> Error {
        Error::unavailable(format!(
            "table `{}`: {what}; nothing is lost, and the next round takes it up",
            self.sink.location()
        ))
    }
}

impl DeltaSink {
    /// Whether so many versions have come since the last checkpoint that another one is due.
    pub fn is_upkeep_due(&self, upkeep: &UpkeepSpec) -> bool {
        let Some(state) = &self.state else { return false };
        state.version - state.checkpoint.unwrap_or(0).min(state.version) >= state.checkpoint_interval(upkeep)
    }

    /// Upkeep up to the newest version is under way.
    pub fn note_upkeep(&mut self) {
        if let Some(state) = &mut self.state {
            state.checkpoint = Some(state.version);
        }
    }
}

impl super::TableState {
    fn checkpoint_interval(&self, upkeep: &UpkeepSpec) -> u64 {
        let property = self.definition.metadata.configuration.get("delta.checkpointInterval");
        let property = property.and_then(|text| text.trim().parse().ok());
        upkeep.checkpoint_interval.or(property).unwrap_or(CHECKPOINT_INTERVAL).max(1)
    }
}

#[cfg(test)]
mod tests;
