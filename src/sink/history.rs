//! What a table's log says of one commit, long after it: how it came to be, and the rows that it added.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake::kernel::Add;
use deltalake::logstore::LogStore as _;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use serde_json::{Map, Value};

use super::data_file;
use super::log::TableLog;
use crate::error::{Error, Result};
use crate::storage::{self, Storage};

/// Commits that are looked at at once.
const READ_AHEAD: usize = 32;

/// A table whose commits are looked at.
#[derive(Debug)]
pub struct History {
    log: TableLog,
    location: String,
}

/// A commit.
#[derive(Debug, Clone)]
pub struct PastCommit {
    /// Its version.
    pub version: u64,
    /// The object `flumen` of its `commitInfo`; empty where another program, or upkeep, wrote it.
    pub info: Map<String, Value>,
    adds: Vec<Add>,
}

impl History {
    /// Of the table at `location`.
    ///
    /// # Errors
    /// `Invalid` when the location is none.
    pub fn open(location: &str, storage: &Storage) -> Result<Self> {
        Ok(Self { log: TableLog::new(storage.log_store(location)?), location: location.to_owned() })
    }

    /// The commit of a version.
    ///
    /// # Errors
    /// `Violated` when its entry is not in the log, saying which are; `Unavailable` when the store fails.
    pub async fn commit(&self, version: u64) -> Result<PastCommit> {
        if let Some(actions) = self.log.actions(version).await? {
            let info = actions.iter().find_map(|action| action.get("commitInfo")?.get("flumen")?.as_object().cloned());
            let adds = actions.into_iter().filter_map(|mut action| action.get_mut("add").map(Value::take));
            let adds = adds.map(serde_json::from_value).collect::<Result<Vec<Add>, _>>();
            let damaged = |error: serde_json::Error| {
                Error::invalid(format!("version {version} of the log is damaged; repair the table")).caused_by(error)
            };
            return Ok(PastCommit { version, info: info.unwrap_or_default(), adds: adds.map_err(damaged)? });
        }
        let place = storage::shown(&self.location);
        Err(match self.log.versions().await? {
            None => Error::invalid(format!("there is no table at `{place}`: name one that a run has written")),
            Some((oldest, newest)) if version < oldest => Error::violated(format!(
                "version {version} of `{place}` is gone: log clean-up has taken what is before {oldest}. Name one from \
                 {oldest} to {newest}; a longer log_retention keeps more"
            )),
            Some((oldest, newest)) => {
                Error::invalid(format!("`{place}` has no version {version}: name one from {oldest} to {newest}"))
            }
        })
    }

    /// Hands the object `flumen` of each commit of `versions` to `take`, where the log still has it.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn infos(&self, versions: RangeInclusive<u64>, mut take: impl FnMut(&Map<String, Value>)) -> Result<()> {
        let first = self.log.versions().await?.map_or(0, |(oldest, _)| oldest).max(*versions.start());
        let mut infos = futures::stream::iter(first..=*versions.end())
            .map(|version| self.log.commit_info(version))
            .buffered(READ_AHEAD);
        while let Some(info) = infos.try_next().await? {
            if let Some(info) = info.as_ref().and_then(|info| info.get("flumen")?.as_object()) {
                take(info);
            }
        }
        Ok(())
    }

    /// The newest version.
    ///
    /// # Errors
    /// `Invalid` when there is no table; `Unavailable` when the store fails.
    pub async fn newest(&self) -> Result<u64> {
        let none = || Error::invalid(format!("there is no table at `{}`", storage::shown(&self.location)));
        Ok(self.log.versions().await?.ok_or_else(none)?.1)
    }

    /// The oldest version that the log still has; 0 when there is none.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn oldest(&self) -> Result<u64> {
        Ok(self.log.versions().await?.map_or(0, |(oldest, _)| oldest))
    }

    /// The newest version; `None` when there is no table.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn newest_if_any(&self) -> Result<Option<u64>> {
        Ok(self.log.read().await?.map(|state| state.version))
    }

    /// Hands the rows that a commit added to `take`, with the columns of `schema`.
    ///
    /// # Errors
    /// `Violated` when a file is gone, naming it; what `take` returns.
    pub async fn rows(
        &self,
        commit: &PastCommit,
        schema: &SchemaRef,
        mut take: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let store = self.log.store().object_store(None);
        for add in &commit.adds {
            let failed = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast_ref() {
                Some(object_store::Error::NotFound { .. }) => Error::violated(format!(
                    "data file `{}` of version {} is gone: a vacuum has taken it. Name a later version; a longer \
                     vacuum_retention keeps more",
                    add.path, commit.version
                )),
                _ => Error::unavailable(format!("data file `{}` could not be read; run it again", add.path))
                    .caused_by(error),
            };
            let path = Path::parse(&add.path).map_err(|e| failed(e.into()))?;
            let file = data_file::open(&store, &path).await.map_err(failed)?;
            let values: HashMap<String, Option<String>> = add.partition_values.clone();
            for batch in file.read().map_err(failed)? {
                let batch = batch.map_err(|e| failed(e.into()))?;
                take(data_file::conform(&batch, schema, &values).map_err(|e| failed(e.into()))?)?;
            }
        }
        Ok(())
    }
}
