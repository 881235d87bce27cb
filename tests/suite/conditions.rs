//! `WHERE` on a topic's own fields: answered while records are decoded, or after that, it is the same rows.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use prost::Message;
use serde_json::json;

use crate::ads::{AdImpression, impression, impressions};
use crate::binary::{finish, workspace};
use crate::broker::{Broker, NewRecord};
use crate::{delta, topics};

const RECORDS: u64 = 210;

/// A condition, and whether it holds for impression `n`; of `None`, a record without a value.
type Case = (&'static str, fn(Option<&AdImpression>) -> bool);

fn slot(ad: Option<&AdImpression>) -> Option<i32> {
    ad.and_then(|ad| ad.placement.as_ref()).map(|placement| placement.slot)
}

const CASES: [Case; 8] = [
    ("bid < 5.0", |ad| ad.is_some_and(|ad| ad.bid < 5.0)),
    ("placement.slot = 3", |ad| slot(ad) == Some(3)),
    ("placement IS NULL", |ad| slot(ad).is_none()),
    ("ad_id IS NULL", |ad| ad.is_none()),
    ("ad_id IN ('ad-00003', 'ad-00010', 'ad-00204')", |ad| {
        ad.is_some_and(|ad| ["ad-00003", "ad-00010", "ad-00204"].contains(&ad.ad_id.as_str()))
    }),
    ("bid >= 10 AND bid < 100 AND _offset % 2 = 0", |ad| {
        ad.is_some_and(|ad| ad.bid >= 10.0 && ad.bid < 100.0 && (ad.bid * 8.0) % 2.0 == 0.0)
    }),
    ("user_id LIKE '%7' OR bid > 20", |ad| ad.is_some_and(|ad| ad.user_id.ends_with('7') || ad.bid > 20.0)),
    ("array_length(labels) = 2", |ad| ad.is_some_and(|ad| ad.labels.len() == 2)),
];

#[test]
fn a_condition_gives_the_same_rows_wherever_it_is_answered() {
    let topic = topics::new_topic(Broker::shared(), "conditions", 1);
    topics::produce(Broker::shared(), &topic, 0, &impressions(0..RECORDS));
    Broker::shared().produce(&topic, &[NewRecord { partition: 0, ..NewRecord::default() }]);
    let mut file = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'on_null_value' 'row');"
    );
    for (case, (condition, _)) in CASES.iter().enumerate() {
        // Two scans of one topic: both decode all that either wants, and the condition is answered after that.
        let select = |branch: i32| format!("SELECT {branch}, _offset, user_id FROM ads WHERE {condition}");
        for (sink, query) in [("first", select(0)), ("after", format!("{} UNION ALL {}", select(0), select(1)))] {
            write!(
                file,
                "CREATE EXTERNAL TABLE {sink}_{case} (branch INT, at BIGINT, user_id VARCHAR) STORED AS DELTA
                 LOCATION 'tables/{sink}_{case}';
                 INSERT INTO {sink}_{case} SELECT CAST(b AS INT), at, u FROM ({query}) AS t(b, at, u);"
            )
            .unwrap();
        }
    }
    let dir = workspace();
    std::fs::write(dir.path().join("conditions.sql"), file).unwrap();
    let flumen = |words: &[&str]| finish(&mut Broker::shared().flumen(dir.path(), words)).exits(0);
    flumen(&["run", "conditions.sql", "--available-now"]);
    let rows = |table: String| -> Vec<(i64, i64)> {
        let rows = delta::read_with_python(&dir.path().join("tables").join(table)).rows;
        let mut rows: Vec<_> =
            rows.iter().map(|row| (row["branch"].as_i64().unwrap(), row["at"].as_i64().unwrap())).collect();
        rows.sort_unstable();
        rows
    };
    for (case, (condition, holds)) in CASES.iter().enumerate() {
        let at = (0..RECORDS).map(impression).map(Some).chain([None]);
        let expected: Vec<i64> =
            at.enumerate().filter(|(_, ad)| holds(ad.as_ref())).map(|(offset, _)| offset as i64).collect();
        assert!(!expected.is_empty(), "{condition}");
        let of = |branch: i64| expected.iter().map(move |at| (branch, *at));
        assert_eq!(rows(format!("first_{case}")), of(0).collect::<Vec<_>>(), "{condition}");
        assert_eq!(rows(format!("after_{case}")), of(0).chain(of(1)).collect::<Vec<_>>(), "{condition}");
    }
    let explained = flumen(&["explain", "conditions.sql"]).stdout;
    assert!(explained.contains("condition=bid@0 < 5"), "{explained}");
}

