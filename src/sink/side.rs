//! Side tables: where rows go that do not belong into the sink, such as dead letters. Their files are written before
//! the sink's commit, which names them; only then is each side table committed, from what the sink's commit says. A
//! crash in between is made good by whoever comes next.

use deltalake::kernel::Add;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::SinkSpec;
use crate::sink::definition::{contract_columns, schema_contract, schema_string};
use crate::sink::{Created, DeltaSink, Owner, SinkCommit};
use crate::storage;

/// Commits that are made to a side table while others write it too, before one gives up.
const TRIES: u32 = 5;

/// Files for a side table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideFiles {
    /// The table's location, without secrets.
    pub table: String,
    /// The files that the sink's commit gives it.
    pub add: Vec<Add>,
    /// The table's schema, as Delta writes it, where it follows the contract: the contract may have changed, and the
    /// table's location too, before somebody makes good what a crash left owing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

impl SideFiles {
    /// Files for the table of `spec`.
    pub fn new(spec: &SinkSpec, add: Vec<Add>) -> Self {
        Self { table: storage::shown(&spec.location), add, schema: None }
    }

    /// One for each table: a table is settled once, with all that a commit gives it.
    pub fn merged(all: impl IntoIterator<Item = SideFiles>) -> Vec<SideFiles> {
        let mut merged: Vec<SideFiles> = Vec::new();
        for files in all {
            match merged.iter_mut().find(|other| other.table == files.table) {
                Some(other) => {
                    other.add.extend(files.add);
                    other.schema = other.schema.take().or(files.schema);
                }
                None => merged.push(files),
            }
        }
        merged
    }

    /// The same, with the table's schema.
    ///
    /// # Errors
    /// `Invalid` when Delta has no such type.
    pub fn with_schema(self, spec: &SinkSpec) -> Result<Self> {
        Ok(Self { schema: Some(schema_string(&contract_columns(spec)?)), ..self })
    }

    /// The table as the commit says it is, when it says so.
    ///
    /// # Errors
    /// `Invalid` when the schema cannot be read.
    pub fn spec(&self) -> Result<Option<SinkSpec>> {
        let Some(schema) = &self.schema else { return Ok(None) };
        let wrong =
            |e: String| Error::invalid(format!("the schema of side table `{}` cannot be read: {e}", self.table));
        let contract = schema_contract(schema).map_err(wrong)?;
        Ok(Some(SinkSpec { merge_schema: true, ..SinkSpec::append("side", &self.table, contract) }))
    }
}

/// A sink's commit with what it owes to side tables.
#[derive(Debug, Clone)]
pub struct SideCommit {
    /// The app id that says in both tables how far they are.
    pub marker: String,
    /// Its number in this commit.
    pub number: i64,
    /// The commit's attempt: the side tables' commits carry the same, so that doing it twice is doing it once.
    pub attempt: Uuid,
    /// What is owed.
    pub side: Vec<SideFiles>,
    /// The positions that the sink's commit carries.
    pub positions: Vec<(String, i64)>,
}

impl DeltaSink {
    /// The commit of this table in which `marker` got its present number; `None` when there is no such number, or 0.
    ///
    /// # Errors
    /// `Violated` when the log no longer has that commit, so that what it owed cannot be known. `Unavailable` when the
    /// store fails.
    pub async fn side_commit(&self, marker: &str) -> Result<Option<SideCommit>> {
        let (Some(newest), Some(number)) = (self.version(), self.txn(marker).filter(|number| *number != 0)) else {
            return Ok(None);
        };
        let settled = self.txn(&self.owner.settled()).and_then(|version| u64::try_from(version).ok());
        let mut version = newest;
        loop {
            if settled.is_some_and(|settled| version <= settled) {
                return Ok(None);
            }
            let Some(entry) = self.log.entry(version).await? else { break };
            if entry.txns.iter().any(|(id, n)| id == marker && *n == number) {
                let info = self.log.commit_info(version).await?.unwrap_or_default();
                let owed = parse(&info["flumen"]).ok_or_else(|| self.owed_is_gone(version, marker))?;
                let positions = entry.txns.into_iter().filter(|(id, _)| self.owner.is_fenced_by(id)).collect();
                let (attempt, side) = owed;
                return Ok(Some(SideCommit { marker: marker.to_string(), number, attempt, side, positions }));
            }
            match version.checked_sub(1) {
                Some(before) => version = before,
                None => break,
            }
        }
        Err(self.owed_is_gone(version, marker))
    }

    fn owed_is_gone(&self, version: u64, marker: &str) -> Error {
        Error::violated(format!(
            "table `{}`: what the commit of `{marker}` owed to its side tables is gone with the log up to version \
             {version}; restore `_delta_log`, or look up the topic's records and set the marker by a commit of your \
             own",
            self.location()
        ))
    }

    /// Makes good what `commit` owes to this table, unless that has been done.
    ///
    /// # Errors
    /// `Fenced` when another instance of the query has moved on; `Unavailable` when the store fails.
    pub async fn settle(&mut self, commit: &SideCommit, files: &SideFiles) -> Result<()> {
        let mut fault = None;
        for _ in 0..TRIES {
            if self.txn(&commit.marker).is_some_and(|number| number >= commit.number) {
                return Ok(());
            }
            let made = self.try_settle(commit, files).await;
            match made {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Whoever was faster may have done just this.
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    fault = Some(error);
                    self.reload().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(fault.unwrap_or_else(|| {
            Error::unavailable(format!("table `{}`: others made and remade it; run it again", self.location()))
        }))
    }

    async fn try_settle(&mut self, commit: &SideCommit, files: &SideFiles) -> Result<bool> {
        let mut info = self.owner.info();
        info.insert("of".into(), json!({ "marker": commit.marker, "number": commit.number }));
        let mut txns = commit.positions.clone();
        txns.push((commit.marker.clone(), commit.number));
        let side = SinkCommit { adds: files.add.clone(), txns, attempt: commit.attempt, info };
        if self.exists() {
            self.commit(side).await?;
            return Ok(true);
        }
        Ok(matches!(self.create(side).await?, Created::Ours(_)))
    }
}

/// Attempt and side files of the object `flumen` of a `commitInfo`.
fn parse(flumen: &Value) -> Option<(Uuid, Vec<SideFiles>)> {
    let attempt = flumen["attempt"].as_str()?.parse().ok()?;
    let side: Vec<SideFiles> = serde_json::from_value(flumen["side"].clone()).ok()?;
    Some((attempt, SideFiles::merged(side)))
}

impl Owner {
    /// What a micro-batch says of its side tables: its own number when it owes them something, 0 when the one before
    /// did (which is settled by then), nothing when nobody ever did.
    pub fn side_marker(&self, number: i64, owes: bool, before: Option<i64>) -> Option<(String, i64)> {
        match (owes, before) {
            (true, _) => Some((self.side(), number)),
            (false, Some(before)) if before != 0 => Some((self.side(), 0)),
            (false, _) => None,
        }
    }
}

/// The positions among `txns`, for a commit that is made of a running query.
pub fn positions(owner: &Owner, txns: &[(String, i64)]) -> Vec<(String, i64)> {
    txns.iter().filter(|(id, _)| owner.is_fenced_by(id)).cloned().collect()
}
