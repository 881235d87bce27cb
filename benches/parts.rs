//! The parts of the reference job one by one, for `scripts/bench-check`, which counts their instructions:
//! `parts PART ROUNDS` does a part so often that two runs of different length tell what one round costs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails may stop")]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use flumen::clock;
use flumen::contract::{Contract, ContractColumn};
use flumen::decode::{Decoder, Selection};
use flumen::memory::Memory;
use flumen::model;
use flumen::pipeline::SinkSpec;
use flumen::schema::Descriptors;
use flumen::sink::{DeltaSink, Owner, SinkCommit};
use flumen::storage::Storage;
use futures::StreamExt;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tokio::runtime::{Builder, Runtime};

/// The rows of a round; commits are one a round.
const ROWS: usize = 8192;
/// The rows of the lookup.
const ADS: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, rounds] = arguments.as_slice() else {
        // `cargo bench` calls every benchmark; this one is for scripts/bench-check.
        return;
    };
    let rounds = rounds.parse().expect("the number of rounds");
    // One thread: what is counted is always the same.
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    match part.as_str() {
        "decode" => decode(rounds),
        "join" => join(&runtime, rounds),
        "score" => score(rounds),
        "write" => write(&runtime, rounds),
        "commit" => commit(&runtime, rounds),
        other => panic!("no part is called {other}"),
    }
}

fn impression(message: &MessageDescriptor, index: usize) -> Vec<u8> {
    let mut record = DynamicMessage::new(message.clone());
    let mut set = |name: &str, value: Value| record.set_field_by_name(name, value);
    set("ad_id", Value::String(format!("ad-{:05}", index * 31 % (ADS * 6 / 5))));
    set("context_id", Value::String(format!("context-{:016x}", index * 0x9e37_79b9)));
    set("user_id", Value::String(format!("user-{:010}", index * 97 % 200_000)));
    set("session_id", Value::String(format!("session-{:016x}", index * 0x85eb_ca6b)));
    set("bid", Value::F64(index as f64 / 1000.0));
    let Value::Message(mut at) = record.get_field_by_name("impressed_at").expect("a field").into_owned() else {
        panic!("impressed_at is a message")
    };
    at.set_field_by_name("seconds", Value::I64(1_795_132_800 + index as i64));
    at.set_field_by_name("nanos", Value::I32((index % 1000) as i32 * 1_000_000));
    record.set_field_by_name("impressed_at", Value::Message(at));
    record.encode_to_vec()
}

/// The columns that the reference job reads.
fn decode(rounds: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = Descriptors::compile(&[root.join("proto/ads/v1/ads.proto")], &[]).expect("a .proto file");
    let message = descriptors.message("ads.v1.AdImpression").expect("the message");
    let records: Vec<Vec<u8>> = (0..ROWS).map(|index| impression(&message, index)).collect();
    let columns = ["ad_id", "user_id", "impressed_at", "bid"];
    let mut decoder = Decoder::new(&message, &columns, &Selection::All).expect("its fields");
    for _ in 0..rounds {
        records.iter().for_each(|record| decoder.push(record).expect("a whole record"));
        assert_eq!(decoder.finish().expect("a batch").num_rows(), ROWS);
    }
}

fn ads(rows: usize, step: usize, of: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("ad-{:05}", row * step % of))))
}

fn numbers(rows: usize) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64 / 7.0)))
}

fn memory_table(columns: Vec<(&str, ArrayRef)>, times: usize) -> Arc<MemTable> {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch; times]]).expect("a table"))
}

