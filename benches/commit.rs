//! What a commit costs into tables of different sizes: it should be the same for all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails may stop")]
#![allow(missing_docs, reason = "criterion makes undocumented items")]

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use deltalake::kernel::Add;
use flumen::clock;
use flumen::contract::{Contract, ContractColumn};
use flumen::memory::Memory;
use flumen::pipeline::SinkSpec;
use flumen::sink::{DeltaSink, Owner, SinkCommit};
use flumen::storage::Storage;
use tokio::runtime::Runtime;

const FILES: [usize; 3] = [1, 10_000, 100_000];

fn spec(location: &str) -> SinkSpec {
    let columns = vec![ContractColumn { name: "id".into(), data_type: DataType::Int64, nullable: false }];
    SinkSpec::append("t", location, Contract { columns, checks: vec![] })
}

fn commit(adds: Vec<Add>, offset: i64) -> SinkCommit {
    let txns = vec![(Owner::new("p", "t").position("k", 0), offset)];
    SinkCommit { adds, txns, attempt: clock::system().new_id(), info: serde_json::Map::new() }
}

/// One real data file of the table.
async fn data_file(sink: &DeltaSink) -> Add {
    let ids = Int64Array::from_iter_values(0..1_000);
    let rows = RecordBatch::try_new(sink.schema().clone(), vec![Arc::new(ids)]).expect("rows of the contract");
    let mut writer = sink.writer(&Memory::new(1_000_000_000).expect("memory"));
    writer.write(&rows).await.expect("a write");
    writer.close().await.expect("a file").remove(0)
}

/// A table whose log names `files` files, in a checkpoint.
async fn table(location: &str, files: usize) -> (DeltaSink, Add) {
    let spec = spec(location);
    let owner = Owner::new("p", "t");
    let mut sink = DeltaSink::open(&spec, owner, &Storage::new(), clock::system()).await.expect("an empty place");
    sink.create(commit(vec![], 0)).await.expect("a new table");
    let file = data_file(&sink).await;
    let adds = (0..files).map(|n| Add { path: format!("part-{n}.parquet"), ..file.clone() });
    sink.commit(commit(adds.collect(), 0)).await.expect("a commit");
    let url = url::Url::from_directory_path(location).expect("an absolute path");
    let table = deltalake::open_table(url).await.expect("a table");
    deltalake::checkpoints::create_checkpoint(&table, None).await.expect("a checkpoint");
    // The entry before the measured ones is a small one.
    sink.commit(commit(vec![], 0)).await.expect("a commit");
    (sink, file)
}

fn commits(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("commit");
    for files in FILES {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut sink, file) = runtime.block_on(table(dir.path().to_str().expect("a UTF-8 path"), files));
        // Before the appends: they leave thousands of versions behind.
        let (spec, storage) = (sink.spec().clone(), Storage::new());
        group.bench_function(BenchmarkId::new("open", files), |b| {
            b.iter(|| {
                let owner = Owner::new("p", "t");
                let open = DeltaSink::open(&spec, owner, &storage, clock::system());
                runtime.block_on(open).expect("a table").version()
            });
        });
        let mut offset = 0;
        group.bench_function(BenchmarkId::new("append", files), |b| {
            b.iter(|| {
                offset += 1;
                let add = Add { path: format!("more-{offset}.parquet"), ..file.clone() };
                runtime.block_on(sink.commit(commit(vec![add], offset))).expect("a commit")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
