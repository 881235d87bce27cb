//! The main job through the real binary on a real broker: scored rows, resumed runs, and every way in which it refuses.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use prost::Message;
use serde_json::Value;

use crate::ads::{impression, impressions};
use crate::binary::{Background, finish, flumen, until, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const FILE: &str = "queries/score_impressions.sql";
const SINK: &str = "tables/scored_impressions";

/// The shipped pipeline over a topic of this test's own.
struct Job {
    dir: tempfile::TempDir,
    topic: String,
}

impl Job {
    fn new(name: &str, partitions: i32) -> Self {
        let topic = topics::new_topic(Broker::shared(), name, partitions);
        let dir = workspace();
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("/ad-impressions'"));
        std::fs::write(&path, text.replace("/ad-impressions'", &format!("/{topic}'"))).unwrap();
        Self { dir, topic }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn sink(&self) -> std::path::PathBuf {
        self.root().join(SINK)
    }

    fn produce(&self, partition: i32, values: &[Vec<u8>]) {
        topics::produce(Broker::shared(), &self.topic, partition, values);
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.root().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {file}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    fn run(&self, more: &[&str]) -> Command {
        let mut args = vec!["-o", "json", "run", FILE];
        args.extend(more);
        Broker::shared().flumen(self.root(), args)
    }

    fn available_now(&self, more: &[&str]) -> crate::binary::Finished {
        let mut args = vec!["--available-now"];
        args.extend(more);
        finish(&mut self.run(&args))
    }
}

fn position(job: &Job, partition: i32) -> Option<i64> {
    let id = format!("flumen:score_impressions:scored_impressions:{}:{partition}", job.topic);
    delta::txns(&job.sink()).get(&id).copied()
}

#[test]
fn scored_rows_as_python_reads_them() {
    let job = Job::new("scored", 2);
    job.produce(0, &impressions(0..3_000));
    job.produce(1, &impressions(9_500..10_500));
    let progress = job.available_now(&["--set", "flumen.max_rows=1500"]).exits(0).json();
    let read: u64 = progress.iter().map(|p| p["numInputRows"].as_u64().unwrap()).sum();
    assert_eq!(read, 4_000);
    assert_eq!(progress.last().unwrap()["lag"], 0);

    let table = delta::read_with_python(&job.sink());
    assert_eq!(table.version as usize, progress.len(), "the first version holds positions only");
    assert_eq!(table.rows.len(), 3_500);
    assert_eq!(table.partitions, ["day"]);
    assert_eq!(table.columns["score"], "double");
    assert_eq!(table.columns["impressed_at"], "timestamp[us, tz=UTC]");
    assert_eq!(table.columns["day"], "date32[day]");
    let ads: BTreeSet<&str> = table.rows.iter().map(|row| row["ad_id"].as_str().unwrap()).collect();
    assert_eq!(ads.len(), 3_500);
    for row in &table.rows {
        let score = row["score"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&score), "{row:?}");
    }
    let scores: BTreeSet<String> = table.rows.iter().map(|row| row["score"].to_string()).collect();
    assert!(scores.len() > 100, "the model scores by its features, {} different scores", scores.len());
    assert_eq!((position(&job, 0), position(&job, 1)), (Some(3_000), Some(1_000)));
    laws_hold(&delta::commit_infos(&job.sink()), 4_000, 3_500);
}

fn laws_hold(infos: &[Value], read: u64, written: u64) {
    let sum = |of: &str, key: &str| infos.iter().map(|i| i[of][key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("records", "read"), read);
    assert_eq!(sum("rows", "written"), written);
    for info in infos {
        let number = |of: &str, key: &str| info[of][key].as_u64().unwrap();
        let records = number("records", "decoded") + number("records", "dead") + number("records", "null");
        assert_eq!(number("records", "read"), records);
        let rows = number("rows", "written") + number("rows", "quarantined") + number("rows", "dropped");
        assert_eq!(number("rows", "produced"), rows);
        for key in ["pipeline", "query", "pipeline_sha256", "attempt", "clock"] {
            assert!(info[key].is_string(), "{key} in {info}");
        }
    }
}

#[test]
fn a_second_run_goes_on_where_the_first_ended() {
    let job = Job::new("resume", 1);
    job.produce(0, &impressions(0..100));
    job.available_now(&[]).exits(0);
    assert!(job.available_now(&[]).exits(0).json().is_empty(), "nothing to read, no commit");
    job.produce(0, &impressions(100..250));
    let progress = job.available_now(&[]).exits(0).json();
    assert_eq!(progress.len(), 1);
    assert_eq!(progress[0]["numInputRows"], 150);
    let rows = delta::read_with_python(&job.sink()).rows;
    let users: BTreeSet<String> = rows.iter().map(|row| row["impressed_at"].to_string()).collect();
    assert_eq!((rows.len(), users.len()), (250, 250));
}

#[test]
fn a_continuous_run_stops_cleanly_on_sigterm() {
    let job = Job::new("sigterm", 1);
    job.produce(0, &impressions(0..500));
    let run = Background::start(&mut job.run(&["--set", "flumen.trigger=50 milliseconds"]));
    until("500 records are committed", Duration::from_secs(60), || position(&job, 0) == Some(500));
    job.produce(0, &impressions(500..700));
    until("700 records are committed", Duration::from_secs(60), || position(&job, 0) == Some(700));
    run.signal("TERM");
    let finished = run.wait().exits(0);
    assert!(finished.json().len() >= 2);
    assert_eq!(delta::read_with_python(&job.sink()).rows.len(), 700);
}

#[test]
fn a_transaction_that_stays_open_is_named() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let job = Job::new("held", 1);
    job.produce(0, &impressions(0..10));
    let broker = Broker::shared();
    let producer: BaseProducer = broker.client().set("transactional.id", &job.topic).create().unwrap();
    let limit = Duration::from_secs(30);
    producer.init_transactions(limit).unwrap();
    producer.begin_transaction().unwrap();
    let value = &impressions(10..11)[0];
    assert!(producer.send(BaseRecord::<(), Vec<u8>>::to(&job.topic).partition(0).payload(value)).is_ok());
    producer.flush(limit).unwrap();
    let told = job.root().join("stderr");
    let mut command = job.run(&["--set", "flumen.trigger=50 milliseconds"]);
    let run = Background::start_telling(&mut command, &job.root().join("stdout"), &told);
    let text = || std::fs::read_to_string(&told).unwrap();
    until("it is named", Duration::from_secs(90), || text().contains("a transaction that is still open"));
    assert!(text().contains("holds it at offset 10 for 30 seconds; 1 offsets behind it"), "{}", text());
    producer.commit_transaction(limit).unwrap();
    until("what it held is read", Duration::from_secs(60), || position(&job, 0).is_some_and(|next| next > 10));
    run.kill();
    assert_eq!(text().matches("still open").count(), 1);
}

#[test]
fn a_record_that_cannot_be_decoded_is_named_and_nothing_is_lost() {
    let job = Job::new("broken", 1);
    job.edit(FILE, "'ads.v1.AdImpression')", "'ads.v1.AdImpression', 'on_decode_error' 'fail')");
    job.produce(0, &impressions(0..10));
    job.available_now(&[]).exits(0);
    // Field 6 (placement), 1 byte long, which holds a cut-off tag.
    let mut broken = impression(10).encode_to_vec();
    broken.extend([0x32, 0x01, 0x80]);
    job.produce(0, &[impressions(10..11), vec![broken]].concat());
    job.edit(FILE, "SELECT i.ad_id, i.user_id", "SELECT i.ad_id, coalesce(i.placement.page, i.user_id)");
    let failed = job.available_now(&[]).exits(3);
    for part in [job.topic.as_str(), "partition 0", "offset 11", "placement"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(position(&job, 0), Some(10));
    // A query that does not need the broken field reads over it.
    job.edit(FILE, "SELECT i.ad_id, coalesce(i.placement.page, i.user_id)", "SELECT i.ad_id, i.user_id");
    job.available_now(&[]).exits(0);
    assert_eq!((position(&job, 0), delta::read_with_python(&job.sink()).rows.len()), (Some(12), 12));
}

#[test]
fn a_row_that_breaks_the_contract_is_named_and_nothing_is_visible() {
    let job = Job::new("contract", 1);
    job.produce(0, &impressions(0..20));
    job.edit(FILE, "CHECK (score BETWEEN 0 AND 1)", "CHECK (user_id <> 'user-13')");
    let failed = job.available_now(&[]).exits(3);
    for part in ["score_is_a_probability", job.topic.as_str(), "partition 0, offset 13: ", "'user-13'"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(delta::log(&job.sink()).len(), 1, "the positions only");
    job.edit(FILE, "CHECK (user_id <> 'user-13')", "CHECK (score BETWEEN 0 AND 1)");
    job.available_now(&[]).exits(0);
    assert_eq!(delta::read_with_python(&job.sink()).rows.len(), 20);
}

#[test]
fn what_is_missing_is_named_with_the_right_exit_code() {
    let job = Job::new("missing", 1);
    job.produce(0, &impressions(0..5));
    let right = job.topic.clone();
    job.edit(FILE, &format!("/{right}'"), &format!("/{right}x'"));
    let failed = job.available_now(&[]).exits(1);
    assert!(failed.stderr.contains(&format!("{right}x")) && failed.stderr.contains(&right), "{}", failed.stderr);
    job.edit(FILE, &format!("/{right}x'"), &format!("/{right}'"));

    job.edit(FILE, "click_probability.json", "no_such_model.json");
    let failed = job.available_now(&[]).exits(2);
    assert!(failed.stderr.contains("no_such_model.json"), "{}", failed.stderr);
    job.edit(FILE, "no_such_model.json", "click_probability.json");

    job.edit(FILE, "queries/data/content_with_categories'", "queries/data/no_such_lookup'");
    let failed = job.available_now(&[]).exits(2);
    assert!(failed.stderr.contains("no_such_lookup"), "{}", failed.stderr);
    job.edit(FILE, "queries/data/no_such_lookup'", "queries/data/content_with_categories'");

    job.edit(FILE, "i.user_id", "i.user_idd");
    let failed = job.available_now(&[]).exits(2);
    assert!(failed.stderr.contains("user_id`") || failed.stderr.contains("'user_id'"), "{}", failed.stderr);
    assert!(!job.sink().exists(), "nothing was started");
    job.edit(FILE, "i.user_idd", "i.user_id");

    job.available_now(&[]).exits(0);
    assert_eq!(delta::read_with_python(&job.sink()).rows.len(), 5);
}

#[test]
fn a_table_that_differs_from_the_contract_is_refused_with_the_difference() {
    let job = Job::new("differs", 1);
    job.produce(0, &impressions(0..5));
    job.available_now(&[]).exits(0);
    job.edit(FILE, "category VARCHAR", "category VARCHAR, extra BIGINT");
    job.edit(FILE, "c.category,", "c.category, 1,");
    let failed = job.available_now(&[]).exits(2);
    assert!(failed.stderr.contains("extra"), "{}", failed.stderr);
    assert_eq!(position(&job, 0), Some(5));
}

#[test]
fn offsets_that_are_gone_stop_the_run_and_are_named() {
    let job = Job::new("gone", 1);
    job.produce(0, &impressions(0..10));
    job.available_now(&[]).exits(0);
    job.produce(0, &impressions(10..30));
    topics::delete_records(Broker::shared(), &job.topic, 0, 20);
    let failed = job.available_now(&[]).exits(3);
    assert!(failed.stderr.contains("[10, 20)"), "{}", failed.stderr);
    assert_eq!(position(&job, 0), Some(10));
}

#[test]
fn a_topic_that_was_made_again_is_not_read_from_an_old_position() {
    let job = Job::new("again", 1);
    job.produce(0, &impressions(0..10));
    job.available_now(&[]).exits(0);
    topics::make_again(Broker::shared(), &job.topic, 1);
    job.produce(0, &impressions(0..50));
    let failed = job.available_now(&[]).exits(3);
    assert!(failed.stderr.contains("made again"), "{}", failed.stderr);
    assert_eq!(position(&job, 0), Some(10));
}

#[test]
fn losses_are_passed_over_where_that_is_asked_for_and_committed() {
    let job = Job::new("skipped", 2);
    job.edit(FILE, "'ads.v1.AdImpression')", "'ads.v1.AdImpression', 'on_data_loss' 'skip')");
    let lost = |job: &Job| -> Vec<serde_json::Value> {
        let infos = delta::commit_infos(&job.sink());
        infos.iter().flat_map(|info| info["lost"].as_array().cloned().unwrap_or_default()).collect()
    };
    job.produce(0, &impressions(0..10));
    job.available_now(&[]).exits(0);
    job.produce(0, &impressions(10..30));
    topics::delete_records(Broker::shared(), &job.topic, 0, 20);
    let told = job.available_now(&[]).exits(0);
    for part in ["partition 0: offsets [10, 20) are gone", "\"alert\":\"offsets_lost\""] {
        assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
    }
    let place = |partition: i32, from: i64, to: serde_json::Value| serde_json::json!({"topic": job.topic, "partition": partition, "from": from, "to": to});
    assert_eq!(lost(&job), [place(0, 10, 20.into())]);
    assert_eq!(position(&job, 0), Some(30));
    // Nothing is left to read behind the gap: that is committed too, once.
    job.produce(0, &impressions(30..40));
    topics::delete_records(Broker::shared(), &job.topic, 0, 40);
    job.available_now(&[]).exits(0);
    assert!(!job.available_now(&[]).exits(0).stderr.contains("offsets"));
    assert_eq!(lost(&job).len(), 2);

    // Made again with a partition less: it is read from its beginning.
    topics::make_again(Broker::shared(), &job.topic, 1);
    job.produce(0, &impressions(0..50));
    let told = job.available_now(&[]).exits(0);
    assert!(told.stderr.contains("was deleted and made again"), "{}", told.stderr);
    assert_eq!(position(&job, 0), Some(50));
    assert_eq!(lost(&job)[2..], [place(0, 40, serde_json::Value::Null), place(1, 0, serde_json::Value::Null)]);
    assert!(!job.available_now(&[]).exits(0).stderr.contains("gone"), "it is said once");
    assert_eq!(delta::read_with_python(&job.sink()).rows.len(), 10 + 10 + 50);
}

#[test]
fn a_message_that_changed_is_compared_before_anything_is_read() {
    const PROTO: &str = "proto/ads/v1/ads.proto";
    let job = Job::new("versions", 1);
    job.edit(FILE, "c.category, i.impressed_at,", "CAST(i.placement.slot AS VARCHAR), i.impressed_at,");
    job.produce(0, &impressions(0..10));
    job.available_now(&[]).exits(0);
    job.produce(0, &impressions(10..20));
    let old = std::fs::read_to_string(job.root().join(PROTO)).unwrap();
    std::fs::write(job.root().join("old.proto"), &old).unwrap();

    // A canary field: the records of the new writer have it, those of the old one do not.
    job.edit(PROTO, "message Placement {", "message Placement { string canary = 9;");
    let told = job.available_now(&[]).exits(0);
    assert!(told.stderr.contains("placement.canary: new field 9: string"), "{}", told.stderr);
    assert_eq!(position(&job, 0), Some(20));
    assert!(job.available_now(&[]).exits(0).stderr.is_empty(), "it is said once");

    job.produce(0, &impressions(20..30));
    job.edit(PROTO, "int32 slot = 2;", "int64 slot = 2;");
    let refused = job.available_now(&[]).exits(2);
    assert!(refused.stderr.contains("placement.slot: was int32, is int64"), "{}", refused.stderr);
    assert!(refused.stderr.contains("schema_change"), "the way out is told: {}", refused.stderr);
    assert_eq!(position(&job, 0), Some(20));
    let checked = finish(&mut flumen(job.root(), ["check", FILE, "--against", "old.proto"])).exits(2);
    for line in ["fine     placement.canary", "breaking placement.slot: was int32, is int64 (type_changed)"] {
        assert!(checked.stdout.contains(line), "{line}: {}", checked.stdout);
    }

    // What is not in the other file was not compared: that is no consent.
    std::fs::write(job.root().join("other.proto"), "syntax = \"proto3\"; message Other {}").unwrap();
    let silent = finish(&mut flumen(job.root(), ["check", FILE, "--against", "other.proto"])).exits(2);
    assert!(silent.stderr.contains("nothing was compared"), "{}", silent.stderr);

    // A field that the query does not use may change as it likes.
    job.edit(PROTO, "int64 slot = 2;", "int32 slot = 2;");
    job.edit(PROTO, "double bid = 8 [(buf.validate.field).double.gte = 0];", "int32 bid = 8;");
    job.available_now(&[]).exits(0);
    assert_eq!(position(&job, 0), Some(30));
    let kept = std::fs::read_dir(job.sink().join("_flumen")).unwrap().count();
    assert_eq!(kept, 3, "each descriptor set that was run with is kept");
}

#[test]
fn a_start_that_the_topic_does_not_have_is_refused_before_anything_is_made() {
    let job = Job::new("start", 2);
    job.produce(0, &impressions(0..10));
    for (start, told) in [("0:11,1:0", "offset 11 of partition 0, which holds [0, 10)"), ("7:0", "partition 7")] {
        let text = format!("'ads.v1.AdImpression', 'start' '{start}')");
        job.edit(FILE, "'ads.v1.AdImpression')", &text);
        let failed = job.available_now(&[]).exits(2);
        assert!(failed.stderr.contains(told), "{}", failed.stderr);
        assert!(!job.sink().join("_delta_log").exists());
        job.edit(FILE, &text, "'ads.v1.AdImpression')");
    }
    job.edit(FILE, "'ads.v1.AdImpression')", "'ads.v1.AdImpression', 'start' '0:4,1:0')");
    job.available_now(&[]).exits(0);
    assert_eq!(delta::read_with_python(&job.sink()).rows.len(), 6);
}

#[test]
fn a_value_that_does_not_fit_the_query_is_exit_3() {
    let job = Job::new("values", 1);
    job.produce(0, &impressions(0..10));
    job.edit(FILE, "SELECT i.ad_id, i.user_id,", "SELECT i.ad_id, CAST(CAST(i.user_id AS INT) AS VARCHAR),");
    let failed = job.available_now(&[]).exits(3);
    for part in ["user-0", "TRY_CAST", job.topic.as_str(), "partition 0, offset 0"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(position(&job, 0), Some(0));
}

#[test]
fn status_and_sql_tell_where_it_stands() {
    let job = Job::new("status", 1);
    job.produce(0, &impressions(0..40));
    job.available_now(&[]).exits(0);
    job.produce(0, &impressions(40..50));
    let ask = |args: &[&str]| finish(&mut Broker::shared().flumen(job.root(), args)).exits(0);
    let status = ask(&["-o", "json", "status", FILE]).json();
    let partition = &status[0]["topics"][0]["partitions"][0];
    assert_eq!((&partition["committed"], &partition["end"], &partition["lag"]), (&40.into(), &50.into(), &10.into()));
    assert!(status[0]["models"]["click_probability"].is_string(), "{status:?}");
    let counted = ask(&["-o", "json", "sql", FILE, "SELECT count(*) AS n FROM scored_impressions"]).json();
    assert_eq!(counted[0]["n"], 40);
    let topic = ask(&["-o", "json", "sql", FILE, "SELECT count(*) AS n, max(_offset) AS o FROM ad_impressions"]).json();
    assert_eq!((&topic[0]["n"], &topic[0]["o"]), (&50.into(), &49.into()));
    let analyzed = ask(&["explain", FILE, "--analyze"]).stdout;
    assert!(analyzed.contains("TopicScanExec") && analyzed.contains("output_rows="), "{analyzed}");
    assert_eq!(delta::log(&job.sink()).len(), 2, "looking changes nothing");
}
