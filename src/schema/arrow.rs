//! The Arrow types of a message's fields.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use prost_reflect::MessageDescriptor;

use super::shape::{FieldShape, Label, MessageShape, Scalar, ValueShape};
use crate::error::Result;

/// The columns of a message: one a field, in the order of the `.proto` file.
///
/// Delta has no unsigned numbers, so `uint32` is Int64 and `uint64` is Decimal128(20, 0). An enum is its name. What has
/// presence in protobuf is nullable, with all that is in it; lists and maps are not.
///
/// # Errors
/// The message nests too deeply or has too many fields.
pub fn columns(message: &MessageDescriptor) -> Result<Fields> {
    Ok(MessageShape::of(message)?.columns())
}

impl MessageShape {
    /// The columns of the message.
    pub fn columns(&self) -> Fields {
        self.columns_within(false)
    }

    /// The columns of the message where it may itself be NULL (`nullable`): then so may all that is in it.
    pub fn columns_within(&self, nullable: bool) -> Fields {
        self.fields.iter().map(|field| field.column_within(nullable)).collect()
    }
}

impl FieldShape {
    /// The column of the field in a message that may be NULL (`nullable`) or not.
    pub fn column_within(&self, nullable: bool) -> Field {
        let may_be_null = self.value.may_be_null();
        let itself = match self.label {
            Label::Optional => true,
            Label::Required => may_be_null,
            Label::Implicit | Label::Repeated | Label::Map(_) => false,
        };
        let nullable = nullable || itself;
        let data_type = match &self.label {
            Label::Repeated => {
                DataType::List(Arc::new(Field::new_list_field(self.value.data_type(false), may_be_null)))
            }
            Label::Map(key) => {
                let key = Field::new("key", key.data_type(), false);
                // Never NULL, but DataFusion's functions of maps take values that may be.
                let pair = Fields::from(vec![key, Field::new("value", self.value.data_type(false), true)]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
            }
            Label::Implicit | Label::Optional | Label::Required => self.value.data_type(nullable),
        };
        Field::new(&self.name, data_type, nullable)
    }
}

impl ValueShape {
    /// The type of a value that may be NULL (`nullable`) or not: in a message that may be, all that is in it may be.
    pub fn data_type(&self, nullable: bool) -> DataType {
        match self {
            ValueShape::Scalar(scalar) | ValueShape::Wrapper(scalar) => scalar.data_type(),
            ValueShape::Enum(_) | ValueShape::Case { .. } => DataType::Utf8,
            ValueShape::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ValueShape::Duration => DataType::Duration(TimeUnit::Microsecond),
            ValueShape::Date => DataType::Date32,
            ValueShape::TimeOfDay => DataType::Time64(TimeUnit::Microsecond),
            ValueShape::JsonObject | ValueShape::JsonValue | ValueShape::JsonList => DataType::Utf8,
            ValueShape::Empty => DataType::Boolean,
            ValueShape::Recursive | ValueShape::Unknown => DataType::Binary,
            ValueShape::Message(message) => DataType::Struct(message.columns_within(nullable)),
        }
    }
}

impl Scalar {
    /// The type of a value.
    pub fn data_type(self) -> DataType {
        match self {
            Scalar::Bool => DataType::Boolean,
            Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => DataType::Int32,
            Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 | Scalar::Uint32 | Scalar::Fixed32 => DataType::Int64,
            Scalar::Uint64 | Scalar::Fixed64 => DataType::Decimal128(20, 0),
            Scalar::Float => DataType::Float32,
            Scalar::Double => DataType::Float64,
            Scalar::String => DataType::Utf8,
            Scalar::Bytes => DataType::Binary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Descriptors, Shaping};

    const ALL: &str = r#"
        syntax = "proto3";
        import "google/protobuf/any.proto";
        import "google/protobuf/duration.proto";
        import "google/protobuf/empty.proto";
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        message All {
          bytes raw = 9;
          bool flag = 1; int32 i = 2; uint32 u = 3; fixed64 big = 4; float f = 5; double d = 6;
          string text = 7; optional string maybe = 8;
          Color color = 10; Inner inner = 11; repeated Inner many = 12; map<string, Inner> named = 13;
          oneof pick { int64 a = 14; string b = 15; }
          google.protobuf.Timestamp at = 16; google.protobuf.Duration took = 17;
          google.protobuf.UInt64Value wrapped = 18; google.protobuf.Empty nothing = 19;
          google.protobuf.Any any = 20; Tree tree = 21; repeated google.protobuf.Int32Value list = 22;
        }
        enum Color { RED = 0; }
        message Inner { string name = 1; }
        message Tree { Tree left = 1; repeated Tree more = 2; }
    "#;

    #[test]
    fn a_message_in_itself_is_unfolded_as_often_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree.proto");
        std::fs::write(&path, "syntax = \"proto3\"; message Tree { Tree left = 1; int32 n = 2; }").unwrap();
        let tree = Descriptors::compile(&[path], &[]).unwrap().message("Tree").unwrap();
        let depth = |max_recursion| {
            let mut left =
                MessageShape::with(&tree, Shaping { max_recursion, ..Shaping::default() }).unwrap().columns()[0]
                    .data_type()
                    .clone();
            let mut depth = 0;
            while let DataType::Struct(fields) = &left {
                left = fields[0].data_type().clone();
                depth += 1;
            }
            assert_eq!(left, DataType::Binary);
            depth
        };
        assert_eq!([depth(0), depth(1), depth(5)], [0, 1, 5]);
    }

    #[test]
    fn every_type_has_its_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("all.proto");
        std::fs::write(&path, ALL).unwrap();
        let message = Descriptors::compile(&[path], &[]).unwrap().message("All").unwrap();
        let got: Vec<String> = columns(&message)
            .unwrap()
            .iter()
            .map(|f| format!("{} {}{}", f.name(), f.data_type(), if f.is_nullable() { "?" } else { "" }))
            .collect();
        let want = [
            "raw Binary",
            "flag Boolean",
            "i Int32",
            "u Int64",
            "big Decimal128(20, 0)",
            "f Float32",
            "d Float64",
            "text Utf8",
            "maybe Utf8?",
            "color Utf8",
            "inner Struct(\"name\": Utf8)?",
            "many List(non-null Struct(\"name\": non-null Utf8))",
            "named Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": \
             Struct(\"name\": non-null Utf8)), unsorted)",
            "a Int64?",
            "b Utf8?",
            "at Timestamp(µs, \"UTC\")?",
            "took Duration(µs)?",
            "wrapped Decimal128(20, 0)?",
            "nothing Boolean?",
            "any Struct(\"type_url\": Utf8, \"value\": Binary)?",
            "tree Struct(\"left\": Binary, \"more\": List(non-null Binary))?",
            "list List(non-null Int32)",
        ];
        assert_eq!(got, want);
    }
}
