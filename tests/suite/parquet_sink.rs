//! A batch job that writes one Parquet file, through the real binary.

use std::path::Path;

use crate::binary::{Finished, finish, flumen, workspace};

const FILE: &str = "
    CREATE EXTERNAL TABLE source (id INT NOT NULL, name VARCHAR, at TIMESTAMP, price DOUBLE)
    STORED AS CSV LOCATION 'source.csv' OPTIONS ('format.has_header' 'true');
    CREATE EXTERNAL TABLE totals (name VARCHAR NOT NULL, rows BIGINT, last TIMESTAMP, price DECIMAL(12, 2),
      CONSTRAINT not_free CHECK (price > 0))
    STORED AS PARQUET LOCATION 'out/totals.parquet' OPTIONS ('mode' 'replace'POLICY);
    INSERT INTO totals SELECT name, count(*), max(at), CAST(sum(price) AS DECIMAL(12, 2)) FROM source GROUP BY name;
    CREATE EXTERNAL TABLE dear (name VARCHAR) STORED AS DELTA LOCATION 'tables/dear' OPTIONS ('mode' 'replace');
    INSERT INTO dear SELECT name FROM totals WHERE price > 2;
    SELECT * FROM totals WHERE name = 'forbidden';";

fn write(root: &Path, policy: &str, rows: &[&str]) {
    std::fs::write(root.join("totals.sql"), FILE.replace("POLICY", policy)).unwrap();
    std::fs::write(root.join("source.csv"), format!("id,name,at,price\n{}\n", rows.join("\n"))).unwrap();
}

fn run(root: &Path) -> Finished {
    finish(&mut flumen(root, ["-o", "json", "run", "totals.sql", "--available-now"]))
}

/// The rows of the file as another program reads it.
fn totals(root: &Path) -> String {
    let script = "import pyarrow.parquet as p, sys; t = p.read_table(sys.argv[1]); \
                  print(sorted((r['name'], r['rows'], str(r['last']), str(r['price'])) for r in t.to_pylist()))";
    let python = std::env::var("FLUMEN_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = std::process::Command::new(python);
    command.args(["-c", script, root.join("out/totals.parquet").to_str().unwrap()]);
    finish(&mut command).exits(0).stdout.trim().to_owned()
}

fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("out")).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_batch_job_replaces_its_file_as_a_whole_or_not_at_all() {
    let dir = workspace();
    let root = dir.path();
    write(root, "", &["1,a,2026-11-22T10:00:00Z,1.25", "2,b,2026-11-22T11:00:00Z,3", "3,a,,1"]);
    let lines = run(root).exits(0).json();
    assert_eq!((&lines[0]["name"], &lines[0]["rows"]["written"]), (&"totals".into(), &2.into()), "{lines:?}");
    // What the next query of the file reads is the new file.
    assert_eq!(lines[1]["rows"]["written"], 2, "{lines:?}");
    let first = "[('a', 2, '2026-11-22 10:00:00+00:00', '2.25'), ('b', 1, '2026-11-22 11:00:00+00:00', '3.00')]";
    assert_eq!(totals(root), first);
    run(root).exits(0);
    assert_eq!((totals(root).as_str(), names(root)), (first, vec!["totals.parquet".to_owned()]));
    // A row that breaks the contract: the file is the old one, and nothing lies beside it.
    write(root, "", &["1,c,2026-11-22T10:00:00Z,0"]);
    assert!(run(root).exits(3).stderr.contains("not_free"));
    assert_eq!((totals(root).as_str(), names(root)), (first, vec!["totals.parquet".to_owned()]));
    // It is left out where the file says so.
    write(root, ", 'on_violation' 'drop'", &["1,c,2026-11-22T10:00:00Z,0", "2,d,,5"]);
    let lines = run(root).exits(0).json();
    assert_eq!((&lines[0]["rows"]["written"], &lines[0]["rows"]["dropped"]), (&1.into(), &1.into()), "{lines:?}");
    assert_eq!(totals(root), "[('d', 1, 'None', '5.00')]");
    // No rows are a file too, and checks see it.
    write(root, "", &["1,forbidden,,5"]);
    assert!(run(root).exits(3).stderr.contains("this check must return no rows"));
    let told = finish(&mut flumen(root, ["sql", "totals.sql", "SELECT name, price FROM totals"])).exits(0);
    assert!(told.stdout.contains("forbidden"), "{}", told.stdout);
    for verb in ["status", "maintain"] {
        finish(&mut flumen(root, [verb, "totals.sql"])).exits(0);
    }
}

#[test]
fn cases_and_replays_have_it_too() {
    let dir = workspace();
    let root = dir.path();
    write(root, "", &[]);
    let case = "
cases:
  - name: totals
    tables: {source: [{id: 1, name: a, price: 3}, {id: 2, name: a, price: 4}]}
    expect:
      totals: [{name: a, rows: 2, price: '7.00'}]
      dear: [{name: a}]
  - name: a price of nothing
    tables: {source: [{id: 1, name: a, price: 0}]}
    error: {kind: violated, text: not_free}
    counts: {totals: 0}
";
    std::fs::write(root.join("totals.test.yaml"), case).unwrap();
    finish(&mut flumen(root, ["test", "totals.test.yaml"])).exits(0);
    std::fs::write(root.join("source.csv"), "id,name,at,price\n1,a,,3\n").unwrap();
    let done = finish(&mut flumen(root, ["-o", "json", "replay", "totals.sql", "--into", "replayed"])).exits(0);
    let tables: Vec<_> = done.json().iter().filter_map(|line| line["table"].as_str().map(str::to_owned)).collect();
    assert_eq!(tables, ["dear", "totals"], "{}", done.stdout);
}

#[test]
fn what_a_file_cannot_be_is_told() {
    let dir = workspace();
    let root = dir.path();
    let check = |options: &str, insert: &str| {
        let text = format!(
            "CREATE EXTERNAL TABLE ads STORED AS KAFKA LOCATION 'kafka://localhost:9092/ads'
             OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');
             CREATE EXTERNAL TABLE t (a VARCHAR) STORED AS PARQUET {options};
             INSERT INTO t {insert};"
        );
        std::fs::write(root.join("t.sql"), text).unwrap();
        finish(&mut flumen(root, ["check", "t.sql"])).exits(2).stderr
    };
    let job = "SELECT 'x'";
    let told = [
        check("LOCATION 't.parquet'", "SELECT ad_id FROM ads"),
        check("LOCATION 'tables/t' OPTIONS ('mode' 'replace')", job),
        check("LOCATION 't.parquet'", job),
        check("LOCATION 't.parquet' OPTIONS ('mode' 'replace_partitions')", job),
        check("PARTITIONED BY (a) LOCATION 't.parquet' OPTIONS ('mode' 'replace')", job),
        check("LOCATION 't.parquet' OPTIONS ('mode' 'replace', 'target_file_size' '1 MB')", job),
        check("LOCATION 't.parquet' OPTIONS ('mode' 'replace', 'on_violation' 'quarantine')", job),
    ];
    insta::assert_snapshot!(told.join("\n=====\n"));
}
