//! The column `_key` where it is more than bytes: a text, or a message.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Fields;

use crate::decode::{DecodeFault, Decoder, Reason, Selection};
use crate::error::{Error, Result};
use crate::pipeline::KeyFormat;
use crate::source::Payloads;

/// Reads keys record by record, in step with the values.
#[derive(Debug)]
pub(crate) enum KeyDecoder {
    /// Texts: the records whose keys they are, `None` for records without a key.
    Text(Vec<Option<usize>>),
    /// Messages, and which records have one.
    Message { fields: Fields, decoder: Box<Decoder>, present: Vec<bool> },
}

impl KeyDecoder {
    /// A decoder for that format; none for bytes, which need no decoding.
    ///
    /// # Errors
    /// None that the pipeline's check has not refused before.
    pub(crate) fn new(format: &KeyFormat) -> Result<Option<Self>> {
        Ok(match format {
            KeyFormat::Bytes => None,
            KeyFormat::Text => Some(KeyDecoder::Text(Vec::new())),
            KeyFormat::Message(shape) => {
                let fields = shape.columns_within(true);
                let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
                let decoder = Box::new(Decoder::of_shape(shape, &names, &Selection::All, true)?);
                Some(KeyDecoder::Message { fields, decoder, present: Vec::new() })
            }
        })
    }

    /// Reads the key of record `row`.
    ///
    /// # Errors
    /// The key is broken: then there is no row for it.
    pub(crate) fn push(&mut self, keys: &Payloads, row: usize) -> Result<(), DecodeFault> {
        let is_null = keys.nulls.binary_search(&(row as u32)).is_ok();
        match self {
            KeyDecoder::Text(_) if !is_null && std::str::from_utf8(keys.value(row)).is_err() => {
                return Err(DecodeFault { reason: Reason::Utf8, position: 0, field: "_key".to_string() });
            }
            KeyDecoder::Text(rows) => rows.push((!is_null).then_some(row)),
            KeyDecoder::Message { decoder, present, .. } => {
                match is_null {
                    true => decoder.push_null(),
                    false => decoder.push(keys.value(row)).map_err(|fault| {
                        let field = [&"_key".to_string(), &fault.field];
                        let field = field.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>();
                        DecodeFault { field: field.join("."), ..fault }
                    })?,
                }
                present.push(!is_null);
            }
        }
        Ok(())
    }

    /// Takes the last key back: its record's value is broken.
    pub(crate) fn pop(&mut self) {
        match self {
            KeyDecoder::Text(rows) => _ = rows.pop(),
            KeyDecoder::Message { decoder, present, .. } => {
                decoder.pop();
                present.pop();
            }
        }
    }

    /// The column of the keys so far; the decoder starts anew.
    ///
    /// # Errors
    /// `Unavailable` when the keys do not fit one column.
    pub(crate) fn finish(&mut self, keys: &Payloads) -> Result<ArrayRef> {
        match self {
            KeyDecoder::Text(rows) => {
                let text = |row: Option<usize>| row.and_then(|row| std::str::from_utf8(keys.value(row)).ok());
                Ok(Arc::new(rows.drain(..).map(text).collect::<StringArray>()))
            }
            KeyDecoder::Message { fields, decoder, present } => {
                let batch = decoder.finish()?;
                let nulls = NullBuffer::from(std::mem::take(present));
                let rows = batch.num_rows();
                let column =
                    StructArray::try_new_with_length(fields.clone(), batch.columns().to_vec(), Some(nulls), rows);
                Ok(Arc::new(column.map_err(|e| Error::unavailable(format!("keys do not fit a column: {e}")))?))
            }
        }
    }
}
