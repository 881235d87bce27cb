//! Rows of a table in an order, group by group: rows with the same cells in the columns that it is sorted by.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
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
        let fields = rows.schema().fields().iter().take(by).map(|f| SortField::new(f.data_type().clone())).collect();
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
            let columns: Vec<_> = self.by.iter().map(|&column| Arc::clone(batch.column(column))).collect();
            let keys = self.converter.convert_columns(&columns).map_err(failed)?;
            (self.batch, self.at) = (Some((batch, keys)), 0);
        }
    }

    /// The rows of the group that is next.
    ///
    /// # Errors
    /// `Unavailable` when they are too many to be held.
    pub(super) async fn take(&mut self, key: &OwnedRow) -> Result<RecordBatch> {
        let mut pieces = Vec::new();
        let mut rows = 0;
        while self.peek().await?.is_some_and(|next| next == *key) {
            let Some((batch, keys)) = &self.batch else { break };
            let first = self.at;
            while self.at < batch.num_rows() && keys.row(self.at).cmp(&key.row()) == Ordering::Equal {
                self.at += 1;
            }
            rows += self.at - first;
            pieces.push(batch.slice(first, self.at - first));
            if rows > GROUP_ROWS {
                return Err(Error::unavailable(format!(
                    "{}: more than {GROUP_ROWS} rows differ in floating-point numbers alone; name a --key",
                    self.name
                )));
            }
        }
        concat_batches(&self.schema(), &pieces).map_err(failed)
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
