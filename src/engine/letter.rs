//! Dead letters: records that could not be decoded, and the table that keeps them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use chrono::{DateTime, Utc};

use super::records::{Letters, binary, headers, timestamps};
use crate::contract::{Contract, ContractColumn};
use crate::decode::DecodeFault;
use crate::error::{Error, Result};
use crate::observe::Records;
use crate::pipeline::{SinkSpec, SourceSpec};
use crate::sink::Owner;

/// The columns of a table of dead letters. `reason` begins with a code of [`crate::decode::Reason`]; `field` is the
/// path of the field, NULL outside of the fields that were read; `retried` is the version of the sink in which a retry
/// committed the record: that row is appended, the first one stays as it is.
pub(crate) fn contract() -> Contract {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        ("pipeline", DataType::Utf8, false),
        ("query", DataType::Utf8, false),
        ("topic", DataType::Utf8, false),
        ("partition", DataType::Int32, false),
        ("offset", DataType::Int64, false),
        ("timestamp", time.clone(), true),
        ("key", DataType::Binary, true),
        ("value", DataType::Binary, true),
        ("headers", header_list(), true),
        ("reason", DataType::Utf8, true),
        ("field", DataType::Utf8, true),
        ("clock", time, false),
        ("retried", DataType::Int64, true),
    ];
    let column = |(name, data_type, nullable): (&str, DataType, bool)| ContractColumn {
        name: name.to_string(),
        data_type,
        nullable,
    };
    Contract { columns: columns.into_iter().map(column).collect(), checks: Vec::new() }
}

fn header_list() -> DataType {
    let header =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)]);
    DataType::List(Arc::new(Field::new("element", DataType::Struct(header), false)))
}

/// The table of dead letters at `location`.
pub(crate) fn table(location: &str) -> SinkSpec {
    SinkSpec::append("dead_letters", location, contract())
}

/// Where the dead letters of a topic go when `sink` reads it.
pub(crate) fn location(source: &SourceSpec, sink: &SinkSpec) -> String {
    match &source.dead_letters {
        Some(location) => location.clone(),
        None => format!("{}_dead_letters", sink.location.trim_end_matches('/')),
    }
}

/// The rows of letters: as they were found, or with `retried` as the mark of those that a retry committed.
///
/// # Errors
/// `Unavailable` when the columns do not fit together.
pub(crate) fn rows(
    owner: &Owner,
    topic: &str,
    letters: &Letters,
    clock: DateTime<Utc>,
    retried: Option<i64>,
) -> Result<RecordBatch> {
    let raw = &letters.raw;
    let count = raw.len();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, count))) };
    let keys = match &raw.keys {
        Some(keys) => binary(topic, keys)?,
        None => BinaryArray::new_null(count),
    };
    let reasons = (0..count).map(|row| letters.faults.get(row).map(reason));
    let fields = (0..count).map(|row| letters.faults.get(row).map(|fault| &fault.field).filter(|f| !f.is_empty()));
    let columns: Vec<ArrayRef> = vec![
        text(&owner.pipeline),
        text(&owner.query),
        text(topic),
        Arc::new(Int32Array::from_value(raw.partition, count)),
        Arc::new(Int64Array::from(raw.offsets.clone())),
        Arc::new(timestamps(&raw.timestamps)),
        Arc::new(keys),
        Arc::new(binary(topic, &raw.values)?),
        headers(raw.headers.as_deref().unwrap_or_default(), count, &header_list())?,
        Arc::new(reasons.collect::<StringArray>()),
        Arc::new(fields.collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from_value(clock.timestamp_micros(), count).with_timezone("UTC")),
        Arc::new(Int64Array::from(vec![retried; count])),
    ];
    RecordBatch::try_new(contract().arrow_schema(), columns)
        .map_err(|e| Error::unavailable(format!("topic {topic}: dead letters do not fit their table: {e}")))
}

/// `wire_type: wire type 2 where varint was expected at byte 41`.
fn reason(fault: &DecodeFault) -> String {
    format!("{}: {} at byte {}", fault.reason.as_str(), fault.reason, fault.position)
}

/// Every dead record has its row among the files of dead letters.
///
/// # Errors
/// `Unavailable` when one has none: nothing may be committed then.
pub(crate) fn check_count(records: Records, letters: u64) -> Result<()> {
    if letters == records.dead {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "dead letters are unaccounted for: {} records are dead and {letters} were written; nothing was committed, run \
         again and report this",
        records.dead
    )))
}
