//! `flumen replay`: the rows of the live run without a broker, whatever the micro-batches are.

use std::path::Path;

use prost::Message;
use serde_json::Value;

use crate::ads::{impression, impressions};
use crate::binary::{Finished, finish, flumen, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const FILE: &str = "queries/score_impressions.sql";

/// Records a topic into `dir` of `root`.
fn record(root: &Path, topic: &str, dir: &str) {
    let words = ["record", "--brokers", Broker::shared().address(), "--topic", topic, "--into", dir];
    finish(&mut flumen(root, words)).exits(0);
}

fn replay(root: &Path, words: &[&str]) -> Finished {
    finish(&mut flumen(root, ["-o", "json", "replay"].iter().chain(words)))
}

/// What a replay says of its tables: the last lines.
fn outcomes(done: &Finished) -> Vec<Value> {
    done.json().into_iter().filter(|line| line.get("sha256").is_some()).collect()
}

fn rows(table: &Path) -> Vec<String> {
    let mut rows: Vec<String> = delta::read_with_python(table).rows.iter().map(|row| format!("{row:?}")).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn a_replay_gives_the_rows_of_the_live_run_whatever_the_micro_batches_are() {
    let topic = topics::new_topic(Broker::shared(), "replayed", 3);
    (0..3).for_each(|partition| topics::produce(Broker::shared(), &topic, partition, &impressions(0..700)));
    topics::produce(Broker::shared(), &topic, 1, &[vec![0xff; 3]]);
    let dir = workspace();
    let root = dir.path();
    let text = std::fs::read_to_string(root.join(FILE)).unwrap();
    assert!(text.contains("/ad-impressions'"), "{text}");
    std::fs::write(root.join(FILE), text.replace("/ad-impressions'", &format!("/{topic}'"))).unwrap();
    finish(&mut Broker::shared().flumen(root, ["run", FILE, "--available-now"])).exits(0);
    record(root, &topic, "recording");
    let recording = format!("{topic}=recording");
    let ways: [&[&str]; 6] =
        [&[], &[], &["--batch-rows", "7"], &["--cuts", "1"], &["--cuts", "2"], &["--cuts", "3", "--batch-rows", "50"]];
    let mut hashes = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        let into = format!("replay-{n}");
        let words = [&[FILE, "--recording", &recording, "--into", &into][..], way].concat();
        let done = replay(root, &words).exits(0);
        let outcome = outcomes(&done);
        let batches = done.json().len() - outcome.len();
        assert!(way.is_empty() == (batches == 1), "{way:?}: {batches} micro-batches");
        assert_eq!(rows(&root.join(&into).join("scored_impressions")), rows(&root.join("tables/scored_impressions")));
        let letters = root.join(&into).join("scored_impressions_dead_letters");
        assert_eq!(delta::read_with_python(&letters).rows.len(), 1);
        let names: Vec<_> = outcome.iter().map(|table| table["table"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["scored_impressions", "scored_impressions_dead_letters"]);
        hashes.push(outcome);
    }
    for outcome in &hashes {
        assert_eq!(outcome[0]["sha256"], hashes[0][0]["sha256"]);
        assert_eq!(outcome[1]["sha256"], hashes[0][1]["sha256"]);
        assert_eq!(outcome[0]["rows"], rows(&root.join("tables/scored_impressions")).len());
    }
}

#[test]
fn the_clock_and_the_lookups_are_those_that_are_asked_for() {
    let topic = topics::new_topic(Broker::shared(), "clocked", 1);
    topics::produce(Broker::shared(), &topic, 0, &[impression(1).encode_to_vec(), impression(2).encode_to_vec()]);
    let dir = workspace();
    let root = dir.path();
    record(root, &topic, "recording");
    let file = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://nowhere.invalid:1/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'start' 'latest');
         CREATE EXTERNAL TABLE names STORED AS DELTA LOCATION 'not/here';
         CREATE EXTERNAL TABLE named (name VARCHAR, at TIMESTAMP) STORED AS DELTA LOCATION 's3://nowhere/named';
         INSERT INTO named SELECT n.name, now() FROM ads i JOIN names n ON i.ad_id = n.ad_id;
         SELECT * FROM named WHERE name = 'bad';"
    );
    std::fs::write(root.join("named.sql"), file).unwrap();
    let names = |name: &str| std::fs::write(root.join("names.csv"), format!("ad_id,name\nad-00001,{name}\n")).unwrap();
    names("one");
    let recording = format!("{topic}=recording");
    let words =
        |into: &'static str| ["named.sql", "--recording", &recording, "--into", into, "--table", "names=names.csv"];
    let clock = ["--clock", "2036-11-22T10:00:00Z"];
    replay(root, &[&words("first")[..], &clock].concat()).exits(0);
    let row = &delta::read_with_python(&root.join("first/named")).rows[0];
    assert_eq!(
        (row["name"].as_str(), row["at"].as_str().unwrap().starts_with("2036-11-22")),
        (Some("one"), true),
        "{row:?}"
    );
    // Without a clock it is the time of the last record: the same again.
    let hash = |into| outcomes(&replay(root, &words(into)).exits(0))[0]["sha256"].clone();
    assert_eq!(hash("second"), hash("third"));
    names("bad");
    let broken = replay(root, &words("fourth")).exits(3);
    assert!(broken.stderr.contains("this check must return no rows"), "{}", broken.stderr);
}

#[test]
fn what_cannot_be_replayed_says_why_and_leaves_nothing() {
    let topic = topics::new_topic(Broker::shared(), "unplayed", 1);
    topics::produce(Broker::shared(), &topic, 0, &impressions(0..10));
    let dir = workspace();
    let root = dir.path();
    let text = std::fs::read_to_string(root.join(FILE)).unwrap();
    std::fs::write(root.join(FILE), text.replace("/ad-impressions'", &format!("/{topic}'"))).unwrap();
    record(root, &topic, "recording");
    let wrong = |recording: &str, more: &[&str]| {
        let words = [&[FILE, "--recording", recording, "--into", "out"][..], more].concat();
        let done = replay(root, &words).exits(2);
        assert!(!root.join("out").exists());
        done.stderr
    };
    let good = format!("{topic}=recording");
    assert!(wrong("other=recording", &[]).contains(&format!("it is a recording of topic {topic}")));
    assert!(wrong(&format!("{topic}=nowhere"), &[]).contains("there is no such directory"));
    assert!(
        wrong(&good, &["--table", "content_with_category=x.csv"]).contains("did you mean `content_with_categories`?")
    );
    assert!(wrong(&good, &["--clock", "noon"]).contains("write it as 2026-01-31T08:00:00Z"));
    assert!(wrong(&good, &["--batch-rows", "0"]).contains("--batch-rows"));
    let part = root.join("recording/partition-00000-00000.parquet");
    let whole = std::fs::read(&part).unwrap();
    std::fs::write(&part, &whole[..whole.len() / 2]).unwrap();
    assert!(wrong(&good, &[]).contains("is not a whole Parquet file"));
    std::fs::remove_file(&part).unwrap();
    assert!(wrong(&good, &[]).contains("it tells of 10 records of partition 0"));
    std::fs::write(&part, &whole).unwrap();
    std::fs::create_dir(root.join("full")).unwrap();
    std::fs::write(root.join("full/file"), "").unwrap();
    let full = replay(root, &[FILE, "--recording", &good, "--into", "full"]).exits(2);
    assert!(full.stderr.contains("the directory is not empty"), "{}", full.stderr);
    let file = root.join("queries/content_with_categories.sql");
    let none = replay(root, &[file.to_str().unwrap(), "--recording", &good, "--into", "out"]).exits(2);
    assert!(none.stderr.contains("does not read that topic; leave it out"), "{}", none.stderr);
}
