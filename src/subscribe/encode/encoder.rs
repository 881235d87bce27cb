//! A message's plan over a table's columns, and its rows.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use prost_reflect::MessageDescriptor;

use super::arrays::Values;
use super::fault::PlanFault;
use super::field_writer::write_message;
use super::form::{MessagePlan, Source};
use super::mark::Mark;
use super::plan::{self, EncodeOptions};
use crate::error::{Error, Result};

/// Writes the rows of a table as messages of one type. Made once, used for any number of batches.
#[derive(Debug)]
pub struct Encoder {
    message: String,
    schema: SchemaRef,
    plan: MessagePlan,
}

impl Encoder {
    /// The plan of `message` over the columns of `schema`.
    ///
    /// # Errors
    /// All that is wrong, at once: fields without a column, columns of types that do not become the field's.
    pub fn plan(
        schema: &SchemaRef,
        message: &MessageDescriptor,
        options: &EncodeOptions,
    ) -> Result<Self, Vec<PlanFault>> {
        let plan = plan::message(message, schema.fields(), options)?;
        Ok(Self { message: message.full_name().to_owned(), schema: schema.clone(), plan })
    }

    /// The columns that the messages are made of.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.plan.fields.iter().filter_map(|field| match field.source {
            Source::Column(at) => Some(self.schema.field(at).name().as_str()),
            Source::Cursor | Source::Replaces => None,
        })
    }

    /// Whether each message carries its cursor. Where it does not, only the end of a stream tells one.
    pub fn carries_cursor(&self) -> bool {
        self.plan.fields.iter().any(|field| field.source == Source::Cursor)
    }

    /// The schema that it was planned for.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a batch with the planned schema.
    ///
    /// # Errors
    /// `Violated` when the batch has other columns.
    pub fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<RowWriter<'a>> {
        let planned = |at: usize| -> Option<&'a dyn Array> {
            let column = batch.columns().get(at)?.as_ref();
            is_type(column.data_type(), self.schema.field(at).data_type()).then_some(column)
        };
        let columns = Values::of_message(&self.plan, planned).ok_or_else(|| {
            Error::violated(format!(
                "message {}: the table's columns are no longer those that the subscription was planned with; \
                 subscribe again",
                self.message
            ))
        })?;
        Ok(RowWriter { encoder: self, columns })
    }
}

/// Types are the same but for the names and the nullability of what is inside lists and maps.
fn is_type(found: &DataType, planned: &DataType) -> bool {
    found == planned || found.equals_datatype(planned)
}

/// The rows of one batch.
#[derive(Debug)]
pub struct RowWriter<'a> {
    encoder: &'a Encoder,
    columns: Box<[Values<'a>]>,
}

impl RowWriter<'_> {
    /// Appends the message of a row to `out`. After an error `out` is as before.
    ///
    /// # Errors
    /// `Violated` when a value does not fit its field; the message names column and value.
    pub fn write(&self, row: usize, mark: &Mark, out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        write_message(&self.encoder.plan, &self.columns, row, mark, 0, out).map_err(|fault| {
            out.truncate(before);
            Error::violated(format!(
                "message {}: version {}, row {}: column {}: {}",
                self.encoder.message, mark.cursor.place.version, mark.cursor.place.rows, fault.column, fault.message
            ))
        })
    }
}
