//! Each type and each fault by hand.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef, TimeUnit};
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::round_trip::mark;
use crate::subscribe::encode::{EncodeOptions, Encoder, PlanFault};
use crate::subscribe::tests::message_of;

const MORE: &str = "enum E { option allow_alias = true; ZERO = 0; ONE = 1; UNO = 1; }
    message In { string a = 1; int32 b = 2; } message Nothing {} message Deep { In in = 1; repeated In many = 2; }";

fn schema_of(columns: &[(&str, ArrayRef)]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn descriptor(fields: &str) -> MessageDescriptor {
    match fields.strip_prefix("proto2") {
        Some(fields) => message_of(&format!(
            "proto2 message M {{ {fields} }} {}",
            MORE.replace(" string", " optional string")
                .replace(" int32", " optional int32")
                .replace("In in", "optional In in")
        )),
        None => message_of(&format!("message M {{ {fields} }} {MORE}")),
    }
}

/// The message of each row as JSON, or why there is none.
fn encoded(fields: &str, columns: &[(&str, ArrayRef)]) -> Vec<Result<String, String>> {
    let (message, schema) = (descriptor(fields), schema_of(columns));
    let encoder = Encoder::plan(&schema, &message, &EncodeOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
    let batch = RecordBatch::try_new(schema, arrays).unwrap();
    let rows = encoder.rows(&batch).unwrap();
    let write = |row| {
        let mut out = vec![1, 2, 3];
        match rows.write(row, &mark(row as u64 + 1), &mut out) {
            Ok(()) => {
                let decoded = DynamicMessage::decode(message.clone(), &out[3..]).unwrap();
                assert_eq!(decoded.encode_to_vec().len(), out.len() - 3, "{decoded:?}");
                Ok(serde_json::to_string(&decoded).unwrap())
            }
            Err(error) => {
                assert_eq!(out, [1, 2, 3], "a row that fails leaves nothing behind");
                Err(error.message().to_owned())
            }
        }
    };
    (0..batch.num_rows()).map(write).collect()
}

/// The rows of one column as the field `f`: of `E1 f = 1` the declaration is `E1`.
fn field(declared: &str, array: impl Array + 'static) -> Vec<Result<String, String>> {
    encoded(&format!("{declared} f = 1;"), &[("f", Arc::new(array))])
}

fn is(declared: &str, array: impl Array + 'static, want: &[&str]) {
    let found: Vec<String> = field(declared, array).into_iter().map(Result::unwrap).collect();
    assert_eq!(found, want, "{declared}");
}

fn fails(declared: &str, array: impl Array + 'static, want: &str) {
    let found = field(declared, array);
    let error = found.last().unwrap().as_ref().unwrap_err();
    assert!(error.contains(want), "{declared}: {error}");
    assert!(error.starts_with("message M: version 7, row ") && error.contains("column f: "), "{error}");
}

#[test]
fn whole_numbers() {
    let decimal = |values: Vec<i128>| Decimal128Array::from(values).with_precision_and_scale(20, 0).unwrap();
    is("uint32", Int64Array::from(vec![0, 4_294_967_295]), &["{}", r#"{"f":4294967295}"#]);
    is("optional uint32", Int64Array::from(vec![Some(0), None]), &[r#"{"f":0}"#, "{}"]);
    is("uint64", decimal(vec![18_446_744_073_709_551_615]), &[r#"{"f":"18446744073709551615"}"#]);
    is("fixed64", decimal(vec![18_446_744_073_709_551_615]), &[r#"{"f":"18446744073709551615"}"#]);
    is("int64", decimal(vec![-9_223_372_036_854_775_808]), &[r#"{"f":"-9223372036854775808"}"#]);
    for declared in ["int32", "sint32", "sfixed32"] {
        is(
            declared,
            Int64Array::from(vec![-2_147_483_648, 2_147_483_647]),
            &[r#"{"f":-2147483648}"#, r#"{"f":2147483647}"#],
        );
        fails(declared, Int64Array::from(vec![2_147_483_648]), "2147483648 does not fit into");
    }
    for declared in ["int64", "sint64", "sfixed64"] {
        is(declared, Int8Array::from(vec![-128]), &[r#"{"f":"-128"}"#]);
        is(declared, UInt32Array::from(vec![u32::MAX]), &[r#"{"f":"4294967295"}"#]);
        fails(declared, UInt64Array::from(vec![u64::MAX]), "18446744073709551615 does not fit into");
    }
    is("fixed32", UInt8Array::from(vec![255]), &[r#"{"f":255}"#]);
    fails(
        "uint64",
        Int64Array::from(vec![5, -1]),
        "-1 does not fit into uint64, which holds 0 to 18446744073709551615",
    );
    fails("uint32", Int64Array::from(vec![-1]), "-1 does not fit into uint32");
    is(
        "repeated int32",
        lists(Int32Array::from(vec![1, 2, -3]), &[2, 0, 1]),
        &[r#"{"f":[1,2]}"#, "{}", r#"{"f":[-3]}"#],
    );
}

#[test]
fn numbers_with_a_fraction() {
    is("double", Float64Array::from(vec![0.1, 0.0]), &[r#"{"f":0.1}"#, "{}"]);
    is("double", Float32Array::from(vec![0.5]), &[r#"{"f":0.5}"#]);
    is("double", Int32Array::from(vec![i32::MIN]), &[r#"{"f":-2147483648.0}"#]);
    is("float", Float32Array::from(vec![f32::NAN]), &[r#"{"f":"NaN"}"#]);
    // Zero with a sign is no default: it goes onto the wire, though reflection takes it for one.
    let columns: [(&str, ArrayRef); 1] = [("f", Arc::new(Float64Array::from(vec![-0.0])))];
    let encoder = Encoder::plan(&schema_of(&columns), &descriptor("double f = 1;"), &EncodeOptions::default()).unwrap();
    let batch = RecordBatch::try_new(schema_of(&columns), vec![columns[0].1.clone()]).unwrap();
    let mut out = Vec::new();
    encoder.rows(&batch).unwrap().write(0, &mark(1), &mut out).unwrap();
    assert_eq!(out, [9, 0, 0, 0, 0, 0, 0, 0, 0x80]);
}

#[test]
fn texts_bytes_and_enums() {
    is("string", StringArray::from(vec!["ü", ""]), &[r#"{"f":"ü"}"#, "{}"]);
    is(
        "string",
        StringViewArray::from(vec!["a text that is no longer inline"]),
        &[r#"{"f":"a text that is no longer inline"}"#],
    );
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    is("optional string", dictionary.clone(), &[r#"{"f":"a"}"#, "{}", r#"{"f":"b"}"#, r#"{"f":"a"}"#]);
    let values: ArrayRef = Arc::new(StringArray::from(vec![None, Some("b")]));
    let keys = Int32Array::from(vec![Some(0), Some(1), None]);
    is("optional string", DictionaryArray::new(keys, values), &["{}", r#"{"f":"b"}"#, "{}"]);
    is("bytes", FixedSizeBinaryArray::try_from_iter([b"abc"].into_iter()).unwrap(), &[r#"{"f":"YWJj"}"#]);
    is("bytes", BinaryViewArray::from_iter_values([b"abc"]), &[r#"{"f":"YWJj"}"#]);
    is(
        "E",
        StringArray::from(vec!["ZERO", "ONE", "UNO", "77", "-1"]),
        &["{}", r#"{"f":"ONE"}"#, r#"{"f":"ONE"}"#, r#"{"f":77}"#, r#"{"f":-1}"#],
    );
    is("E", Int64Array::from(vec![1, 5]), &[r#"{"f":"ONE"}"#, r#"{"f":5}"#]);
    is("repeated E", lists(StringArray::from(vec!["UNO", "ZERO"]), &[2]), &[r#"{"f":["ONE","ZERO"]}"#]);
    fails("E", StringArray::from(vec!["one"]), "`one` is no value of the enum; add it to the `.proto` file");
    fails("E", Int64Array::from(vec![1 << 40]), "does not fit into an enum");
    is("bool", BooleanArray::from(vec![true, false]), &[r#"{"f":true}"#, "{}"]);
    is("optional bool", BooleanArray::from(vec![Some(false), None]), &[r#"{"f":false}"#, "{}"]);
}

#[test]
fn times() {
    let stamp = "google.protobuf.Timestamp";
    is(stamp, TimestampSecondArray::from(vec![Some(0), None]), &[r#"{"f":"1970-01-01T00:00:00Z"}"#, "{}"]);
    is(stamp, TimestampMillisecondArray::from(vec![-1]), &[r#"{"f":"1969-12-31T23:59:59.999Z"}"#]);
    is(
        stamp,
        TimestampMicrosecondArray::from(vec![1_000_001]).with_timezone("UTC"),
        &[r#"{"f":"1970-01-01T00:00:01.000001Z"}"#],
    );
    is(stamp, TimestampNanosecondArray::from(vec![-1]), &[r#"{"f":"1969-12-31T23:59:59.999999999Z"}"#]);
    fails(
        stamp,
        TimestampMicrosecondArray::from(vec![i64::MAX]),
        "9223372036854775807 is out of the range of google.protobuf.Timestamp",
    );
    is("int64", TimestampMillisecondArray::from(vec![1_234]), &[r#"{"f":"1234000"}"#]);
    is("sfixed64", TimestampNanosecondArray::from(vec![-1]), &[r#"{"f":"-1"}"#]);
    fails("int64", TimestampSecondArray::from(vec![i64::MAX]), "9223372036854775807000000 does not fit into int64");
    let length = "google.protobuf.Duration";
    is(length, DurationMicrosecondArray::from(vec![-1_500_000]), &[r#"{"f":"-1.500s"}"#]);
    is(length, Int64Array::from(vec![2_000_000]), &[r#"{"f":"2s"}"#]);
    fails(length, DurationSecondArray::from(vec![i64::MIN]), "out of the range of google.protobuf.Duration");
    is("int64", DurationMillisecondArray::from(vec![3]), &[r#"{"f":"3000"}"#]);
    let day = "google.type.Date";
    is(
        day,
        Date32Array::from(vec![Some(0), Some(-719_162), Some(19_782), None]),
        &[
            r#"{"f":{"year":1970,"month":1,"day":1}}"#,
            r#"{"f":{"year":1,"month":1,"day":1}}"#,
            r#"{"f":{"year":2024,"month":2,"day":29}}"#,
            "{}",
        ],
    );
    fails(day, Date32Array::from(vec![-719_163]), "-719163 is out of the range of google.type.Date");
    is(
        &format!("repeated {day}"),
        lists(Date32Array::from(vec![Some(0), None]), &[2]),
        &[r#"{"f":[{"year":1970,"month":1,"day":1},{}]}"#],
    );
    let clock = "google.type.TimeOfDay";
    let end = r#"{"f":{"hours":23,"minutes":59,"seconds":59,"nanos":999999000}}"#;
    is(clock, Time64MicrosecondArray::from(vec![0, 86_399_999_999]), &[r#"{"f":{}}"#, end]);
    is(clock, Int64Array::from(vec![3_600_000_000]), &[r#"{"f":{"hours":1}}"#]);
    is(clock, Time32SecondArray::from(vec![61]), &[r#"{"f":{"minutes":1,"seconds":1}}"#]);
    fails(clock, Int64Array::from(vec![-1]), "out of the range of google.type.TimeOfDay");
}

#[test]
fn messages_that_are_values() {
    is(
        "google.protobuf.UInt64Value",
        UInt64Array::from(vec![Some(0), Some(7), None]),
        &[r#"{"f":"0"}"#, r#"{"f":"7"}"#, "{}"],
    );
    is("google.protobuf.BytesValue", BinaryArray::from(vec![&b"abc"[..]]), &[r#"{"f":"YWJj"}"#]);
    is("google.protobuf.StringValue", StringArray::from(vec![""]), &[r#"{"f":""}"#]);
    fails("google.protobuf.Int32Value", Int64Array::from(vec![1 << 40]), "1099511627776 does not fit into int32");
    is("google.protobuf.Empty", BooleanArray::from(vec![Some(true), Some(false), None]), &[r#"{"f":{}}"#, "{}", "{}"]);
    is("Nothing", BooleanArray::from(vec![true]), &[r#"{"f":{}}"#]);
    is("google.protobuf.Struct", StringArray::from(vec![r#"{"a":[1,null]}"#]), &[r#"{"f":{"a":[1.0,null]}}"#]);
    is("google.protobuf.Value", StringArray::from(vec!["null"]), &[r#"{"f":null}"#]);
    fails("google.protobuf.Struct", StringArray::from(vec!["[]"]), "no JSON that a google.protobuf.Struct holds");
    is("In", BinaryArray::from(vec![&[0x0a, 1, b'x'][..], &[]]), &[r#"{"f":{"a":"x"}}"#, r#"{"f":{}}"#]);
    fails("In", BinaryArray::from(vec![&[0x0a, 9][..]]), "the bytes are no protobuf message");
}

fn lists(values: impl Array + 'static, lengths: &[usize]) -> ListArray {
    let element = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    ListArray::new(element, OffsetBuffer::from_lengths(lengths.iter().copied()), Arc::new(values), None)
}

fn structs(columns: &[(&str, ArrayRef)]) -> StructArray {
    let fields: Fields =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    StructArray::new(fields, columns.iter().map(|(_, array)| array.clone()).collect(), None)
}

fn inner() -> StructArray {
    structs(&[
        ("b", Arc::new(Int64Array::from(vec![1, 0]))),
        ("unknown", Arc::new(Int64Array::from(vec![9, 9]))),
        ("a", Arc::new(StringArray::from(vec!["x", ""]))),
    ])
}

#[test]
fn nested() {
    is("In", inner(), &[r#"{"f":{"a":"x","b":1}}"#, r#"{"f":{}}"#]);
    is("repeated In", lists(inner(), &[2, 0]), &[r#"{"f":[{"a":"x","b":1},{}]}"#, "{}"]);
    let large = cast(
        &lists(inner(), &[2]),
        &DataType::LargeList(Arc::new(Field::new_list_field(inner().data_type().clone(), true))),
    )
    .unwrap();
    is("repeated In", large.as_list::<i64>().clone(), &[r#"{"f":[{"a":"x","b":1},{}]}"#]);
    let deep = structs(&[("in", Arc::new(inner())), ("many", Arc::new(lists(inner(), &[1, 1])))]);
    is("Deep", deep, &[r#"{"f":{"in":{"a":"x","b":1},"many":[{"a":"x","b":1}]}}"#, r#"{"f":{"in":{},"many":[{}]}}"#]);
    let key = Field::new("key", DataType::Utf8, false);
    let pair = Fields::from(vec![key, Field::new("value", DataType::Int32, true)]);
    let entries =
        StructArray::new(pair, vec![Arc::new(StringArray::from(vec!["k"])), Arc::new(Int32Array::from(vec![5]))], None);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let map = MapArray::new(field, OffsetBuffer::from_lengths([1, 0]), entries, None, false);
    is("map<string, int32>", map, &[r#"{"f":{"k":5}}"#, "{}"]);
    fails("repeated int32", lists(Int32Array::from(vec![Some(1), None]), &[2]), "an element is NULL");
}

#[test]
fn lists_of_a_fixed_size_and_slices() {
    let element = Arc::new(Field::new_list_field(DataType::Int32, true));
    let list = FixedSizeListArray::new(element, 2, Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5, 6])), None);
    is("repeated int32", list.clone(), &[r#"{"f":[1,2]}"#, r#"{"f":[3,4]}"#, r#"{"f":[5,6]}"#]);
    is("repeated int32", list.slice(1, 2), &[r#"{"f":[3,4]}"#, r#"{"f":[5,6]}"#]);
    let keys: DictionaryArray<Int32Type> = vec!["a", "b", "c"].into_iter().collect();
    is("string", keys.slice(1, 2), &[r#"{"f":"b"}"#, r#"{"f":"c"}"#]);
}

#[test]
fn a_fault_names_the_column_it_is_in() {
    let bad =
        structs(&[("a", Arc::new(StringArray::from(vec!["x"]))), ("b", Arc::new(Int64Array::from(vec![1i64 << 33])))]);
    let found = encoded(
        "Deep f = 1;",
        &[("f", Arc::new(structs(&[("in", Arc::new(bad.clone())), ("many", Arc::new(lists(bad, &[1])))])))],
    );
    let error = found[0].as_ref().unwrap_err();
    assert_eq!(
        error,
        "message M: version 7, row 1: column f.in.b: 8589934592 does not fit into int32, which holds -2147483648 to \
         2147483647; widen the field, or leave such rows out in the query"
    );
}

#[test]
fn of_a_oneof_one_is_there() {
    let number = |values: Vec<Option<i32>>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![false, true, false, true]));
    let columns = [
        ("a", number(vec![Some(0), None, None, Some(1)])),
        ("b", flags),
        ("n", number(vec![Some(1), None, None, None])),
    ];
    let found = encoded("oneof pick { int32 a = 1; Nothing b = 2; } int32 n = 3;", &columns);
    assert_eq!(found[0].as_deref(), Ok(r#"{"a":0,"n":1}"#));
    assert_eq!(found[1].as_deref(), Ok(r#"{"b":{}}"#));
    assert_eq!(found[2].as_deref(), Ok("{}"));
    let error = found[3].as_ref().unwrap_err();
    assert!(error.contains("column b: it and a have values, and a message holds one of a oneof"), "{error}");
}

#[test]
fn proto2_has_groups_and_required_fields() {
    let found = encoded(
        "proto2 required int32 n = 1; repeated group G = 2 { optional string a = 1; } repeated int32 many = 3;",
        &[
            ("n", Arc::new(Int32Array::from(vec![Some(0), None]))),
            ("g", Arc::new(lists(structs(&[("a", Arc::new(StringArray::from(vec!["x", "y", "z"])))]), &[2, 1]))),
            ("many", Arc::new(lists(Int32Array::from(vec![1, 2, 3]), &[2, 1]))),
        ],
    );
    assert_eq!(found[0].as_deref(), Ok(r#"{"n":0,"g":[{"a":"x"},{"a":"y"}],"many":[1,2]}"#));
    assert!(found[1].as_ref().unwrap_err().contains("column n: it is NULL, and the message requires the field"));
}

fn faults(fields: &str, columns: &[(&str, DataType)], options: &EncodeOptions) -> Vec<String> {
    let fields_of: Vec<Field> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect();
    match Encoder::plan(&Arc::new(Schema::new(fields_of)), &descriptor(fields), options) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(PlanFault::to_string).collect(),
    }
}

#[test]
fn a_plan_tells_all_its_faults_at_once() {
    let inner = DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int32, true)]));
    let found = faults(
        "string ad_id = 1; string gone = 2; In in = 3; map<string, In> places = 4; repeated int32 many = 5;
         In whole = 6;",
        &[
            ("AD_ID", DataType::Utf8),
            ("in", inner.clone()),
            ("places", inner),
            ("many", DataType::Int32),
            ("whole", DataType::Utf8View),
        ],
        &EncodeOptions::default(),
    );
    let add = "add the column to the query that writes it, or take the field out of the message";
    let cast = "change the field's type, or cast the column in the query that writes the table";
    let want = [
        format!(
            "field ad_id: the table has no column `ad_id` (it has `AD_ID`, and names are compared letter by letter); \
             {add}"
        ),
        format!("field gone: the table has no column `gone` (it has AD_ID, in, places, many, whole); {add}"),
        format!("field in.a: the table's column is INT, and string takes VARCHAR; {cast}"),
        format!("field in.b: the table has no column `b` (it has a); {add}"),
        format!("field places: the table's column is a struct, and a map takes a map; {cast}"),
        format!("field many: the table's column is INT, and a repeated field takes a list; {cast}"),
        format!("field whole: the table's column is VARCHAR, and In takes a struct; {cast}"),
    ];
    assert_eq!(found, want);
}

#[test]
fn types_that_do_not_become_the_field_are_refused() {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    for (declared, column, takes) in [
        ("string", DataType::Int32, "VARCHAR"),
        ("string", DataType::Date32, "VARCHAR"),
        ("string", DataType::Decimal128(10, 2), "VARCHAR"),
        ("bytes", DataType::Utf8, "VARBINARY"),
        ("bool", DataType::Int32, "BOOLEAN"),
        ("int32", DataType::Float64, "a whole number"),
        ("int32", DataType::Utf8, "a whole number"),
        ("int32", micros.clone(), "a whole number"),
        ("int64", DataType::Decimal128(10, 2), "a whole number or a time"),
        ("uint64", micros.clone(), "a whole number"),
        ("float", DataType::Float64, "FLOAT"),
        ("double", DataType::Int64, "DOUBLE, FLOAT or INT"),
        ("E", DataType::Float32, "VARCHAR or a whole number"),
        ("google.protobuf.Timestamp", DataType::Int64, "TIMESTAMP"),
        ("google.protobuf.Timestamp", DataType::Date32, "TIMESTAMP"),
        ("google.protobuf.Duration", DataType::Float64, "an interval or a whole number of microseconds"),
        ("google.type.Date", micros, "DATE"),
        ("google.type.TimeOfDay", DataType::Utf8, "TIME or a whole number of microseconds"),
        ("google.protobuf.Struct", DataType::Struct(Fields::empty()), "VARCHAR with JSON"),
        ("google.protobuf.Int32Value", DataType::Utf8, "a whole number"),
        ("Nothing", DataType::Int32, "BOOLEAN"),
        ("In", DataType::Boolean, "a struct"),
    ] {
        let found = faults(&format!("{declared} f = 1;"), &[("f", column.clone())], &EncodeOptions::default());
        assert_eq!(found.len(), 1, "{declared} {column}");
        assert!(found[0].contains(&format!(" takes {takes}; ")), "{declared} {column}: {}", found[0]);
    }
}

#[test]
fn fields_may_be_declared_optional() {
    let columns = [("n", DataType::Int32)];
    let all = EncodeOptions { all_optional: true, ..EncodeOptions::default() };
    let some = EncodeOptions { optional: ["in".to_owned()].into(), ..EncodeOptions::default() };
    assert_eq!(faults("int32 n = 1; In in = 2;", &columns, &some), Vec::<String>::new());
    assert_eq!(faults("int32 n = 1; In in = 2; string s = 3;", &columns, &some).len(), 1);
    assert_eq!(faults("int32 n = 1; In in = 2; string s = 3;", &columns, &all), Vec::<String>::new());
    assert_eq!(faults("proto2 required string s = 1; optional int32 n = 2;", &columns, &all).len(), 1);
    let inside = [("in", DataType::Struct(Fields::from(vec![Field::new("a", DataType::Utf8, true)])))];
    assert_eq!(faults("In in = 1;", &inside, &some), Vec::<String>::new(), "what is in an optional field is optional");
}

#[test]
fn the_fields_of_the_subscription_are_not_the_tables() {
    let both = "int32 n = 1; string cursor = 2; bool replaces = 3;";
    let n = ("n", DataType::Int32);
    assert_eq!(faults(both, std::slice::from_ref(&n), &EncodeOptions::default()), Vec::<String>::new());
    let taken = [n.clone(), ("cursor", DataType::Utf8), ("replaces", DataType::Utf8)];
    let found = faults(both, &taken, &EncodeOptions::default());
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("field cursor: the server fills a field `cursor` of this type itself"),
        "{}",
        found[0]
    );
    // Of another type they are fields like others.
    assert_eq!(faults("string replaces = 1;", &taken, &EncodeOptions::default()), Vec::<String>::new());
    let found = faults("int64 cursor = 1; repeated bool replaces = 2;", &[n], &EncodeOptions::default());
    assert!(found[0].ends_with("A `cursor` that the server fills is a `string`"), "{}", found[0]);
    assert!(found[1].ends_with("A `replaces` that the server fills is a `bool`"), "{}", found[1]);
}

#[test]
fn another_batch_is_refused() {
    let columns: [(&str, ArrayRef); 1] = [("f", Arc::new(Int64Array::from(vec![1])))];
    let encoder = Encoder::plan(&schema_of(&columns), &descriptor("int64 f = 1;"), &EncodeOptions::default()).unwrap();
    let other: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let batch = RecordBatch::try_new(schema_of(&[("f", other.clone())]), vec![other]).unwrap();
    let error = encoder.rows(&batch).unwrap_err();
    assert!(error.message().ends_with("subscribe again"), "{error}");
}
