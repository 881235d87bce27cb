//! Rows of a Delta table that another program writes, as clients get them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flumen::gateway::{Subscriber, Tables, plan};
use flumen::schema::Descriptors;
use flumen::storage::Storage;
use flumen::subscribe::HubOptions;
use futures::stream;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::harness::{Client, Running, gateway_of};
use crate::delta::python;

const MESSAGES: &str = r#"syntax = "proto3";
package t;
import "flumen/v1/gateway.proto";
import "google/protobuf/timestamp.proto";
service S {
  rpc Rows(Request) returns (stream Row) { option (flumen.v1.subscribe) = { table: "t" }; }
  rpc Track(stream Sent) returns (stream Row) {
    option (flumen.v1.publish) = { topic: "sent" key: "ad_id" };
    option (flumen.v1.subscribe) = { table: "t" };
  }
  rpc ById(stream Stamped) returns (stream Row) {
    option (flumen.v1.publish) = { topic: "sent" key: "ad_id" };
    option (flumen.v1.subscribe) = { table: "t" };
  }
  rpc Wrong(Request) returns (stream Other) { option (flumen.v1.subscribe) = { table: "t" }; }
}
message Request { repeated string ad_id = 1; string start = 2; string cursor = 3; }
message Row { string ad_id = 1; int64 n = 2; string cursor = 3; bool replaces = 4; string day = 5; }
message Sent { string ad_id = 1; }
message Stamped { string ad_id = 1; string request_id = 2 [(flumen.v1.stamp) = REQUEST_ID]; }
message Other { string gone = 1; }
"#;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    ad_id: Vec<String>,
    #[prost(string, tag = "2")]
    start: String,
    #[prost(string, tag = "3")]
    cursor: String,
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(string, tag = "1")]
    ad_id: String,
    #[prost(int64, tag = "2")]
    n: i64,
    #[prost(string, tag = "3")]
    cursor: String,
    #[prost(bool, tag = "4")]
    replaces: bool,
    #[prost(string, tag = "5")]
    day: String,
}

const WRITER: &str = r#"
import sys, json, shutil
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
table, steps = sys.argv[1], json.loads(sys.argv[2])
for step in steps:
    what = step.pop("what")
    if what == "append" or what == "replace":
        schema = pa.schema([("ad_id", pa.string()), ("n", pa.int64()), ("day", pa.string()), ("request_id", pa.string())])
        data = pa.Table.from_pylist(step["rows"], schema)
        extra = {} if what == "append" else {"mode": "overwrite", "predicate": step["predicate"]}
        write_deltalake(table, data, **({"mode": "append", "partition_by": ["day"]} if what == "append" else extra))
    elif what == "compact":
        print(DeltaTable(table).optimize.compact())
    elif what == "vacuum":
        DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    elif what == "again":
        shutil.rmtree(table)
"#;

/// A table that a Python program writes, and a gateway of it.
struct Scene {
    dir: TempDir,
    running: Running,
}

fn row(ad_id: &str, n: i64, day: &str) -> serde_json::Value {
    serde_json::json!({ "ad_id": ad_id, "n": n, "day": day, "request_id": format!("r-{n}") })
}

fn append(rows: Vec<serde_json::Value>) -> serde_json::Value {
    serde_json::json!({ "what": "append", "rows": rows })
}

fn step(what: &str) -> serde_json::Value {
    serde_json::json!({ "what": what })
}

impl Scene {
    async fn new(options: HubOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let texts = BTreeMap::from([("t.proto".to_owned(), MESSAGES.to_owned())]);
        let descriptors = Descriptors::from_texts("t.proto", texts).unwrap();
        let plan = plan(descriptors.pool()).unwrap();
        let place = |table: &str| dir.path().join(table).to_string_lossy().into_owned();
        let tables = Tables::open(&plan, place, &Storage::new(), &options).unwrap();
        let tables = Arc::new(tables) as Arc<dyn Subscriber>;
        let running = gateway_of(descriptors.pool().clone(), plan, Some(tables), |_| {}).await;
        Self { dir, running }
    }

