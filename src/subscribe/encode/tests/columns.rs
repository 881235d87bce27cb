//! Messages to columns by reflection, as the table of the decoder says: slow and plain, the oracle of the tests.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use chrono::{Datelike, NaiveDate};
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value};

type Values<'a> = Vec<Option<Cow<'a, Value>>>;

/// The columns of messages of one type.
pub fn batch(message: &MessageDescriptor, messages: &[DynamicMessage]) -> RecordBatch {
    let messages: Vec<Option<&DynamicMessage>> = messages.iter().map(Some).collect();
    let mut stack = vec![message.full_name().to_owned()];
    let columns: Vec<(String, ArrayRef)> =
        message.fields().map(|field| (field.name().to_owned(), field_column(&field, &messages, &mut stack))).collect();
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(messages.len()));
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    RecordBatch::try_new_with_options(schema, columns.into_iter().map(|(_, array)| array).collect(), &options).unwrap()
}

fn field_column(field: &FieldDescriptor, messages: &[Option<&DynamicMessage>], stack: &mut Vec<String>) -> ArrayRef {
    let present = |message: &DynamicMessage| !field.supports_presence() || message.has_field(field);
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let (mut keys, mut values, mut offsets): (Values, Values, _) = (Vec::new(), Vec::new(), vec![0]);
        for message in messages.iter().flatten() {
            let map = message.get_field(field).into_owned();
            let Value::Map(map) = map else { panic!("no map") };
            let mut entries: Vec<(MapKey, Value)> = map.into_iter().collect();
            entries.sort_by_key(|(key, _)| format!("{key:?}"));
            for (key, value) in entries {
                keys.push(Some(Cow::Owned(key.into())));
                values.push(Some(Cow::Owned(value)));
            }
            offsets.push(keys.len() as i32);
        }
        let keys = value_column(&entry.map_entry_key_field().kind(), &keys, stack);
        let values = value_column(&entry.map_entry_value_field().kind(), &values, stack);
        let fields = Fields::from(vec![
            Field::new("key", keys.data_type().clone(), false),
            Field::new("value", values.data_type().clone(), true),
        ]);
        let entries = StructArray::new(fields.clone(), vec![keys, values], None);
        let field = Arc::new(Field::new("entries", DataType::Struct(fields), false));
        let (offsets, nulls) = spread(&offsets, messages);
        return Arc::new(MapArray::new(field, offsets, entries, nulls, false));
    }
    if field.is_list() {
        let (mut elements, mut offsets): (Values, _) = (Vec::new(), vec![0]);
        for message in messages.iter().flatten() {
            let Value::List(list) = message.get_field(field).into_owned() else { panic!("no list") };
            elements.extend(list.into_iter().map(|value| Some(Cow::Owned(value))));
            offsets.push(elements.len() as i32);
        }
        let elements = value_column(&field.kind(), &elements, stack);
        let element = Arc::new(Field::new("item", elements.data_type().clone(), true));
        let (offsets, nulls) = spread(&offsets, messages);
        return Arc::new(ListArray::new(element, offsets, elements, nulls));
    }
    let values: Values =
        messages.iter().map(|m| m.filter(|m| present(m)).map(|message| message.get_field(field))).collect();
    value_column(&field.kind(), &values, stack)
}

/// The offsets of the messages that are there, spread over all rows.
fn spread(offsets: &[i32], messages: &[Option<&DynamicMessage>]) -> (OffsetBuffer<i32>, Option<NullBuffer>) {
    let (mut all, mut next) = (vec![0], 0);
    for message in messages {
        next += usize::from(message.is_some());
        all.push(offsets[next]);
    }
    let nulls = messages.iter().any(Option::is_none).then(|| messages.iter().map(Option::is_some).collect());
    (OffsetBuffer::new(all.into()), nulls)
}

