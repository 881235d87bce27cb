//! Records that are broken, odd or made to hurt.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};

use super::{message, varint};
use crate::decode::{Decoder, Reason, Selection};
use crate::schema::columns;

const SOURCE: &str = r#"
    syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message M {
      string name = 1;
      int32 count = 2;
      Place placement = 3;
      repeated fixed32 fixed = 4;
      map<string, Place> places = 5;
      google.protobuf.Timestamp at = 6;
      oneof pick { int64 a = 7; Place b = 8; google.protobuf.Timestamp c = 9; }
      google.protobuf.Int64Value wrapped = 10;
      repeated Place list = 11;
      M again = 12;
      map<int32, google.protobuf.Timestamp> times = 13;
      uint64 far = 536870911;
    }
    message Place { int32 slot = 1; string page = 2; }
"#;

fn decoder(source: &str) -> Decoder {
    let message = message(source);
    let fields = columns(&message).unwrap();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    Decoder::new(&message, &names, &Selection::All).unwrap()
}

fn read(payload: &[u8]) -> RecordBatch {
    let mut decoder = decoder(SOURCE);
    decoder.push(payload).unwrap_or_else(|fault| panic!("{fault}"));
    decoder.finish().unwrap()
}

/// `number` with the wire type `wire`, then `value`.
fn field(number: u32, wire: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number << 3 | wire));
    bytes.extend_from_slice(value);
    bytes
}

/// A length-delimited field.
fn sized(number: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = varint(value.len() as u64);
    bytes.extend_from_slice(value);
    field(number, 2, &bytes)
}

#[test]
fn broken_records_say_why_and_where() {
    let nested = sized(3, &sized(1, b"x"));
    let list_of_bad = [sized(11, &[0x08, 1]), sized(11, &sized(2, b"\xff"))].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (nested, "placement.slot: wire type 2 where varint was expected at byte 2"),
        (vec![0x0b; 100_000], "name: wire type 3 where length-delimited was expected at byte 0"),
        ([0x93, 0x03].repeat(50_000), "nested deeper than 100 at byte 0"),
        (sized(3, &[0x93, 0x03].repeat(50_000)), "placement: nested deeper than 100 at byte 4"),
        (
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "name: the message ends within a field at byte 1",
        ),
        (
            vec![0xa2, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "the message ends within a field at byte 0",
        ),
        (
            vec![0x0a, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "name: the message ends within a field at byte 1",
        ),
        (vec![0x10], "count: the message ends within a field at byte 1"),
        (field(2, 0, &[0x80; 10]), "count: a number of more than 64 bits at byte 1"),
        (
            field(2, 0, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]),
            "count: a number of more than 64 bits at byte 1",
        ),
        (field(2, 5, &[0; 4]), "count: wire type 5 where varint was expected at byte 0"),
        (field(1, 0, &[1]), "name: wire type 0 where length-delimited was expected at byte 0"),
        (sized(4, &[1, 2, 3, 4, 5, 6]), "fixed: the message ends within a field at byte 6"),
        (field(4, 0, &[1]), "fixed: wire type 0 where length-delimited was expected at byte 0"),
        (sized(1, b"ab\xff"), "name: a text that is not UTF-8 at byte 1"),
        (list_of_bad, "list.page: a text that is not UTF-8 at byte 7"),
        (vec![0x00, 0x01], "an impossible tag at byte 0"),
        (vec![0x06], "an impossible tag at byte 0"),
        (vec![0x17, 0x01], "an impossible tag at byte 0"),
        (vec![0xf8, 0xff, 0xff, 0xff, 0x7f, 0x01], "an impossible tag at byte 0"),
        (vec![0x0c], "the end of a group that was not begun at byte 0"),
        (field(50, 3, &field(51, 4, &[])), "the end of a group that was not begun at byte 0"),
        (field(50, 3, &[0x10, 1]), "the message ends within a field at byte 0"),
        (sized(6, &field(1, 0, &varint(253_402_300_800))), "at: a time out of range at byte 1"),
        (sized(6, &field(2, 0, &varint(1_000_000_000))), "at: a time out of range at byte 1"),
        (sized(5, &sized(2, &sized(1, b""))), "places.value.slot: wire type 2 where varint was expected at byte 4"),
        (sized(3, &[0x08]), "placement.slot: the message ends within a field at byte 3"),
        (field(536_870_911, 2, &[0]), "far: wire type 2 where varint was expected at byte 0"),
    ];
    let mut decoder = decoder(SOURCE);
    for (payload, want) in &cases {
        let got = decoder.push(payload).map_err(|fault| fault.to_string());
        assert_eq!(got, Err(want.to_string()), "{:02x?}", &payload[..payload.len().min(20)]);
    }
    assert_eq!(decoder.rows(), 0);
    assert_eq!(decoder.finish().unwrap().num_rows(), 0);
}

