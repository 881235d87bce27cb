//! The columns of a recording, and records to and from them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::source::{Headers, Payloads, RawBatch, Wanted};

/// The names, in their order.
pub const NAMES: [&str; 8] = ["topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value"];

/// The types, for the message about a wrong file.
pub const TYPES: &str = "topic Utf8, partition Int32, offset Int64, timestamp Timestamp (ms or us, UTC), \
    timestamp_type Int32, headers List<Struct<key Utf8, value Binary>>, key Binary, value Binary";

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// The schema that is written.
pub fn schema() -> SchemaRef {
    let header = Field::new("element", DataType::Struct(header_fields()), false);
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("timestamp_type", DataType::Int32, false),
        Field::new("headers", DataType::List(Arc::new(header)), false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
    ]))
}

/// The first column of [`NAMES`] that a file lacks or has with another type.
pub fn misfit(schema: &Schema) -> Option<&'static str> {
    NAMES.into_iter().find(|name| !schema.field_with_name(name).is_ok_and(|field| fits(name, field.data_type())))
}

fn fits(name: &str, data_type: &DataType) -> bool {
    match (name, data_type) {
        ("topic", DataType::Utf8) | ("partition" | "timestamp_type", DataType::Int32) | ("offset", DataType::Int64) => {
            true
        }
        ("timestamp", DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond, Some(_))) => true,
        ("key" | "value", DataType::Binary) => true,
        ("headers", DataType::List(item)) => match item.data_type() {
            DataType::Struct(fields) => {
                let is = |name, data_type| fields.find(name).is_some_and(|(_, field)| *field.data_type() == data_type);
                is("key", DataType::Utf8) && is("value", DataType::Binary)
            }
            _ => false,
        },
        _ => false,
    }
}

/// The columns to read for what is wanted.
pub fn names(wanted: Wanted) -> Vec<&'static str> {
    let mut names = vec!["partition", "offset", "timestamp", "value"];
    names.extend(wanted.key.then_some("key"));
    names.extend(wanted.headers.then_some("headers"));
    names
}

/// Column `name`, which [`misfit`] has seen.
fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, ArrowError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
    column.ok_or_else(|| ArrowError::SchemaError(format!("column {name} is missing or has another type")))
}

/// Partition and offset of each record.
pub fn places(batch: &RecordBatch) -> Result<(&[i32], &[i64]), ArrowError> {
    let partitions = column::<Int32Array>(batch, "partition")?;
    let offsets = column::<Int64Array>(batch, "offset")?;
    if partitions.null_count() + offsets.null_count() > 0 {
        return Err(ArrowError::SchemaError("a record has no partition or no offset".into()));
    }
    Ok((partitions.values(), offsets.values()))
}

/// Timestamps in milliseconds, -1 for none.
pub fn timestamps(batch: &RecordBatch) -> Result<Vec<i64>, ArrowError> {
    if let Ok(millis) = column::<TimestampMillisecondArray>(batch, "timestamp") {
        return Ok(millis.iter().map(|time| time.unwrap_or(-1)).collect());
    }
    let micros = column::<TimestampMicrosecondArray>(batch, "timestamp")?;
    Ok(micros.iter().map(|time| time.map_or(-1, |time| time.div_euclid(1000))).collect())
}

/// The topic of the first record.
pub fn topic(batch: &RecordBatch) -> Result<Option<String>, ArrowError> {
    let topics = column::<StringArray>(batch, "topic")?;
    Ok(topics.iter().next().flatten().map(String::from))
}

/// The records of `batch`, all of one partition.
pub fn records(batch: &RecordBatch, partition: i32, wanted: Wanted) -> Result<RawBatch, ArrowError> {
    let (_, offsets) = places(batch)?;
    Ok(RawBatch {
        partition,
        offsets: offsets.to_vec(),
        timestamps: timestamps(batch)?,
        values: payloads(column(batch, "value")?),
        keys: wanted.key.then(|| column(batch, "key").map(payloads)).transpose()?,
        headers: wanted.headers.then(|| headers(batch)).transpose()?,
    })
}

fn payloads(array: &BinaryArray) -> Payloads {
    let offsets = array.value_offsets();
    let (first, last) = (offsets[0], offsets[array.len()]);
    Payloads {
        bytes: array.value_data()[first as usize..last as usize].to_vec(),
        ends: offsets[1..].iter().map(|end| (end - first) as u32).collect(),
        nulls: (0..array.len()).filter(|&row| array.is_null(row)).map(|row| row as u32).collect(),
    }
}

