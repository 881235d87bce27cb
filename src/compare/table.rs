//! A table that is compared: where it lies, and its rows as text and numbers that can be grouped.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};

use crate::content::nested;
use crate::error::{Error, Result};
use crate::lookup::Lookup;
use crate::pipeline::{LookupFormat, LookupSpec};
use crate::source::recording::RecordingLog;
use crate::storage::Storage;

/// A table as it is named: a Delta table (`PATH`, `PATH@VERSION`), a Parquet, CSV or JSON file or a directory of them,
/// a recording.
#[derive(Debug, Clone)]
pub struct TableRef {
    /// As it was named.
    pub named: String,
    spec: LookupSpec,
    version: Option<u64>,
}

impl TableRef {
    /// The table at `path`, which was named so; what it is, its name and what lies there say.
    ///
    /// # Errors
    /// `Invalid` when that does not say it.
    pub fn new(named: &str, resolve: impl Fn(&str) -> String) -> Result<Self> {
        let (path, version) = match named.rsplit_once('@') {
            Some((path, version)) if version.parse::<u64>().is_ok() => (path, version.parse().ok()),
            _ => (named, None),
        };
        let location = if path.contains("://") { path.to_owned() } else { resolve(path) };
        if RecordingLog::is_one(Path::new(&location))
            && RecordingLog::open(Path::new(&location))?.verify()?.records == 0
        {
            return Err(Error::invalid(format!("{named}: the recording has no records; there is nothing to compare")));
        }
        let format = format(&location).ok_or_else(|| {
            let known = "name a Delta table, a recording, or a .parquet, .csv or .json file";
            Error::invalid(format!("{named}: there is no table; {known}"))
        })?;
        if version.is_some() && format != LookupFormat::Delta {
            return Err(Error::invalid(format!("{named}: only Delta tables have versions; leave @… out")));
        }
        let options = format.usual_options();
        let spec = LookupSpec { name: path.to_owned(), format, location, options, declared: None, version: None };
        Ok(Self { named: named.to_owned(), spec, version })
    }
}

fn format(location: &str) -> Option<LookupFormat> {
    let path = Path::new(location);
    if let Some(format) = LookupFormat::at(path) {
        return Some(format);
    }
    if location.contains("://") {
        return Some(LookupFormat::Delta);
    }
    let files = path.read_dir().ok()?.flatten().map(|entry| entry.path());
    files.filter(|file| !file.ends_with("manifest.json")).find_map(|file| LookupFormat::at(&file))
}

impl TableRef {
    /// Whether its columns have types of their own: those of text are a guess.
    pub(super) fn has_types(&self) -> bool {
        !matches!(self.spec.format, LookupFormat::Csv | LookupFormat::Json)
    }

    /// Opens it: its columns as they are.
    ///
    /// # Errors
    /// What reading it returns.
    pub(super) async fn open(&self, storage: &Storage, state: &SessionState) -> Result<Opened> {
        let opened = Lookup::rows(&self.spec, self.version, storage, state).await;
        let (schema, rows) = opened.map_err(|error| match self.version {
            Some(version) => {
                let text =
                    format!("{}: version {version} is not there, or its log entries and files are gone", self.named);
                Error::invalid(format!("{text}; `flumen diff` without @{version} takes the latest one"))
                    .caused_by(error)
            }
            None => error,
        })?;
        drop(rows);
        Ok(Opened { table: self.clone(), schema, storage: storage.clone(), state: state.clone() })
    }
}

/// A table that is there.
pub(super) struct Opened {
    table: TableRef,
    /// Its columns.
    pub(super) schema: SchemaRef,
    storage: Storage,
    state: SessionState,
}

/// Some columns of a table, as often as they are asked for.
#[derive(Debug)]
pub(super) struct Columns {
    table: TableRef,
    storage: Storage,
    state: SessionState,
    schema: SchemaRef,
}

impl Opened {
    /// How many rows it has.
    pub(super) async fn count(&self) -> Result<u64> {
        let (_, mut rows) = Lookup::rows(&self.table.spec, self.table.version, &self.storage, &self.state).await?;
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            count += batch?.num_rows() as u64;
        }
        Ok(count)
    }

    /// These columns as types that rows can be grouped by: what is nested is text.
    pub(super) fn columns(&self, names: &[String]) -> Columns {
        let field = |name: &String| {
            let data_type = self.schema.field_with_name(name).map_or(DataType::Utf8, |field| field.data_type().clone());
            let plain = if data_type.is_nested() { DataType::Utf8 } else { data_type };
            Field::new(name, plain, true)
        };
        Columns {
            table: self.table.clone(),
            storage: self.storage.clone(),
            state: self.state.clone(),
            schema: Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>())),
        }
    }
}

impl PartitionStream for Columns {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, storage, state) = (self.table.clone(), self.storage.clone(), self.state.clone());
        let schema = Arc::clone(&self.schema);
        let columns = Arc::clone(&self.schema);
        let opening = async move {
            let (_, rows) = Lookup::rows(&table.spec, table.version, &storage, &state).await?;
            Ok::<_, Error>(rows.map(move |batch| plain(&columns, &batch?)))
        };
        let rows = futures::stream::once(opening).try_flatten().map_err(|e| DataFusionError::External(Box::new(e)));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// The columns of `schema`, with text in the place of what is nested.
fn plain(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let missing = || Error::invalid(format!("column `{}` is missing; compare again", field.name()));
        let column = batch.column_by_name(field.name()).ok_or_else(missing)?;
        Ok(if column.data_type().is_nested() { text(column)? } else { Arc::clone(column) })
    });
    let batch = RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?);
    batch.map_err(|e| Error::unavailable("rows cannot be compared; report them").caused_by(e))
}

fn text(column: &ArrayRef) -> Result<ArrayRef> {
    let cell = |row: usize| column.is_valid(row).then(|| nested(column.as_ref(), row)).transpose();
    let texts: StringArray = (0..column.len())
        .map(cell)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::invalid("a column has no text; leave it out").caused_by(e))?;
    Ok(Arc::new(texts))
}
