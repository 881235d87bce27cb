//! Records that cannot be decoded: kept apart exactly once, shown, and decoded again, through the real binary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use prost::Message;

use crate::ads::{impression, impressions};
use crate::binary::{Background, Finished, finish, until, workspace};
use crate::broker::Broker;
use crate::chance::Chance;
use crate::{delta, topics};

const FILE: &str = "land.sql";
const PROTO: &str = "proto/ads/v1/ads.proto";

struct Place {
    dir: tempfile::TempDir,
    topic: String,
}

impl Place {
    fn new(name: &str, options: &str, query: &str) -> Self {
        let topic = topics::new_topic(Broker::shared(), name, 2);
        let dir = workspace();
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' '{PROTO}', 'value.message' 'ads.v1.AdImpression'{options});
             CREATE EXTERNAL TABLE landed (part INT NOT NULL, at BIGINT NOT NULL, ad_id VARCHAR, slot BIGINT)
             STORED AS DELTA LOCATION 'tables/landed';
             INSERT INTO landed {query};"
        );
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Self { dir, topic }
    }

    fn landing(name: &str, options: &str) -> Self {
        Self::new(name, options, "SELECT _partition, _offset, ad_id, CAST(placement.slot AS BIGINT) FROM ads")
    }

    fn command(&self, words: &[&str]) -> Command {
        Broker::shared().flumen(self.dir.path(), words)
    }

    fn run(&self) -> Finished {
        finish(&mut self.command(&["-o", "json", "run", FILE, "--available-now"]))
    }

    fn ask(&self, words: &[&str]) -> Vec<Value> {
        let words = [&["-o", "json", "dead-letters", words[0], FILE], &words[1..]].concat();
        finish(&mut self.command(&words)).exits(0).json()
    }

    /// What `status` says.
    fn open_letters(&self) -> u64 {
        let status = finish(&mut self.command(&["-o", "json", "status", FILE])).exits(0).json();
        status[0]["dead_letters"].as_u64().unwrap()
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("tables/landed")
    }

    /// The number of the last retry that was committed.
    fn retries(&self) -> i64 {
        delta::txns(&self.table()).get("flumen-retry:land:landed").copied().unwrap_or(0)
    }

    /// The places of the letters that are marked as committed, each once.
    fn marked(&self) -> BTreeSet<(i64, i64)> {
        let rows = delta::read_with_python(&self.letters()).rows;
        let marks: Vec<_> = rows.iter().filter(|row| !row["retried"].is_null()).collect();
        let places: BTreeSet<_> =
            marks.iter().map(|row| (row["partition"].as_i64().unwrap(), row["offset"].as_i64().unwrap())).collect();
        assert_eq!(places.len(), marks.len(), "no letter is marked twice");
        places
    }

    fn letters(&self) -> PathBuf {
        self.dir.path().join("tables/landed_dead_letters")
    }

    fn produce(&self, partition: i32, values: &[Vec<u8>]) {
        topics::produce(Broker::shared(), &self.topic, partition, values);
    }

    /// The places of the rows, each once.
    fn landed(&self) -> BTreeSet<(i64, i64)> {
        places(&self.table(), "part", "at")
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {file}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
}

fn places(table: &Path, partition: &str, offset: &str) -> BTreeSet<(i64, i64)> {
    let rows = delta::read_with_python(table).rows;
    let places: BTreeSet<_> =
        rows.iter().map(|row| (row[partition].as_i64().unwrap(), row[offset].as_i64().unwrap())).collect();
    assert_eq!(places.len(), rows.len(), "no row is there twice");
    places
}

/// Impression `n` with a text in the place of the slot: a later version of the message has it so.
fn with_text_slot(n: u64) -> Vec<u8> {
    let mut whole = impression(n);
    whole.placement = None;
    let mut bytes = whole.encode_to_vec();
    // placement (6) { slot (2): "7" }
    bytes.extend([0x32, 0x03, 0x12, 0x01, b'7']);
    bytes
}