#[test]
fn a_broken_record_leaves_its_neighbours_alone() {
    let good = [
        sized(1, b"first"),
        sized(11, &[0x08, 1]),
        sized(5, &[sized(1, b"k"), sized(2, &[0x08, 9])].concat()),
        sized(4, &[1, 0, 0, 0]),
        sized(8, &[0x08, 3]),
    ]
    .concat();
    let mut decoder = decoder(SOURCE);
    for _ in 0..3 {
        decoder.push(&good).unwrap();
        // All that the good one has, and then the fault.
        let bad = [&good[..], &good[..], &sized(11, &[0x08])[..]].concat();
        assert_eq!(decoder.push(&bad).unwrap_err().reason, Reason::Truncated);
    }
    let dirty = decoder.finish().unwrap();
    for _ in 0..3 {
        decoder.push(&good).unwrap();
    }
    assert_eq!(dirty, decoder.finish().unwrap());
    assert_eq!(dirty.num_rows(), 3);
}

#[test]
fn unknown_fields_are_passed_over() {
    let mut group = vec![0x0b];
    group.extend([sized(9, b"in the group"), field(3, 1, &[0; 8]), field(4, 5, &[0; 4]), vec![0x13, 0x14]].concat());
    group.push(0x0c);
    let payload = [sized(100, &group), field(101, 1, &[0; 8]), field(2, 0, &[7]), sized(3, &group[1..15])].concat();
    let mut decoder =
        decoder("syntax = \"proto3\"; message M { int32 count = 2; N n = 3; } message N { int32 x = 1; }");
    decoder.push(&[payload, field(60, 3, &[group, field(60, 4, &[])].concat())].concat()).unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int32Type>().value(0), 7);
}

#[test]
fn a_message_that_comes_twice_is_merged() {
    let payload = [
        sized(6, &field(1, 0, &[5])),
        sized(6, &field(2, 0, &varint(7_000))),
        sized(10, &field(1, 0, &[9])),
        sized(10, &[]),
        sized(3, &[0x08, 1]),
        sized(3, &sized(2, b"p")),
        sized(12, &[0x10, 1]),
        sized(12, &[0x10, 2]),
    ]
    .concat();
    let batch = read(&payload);
    assert_eq!(batch["at"].as_primitive::<TimestampMicrosecondType>().value(0), 5_000_007);
    assert_eq!(batch["wrapped"].as_primitive::<Int64Type>().value(0), 9);
    let place = batch["placement"].as_struct();
    assert_eq!(place.column(0).as_primitive::<Int32Type>().value(0), 1);
    assert_eq!(place.column(1).as_string::<i32>().value(0), "p");
    assert_eq!(batch["again"].as_binary::<i32>().value(0), [0x10, 1, 0x10, 2]);
}

#[test]
fn the_last_member_of_a_oneof_wins() {
    let (a, b, c) = (field(7, 0, &[1]), sized(8, &[0x08, 2]), sized(9, &field(1, 0, &[3])));
    for (order, winner) in [([&a, &b, &c], "c"), ([&c, &a, &b], "b"), ([&b, &c, &a], "a")] {
        let batch = read(&order.map(|part| part.clone()).concat());
        for name in ["a", "b", "c"] {
            assert_eq!(batch[name].is_valid(0), name == winner, "{name} of {order:?}");
        }
    }
    // Cleared means gone: what comes again does not merge with what was there before.
    let batch = read(&[sized(9, &field(1, 0, &[3])), a, sized(9, &field(2, 0, &varint(1_000)))].concat());
    assert_eq!(batch["c"].as_primitive::<TimestampMicrosecondType>().value(0), 1);
    // A member that nobody asked for still clears the others.
    let mut only = Decoder::new(&message(SOURCE), &["c"], &Selection::All).unwrap();
    only.push(&[c, b].concat()).unwrap();
    assert!(only.finish().unwrap().column(0).is_null(0));
}

