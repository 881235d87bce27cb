//! One value, as Arrow has it and as prost-reflect has it.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::*;
use chrono::{Datelike, NaiveDate};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use crate::decode::Selection;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Bool(bool),
    Number(i128),
    /// The bits, so that NaN equals itself.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
    Struct(BTreeMap<String, Cell>),
}

impl Cell {
    /// The cell without the fields that are not selected.
    pub fn pruned(&self, selection: &Selection) -> Cell {
        match self {
            Cell::List(items) => Cell::List(items.iter().map(|item| item.pruned(selection)).collect()),
            Cell::Struct(fields) => {
                let kept =
                    fields.iter().filter_map(|(name, cell)| Some((name.clone(), cell.pruned(selection.field(name)?))));
                Cell::Struct(kept.collect())
            }
            other => other.clone(),
        }
    }
}

/// What a column should hold for a message.
pub fn expected(message: &DynamicMessage, field: &FieldDescriptor, column: &Field) -> Cell {
    let present = message.has_field(field);
    match (message.get_field(field).as_ref(), column.data_type()) {
        (Value::List(items), DataType::List(item)) => {
            Cell::List(items.iter().map(|value| of_value(value, &field.kind(), item.data_type())).collect())
        }
        (Value::Map(entries), DataType::Map(pair, _)) => {
            let DataType::Struct(pair) = pair.data_type() else { panic!("{pair}") };
            let Kind::Message(entry) = field.kind() else { panic!("{field:?}") };
            let kind = entry.map_entry_value_field().kind();
            let mut cells: Vec<(Cell, Cell)> =
                entries.iter().map(|(key, value)| (of_key(key), of_value(value, &kind, pair[1].data_type()))).collect();
            cells.sort();
            Cell::Map(cells)
        }
        _ if has_presence(field) && !present => Cell::Null,
        (value, data_type) => of_value(value, &field.kind(), data_type),
    }
}

/// Whether the field knows if it was set: what editions say of that is an option here.
fn has_presence(field: &FieldDescriptor) -> bool {
    const IMPLICIT: i32 = 2;
    let features = field.options().get_field_by_name("features").map(|features| features.into_owned());
    let presence = features.as_ref().and_then(Value::as_message).and_then(|of| {
        let presence = of.get_field_by_name("field_presence")?;
        presence.as_enum_number()
    });
    field.supports_presence() && presence != Some(IMPLICIT)
}

fn of_key(key: &MapKey) -> Cell {
    match key {
        MapKey::Bool(value) => Cell::Bool(*value),
        MapKey::I32(value) => Cell::Number((*value).into()),
        MapKey::I64(value) => Cell::Number((*value).into()),
        MapKey::U32(value) => Cell::Number((*value).into()),
        MapKey::U64(value) => Cell::Number((*value).into()),
        MapKey::String(value) => Cell::Text(value.clone()),
    }
}

fn of_value(value: &Value, kind: &Kind, data_type: &DataType) -> Cell {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::I32(value) => Cell::Number((*value).into()),
        Value::I64(value) => Cell::Number((*value).into()),
        Value::U32(value) => Cell::Number((*value).into()),
        Value::U64(value) => Cell::Number((*value).into()),
        Value::F32(value) => Cell::Float(value.to_bits().into()),
        Value::F64(value) => Cell::Float(value.to_bits()),
        Value::String(value) => Cell::Text(value.clone()),
        Value::Bytes(value) => Cell::Bytes(value.to_vec()),
        Value::EnumNumber(number) => {
            let Kind::Enum(numbers) = kind else { panic!("{kind:?}") };
            let proto = numbers.enum_descriptor_proto();
            let name = proto.value.iter().find(|value| value.number() == *number).map(|value| value.name().to_owned());
            Cell::Text(name.unwrap_or_else(|| number.to_string()))
        }
        Value::Message(message) => of_message(message, data_type),
        Value::List(_) | Value::Map(_) => panic!("{value:?}"),
    }
}