fn value_column(kind: &Kind, values: &Values<'_>, stack: &mut Vec<String>) -> ArrayRef {
    macro_rules! array {
        ($array:ty, |$value:ident| $read:expr) => {
            Arc::new(<$array>::from_iter(values.iter().map(|value| {
                let $value = value.as_deref()?;
                Some($read)
            })))
        };
    }
    match kind {
        Kind::Bool => array!(BooleanArray, |v| v.as_bool().unwrap()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => array!(Int32Array, |v| v.as_i32().unwrap()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => array!(Int64Array, |v| v.as_i64().unwrap()),
        Kind::Uint32 | Kind::Fixed32 => array!(Int64Array, |v| i64::from(v.as_u32().unwrap())),
        Kind::Uint64 | Kind::Fixed64 => {
            let numbers = values.iter().map(|v| v.as_deref().map(|v| i128::from(v.as_u64().unwrap())));
            Arc::new(Decimal128Array::from_iter(numbers).with_precision_and_scale(20, 0).unwrap())
        }
        Kind::Float => array!(Float32Array, |v| v.as_f32().unwrap()),
        Kind::Double => array!(Float64Array, |v| v.as_f64().unwrap()),
        Kind::String => array!(StringArray, |v| v.as_str().unwrap().to_owned()),
        Kind::Bytes => array!(BinaryArray, |v| v.as_bytes().unwrap().to_vec()),
        Kind::Enum(numbers) => array!(StringArray, |v| {
            let number = v.as_enum_number().unwrap();
            let mut names: Vec<_> = numbers.values().filter(|value| value.number() == number).collect();
            names.sort_by_key(|value| value.path().last().copied());
            names.first().map_or(number.to_string(), |value| value.name().to_owned())
        }),
        Kind::Message(message) => {
            let messages: Vec<Option<&DynamicMessage>> =
                values.iter().map(|value| value.as_deref().map(|value| value.as_message().unwrap())).collect();
            message_column(message, &messages, stack)
        }
    }
}

fn message_column(
    message: &MessageDescriptor,
    messages: &[Option<&DynamicMessage>],
    stack: &mut Vec<String>,
) -> ArrayRef {
    let number = |message: &DynamicMessage, name: &str| match &*message.get_field_by_name(name).unwrap() {
        Value::I64(value) => *value,
        Value::I32(value) => i64::from(*value),
        other => panic!("{other:?}"),
    };
    let micros =
        |message: &DynamicMessage| number(message, "seconds") * 1_000_000 + number(message, "nanos").div_euclid(1000);
    let name = message.full_name();
    match name {
        "google.protobuf.Timestamp" => {
            let values = messages.iter().map(|message| message.map(micros));
            Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
        }
        "google.protobuf.Duration" => {
            // Reading a negative one rounds down; writing it again must not move it.
            Arc::new(DurationMicrosecondArray::from_iter(messages.iter().map(|message| message.map(micros))))
        }
        "google.type.Date" => Arc::new(Date32Array::from_iter(messages.iter().map(|message| {
            let [year, month, day] = ["year", "month", "day"].map(|part| message.map(|m| number(m, part)));
            let date = NaiveDate::from_ymd_opt(year? as i32, month? as u32, day? as u32)?;
            (year? > 0).then(|| date.num_days_from_ce() - 719_163)
        }))),
        "google.type.TimeOfDay" => Arc::new(Time64MicrosecondArray::from_iter(messages.iter().map(|message| {
            let parts = ["hours", "minutes", "seconds", "nanos"];
            let [hours, minutes, seconds, nanos] = parts.map(|part| message.map(|m| number(m, part)));
            let fits = (0..24).contains(&hours?) && (0..60).contains(&minutes?) && (0..60).contains(&seconds?);
            fits.then(|| Some(((hours? * 60 + minutes?) * 60 + seconds?) * 1_000_000 + nanos? / 1000)).flatten()
        }))),
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
            Arc::new(StringArray::from_iter(messages.iter().map(|message| message.map(|m| json(m).to_string()))))
        }
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let values: Values =
                messages.iter().map(|m| m.map(|message| message.get_field_by_name("value").unwrap())).collect();
            value_column(&message.get_field(1).unwrap().kind(), &values, stack)
        }
        name if stack.iter().any(|open| open == name) => {
            Arc::new(BinaryArray::from_iter(messages.iter().map(|message| message.map(|m| m.encode_to_vec()))))
        }
        _ if message.fields().len() == 0 => {
            Arc::new(BooleanArray::from_iter(messages.iter().map(|message| message.map(|_| true))))
        }
        name => {
            stack.push(name.to_owned());
            let columns: Vec<(String, ArrayRef)> = message
                .fields()
                .map(|field| (field.name().to_owned(), field_column(&field, messages, stack)))
                .collect();
            stack.pop();
            let fields: Fields =
                columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
            let nulls = messages.iter().any(Option::is_none).then(|| messages.iter().map(Option::is_some).collect());
            Arc::new(StructArray::new(fields, columns.into_iter().map(|(_, array)| array).collect(), nulls))
        }
    }
}

fn json(message: &DynamicMessage) -> serde_json::Value {
    let list = |value: &Value| {
        value.as_list().unwrap().iter().map(|value| json(value.as_message().unwrap())).collect::<Vec<_>>()
    };
    match message.descriptor().full_name() {
        "google.protobuf.Struct" => {
            let fields = message.get_field_by_name("fields").unwrap();
            let members = fields.as_map().unwrap().iter();
            members
                .map(|(name, value)| (name.as_str().unwrap().to_owned(), json(value.as_message().unwrap())))
                .collect()
        }
        "google.protobuf.ListValue" => list(&message.get_field_by_name("values").unwrap()).into(),
        _ => match message.fields().next() {
            None => serde_json::Value::Null,
            Some((_, Value::F64(number))) if !number.is_finite() => {
                number.to_string().replace("inf", "Infinity").into()
            }
            Some((_, Value::F64(number))) if number.fract() == 0.0 && number.abs() < 1e15 && *number != 0.0 => {
                (*number as i64).into()
            }
            Some((_, Value::F64(number))) => (*number).into(),
            Some((_, Value::String(text))) => text.clone().into(),
            Some((_, Value::Bool(flag))) => (*flag).into(),
            Some((_, Value::Message(inner))) => json(inner),
            Some(_) => serde_json::Value::Null,
        },
    }
}
