//! Protobuf to Arrow: records a second, for three shapes of record, beside ptars-core (to Arrow too), prost's generated
//! structs and prost-reflect's messages (which make no Arrow).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails may stop")]
#![allow(missing_docs, reason = "criterion makes undocumented items")]

use std::hint::black_box;

use arrow::array::BinaryArray;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flumen::decode::{Decoder, Selection};
use flumen::schema::{Descriptors, columns};
use prost::Message;
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value};
use ptars_core::config::PtarsConfig;
use ptars_core::proto_to_arrow::binary_array_to_record_batch_direct;

/// The records of a batch.
const ROWS: usize = 8192;

const SOURCE: &str = r#"
syntax = "proto3";
package bench;
import "google/protobuf/timestamp.proto";

message Flat {
  string ad_id = 1; string context_id = 2; string user_id = 3; string session_id = 4;
  int64 impressed_at = 5; int32 slot = 6; double bid = 7; bool clicked = 8;
  string country = 9; string device = 10; uint32 width = 11; string page = 12;
}

message Nested {
  string ad_id = 1; string context_id = 2; string user_id = 3;
  google.protobuf.Timestamp impressed_at = 4;
  Placement placement = 5;
  repeated string labels = 6;
  map<string, string> attributes = 7;
  repeated int32 scores = 8;
  double bid = 9;
}

message Placement { string page = 1; int32 slot = 2; Size size = 3; }
message Size { int32 width = 1; int32 height = 2; }
"#;

