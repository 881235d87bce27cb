//! Tables are kept in order beside the micro-batches and by `flumen maintain`, through the real binary.

use std::path::Path;

use prost::Message;
use serde_json::{Value, json};

use crate::ads::impression;
use crate::binary::{Finished, finish, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const FILE: &str = "kept.sql";

fn write(dir: &Path, topic: &str, options: &str) {
    let text = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '10');
         CREATE EXTERNAL TABLE kept (at BIGINT NOT NULL, part BIGINT NOT NULL, ad_id VARCHAR)
         STORED AS DELTA PARTITIONED BY (part) LOCATION 'tables/kept' OPTIONS ({options});
         INSERT INTO kept SELECT _offset, _offset % 2, ad_id FROM ads;"
    );
    std::fs::write(dir.join(FILE), text).unwrap();
}

fn ask(dir: &Path, words: &[&str]) -> Finished {
    finish(&mut Broker::shared().flumen(dir, words))
}

fn produce(topic: &str, ids: std::ops::Range<u64>) {
    let values: Vec<_> = ids.map(|n| impression(n).encode_to_vec()).collect();
    topics::produce(Broker::shared(), topic, 0, &values);
}

/// The offsets in the table, and what it says of itself.
fn offsets(table: &Path) -> (Vec<i64>, i64) {
    let read = delta::read_with_python(table);
    let mut offsets: Vec<i64> = read.rows.iter().map(|row| row["at"].as_i64().unwrap()).collect();
    offsets.sort_unstable();
    (offsets, read.version)
}

fn checkpoints(table: &Path) -> usize {
    let names = std::fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".checkpoint.parquet")).count()
}

#[test]
fn small_files_are_made_one_and_checkpoints_written_beside_the_stream() {
    let topic = topics::new_topic(Broker::shared(), "kept", 1);
    let dir = workspace();
    write(dir.path(), &topic, "'checkpoint_interval' '20', 'max_small_files' '8'");
    produce(&topic, 0..1_000);
    let done = ask(dir.path(), &["-o", "json", "run", FILE, "--available-now"]).exits(0);
    assert_eq!(done.json().len(), 100, "micro-batches");
    let told = done.stderr.lines().find(|line| line.contains("small files made")).expect("it says what it did");
    assert!(told.contains("checkpoint of version"), "{told}");
    let table = dir.path().join("tables/kept");
    let (found, version) = offsets(&table);
    assert_eq!(found, (0..1_000).collect::<Vec<i64>>());
    assert!(version > 100 && checkpoints(&table) >= 1, "version {version}");
    // The rest is for the command, which says the same as JSON.
    produce(&topic, 1_000..1_050);
    ask(dir.path(), &["run", FILE, "--available-now"]).exits(0);
    let done = ask(dir.path(), &["-o", "json", "maintain", FILE]).exits(0).json();
    let (found, now) = offsets(&table);
    assert_eq!(found, (0..1_050).collect::<Vec<i64>>());
    assert_eq!((&done[0]["query"], &done[0]["version"]), (&json!("kept"), &json!(now)));
    assert!(table.join(format!("_delta_log/{now:020}.checkpoint.parquet")).exists(), "{done:?}");
    let again = ask(dir.path(), &["maintain", FILE]).exits(0).stdout;
    assert!(again.contains("nothing to do"), "{again}");
    // Positions are where they were.
    assert_eq!(ask(dir.path(), &["-o", "json", "run", FILE, "--available-now"]).exits(0).json(), Vec::<Value>::new());
}

#[test]
fn a_file_may_leave_it_to_the_command() {
    let topic = topics::new_topic(Broker::shared(), "left", 1);
    let dir = workspace();
    write(dir.path(), &topic, "'maintain' 'off', 'checkpoint_interval' '2', 'max_small_files' '2'");
    produce(&topic, 0..100);
    ask(dir.path(), &["run", FILE, "--available-now"]).exits(0);
    let table = dir.path().join("tables/kept");
    assert_eq!((checkpoints(&table), offsets(&table).1), (0, 10));
    let done = ask(dir.path(), &["-o", "json", "maintain", FILE, "--query", "kept"]).exits(0).json();
    assert_eq!((&done[0]["files_compacted"], &done[0]["files_written"]), (&json!(20), &json!(10)));
    assert_eq!((checkpoints(&table), offsets(&table).0), (1, (0..100).collect::<Vec<i64>>()));
    let unknown = ask(dir.path(), &["maintain", FILE, "--query", "lost"]).exits(2).stderr;
    assert!(unknown.contains("has no query `lost`"), "{unknown}");
}
