//! Well-known messages that are one value here: JSON texts, dates and times of day.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Time64MicrosecondType};
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

use crate::decode::{Decoder, Selection};
use crate::schema::{Descriptors, MessageShape, Shaping, columns};

const DATE: &str = "syntax = \"proto3\"; package google.type; message Date { int32 year = 1; int32 month = 2; \
    int32 day = 3; }";
const TIME: &str = "syntax = \"proto3\"; package google.type; message TimeOfDay { int32 hours = 1; int32 minutes = 2; \
    int32 seconds = 3; int32 nanos = 4; }";
const SOURCE: &str = r#"
    syntax = "proto3";
    import "google/protobuf/struct.proto"; import "google/type/date.proto"; import "google/type/timeofday.proto";
    message Known {
      google.protobuf.Struct attributes = 1; repeated google.protobuf.Value values = 2;
      google.type.Date day = 3; repeated google.type.Date days = 4; google.type.TimeOfDay at = 5;
      map<string, google.protobuf.ListValue> lists = 6;
      oneof pick { google.protobuf.Value any = 7; int32 number = 8; }
    }"#;

fn known() -> MessageDescriptor {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("google/type")).unwrap();
    for (name, source) in [("google/type/date.proto", DATE), ("google/type/timeofday.proto", TIME), ("k.proto", SOURCE)]
    {
        std::fs::write(dir.path().join(name), source).unwrap();
    }
    let roots = [dir.path().to_path_buf()];
    Descriptors::compile(&[dir.path().join("k.proto")], &roots).unwrap().message("Known").unwrap()
}

/// Records from their text format.
fn record(message: &MessageDescriptor, fields: &[(&str, Value)]) -> Vec<u8> {
    let mut record = DynamicMessage::new(message.clone());
    for (name, value) in fields {
        record.set_field_by_name(name, value.clone());
    }
    record.encode_to_vec()
}

fn of(message: &MessageDescriptor, field: &str, numbers: &[(&str, i32)]) -> Value {
    let kind = message.get_field_by_name(field).unwrap().kind();
    let mut inner = DynamicMessage::new(kind.as_message().unwrap().clone());
    for (name, number) in numbers {
        inner.set_field_by_name(name, Value::I32(*number));
    }
    Value::Message(inner)
}

fn json(message: &MessageDescriptor, field: &str, set: (&str, Value)) -> Value {
    let kind = message.get_field_by_name(field).unwrap().kind();
    let mut inner = DynamicMessage::new(kind.as_message().unwrap().clone());
    assert_eq!(inner.descriptor().full_name(), "google.protobuf.Value");
    inner.set_field_by_name(set.0, set.1);
    Value::Message(inner)
}

fn decode(message: &MessageDescriptor, records: &[Vec<u8>]) -> RecordBatch {
    let fields = columns(message).unwrap();
    let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
    let mut decoder = Decoder::new(message, &names, &Selection::All).unwrap();
    for record in records {
        drop(decoder.push(record));
    }
    decoder.finish().unwrap()
}

#[test]
fn they_have_the_columns_that_are_documented() {
    let got: Vec<String> = columns(&known())
        .unwrap()
        .iter()
        .map(|f| format!("{} {}{}", f.name(), f.data_type(), if f.is_nullable() { "?" } else { "" }))
        .collect();
    assert_eq!(got[0], "attributes Utf8?");
    assert_eq!(got[1], "values List(non-null Utf8)");
    assert_eq!(got[2], "day Date32?");
    assert_eq!(got[3], "days List(Date32)");
    assert_eq!(got[4], "at Time64(µs)?");
    assert!(got[5].contains("\"value\": Utf8"), "{}", got[5]);
}