/// 83 % of the rows find an ad.
fn join(runtime: &Runtime, rounds: usize) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let lookup = vec![("ad_id", ads(ADS, 1, ADS)), ("rank", numbers(ADS)), ("price", numbers(ADS))];
    let rows = vec![("ad_id", ads(ROWS, 31, ADS * 6 / 5)), ("user_id", ads(ROWS, 7, 5000)), ("bid", numbers(ROWS))];
    context.register_table("contents", memory_table(lookup, 1)).expect("a table");
    context.register_table("impressions", memory_table(rows, rounds)).expect("a table");
    let sql = "SELECT i.user_id, i.bid, c.rank, c.price FROM impressions i JOIN contents c ON i.ad_id = c.ad_id";
    let found = runtime.block_on(async {
        let mut stream = context.sql(sql).await.expect("a query").execute_stream().await.expect("a plan");
        let mut found = 0;
        while let Some(batch) = stream.next().await {
            found += batch.expect("rows").num_rows();
        }
        found
    });
    assert!(found * 10 > rounds * ROWS * 8, "{found}");
}

fn score(rounds: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/data/click_probability.json");
    let model = model::load("click_probability", model::Language::Xgboost, &path, None).expect("a model");
    let column = |step: usize| (0..ROWS).map(|row| (row * step % 997) as f64 / 9.0).collect::<Vec<f64>>();
    let columns: Vec<Vec<f64>> = (0..model.about().features.len()).map(|feature| column(31 + 26 * feature)).collect();
    let columns: Vec<_> = columns.iter().map(|column| model::Column::Numbers(column)).collect();
    for _ in 0..rounds {
        std::hint::black_box(model.score(&columns, ROWS).expect("scores"));
    }
}

fn open(runtime: &Runtime, location: &Path) -> DeltaSink {
    let column = |name: &str, data_type| ContractColumn { name: name.into(), data_type, nullable: false };
    let timestamp = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let columns = vec![
        column("ad_id", DataType::Utf8),
        column("user_id", DataType::Utf8),
        column("category", DataType::Utf8),
        column("impressed_at", timestamp),
        column("score", DataType::Float64),
    ];
    let spec = SinkSpec::append("t", location.to_str().expect("UTF-8"), Contract { columns, checks: vec![] });
    runtime.block_on(async {
        let (owner, storage) = (Owner::new("p", "t"), Storage::new());
        let mut sink = DeltaSink::open(&spec, owner, &storage, clock::system()).await.expect("an empty place");
        sink.create(nothing(0)).await.expect("a new table");
        sink
    })
}

fn nothing(offset: i64) -> SinkCommit {
    let txns = vec![(Owner::new("p", "t").position("k", 0), offset)];
    SinkCommit { adds: vec![], txns, attempt: clock::system().new_id(), info: serde_json::Map::new() }
}

fn scored(sink: &DeltaSink) -> RecordBatch {
    let categories = (0..ROWS).map(|row| ["sport", "news", "music", "games"][row * 31 % 4]);
    let at = TimestampMicrosecondArray::from_iter_values((0..ROWS as i64).map(|row| 1_795_132_800_000_000 + row * 977));
    let columns: Vec<ArrayRef> = vec![
        ads(ROWS, 31, ADS),
        ads(ROWS, 97, 99_991),
        Arc::new(StringArray::from_iter_values(categories)),
        Arc::new(at.with_timezone("UTC")),
        numbers(ROWS),
    ];
    RecordBatch::try_new(sink.schema().clone(), columns).expect("rows of the contract")
}

fn write(runtime: &Runtime, rounds: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let sink = open(runtime, dir.path());
    let rows = scored(&sink);
    let mut writer = sink.writer(&Memory::new(1_000_000_000).expect("memory"));
    runtime.block_on(async {
        for _ in 0..rounds {
            writer.write(&rows).await.expect("a write");
        }
        assert_eq!(writer.close().await.expect("a file").len(), 1);
    });
}

fn commit(runtime: &Runtime, rounds: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut sink = open(runtime, dir.path());
    runtime.block_on(async {
        let mut writer = sink.writer(&Memory::new(1_000_000_000).expect("memory"));
        writer.write(&scored(&sink)).await.expect("a write");
        let file = writer.close().await.expect("a file").remove(0);
        for round in 0..rounds {
            let mut add = file.clone();
            add.path = format!("part-{round}.parquet");
            let commit = SinkCommit { adds: vec![add], ..nothing(round as i64 + 1) };
            sink.commit(commit).await.expect("a commit");
        }
    });
}
