//! Rows that are kept in a file for a while, to be compared or read as they are.

use std::io::Write;

use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// A writer of Parquet without statistics: they pass NaN over, and who reads believes that all values are within them.
///
/// # Errors
/// A column of a type that Parquet has not.
pub fn rows_writer<W: Write + Send>(to: W, schema: SchemaRef) -> Result<ArrowWriter<W>, ParquetError> {
    let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None).build();
    ArrowWriter::try_new(to, schema, Some(properties))
}