#[test]
fn map_entries_may_lack_either_part_and_the_last_of_a_key_wins() {
    let entry = |key: &str, slot: u8| sized(5, &[sized(1, key.as_bytes()), sized(2, &[0x08, slot])].concat());
    let payload = [
        entry("a", 1),
        sized(5, &sized(1, b"no value")),
        sized(5, &sized(2, &[0x08, 2])),
        entry("a", 3),
        sized(13, &[0x08, 4]),
        sized(13, &[]),
        sized(13, &[]),
    ]
    .concat();
    let batch = read(&payload);
    let places = batch["places"].as_map().value(0);
    let keys: Vec<&str> = places.column(0).as_string::<i32>().iter().flatten().collect();
    let slots = places.column(1).as_struct().column(0).as_primitive::<Int32Type>().values().to_vec();
    assert_eq!(keys.into_iter().zip(slots).collect::<Vec<_>>(), [("no value", 0), ("", 2), ("a", 3)]);
    let times = batch["times"].as_map().value(0);
    assert_eq!(times.column(0).as_primitive::<Int32Type>().values(), &[4, 0]);
    assert_eq!(times.column(1).as_primitive::<TimestampMicrosecondType>().values(), &[0, 0]);
}

#[test]
fn many_equal_keys_are_no_burden() {
    let mut payload = Vec::new();
    for index in 0..50_000u64 {
        payload.extend(sized(13, &[vec![0x08], varint(index % 7)].concat()));
    }
    assert_eq!(read(&payload)["times"].as_map().value(0).len(), 7);
}

#[test]
fn a_record_cannot_blow_up_the_columns() {
    let fields: String = (1..500).map(|n| format!("fixed64 f{n} = {n};")).collect();
    let source = format!("syntax = \"proto3\"; message M {{ repeated W w = 1; }} message W {{ {fields} }}");
    let mut decoder = decoder(&source);
    let payload = [0x0a, 0].repeat(100_000);
    let fault = decoder.push(&payload).unwrap_err();
    assert_eq!((fault.reason, fault.field.as_str()), (Reason::TooLarge, "w"));
    decoder.push(&payload[..20]).unwrap();
    assert_eq!(decoder.finish().unwrap()["w"].as_list::<i32>().value(0).len(), 10);
}

#[test]
fn no_columns_still_count_rows_and_find_broken_records() {
    let mut decoder = Decoder::with_nullable_rows(&message(SOURCE), &[], &Selection::All).unwrap();
    decoder.push(&sized(1, b"x")).unwrap();
    decoder.push_null();
    assert!(decoder.push(&[0x0a, 5, 0]).is_err());
    decoder.push(&[]).unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (3, 0));
}

#[test]
fn a_row_of_nulls_differs_from_a_row_of_defaults() {
    let names = ["name", "count", "fixed", "places", "placement"];
    let mut decoder = Decoder::with_nullable_rows(&message(SOURCE), &names, &Selection::All).unwrap();
    assert!(decoder.schema().fields().iter().all(|field| field.is_nullable()));
    decoder.push(&[]).unwrap();
    decoder.push_null();
    decoder.push(&field(2, 0, &[3])).unwrap();
    let batch = decoder.finish().unwrap();
    for (name, nulls) in names.iter().zip([1, 1, 1, 1, 3]) {
        assert_eq!(batch[*name].null_count(), nulls, "{name}");
    }
    assert!(batch["count"].is_null(1));
    decoder.push(&[]).unwrap();
    assert_eq!(decoder.finish().unwrap()["count"].null_count(), 0);
}

