//! Raw records into rows of a topic's table: the value's fields by the decoder, then the columns that every topic has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, StructBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Fields, SchemaRef};

use crate::decode::{Decoder, Selection};
use crate::error::{Error, Result};
use crate::observe::Records;
use crate::pipeline::{META_COLUMNS, NullValue, SourceSpec, ValueFormat};
use crate::source::{Headers, Payloads, RawBatch, Wanted};

/// What became of the records of one micro-batch, counted by all the streams that decode it.
#[derive(Debug, Default)]
pub(crate) struct RecordCounts {
    read: AtomicU64,
    decoded: AtomicU64,
    null: AtomicU64,
}

impl RecordCounts {
    /// The counts so far.
    pub(crate) fn totals(&self) -> Records {
        Records {
            read: self.read.load(Ordering::Relaxed),
            decoded: self.decoded.load(Ordering::Relaxed),
            dead: 0,
            null: self.null.load(Ordering::Relaxed),
        }
    }
}

/// Where a column of the scan comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    /// Column `n` of what the decoder makes.
    Field(usize),
    /// The record's value as it is.
    Raw,
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Headers,
}

/// Turns raw batches into the projected columns of one topic. It keeps its buffers from batch to batch.
#[derive(Debug)]
pub(crate) struct RecordDecoder {
    topic: String,
    on_null_value: NullValue,
    columns: Vec<Column>,
    schema: SchemaRef,
    decoder: Option<Decoder>,
}

impl RecordDecoder {
    /// A decoder for these columns (indices into `spec.schema`), of nested messages only what `selection` names.
    ///
    /// # Errors
    /// `Invalid` when a column has no decoder; the pipeline's check has refused that before.
    pub(crate) fn new(spec: &SourceSpec, projection: &[usize], selection: &Selection) -> Result<Self> {
        let schema = Arc::new(spec.schema.project(projection).map_err(|e| Error::invalid(e.to_string()))?);
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        let meta = spec.schema.fields().len() - META_COLUMNS.len();
        for (field, &index) in schema.fields().iter().zip(projection) {
            columns.push(match (index.checked_sub(meta), &spec.format) {
                (None, ValueFormat::Raw) => Column::Raw,
                (None, ValueFormat::Protobuf { .. }) => {
                    fields.push(field.name().as_str());
                    Column::Field(fields.len() - 1)
                }
                (Some(0), _) => Column::Topic,
                (Some(1), _) => Column::Partition,
                (Some(2), _) => Column::Offset,
                (Some(3), _) => Column::Timestamp,
                (Some(4), _) => Column::Key,
                (Some(_), _) => Column::Headers,
            });
        }
        let decoder = match &spec.format {
            ValueFormat::Raw => None,
            ValueFormat::Protobuf { message, .. } => Some(match spec.on_null_value {
                NullValue::Skip => Decoder::new(message, &fields, selection)?,
                NullValue::Row => Decoder::with_nullable_rows(message, &fields, selection)?,
            }),
        };
        Ok(Self { topic: spec.topic.clone(), on_null_value: spec.on_null_value, columns, schema, decoder })
    }