#[test]
fn bad_records_are_kept_apart_and_the_others_go_on() {
    let place = Place::landing("dead", "");
    place.produce(0, &[impressions(0..50), vec![with_text_slot(50), vec![0x0a, 0xff]], impressions(52..100)].concat());
    place.produce(1, &impressions(100..150));
    let progress = place.run().exits(0).json();
    assert_eq!(progress[0]["records"], serde_json::json!({"read": 150, "decoded": 148, "dead": 2, "null": 0}));
    let landed = place.landed();
    assert_eq!(landed.len(), 148);
    assert!(!landed.contains(&(0, 50)) && !landed.contains(&(0, 51)));

    let table = delta::read_with_python(&place.letters());
    let row = |offset: i64| table.rows.iter().find(|row| row["offset"] == offset).unwrap();
    assert_eq!(table.rows.len(), 2);
    let names: Vec<&str> = table.columns.keys().map(String::as_str).collect();
    assert_eq!(
        names.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([
            "pipeline",
            "query",
            "topic",
            "partition",
            "offset",
            "timestamp",
            "key",
            "value",
            "headers",
            "reason",
            "field",
            "clock",
            "retried"
        ])
    );
    assert_eq!(row(50)["field"], "placement.slot");
    let reason = row(50)["reason"].as_str().unwrap();
    assert!(reason.starts_with("wire_type: wire type 2 where varint was expected at byte "), "{reason}");
    assert_eq!(row(51)["reason"], "truncated: the message ends within a field at byte 1");
    assert_eq!(row(51)["field"], "ad_id");
    for offset in [50, 51] {
        assert_eq!((&row(offset)["pipeline"], &row(offset)["query"]), (&"land".into(), &"landed".into()));
        assert_eq!((&row(offset)["topic"], &row(offset)["partition"]), (&place.topic.as_str().into(), &0.into()));
        assert!(row(offset)["retried"].is_null());
    }
    let info = &delta::commit_infos(&place.table())[1];
    assert_eq!(info["side"][0]["add"].as_array().unwrap().len(), 1, "{info}");
    let id = format!("flumen:land:landed:{}:0", place.topic);
    assert_eq!(delta::txns(&place.letters())[&id], 100, "the same position as in the sink");
    let asked = finish(&mut place.command(&["-o", "json", "sql", FILE, "SELECT count(ad_id) AS n FROM ads"])).exits(0);
    let told = "1 of 150 records cannot be decoded and are left out; the first: partition 0, offset 51: ad_id";
    assert!(asked.stderr.contains(told), "{}", asked.stderr);
    assert_eq!(asked.json()[0]["n"], 149);
}

#[test]
fn letters_are_shown_and_retried_exactly_once() {
    let place = Place::landing("retried", "");
    place.produce(0, &[impressions(0..20), vec![with_text_slot(20), with_text_slot(21), vec![0x0a, 0xff]]].concat());
    place.run().exits(0);
    let groups = place.ask(&["list"]);
    let told: Vec<_> = groups.iter().map(|g| (g["reason"].clone(), g["field"].clone(), g["count"].clone())).collect();
    let expected = [("wire_type", "placement.slot", 2), ("truncated", "ad_id", 1)];
    assert_eq!(told, expected.map(|(reason, field, count)| (reason.into(), field.into(), count.into())));
    assert_eq!(groups[0]["samples"][0]["offset"], 20);
    assert!(groups[0]["samples"][0].get("payload").is_none(), "payloads only when they are asked for");
    let shown = place.ask(&["list", "--payload", "--samples", "1"]);
    assert_eq!(shown[1]["samples"][0]["payload"], "0aff");

    assert_eq!(place.open_letters(), 3);
    let nothing = place.ask(&["retry"]);
    assert_eq!((&nothing[0]["letters"], &nothing[0]["committed"]), (&3.into(), &0.into()));
    assert_eq!(delta::log(&place.table()).len(), 2, "nothing to commit, no version");

    place.edit(PROTO, "int32 slot = 2;", "string slot = 2;");
    let retried = place.ask(&["retry"]);
    assert_eq!((&retried[0]["committed"], &retried[0]["dead"]), (&2.into(), &1.into()));
    assert_eq!(retried[0]["version"], 2);
    assert_eq!(place.landed().len(), 22);
    assert_eq!(delta::txns(&place.table())["flumen-retry:land:landed"], 1);
    let rows = delta::read_with_python(&place.letters()).rows;
    let marks: Vec<_> = rows.iter().filter(|row| !row["retried"].is_null()).collect();
    assert_eq!((rows.len(), marks.len()), (5, 2), "nothing is updated in place");
    assert!(marks.iter().all(|row| row["retried"] == 2));
    assert_eq!(place.open_letters(), 1);
    let left = place.ask(&["list"]);
    assert_eq!((left.len(), &left[0]["reason"]), (1, &"truncated".into()));
    assert_eq!(place.ask(&["retry"])[0]["committed"], 0, "again is once");
    assert_eq!(place.landed().len(), 22);
}

