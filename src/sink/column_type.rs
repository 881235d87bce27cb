//! Column types as a Delta table's schema writes them (Delta protocol, "Schema Serialization Format").

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde_json::{Value, json};

/// The Delta type of an Arrow type: a name for a primitive type, an object for a nested one. `None` when Delta has no
/// such type (unsigned numbers, times without a day, nanoseconds).
pub fn delta_type(data_type: &DataType) -> Option<Value> {
    Some(match data_type {
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("binary"),
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if is_utc(zone) => json!("timestamp"),
        DataType::Decimal128(precision, scale) if *scale >= 0 => json!(format!("decimal({precision},{scale})")),
        DataType::List(item) => json!({
            "type": "array", "elementType": delta_type(item.data_type())?, "containsNull": item.is_nullable(),
        }),
        DataType::Struct(fields) => json!({
            "type": "struct",
            "fields": fields.iter().map(|field| delta_field(field)).collect::<Option<Vec<_>>>()?,
        }),
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { return None };
            let [key, value] = fields.iter().as_slice() else { return None };
            json!({
                "type": "map", "keyType": delta_type(key.data_type())?,
                "valueType": delta_type(value.data_type())?, "valueContainsNull": value.is_nullable(),
            })
        }
        _ => return None,
    })
}

/// A column, or a field of a struct, as the schema writes it.
pub fn delta_field(field: &Field) -> Option<Value> {
    let data_type = delta_type(field.data_type())?;
    Some(json!({ "name": field.name(), "type": data_type, "nullable": field.is_nullable(), "metadata": {} }))
}

fn is_utc(zone: &str) -> bool {
    zone.eq_ignore_ascii_case("utc") || zone == "+00:00"
}

/// A Delta type in one line: `array<string not null>`.
pub fn shown(delta_type: &Value) -> String {
    let not_null = |nullable: &Value| if nullable == &json!(false) { " not null" } else { "" };
    match (delta_type, delta_type["type"].as_str()) {
        (Value::String(name), _) => name.clone(),
        (_, Some("array")) => {
            format!("array<{}{}>", shown(&delta_type["elementType"]), not_null(&delta_type["containsNull"]))
        }
        (_, Some("map")) => format!(
            "map<{}, {}{}>",
            shown(&delta_type["keyType"]),
            shown(&delta_type["valueType"]),
            not_null(&delta_type["valueContainsNull"])
        ),
        (_, Some("struct")) => {
            let fields = delta_type["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
            let fields: Vec<_> = fields
                .iter()
                .map(|field| {
                    let name = field["name"].as_str().unwrap_or("?");
                    format!("{name} {}{}", shown(&field["type"]), not_null(&field["nullable"]))
                })
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
        (other, _) => other.to_string(),
    }
}

/// The type without what does not make two types differ: the metadata of nested fields.
pub fn plain(delta_type: &Value) -> Value {
    match delta_type {
        Value::Object(map) => {
            map.iter().filter(|(key, _)| *key != "metadata").map(|(key, value)| (key.clone(), plain(value))).collect()
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_kind_of_type() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let nested = DataType::Struct(
            vec![Field::new("n", DataType::Int32, false), Field::new("tags", list.clone(), true)].into(),
        );
        let map = DataType::Map(
            Arc::new(Field::new(
                "entries",
                DataType::Struct(
                    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)].into(),
                ),
                false,
            )),
            false,
        );
        for (data_type, text) in [
            (DataType::Utf8, "string"),
            (DataType::Binary, "binary"),
            (DataType::Boolean, "boolean"),
            (DataType::Int8, "byte"),
            (DataType::Int16, "short"),
            (DataType::Int32, "integer"),
            (DataType::Int64, "long"),
            (DataType::Float32, "float"),
            (DataType::Float64, "double"),
            (DataType::Date32, "date"),
            (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), "timestamp"),
            (DataType::Decimal128(20, 0), "decimal(20,0)"),
            (list, "array<string>"),
            (nested, "struct<n integer not null, tags array<string>>"),
            (map, "map<string, long>"),
        ] {
            assert_eq!(shown(&delta_type(&data_type).unwrap()), text);
        }
    }

    #[test]
    fn delta_has_no_such_type() {
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)));
        for data_type in [DataType::UInt64, DataType::Utf8View, nanos, list] {
            assert_eq!(delta_type(&data_type), None, "{data_type}");
        }
    }
}