fn headers(batch: &RecordBatch) -> Result<Vec<Headers>, ArrowError> {
    let lists = column::<ListArray>(batch, "headers")?;
    let wrong = || ArrowError::SchemaError("column headers has another type".into());
    let all = lists.values().as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
    let keys = all.column_by_name("key").and_then(|c| c.as_any().downcast_ref::<StringArray>()).ok_or_else(wrong)?;
    let values =
        all.column_by_name("value").and_then(|c| c.as_any().downcast_ref::<BinaryArray>()).ok_or_else(wrong)?;
    let header = |i: usize| {
        let key = if keys.is_null(i) { "" } else { keys.value(i) };
        (key.to_string(), values.is_valid(i).then(|| values.value(i).to_vec()))
    };
    let rows = lists.value_offsets().windows(2).enumerate();
    Ok(rows
        .map(|(row, ends)| {
            let range = if lists.is_null(row) { 0..0 } else { ends[0] as usize..ends[1] as usize };
            range.map(header).collect()
        })
        .collect())
}

/// The records of `raw` as columns. Their timestamps count as those of their producers.
pub fn columns(topic: &str, raw: &RawBatch) -> Result<RecordBatch, ArrowError> {
    let rows = raw.len();
    let times = TimestampMillisecondArray::from_iter(raw.timestamps.iter().map(|&time| (time >= 0).then_some(time)));
    let keys = match &raw.keys {
        Some(keys) => keys.column()?,
        None => BinaryArray::new_null(rows),
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
        Arc::new(Int32Array::from_value(raw.partition, rows)),
        Arc::new(Int64Array::from(raw.offsets.clone())),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(Int32Array::from_value(0, rows)),
        Arc::new(header_lists(raw)?),
        Arc::new(keys),
        Arc::new(raw.values.column()?),
    ];
    RecordBatch::try_new(schema(), columns)
}

fn header_lists(raw: &RawBatch) -> Result<ListArray, ArrowError> {
    let (mut keys, mut values) = (StringBuilder::new(), BinaryBuilder::new());
    let mut counts = vec![0; raw.len()];
    for (count, headers) in counts.iter_mut().zip(raw.headers.iter().flatten()) {
        *count = headers.len();
        for (key, value) in headers {
            keys.append_value(key);
            values.append_option(value.as_deref());
        }
    }
    let fields = header_fields();
    let items = StructArray::try_new(fields.clone(), vec![Arc::new(keys.finish()), Arc::new(values.finish())], None)?;
    let item = Field::new("element", DataType::Struct(fields), false);
    ListArray::try_new(Arc::new(item), OffsetBuffer::from_lengths(counts), Arc::new(items), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_columns() {
        let mut values = Payloads::default();
        let mut keys = Payloads::default();
        for (value, key) in [(Some(&b"one"[..]), None), (None, Some(&b"k"[..])), (Some(b""), Some(b""))] {
            values.push(value);
            keys.push(key);
        }
        let headers =
            vec![vec![("a".to_string(), Some(vec![1, 2])), ("a".into(), None)], vec![], vec![("".into(), None)]];
        let raw = RawBatch {
            partition: 7,
            offsets: vec![3, 5, 9],
            timestamps: vec![1000, -1, 0],
            values,
            keys: Some(keys),
            headers: Some(headers),
        };
        let batch = columns("t", &raw).unwrap();
        assert_eq!(misfit(&batch.schema()), None);
        assert_eq!(topic(&batch).unwrap().as_deref(), Some("t"));
        let all = Wanted { key: true, headers: true };
        assert_eq!(format!("{:?}", records(&batch, 7, all).unwrap()), format!("{raw:?}"));
        let tail = records(&batch.slice(1, 2), 7, all).unwrap();
        assert_eq!((tail.values.nulls, tail.keys.unwrap().bytes), (vec![0], b"k".to_vec()));
    }

    #[test]
    fn a_misfit_is_named() {
        let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        fields[2] = Field::new("offset", DataType::Int32, false);
        assert_eq!(misfit(&Schema::new(fields.clone())), Some("offset"));
        fields.remove(0);
        assert_eq!(misfit(&Schema::new(fields)), Some("topic"));
    }
}
