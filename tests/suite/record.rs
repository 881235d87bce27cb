//! `flumen record` on a broker: bounds, samples, redaction, interrupts, and lines of JSON.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};

use crate::ads::{AdImpression, impression, impressions};
use crate::binary::{Background, Finished, finish, flumen, until, workspace};
use crate::broker::{Broker, NewRecord};
use crate::topics;

/// A topic of two partitions with `records` impressions in each, keyed by their user.
fn topic(name: &str, records: u64) -> String {
    let topic = topics::new_topic(Broker::shared(), name, 2);
    for partition in 0..2 {
        let record = |n: u64| NewRecord {
            partition,
            key: Some(impression(n).user_id.into_bytes()),
            value: Some(impression(n).encode_to_vec()),
            timestamp: 1_795_132_800_000 + 1000 * n as i64,
            ..NewRecord::default()
        };
        Broker::shared().produce(&topic, &(0..records).map(record).collect::<Vec<_>>());
    }
    topic
}

fn record(root: &Path, topic: &str, words: &[&str]) -> Finished {
    let brokers = Broker::shared().address();
    let first = ["-o", "json", "record", "--brokers", brokers, "--topic", topic];
    finish(&mut Broker::shared().flumen(root, first.iter().chain(words)))
}

fn recorded(root: &Path, topic: &str, words: &[&str]) -> Value {
    record(root, topic, words).exits(0).json().remove(0)
}

