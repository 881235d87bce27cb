//! Rows to Parquet files that no version names yet. One writer for each parallel stream; the files of all of them go
//! into one commit.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use deltalake::DeltaResult;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::logstore::{LogStore as _, ObjectStoreRef};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::error::{Error, Result};
use crate::memory::{Held, Memory};
use crate::sink::noting::NotingStore;
use crate::sink::{DeltaSink, Litter};
use crate::storage;

/// Partitions with an open file at most: each holds buffers for every column.
const OPEN_PARTITIONS: usize = 64;
/// A row group that ends is there as pages, as what they are put together in, and as what is on its way to the store.
const COPIES: usize = 3;
/// Row groups of that many partitions, at their end, fit into what a writer may hold.
const GROUPS: usize = 2;
/// Rows that are handed to Parquet at once.
const SLICE_ROWS: usize = 8_192;
/// Rows that are looked at to see whether a column's values repeat.
const SAMPLE_ROWS: usize = 2_048;

/// Writes one stream of batches. Files are visible only once they are committed.
pub struct SinkWriter {
    table: String,
    store: Arc<NotingStore>,
    schema: SchemaRef,
    partition_by: Vec<usize>,
    target_file_size: u64,
    stats_columns: Vec<String>,
    /// Made with the first rows, which say what to write as a dictionary.
    config: Option<WriterConfig>,
    writer: Option<DeltaWriter>,
    open: HashSet<OwnedRow>,
    /// What the open files hold, about; and how much that may be.
    held: Held,
    max_held: usize,
    gathering: Held,
    /// Bytes of rows since the files were opened.
    given: usize,
    /// Rows of more partitions than may be open: they are brought together by partition before they are written.
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    is_ending: bool,
    adds: Vec<Add>,
}

impl std::fmt::Debug for SinkWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkWriter")
            .field("table", &self.table)
            .field("files", &self.adds.len())
            .finish_non_exhaustive()
    }
}

impl DeltaSink {
    /// A writer for one stream of rows.
    pub fn writer(&self, memory: &Memory) -> SinkWriter {
        let partition_by = &self.spec.partition_by;
        let stats_columns = match &self.state {
            Some(state) => state.definition.stats_columns(),
            None => super::Definition::of_contract(&self.spec, String::new(), 0)
                .map(|definition| definition.stats_columns())
                .unwrap_or_default(),
        };
        SinkWriter {
            table: self.location(),
            store: Arc::new(NotingStore::new(self.log.store().object_store(None), Litter::default())),
            schema: self.schema.clone(),
            partition_by: partition_by.iter().filter_map(|name| self.schema.index_of(name).ok()).collect(),
            target_file_size: self.spec.target_file_size,
            stats_columns,
            config: None,
            writer: None,
            open: HashSet::new(),
            held: memory.hold("the writer of data files"),
            max_held: memory.writer_bytes(),
            gathering: memory.hold("rows that are brought together by partition"),
            given: 0,
            gathered: Vec::new(),
            gathered_bytes: 0,
            is_ending: false,
            adds: Vec::new(),
        }
    }
}

impl SinkWriter {
    /// The same with its files noted in `litter`.
    #[must_use]
    pub fn noting(mut self, litter: &Litter) -> Self {
        self.store = Arc::new(NotingStore::new(Arc::clone(self.store.inner()), litter.clone()));
        self
    }

