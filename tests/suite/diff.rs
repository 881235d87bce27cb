//! `flumen diff`: tables of every kind, as multisets and by key.

use std::path::Path;

use serde_json::{Value, json};

use crate::ads::impressions;
use crate::binary::{Finished, finish, flumen, workspace};
use crate::broker::Broker;
use crate::topics;

fn diff(root: &Path, words: &[&str]) -> Finished {
    finish(&mut flumen(root, ["-o", "json", "diff"].iter().chain(words)))
}

fn rows(done: &Finished) -> Value {
    done.json()[0]["rows"].clone()
}

fn counts(left: u64, right: u64, common: u64, changed: u64, only: [u64; 2]) -> Value {
    json!({"left": left, "right": right, "common": common, "changed": changed, "only_left": only[0],
        "only_right": only[1]})
}

#[test]
fn tables_are_compared_whole_or_by_key() {
    let dir = workspace();
    let root = dir.path();
    let write = |name: &str, lines: &[&str]| {
        std::fs::write(root.join(name), format!("id,name,score\n{}\n", lines.join("\n"))).unwrap();
    };
    write("a.csv", &["1,one,0.5", "2,two,1.5", "3,,2.5", "3,,2.5", "4,four,"]);
    write("b.csv", &["4,four,", "3,,2.5", "2,two,1.5000001", "1,one,0.5", "5,five,9.0"]);
    diff(root, &["a.csv", "a.csv"]).exits(0);
    let whole = diff(root, &["a.csv", "b.csv"]).exits(3);
    assert_eq!(rows(&whole), counts(5, 5, 3, 0, [2, 2]));
    assert!(whole.stderr.contains("a.csv and b.csv differ"), "{}", whole.stderr);
    let samples = whole.json()[0]["samples"].as_array().unwrap().len();
    assert_eq!(samples, 4);
    let near = diff(root, &["a.csv", "b.csv", "--tolerance", "1e-6"]).exits(3);
    assert_eq!(rows(&near), counts(5, 5, 4, 0, [1, 1]));

    write("c.csv", &["1,one,0.5", "2,zwei,1.5", "3,,2.5", "6,six,6"]);
    write("d.csv", &["1,one,0.5", "2,two,1.6", "3,,2.5", "7,seven,7"]);
    let keyed = diff(root, &["c.csv", "d.csv", "--key", "id"]).exits(3);
    assert_eq!(rows(&keyed), counts(4, 4, 2, 1, [1, 1]));
    let column = |name: &str| {
        let of = keyed.json()[0]["columns"].as_array().unwrap().clone();
        of.into_iter().find(|column| column["name"] == name).unwrap()["equal"].clone()
    };
    assert_eq!((column("name"), column("score")), (json!(2), json!(2)));
    let text = finish(&mut flumen(root, ["diff", "c.csv", "d.csv", "--key", "id"])).exits(3).stdout;
    assert!(text.contains("≠ id=2, name=[zwei → two], score=[1.5 → 1.6]"), "{text}");
    assert!(text.contains("  - id=6") && text.contains("  + id=7") && text.contains(" 66.67 % equal  name"), "{text}");
    let wide = diff(root, &["c.csv", "d.csv", "--key", "id", "--tolerance", "0.1"]).exits(3);
    assert_eq!(rows(&wide), counts(4, 4, 2, 1, [1, 1]));

    let wrong = |words: &[&str]| diff(root, words).exits(2).stderr;
    assert!(wrong(&["a.csv", "b.csv", "--key", "id"]).contains("it is no key of a.csv: 2 rows have id = 3"));
    assert!(wrong(&["a.csv", "b.csv", "--key", "nam"]).contains("did you mean `name`?"));
    assert!(wrong(&["a.csv", "nothing"]).contains("nothing: there is no table"));
    assert!(wrong(&["a.csv", "b.csv@3"]).contains("only Delta tables have versions"));
    assert!(wrong(&["a.csv", "b.csv", "--tolerance=-1"]).contains("from 0 on"));
}

#[test]
fn versions_recordings_and_columns_are_compared() {
    let topic = topics::new_topic(Broker::shared(), "compared", 2);
    (0..2).for_each(|partition| topics::produce(Broker::shared(), &topic, partition, &impressions(0..50)));
    let dir = workspace();
    let root = dir.path();
    let file = format!(
        "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
         OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '60');
         CREATE EXTERNAL TABLE landed (at BIGINT, labels VARCHAR[], bid DOUBLE) STORED AS DELTA
         LOCATION 'tables/landed';
         INSERT INTO landed SELECT _offset, labels, bid FROM ads;"
    );
    std::fs::write(root.join("land.sql"), &file).unwrap();
    finish(&mut Broker::shared().flumen(root, ["run", "land.sql", "--available-now"])).exits(0);
    diff(root, &["tables/landed", "tables/landed@2"]).exits(0);
    assert_eq!(rows(&diff(root, &["tables/landed@1", "tables/landed"]).exits(3)), counts(60, 100, 60, 0, [0, 40]));
    for dir in ["first", "second"] {
        let words = ["record", "--brokers", Broker::shared().address(), "--topic", &topic, "--into", dir];
        finish(&mut flumen(root, words)).exits(0);
    }
    assert_eq!(rows(&diff(root, &["first", "second", "--key", "partition,offset"]).exits(0))["common"], 100);
    let recording = format!("{topic}=first");
    for into in ["out", "other"] {
        let words = ["replay", "land.sql", "--recording", &recording, "--into", into];
        finish(&mut Broker::shared().flumen(root, words)).exits(0);
        std::fs::write(
            root.join("land.sql"),
            file.replace("bid DOUBLE", "bid REAL").replace(", bid FROM", ", CAST(bid AS REAL) FROM"),
        )
        .unwrap();
    }
    diff(root, &["tables/landed", "out/landed"]).exits(0);
    let typed = diff(root, &["tables/landed", "other/landed"]).exits(3);
    assert_eq!(typed.json()[0]["columns_changed"], json!(["bid: Float64 left, Float32 right"]));
    assert_eq!(rows(&typed)["common"], 100);
}