#[test]
fn what_no_calendar_has_is_null_and_the_rest_goes_on() {
    let message = known();
    let day = |numbers: &[(&str, i32)]| of(&message, "day", numbers);
    let good = [("year", 2024), ("month", 2), ("day", 29)];
    let days = Value::List(vec![day(&good), day(&[("year", 2023), ("month", 2), ("day", 29)]), day(&good)]);
    let time = of(&message, "at", &[("hours", 12), ("nanos", 5_000)]);
    let batch = decode(
        &message,
        &[
            record(&message, &[("day", day(&good)), ("days", days), ("at", time)]),
            record(&message, &[("day", day(&[("year", 2024)])), ("at", of(&message, "at", &[("hours", 25)]))]),
            record(&message, &[]),
        ],
    );
    let column = batch.column(2).as_primitive::<Date32Type>();
    assert_eq!((column.value(0), column.is_null(1), column.is_null(2)), (19_782, true, true));
    let listed = batch.column(3).as_list::<i32>().value(0);
    let listed = listed.as_primitive::<Date32Type>();
    assert_eq!(listed.iter().collect::<Vec<_>>(), [Some(19_782), None, Some(19_782)]);
    let at = batch.column(4).as_primitive::<Time64MicrosecondType>();
    assert_eq!((at.value(0), at.is_null(1)), (43_200_000_005, true));
    assert_eq!(batch.schema().field(4).data_type(), at.data_type());
    assert!(matches!(batch.column(2).data_type(), DataType::Date32));
}

#[test]
fn a_bad_text_rolls_its_record_back() {
    let message = known();
    let text = |text: &str| json(&message, "any", ("string_value", Value::String(text.into())));
    let first = record(&message, &[("any", text("first"))]);
    let last = record(&message, &[("any", text("last"))]);
    // any (7) { string_value (3): not UTF-8 } behind a good attribute.
    let mut bad = record(&message, &[("number", Value::I32(1))]);
    bad.extend([0x3a, 0x03, 0x1a, 0x01, 0xff]);
    let batch = decode(&message, &[first, bad.clone(), last.clone(), [last, vec![0x40, 5]].concat()]);
    let any = batch.column(6).as_string::<i32>();
    assert_eq!(any.iter().collect::<Vec<_>>(), [Some("\"first\""), Some("\"last\""), None]);
    assert_eq!(batch.column(7).as_primitive::<arrow::datatypes::Int32Type>().value(2), 5, "the last member wins");

    let names = ["any"];
    let mut decoder = Decoder::new(&message, &names, &Selection::All).unwrap();
    let fault = decoder.push(&bad).unwrap_err();
    assert_eq!((fault.reason.as_str(), fault.field.as_str()), ("utf8", "any"));
}

/// A field of a message that is not there is NULL, not its default: whoever takes it out of the struct sees no struct.
#[test]
fn what_is_in_an_absent_message_is_null() {
    let message = super::message(
        r#"syntax = "proto3"; message M { Outer outer = 1; } message Outer { Inner inner = 1; int32 n = 2; string s = 3;
           repeated int32 l = 4; } message Inner { int32 deep = 1; }"#,
    );
    let names = ["outer"];
    let mut decoder = Decoder::new(&message, &names, &Selection::All).unwrap();
    // Nothing; an empty outer; an outer with an empty inner.
    for bytes in [&[][..], &[0x0a, 0], &[0x0a, 2, 0x0a, 0]] {
        decoder.push(bytes).unwrap();
    }
    let batch = decoder.finish().unwrap();
    let outer = batch.column(0).as_struct();
    let nulls = |array: &dyn Array| (0..3).map(|row| array.is_null(row)).collect::<Vec<_>>();
    assert_eq!(nulls(outer), [true, false, false]);
    for field in ["n", "s", "l"] {
        assert_eq!(nulls(outer.column_by_name(field).unwrap()), [true, false, false], "{field}");
    }
    let inner = outer.column_by_name("inner").unwrap().as_struct();
    assert_eq!(nulls(inner), [true, true, false]);
    assert_eq!(nulls(inner.column(0)), [true, true, false]);
}

