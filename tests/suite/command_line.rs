//! Help texts, `explain`, `check` and the demo, as a user sees them.

use std::process::Stdio;

use crate::binary::{Finished, finish, flumen, repository, workspace};
use crate::delta;

#[test]
fn help_of_every_verb() {
    let mut all = finish(&mut flumen(&repository(), ["--help"])).exits(0).stdout;
    for verb in ["demo", "check", "explain", "run", "status", "sql", "close"] {
        all.push_str(&format!("\n=== {verb}\n"));
        all.push_str(&finish(&mut flumen(&repository(), [verb, "--help"])).exits(0).stdout);
    }
    for verb in ["list", "retry"] {
        all.push_str(&format!("\n=== dead-letters {verb}\n"));
        all.push_str(&finish(&mut flumen(&repository(), ["dead-letters", verb, "--help"])).exits(0).stdout);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn wrong_arguments_are_exit_2() {
    let failed = finish(&mut flumen(&repository(), ["run"])).exits(2);
    assert!(failed.stderr.contains("FILE"), "{}", failed.stderr);
    let failed = finish(&mut flumen(&repository(), ["rnu", "x.sql"])).exits(2);
    assert!(failed.stderr.contains("--help"), "{}", failed.stderr);
    let failed = finish(&mut flumen(&repository(), ["run", "no_such_file.sql"])).exits(2);
    assert!(failed.stderr.contains("no_such_file.sql"), "{}", failed.stderr);
}

#[test]
fn shipped_pipelines_are_without_fault() {
    for file in ["score_impressions.sql", "content_with_categories.sql", "bench_main_job.sql"] {
        let path = format!("queries/{file}");
        let checked = finish(&mut flumen(&repository(), ["check", path.as_str()])).exits(0);
        assert!(checked.stdout.contains(file), "{}", checked.stdout);
    }
}

#[test]
fn explain_of_the_main_job() {
    let explained = finish(&mut flumen(&repository(), ["explain", "queries/score_impressions.sql"])).exits(0).stdout;
    let root = repository();
    insta::assert_snapshot!(explained.replace(&root.display().to_string(), "ROOT"));
}

#[test]
fn the_demo_runs_the_shipped_pipeline_and_a_second_one_starts_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let first = finish(&mut flumen(dir.path(), ["demo", "--records", "30000"])).exits(0);
    assert!(first.stdout.contains("30,000 records read, "), "{}", first.stdout);
    assert!(first.stdout.contains("10 rows") && first.stdout.contains("Try next"), "{}", first.stdout);
    let table = dir.path().join("flumen-demo/tables/scored_impressions");
    let rows = delta::read_with_python(&table).rows.len();
    assert!((24_000..26_000).contains(&rows), "{rows}");
    // Upkeep commits too, and reads no records.
    let read: u64 = delta::commit_infos(&table).iter().filter_map(|i| i["records"]["read"].as_u64()).sum();
    assert_eq!(read, 30_000);
    let second = finish(&mut flumen(dir.path(), ["demo", "--records", "100"])).exits(0);
    assert!(second.stdout.contains("flumen-demo-2"), "{}", second.stdout);
}

#[test]
fn the_batch_job_builds_the_shipped_lookup_and_again_the_same() {
    let dir = workspace();
    let file = "queries/content_with_categories.sql";
    for version in 0..2 {
        finish(&mut flumen(dir.path(), ["run", file, "--available-now"])).exits(0);
        let built = delta::read_with_python(&dir.path().join("tables/content_with_categories"));
        let shipped = delta::read_with_python(&dir.path().join("queries/data/content_with_categories"));
        let sorted = |table: &delta::Foreign| {
            let mut rows: Vec<String> = table.rows.iter().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        assert_eq!(built.version, version);
        assert_eq!(built.columns, shipped.columns);
        assert_eq!(sorted(&built), sorted(&shipped));
    }
    let refused = finish(&mut flumen(dir.path(), ["run", file])).exits(2);
    assert!(refused.stderr.contains("--available-now"), "{}", refused.stderr);
}

#[test]
fn a_check_that_returns_rows_is_exit_3_and_shows_them() {
    let dir = workspace();
    std::fs::write(
        dir.path().join("checked.sql"),
        "CREATE EXTERNAL TABLE c STORED AS DELTA LOCATION 'queries/data/content_with_categories';
         CREATE EXTERNAL TABLE ranks (ad_id VARCHAR NOT NULL, rank DOUBLE) STORED AS DELTA LOCATION 'tables/ranks'
         OPTIONS ('mode' 'replace');
         INSERT INTO ranks SELECT ad_id, rank FROM c WHERE ad_id <= $last;
         SELECT count(*) FROM ranks HAVING count(*) > 5;
         SELECT ad_id FROM ranks WHERE ad_id = 'ad-00003';",
    )
    .unwrap();
    let run = |last: &str| {
        let last = format!("last={last}");
        finish(&mut flumen(dir.path(), ["run", "checked.sql", "--available-now", "--param", last.as_str()]))
    };
    run("ad-00002").exits(0);
    let failed = run("ad-00003").exits(3);
    assert!(failed.stderr.contains("checked.sql:6") && failed.stderr.contains("ad-00003"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("checked.sql:5"), "{}", failed.stderr);
    let failed = finish(&mut flumen(dir.path(), ["run", "checked.sql", "--available-now"])).exits(2);
    assert!(failed.stderr.contains("$last"), "{}", failed.stderr);
}

#[test]
fn deep_sql_is_planned_or_refused_and_never_ends_the_process() {
    let dir = workspace();
    let many = |count: usize| vec!["1=1"; count].join(" OR ");
    let deep = |count: usize| format!("{}1{}", "(".repeat(count), ")".repeat(count));
    for (condition, code) in [(many(3_000), 0), (deep(5_000), 2)] {
        std::fs::write(dir.path().join("deep.sql"), format!("SELECT 1 WHERE {condition};")).unwrap();
        finish(&mut flumen(dir.path(), ["check", "deep.sql"])).exits(code);
    }
}

#[test]
fn publishing_to_nobody_fails() {
    let dir = tempfile::tempdir().unwrap();
    let failed = finish(&mut flumen(dir.path(), ["demo", "--publish-to", "127.0.0.1:9", "--records", "10"])).exits(1);
    assert!(failed.stderr.contains("127.0.0.1:9") && failed.stderr.contains("is the broker up"), "{}", failed.stderr);
}

#[test]
fn a_reader_of_its_output_that_goes_away_is_no_error() {
    let dir = workspace();
    std::fs::write(dir.path().join("faulty.sql"), "SELECT a FROM b; INSERT INTO c SELECT 1;").unwrap();
    let rows = "SELECT * FROM content_with_categories";
    let file = "queries/score_impressions.sql";
    let cases = [
        (&["sql", file, rows][..], 0),
        (&["-o", "json", "sql", file, rows], 0),
        (&["explain", file], 0),
        (&["check", file], 0),
        (&["-o", "json", "check", "faulty.sql"], 2),
        (&["--help"], 0),
        (&["run", "--help"], 0),
    ];
    for (words, code) in cases {
        let mut child = flumen(dir.path(), words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // As `| true` does.
        drop(child.stdout.take());
        let told = Finished::from(child.wait_with_output().unwrap()).exits(code).stderr;
        assert!(!told.contains("Broken pipe") && !told.contains("panicked"), "{words:?}: {told}");
    }
    // Nor one of what it logs.
    let words = ["-vvv", "run", "queries/content_with_categories.sql", "--available-now"];
    let mut child = flumen(dir.path(), words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    Finished::from(child.wait_with_output().unwrap()).exits(0);
}