/// The records of a recording, as lines of JSON.
fn lines(root: &Path, dir: &str) -> Vec<Value> {
    let done = finish(&mut flumen(root, ["record", "--recording", dir, "--to-kcat", "-"])).exits(0);
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn payload(line: &Value) -> Vec<u8> {
    match line["payload_base64"].as_str() {
        Some(coded) => STANDARD.decode(coded).unwrap(),
        None => line["payload"].as_str().unwrap().as_bytes().to_vec(),
    }
}

#[test]
fn bounds_say_what_is_recorded() {
    let (topic, dir) = (topic("bounds", 100), workspace());
    let root = dir.path();
    let ranges = |into: &str, words: &[&str]| -> Vec<(i64, i64)> {
        let mut all = vec!["--into", into];
        all.extend(words);
        let told = recorded(root, &topic, &all);
        let of = |p: &Value, name: &str| p[name].as_i64().unwrap();
        let partitions = told["partitions"].as_array().unwrap().clone();
        let sum: i64 = partitions.iter().map(|p| of(p, "records")).sum();
        assert_eq!((told["records"].as_i64(), lines(root, into).len() as i64), (Some(sum), sum));
        partitions.iter().map(|p| (of(p, "from"), of(p, "to"))).collect()
    };
    assert_eq!(ranges("all", &[]), [(0, 100), (0, 100)]);
    assert_eq!(ranges("from", &["--from", "0:10"]), [(10, 100), (0, 100)]);
    assert_eq!(ranges("one", &["--from", "0:10", "--to", "0:30"]), [(10, 30)]);
    let time = ["--from", "2026-11-20T00:00:10Z", "--to", "2026-11-20T00:00:30Z"];
    assert_eq!(ranges("time", &time), [(10, 30), (10, 30)]);
    assert_eq!(ranges("limit", &["--limit", "31"]), [(0, 16), (0, 15)]);
    assert_eq!(ranges("nothing", &["--from", "latest"]), [(100, 100), (100, 100)]);
    let wrong = |words: &[&str]| {
        let mut all = vec!["--into", "wrong"];
        all.extend(words);
        let done = record(root, &topic, &all).exits(2);
        assert!(!root.join("wrong").exists());
        done.stderr
    };
    assert!(wrong(&["--from", "0:30", "--to", "0:10"]).contains("the end, offset 10, is before the start, offset 30"));
    assert!(wrong(&["--to", "0:101"]).contains("partition 0: it ends at offset 100, before 101"));
    assert!(wrong(&["--from", "7:0"]).contains("has no partition 7; it has 0, 1"));
    assert!(wrong(&["--from", "yesterday"]).contains("`yesterday` is not a position"));
    assert!(wrong(&["--sample", "2/1"]).contains("write it as 1/100"));
    assert!(record(root, &topic, &["--into", "all"]).exits(2).stderr.contains("holds a recording already"));
    topics::delete_records(Broker::shared(), &topic, 0, 20);
    assert!(wrong(&["--from", "0:10"]).contains("partition 0: offsets [10, 20) are gone; begin at 20 or later"));
}

#[test]
fn a_sample_has_whole_keys_and_what_is_redacted_is_gone() {
    let (topic, dir) = (topic("hidden-fields", 300), workspace());
    let root = dir.path();
    let values = ["--proto", "proto/ads/v1/ads.proto", "--message", "ads.v1.AdImpression"];
    let rules = ["--redact", "user_id=hash", "--redact", "_key=hash", "--redact", "session_id=null"];
    let more = ["--redact", "placement.page=fake", "--sample", "1/4", "--redact-salt", "s"];
    let words = [&["--into", "sample"][..], &values, &rules, &more].concat();
    let told = recorded(root, &topic, &words);
    assert_eq!(told["sample"], "1/4");
    assert_eq!(told["redacted"], json!(["user_id=hash", "_key=hash", "session_id=null", "placement.page=fake"]));
    assert_eq!(told["value"]["message"], "ads.v1.AdImpression");
    assert!(root.join("sample").join(told["value"]["descriptor"].as_str().unwrap()).is_file());
    let lines = lines(root, "sample");
    let users: BTreeSet<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert!((10..45).contains(&users.len()), "{} of 100 users", users.len());
    // Each of 100 users has three records in each of two partitions.
    assert_eq!(lines.len(), users.len() * 6);
    for line in &lines {
        let ad = AdImpression::decode(&payload(line)[..]).unwrap();
        let before = impression(line["offset"].as_u64().unwrap());
        assert_eq!(ad.user_id, line["key"].as_str().unwrap());
        assert_eq!((ad.user_id.len(), &ad.session_id[..]), (32, ""));
        let page = |ad: &AdImpression| ad.placement.as_ref().map(|placement| placement.page.clone());
        assert_eq!(page(&ad).map(|page| page.len()), page(&before).map(|page| page.len()));
        assert!(page(&ad).is_none() || page(&ad) != page(&before));
        let without = |ad| AdImpression { user_id: String::new(), session_id: String::new(), placement: None, ..ad };
        assert_eq!(without(ad), without(before));
    }
    // The same salt, another day: the recordings fit together.
    let again = [&["--into", "again"][..], &values, &rules, &more].concat();
    assert_eq!(recorded(root, &topic, &again)["sha256"], told["sha256"]);
    let wrong = [&["--into", "wrong", "--redact", "usr_id=hash"][..], &values].concat();
    assert!(record(root, &topic, &wrong).exits(2).stderr.contains("did you mean `user_id`?"));
    assert!(!root.join("wrong").exists());
}

#[test]
fn one_that_was_killed_is_gone_on_with() {
    let topic = topics::new_topic(Broker::shared(), "killed-recording", 2);
    let values = impressions(0..60_000);
    (0..2).for_each(|partition| topics::produce(Broker::shared(), &topic, partition, &values));
    let dir = workspace();
    let root = dir.path();
    let whole = recorded(root, &topic, &["--into", "whole"]);
    let brokers = Broker::shared().address();
    let words = ["record", "--brokers", brokers, "--topic", &topic, "--into", "cut"];
    let journal = root.join("cut/recording.json");
    // Killed once it has begun, and stopped by a signal the second time.
    let killed = Background::start(&mut Broker::shared().flumen(root, words));
    until("it has begun", Duration::from_secs(60), || journal.is_file());
    killed.kill();
    let is_whole = root.join("cut/manifest.json").is_file();
    if !is_whole {
        let check = finish(&mut flumen(root, ["record", "--recording", "cut", "--to-kcat", "-"])).exits(2);
        assert!(check.stderr.contains("was interrupted"), "{}", check.stderr);
        let other = record(root, &topic, &["--into", "cut", "--limit", "5"]).exits(2);
        assert!(other.stderr.contains("another recording is under way"), "{}", other.stderr);
        assert_eq!(recorded(root, &topic, &["--into", "cut"])["sha256"], whole["sha256"]);
    }
    assert_eq!(lines(root, "cut").len(), 120_000);
}

#[test]
fn lines_of_json_become_a_recording_and_a_recording_lines() {
    let (topic, dir) = (topic("lines", 50), workspace());
    let root = dir.path();
    let told = recorded(root, &topic, &["--into", "first"]);
    finish(&mut flumen(root, ["record", "--recording", "first", "--to-kcat", "lines.jsonl"])).exits(0);
    let import = |from: &str, into: &str| {
        finish(&mut flumen(root, ["-o", "json", "record", "--from-kcat", from, "--topic", &topic, "--into", into]))
    };
    let leaks = ["record", "--recording", "first", "--to-kcat", "leak.jsonl", "--redact", "user_id=hash"];
    finish(&mut flumen(root, leaks)).exits(2);
    assert!(!root.join("leak.jsonl").exists());
    // One that was killed in the middle of the lines is begun anew.
    let killed = r#"{"topic":"t","topic_id":"","cluster_id":"","ranges":[],"asked":{"from-kcat":"lines.jsonl"}}"#;
    std::fs::create_dir(root.join("second")).unwrap();
    std::fs::write(root.join("second/recording.json"), killed).unwrap();
    assert_eq!(import("lines.jsonl", "second").exits(0).json()[0]["sha256"], told["sha256"]);
    let text = std::fs::read_to_string(root.join("lines.jsonl")).unwrap();
    std::fs::write(root.join("broken.jsonl"), text.replacen("\"offset\":7", "\"offset\":\"seven\"", 1)).unwrap();
    let broken = import("broken.jsonl", "third").exits(2);
    assert!(broken.stderr.contains("broken.jsonl:8: it is no line of `kcat -J`"), "{}", broken.stderr);
    assert_eq!(std::fs::read_dir(root.join("third")).map(Iterator::count).unwrap_or(0), 0);
}