#[test]
fn the_case_of_a_oneof_is_the_last_member_seen() {
    let message = super::message(
        r#"syntax = "proto3"; message M { oneof pick { int32 a = 1; string b = 2; } optional int32 o = 3;
           oneof other { int32 c = 4; } M inner = 5; }"#,
    );
    let shape = MessageShape::with(&message, Shaping { oneof_case: true, ..Shaping::default() }).unwrap();
    let names: Vec<&str> = shape.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "o", "c", "inner", "pick__case", "other__case"], "none for `optional`");
    // The case alone: its members are passed over, and told.
    for wanted in [&names[..], &["pick__case"]] {
        let mut decoder = Decoder::of_shape(&shape, wanted, &Selection::All, false).unwrap();
        decoder.push(&[0x08, 1]).unwrap();
        decoder.push(&[0x08, 1, 0x12, 1, b'x']).unwrap();
        decoder.push(&[0x12, 1, b'x', 0x18, 7]).unwrap();
        // Undone: a member, then a broken field.
        decoder.push(&[0x08, 1, 0x12, 9]).unwrap_err();
        decoder.push(&[0x20, 1]).unwrap();
        let batch = decoder.finish().unwrap();
        let case = batch.column_by_name("pick__case").unwrap().as_string::<i32>();
        assert_eq!(case.iter().collect::<Vec<_>>(), [Some("a"), Some("b"), Some("b"), None]);
        if let Some(other) = batch.column_by_name("other__case") {
            assert_eq!(other.as_string::<i32>().iter().collect::<Vec<_>>(), [None, None, None, Some("c")]);
        }
    }
}

#[test]
fn what_is_not_known_is_kept_where_it_is_asked_for() {
    let message = super::message(
        r#"syntax = "proto3"; message In { string s = 1; }
           message M { int32 a = 1; In in = 2; repeated In many = 3; }"#,
    );
    let shape = MessageShape::with(&message, Shaping { unknown_fields: true, ..Shaping::default() }).unwrap();
    let columns = shape.columns();
    let names: Vec<&str> = columns.iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "in", "many", "_unknown"]);
    // A varint, a group with a group in it, a text; the known ones lie between them.
    let unknown: [&[u8]; 3] = [&[0x20, 0x96, 1], &[0x2b, 0x33, 0x08, 1, 0x34, 0x2c], &[0xfa, 7, 2, b'o', b'k']];
    let nested = [&[0x12, 5, 0x0a, 1, b'x'][..], &[0x18, 9], &[0x1a, 2, 0x10, 7, 0x1a, 0, 0x1a, 4, 0x10, 8, 0x10, 9]];
    let record = [unknown[0], &[0x08, 5], unknown[1], nested[0], nested[1], nested[2], unknown[2]].concat();
    for wanted in [&names[..], &["_unknown", "in"], &["_unknown"]] {
        let mut decoder = Decoder::of_shape(&shape, wanted, &Selection::All, true).unwrap();
        decoder.push(&[0x08, 1]).unwrap();
        decoder.push(&record[..record.len() - 1]).unwrap_err();
        decoder.push(&record).unwrap();
        decoder.push_null();
        let batch = decoder.finish().unwrap();
        let kept = |column: &dyn Array| -> Vec<Option<Vec<u8>>> {
            column.as_binary::<i32>().iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect()
        };
        let root = kept(batch.column_by_name("_unknown").unwrap());
        assert_eq!(root, [None, Some([unknown[0], unknown[1], unknown[2]].concat()), None], "{wanted:?}");
        let mut count = 3;
        if let Some(inner) = batch.column_by_name("in") {
            assert_eq!(kept(inner.as_struct().column(1)), [None, Some(vec![0x18, 9]), None]);
            count += 1;
        }
        if let Some(many) = batch.column_by_name("many") {
            let inner = many.as_list::<i32>().values().as_struct().column(1).clone();
            assert_eq!(kept(&inner), [Some(vec![0x10, 7]), None, Some(vec![0x10, 8, 0x10, 9])]);
            count += 3;
        }
        let mut unknown = || decoder.take_oddities().unknown_fields;
        assert_eq!((unknown(), unknown()), (count, 0));
    }
    // Nobody asks for it: nothing is counted.
    let mut decoder = Decoder::of_shape(&shape, &["a"], &Selection::All, true).unwrap();
    decoder.push(&record).unwrap();
    assert_eq!(decoder.take_oddities().unknown_fields, 0);
}