fn of_message(message: &DynamicMessage, data_type: &DataType) -> Cell {
    let descriptor = message.descriptor();
    let number = |name: &str| match message.get_field_by_name(name).unwrap().as_ref() {
        Value::I64(value) => i128::from(*value),
        Value::I32(value) => i128::from(*value),
        other => panic!("{other:?}"),
    };
    match data_type {
        DataType::Timestamp(..) | DataType::Duration(_) => {
            Cell::Number((number("seconds") * 1_000_000_000 + number("nanos")).div_euclid(1000))
        }
        DataType::Date32 => {
            let of = |name| u32::try_from(number(name)).ok();
            let day = || NaiveDate::from_ymd_opt(i32::try_from(number("year")).ok()?, of("month")?, of("day")?);
            let day = day().filter(|day| (1..=9999).contains(&day.year()));
            day.map_or(Cell::Null, |day| Cell::Number((day - NaiveDate::default()).num_days().into()))
        }
        DataType::Time64(_) => {
            let parts = [("hours", 24), ("minutes", 60), ("seconds", 60), ("nanos", 1_000_000_000)];
            let [hours, minutes, seconds, nanos] = parts.map(|(name, _)| number(name));
            match parts.iter().all(|(name, end)| (0..*end).contains(&number(name))) {
                true => Cell::Number(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + nanos / 1000),
                false => Cell::Null,
            }
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|column| {
                let field = descriptor.get_field_by_name(column.name()).unwrap();
                (column.name().clone(), expected(message, &field, column))
            });
            Cell::Struct(fields.collect())
        }
        DataType::Boolean if descriptor.fields().len() == 0 => Cell::Bool(true),
        DataType::Utf8 if is_json(&descriptor) => json(message),
        _ if descriptor.full_name().ends_with("Value") => {
            let field = descriptor.get_field_by_name("value").unwrap();
            of_value(&message.get_field(&field), &field.kind(), data_type)
        }
        DataType::Binary => canonical(message),
        other => panic!("{descriptor:?} as {other}"),
    }
}

/// Whether a message is a JSON text.
pub fn is_json(message: &MessageDescriptor) -> bool {
    ["Struct", "Value", "ListValue"].iter().any(|name| message.full_name() == format!("google.protobuf.{name}"))
}

/// What the JSON text of a message should say.
fn json(message: &DynamicMessage) -> Cell {
    let field = |name: &str| message.get_field_by_name(name).unwrap().into_owned();
    let member = |value: &Value| json(value.as_message().unwrap());
    match message.descriptor().name() {
        "Struct" => {
            let fields = field("fields");
            let members = fields.as_map().unwrap().iter().map(|(name, value)| (of_key(name), member(value)));
            let mut members: Vec<_> = members.collect();
            members.sort();
            Cell::Map(members)
        }
        "ListValue" => Cell::List(field("values").as_list().unwrap().iter().map(member).collect()),
        _ => match message.fields().next() {
            None => Cell::Null,
            Some((kind, value)) => match (kind.name(), value) {
                ("null_value", _) => Cell::Null,
                ("number_value", Value::F64(number)) if number.is_finite() => json_number(*number),
                ("number_value", Value::F64(number)) if number.is_nan() => Cell::Text("NaN".into()),
                ("number_value", Value::F64(number)) => {
                    Cell::Text(if *number > 0.0 { "Infinity" } else { "-Infinity" }.into())
                }
                (_, Value::String(text)) => Cell::Text(text.clone()),
                (_, Value::Bool(value)) => Cell::Bool(*value),
                (_, Value::Message(inner)) => json(inner),
                other => panic!("{other:?}"),
            },
        },
    }
}

/// What a JSON text says.
fn json_text(value: &serde_json::Value) -> Cell {
    use serde_json::Value as Json;
    match value {
        Json::Null => Cell::Null,
        Json::Bool(value) => Cell::Bool(*value),
        Json::Number(number) => json_number(number.as_f64().unwrap()),
        Json::String(text) => Cell::Text(text.clone()),
        Json::Array(items) => Cell::List(items.iter().map(json_text).collect()),
        Json::Object(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(name, value)| (Cell::Text(name.clone()), json_text(value))).collect();
            members.sort();
            Cell::Map(members)
        }
    }
}

fn json_number(number: f64) -> Cell {
    Cell::Text(format!("number {number:e}"))
}

/// A message by the numbers of its fields, however it was written.
fn canonical(message: &DynamicMessage) -> Cell {
    fn plain(value: &Value, kind: &Kind) -> Cell {
        match value {
            Value::Message(message) => canonical(message),
            Value::List(items) => Cell::List(items.iter().map(|item| plain(item, kind)).collect()),
            Value::Map(entries) => {
                let Kind::Message(entry) = kind else { panic!("{kind:?}") };
                let kind = entry.map_entry_value_field().kind();
                let mut cells: Vec<_> = entries.iter().map(|(k, v)| (of_key(k), plain(v, &kind))).collect();
                cells.sort();
                Cell::Map(cells)
            }
            other => of_value(other, kind, &DataType::Null),
        }
    }
    let fields = message.fields().map(|(field, value)| (field.name().to_owned(), plain(value, &field.kind())));
    Cell::Struct(fields.collect())
}

