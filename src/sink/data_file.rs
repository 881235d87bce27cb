//! One data file of a table, read whole.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake::logstore::ObjectStoreRef;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

/// Rows that are read at once.
const BATCH_ROWS: usize = 8_192;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A file that was fetched.
pub(super) struct DataFile(ParquetRecordBatchReaderBuilder<Bytes>);

/// Fetches a file.
pub(super) async fn open(store: &ObjectStoreRef, path: &Path) -> Result<DataFile, Failed> {
    let bytes = store.get(path).await?.bytes().await?;
    Ok(DataFile(ParquetRecordBatchReaderBuilder::try_new(bytes)?))
}

impl DataFile {
    /// Whether this program wrote it: what another one means by its types is left to it.
    pub(super) fn is_ours(&self) -> bool {
        let by = self.0.metadata().file_metadata().created_by();
        by.is_some_and(|by| by.starts_with("flumen "))
    }

    /// Its rows, as the file has them.
    pub(super) fn read(self) -> Result<ParquetRecordBatchReader, Failed> {
        Ok(self.0.with_batch_size(BATCH_ROWS).build()?)
    }
}

/// The rows with all columns of the table: those that a file of an older version lacks are NULL, those of its
/// partition are the same in every row.
pub(super) fn conform(
    batch: &RecordBatch,
    schema: &SchemaRef,
    partition: &HashMap<String, Option<String>>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let rows = batch.num_rows();
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, arrow::error::ArrowError> {
        if let Some(value) = partition.get(field.name()) {
            let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else {
                return Ok(new_null_array(field.data_type(), rows));
            };
            let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)));
            return cast(&text, field.data_type());
        }
        match batch.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows)),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