#[test]
fn extensions_are_columns_where_they_are_asked_for() {
    let message = super::message(
        r#"syntax = "proto2"; message M { optional int32 a = 1; extensions 100 to max; optional Only only = 2; }
           message Only { extensions 1 to max; }
           message In { optional string s = 1; extend M { optional In in = 102; } }
           extend M { repeated uint64 counts = 101 [packed = true]; optional string note = 100;
                      optional group Place = 103 { optional int32 x = 1; } }
           extend Only { optional bool there = 7; }"#,
    );
    let plain = MessageShape::of(&message).unwrap();
    assert_eq!(plain.fields.len(), 2);
    let shaping = Shaping { extensions: true, unknown_fields: true, ..Shaping::default() };
    let shape = MessageShape::with(&message, shaping).unwrap();
    let columns = shape.columns();
    let names: Vec<&str> = columns.iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "only", "note", "counts", "In_in", "place", "_unknown"]);
    let mut decoder = Decoder::of_shape(&shape, &names, &Selection::All, false).unwrap();
    // note (100) = "n", counts (101) = [1, 300], in (102) { s = "x" }, place (103) { x = 4 }, only { there }, 104 = 1.
    let record = [
        &[0xa2, 6, 1, b'n', 0xaa, 6, 3, 1, 0xac, 2, 0xb2, 6, 3, 0x0a, 1, b'x'][..],
        &[0xbb, 6, 0x08, 4, 0xbc, 6, 0x12, 2, 0x38, 1, 0xc0, 6, 1],
    ];
    decoder.push(&record.concat()).unwrap();
    let batch = decoder.finish().unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
    let row = text.lines().nth(3).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(cells[2..7], ["{there: true, _unknown: }", "n", "[1, 300]", "{s: x, _unknown: }", "{x: 4, _unknown: }"]);
    assert_eq!(cells[7], "c00601");
}

#[test]
fn well_known_messages_are_also_read_as_groups() {
    let source = r#"edition = "2023"; option features.message_encoding = DELIMITED;
        import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
        import "google/type/date.proto"; import "google/protobuf/struct.proto";
        message M { google.protobuf.Timestamp at = 1; google.protobuf.Int32Value n = 2; google.type.Date day = 3;
          repeated google.protobuf.Timestamp ats = 4; google.protobuf.Value any = 5; int32 last = 6; }"#;
    let texts = [("m".to_string(), source.to_string()), ("google/type/date.proto".to_string(), DATE.to_string())];
    let message = Descriptors::from_texts("m", texts.into()).unwrap().message("M").unwrap();
    let columns = columns(&message).unwrap();
    let names: Vec<&str> = columns.iter().map(|field| field.name().as_str()).collect();
    let mut decoder = Decoder::new(&message, &names, &Selection::All).unwrap();
    let record = [
        &[0x0b, 0x08, 5, 0x0c, 0x13, 0x08, 7, 0x14, 0x1b, 0x08, 0xe8, 0x0f, 0x10, 5, 0x1c][..],
        // The day in two parts, two times, a value, and the field behind them.
        &[0x1b, 0x18, 17, 0x1c, 0x23, 0x08, 1, 0x24, 0x23, 0x24, 0x2b, 0x20, 1, 0x2c, 0x30, 9],
    ]
    .concat();
    decoder.push(&record).unwrap();
    decoder.push(&record[..record.len() - 3]).unwrap_err();
    let batch = decoder.finish().unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
    let cells: Vec<&str> = text.lines().nth(3).unwrap().split('|').map(str::trim).collect();
    assert_eq!(
        cells[1..7],
        ["1970-01-01T00:00:05Z", "7", "2024-05-17", "[1970-01-01T00:00:01Z, 1970-01-01T00:00:00Z]", "true", "9"]
    );
}