fn descriptors() -> Descriptors {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.proto");
    std::fs::write(&path, SOURCE).expect("the target directory is writable");
    Descriptors::compile(&[path], &[]).expect("the text is protobuf")
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

/// 12 fields, about 155 bytes.
fn flat(message: &MessageDescriptor, index: usize) -> Vec<u8> {
    let mut record = DynamicMessage::new(message.clone());
    let mut set = |name: &str, value: Value| record.set_field_by_name(name, value);
    set("ad_id", text(format!("ad-{index:08}-{:04}", index % 977)));
    set("context_id", text(format!("context-{:08}", index % 10_000)));
    set("user_id", text(format!("user-{:012}", index * 7919)));
    set("session_id", text(format!("session-{:016x}", index * 104_729)));
    set("impressed_at", Value::I64(1_760_000_000_000_000 + index as i64 * 1_003));
    set("slot", Value::I32((index % 300) as i32));
    set("bid", Value::F64(index as f64 / 1_000.0));
    set("clicked", Value::Bool(index.is_multiple_of(3)));
    set("country", text(["DE", "FR", "US", "JP"][index % 4]));
    set("device", text(["phone", "tablet", "desktop"][index % 3]));
    set("width", Value::U32(320 + (index % 1_600) as u32));
    set("page", text(format!("/section/{:04}/page/{:06}/index.html", index % 500, index)));
    record.encode_to_vec()
}

/// Nested messages, lists and a map, about 223 bytes.
fn nested(message: &MessageDescriptor, index: usize) -> Vec<u8> {
    let new = |name: &str| {
        let field = message.parent_pool().get_message_by_name(name);
        DynamicMessage::new(field.expect("the file has that message"))
    };
    let mut time = new("google.protobuf.Timestamp");
    time.set_field_by_name("seconds", Value::I64(1_760_000_000 + index as i64));
    time.set_field_by_name("nanos", Value::I32((index % 1_000) as i32 * 1_000_000));
    let mut size = new("bench.Size");
    size.set_field_by_name("width", Value::I32(320 + (index % 1_600) as i32));
    size.set_field_by_name("height", Value::I32(50 + (index % 500) as i32));
    let mut placement = new("bench.Placement");
    placement.set_field_by_name("page", text(format!("/section/{:04}/page/{:06}/article", index % 500, index)));
    placement.set_field_by_name("slot", Value::I32((index % 300) as i32));
    placement.set_field_by_name("size", Value::Message(size));
    let pairs = [("browser", "firefox"), ("os", "linux"), ("language", "de")];
    let attributes = pairs.map(|(key, value)| (MapKey::String(key.to_owned()), text(value)));
    let mut record = DynamicMessage::new(message.clone());
    let mut set = |name: &str, value: Value| record.set_field_by_name(name, value);
    set("ad_id", text(format!("ad-{index:08}-{:04}", index % 977)));
    set("context_id", text(format!("context-{:08}", index % 10_000)));
    set("user_id", text(format!("user-{:012}", index * 7919)));
    set("impressed_at", Value::Message(time));
    set("placement", Value::Message(placement));
    set("labels", Value::List(["sports", "autumn-sale", "above-the-fold"].map(text).to_vec()));
    set("attributes", Value::Map(attributes.into_iter().collect()));
    set("scores", Value::List((0..6).map(|at| Value::I32((index * at % 1_000) as i32)).collect()));
    set("bid", Value::F64(index as f64 / 1_000.0));
    record.encode_to_vec()
}

/// The same messages as `protoc`'s kin for Rust would generate them.
mod generated {
    use std::collections::HashMap;

    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Flat {
        #[prost(string, tag = "1")]
        pub ad_id: String,
        #[prost(string, tag = "2")]
        pub context_id: String,
        #[prost(string, tag = "3")]
        pub user_id: String,
        #[prost(string, tag = "4")]
        pub session_id: String,
        #[prost(int64, tag = "5")]
        pub impressed_at: i64,
        #[prost(int32, tag = "6")]
        pub slot: i32,
        #[prost(double, tag = "7")]
        pub bid: f64,
        #[prost(bool, tag = "8")]
        pub clicked: bool,
        #[prost(string, tag = "9")]
        pub country: String,
        #[prost(string, tag = "10")]
        pub device: String,
        #[prost(uint32, tag = "11")]
        pub width: u32,
        #[prost(string, tag = "12")]
        pub page: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Nested {
        #[prost(string, tag = "1")]
        pub ad_id: String,
        #[prost(string, tag = "2")]
        pub context_id: String,
        #[prost(string, tag = "3")]
        pub user_id: String,
        #[prost(message, optional, tag = "4")]
        pub impressed_at: Option<Timestamp>,
        #[prost(message, optional, tag = "5")]
        pub placement: Option<Placement>,
        #[prost(string, repeated, tag = "6")]
        pub labels: Vec<String>,
        #[prost(map = "string, string", tag = "7")]
        pub attributes: HashMap<String, String>,
        #[prost(int32, repeated, tag = "8")]
        pub scores: Vec<i32>,
        #[prost(double, tag = "9")]
        pub bid: f64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Placement {
        #[prost(string, tag = "1")]
        pub page: String,
        #[prost(int32, tag = "2")]
        pub slot: i32,
        #[prost(message, optional, tag = "3")]
        pub size: Option<Size>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Size {
        #[prost(int32, tag = "1")]
        pub width: i32,
        #[prost(int32, tag = "2")]
        pub height: i32,
    }
}

/// One shape of records, read by us and by others. Ours and ptars make Arrow arrays; the other two only messages.
struct Case<'a> {
    name: String,
    message: &'a MessageDescriptor,
    columns: Vec<&'a str>,
    records: &'a [Vec<u8>],
    generated: fn(&[u8]) -> bool,
}

/// With `FLUMEN_COUNT=READER:ROUNDS` that reader reads each batch so often and nothing is timed: for valgrind, which
/// counts instructions (`scripts/count-decode`).
fn count(case: &Case<'_>, wish: &str) {
    let (reader, rounds) = wish.split_once(':').expect("READER:ROUNDS");
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let mut decoder = Decoder::new(case.message, &case.columns, &Selection::All).expect("the columns are fields");
    let binary = BinaryArray::from_iter_values(case.records);
    for _ in 0..rounds {
        match reader {
            "flumen" => {
                case.records.iter().for_each(|record| decoder.push(black_box(record)).expect("whole records"));
                black_box(decoder.finish().expect("the batch is small"));
            }
            "ptars" => drop(black_box(
                binary_array_to_record_batch_direct(&binary, case.message, &PtarsConfig::new()).expect("whole records"),
            )),
            "prost" => assert!(case.records.iter().all(|record| (case.generated)(black_box(record)))),
            other => panic!("no reader is called {other}"),
        }
    }
}

fn run(criterion: &mut Criterion, case: &Case<'_>, others: bool) {
    if let Ok(wish) = std::env::var("FLUMEN_COUNT") {
        if std::env::var("FLUMEN_COUNT_CASE").is_ok_and(|name| case.name.starts_with(&name)) {
            count(case, &wish);
        }
        return;
    }
    let mut decoder = Decoder::new(case.message, &case.columns, &Selection::All).expect("the columns are fields");
    let mut group = criterion.benchmark_group(&case.name);
    group.throughput(Throughput::Elements(case.records.len() as u64));
    group.bench_function("flumen", |bencher| {
        bencher.iter(|| {
            for record in case.records {
                decoder.push(black_box(record)).expect("the records are whole");
            }
            decoder.finish().expect("the batch is small")
        });
    });
    if others {
        let binary = BinaryArray::from_iter_values(case.records);
        let config = PtarsConfig::new();
        group.bench_function("ptars", |bencher| {
            bencher.iter(|| {
                binary_array_to_record_batch_direct(black_box(&binary), case.message, &config).expect("whole records")
            });
        });
        group.bench_function("prost-generated struct", |bencher| {
            bencher.iter(|| case.records.iter().all(|record| (case.generated)(black_box(record))));
        });
        group.bench_function("prost-reflect message", |bencher| {
            bencher.iter(|| {
                case.records.iter().for_each(|record| {
                    let read = DynamicMessage::decode(case.message.clone(), black_box(record.as_slice()));
                    black_box(read.expect("whole records"));
                });
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let descriptors = descriptors();
    type Record = fn(&MessageDescriptor, usize) -> Vec<u8>;
    type Generated = fn(&[u8]) -> bool;
    let flat_struct: Generated = |bytes| black_box(generated::Flat::decode(bytes)).is_ok();
    let nested_struct: Generated = |bytes| black_box(generated::Nested::decode(bytes)).is_ok();
    for (name, record, generated) in
        [("Flat", flat as Record, flat_struct), ("Nested", nested as Record, nested_struct)]
    {
        let message = descriptors.message(&format!("bench.{name}")).expect("the file has that message");
        let records: Vec<Vec<u8>> = (0..ROWS).map(|index| record(&message, index)).collect();
        let size = records.iter().map(Vec::len).sum::<usize>() / ROWS;
        let fields = columns(&message).expect("the message is small");
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        let case = |name: String, columns| Case { name, message: &message, columns, records: &records, generated };
        run(criterion, &case(format!("{name} of {size} B"), names), true);
        if name == "Flat" {
            let few = vec!["ad_id", "impressed_at", "bid"];
            run(criterion, &case(format!("3 of 12 of {size} B"), few), false);
        }
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
