//! Rows that break the contract: kept apart exactly once, or left out and counted, through the real binary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use prost::Message;
use serde_json::{Value, json};

use crate::ads::{AdImpression, impression};
use crate::binary::{Background, Finished, finish, flumen, workspace};
use crate::broker::Broker;
use crate::chance::Chance;
use crate::registry_server::RegistryServer;
use crate::{delta, topics};

const FILE: &str = "gate.sql";

struct Place {
    dir: tempfile::TempDir,
    topic: String,
}

impl Place {
    fn new(name: &str, options: &str) -> Self {
        let topic = topics::new_topic(Broker::shared(), name, 1);
        let place = Self { dir: workspace(), topic };
        place.write(options, "");
        place
    }

    fn write(&self, options: &str, column: &str) {
        let more = if column.is_empty() { "" } else { ", 1" };
        self.write_query(options, column, &format!("SELECT _offset, ad_id, placement.slot, bid{more} FROM ads"));
    }

    fn write_query(&self, options: &str, column: &str, query: &str) {
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{}'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '500');
             CREATE EXTERNAL TABLE gated (at BIGINT NOT NULL, ad_id VARCHAR NOT NULL, slot INT NOT NULL, bid DOUBLE{column},
               CONSTRAINT low CHECK (bid < 100), CONSTRAINT short CHECK (length(ad_id) < 10))
             STORED AS DELTA LOCATION 'tables/gated' OPTIONS ({options});
             INSERT INTO gated {query};",
            self.topic
        );
        std::fs::write(self.dir.path().join(FILE), text).unwrap();
    }

    fn command(&self) -> Command {
        Broker::shared().flumen(self.dir.path(), ["-o", "json", "run", FILE, "--available-now"])
    }

    fn run(&self) -> Finished {
        finish(&mut self.command())
    }

    fn table(&self, name: &str) -> PathBuf {
        self.dir.path().join("tables").join(name)
    }

    fn rows(&self, name: &str) -> BTreeMap<i64, BTreeMap<String, Value>> {
        let rows = delta::read_with_python(&self.table(name)).rows;
        let count = rows.len();
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row["at"].as_i64().unwrap(), row)).collect();
        assert_eq!(rows.len(), count, "no row is there twice");
        rows
    }

    fn produce(&self, impressions: impl IntoIterator<Item = AdImpression>) {
        let values: Vec<_> = impressions.into_iter().map(|one| one.encode_to_vec()).collect();
        topics::produce(Broker::shared(), &self.topic, 0, &values);
    }
}

/// An impression that keeps the contract.
fn good(n: u64) -> AdImpression {
    let mut one = impression(n);
    one.placement.get_or_insert_default();
    one.bid = 1.0;
    one
}

/// One that breaks it in up to three ways.
fn bad(n: u64) -> AdImpression {
    let mut one = good(n);
    if n.is_multiple_of(2) {
        one.placement = None;
    }
    if n.is_multiple_of(3) {
        one.bid = 500.0;
    }
    if n.is_multiple_of(6) || !n.is_multiple_of(2) && !n.is_multiple_of(3) {
        one.ad_id = "a very long name".into();
    }
    one
}

const QUARANTINE: &str = "'on_violation' 'quarantine'";

#[test]
fn broken_rows_go_to_the_quarantine_and_say_all_that_they_break() {
    let place = Place::new("quarantine", QUARANTINE);
    place.produce([good(0), bad(1), bad(2), bad(3), bad(6), good(5)]);
    let done = place.run().exits(0);
    assert_eq!(done.json()[0]["rows"], json!({"produced": 6, "written": 2, "quarantined": 4, "dropped": 0}));
    assert_eq!(place.rows("gated").keys().copied().collect::<Vec<_>>(), [0, 5]);
    let quarantined = place.rows("gated_quarantine");
    let violations = |at: i64| quarantined[&at]["_violations"].clone();
    assert_eq!(violations(1), json!(["short"]));
    assert_eq!(violations(2), json!(["slot_not_null"]));
    assert_eq!(violations(3), json!(["low"]));
    assert_eq!(violations(4), json!(["slot_not_null", "low", "short"]));
    assert_eq!((&quarantined[&3]["bid"], &quarantined[&3]["_unfit"]), (&json!(500.0), &Value::Null));
    assert!(quarantined[&1]["_clock"].is_string());
    let info = &delta::commit_infos(&place.table("gated"))[1];
    assert_eq!(info["rows"]["quarantined"], 4);
    assert_eq!(info["side"].as_array().unwrap().len(), 1, "{info}");
    let id = format!("flumen:gate:gated:{}:0", place.topic);
    assert_eq!(delta::txns(&place.table("gated_quarantine"))[&id], 6, "the same position as in the sink");
    let ask = |words: &[&str]| {
        let words = [&["-o", "json"], words].concat();
        finish(&mut Broker::shared().flumen(place.dir.path(), words)).exits(0).json()
    };
    assert_eq!(ask(&["status", FILE])[0]["quarantined"], 4);
    let sql = "SELECT count(*) AS n FROM gated_quarantine WHERE array_has(_violations, 'low')";
    assert_eq!(ask(&["sql", FILE, sql])[0]["n"], 2);
    // Nothing is repeated, and a micro-batch without broken rows owes nothing.
    place.produce([good(7)]);
    place.run().exits(0);
    assert_eq!((place.rows("gated").len(), place.rows("gated_quarantine").len()), (3, 4));
}