/// Each part of a message that comes in many is read once, however many there are.
#[test]
fn a_json_text_of_many_parts_takes_time_as_its_bytes_do() {
    let message = super::message(
        "syntax = \"proto3\"; import \"google/protobuf/struct.proto\"; message M { google.protobuf.Struct s = 3; }",
    );
    let mut decoder = Decoder::new(&message, &["s"], &Selection::All).unwrap();
    let part = [0x1a, 5, 0x0a, 3, 0x0a, 1, b'a'];
    decoder.push(&part.repeat(100_000)).unwrap();
    decoder.push(&part.repeat(3)).unwrap();
    decoder.push(&[&part.repeat(2)[..], &[0x1a, 9]].concat()).unwrap_err();
    decoder.push(&[]).unwrap();
    decoder.push(&part.repeat(2)).unwrap();
    let batch = decoder.finish().unwrap();
    let texts: Vec<_> = batch.column(0).as_string::<i32>().iter().collect();
    let text = Some(r#"{"a":null}"#);
    assert_eq!(texts, [text, text, None, text]);
}

#[test]
fn a_value_of_a_map_that_is_absent_is_an_empty_message() {
    let source = r#"syntax = "proto3"; import "google/protobuf/struct.proto"; import "google/type/date.proto";
        import "google/type/timeofday.proto";
        message M { map<int32, google.protobuf.Struct> a = 1; map<int32, google.protobuf.Value> b = 2;
          map<int32, google.protobuf.ListValue> c = 3; map<int32, google.type.Date> d = 4;
          map<int32, google.type.TimeOfDay> e = 5; }"#;
    let message = Descriptors::from_texts("m", [("m".to_string(), source.to_string())].into()).unwrap();
    let message = message.message("M").unwrap();
    let mut decoder = Decoder::new(&message, &["a", "b", "c", "d", "e"], &Selection::All).unwrap();
    let record: Vec<u8> = (1..=5).flat_map(|field| [field << 3 | 2, 2, 0x08, 7]).collect();
    decoder.push(&record).unwrap();
    let batch = decoder.finish().unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
    let cells: Vec<&str> = text.lines().nth(3).unwrap().split('|').map(str::trim).collect();
    assert_eq!(cells[1..6], ["{7: {}}", "{7: null}", "{7: []}", "{7: }", "{7: 00:00:00}"]);
}

#[test]
fn what_is_odd_is_counted_once() {
    let source = r#"syntax = "proto3"; import "google/type/date.proto"; enum E { ZERO = 0; ONE = 1; }
        message M { repeated E e = 1; google.type.Date day = 2; repeated google.type.Date days = 3; In in = 4; }
        message In { E e = 1; }"#;
    let message = Descriptors::from_texts("m", [("m".to_string(), source.to_string())].into()).unwrap();
    let message = message.message("M").unwrap();
    let mut decoder = Decoder::new(&message, &["e", "day", "days", "in"], &Selection::All).unwrap();
    for _ in 0..2 {
        // e = [1, 7, 8], in { e = 9 }, a day in two parts that is one in the end, two days of which one is none.
        let day = [0x12, 3, 0x08, 0xe8, 0x0f, 0x12, 4, 0x10, 2, 0x18, 29];
        let days = [0x1a, 0, 0x1a, 7, 0x08, 0xe8, 0x0f, 0x10, 2, 0x18, 29];
        let record = [&[0x0a, 3, 1, 7, 8, 0x22, 2, 0x08, 9][..], &day, &days].concat();
        decoder.push(&record).unwrap();
        decoder.push(&[&record[..], &[0x1a, 9]].concat()).unwrap_err();
        decoder.push(&[0x12, 0]).unwrap();
        decoder.finish().unwrap();
        let odd = decoder.take_oddities();
        assert_eq!((odd.nameless_numbers, odd.impossible_dates), (3, 2));
    }
}
