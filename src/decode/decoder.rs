//! Records in, record batches out.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use prost_reflect::MessageDescriptor;

use super::array::masked;
use super::column::message::Message;
use super::cursor::Cursor;
use super::fault::{DecodeFault, Reason};
use super::oddities::Oddities;
use super::plan;
use super::selection::Selection;
use super::vector::Validity;
use crate::error::{Error, Result};
use crate::schema::MessageShape;

/// Turns protobuf records of one message type into a record batch.
///
/// Only the fields that are asked for are looked into; of the others nothing but the framing is checked.
#[derive(Debug)]
pub struct Decoder {
    message: String,
    root: Message,
    schema: SchemaRef,
    nullable: bool,
    rows: usize,
    /// The fields that were not known, of all rows so far.
    unknown: u64,
    /// The rows that stand for a record with a value.
    present: Validity,
}

impl Decoder {
    /// A decoder for `message` with the columns that are named, in that order; of what they contain, it reads what
    /// `selection` says. A column that the selection does not name is read whole.
    ///
    /// With no columns at all, batches have rows only; records are still checked for their framing.
    ///
    /// # Errors
    /// The message has no such field, or it nests too deeply.
    pub fn new(message: &MessageDescriptor, columns: &[&str], selection: &Selection) -> Result<Decoder> {
        Self::build(message, columns, selection, false)
    }

    /// As [`Decoder::new`], but every column is nullable, so that rows of NULLs can be added: [`Decoder::push_null`].
    ///
    /// # Errors
    /// As for [`Decoder::new`].
    pub fn with_nullable_rows(message: &MessageDescriptor, columns: &[&str], selection: &Selection) -> Result<Decoder> {
        Self::build(message, columns, selection, true)
    }

    fn build(message: &MessageDescriptor, columns: &[&str], selection: &Selection, nullable: bool) -> Result<Decoder> {
        Self::of_shape(&MessageShape::of(message)?, columns, selection, nullable)
    }

    /// As [`Decoder::new`] for the message with this tree; with `nullable` as [`Decoder::with_nullable_rows`].
    ///
    /// # Errors
    /// The message has no such field.
    pub fn of_shape(shape: &MessageShape, columns: &[&str], selection: &Selection, nullable: bool) -> Result<Decoder> {
        let root = plan::root(shape, columns, selection, nullable).map_err(|name| {
            Error::invalid(format!("message {} has no field {name}: name one of its fields", shape.name))
        })?;
        let schema = Arc::new(Schema::new(root.fields.clone()));
        let message = shape.name.clone();
        Ok(Decoder { message, root, schema, nullable, rows: 0, unknown: 0, present: Validity::new(true) })
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Adds a record as a row.
    ///
    /// # Errors
    /// The record is broken: then there is no row, and those before it are as they were.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), DecodeFault> {
        let mut cursor = Cursor::new(payload);
        let row = self.rows;
        let mut result = self.root.decode(&mut cursor, row, 0, 0);
        if result.is_ok() && self.root.has_required() {
            result = self.root.check(&mut cursor, row);
        }
        match result {
            Ok(()) => {
                self.rows += 1;
                self.unknown += cursor.unknown();
                Ok(())
            }
            Err(reason) => Err(self.reject(&cursor, reason)),
        }
    }

    #[cold]
    fn reject(&mut self, cursor: &Cursor<'_>, reason: Reason) -> DecodeFault {
        self.root.truncate(self.rows);
        DecodeFault { reason, position: cursor.position(), field: cursor.path() }
    }

    /// Adds a row of NULLs, for a record without a value. Only for [`Decoder::with_nullable_rows`]: otherwise the batch
    /// cannot be finished.
    pub fn push_null(&mut self) {
        debug_assert!(self.nullable, "a row of NULLs needs nullable columns");
        self.present.gap(self.rows, self.rows + 1);
        self.rows += 1;
    }

    /// Takes the last row back.
    pub fn pop(&mut self) {
        self.rows = self.rows.saturating_sub(1);
        self.root.truncate(self.rows);
        self.present.truncate(self.rows);
    }

    /// What was odd in the batches that were finished since the last call.
    pub fn take_oddities(&mut self) -> Oddities {
        self.take_oddities_but(&[])
    }

    /// The same without what was odd in these columns.
    pub fn take_oddities_but(&mut self, columns: &[usize]) -> Oddities {
        let mut odd = Oddities { unknown_fields: std::mem::take(&mut self.unknown), ..Oddities::default() };
        for (index, column) in self.root.columns.iter_mut().enumerate() {
            let mut of_column = Oddities::default();
            column.tally(&mut of_column);
            if !columns.contains(&index) {
                odd.add(of_column);
            }
        }
        odd
    }

    /// The rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The memory of the rows so far, in bytes of Arrow. A batch has to be finished before a column reaches 2 GiB.
    pub fn bytes(&self) -> usize {
        self.root.bytes(self.rows)
    }

    /// Takes the rows. The decoder is ready for the next ones.
    ///
    /// # Errors
    /// The batch became larger than Arrow allows: finish earlier.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let nulls = self.present.finish(rows);
        self.assemble(rows, nulls.as_ref()).map_err(|error| {
            let message = format!("a batch of {rows} records of {} cannot be built: use smaller batches", self.message);
            Error::invalid(message).caused_by(error)
        })
    }

    fn assemble(&mut self, rows: usize, nulls: Option<&NullBuffer>) -> Result<RecordBatch, ArrowError> {
        let mut columns = self.root.finish_columns(rows)?;
        if let Some(nulls) = nulls {
            columns = columns.into_iter().map(|column| masked(column, nulls)).collect::<Result<_, _>>()?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}