#[test]
fn a_cast_that_fails_breaks_its_row_only() {
    let place = Place::new("casts", QUARANTINE);
    let named = |n: u64, user: &str, context: &str| {
        let (user_id, context_id) = (user.to_string(), context.to_string());
        AdImpression { user_id, context_id, ..good(n) }
    };
    // What is only evaluated where it fits stays as it is; in a branch of a UNION ALL a cast is watched too.
    let query = "SELECT _offset, ad_id, CAST(CAST(user_id AS INT) + CAST(context_id AS INT) AS INT),
                   CASE WHEN bid > 50 THEN CAST(ad_id AS DOUBLE) ELSE bid END FROM ads WHERE _offset < 4
                 UNION ALL SELECT _offset, ad_id, CAST(1 AS INT), CAST(context_id AS DOUBLE) FROM ads WHERE _offset >= 4";
    place.write_query(QUARANTINE, "", query);
    place.produce([
        named(0, "1", "2"),
        named(1, "one", "2"),
        named(2, "1", "two"),
        named(3, "one", "two"),
        named(4, "one", "4.5"),
        named(5, "1", "five"),
    ]);
    place.run().exits(0);
    let kept = place.rows("gated");
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [0, 4]);
    assert_eq!((&kept[&0]["slot"], &kept[&4]["bid"]), (&json!(3), &json!(4.5)));
    let broken = place.rows("gated_quarantine");
    let told = |at: i64| (broken[&at]["_violations"].clone(), broken[&at]["_unfit"].as_str().unwrap().to_string());
    assert_eq!(told(1), (json!(["slot_range"]), r#"{"slot":"one"}"#.into()));
    assert_eq!(told(2), (json!(["slot_range"]), r#"{"slot":"two"}"#.into()));
    assert_eq!(told(3), (json!(["slot_range"]), r#"{"slot":"one"}"#.into()));
    assert_eq!(told(5), (json!(["bid_range"]), r#"{"bid":"five"}"#.into()));
    assert_eq!(broken.len(), 4);

    // Without a quarantine it is what ends the run.
    place.write_query("'on_violation' 'fail'", "", query);
    place.produce([named(6, "1", "six")]);
    let failed = place.run().exits(3);
    assert!(failed.stderr.contains("partition 0, offset 6"), "{}", failed.stderr);
}

#[test]
fn broken_rows_are_dropped_and_counted() {
    let place = Place::new("dropped", "'on_violation' 'drop'");
    place.produce((0..200).map(bad));
    let done = place.run().exits(0);
    assert_eq!(done.json()[0]["rows"], json!({"produced": 200, "written": 0, "quarantined": 0, "dropped": 200}));
    assert!(!place.table("gated_quarantine").exists());
}

#[test]
fn too_many_broken_rows_stop_the_run() {
    let place = Place::new("too-many", QUARANTINE);
    place.produce((0..200).map(good).chain((0..30).map(bad)));
    let failed = place.run().exits(3);
    for part in ["30 of 230 rows", "quarantine_limit is 10%", "the first one breaks"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(delta::log(&place.table("gated")).len(), 1, "the positions only");
    place.write("'on_violation' 'quarantine', 'quarantine_limit' '20%', 'quarantine' 'tables/elsewhere'", "");
    place.run().exits(0);
    assert_eq!((place.rows("gated").len(), place.rows("elsewhere").len()), (200, 30));
}

#[test]
fn a_crash_between_the_commits_is_made_good_also_under_another_file() {
    // What the file says when it is run again, and where the rows lie then.
    let changes = [
        (QUARANTINE, "", "gated_quarantine"),
        ("'on_violation' 'fail'", "", "gated_quarantine"),
        ("'on_violation' 'quarantine', 'schema_mode' 'merge'", ", more BIGINT", "gated_quarantine"),
        ("'on_violation' 'quarantine', 'quarantine' 'tables/elsewhere'", "", "gated_quarantine"),
    ];
    for (options, column, table) in changes {
        let place = Place::new("owed-rows", QUARANTINE);
        place.produce([good(0), bad(1), bad(2)]);
        place.run().exits(0);
        std::fs::remove_dir_all(place.table("gated_quarantine").join("_delta_log")).unwrap();
        place.write(options, column);
        place.produce([good(3)]);
        place.run().exits(0);
        assert_eq!(place.rows(table).keys().copied().collect::<Vec<_>>(), [1, 2], "{options}");
        assert_eq!(place.rows("gated").len(), 2, "{options}");
    }
}

/// The pipeline of [`a_crash_and_then_another_model_message_and_file`]; with `more` the file that comes after the crash.
fn scoring(topic: &str, more: bool) -> String {
    let (column, value, mode) = if more { (", more BIGINT", ", 1", ", 'schema_mode' 'merge'") } else { ("", "", "") };
    format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '500',
                  'dead_letters' 'tables/dead');
         CREATE FUNCTION score(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
         LANGUAGE XGBOOST AS 'queries/data/click_probability_linear.json';
         CREATE EXTERNAL TABLE gated (at BIGINT NOT NULL, score DOUBLE, bid DOUBLE{column}, CONSTRAINT low CHECK (bid < 100))
         STORED AS DELTA LOCATION 'tables/gated'
         OPTIONS ('on_violation' 'quarantine', 'quarantine_limit' '100%'{mode});
         INSERT INTO gated SELECT _offset, score(0.5, 1.0, 12.0, bid), bid{value} FROM ads;"
    )
}

/// What the model and the message are after the crash.
fn change_model_and_message(root: &std::path::Path) {
    let edit = |path: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(root.join(path)).unwrap();
        assert!(text.contains(from), "{path}");
        std::fs::write(root.join(path), text.replace(from, to)).unwrap();
    };
    edit("queries/data/click_probability_linear.json", "[2.147E-1]", "[6.147E-1]");
    edit("proto/ads/v1/ads.proto", "  double bid = 8", "  string currency = 19;\n  double bid = 8");
}

#[test]
fn a_crash_and_then_another_model_message_and_file() {
    const RECORDS: i64 = 1_500;
    let topic = topics::new_topic(Broker::shared(), "all-change", 1);
    let value = |n: i64| match n % 3 {
        0 => bad(3).encode_to_vec(),
        _ if n % 100 == 1 => vec![0xff],
        _ => good(n as u64).encode_to_vec(),
    };
    topics::produce(Broker::shared(), &topic, 0, &(0..RECORDS).map(value).collect::<Vec<_>>());
    let place = |more: bool| {
        let place = Place { dir: workspace(), topic: topic.clone() };
        std::fs::write(place.dir.path().join(FILE), scoring(&topic, more)).unwrap();
        place
    };
    let controls = [false, true].map(|more| {
        let control = place(more);
        if more {
            change_model_and_message(control.dir.path());
        }
        control.run().exits(0);
        control.rows("gated")
    });
    for fault in [
        "quarantine.close:2:abort",
        "commit.before:2:kill",
        "commit.after:2:kill",
        "side.before:3:abort",
        "side.after:3:kill",
    ] {
        let place = place(false);
        let mark = place.dir.path().join("mark");
        let crashed = finish(place.command().env("FLUMEN_FAULT", fault).env("FLUMEN_FAULT_MARK", &mark));
        assert!(crashed.code != Some(0) && mark.exists(), "{fault}: {}", crashed.stderr);
        change_model_and_message(place.dir.path());
        std::fs::write(place.dir.path().join(FILE), scoring(&topic, true)).unwrap();
        place.run().exits(0);
        let (kept, broken) = (place.rows("gated"), place.rows("gated_quarantine"));
        let dead = delta::read_with_python(&place.table("dead")).rows;
        let mut all: Vec<i64> = kept.keys().chain(broken.keys()).copied().collect();
        all.extend(dead.iter().map(|letter| letter["offset"].as_i64().unwrap()));
        all.sort_unstable();
        assert!(all == (0..RECORDS).collect::<Vec<_>>(), "{fault}: {} records are somewhere", all.len());
        for (at, row) in &kept {
            let control = &controls[usize::from(!row["more"].is_null())][at];
            assert_eq!(row["score"], control["score"], "{fault}: offset {at}");
        }
        let old = kept.values().filter(|row| row["more"].is_null()).count();
        assert!(old > 0 && old < kept.len(), "{fault}: {old} of {} rows are from before", kept.len());
    }
}

#[test]
fn killed_at_random_each_row_is_in_one_table() {
    let place = Place::new("killed-rows", "'on_violation' 'quarantine', 'quarantine_limit' '100%'");
    place.produce((0..6_000).map(|n| if n % 3 == 0 { bad(n) } else { good(n) }));
    let mut chance = Chance::new(11);
    for _ in 0..12 {
        let run = Background::start(&mut place.command());
        std::thread::sleep(std::time::Duration::from_millis(30 + chance.below(250)));
        run.kill();
    }
    place.run().exits(0);
    let (kept, broken) = (place.rows("gated"), place.rows("gated_quarantine"));
    assert_eq!((kept.len(), broken.len()), (4_000, 2_000));
    assert!(kept.keys().all(|at| at % 3 != 0) && broken.keys().all(|at| at % 3 == 0));
}

/// The JSON lines of stderr.
fn alerts(done: &Finished) -> Vec<Value> {
    done.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn what_somebody_has_to_look_at_is_told_and_posted() {
    let listener = RegistryServer::start();
    listener.answer("/alerts", json!({}));
    let place = Place::new("alerts", QUARANTINE);
    let run = |url: &str| {
        let mut command = place.command();
        finish(command.args(["--set", &format!("flumen.alert_url={url}")]))
    };
    let url = format!("http://{}/alerts", listener.address());
    place.produce([good(0), bad(1), bad(2)]);
    let told = alerts(&run(&url).exits(0));
    assert_eq!((told.len(), &told[0]["alert"], &told[0]["count"]), (1, &json!("quarantined"), &json!(2)));
    assert_eq!((&told[0]["pipeline"], &told[0]["query"]), (&json!("gate"), &json!("gated")));
    let posted: Vec<Value> = listener.posted().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(posted, told);

    // A limit, a broken contract, lost offsets; the listener fails, or is not there, and that changes nothing.
    place.produce((0..200).map(bad));
    listener.fail(&[(500, "{}")]);
    let done = run(&url).exits(3);
    assert_eq!(alerts(&done)[0]["alert"], "limit_passed");
    assert!(done.stderr.contains("alerts do not reach http://"), "{}", done.stderr);
    drop(listener);
    place.write("'on_violation' 'fail'", "");
    assert_eq!(alerts(&run(&url).exits(3))[0]["alert"], "contract_broken");
    topics::delete_records(Broker::shared(), &place.topic, 0, 100);
    let lost = alerts(&run(&url).exits(3));
    assert_eq!(lost[0]["alert"], "offsets_lost");
    assert!(lost[0]["message"].as_str().unwrap().contains("[3, 100)"), "{lost:?}");
}

#[test]
fn a_batch_job_has_no_quarantine_and_columns_of_ours_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let check = |columns: &str, options: &str, select: &str| {
        let text = format!(
            "CREATE EXTERNAL TABLE t ({columns}) STORED AS DELTA LOCATION 't' OPTIONS ({options});
             INSERT INTO t {select};"
        );
        std::fs::write(dir.path().join("f.sql"), text).unwrap();
        finish(&mut flumen(dir.path(), ["check", "f.sql"])).exits(2).stderr
    };
    let told = check("a BIGINT", "'mode' 'replace', 'on_violation' 'quarantine'", "SELECT 1");
    assert!(told.contains("has no quarantine"), "{told}");
    let told = check("_violations BIGINT", "'mode' 'replace', 'on_violation' 'quarantine'", "SELECT 1");
    assert!(told.contains("the quarantine table has by itself"), "{told}");
}
