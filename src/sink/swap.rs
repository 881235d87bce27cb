//! One date of a final table, put in the place of what was there: decided elsewhere, made good here by whoever comes.

use std::collections::HashMap;

use deltalake::kernel::{Add, Remove};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::commit::{MAX_REBASES, Nature, Put, Writer};
use super::definition::Definition;
use super::{Committed, DeltaSink, SinkCommit};
use crate::error::{Error, Overtaken, Result};
use crate::pipeline::SinkMode;

/// What becomes of a date of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Swap {
    /// The partition column of the date.
    pub column: String,
    /// The date, as the log writes it: `2026-11-22`.
    pub date: String,
    /// The number of the closing.
    pub closing: i64,
    /// The identity of whoever decided it: all that make it good are one.
    pub attempt: Uuid,
    /// The version that it was decided on; `None`: there was no table.
    pub since: Option<u64>,
    /// The files that have the rows.
    pub adds: Vec<Add>,
    /// The files that had them.
    pub removes: Vec<Remove>,
}

/// Whether a file's partition is that of `date`.
pub fn in_partition(values: &HashMap<String, Option<String>>, column: &str, date: &str) -> bool {
    values.get(column).and_then(Option::as_deref) == Some(date)
}

impl DeltaSink {
    /// What removes the files of a date, in the version that is known.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn files_of_date(&self, column: &str, date: &str) -> Result<Vec<Remove>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        self.files_of(|_, values| in_partition(values, column, date)).await
    }

    /// Makes `swap` good, unless the table has it: one version with the closing's number as its `txn`. Whoever else
    /// makes it good at the same time makes the same version.
    ///
    /// # Errors
    /// `Unavailable`, naming the table, when a version since then touched the date's files, when a file is gone, or
    /// when the store fails; then nothing was changed.
    pub async fn make_good(&mut self, swap: &Swap, info: Map<String, Value>) -> Result<Committed> {
        self.ready()?;
        let app_id = self.owner.close(&swap.date);
        if self.txn(&app_id).is_some_and(|number| number >= swap.closing) {
            return Ok(Committed { version: self.version().unwrap_or_default() });
        }
        self.find_files(swap).await?;
        let commit =
            SinkCommit { adds: swap.adds.clone(), txns: vec![(app_id, swap.closing)], attempt: swap.attempt, info };
        if !self.exists() {
            if let Some(committed) = self.try_make(&commit).await? {
                return Ok(committed);
            }
            if self.txn(&self.owner.close(&swap.date)).is_some_and(|number| number >= swap.closing) {
                return Ok(Committed { version: self.version().unwrap_or_default() });
            }
        }
        self.refuse_touched_since(swap).await?;
        let entry = self.log_entry(&commit, nature(swap))?;
        self.settled = false;
        for _ in 0..MAX_REBASES {
            let version = self.next_version()?;
            match self.put(version, &entry).await? {
                Put::Landed => return Ok(self.landed(version, &entry, commit.txns.clone())),
                Put::Taken(other) => {
                    self.refuse_taken(version, &other, &entry)?;
                    self.step_over(version, *other);
                    self.refuse_touched(version, swap).await?;
                }
            }
        }
        Err(Error::unavailable(format!("table `{}`: other writers come in between; run it again", self.location())))
    }

    /// Makes the table with what `commit` adds; `None` when another one made it.
    async fn try_make(&mut self, commit: &SinkCommit) -> Result<Option<Committed>> {
        self.storage.create_directory(&self.spec.location)?;
        let now = self.clock.now().timestamp_millis();
        let definition = Definition::of_contract(&self.spec, self.clock.new_id().to_string(), now)?;
        let nature = Nature {
            operation: "WRITE",
            parameters: json!({ "mode": "ErrorIfExists" }),
            definition: Some(&definition),
            with_protocol: true,
            is_append: true,
            removes: Vec::new(),
            writer: Writer::Close,
        };
        debug_assert!(self.spec.mode == SinkMode::ReplacePartitions, "a final table has a date");
        let entry = self.log_entry(commit, nature)?;
        self.settled = false;
        match self.put(0, &entry).await? {
            Put::Landed => {
                self.reload().await?;
                Ok(Some(Committed { version: 0 }))
            }
            Put::Taken(_) => {
                self.reload().await?;
                Ok(None)
            }
        }
    }

    /// Refuses a table of which a version since the swap was decided has touched the date.
    ///
    /// # Errors
    /// `Unavailable`, naming table and version.
    pub async fn refuse_touched_since(&self, swap: &Swap) -> Result<()> {
        let Some(newest) = self.version() else { return Ok(()) };
        let first = swap.since.map_or(0, |since| since + 1);
        for version in first..=newest {
            self.refuse_touched(version, swap).await?;
        }
        Ok(())
    }

    async fn refuse_touched(&self, version: u64, swap: &Swap) -> Result<()> {
        let touched = |by: &str| {
            Error::unavailable(format!(
                "table `{}`: version {version} ({by}) changed {} = {} while it was being closed. Only a close writes \
                 there: find out who else does, then close the date again, with `--reopen --why TEXT` where it is \
                 sealed already",
                self.location(),
                swap.column,
                swap.date
            ))
            .caused_by(Overtaken)
        };
        let Some(actions) = self.log.actions(version).await? else {
            return Err(touched("gone from the log: perhaps it"));
        };
        let touches = |action: &Value| {
            ["add", "remove"].iter().filter_map(|kind| action.get(kind)).any(|file| {
                let path = file["path"].as_str().and_then(|path| Path::from_url_path(path).ok());
                let removes_it =
                    swap.removes.iter().any(|remove| path.as_ref().is_some_and(|p| p.as_ref() == remove.path));
                removes_it || file["partitionValues"][&swap.column].as_str() == Some(&swap.date)
            })
        };
        if !actions.iter().any(touches) {
            return Ok(());
        }
        let by = actions.iter().find_map(|action| action.get("commitInfo")?.get("operation")?.as_str());
        Err(touched(by.unwrap_or("by another writer")))
    }

    /// The files that are about to be named have to be there: they may have waited for long.
    async fn find_files(&self, swap: &Swap) -> Result<()> {
        let store = self.log.store().object_store(None);
        for add in &swap.adds {
            let path = Path::parse(&add.path).map_err(|e| {
                Error::invalid(format!("table `{}`: `{}` is no path", self.location(), add.path)).caused_by(e)
            })?;
            match store.head(&path).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    return Err(Error::unavailable(format!(
                        "table `{}`: data file `{}` of a closing is gone before it was named: a vacuum has taken it, \
                         or LOCATION is another one now. Close the date again with `--reopen --why TEXT`",
                        self.location(),
                        add.path
                    ))
                    .caused_by(Overtaken));
                }
                Err(error) => {
                    let what = format!("data file {} cannot be looked for", add.path);
                    return Err(crate::storage::failed(&self.spec.location, &what, error));
                }
            }
        }
        Ok(())
    }
}

fn nature(swap: &Swap) -> Nature<'static> {
    Nature {
        operation: "WRITE",
        parameters: json!({
            "mode": "Overwrite",
            "predicate": format!("{} = '{}'", swap.column, swap.date),
        }),
        definition: None,
        with_protocol: false,
        is_append: swap.removes.is_empty(),
        removes: swap.removes.clone(),
        writer: Writer::Close,
    }
}