#[test]
fn what_a_crash_left_owing_is_made_good() {
    let place = Place::landing("owed", "");
    place.produce(0, &[impressions(0..20), vec![with_text_slot(20)]].concat());
    place.run().exits(0);
    // The process died right after the sink's commit: the side table does not know of its file.
    std::fs::remove_dir_all(place.letters().join("_delta_log")).unwrap();
    place.edit(FILE, "CAST(placement.slot AS BIGINT)", "7");
    place.produce(0, &impressions(21..30));
    place.run().exits(0);
    assert_eq!(places(&place.letters(), "partition", "offset"), BTreeSet::from([(0, 20)]));
    assert_eq!(place.landed().len(), 29);

    // The same for the marks of a retry; the list makes them good.
    place.edit(FILE, "ad_id, 7", "ad_id, CAST(placement.slot AS BIGINT)");
    place.edit(PROTO, "int32 slot = 2;", "string slot = 2;");
    assert_eq!(place.ask(&["retry"])[0]["committed"], 1);
    let last = delta::log(&place.letters()).len() - 1;
    std::fs::remove_file(place.letters().join(format!("_delta_log/{last:020}.json"))).unwrap();
    assert!(place.ask(&["list"]).is_empty());
    assert_eq!(place.ask(&["retry"])[0]["letters"], 0);
    assert_eq!(place.landed().len(), 30);
    assert_eq!(delta::log(&place.letters()).len() - 1, last);
}