    /// What the reader has to copy besides values.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { key: self.columns.contains(&Column::Key), headers: self.columns.contains(&Column::Headers) }
    }

    /// The rows of `raw`, counted in `counts`.
    ///
    /// # Errors
    /// `Violated` for a record that cannot be decoded, naming topic, partition, offset and field.
    pub(crate) fn rows(&mut self, raw: &RawBatch, counts: &RecordCounts) -> Result<RecordBatch> {
        let kept = self.values(raw)?;
        let nulls = raw.values.nulls.len() as u64;
        counts.read.fetch_add(raw.len() as u64, Ordering::Relaxed);
        counts.null.fetch_add(nulls, Ordering::Relaxed);
        counts.decoded.fetch_add(raw.len() as u64 - nulls, Ordering::Relaxed);
        let rows = kept.as_ref().map_or(raw.len(), Vec::len);
        let values = match &mut self.decoder {
            Some(decoder) => Some(decoder.finish()?),
            None => None,
        };
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let whole: ArrayRef = match column {
                Column::Field(index) => match &values {
                    Some(batch) => {
                        arrays.push(Arc::clone(batch.column(*index)));
                        continue;
                    }
                    None => return Err(Error::invalid("a field of a topic that has no message")),
                },
                Column::Raw => Arc::new(binary(&raw.values)),
                Column::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic, raw.len()))),
                Column::Partition => Arc::new(Int32Array::from_value(raw.partition, raw.len())),
                Column::Offset => Arc::new(Int64Array::from(raw.offsets.clone())),
                Column::Timestamp => Arc::new(timestamps(&raw.timestamps)),
                Column::Key => match &raw.keys {
                    Some(keys) => Arc::new(binary(keys)),
                    None => Arc::new(BinaryArray::new_null(raw.len())),
                },
                Column::Headers => headers(raw.headers.as_deref().unwrap_or_default(), raw.len(), field.data_type())?,
            };
            arrays.push(match &kept {
                None => whole,
                Some(kept) => {
                    let indices = arrow::array::UInt32Array::from(kept.clone());
                    arrow::compute::take(&whole, &indices, None).map_err(|e| Error::unavailable(e.to_string()))?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|e| Error::unavailable(format!("topic {}: columns do not fit together: {e}", self.topic)))
    }

    /// Decodes the values; the records that become rows, `None` when all do.
    fn values(&mut self, raw: &RawBatch) -> Result<Option<Vec<u32>>> {
        let skip = self.on_null_value == NullValue::Skip;
        let mut nulls = raw.values.nulls.iter().copied().peekable();
        if let Some(decoder) = &mut self.decoder {
            for row in 0..raw.len() {
                if nulls.next_if_eq(&(row as u32)).is_some() {
                    if !skip {
                        decoder.push_null();
                    }
                    continue;
                }
                if let Err(fault) = decoder.push(raw.values.value(row)) {
                    // The rows before it must not turn up in the decoder's next batch.
                    drop(decoder.finish());
                    return Err(Error::violated(format!(
                        "topic {}, partition {}, offset {}: the record cannot be decoded: {fault}; nothing of this \
                         micro-batch was committed. Mend the producer or the .proto, then run again",
                        self.topic, raw.partition, raw.offsets[row]
                    )));
                }
            }
        }
        if !skip || raw.values.nulls.is_empty() {
            return Ok(None);
        }
        let mut nulls = raw.values.nulls.iter().copied().peekable();
        Ok(Some((0..raw.len() as u32).filter(|row| nulls.next_if_eq(row).is_none()).collect()))
    }
}

/// A binary column over an arena, which is copied once.
fn binary(payloads: &Payloads) -> BinaryArray {
    if payloads.is_empty() {
        return BinaryArray::new_null(0);
    }
    let mut offsets = Vec::with_capacity(payloads.len() + 1);
    offsets.push(0i32);
    offsets.extend(payloads.ends.iter().map(|&end| end as i32));
    let nulls = (!payloads.nulls.is_empty()).then(|| {
        let mut valid = vec![true; payloads.len()];
        payloads.nulls.iter().for_each(|&row| valid[row as usize] = false);
        NullBuffer::from(valid)
    });
    BinaryArray::new(OffsetBuffer::new(offsets.into()), Buffer::from_slice_ref(&payloads.bytes), nulls)
}

/// Kafka's milliseconds as microseconds; -1 is "none".
fn timestamps(millis: &[i64]) -> TimestampMicrosecondArray {
    let array: TimestampMicrosecondArray =
        millis.iter().map(|&ms| (ms >= 0).then(|| ms.saturating_mul(1000))).collect();
    array.with_timezone("UTC")
}

/// The headers as a list of key and value, of the type that the topic's table declares.
fn headers(records: &[Headers], rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    let (DataType::List(item), Some(fields)) = (data_type, header_fields(data_type)) else {
        return Err(Error::invalid(format!("headers are a list of key and value, not {data_type}")));
    };
    let entry = StructBuilder::new(fields, vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
    let mut list = ListBuilder::new(entry).with_field(Arc::clone(item));
    for row in 0..rows {
        for (key, value) in records.get(row).map(Vec::as_slice).unwrap_or_default() {
            let entry = list.values();
            if let Some(keys) = entry.field_builder::<StringBuilder>(0) {
                keys.append_value(key);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_deref());
            }
            entry.append(true);
        }
        list.append(true);
    }
    Ok(Arc::new(list.finish()))
}

fn header_fields(list: &DataType) -> Option<Fields> {
    match list {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields.clone()),
            _ => None,
        },
        _ => None,
    }
}