    /// Writes the rows of a batch, which has the contract's columns in its order. After an error only
    /// [`SinkWriter::abort`] is left to do.
    ///
    /// # Errors
    /// `Unavailable` when the store fails; `Invalid` when names, types or NOT NULLs are not the contract's.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.conform(batch)?;
        let bytes = bytes(&batch).map_err(|e| failed(&self.table, e.into()))?;
        let partitions = distinct(&batch, &self.partition_by).map_err(|e| failed(&self.table, e.into()))?;
        if self.gathered.is_empty() && self.open.union(&partitions).count() <= OPEN_PARTITIONS {
            return self.write_piece(&batch, bytes, partitions).await;
        }
        // Gathered rows are there twice while they are brought together.
        let gathered = 2 * (self.gathered_bytes + bytes);
        if gathered > self.max_held || self.gathering.set(gathered).is_err() {
            self.write_gathered().await?;
            self.gathering.set(2 * bytes)?;
        }
        self.gathered.push(batch);
        self.gathered_bytes += bytes;
        Ok(())
    }

    /// Writes the gathered rows, partition after partition.
    async fn write_gathered(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let pieces = pieces(&self.schema, &batches, &self.partition_by).map_err(|e| failed(&self.table, e.into()))?;
        drop(batches);
        for (order, partitions) in &pieces.cuts {
            let piece = take(&pieces.rows, order).map_err(|e| failed(&self.table, e.into()))?;
            let bytes = bytes(&piece).map_err(|e| failed(&self.table, e.into()))?;
            self.close_files().await?;
            self.write_piece(&piece, bytes, partitions.clone()).await?;
        }
        self.gathering.clear();
        Ok(())
    }

    /// Writes rows of partitions that may all be open.
    async fn write_piece(&mut self, piece: &RecordBatch, bytes: usize, partitions: HashSet<OwnedRow>) -> Result<()> {
        self.open.extend(partitions);
        self.bound_memory(bytes).await?;
        let config = match &self.config {
            Some(config) => config.clone(),
            None => self.config.insert(self.configure(piece)?).clone(),
        };
        let store: ObjectStoreRef = self.store.clone();
        let writer = self.writer.get_or_insert_with(|| DeltaWriter::new(store, config));
        let written = writer.write(piece).await;
        self.checked(written)
    }

    /// Ends all files and gives them for the commit.
    ///
    /// # Errors
    /// `Unavailable` when the store fails; files written so far are never visible.
    pub async fn close(mut self) -> Result<Vec<Add>> {
        self.is_ending = true;
        if !self.gathered.is_empty() {
            self.write_gathered().await?;
        }
        self.close_files().await?;
        Ok(self.adds)
    }

    /// Gives up: uploads under way are ended, files that are complete stay as garbage that no version names.
    pub async fn abort(self) {
        if let Some(writer) = self.writer
            && let Err(error) = writer.abort().await
        {
            tracing::warn!(table = %self.table, %error, "an upload could not be ended; the store cleans it up in time");
        }
    }

    async fn close_files(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            let closed = writer.close().await;
            let adds = self.checked(closed)?;
            self.adds.extend(adds);
        }
        self.open.clear();
        self.given = 0;
        self.held.clear();
        Ok(())
    }

    /// What the writer below says, unless the store failed meanwhile.
    fn checked<T>(&self, done: DeltaResult<T>) -> Result<T> {
        self.store.take_failure().map_err(|e| failed(&self.table, e.into()))?;
        done.map_err(|e| failed(&self.table, e))
    }

    /// The batch with exactly the table's schema: types and names must agree, metadata need not.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let names = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let conformed = if names(batch.schema_ref()) == names(&self.schema) {
            RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())
        } else {
            Err(ArrowError::SchemaError(format!("it has columns {}", names(batch.schema_ref()).join(", "))))
        };
        conformed.map_err(|e| {
            Error::invalid(format!("table `{}`: a batch is not what the contract says; cast it first", self.table))
                .caused_by(e)
        })
    }

    /// Counts rows that are about to be written; closes all files before, when they hold too much.
    async fn bound_memory(&mut self, bytes: usize) -> Result<()> {
        let needed = self.needed(self.given + bytes);
        if self.writer.is_some() && (needed > self.max_held || self.held.set(needed).is_err()) {
            let partitions = std::mem::take(&mut self.open);
            self.close_files().await?;
            self.open = partitions;
        }
        self.given += bytes;
        match self.held.set(self.needed(self.given)) {
            // What is written last is not read again in smaller pieces.
            Err(_) if self.is_ending => Ok(()),
            done => done,
        }
    }

    /// What the open files hold after so many bytes of rows. One of them may be ending its row group.
    fn needed(&self, given: usize) -> usize {
        let group = self.row_group_bytes();
        given.min(self.open.len().max(1) * group) + (COPIES - 1) * given.min(group)
    }

    /// The bytes at which an open file ends its row group: what it holds then goes to the store.
    fn row_group_bytes(&self) -> usize {
        self.max_held / if self.partition_by.is_empty() { COPIES } else { COPIES * GROUPS }
    }

    fn configure(&self, sample: &RecordBatch) -> Result<WriterConfig> {
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("flumen ", env!("CARGO_PKG_VERSION")).into())
            .set_max_row_group_bytes(Some(self.row_group_bytes()))
            .set_compression(Compression::SNAPPY);
        let sample = sample.slice(0, sample.num_rows().min(SAMPLE_ROWS));
        for (index, field) in self.schema.fields().iter().enumerate() {
            if field.data_type().is_nested() || self.partition_by.contains(&index) {
                continue;
            }
            let values = distinct(&sample, &[index]).map_err(|e| failed(&self.table, e.into()))?;
            if values.len() * 2 > sample.num_rows() {
                let path = ColumnPath::new(vec![field.name().clone()]);
                properties = properties.set_column_dictionary_enabled(path, false);
            }
        }
        let names = self.partition_by.iter().map(|&index| self.schema.field(index).name().clone());
        // The number of columns with statistics is unused: they are named.
        let unused = "0".try_into().map_err(|_| Error::invalid("0 is not a number of columns"))?;
        Ok(WriterConfig::new(
            self.schema.clone(),
            names.collect(),
            Some(properties.build()),
            NonZeroU64::new(self.target_file_size),
            Some(SLICE_ROWS),
            unused,
            Some(self.stats_columns.clone()),
        ))
    }
}

