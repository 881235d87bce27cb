//! `flumen.memory_limit`: whatever a topic holds, the whole process keeps to it, give or take a fifth.
//!
//! `scripts/memory` runs the same with a backlog of five million records.

use std::path::Path;
use std::process::Command;

use prost::Message;

use crate::ads::impression;
use crate::binary::{Finished, finish, flumen, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const LIMIT_MB: u64 = 300;
/// Runs a command and tells its peak memory, in kB, on a last line of its stderr.
const MEASURED: &str = r#"
import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[derive(Message)]
struct Blob {
    #[prost(string, tag = "1")]
    ad_id: String,
    #[prost(string, tag = "2")]
    body: String,
}

const BLOB: &str = "syntax = \"proto3\"; package t; message Blob { string ad_id = 1; string body = 2; }";

/// Runs the file to the end of its topics within the limit; `rows` are in the table `out` then, each once.
fn run_within_limit(root: &Path, sql: &str, rows: u64) -> Finished {
    std::fs::write(root.join("job.sql"), sql).unwrap();
    let limit = format!("flumen.memory_limit={LIMIT_MB} MB");
    let run = flumen(root, ["-o", "json", "run", "job.sql", "--available-now", "--set", &limit]);
    let python = std::env::var("FLUMEN_PYTHON").expect("run the tests with scripts/test");
    let mut measured = Command::new(python);
    measured.args(["-c", MEASURED]).arg(run.get_program()).args(run.get_args());
    measured.env("KAFKA_BROKERS", Broker::shared().address());
    let done = finish(&mut measured).exits(0);
    let peak: u64 = done.stderr.lines().last().unwrap().parse().unwrap();
    assert!(peak < LIMIT_MB * 1200, "{peak} kB at the peak, with a limit of {LIMIT_MB} MB\n{}", done.stderr);
    let infos = delta::commit_infos(&root.join("out"));
    infos.iter().for_each(delta::check_conservation);
    assert_eq!(infos.iter().map(|info| info["rows"]["written"].as_u64().unwrap()).sum::<u64>(), rows);
    done
}

fn ads(topic: &str, options: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression'{options});"
    )
}

/// The topic of [`Blob`]s as a table of the file in `root`.
fn blobs(root: &Path, topic: &str) -> String {
    std::fs::write(root.join("blob.proto"), BLOB).unwrap();
    format!(
        "CREATE EXTERNAL TABLE blobs STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'blob.proto', 'value.message' 't.Blob');"
    )
}

#[test]
fn a_backlog_is_read_within_the_limit() {
    let records: u64 = match std::env::var("FLUMEN_MEMORY").as_deref() {
        Ok("whole") => 5_000_000,
        _ => 400_000,
    };
    let (broker, place) = (Broker::shared(), workspace());
    let topic = topics::new_topic(broker, "backlog", 2);
    let values: Vec<_> = (0..100_000).map(|n| impression(n).encode_to_vec()).collect();
    for part in 0..records / 100_000 {
        topics::produce(broker, &topic, (part % 2) as i32, &values);
    }
    let sql = ads(&topic, ", 'max_rows' '5000000'")
        + "CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';
           CREATE EXTERNAL TABLE out (minute VARCHAR, at BIGINT, ad_id VARCHAR, user_id VARCHAR, category VARCHAR)
           STORED AS DELTA PARTITIONED BY (minute) LOCATION 'out';
           INSERT INTO out SELECT CAST(_offset % 300 AS VARCHAR), _offset, i.ad_id, i.user_id, c.category
           FROM ads i LEFT JOIN content_with_categories c ON i.ad_id = c.ad_id;";
    run_within_limit(place.path(), &sql, records);
}

