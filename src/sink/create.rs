//! Definitions are committed by themselves: a table's first version, and columns that a contract adds.

use serde_json::{Map, json};

use crate::error::{Error, Result};
use crate::pipeline::SinkMode;
use crate::sink::commit::{Nature, Put};
use crate::sink::definition::Definition;
use crate::sink::{Committed, DeltaSink, SinkCommit};

/// Who made the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// This commit did.
    Ours(Committed),
    /// Another writer was faster. The sink was reloaded and the contract agrees: positions have to be read anew.
    Another,
}

impl DeltaSink {
    /// Makes the table from the contract as version 0, with the commit's `txn`s and files in it.
    ///
    /// # Errors
    /// `Fenced` when another instance of this query made it meanwhile; `Unavailable` when the store fails; `Invalid`
    /// when the table exists, or when another writer made one that differs from the contract.
    pub async fn create(&mut self, commit: SinkCommit) -> Result<Created> {
        self.ready()?;
        if self.exists() {
            return Err(Error::invalid(format!("table `{}` exists already; commit to it", self.location())));
        }
        self.storage.create_directory(&self.spec.location)?;
        let now = self.clock.now().timestamp_millis();
        let definition = Definition::of_contract(&self.spec, self.clock.new_id().to_string(), now)?;
        let (operation, parameters) = match self.spec.mode {
            SinkMode::Append => ("STREAMING UPDATE", json!({ "outputMode": "Append" })),
            _ => ("WRITE", json!({ "mode": "ErrorIfExists" })),
        };
        let nature = Nature {
            operation,
            parameters,
            definition: Some(&definition),
            with_protocol: true,
            is_append: true,
            removes: Vec::new(),
            writer: self.writer_of(&commit),
        };
        let entry = self.log_entry(&commit, nature)?;
        self.settled = false;
        match self.put(0, &entry).await? {
            Put::Landed => Ok(Created::Ours(self.created(definition, &entry, commit.txns))),
            Put::Taken(other) => {
                let own = other.txns.iter().any(|(app_id, _)| self.owner.is_fenced_by(app_id));
                if own {
                    self.refuse_taken(0, &other, &entry)?;
                }
                self.reload().await?;
                Ok(Created::Another)
            }
        }
    }

    /// Adds the columns that only the contract has (`schema_mode = 'merge'`), in a version by itself that is never
    /// written over another one. `None` when there is nothing to add.
    ///
    /// # Errors
    /// `Fenced` and `Unavailable` as [`DeltaSink::commit`]; a version by anybody else is `Unavailable` too.
    pub async fn add_columns(&mut self) -> Result<Option<Committed>> {
        let Some(metadata) = self.pending.take() else { return Ok(None) };
        let state = self.state.as_ref().ok_or_else(|| self.missing())?;
        let definition = Definition::new(state.definition.protocol.clone(), metadata)?;
        let known = state.definition.columns.len();
        let added: Vec<_> = definition.columns.iter().skip(known).map(|column| json!({ "column": column })).collect();
        let commit = SinkCommit { adds: Vec::new(), txns: Vec::new(), attempt: self.clock.new_id(), info: Map::new() };
        let nature = Nature {
            operation: "ADD COLUMNS",
            parameters: json!({ "columns": json!(added).to_string() }),
            definition: Some(&definition),
            with_protocol: false,
            is_append: false,
            removes: Vec::new(),
            writer: self.writer_of(&commit),
        };
        let entry = self.log_entry(&commit, nature)?;
        self.settled = false;
        let version = self.next_version()?;
        match self.put(version, &entry).await? {
            Put::Landed => {
                if let Some(state) = &mut self.state {
                    state.definition = definition;
                }
                Ok(Some(self.landed(version, &entry, Vec::new())))
            }
            Put::Taken(other) => {
                self.refuse_taken(version, &other, &entry)?;
                Err(Error::unavailable(format!(
                    "table `{}`: another writer was faster with version {version}, so the new columns were not added; \
                     run it again",
                    self.location()
                )))
            }
        }
    }
}
