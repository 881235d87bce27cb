//! Batch modes: one commit that removes what the result replaces and adds the result. Only here is the list of the
//! table's files read.

use std::collections::{HashMap, HashSet};

use deltalake::kernel::{Add, EagerSnapshot, Remove, StructType};
use serde_json::json;

use crate::error::{Error, Result};
use crate::pipeline::SinkMode;
use crate::sink::commit::{Nature, Put, Writer};
use crate::sink::{Committed, DeltaSink, SinkCommit};

/// How often the file list is read anew because another writer changed it.
const RELOADS: u32 = 1;

impl DeltaSink {
    /// Replaces rows by the commit's files, in one version: all of them (`mode = 'replace'`), or those of the
    /// partitions that the files touch (`replace_partitions`). When another writer changes files meanwhile, the list
    /// is read once more. A table that is not there yet takes its first result with [`DeltaSink::create`].
    ///
    /// # Errors
    /// As [`DeltaSink::commit`]; `Unavailable` when other writers change files again and again; `Invalid` when the
    /// sink's mode is `append`.
    pub async fn replace(&mut self, commit: SinkCommit) -> Result<Committed> {
        self.ready()?;
        if self.spec.mode == SinkMode::Append {
            return Err(Error::invalid(format!(
                "sink `{}` only appends; declare 'mode' 'replace' or 'replace_partitions'",
                self.spec.name
            )));
        }
        for _ in 0..=RELOADS {
            if let Some(committed) = self.try_replace(&commit).await? {
                return Ok(committed);
            }
            self.reload().await?;
            self.ready()?;
        }
        Err(Error::unavailable(format!(
            "table `{}`: another writer changes its files at the same time; run it again when that has ended",
            self.location()
        )))
    }

    /// `None` when another writer's version changed the files that were to be removed. The entry put before was
    /// refused by the log then, so that another one for the same attempt can't meet it.
    async fn try_replace(&mut self, commit: &SinkCommit) -> Result<Option<Committed>> {
        let removes = self.removes(&commit.adds).await?;
        let by_partition = self.spec.mode == SinkMode::ReplacePartitions;
        let nature = Nature {
            operation: "WRITE",
            parameters: json!({
                "mode": "Overwrite", "partitionOverwriteMode": if by_partition { "dynamic" } else { "static" },
            }),
            definition: None,
            with_protocol: false,
            is_append: false,
            removes,
            writer: Writer::Stream,
        };
        let entry = self.log_entry(commit, nature)?;
        self.settled = false;
        loop {
            let version = self.next_version()?;
            match self.put(version, &entry).await? {
                Put::Landed => return Ok(Some(self.landed(version, &entry, commit.txns.clone()))),
                Put::Taken(other) => {
                    self.refuse_taken(version, &other, &entry)?;
                    if other.adds + other.removes.len() > 0 {
                        return Ok(None);
                    }
                    self.step_over(version, *other);
                }
            }
        }
    }

    /// The files of the known version that the result replaces, deletion vectors included.
    async fn removes(&self, adds: &[Add]) -> Result<Vec<Remove>> {
        let columns = &self.spec.partition_by;
        let by_schema = |schema: &StructType| -> HashSet<Vec<String>> {
            adds.iter().map(|add| partition(columns, schema, &add.partition_values)).collect()
        };
        let mut touched = None;
        self.files_of(|schema, values| {
            let touched = touched.get_or_insert_with(|| by_schema(schema));
            self.spec.mode == SinkMode::Replace || touched.contains(&partition(columns, schema, values))
        })
        .await
    }

    /// What removes the files of the known version whose partitions are wanted, deletion vectors included.
    pub(super) async fn files_of(
        &self,
        mut wanted: impl FnMut(&StructType, &HashMap<String, Option<String>>) -> bool,
    ) -> Result<Vec<Remove>> {
        let state = self.state.as_ref().ok_or_else(|| self.missing())?;
        let failed = |e: deltalake::DeltaTableError| {
            Error::unavailable(format!("table `{}`: its file list could not be read; run it again", self.location()))
                .caused_by(e)
        };
        let snapshot = EagerSnapshot::try_new(self.log.store(), Some(state.version)).await.map_err(failed)?;
        let schema = snapshot.schema();
        let now = self.clock.now().timestamp_millis();
        let files = snapshot.try_log_data().map_err(failed)?;
        let replaced = files.iter().filter(|file| wanted(&schema, &file.partition_values_map()));
        let removes = replaced.map(|file| Remove { deletion_timestamp: Some(now), ..file.remove_action(true) });
        Ok(removes.collect())
    }
}

/// A file's partition in a form that does not depend on how a writer spelled the values.
fn partition(columns: &[String], schema: &StructType, values: &HashMap<String, Option<String>>) -> Vec<String> {
    let spelled = |name: &String| {
        let raw = values.get(name).and_then(Option::as_deref).unwrap_or_default();
        let parsed = schema.field(name).and_then(|field| field.data_type().as_primitive_opt()?.parse_scalar(raw).ok());
        match parsed {
            Some(scalar) => format!("{scalar:?}"),
            None => raw.to_string(),
        }
    };
    columns.iter().map(spelled).collect()
}
