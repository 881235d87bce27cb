//! A record under the decoder and under prost-reflect: both accept it and read the same, or both refuse it.

use arrow::array::RecordBatch;
use arrow::datatypes::Fields;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage};

use super::cell::{Cell, actual, expected, has_raw, is_json, lacks_required};
use crate::decode::{Decoder, Reason};

/// The names of the columns.
pub fn names(fields: &Fields) -> Vec<&str> {
    fields.iter().map(|field| field.name().as_str()).collect()
}

/// A row of what was decoded.
pub fn row(batch: &RecordBatch, row: usize, message: &MessageDescriptor) -> Vec<Cell> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    columns.map(|(f, c)| actual(c, row, &message.get_field_by_name(f.name()).unwrap().kind())).collect()
}

/// What a row should be.
pub fn oracle(message: &DynamicMessage, fields: &Fields) -> Vec<Cell> {
    let cell = |column: &_| {
        let column: &arrow::datatypes::FieldRef = column;
        expected(message, &message.descriptor().get_field_by_name(column.name()).unwrap(), column)
    };
    fields.iter().map(cell).collect()
}

/// Whether the field at that path is a map, or a JSON text, which is made of maps.
fn is_map(message: &MessageDescriptor, path: &str) -> bool {
    let (mut kind, mut map) = (Kind::Message(message.clone()), false);
    for name in path.split('.') {
        let Some(field) = kind.as_message().and_then(|message| message.get_field_by_name(name)) else { return false };
        (kind, map) = (field.kind(), field.is_map());
    }
    map || kind.as_message().is_some_and(is_json)
}

fn has_maps(message: &MessageDescriptor) -> bool {
    let is_map = |field: FieldDescriptor| field.is_map() || field.kind().as_message().is_some_and(is_json);
    message.parent_file().messages().any(|message| message.fields().any(is_map))
}

/// Pushes a record and compares the verdict with the oracle's; returns the row that it should have become.
pub fn judge(decoder: &mut Decoder, message: &MessageDescriptor, fields: &Fields, payload: &[u8]) -> Option<Vec<Cell>> {
    let before = decoder.rows();
    let ours = decoder.push(payload);
    assert_eq!(decoder.rows(), before + usize::from(ours.is_ok()));
    match (ours, DynamicMessage::decode(message.clone(), payload)) {
        (Ok(()), Ok(value)) => {
            assert!(!lacks_required(&value, fields), "a required field is missing: {:02x?}", payload);
            Some(oracle(&value, fields))
        }
        (Err(fault), Ok(value)) => {
            assert!(fault.position <= payload.len());
            match fault.reason {
                // The generic reader knows neither the range of times nor required fields.
                Reason::OutOfRange => {}
                // It takes any wire type for a map, and then reads other bytes.
                _ if is_map(message, &fault.field) => {}
                Reason::EndGroup if has_maps(message) => {}
                _ if has_maps(message) && has_raw(message, fields) => {}
                Reason::Missing => assert!(lacks_required(&value, fields), "{} {:02x?}", fault, payload),
                _ => panic!("we: {fault}, the oracle accepts {payload:02x?}"),
            }
            None
        }
        (Ok(()), Err(error)) => {
            // What is left as it is on the wire is only checked for its framing: this row cannot be compared.
            assert!(has_raw(message, fields), "we accept, the oracle: {error} {payload:02x?}");
            Some(Vec::new())
        }
        (Err(fault), Err(_)) => {
            assert!(fault.position <= payload.len());
            assert!(fault.reason != Reason::TooLarge, "{}", fault);
            None
        }
    }
}

/// Compares a batch with the rows that it should have; those that cannot be compared are empty.
pub fn compare(batch: &RecordBatch, want: &[Vec<Cell>], message: &MessageDescriptor) {
    assert_eq!(batch.num_rows(), want.len());
    for (at, want) in want.iter().enumerate().filter(|(_, want)| !want.is_empty()) {
        assert_eq!(&row(batch, at, message), want, "row {}", at);
    }
}
