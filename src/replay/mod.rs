//! A pipeline over recordings: the same file, no broker, and tables in a directory of their own.

mod like;
mod recordings;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use serde::Serialize;

pub use self::like::{Again, Like, Remaking};
pub use self::recordings::Recordings;

use crate::content::RowsHash;
use crate::error::{Error, Result};
use crate::lookup::Lookup;
use crate::pipeline::{LookupFormat, LookupSpec, Pipeline};
use crate::storage::Storage;

/// Pieces that `cuts` make of a recording, about, where nothing else says how large they are.
const PIECES: u64 = 10;

/// How a pipeline is replayed.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Where the tables go.
    pub into: PathBuf,
    /// Records of a topic in a micro-batch at most; `None`: as the file says.
    pub batch_rows: Option<u64>,
    /// Cut micro-batches by chance, of this seed.
    pub cuts: Option<u64>,
    /// The time of day; `None`: when the last record was sent.
    pub clock: Option<DateTime<Utc>>,
}

/// What a replay made of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its name: a sink's, or that of a table beside one.
    pub table: String,
    /// Where it lies.
    pub location: String,
    /// Its rows.
    pub rows: u64,
    /// What they say: see [`crate::content`].
    pub sha256: String,
}

impl Replay {
    /// The pipeline with its topics read from their beginning, its tables under [`Replay::into`], and nobody alarmed.
    ///
    /// # Errors
    /// `Invalid` when something is there already, or a topic has no recording.
    pub fn prepare(&self, mut pipeline: Pipeline, recordings: &Recordings) -> Result<Pipeline> {
        if self.into.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::invalid(format!(
                "--into {}: the directory is not empty; name another one, or remove it",
                self.into.display()
            )));
        }
        recordings.check(&pipeline)?;
        let batch_rows = self.batch_rows.or_else(|| self.cuts.map(|_| (recordings.records() / PIECES).max(1)));
        for source in &mut pipeline.sources {
            source.max_rows = batch_rows.or(source.max_rows);
        }
        pipeline.elsewhere(&self.into)
    }

    /// What the replay made: each table under [`Replay::into`], those of dead letters and of rows apart too, by name.
    ///
    /// # Errors
    /// What reading a table returns.
    pub async fn outcomes(&self) -> Result<Vec<Outcome>> {
        let mut tables: Vec<PathBuf> = match self.into.read_dir() {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            // Nothing was written.
            Err(_) => return Ok(Vec::new()),
        };
        tables.retain(|table| LookupFormat::at(table).is_some());
        tables.sort();
        let mut outcomes = Vec::new();
        for table in tables {
            outcomes.push(outcome(&table).await?);
        }
        Ok(outcomes)
    }
}

async fn outcome(table: &Path) -> Result<Outcome> {
    let name = table.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let location = table.to_string_lossy().into_owned();
    let format = LookupFormat::at(table).unwrap_or(LookupFormat::Delta);
    let spec = LookupSpec { format, ..LookupSpec::delta(&name, &location) };
    let state = SessionContext::new().state();
    let (columns, mut rows) = Lookup::rows(&spec, None, &Storage::new(), &state).await?;
    let mut hash = RowsHash::default();
    while let Some(batch) = rows.next().await {
        hash.add(&batch?).map_err(|e| Error::unavailable(format!("table {name} has no hash: {e}")))?;
    }
    Ok(Outcome { table: name, location, rows: hash.rows(), sha256: hash.sha256(&columns) })
}
