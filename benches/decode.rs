//! Protobuf to Arrow: records a second, for three shapes of record.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails may stop")]
#![allow(missing_docs, reason = "criterion makes undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flumen::decode::{Decoder, Selection};
use flumen::schema::{Descriptors, columns};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value};

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

fn run(criterion: &mut Criterion, name: &str, message: &MessageDescriptor, columns: &[&str], records: &[Vec<u8>]) {
    let bytes: usize = records.iter().map(Vec::len).sum();
    let mut decoder = Decoder::new(message, columns, &Selection::All).expect("the columns are fields");
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function(format!("{name} of {} B", bytes / records.len()), |bencher| {
        bencher.iter(|| {
            for record in records {
                decoder.push(black_box(record)).expect("the records are whole");
            }
            decoder.finish().expect("the batch is small")
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let descriptors = descriptors();
    for (name, record) in [("Flat", flat as fn(&MessageDescriptor, usize) -> Vec<u8>), ("Nested", nested)] {
        let message = descriptors.message(&format!("bench.{name}")).expect("the file has that message");
        let records: Vec<Vec<u8>> = (0..ROWS).map(|index| record(&message, index)).collect();
        let fields = columns(&message).expect("the message is small");
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        run(criterion, name, &message, &names, &records);
        if name == "Flat" {
            run(criterion, "3 of 12", &message, &["ad_id", "impressed_at", "bid"], &records);
        }
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