/// The different values of some columns.
fn distinct(batch: &RecordBatch, columns: &[usize]) -> Result<HashSet<OwnedRow>, ArrowError> {
    let mut values = HashSet::new();
    if columns.is_empty() {
        return Ok(values);
    }
    let rows = rows(batch, columns)?;
    let mut last = None;
    for row in rows.iter() {
        if last != Some(row) {
            values.insert(row.owned());
            last = Some(row);
        }
    }
    Ok(values)
}

/// Rows, and how they are cut: each piece has whole partitions, as many as may be open.
struct Pieces {
    rows: RecordBatch,
    /// Which rows, in which order, and of which partitions.
    cuts: Vec<(Vec<usize>, HashSet<OwnedRow>)>,
}

fn pieces(schema: &SchemaRef, batches: &[RecordBatch], columns: &[usize]) -> Result<Pieces, ArrowError> {
    let all = concat_batches(schema, batches)?;
    let keys = rows(&all, columns)?;
    let mut order: Vec<usize> = (0..all.num_rows()).collect();
    order.sort_by_key(|&row| keys.row(row));
    let mut cuts = Vec::new();
    let (mut piece, mut partitions) = (Vec::new(), HashSet::new());
    let mut last = None;
    for row in order {
        let key = keys.row(row);
        if last != Some(key) {
            if partitions.len() == OPEN_PARTITIONS {
                cuts.push((std::mem::take(&mut piece), std::mem::take(&mut partitions)));
            }
            partitions.insert(key.owned());
            last = Some(key);
        }
        piece.push(row);
    }
    cuts.push((piece, partitions));
    drop(keys);
    Ok(Pieces { rows: all, cuts })
}

/// What rows take in memory, whatever else their buffers hold.
fn bytes(batch: &RecordBatch) -> Result<usize, ArrowError> {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size()).sum()
}

fn rows(batch: &RecordBatch, columns: &[usize]) -> Result<Rows, ArrowError> {
    let arrays: Vec<_> = columns.iter().map(|&index| batch.column(index).clone()).collect();
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    RowConverter::new(fields)?.convert_columns(&arrays)
}

fn take(batch: &RecordBatch, order: &[usize]) -> Result<RecordBatch, ArrowError> {
    let indices: UInt64Array = order.iter().map(|&row| row as u64).collect();
    take_record_batch(batch, &indices)
}

fn failed(table: &str, error: deltalake::DeltaTableError) -> Error {
    storage::failed(table, "a data file could not be written", error)
}