#[test]
fn records_of_ten_megabytes_are_read_within_the_limit() {
    const RECORDS: u64 = 40;
    let (broker, place) = (Broker::shared(), workspace());
    let topic = topics::new_topic(broker, "wide", 2);
    // Text that does not get smaller when it is packed.
    let mut chance = crate::chance::Chance::new(7);
    let body: String = (0..10_000_000).map(|_| char::from(b'0' + chance.below(75) as u8)).collect();
    for n in 0..RECORDS {
        let blob = Blob { ad_id: format!("ad-{n:05}"), body: body.clone() };
        topics::produce(broker, &topic, (n % 2) as i32, &[blob.encode_to_vec()]);
    }
    let sql = blobs(place.path(), &topic)
        + "CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';
           CREATE EXTERNAL TABLE out (ad_id VARCHAR, category VARCHAR, body VARCHAR) STORED AS DELTA LOCATION 'out';
           INSERT INTO out SELECT b.ad_id, c.category, b.body
           FROM blobs b JOIN content_with_categories c ON b.ad_id = c.ad_id;";
    let done = run_within_limit(place.path(), &sql, RECORDS);
    assert!(done.stderr.contains("the micro-batch is planned anew for records of up to 14.3 MiB"), "{}", done.stderr);
}

#[test]
fn a_join_that_fans_out_a_thousandfold_is_run_within_the_limit() {
    const RECORDS: u64 = 2_000;
    let (broker, place) = (Broker::shared(), workspace());
    let topic = topics::new_topic(broker, "fan", 2);
    let values: Vec<_> = (0..RECORDS).map(|n| impression(n).encode_to_vec()).collect();
    topics::produce(broker, &topic, 0, &values);
    let variants: String = (0..1_000).map(|n| format!("0,variant {n}\n")).collect();
    std::fs::write(place.path().join("variants.csv"), format!("one,name\n{variants}")).unwrap();
    let sql = ads(&topic, "")
        + "CREATE EXTERNAL TABLE variants STORED AS CSV LOCATION 'variants.csv';
           CREATE EXTERNAL TABLE out (ad_id VARCHAR, context_id VARCHAR, name VARCHAR) STORED AS DELTA LOCATION 'out';
           INSERT INTO out SELECT i.ad_id, i.context_id, v.name FROM ads i JOIN variants v ON i._partition = v.one;";
    run_within_limit(place.path(), &sql, RECORDS * 1_000);
}

#[test]
fn a_micro_batch_that_does_not_fit_is_halved() {
    const RECORDS: u64 = 120_000;
    let (broker, place) = (Broker::shared(), workspace());
    let topic = topics::new_topic(broker, "halved", 1);
    let body = "b".repeat(600);
    let blob = |n: u64| Blob { ad_id: format!("ad-{n:05}"), body: body.clone() }.encode_to_vec();
    topics::produce(broker, &topic, 0, &(0..RECORDS).map(blob).collect::<Vec<_>>());
    // The lookup does not fit twice. So the join holds what the micro-batch reads in the end, beside the lookup.
    let sql = blobs(place.path(), &topic)
        + "CREATE EXTERNAL TABLE names STORED AS CSV LOCATION 'names.csv';
           CREATE EXTERNAL TABLE out (ad_id VARCHAR, name VARCHAR, body VARCHAR) STORED AS DELTA LOCATION 'out';
           INSERT INTO out SELECT b.ad_id, n.name, b.body FROM blobs b LEFT JOIN names n ON b.ad_id = n.ad_id;";
    let names: String = (0..400_000).map(|n| format!("ad-{n:05},{n:250}\n")).collect();
    std::fs::write(place.path().join("names.csv"), format!("ad_id,name\n{names}")).unwrap();
    let done = run_within_limit(place.path(), &sql, RECORDS);
    assert!(done.stderr.contains("the micro-batch is halved, to 25000 records"), "{}", done.stderr);
    assert!(done.stderr.contains("joins keep lookups as hash tables no longer"), "{}", done.stderr);
    let batches = done.json();
    assert!(batches.len() > 2, "{} micro-batches", batches.len());
}
