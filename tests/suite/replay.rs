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

/// A run of three commits, each with another version of the lookup; the topic's name.
fn run_three_times(root: &Path, name: &str) -> String {
    let topic = topics::new_topic(Broker::shared(), name, 2);
    let file = |where_: &str| {
        format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
             CREATE EXTERNAL TABLE names STORED AS DELTA LOCATION 'tables/names';
             CREATE EXTERNAL TABLE named (user_id VARCHAR, name VARCHAR, at TIMESTAMP, part INT,
               CONSTRAINT fourth CHECK (user_id <> 'user-00004')) STORED AS DELTA PARTITIONED BY (part)
             LOCATION 'tables/named' OPTIONS ('on_violation' 'quarantine');
             INSERT INTO named SELECT i.user_id, n.name, now(), i._partition
             FROM ads i JOIN names n ON i.ad_id = n.ad_id{where_};"
        )
    };
    std::fs::write(root.join("named.sql"), file("")).unwrap();
    std::fs::write(root.join("changed.sql"), file(" WHERE i._offset > 2").replace("named.sql", "named")).unwrap();
    let names = "CREATE EXTERNAL TABLE source (ad_id VARCHAR, name VARCHAR) STORED AS CSV LOCATION 'names.csv'
        OPTIONS ('format.has_header' 'true');
        CREATE EXTERNAL TABLE names (ad_id VARCHAR, name VARCHAR) STORED AS DELTA LOCATION 'tables/names'
        OPTIONS ('mode' 'replace');
        INSERT INTO names SELECT ad_id, name FROM source;";
    std::fs::write(root.join("names.sql"), names).unwrap();
    for round in 0..3 {
        let rows: String = (0..10_000).map(|ad| format!("ad-{ad:05},name {round} {ad}\n")).collect();
        std::fs::write(root.join("names.csv"), format!("ad_id,name\n{rows}")).unwrap();
        finish(&mut flumen(root, ["run", "names.sql", "--available-now"])).exits(0);
        for partition in 0..2 {
            let mut records = impressions(round * 20..round * 20 + 20);
            records.push(vec![0xff; 3]);
            topics::produce(Broker::shared(), &topic, partition, &records);
        }
        finish(&mut Broker::shared().flumen(root, ["run", "named.sql", "--available-now"])).exits(0);
    }
    topic
}

#[test]
fn a_commit_is_made_again_from_what_it_says_of_itself() {
    let dir = workspace();
    let root = dir.path();
    let topic = run_three_times(root, "remade");
    record(root, &topic, "recording");
    let recording = format!("{topic}=recording");
    let like = |file: &str, like: &str, more: &[&str]| {
        let words = [&["-o", "json", "replay", file, "--like", like][..], more].concat();
        finish(&mut Broker::shared().flumen(root, words))
    };
    let newest = delta::commit_infos(&root.join("tables/named")).len();
    let all = format!("named@0..{}", newest - 1);
    // From recordings, and from the topic itself: each with the lookup's version and the clock of then.
    for more in [&["--recording", &recording][..], &[]] {
        let done = like("named.sql", &all, more).exits(0);
        let made: Vec<_> = done.json().into_iter().filter(|line| line["skipped"].is_null()).collect();
        assert_eq!(made.len(), 3, "{made:?}");
        for again in &made {
            let rows = &again["difference"]["rows"];
            assert_eq!((&again["records"], &rows["left"]), (&Value::from(42), &rows["common"]), "{again}");
            assert!(rows["left"].as_u64().unwrap() > 10, "{again}");
        }
    }
    // Another file makes other rows of it.
    let text = std::fs::read_to_string(root.join("changed.sql")).unwrap();
    std::fs::write(root.join("changed.sql"), format!("SET flumen.pipeline = 'named';\n{text}")).unwrap();
    let first = delta::commit_infos(&root.join("tables/named"))
        .iter()
        .position(|info| info["records"]["read"].as_u64() == Some(42))
        .unwrap();
    let version = format!("named@{first}");
    let changed = like("changed.sql", &version, &["--into", "kept"]).exits(3);
    let again = &changed.json()[0];
    assert!(again["difference"]["rows"]["only_left"].as_u64().unwrap() > 0, "{again}");
    assert!(again["notes"][0].as_str().unwrap().contains("not the one that made the commit"), "{again}");
    assert!(again["counts"].to_string().contains("rows written: "), "{again}");
    assert!(root.join(format!("kept/{version}/named/_delta_log")).is_dir());
    let words = ["replay", "changed.sql", "--like", &version];
    let text = finish(&mut Broker::shared().flumen(root, words)).exits(3);
    assert!(text.stdout.contains("[then → now]") && text.stderr.contains("1 of 1 commits"), "{}", text.stdout);
    assert!(like("changed.sql", &version, &["--into", "kept"]).exits(2).stderr.contains("is there already"));
    for (wrong, told) in [
        ("name@1", "did you mean `named`?"),
        ("named@9999", "has no version 9999: name one from 0 to"),
        ("named", "write TABLE@VERSION or TABLE@FROM..TO"),
        ("named@3..1", "write the earlier version first"),
    ] {
        let failed = like("named.sql", wrong, &[]).exits(2);
        assert!(failed.stderr.contains(told), "{wrong}: {}", failed.stderr);
    }
}