#[test]
fn of_a_record_that_is_left_out_only_the_condition_is_read() {
    let topic = topics::new_topic(Broker::shared(), "left-out", 1);
    let dir = workspace();
    let file = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE landed (at BIGINT, user_id VARCHAR) STORED AS DELTA LOCATION 'tables/landed';
         INSERT INTO landed SELECT _offset, user_id FROM ads WHERE ad_id <> 'ad-00001';"
    );
    std::fs::write(dir.path().join("land.sql"), file).unwrap();
    // user_id (3) is not UTF-8.
    let broken =
        |n: u64| [AdImpression { user_id: String::new(), ..impression(n) }.encode_to_vec(), vec![0x1a, 1, 0xff]];
    let values = [
        impression(0).encode_to_vec(),
        broken(1).concat(),
        broken(2).concat(),
        impression(3).encode_to_vec(),
        // ad_id (1) is not UTF-8.
        vec![0x0a, 1, 0xff],
    ];
    topics::produce(Broker::shared(), &topic, 0, &values);
    let run = ["-o", "json", "run", "land.sql", "--available-now"];
    let done = finish(&mut Broker::shared().flumen(dir.path(), run)).exits(0).json();
    assert_eq!(done[0]["records"], json!({"read": 5, "decoded": 3, "dead": 2, "null": 0}));
    assert_eq!(done[0]["rows"]["written"], 2);
    let at = |table: &str, column: &str| -> BTreeSet<i64> {
        let rows = delta::read_with_python(&dir.path().join("tables").join(table)).rows;
        rows.iter().map(|row| row[column].as_i64().unwrap()).collect()
    };
    assert_eq!(at("landed", "at"), BTreeSet::from([0, 3]));
    assert_eq!(at("landed_dead_letters", "offset"), BTreeSet::from([2, 4]));
}

#[test]
fn a_cast_is_asked_with_the_condition_that_guards_it() {
    let topic = topics::new_topic(Broker::shared(), "guarded", 1);
    let dir = workspace();
    let file = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE numbered (at BIGINT, user_id VARCHAR) STORED AS DELTA LOCATION 'tables/numbered';
         INSERT INTO numbered SELECT _offset, user_id FROM ads
         WHERE _offset = 3 AND CAST(user_id AS BIGINT) = 7 AND bid >= 0;"
    );
    std::fs::write(dir.path().join("numbered.sql"), file).unwrap();
    let mut values = impressions(0..20);
    values[3] = AdImpression { user_id: "7".into(), ..impression(3) }.encode_to_vec();
    topics::produce(Broker::shared(), &topic, 0, &values);
    let flumen = |words: &[&str]| finish(&mut Broker::shared().flumen(dir.path(), words)).exits(0);
    assert_eq!(flumen(&["-o", "json", "run", "numbered.sql", "--available-now"]).json()[0]["rows"]["written"], 1);
    let explained = flumen(&["explain", "numbered.sql"]).stdout;
    let scan = explained.lines().find(|line| line.contains("TopicScanExec")).unwrap();
    assert!(scan.contains("condition=bid@0 >= 0") && !scan.contains("CAST"), "{scan}");
}

#[test]
fn what_is_odd_is_counted_beside_a_condition_too() {
    let topic = topics::new_topic(Broker::shared(), "odd", 1);
    let dir = workspace();
    let proto = "syntax = \"proto3\"; enum Kind { NONE = 0; VIEW = 1; } message Odd { Kind kind = 1; double bid = 2; }";
    std::fs::write(dir.path().join("proto/odd.proto"), proto).unwrap();
    let file = format!(
        "CREATE EXTERNAL TABLE odds STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/odd.proto', 'value.message' 'Odd', 'unknown_fields' 'keep');
         CREATE EXTERNAL TABLE odd (unknown VARBINARY, kind VARCHAR) STORED AS DELTA LOCATION 'tables/odd';
         INSERT INTO odd SELECT _unknown, kind FROM odds WHERE bid < 5 AND kind <> 'VIEW';"
    );
    std::fs::write(dir.path().join("odd.sql"), file).unwrap();
    // Kind 7 has no name, field 100 is not known.
    let odd = |n: u32| [&[0x08, 7, 0x11][..], &f64::from(n).to_le_bytes(), &[0xa0, 0x06, 1]].concat();
    topics::produce(Broker::shared(), &topic, 0, &(0..20).map(odd).collect::<Vec<_>>());
    let run = ["-o", "json", "run", "odd.sql", "--available-now"];
    let done = finish(&mut Broker::shared().flumen(dir.path(), run)).exits(0).json();
    let source = &done[0]["sources"][0];
    assert_eq!((&done[0]["rows"]["written"], &source["numUnknownFields"]), (&json!(5), &json!(5)));
    // The condition's columns are looked at in every record; those that pass do not count twice.
    assert_eq!(source["numNamelessEnumNumbers"], 20);
}