    async fn write(&self, steps: Vec<serde_json::Value>) {
        let (table, steps) = (self.dir.path().join("t"), serde_json::to_string(&steps).unwrap());
        let write = move || {
            let output = Command::new(python()).args(["-c", WRITER]).arg(&table).arg(steps).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        tokio::task::spawn_blocking(write).await.unwrap();
    }

    async fn rows(&self, request: Request) -> Result<Streaming<Bytes>, Status> {
        let message = Bytes::from(request.encode_to_vec());
        self.client().await.stream("/t.S/Rows", stream::iter([message]), &[]).await
    }

    async fn client(&self) -> Client {
        self.running.client().await
    }

    fn log(&self) -> std::path::PathBuf {
        self.dir.path().join("t/_delta_log")
    }
}

async fn next(rows: &mut Streaming<Bytes>) -> Result<Row, Status> {
    let next = tokio::time::timeout(Duration::from_secs(20), rows.message()).await.expect("no row came");
    Ok(Row::decode(next?.expect("the stream has no end of its own")).unwrap())
}

async fn take(rows: &mut Streaming<Bytes>, count: usize) -> Vec<Row> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next(rows).await.unwrap());
    }
    all
}

fn numbers(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|row| row.n).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_as_they_are_committed_and_go_on_from_a_cursor() {
    let scene = Scene::new(HubOptions::default()).await;
    let absent = scene.rows(Request::default()).await.unwrap_err();
    assert_eq!(absent.code(), Code::Unavailable, "{absent:?}");
    scene.write(vec![append(vec![row("a", 1, "x"), row("b", 2, "x")]), append(vec![row("a", 3, "x")])]).await;

    let earliest = Request { start: "earliest".into(), ..Request::default() };
    let mut all = scene.rows(earliest.clone()).await.unwrap();
    let mut some = scene.rows(Request { ad_id: vec!["b".into(), "c".into()], ..earliest.clone() }).await.unwrap();
    let mut latest = scene.rows(Request::default()).await.unwrap();
    let first = take(&mut all, 3).await;
    assert_eq!(numbers(&first), [1, 2, 3]);
    assert!(first.iter().all(|row| row.day == "x" && !row.replaces), "{first:?}");
    assert_eq!(next(&mut some).await.unwrap().n, 2);

    // What is compacted does not come again; what stands for other rows says so.
    let replace = serde_json::json!({ "what": "replace", "predicate": "day = 'x'", "rows": [row("a", 5, "x")] });
    scene.write(vec![step("compact"), append(vec![row("c", 4, "y")]), replace]).await;
    for rows in [&mut all, &mut latest] {
        let came = take(rows, 2).await;
        let came: Vec<_> = came.iter().map(|row| (row.n, row.replaces, &row.day[..])).collect();
        assert_eq!(came, [(4, false, "y"), (5, true, "x")]);
    }
    assert_eq!(next(&mut some).await.unwrap().n, 4);

    for (at, row) in first.iter().enumerate() {
        let mut behind = scene.rows(Request { cursor: row.cursor.clone(), ..Request::default() }).await.unwrap();
        let expected: Vec<i64> = [1, 2, 3, 4, 5][at + 1..].to_vec();
        assert_eq!(numbers(&take(&mut behind, expected.len()).await), expected);
    }
    let wrong = scene.rows(Request { cursor: "no cursor".into(), ..Request::default() }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong:?}");
    let misfit = scene.client().await.stream("/t.S/Wrong", stream::iter([Bytes::new()]), &[]).await.unwrap_err();
    assert_eq!(misfit.code(), Code::FailedPrecondition);
    assert!(misfit.message().contains("gone"), "{misfit:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_partitions_and_files_without_statistics_are_read() {
    let scene = Scene::new(HubOptions::default()).await;
    let days = ["a b", "100%", "x=1/y", "%41"];
    let rows =
        days.iter().enumerate().flat_map(|(n, day)| [row("a", 2 * n as i64, day), row("a", 2 * n as i64 + 1, day)]);
    scene.write(vec![append(rows.collect())]).await;
    let entry = scene.log().join(format!("{:020}.json", 0));
    let earliest = Request { start: "earliest".into(), ..Request::default() };
    for has_statistics in [true, false] {
        if !has_statistics {
            let without = |line: &str| {
                let mut action: serde_json::Value = serde_json::from_str(line).unwrap();
                if let Some(add) = action.get_mut("add").and_then(serde_json::Value::as_object_mut) {
                    add.remove("stats").unwrap();
                }
                action.to_string() + "\n"
            };
            let lines: String = std::fs::read_to_string(&entry).unwrap().lines().map(without).collect();
            std::fs::write(&entry, lines).unwrap();
        }
        let all = take(&mut scene.rows(earliest.clone()).await.unwrap(), 8).await;
        let mut told: Vec<(i64, &str)> = all.iter().map(|row| (row.n, &row.day[..])).collect();
        told.sort_unstable();
        assert_eq!(told, (0..8).map(|n| (n, days[n as usize / 2])).collect::<Vec<_>>());
        // Each cursor is the place behind its row, wherever in a file that is.
        for (at, row) in all.iter().enumerate().take(7) {
            let mut behind = scene.rows(Request { cursor: row.cursor.clone(), ..Request::default() }).await.unwrap();
            assert_eq!(take(&mut behind, 7 - at).await, all[at + 1..], "statistics: {has_statistics}, row {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_out_of_range_and_another_table_ends_the_subscription() {
    let scene = Scene::new(HubOptions { identity_interval: Duration::from_millis(50), ..HubOptions::default() }).await;
    let steps = (0..4).map(|n| append(vec![row("a", n, "x")])).collect();
    scene.write(steps).await;
    let earliest = Request { start: "earliest".into(), ..Request::default() };
    let mut rows = scene.rows(earliest.clone()).await.unwrap();
    let came = take(&mut rows, 4).await;
    drop(rows);

    // Compacted and vacuumed, the files of the first versions are gone; with the log cleaned up, their entries are too.
    scene.write(vec![step("compact"), step("vacuum")]).await;
    let mut lost = scene.rows(Request { cursor: came[0].cursor.clone(), ..Request::default() }).await.unwrap();
    let status = next(&mut lost).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    for version in 0..2 {
        std::fs::remove_file(scene.log().join(format!("{version:020}.json"))).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let status = scene.rows(Request { cursor: came[0].cursor.clone(), ..Request::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("the oldest version is 2"), "{status:?}");

    let mut open = scene.rows(Request::default()).await.unwrap();
    scene.write(vec![step("again"), append(vec![row("b", 9, "z")])]).await;
    let status = next(&mut open).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let status = scene.rows(Request { cursor: came[3].cursor.clone(), ..Request::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let mut again = scene.rows(earliest).await.unwrap();
    assert_eq!(next(&mut again).await.unwrap().ad_id, "b");
}

/// The id that the gateway stamped on the first record with that ad.
fn stamped(running: &Running, ad: &str) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Stamped {
        #[prost(string, tag = "1")]
        ad_id: String,
        #[prost(string, tag = "2")]
        request_id: String,
    }
    let all = running.records().into_iter().map(|record| Stamped::decode(record.value).unwrap());
    all.into_iter().find(|message| message.ad_id == ad).unwrap().request_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_publishes_gets_the_rows_of_what_it_sent() {
    let scene = Scene::new(HubOptions::default()).await;
    scene.write(vec![append(vec![row("a", 1, "x")])]).await;
    let message = |ad: &str| Bytes::from(Request { ad_id: vec![ad.into()], ..Request::default() }.encode_to_vec());
    let (by_key, sent) = mpsc::channel(10);
    let mut rows = scene.client().await.stream("/t.S/Track", ReceiverStream::new(sent), &[]).await.unwrap();
    let (by_id, sent) = mpsc::channel(10);
    let pairs = [("idempotency-key", "k")];
    let mut own = scene.client().await.stream("/t.S/ById", ReceiverStream::new(sent), &pairs).await.unwrap();
    by_key.send(message("b")).await.unwrap();
    by_id.send(message("c")).await.unwrap();
    scene.running.publisher.has_taken(2).await;

    // The same ad by somebody else is theirs: by the id of the request it can be told, by the key it cannot.
    let id = stamped(&scene.running, "c");
    let mut own_row = row("c", 3, "x");
    own_row["request_id"] = id.clone().into();
    scene.write(vec![append(vec![row("a", 2, "x"), row("b", 2, "x"), row("c", 2, "x"), own_row])]).await;
    assert_eq!(next(&mut rows).await.unwrap().ad_id, "b");
    assert_eq!(next(&mut own).await.unwrap().n, 3);

    // Who lost its stream sends the same again, under the same key, and gets what came meanwhile.
    drop((own, by_id));
    let again = [("idempotency-key", "k"), ("flumen-start", "earliest")];
    let mut own = scene.client().await.stream("/t.S/ById", stream::iter([message("c")]), &again).await.unwrap();
    assert_eq!(next(&mut own).await.unwrap().n, 3);
    assert_eq!(scene.running.records().len(), 2);
    assert!(id.ends_with("-0"), "{id}");
    assert!(Path::new(&scene.log()).is_dir());
}