#[test]
fn required_fields_must_be_there_when_they_are_read() {
    let source = r#"
        syntax = "proto2";
        message M { required int32 id = 1; optional N n = 2; repeated N list = 3; map<int32, N> map = 4; }
        message N { required string x = 1; optional int32 y = 2; }
    "#;
    let (id, n) = (field(1, 0, &[1]), sized(1, b"x"));
    let cases = [
        (vec![], Err("id")),
        (id.clone(), Ok(())),
        ([id.clone(), sized(2, &[])].concat(), Err("n.x")),
        ([id.clone(), sized(2, &[]), sized(2, &n)].concat(), Ok(())),
        ([id.clone(), sized(3, &n), sized(3, &[])].concat(), Err("list.x")),
        ([id.clone(), sized(4, &sized(2, &n))].concat(), Ok(())),
        ([id.clone(), sized(4, &[])].concat(), Err("map.x")),
    ];
    let mut whole = decoder(source);
    for (payload, want) in &cases {
        let got = whole.push(payload).map_err(|fault| (fault.reason, fault.field));
        assert_eq!(got, want.map_err(|path| (Reason::Missing, path.to_owned())));
    }
    let mut part = Decoder::new(&message(source), &["n"], &Selection::All).unwrap();
    assert_eq!(part.push(&[]), Ok(()));
}

#[test]
fn a_group_ends_with_its_own_number() {
    let source =
        r#"syntax = "proto2"; message M { optional group G = 5 { optional int32 g = 5; optional int32 h = 6; } }"#;
    let mut decoder = decoder(source);
    let inside = [field(6, 0, &[8]), field(5, 0, &[7])].concat();
    decoder.push(&field(5, 3, &[inside.clone(), field(5, 4, &[])].concat())).unwrap();
    let wrong = decoder.push(&field(5, 3, &[inside.clone(), field(6, 4, &[])].concat())).unwrap_err();
    assert_eq!((wrong.reason, wrong.field.as_str()), (Reason::EndGroup, "g"));
    assert_eq!(decoder.push(&field(5, 3, &inside)).unwrap_err().reason, Reason::Truncated);
    let batch = decoder.finish().unwrap();
    let group = batch["g"].as_struct();
    assert_eq!(group.column(0).as_primitive::<Int32Type>().value(0), 7);
}

#[test]
fn what_is_not_there_is_named() {
    let error = Decoder::new(&message(SOURCE), &["name", "nmae"], &Selection::All).unwrap_err();
    assert!(error.message().contains("M has no field nmae"), "{error}");
}

#[test]
fn bytes_grow_with_what_is_read() {
    let mut decoder = decoder("syntax = \"proto3\"; message M { string a = 1; int64 b = 2; repeated int32 c = 3; }");
    let empty = decoder.bytes();
    decoder.push(&sized(1, &[b'x'; 1000])).unwrap();
    assert_eq!(decoder.bytes() - empty, 4 + 1000 + 8 + 4);
    decoder.push(&sized(3, &[1, 2, 3])).unwrap();
    assert_eq!(decoder.bytes() - empty, 2 * 4 + 1000 + 2 * 8 + 2 * 4 + 3 * 4);
}

/// A number of one byte may stand for a long name: that is told before the columns are full.
#[test]
fn packed_enums_cannot_blow_up_the_columns_either() {
    let name = "N".repeat(200);
    let source = format!("syntax = \"proto3\"; enum E {{ {name} = 0; }} message M {{ repeated E many = 1; }}");
    let message = super::message(&source);
    let mut decoder = Decoder::new(&message, &["many"], &Selection::All).unwrap();
    let packed = |count: u32| {
        let length = [
            count as u8 & 0x7f | 0x80,
            (count >> 7) as u8 & 0x7f | 0x80,
            (count >> 14) as u8 & 0x7f | 0x80,
            (count >> 21) as u8,
        ];
        [&[0x0a][..], &length, &vec![0; count as usize]].concat()
    };
    assert_eq!(decoder.push(&packed(3_000_000)).unwrap_err().reason, Reason::TooLarge);
    decoder.push(&packed(1_000)).unwrap();
    assert_eq!(decoder.finish().unwrap().num_rows(), 1);
}