#[test]
fn a_topic_that_has_gone_bad_stops_the_run() {
    let place = Place::landing("gone-bad", "");
    place.produce(0, &impressions(0..300));
    place.produce(1, &vec![vec![0x0a, 0xff]; 40]);
    let failed = place.run().exits(3);
    for part in ["40 of 340", "dead_letter_limit is 10%", "partition 1, offset 0", "ad_id"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(delta::log(&place.table()).len(), 1, "the positions only");
    place.edit(FILE, "'ads.v1.AdImpression'", "'ads.v1.AdImpression', 'dead_letter_limit' '50%'");
    place.run().exits(0);
    assert_eq!(places(&place.letters(), "partition", "offset").len(), 40);
    assert_eq!(place.landed().len(), 300);
}

#[test]
fn a_record_that_is_too_long_is_a_dead_letter() {
    let place = Place::landing("long", ", 'max_record_bytes' '1 KB', 'dead_letters' 'tables/elsewhere'");
    let mut long = impression(1);
    long.user_id = "x".repeat(2_000);
    place.produce(0, &[impressions(0..1), vec![long.encode_to_vec()], impressions(2..3)].concat());
    place.run().exits(0);
    let letters = delta::read_with_python(&place.dir.path().join("tables/elsewhere")).rows;
    assert_eq!(letters.len(), 1);
    assert!(letters[0]["reason"].as_str().unwrap().starts_with("oversized"), "{letters:?}");
    assert_eq!(place.landed(), BTreeSet::from([(0, 0), (0, 2)]));
}

/// Of a record that only one branch needs whole, no branch gives a row: it is in one place.
#[test]
fn a_record_that_is_bad_for_one_branch_is_bad_for_all() {
    let query = "SELECT _partition, _offset, ad_id, CAST(NULL AS BIGINT) FROM ads
                 UNION ALL SELECT CAST(_partition + 10 AS INT), _offset, ad_id, CAST(placement.slot AS BIGINT) FROM ads";
    let place = Place::new("branches", "", query);
    place.produce(0, &[impressions(0..5), vec![with_text_slot(5)], impressions(6..8)].concat());
    place.run().exits(0);
    let expected = [0, 10].map(|part| (0..8).filter(|at| *at != 5).map(move |at| (part, at)));
    assert_eq!(place.landed(), expected.into_iter().flatten().collect());
    assert_eq!(places(&place.letters(), "partition", "offset"), BTreeSet::from([(0, 5)]));
}

#[test]
fn a_retry_beside_the_stream_disturbs_nobody() {
    let place = Place::landing("beside", "");
    place.produce(0, &(0..40).map(with_text_slot).collect::<Vec<_>>());
    place.edit(FILE, "'ads.v1.AdImpression'", "'ads.v1.AdImpression', 'max_rows' '50'");
    place.run().exits(0);
    assert_eq!(place.landed().len(), 0);
    place.edit(PROTO, "int32 slot = 2;", "string slot = 2;");
    let mut stream = Background::start(&mut place.command(&[
        "run",
        FILE,
        "--set",
        "flumen.trigger=10 milliseconds",
        "--set",
        "flumen.schema_change=accept",
    ]));
    let mut sent = 40;
    let mut retried = 0;
    for _ in 0..4 {
        let mut retry =
            Background::start(&mut place.command(&["-o", "json", "dead-letters", "retry", FILE, "--at-once", "10"]));
        while retry.running() {
            // Bad ones among them: the stream commits to the table of dead letters too.
            let values = [(sent..sent + 19).map(with_text_slot).collect(), vec![vec![0x0a, 0xff]]].concat();
            place.produce(1, &values);
            sent += 20;
        }
        retried += retry.wait().exits(0).json()[0]["committed"].as_u64().unwrap();
    }
    assert_eq!(retried, 40);
    assert!(stream.running());
    let all = sent as usize;
    let id = format!("flumen:land:landed:{}:1", place.topic);
    let committed = || delta::txns(&place.table()).get(&id).copied() == Some(all as i64 - 40);
    until("all is committed", Duration::from_secs(60), committed);
    stream.signal("TERM");
    stream.wait().exits(0);
    let bad = (all - 40) / 20;
    assert_eq!(place.landed().len(), all - bad, "{all} records, {bad} bad");
    let left: i64 = place.ask(&["list"]).iter().map(|g| g["count"].as_i64().unwrap()).sum();
    assert_eq!(left, bad as i64);
}

/// Letters are in the sink once, and open or marked, whenever the process dies.
#[test]
fn a_retry_that_is_killed_doubles_and_loses_nothing() {
    let place = Place::landing("killed", ", 'dead_letter_limit' '100%'");
    place.produce(0, &(0..100).map(with_text_slot).collect::<Vec<_>>());
    place.run().exits(0);
    place.edit(PROTO, "int32 slot = 2;", "string slot = 2;");
    let retry = ["-o", "json", "dead-letters", "retry", FILE, "--at-once", "10"];
    let started = std::time::Instant::now();
    let whole = {
        // How long it takes until the first commit, and from one to the next.
        let mut run = Background::start(&mut place.command(&retry));
        until("a first retry is committed", Duration::from_secs(60), || !run.running() || place.retries() > 0);
        let whole = started.elapsed();
        run.kill();
        whole
    };
    let mut chance = Chance::new(5);
    let mut kills = 0;
    while place.landed().len() < 100 {
        let run = Background::start(&mut place.command(&retry));
        std::thread::sleep(whole * chance.below(400) as u32 / 100);
        run.kill();
        kills += 1;
        let (landed, marked) = (place.landed(), place.marked());
        // Of the last commit the marks may still be owed, of none before.
        assert!(marked.is_subset(&landed) && landed.len() - marked.len() <= 10, "{} {}", landed.len(), marked.len());
        assert!(kills < 100, "only {} of 100 after {kills} kills", landed.len());
    }
    assert_eq!(place.ask(&["retry"])[0]["letters"], 0);
    assert_eq!(place.marked(), place.landed());
    assert_eq!(place.landed().len(), 100);
}

#[test]
fn keys_are_texts_or_messages_and_broken_ones_are_dead_letters() {
    let query = "SELECT _partition, _offset, _key, CAST(placement.slot AS BIGINT) FROM ads";
    let place = Place::new("keys", ", 'key.format' 'string', 'on_null_value' 'row'", query);
    let record = |key: Option<&[u8]>, value: Option<Vec<u8>>| crate::broker::NewRecord {
        partition: 0,
        key: key.map(<[u8]>::to_vec),
        value,
        timestamp: 1_795_132_800_000,
        ..Default::default()
    };
    let slot = |n: i32| crate::ads::Placement { page: "k".into(), slot: n }.encode_to_vec();
    Broker::shared().produce(
        &place.topic,
        &[
            record(Some(&slot(7)), Some(impression(0).encode_to_vec())),
            record(None, Some(impression(1).encode_to_vec())),
            record(Some(&[0xff]), Some(impression(2).encode_to_vec())),
            record(Some(&slot(8)), Some(vec![0x0a, 0xff])),
            record(Some(&[0xfe]), None),
            record(Some(&slot(9)), None),
        ],
    );
    let progress = place.run().exits(0).json();
    assert_eq!(progress[0]["records"], serde_json::json!({"read": 6, "decoded": 2, "dead": 3, "null": 1}));
    let keys = |table: &Path| -> Vec<Value> {
        let mut rows = delta::read_with_python(table).rows;
        rows.sort_by_key(|row| row["at"].as_i64());
        rows.into_iter().map(|mut row| row.remove("ad_id").unwrap()).collect()
    };
    assert_eq!(keys(&place.table()), ["\n\u{1}k\u{10}\u{7}".into(), Value::Null, "\n\u{1}k\u{10}\t".into()]);
    let letters = delta::read_with_python(&place.letters()).rows;
    let field = |offset: i64| letters.iter().find(|row| row["offset"] == offset).unwrap()["field"].clone();
    assert_eq!([field(2), field(3), field(4)], ["_key".into(), Value::Null, "_key".into()], "ad_id is not read here");

    // The same topic with messages for keys, into another table.
    place.edit(
        FILE,
        "'string'",
        &format!("'protobuf', 'key.proto' '{PROTO}', 'key.message' 'ads.v1.AdImpression.Placement'"),
    );
    place.edit(FILE, "_key, CAST(placement.slot AS BIGINT)", "_key.page, CAST(_key.slot AS BIGINT)");
    place.edit(FILE, "tables/landed", "tables/by_message");
    place.run().exits(0);
    let mut rows = delta::read_with_python(&place.dir.path().join("tables/by_message")).rows;
    rows.sort_by_key(|row| row["at"].as_i64());
    let got: Vec<(Value, Value)> = rows.iter().map(|row| (row["at"].clone(), row["slot"].clone())).collect();
    assert_eq!(got, [(0.into(), 7.into()), (1.into(), Value::Null), (5.into(), 9.into())]);
}

/// The letters of a deleted table must not be retried into the one that takes its place: it reads the records itself.
#[test]
fn letters_of_a_former_life_are_refused() {
    let place = Place::landing("former", "");
    place.produce(0, &[impressions(0..5), vec![with_text_slot(5)]].concat());
    place.run().exits(0);
    std::fs::remove_dir_all(place.table()).unwrap();
    let refused = place.run().exits(2);
    assert!(refused.stderr.contains("landed_dead_letters") && refused.stderr.contains("delete it too"), "{refused:?}");
    assert!(!place.table().join("_delta_log").exists());
    std::fs::remove_dir_all(place.letters()).unwrap();
    place.run().exits(0);
    assert_eq!((place.landed().len(), delta::read_with_python(&place.letters()).rows.len()), (5, 1));
}

#[test]
fn killed_at_random_each_record_is_in_one_place() {
    const RECORDS: u64 = 60_000;
    let place = Place::landing("killed-dead", "");
    // Every 50th record is bad.
    let values = (0..RECORDS / 2).map(|n| if n % 50 == 7 { with_text_slot(n) } else { impression(n).encode_to_vec() });
    let values: Vec<_> = values.collect();
    place.produce(0, &values);
    place.produce(1, &values);
    let words = ["run", FILE, "--available-now", "--set", "flumen.max_rows=1000"];
    let committed = || -> i64 {
        let txns = delta::txns(&place.table());
        txns.iter().filter(|(id, _)| id.starts_with("flumen:land:landed:")).map(|(_, offset)| offset).sum()
    };
    let mut chance = Chance::new(7);
    let mut kills = 0;
    while kills < 12 {
        let mut run = Background::start(&mut place.command(&words));
        let goal = committed() + 1_000 * chance.below(3) as i64;
        until("progress", Duration::from_secs(60), || committed() > goal || !run.running());
        std::thread::sleep(Duration::from_micros(chance.below(30_000)));
        assert!(run.running(), "the run was over before it was killed 12 times");
        run.kill();
        kills += 1;
    }
    finish(&mut place.command(&words)).exits(0);
    let letters = places(&place.letters(), "partition", "offset");
    let landed = place.landed();
    assert!(letters.is_disjoint(&landed), "a record is in both tables");
    assert_eq!(letters.len() as u64, RECORDS / 50);
    assert_eq!((letters.len() + landed.len()) as u64, RECORDS);
    assert!(letters.iter().all(|(_, offset)| offset % 50 == 7));
}
