//! Lookups of a running pipeline: a micro-batch is joined with the version that its commit names, and nothing that is
//! kept from one micro-batch to the next hides another version.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};

use crate::ads::{AdImpression, impression, impressions};
use crate::binary::{Background, finish, until, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const PATIENCE: Duration = Duration::from_secs(60);

fn source(topic: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE names (ad_id VARCHAR, name VARCHAR) STORED AS CSV LOCATION 'names.csv'
         OPTIONS ('format.has_header' 'true');"
    )
}

/// Puts a lookup with this name for each ad in the place of the one that was there, whole.
fn replace_names(root: &Path, ads: u64, name: &str) {
    let mut lines = "ad_id,name\n".to_owned();
    (0..ads).for_each(|ad| lines += &format!("{},{name}\n", impression(ad).ad_id));
    std::fs::write(root.join("names.csv.new"), lines).unwrap();
    std::fs::rename(root.join("names.csv.new"), root.join("names.csv")).unwrap();
}

fn written(table: &Path) -> u64 {
    if !table.join("_delta_log").is_dir() {
        return 0;
    }
    delta::commit_infos(table).iter().filter_map(|info| info["rows"]["written"].as_u64()).sum()
}

#[test]
fn rows_are_joined_with_the_version_that_their_commit_names() {
    let topic = topics::new_topic(Broker::shared(), "renamed", 1);
    let dir = workspace();
    let mut file = format!("SET flumen.trigger = '50 milliseconds'; {}", source(&topic));
    // One plan is kept from micro-batch to micro-batch; the other, with the time of day in it, is made anew.
    for (sink, at) in [("kept", "'-'"), ("anew", "CAST(now() AS VARCHAR)")] {
        file += &format!(
            "CREATE EXTERNAL TABLE {sink} (at BIGINT, name VARCHAR, loaded VARCHAR) STORED AS DELTA
             LOCATION 'tables/{sink}';
             INSERT INTO {sink} SELECT i._offset, n.name, {at} FROM ads i JOIN names n ON i.ad_id = n.ad_id;"
        );
    }
    std::fs::write(dir.path().join("renamed.sql"), file).unwrap();
    let names = ["one", "three", "four-and-more"];
    replace_names(dir.path(), 300, names[0]);
    let mut running = Background::start(&mut Broker::shared().flumen(dir.path(), ["run", "renamed.sql"]));
    let tables = ["kept", "anew"].map(|sink| dir.path().join("tables").join(sink));
    for (round, name) in names.iter().enumerate() {
        let first = 100 * round as u64;
        replace_names(dir.path(), 300, name);
        // Two micro-batches of each version: the second one finds what the first one left.
        for half in [first, first + 50] {
            topics::produce(Broker::shared(), &topic, 0, &impressions(half..half + 50));
            until("the rows are there", PATIENCE, || {
                assert!(running.running(), "the run has ended");
                tables.iter().all(|table| written(table) == half + 50)
            });
        }
    }
    running.signal("TERM");
    running.wait().exits(0);
    for table in &tables {
        let rows = delta::read_with_python(table).rows;
        assert_eq!(rows.len(), 300);
        for row in rows {
            let round = row["at"].as_u64().unwrap() / 100;
            assert_eq!(row["name"], names[round as usize], "{}: {row:?}", table.display());
        }
        let infos = delta::commit_infos(table);
        let mut versions: Vec<&Value> = infos.iter().filter_map(|info| info.get("lookups")).collect();
        versions.retain(|lookups| **lookups != json!([]));
        versions.dedup();
        assert_eq!(versions.len(), names.len(), "{versions:?}");
    }
}

#[test]
fn an_empty_lookup_hides_no_broken_record() {
    let topic = topics::new_topic(Broker::shared(), "hidden", 2);
    let dir = workspace();
    replace_names(dir.path(), 0, "");
    let file = format!(
        "{} CREATE EXTERNAL TABLE found (at BIGINT, name VARCHAR) STORED AS DELTA LOCATION 'tables/found';
         INSERT INTO found SELECT i._offset, n.name FROM ads i JOIN names n ON i.ad_id = n.ad_id;",
        source(&topic)
    );
    std::fs::write(dir.path().join("found.sql"), file).unwrap();
    // ad_id (1) is not UTF-8.
    topics::produce(Broker::shared(), &topic, 0, &[impression(0).encode_to_vec(), vec![0x0a, 1, 0xff]]);
    topics::produce(Broker::shared(), &topic, 1, &[AdImpression::default().encode_to_vec()]);
    let run = ["-o", "json", "run", "found.sql", "--available-now"];
    let done = finish(&mut Broker::shared().flumen(dir.path(), run)).exits(0).json();
    assert_eq!(done[0]["records"], json!({"read": 3, "decoded": 2, "dead": 1, "null": 0}));
    assert_eq!(done[0]["rows"]["written"], 0);
    let letters = delta::read_with_python(&dir.path().join("tables/found_dead_letters")).rows;
    let places: BTreeMap<_, _> =
        letters.iter().map(|row| (row["partition"].as_i64(), row["offset"].as_i64())).collect();
    assert_eq!(places, BTreeMap::from([(Some(0), Some(1))]));
    let letters = |verb: &str| {
        finish(&mut Broker::shared().flumen(dir.path(), ["-o", "json", "dead-letters", verb, "found.sql"]))
            .exits(0)
            .json()
    };
    let retried = letters("retry");
    assert_eq!((&retried[0]["committed"], &retried[0]["dead"]), (&json!(0), &json!(1)), "{retried:?}");
    assert_eq!(letters("list")[0]["count"], 1, "it is as broken as before");
}
