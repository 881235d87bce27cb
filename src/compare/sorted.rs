//! Rows of a table in an order, group by group: rows with the same cells in the columns that it is sorted by.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::error::{Error, Result};

/// The rows of a group at most: they are held in memory.
const GROUP_ROWS: usize = 1_000_000;

/// A sorted stream of rows.
pub(super) struct Sorted {
    rows: SendableRecordBatchStream,
    converter: RowConverter,
    /// The columns that it is sorted by.
    by: Vec<usize>,
    batch: Option<(RecordBatch, Rows)>,
    /// The next row of the batch.
    at: usize,
    name: String,
}

impl Sorted {
    /// The rows of a stream that is sorted by its first `by` columns, ascending, NULLs first.
    pub(super) fn new(rows: SendableRecordBatchStream, by: usize, name: &str) -> Result<Self> {
        let schema = rows.schema();
        let fields = schema.fields().iter().take(by).map(|f| SortField::new(f.data_type().clone()));
        // Without columns all rows are of one group; a converter needs one.
        let fields = if by == 0 { vec![SortField::new(DataType::Int8)] } else { fields.collect() };
        let converter = RowConverter::new(fields).map_err(failed)?;
        Ok(Self { rows, converter, by: (0..by).collect(), batch: None, at: 0, name: name.to_owned() })
    }

    /// The columns.
    pub(super) fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// What the next group has in its columns; `None` at the end.
    pub(super) async fn peek(&mut self) -> Result<Option<OwnedRow>> {
        loop {
            if let Some((batch, keys)) = &self.batch
                && self.at < batch.num_rows()
            {
                return Ok(Some(keys.row(self.at).owned()));
            }
            let Some(batch) = self.rows.next().await.transpose()? else { return Ok(None) };
            let mut columns: Vec<ArrayRef> = self.by.iter().map(|&column| Arc::clone(batch.column(column))).collect();
            if columns.is_empty() {
                columns.push(Arc::new(Int8Array::from(vec![0; batch.num_rows()])));
            }
            let keys = self.converter.convert_columns(&columns).map_err(failed)?;
            (self.batch, self.at) = (Some((batch, keys)), 0);
        }
    }

    /// The first `keep` rows of the group that is next, and how many it has.
    ///
    /// # Errors
    /// `Unavailable` when all are kept and they are too many to be held.
    pub(super) async fn take(&mut self, key: &OwnedRow, keep: Option<usize>) -> Result<(RecordBatch, u64)> {
        let mut pieces = Vec::new();
        let mut rows = 0;
        while self.peek().await?.is_some_and(|next| next == *key) {
            let Some((batch, keys)) = &self.batch else { break };
            let first = self.at;
            while self.at < batch.num_rows() && keys.row(self.at).cmp(&key.row()) == Ordering::Equal {
                self.at += 1;
            }
            let found = self.at - first;
            let kept = found.min(keep.unwrap_or(usize::MAX).saturating_sub(rows));
            if kept > 0 {
                pieces.push(batch.slice(first, kept));
            }
            rows += found;
            if keep.is_none() && rows > GROUP_ROWS {
                return Err(Error::unavailable(format!(
                    "{}: more than {GROUP_ROWS} rows differ in floating-point numbers alone; name a --key",
                    self.name
                )));
            }
        }
        Ok((concat_batches(&self.schema(), &pieces).map_err(failed)?, rows as u64))
    }
}

/// One row of a batch.
pub(super) fn row(batch: &RecordBatch, row: usize) -> Result<RecordBatch> {
    // A slice would keep the whole batch.
    take_record_batch(batch, &arrow::array::UInt64Array::from(vec![row as u64])).map_err(failed)
}

pub(super) fn failed(error: arrow::error::ArrowError) -> Error {
    Error::unavailable("rows cannot be compared; report them").caused_by(error)
}