#[test]
fn a_large_commit_is_made_again_in_pieces_and_is_the_same() {
    let topic = topics::new_topic(Broker::shared(), "large", 1);
    let values = impressions(0..1_000);
    let many: Vec<_> = values.iter().cycle().take(130_000).cloned().collect();
    topics::produce(Broker::shared(), &topic, 0, &many);
    let dir = workspace();
    let root = dir.path();
    let file = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE out (at BIGINT) STORED AS DELTA LOCATION 'tables/out';
         INSERT INTO out SELECT _offset FROM ads WHERE _offset % 3 > 0;"
    );
    std::fs::write(root.join("large.sql"), file).unwrap();
    finish(&mut Broker::shared().flumen(root, ["run", "large.sql", "--available-now"])).exits(0);
    let infos = delta::commit_infos(&root.join("tables/out"));
    let read = |info: &Value| info["records"]["read"].as_u64().unwrap();
    // More than a run dares to take at first.
    let version = infos.iter().position(|info| read(info) > 50_000).unwrap();
    let words = ["-o", "json", "replay", "large.sql", "--like", &format!("out@{version}")];
    let again = finish(&mut Broker::shared().flumen(root, words)).exits(0).json().remove(0);
    assert_eq!(again["records"].as_u64().unwrap(), read(&infos[version]), "{again}");
}

#[test]
fn what_a_commit_was_made_from_and_is_gone_is_named() {
    let dir = workspace();
    let root = dir.path();
    let topic = run_three_times(root, "gone");
    let first = delta::commit_infos(&root.join("tables/named"))
        .iter()
        .position(|info| info["records"]["read"].as_u64() == Some(42))
        .unwrap();
    let version = format!("named@{first}");
    let fails = |told: &[&str]| {
        let words = ["replay", "named.sql", "--like", &version];
        let failed = finish(&mut Broker::shared().flumen(root, words)).exits(3);
        assert!(told.iter().all(|part| failed.stderr.contains(part)), "{told:?}\n{}", failed.stderr);
    };
    // A data file of the table.
    let file = delta::files_added(&root.join("tables/named"), first).remove(0);
    let path = root.join("tables/named").join(&file);
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    fails(&["data file `", "is gone: a vacuum has taken it", "vacuum_retention"]);
    std::fs::write(&path, kept).unwrap();
    // The version of the lookup.
    let lookup = root.join("tables/names");
    let path = lookup.join(delta::files_added(&lookup, 0).remove(0));
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    fails(&["lookup `names`: version 0", "is gone: log clean-up or a vacuum has taken it", "--table names=PATH"]);
    std::fs::write(&path, kept).unwrap();
    // Records of the topic.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Broker::shared().delete_records(&topic, 1, 5));
    fails(&["partition 1: the commit was made from offsets [0, 21), and [5, 63) is there"]);
    // The entry of the log.
    std::fs::remove_file(root.join(format!("tables/named/_delta_log/{first:020}.json"))).unwrap();
    (0..first).for_each(|v| drop(std::fs::remove_file(root.join(format!("tables/named/_delta_log/{v:020}.json")))));
    fails(&["is gone: log clean-up has taken what is before", "log_retention"]);
}
