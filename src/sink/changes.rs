//! A table as those see it who follow it: version by version, the rows that each of them added.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalake::kernel::Add;
use deltalake::logstore::{LogStore as _, ObjectStoreRef};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde_json::Value;

use super::data_file;
use super::definition::{Metadata, schema_contract};
use super::log::TableLog;
use crate::error::{Error, Result};
use crate::storage::{self, Storage};

/// Rows that are read at once.
const BATCH_ROWS: usize = 8_192;
/// Bytes at a file's end that are fetched for its footer: mostly all of it.
const FOOTER_BYTES: usize = 64 << 10;

/// A table whose versions are followed.
#[derive(Debug, Clone)]
pub struct Changes {
    log: TableLog,
    location: String,
}

/// What a table is.
#[derive(Debug, Clone)]
pub struct TableShape {
    /// Its id: a table that was deleted and made again has another one.
    pub id: String,
    /// Its columns, those of its partitions among them.
    pub schema: SchemaRef,
    /// The newest version that was looked at.
    pub version: u64,
}

/// What tells one entry of a log from another one of the same version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMark {
    written: DateTime<Utc>,
    bytes: u64,
    tag: Option<String>,
}

/// What a version did to the rows.
#[derive(Debug, Clone)]
pub struct Change {
    /// What the table is from this version on, where the version says it.
    pub shape: Option<TableShape>,
    /// The files whose rows it added, in the order of its entry.
    pub files: Vec<ChangedFile>,
}

/// A file whose rows a version added.
#[derive(Debug, Clone)]
pub struct ChangedFile {
    add: Add,
    /// Its rows stand for others of the same partition.
    pub replaces: bool,
}

impl ChangedFile {
    /// How many rows it has, where its statistics say it.
    pub fn rows(&self) -> Option<u64> {
        let stats: Value = serde_json::from_str(self.add.stats.as_deref()?).ok()?;
        stats.get("numRecords")?.as_u64()
    }
}

/// A file's rows in their order.
pub type FileRows = BoxStream<'static, Result<RecordBatch>>;

impl Changes {
    /// Of the table at `location`, whether it is there or not.
    ///
    /// # Errors
    /// `Invalid` when the location is none.
    pub fn open(location: &str, storage: &Storage) -> Result<Self> {
        Ok(Self { log: TableLog::new(storage.log_store(location)?), location: location.to_owned() })
    }

    /// What the table is now; `None` when there is none.
    ///
    /// # Errors
    /// `Invalid` when its columns cannot be followed; `Unavailable` when the store fails.
    pub async fn shape(&self) -> Result<Option<TableShape>> {
        let Some(state) = self.log.read().await? else { return Ok(None) };
        self.shape_of(&state.metadata, state.version).map(Some)
    }

    fn shape_of(&self, metadata: &Metadata, version: u64) -> Result<TableShape> {
        let mapping = metadata.configuration.get("delta.columnMapping.mode").filter(|mode| *mode != "none");
        if let Some(mode) = mapping {
            return Err(self.refused(format_args!("it maps column names (delta.columnMapping.mode = {mode})")));
        }
        let contract = schema_contract(&metadata.schema_string);
        let contract = contract.map_err(|why| self.refused(format_args!("its columns cannot be read: {why}")))?;
        Ok(TableShape { id: metadata.id.clone(), schema: contract.arrow_schema(), version })
    }

    fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::invalid(format!("table `{}`: {why}; follow a table that Flumen writes", storage::shown(&self.location)))
    }

    /// The newest version, where all up to `known` are there.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn newest_after(&self, known: u64) -> Result<u64> {
        let mut newest = known;
        while self.mark(newest + 1).await?.is_some() {
            newest += 1;
        }
        Ok(newest)
    }

    /// When the entry of a version was written, and its length: another one at its place is of another table. `None`
    /// when it is not there.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn mark(&self, version: u64) -> Result<Option<EntryMark>> {
        let path = Path::from(format!("_delta_log/{version:020}.json"));
        match self.log.store().object_store(None).head(&path).await {
            Ok(about) => Ok(Some(EntryMark { written: about.last_modified, bytes: about.size, tag: about.e_tag })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.unreadable("its log").caused_by(error)),
        }
    }

    /// The oldest and the newest version whose entry is there; `None` when there is no table.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn versions(&self) -> Result<Option<(u64, u64)>> {
        self.log.versions().await
    }

    /// What a version did; `None` when its entry is gone. What only moves rows, as compaction does, is no change.
    ///
    /// # Errors
    /// `Invalid` when the entry cannot be followed; `Unavailable` when the store fails.
    pub async fn of(&self, version: u64) -> Result<Option<Change>> {
        let Some(actions) = self.log.actions(version).await? else { return Ok(None) };
        let damaged = |error: serde_json::Error| {
            self.refused(format_args!("version {version} of its log is damaged")).caused_by(error)
        };
        let mut change = Change { shape: None, files: Vec::new() };
        let mut removed: Vec<Option<Value>> = Vec::new();
        for action in actions {
            let Value::Object(action) = action else { continue };
            for (kind, action) in action {
                let is_change = action.get("dataChange").and_then(Value::as_bool).unwrap_or(true);
                match kind.as_str() {
                    "metaData" => {
                        let metadata: Metadata = serde_json::from_value(action).map_err(damaged)?;
                        change.shape = Some(self.shape_of(&metadata, version)?);
                    }
                    "remove" if is_change => removed.push(action.get("partitionValues").cloned()),
                    "add" if is_change => {
                        let add: Add = serde_json::from_value(action).map_err(damaged)?;
                        if add.deletion_vector.is_some() {
                            return Err(self.refused(format_args!("version {version} marks rows in files as deleted")));
                        }
                        change.files.push(ChangedFile { add, replaces: false });
                    }
                    _ => {}
                }
            }
        }
        for file in &mut change.files {
            let own = serde_json::to_value(&file.add.partition_values).map_err(damaged)?;
            file.replaces = removed.iter().any(|of| of.as_ref().is_none_or(|of| *of == own));
        }
        Ok(Some(change))
    }

    /// The rows of a file in its order from `skip` on, with the columns of `schema`; `None` when it is gone.
    ///
    /// # Errors
    /// `Invalid` when it is no file of the table; `Unavailable` when the store fails.
    pub async fn rows(&self, file: &ChangedFile, schema: &SchemaRef, skip: u64) -> Result<Option<FileRows>> {
        let add = &file.add;
        let path = Path::parse(&add.path).map_err(|error| self.unreadable(&add.path).caused_by(error))?;
        let store = self.log.store().object_store(None);
        let reader = Fetched { store, path, bytes: u64::try_from(add.size).unwrap_or(0) };
        let builder = match ParquetRecordBatchStreamBuilder::new(reader).await {
            Ok(builder) => builder,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(self.unreadable(&add.path).caused_by(error)),
        };
        let roots = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
        let wanted = roots.filter(|(_, root)| schema.column_with_name(root.name()).is_some()).map(|(at, _)| at);
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let stream = builder.with_projection(mask).with_batch_size(BATCH_ROWS).with_offset(skip as usize).build();
        let stream = stream.map_err(|error| self.unreadable(&add.path).caused_by(error))?;
        let (of, path) = (self.clone(), add.path.clone());
        let (schema, values) = (Arc::clone(schema), add.partition_values.clone());
        let stream = stream.map_err(move |error| of.unreadable(&path).caused_by(error));
        let conformed = stream.map(move |batch| Ok(data_file::conform(&batch?, &schema, &values)?));
        Ok(Some(conformed.boxed()))
    }

    fn unreadable(&self, what: &str) -> Error {
        let place = storage::shown(&self.location);
        Error::unavailable(format!("table `{place}`: {what} could not be read; check the store and try again"))
    }
}

/// A file of a store, of which parts are fetched.
struct Fetched {
    store: ObjectStoreRef,
    path: Path,
    bytes: u64,
}

impl AsyncFileReader for Fetched {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let bytes = self.store.get_range(&self.path, range).await;
            bytes.map_err(|error| ParquetError::External(error.into()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            self.store.get_ranges(&self.path, &ranges).await.map_err(|error| ParquetError::External(error.into()))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, bytes).await.map(Arc::new)
        }
        .boxed()
    }
}

/// Whether a file is not there.
fn is_gone(error: &ParquetError) -> bool {
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(object_store::Error::NotFound { .. })) {
            return true;
        }
        cause = error.source();
    }
    false
}
