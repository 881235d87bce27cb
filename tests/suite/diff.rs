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
    // Rows that are alike stand beside each other; the others are alone.
    let samples = whole.json()[0]["samples"].as_array().unwrap().clone();
    let differing: Vec<_> = samples.iter().map(|row| row["differing"].clone()).collect();
    assert_eq!(differing, [json!([2]), json!([]), json!([])]);
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
    assert!(text.contains("│ ≠ ┆ 2  ┆ [zwei → two] ┆ [1.5 → 1.6] │"), "{text}");
    assert!(text.contains("│ - ┆ 6 ") && text.contains("│ + ┆ 7 ") && text.contains(" 66.67 % equal  name"), "{text}");
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
fn numbers_and_types_are_never_made_equal() {
    let dir = workspace();
    let root = dir.path();
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    let of = |left: &str, right: &str, words: &[&str]| {
        write("l.csv", left);
        write("r.csv", right);
        let done = diff(root, &[&["l.csv", "r.csv"][..], words].concat());
        rows(&done)
    };
    let near = ["--tolerance", "1e-9"];
    // Whole numbers on one side, and text.
    assert_eq!(of("n\n1\n2\n", "n\n1.9\n2.4\n", &[]), counts(2, 2, 0, 0, [2, 2]));
    assert_eq!(of("n\n1\n2\n", "n\n1.0\n2.0\n", &[]), counts(2, 2, 2, 0, [0, 0]));
    assert_eq!(of("n\n1\n2\n", "n\nabc\n2\n", &[]), counts(2, 2, 1, 0, [1, 1]));
    // No column but floating-point numbers; infinity is near nothing.
    assert_eq!(of("x\n1.5\ninf\n", "x\n5.5\n1.5000000000001\n", &near), counts(2, 2, 1, 0, [1, 1]));
    assert_eq!(of("x\ninf\n2.5\n", "x\n-inf\n2.5\n", &near), counts(2, 2, 1, 0, [1, 1]));
    // Each finds its own, whatever the order of the first number is.
    let (left, right) = ("x,y\n1.0,9.5\n1.000000000001,2.5\n", "x,y\n1.0,2.5\n1.000000000001,9.5\n");
    assert_eq!(of(left, right, &near), counts(2, 2, 2, 0, [0, 0]));
    // NULLs are equal to each other alone.
    assert_eq!(of("a,x\nk,\nk,1.5\n", "a,x\nk,\nk,\n", &near), counts(2, 2, 1, 0, [1, 1]));
    // No column in common.
    write("l.csv", "ID\n1\n");
    write("r.csv", "id\n1\n2\n");
    let apart = diff(root, &["l.csv", "r.csv"]).exits(3);
    assert_eq!(rows(&apart), counts(1, 2, 0, 0, [0, 0]));
    assert_eq!(apart.json()[0]["columns_changed"], json!(["ID Int64: only left", "id Int64: only right"]));
    // More rows of one kind than are held.
    write("l.csv", &format!("flag\n{}", "yes\n".repeat(1_200_000)));
    write("r.csv", &format!("flag\n{}", "yes\n".repeat(1_200_003)));
    let many = diff(root, &["l.csv", "r.csv", "--samples", "2"]).exits(3);
    assert_eq!(rows(&many), counts(1_200_000, 1_200_003, 1_200_000, 0, [0, 3]));
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
    let none = diff(root, &["tables/landed", "tables/landed@99"]).exits(2);
    assert!(none.stderr.contains("version 99 is not there"), "{}", none.stderr);
    for dir in ["first", "second"] {
        let words = ["record", "--brokers", Broker::shared().address(), "--topic", &topic, "--into", dir];
        finish(&mut flumen(root, words)).exits(0);
    }
    assert_eq!(rows(&diff(root, &["first", "second", "--key", "partition,offset"]).exits(0))["common"], 100);
    std::fs::write(root.join("second/recording.json"), "{}").unwrap();
    diff(root, &["first", "second"]).exits(2);
    std::fs::remove_file(root.join("second/recording.json")).unwrap();
    std::fs::remove_file(root.join("second/partition-00001-00000.parquet")).unwrap();
    let changed = diff(root, &["first", "second"]).exits(2);
    assert!(changed.stderr.contains("it tells of 50 records of partition 1"), "{}", changed.stderr);
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