/// What a column does hold.
pub fn actual(array: &dyn Array, row: usize, kind: &Kind) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    let messages = || match kind {
        Kind::Message(message) => message.clone(),
        other => panic!("{other:?}"),
    };
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Number(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Number(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Decimal128(20, 0) => Cell::Number(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row).to_bits().into()),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Timestamp(..) => Cell::Number(array.as_primitive::<TimestampMicrosecondType>().value(row).into()),
        DataType::Duration(_) => Cell::Number(array.as_primitive::<DurationMicrosecondType>().value(row).into()),
        DataType::Date32 => Cell::Number(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Time64(_) => Cell::Number(array.as_primitive::<Time64MicrosecondType>().value(row).into()),
        DataType::Utf8 => match kind {
            Kind::Message(message) if is_json(message) => {
                json_text(&serde_json::from_str(array.as_string::<i32>().value(row)).unwrap())
            }
            _ => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        },
        DataType::Binary => binary(array.as_binary::<i32>().value(row), kind),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Cell::List((0..items.len()).map(|at| actual(&items, at, kind)).collect())
        }
        DataType::Map(..) => {
            let pairs = array.as_map().value(row);
            let (key, value) = (messages().map_entry_key_field().kind(), messages().map_entry_value_field().kind());
            let pair = |at| (actual(pairs.column(0), at, &key), actual(pairs.column(1), at, &value));
            let mut cells: Vec<(Cell, Cell)> = (0..pairs.len()).map(pair).collect();
            cells.sort();
            Cell::Map(cells)
        }
        DataType::Struct(fields) => {
            let message = messages();
            let columns = fields.iter().zip(array.as_struct().columns());
            let cells = columns.map(|(field, column)| {
                let kind = message.get_field_by_name(field.name()).unwrap().kind();
                (field.name().clone(), actual(column, row, &kind))
            });
            Cell::Struct(cells.collect())
        }
        other => panic!("{other}"),
    }
}

fn binary(bytes: &[u8], kind: &Kind) -> Cell {
    match kind {
        Kind::Message(message) if !message.full_name().ends_with("Value") => {
            DynamicMessage::decode(message.clone(), bytes).map_or(Cell::Null, |message| canonical(&message))
        }
        _ => Cell::Bytes(bytes.to_vec()),
    }
}

/// Whether a field of that column is left as it is on the wire.
pub fn has_raw(message: &MessageDescriptor, fields: &Fields) -> bool {
    fields.iter().any(|column| {
        let field = message.get_field_by_name(column.name()).unwrap();
        let (kind, data_type) = match (field.kind(), column.data_type()) {
            (Kind::Message(entry), DataType::Map(pair, _)) => match pair.data_type() {
                DataType::Struct(pair) => (entry.map_entry_value_field().kind(), pair[1].data_type().clone()),
                other => panic!("{other}"),
            },
            (kind, DataType::List(item)) => (kind, item.data_type().clone()),
            (kind, data_type) => (kind, data_type.clone()),
        };
        match (kind, data_type) {
            (Kind::Message(message), DataType::Binary) => !message.full_name().ends_with("Value"),
            (Kind::Message(message), DataType::Struct(fields)) => has_raw(&message, &fields),
            _ => false,
        }
    })
}

/// Whether a message, or one in it that is decoded, lacks a required field.
pub fn lacks_required(message: &DynamicMessage, fields: &Fields) -> bool {
    let inside = |value: &Value, data_type: &DataType| match (value, data_type) {
        (Value::Message(message), DataType::Struct(fields)) => lacks_required(message, fields),
        _ => false,
    };
    fields.iter().any(|column| {
        let field = message.descriptor().get_field_by_name(column.name()).unwrap();
        if !message.has_field(&field) {
            return field.is_required();
        }
        match (message.get_field(&field).as_ref(), column.data_type()) {
            (Value::List(items), DataType::List(item)) => items.iter().any(|value| inside(value, item.data_type())),
            (Value::Map(entries), DataType::Map(pair, _)) => match pair.data_type() {
                DataType::Struct(pair) => entries.values().any(|value| inside(value, pair[1].data_type())),
                other => panic!("{other}"),
            },
            (value, data_type) => inside(value, data_type),
        }
    })
}
