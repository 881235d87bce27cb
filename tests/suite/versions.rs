//! Writers of two versions of a message on one topic, through the real binary.

use std::path::Path;

use prost::Message;
use serde_json::Value;

use crate::ads::impression;
use crate::binary::{Finished, finish, workspace};
use crate::broker::Broker;
use crate::{delta, topics};

const COLUMNS: &str =
    "ad_id, user_id, impressed_at, placement.page, placement.slot, CAST(array_length(labels) AS BIGINT), bid";

/// Impression `n` as a later version writes it: what it knows more stands first, in between and in the nested message,
/// the fields are in another order, and the placement comes in two parts, which are to be merged.
fn as_version_2(n: u64) -> Vec<u8> {
    let mut whole = impression(n);
    let (placement, labels) = (whole.placement.take(), std::mem::take(&mut whole.labels));
    // canary (20) = 7, a group (21) with a field in it.
    let mut bytes = vec![0xa0, 1, 7, 0xab, 1, 0x08, 1, 0xac, 1];
    for label in labels {
        bytes.extend([&[0x3a, label.len() as u8], label.as_bytes()].concat());
    }
    if let Some(placement) = placement {
        // placement (6) { canary (9) = "c", slot (2) }, then { page (1) }.
        bytes.extend([0x32, 5, 0x4a, 1, b'c', 0x10, placement.slot as u8]);
        bytes.extend(
            [&[0x32, placement.page.len() as u8 + 2, 0x0a, placement.page.len() as u8], placement.page.as_bytes()]
                .concat(),
        );
    }
    bytes.extend(whole.encode_to_vec());
    bytes
}

fn run(root: &Path, topic: &str, options: &str, more: &str) -> Finished {
    let text = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression'{options});
         CREATE EXTERNAL TABLE landed (at BIGINT, ad_id VARCHAR, user_id VARCHAR, impressed_at TIMESTAMP, page VARCHAR,
           slot INT, labels BIGINT, bid DOUBLE, unknown VARBINARY, more VARBINARY)
         STORED AS DELTA LOCATION 'tables/{topic}';
         INSERT INTO landed SELECT _offset, {COLUMNS}, {more} FROM ads;"
    );
    std::fs::write(root.join("land.sql"), text).unwrap();
    let mut command = Broker::shared().flumen(root, ["-o", "json", "run", "land.sql", "--available-now"]);
    finish(&mut command).exits(0)
}

fn rows(root: &Path, topic: &str) -> Vec<Vec<Value>> {
    let mut rows = delta::read_with_python(&root.join("tables").join(topic)).rows;
    rows.sort_by_key(|row| row["at"].as_i64());
    let names = ["ad_id", "user_id", "impressed_at", "page", "slot", "labels", "bid"];
    rows.iter().map(|row| names.iter().map(|name| row[*name].clone()).collect()).collect()
}

#[test]
fn two_versions_on_one_topic_give_the_rows_of_the_first() {
    let root = workspace();
    let broker = Broker::shared();
    let [old, mixed] = ["old", "mixed"].map(|name| topics::new_topic(broker, name, 1));
    topics::produce(broker, &old, 0, &(0..300).map(|n| impression(n).encode_to_vec()).collect::<Vec<_>>());
    let encode = |n| if n % 2 == 0 { impression(n).encode_to_vec() } else { as_version_2(n) };
    topics::produce(broker, &mixed, 0, &(0..300).map(encode).collect::<Vec<_>>());
    run(root.path(), &old, "", "NULL, NULL");
    let plain = run(root.path(), &mixed, "", "NULL, NULL");
    assert_eq!(rows(root.path(), &old).len(), 300);
    assert_eq!(rows(root.path(), &mixed), rows(root.path(), &old));
    assert_eq!(plain.json()[0]["sources"][0].get("numUnknownFields"), None);

    // Asked for, they are kept and counted: two of each record of the new version, and one more in each placement.
    let again = topics::new_topic(broker, "kept", 1);
    topics::produce(broker, &again, 0, &(0..300).map(encode).collect::<Vec<_>>());
    let kept = run(root.path(), &again, ", 'unknown_fields' 'keep'", "_unknown, placement._unknown");
    let placements = (0..300u64).filter(|n| n % 2 == 1 && n % 3 != 0).count();
    assert_eq!(kept.json()[0]["sources"][0]["numUnknownFields"], 300 + placements);
    assert_eq!(rows(root.path(), &again), rows(root.path(), &old));
    let table = delta::read_with_python(&root.path().join("tables").join(&again)).rows;
    let with = |name: &str| table.iter().filter(|row| !row[name].is_null()).count();
    assert_eq!((with("unknown"), with("more")), (150, placements));
}
