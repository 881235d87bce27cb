//! Rows as they are written in a case, to Arrow.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::yaml::{Kind, Node};
use crate::contract::sql_type;
use crate::pipeline::{Fault, Faults, SourceText, did_you_mean};

/// The columns of `schema` that any row names.
pub(super) fn named(rows: &[Node], schema: &Schema) -> SchemaRef {
    let is_named = |field: &&Arc<Field>| rows.iter().any(|row| row.get(field.name()).is_some());
    Arc::new(Schema::new(schema.fields().iter().filter(is_named).cloned().collect::<Vec<_>>()))
}

/// Rows with the columns of `schema`, NULL where a row does not name one; `table` is named in faults. `whole`: a row
/// has to name each column that holds no NULL, and this is the remedy for one that does not.
pub(super) fn batch(
    source: &SourceText,
    table: &str,
    rows: &[Node],
    schema: &SchemaRef,
    whole: Option<&str>,
    faults: &mut Faults,
) -> Option<RecordBatch> {
    let mut objects = Vec::with_capacity(rows.len());
    let mut wrong = false;
    for row in rows {
        let mut object = Map::new();
        for (key, value) in row.entries() {
            match cell(source, table, schema, key, value) {
                Ok((name, value)) => _ = object.insert(name, value),
                Err(fault) => {
                    wrong = true;
                    faults.push(*fault);
                }
            }
        }
        let missing = |field: &&Arc<Field>| !field.is_nullable() && !object.contains_key(field.name());
        let missing = schema.fields().iter().find(missing).filter(|_| !wrong);
        if let (Some(missing), Some(remedy)) = (missing, whole) {
            wrong = true;
            let text = format!("column `{}` of {table} is NOT NULL, and this row does not name it", missing.name());
            faults.push(Fault::new(source, &row.place, text).remedy(remedy));
        }
        objects.push(Value::Object(object));
    }
    if wrong {
        return None;
    }
    // A row may leave a column out, whatever the table says.
    let loose: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let loose = Arc::new(Schema::new(loose));
    match decode(&loose, &objects) {
        Ok(batch) => Some(batch),
        Err(error) => {
            let place = rows.first().map_or(0..0, |row| row.place.clone());
            let text = format!("these rows are none of {table}: {error}");
            faults.push(Fault::new(source, &place, text).remedy("write values of the columns' types"));
            None
        }
    }
}

fn cell(
    source: &SourceText,
    table: &str,
    schema: &SchemaRef,
    key: &Node,
    value: &Node,
) -> Result<(String, Value), Box<Fault>> {
    let name = key.text().unwrap_or_default();
    let Ok(field) = schema.field_with_name(name) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let remedy =
            did_you_mean(name, names.iter().copied()).unwrap_or_else(|| format!("it has {}", names.join(", ")));
        return Err(Box::new(Fault::new(source, &key.place, format!("{table} has no column `{name}`")).remedy(remedy)));
    };
    let json = of_type(value, field.data_type());
    let one = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
    let refused = |why: String| {
        let text = format!("column `{name}` of {table} does not hold this: {why}");
        let remedy = format!("write a value of type {}", sql_type(field.data_type()));
        Box::new(Fault::new(source, &value.place, text).remedy(remedy))
    };
    let json = json.map_err(refused)?;
    let object = Value::Object(Map::from_iter([(name.to_owned(), json.clone())]));
    decode(&one, &[object]).map_err(|error| refused(plain_words(&error.to_string())))?;
    Ok((name.to_owned(), json))
}

/// The JSON that Arrow's reader takes for a value of that type.
fn of_type(node: &Node, data_type: &DataType) -> Result<Value, String> {
    if node.is_null() {
        return Ok(Value::Null);
    }
    Ok(match (data_type, &node.kind) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Kind::Scalar { text, .. }) => {
            Value::String(text.clone())
        }
        (DataType::Binary | DataType::LargeBinary | DataType::BinaryView, Kind::Scalar { text, .. }) => {
            let bytes = STANDARD.decode(text).map_err(|error| format!("it is no base64 ({error})"))?;
            Value::String(hex::encode(bytes))
        }
        (data_type, Kind::Scalar { text, .. }) if data_type.is_temporal() => {
            let digits =
                text.split_once('.').map_or(0, |(_, rest)| rest.chars().take_while(char::is_ascii_digit).count());
            if digits > 6 {
                return Err(format!("{text} has more than microseconds"));
            }
            Value::String(text.clone())
        }
        (DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale), Kind::Scalar { text, .. }) => {
            let digits = text.split_once('.').map_or(0, |(_, digits)| digits.trim_end_matches('0').len());
            if digits > usize::try_from(*scale).unwrap_or(0) {
                return Err(format!("{text} has more than {scale} digits behind the point"));
            }
            Value::String(text.clone())
        }
        (DataType::List(item) | DataType::LargeList(item), Kind::List { items, .. }) => {
            Value::Array(items.iter().map(|node| of_type(node, item.data_type())).collect::<Result<_, _>>()?)
        }
        (DataType::Struct(fields), Kind::Map { entries, .. }) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let name = key.text().unwrap_or_default();
                let field = fields.iter().find(|field| field.name() == name);
                let field = field.ok_or_else(|| format!("it has no field `{name}`"))?;
                object.insert(name.to_owned(), of_type(value, field.data_type())?);
            }
            Value::Object(object)
        }
        (DataType::Map(entries, _), Kind::Map { entries: written, .. }) => {
            let DataType::Struct(pair) = entries.data_type() else { return Ok(node.json()) };
            let values = pair.get(1).map(|field| field.data_type().clone()).unwrap_or(DataType::Utf8);
            let entry = |(key, value): &(Node, Node)| {
                of_type(value, &values).map(|value| (key.text().unwrap_or_default().to_owned(), value))
            };
            Value::Object(written.iter().map(entry).collect::<Result<_, _>>()?)
        }
        _ => match node.json() {
            Value::Number(number) if data_type.is_integer() && number.is_f64() => {
                return Err(format!("{number} is no whole number"));
            }
            value => value,
        },
    })
}

/// A reader's error without what it says of itself.
fn plain_words(error: &str) -> String {
    let error = error.trim_start_matches("Json error: ");
    match error.strip_prefix("whilst decoding field '").and_then(|rest| rest.split_once("': ")) {
        Some((_, why)) => why.to_owned(),
        None => error.to_owned(),
    }
}

fn decode(schema: &SchemaRef, rows: &[Value]) -> Result<RecordBatch, arrow::error::ArrowError> {
    if rows.is_empty() || schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        return match schema.fields().is_empty() {
            true => RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options),
            false => Ok(RecordBatch::new_empty(Arc::clone(schema))),
        };
    }
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows.len()).build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema))))
}
