//! Declared columns: SQL types to Arrow types, and to the types that Delta keeps.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::execution::SessionState;
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, ColumnDef, DataType as SqlType, Ident, StructField};

use super::planner::Catalogue;
use super::statement::normal;
use crate::contract::sql_type;

/// What a column's type may be: the remedy for those that are not known.
const KNOWN: &str = "write BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), VARCHAR, VARBINARY, \
                     DATE, \
                     TIMESTAMP, ARRAY<…>, STRUCT<…> or MAP(…, …)";

/// The Arrow type of a SQL type.
///
/// # Errors
/// The type is not known.
pub(super) fn arrow_type(sql: &SqlType, state: &SessionState) -> Result<DataType, String> {
    match sql {
        SqlType::Varbinary(_) | SqlType::Binary(_) | SqlType::Blob(_) | SqlType::Bytes(_) => Ok(DataType::Binary),
        SqlType::Array(ArrayElemTypeDef::AngleBracket(inner) | ArrayElemTypeDef::SquareBracket(inner, None)) => {
            let inner = arrow_type(inner, state)?;
            Ok(DataType::List(Arc::new(Field::new("element", inner, true))))
        }
        SqlType::Struct(fields, _) => {
            let fields: Result<Fields, String> = fields.iter().map(|field| struct_field(field, state)).collect();
            Ok(DataType::Struct(fields?))
        }
        SqlType::Map(key, value) => {
            let key = Field::new("key", arrow_type(key, state)?, false);
            let value = Field::new("value", arrow_type(value, state)?, true);
            let entries = Field::new("key_value", DataType::Struct(Fields::from(vec![key, value])), false);
            Ok(DataType::Map(Arc::new(entries), false))
        }
        simple => {
            let catalogue = Catalogue::new(state);
            let column = ColumnDef { name: Ident::new("c"), data_type: simple.clone(), options: Vec::new() };
            let schema = SqlToRel::new(&catalogue).build_schema(vec![column]);
            let unknown = |_| format!("the type {simple} is not known: {KNOWN}");
            Ok(schema.map_err(unknown)?.field(0).data_type().clone())
        }
    }
}

fn struct_field(field: &StructField, state: &SessionState) -> Result<FieldRef, String> {
    let name = field.field_name.as_ref().ok_or("a field of a STRUCT has no name: write STRUCT<name TYPE, …>")?;
    Ok(Arc::new(Field::new(normal(name), arrow_type(&field.field_type, state)?, true)))
}

/// The type as a Delta table keeps it: strings `Utf8`, bytes `Binary`, times `Timestamp(us, UTC)`.
///
/// # Errors
/// Delta has no such type.
pub(super) fn delta_type(data_type: &DataType) -> Result<DataType, String> {
    use DataType::*;
    let lacks = |instead: &str| Err(format!("Delta Lake has no type {}: write {instead}", sql_type(data_type)));
    let inner = |field: &FieldRef| -> Result<FieldRef, String> {
        Ok(Arc::new(field.as_ref().clone().with_data_type(delta_type(field.data_type())?)))
    };
    Ok(match data_type {
        Utf8 | LargeUtf8 | Utf8View => Utf8,
        Binary | LargeBinary | BinaryView => Binary,
        Timestamp(_, _) => Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        UInt8 | UInt16 => return lacks("INT"),
        UInt32 => return lacks("BIGINT"),
        UInt64 => return lacks("DECIMAL(20, 0)"),
        Time32(_) | Time64(_) | Interval(_) | Duration(_) => return lacks("BIGINT and a unit in the column's name"),
        Decimal256(_, _) => return lacks("DECIMAL with at most 38 digits"),
        List(field) => List(inner(field)?),
        Map(entries, sorted) => Map(inner(entries)?, *sorted),
        Struct(fields) => Struct(fields.iter().map(inner).collect::<Result<_, _>>()?),
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 | Decimal128(_, _) => data_type.clone(),
        _ => return lacks("one that it has"),
    })
}
