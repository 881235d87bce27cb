//! `flumen test`: cases that pass, fail and are wrong, through the real binary.

use std::collections::BTreeSet;
use std::path::Path;

use flumen::fault_point::KILL_POINTS;
use serde_json::Value;

use crate::binary::{Finished, finish, flumen, repository, workspace};

/// A pipeline of everything that a case can say something of.
const PIPELINE: &str = "
    CREATE EXTERNAL TABLE events STORED AS KAFKA LOCATION 'kafka://${env:BROKER}/${env:TOPIC:-events}'
    OPTIONS ('value.proto' 'proto/events/v1/events.proto', 'value.message' 'events.v1.Event', 'start' 'latest');
    CREATE EXTERNAL TABLE raws STORED AS KAFKA LOCATION 'kafka://${env:BROKER}/raws' OPTIONS ('value.format' 'raw');
    CREATE EXTERNAL TABLE names (id VARCHAR NOT NULL, name VARCHAR, rank DOUBLE)
    STORED AS CSV LOCATION 'nowhere.csv' OPTIONS ('format.has_header' 'true');
    CREATE EXTERNAL TABLE named (id VARCHAR NOT NULL, name VARCHAR, at TIMESTAMP, sent TIMESTAMP, cents BIGINT,
      rate DOUBLE, part INT, sort VARBINARY, CONSTRAINT paid CHECK (cents > 0))
    STORED AS DELTA LOCATION 's3://nowhere/named' OPTIONS ('on_violation' 'quarantine');
    INSERT INTO named
    SELECT e.event_id, n.name, now(), e._timestamp, e.cents, n.rank * $factor, e._partition, e._key
    FROM events e LEFT JOIN names n ON e.user_id = n.id;
    CREATE EXTERNAL TABLE texts (text VARCHAR, header VARCHAR) STORED AS DELTA LOCATION 'tables/texts';
    INSERT INTO texts SELECT CAST(value AS VARCHAR), CAST(_headers[1]['value'] AS VARCHAR) FROM raws;
    CREATE EXTERNAL TABLE totals (name VARCHAR, cents BIGINT NOT NULL) STORED AS DELTA LOCATION 'tables/totals'
    OPTIONS ('mode' 'replace');
    INSERT INTO totals SELECT name, sum(cents) FROM named_again GROUP BY name;
    SELECT * FROM named_again WHERE name = 'forbidden';";

const TABLES: &str = "    CREATE EXTERNAL TABLE named_again STORED AS DELTA LOCATION 's3://nowhere/named';";

const SHARED: &str = "
params: {factor: 2.5}
env: {BROKER: 'nobody:1'}
tables:
  names:
    - {id: u-1, name: one, rank: 0.1}
    - {id: 2, name: two, rank: null}   # ids are texts, whatever they look like
";

/// A directory with the pipeline `p.sql` and a case file.
fn place(cases: &str) -> tempfile::TempDir {
    let dir = workspace();
    std::fs::remove_dir_all(dir.path().join("queries")).unwrap();
    std::fs::write(dir.path().join("p.sql"), pipeline()).unwrap();
    std::fs::write(dir.path().join("p.test.yaml"), cases).unwrap();
    dir
}

/// Without the job over the table that the file itself writes: it has to be there for that.
fn pipeline() -> String {
    let (streaming, _) = PIPELINE.split_once("CREATE EXTERNAL TABLE totals").unwrap();
    streaming.to_owned()
}

fn test(root: &Path, more: &[&str]) -> Finished {
    finish(&mut flumen(root, ["test"].iter().chain(more)))
}

fn passes(cases: &str) -> Finished {
    test(place(&format!("{SHARED}{cases}")).path(), &[]).exits(0)
}

#[test]
fn records_lookups_clocks_and_parameters_come_from_the_case() {
    let done = passes(
        r#"
cases:
  - name: everything that a record has
    clock: 2026-11-22T12:00:00Z
    topics: {events: {partitions: 4}}
    steps:
      - push:
          events:
            - value: {eventId: e-1, user_id: u-1, cents: "12"}
              partition: 3
              timestamp: 2026-11-22T10:00:00.5Z
              key: k
            - {value: {event_id: e-2, user_id: 2, cents: 7}, key: {base64: AAE=}}
          raws:
            - {value: plain, headers: {first: h}}
            - {base64: eA==}
      - clock: 2026-11-22T13:00:00+01:00
        push:
          raws: [{value: null}, {value: last}]
    expect:
      named:
        - {id: e-1, name: one, at: 2026-11-22T12:00:00Z, sent: 2026-11-22T10:00:00.5Z, cents: 12, rate: 0.25, part: 3, sort: aw==}
        - {id: e-2, name: two, at: 2026-11-22T12:00:00Z, sent: 2026-11-22T12:00:00Z, cents: 7, part: 0, sort: AAE=}
      texts: [{text: plain, header: h}, {text: x}, {text: last}]
    counts: {named: 2, texts: 3, named_quarantine: 0, named_dead_letters: 0}
  - name: without a clock it is the time of the last record, and long ago without one
    steps:
      - push: {events: [{value: {event_id: e-1, cents: 1}}]}
        expect: {named: {partial: true, rows: [{id: e-1, at: 2000-01-01T00:00:00Z, sent: 2000-01-01T00:00:00Z}]}}
      - push: {events: [{value: {event_id: e-2, cents: 1}, timestamp: 2026-11-22T10:00:00Z}]}
        expect: {named: {partial: true, rows: [{id: e-2, at: 2026-11-22T10:00:00Z}]}}
  - name: a case says otherwise than its file
    params: {factor: 4}
    env: {TOPIC: other}
    topics: {other: [{value: {event_id: e-1, user_id: u-9, cents: 1}}]}
    tables: {names: [{id: u-9, name: nine, rank: 0.3}]}
    expect:
      named: {partial: columns, tolerance: 0.001, rows: [{name: nine, rate: 1.2001}]}
  - name: a table's own name does too, and an anchor stands for what it is at
    topics:
      events:
        - &paid {value: {event_id: e-1, cents: 5}}
        - *paid
    expect: {named: {partial: columns, rows: [{id: e-1, cents: 5}, {id: e-1, cents: 5}]}}
"#,
    );
    assert!(done.stdout.contains("PASS=4 FAIL=0 ERROR=0 TOTAL=4"), "{}", done.stdout);
}

#[test]
fn a_run_that_ends_anywhere_goes_on_with_each_record_once() {
    let case = |n: usize, point: &str| {
        format!(
            "
  - name: killed at {point} {n}
    steps:
      - push: {{events: [{{value: {{event_id: e-0, cents: 1}}}}]}}
      - kill: {point}
        push:
          events: [{{value: {{event_id: e-1, cents: 1}}}}, {{value: {{event_id: e-2, cents: 0}}}}, {{base64: /////w==}}]
      - restart
      - push: {{events: [{{value: {{event_id: e-3, cents: 1}}}}]}}
    expect:
      named: {{partial: columns, rows: [{{id: e-0}}, {{id: e-1}}, {{id: e-3}}]}}
      named_quarantine: {{partial: columns, rows: [{{id: e-2}}]}}
    counts: {{named_dead_letters: 1}}
"
        )
    };
    // Of the first push it is the micro-batch that is killed, not the making of the table.
    let first = |point: &str, rows: u32| {
        format!(
            "
  - name: first at {point}
    steps:
      - kill: {point}
        push: {{events: [{{value: {{event_id: e-1, cents: 1}}}}]}}
        counts: {{named: {rows}}}
      - run
    counts: {{named: 1}}
"
        )
    };
    let cases: String = KILL_POINTS.iter().enumerate().map(|(n, point)| case(n, point)).collect();
    let firsts = first("put.before", 0) + &first("put.after", 1) + &first("commit.after", 1);
    let done = passes(&format!("\ncases:{cases}{firsts}"));
    assert!(done.stdout.contains(&format!("PASS={} FAIL=0", KILL_POINTS.len() + 3)), "{}", done.stdout);
    // Every point is one that the sources pass.
    let mut passed = BTreeSet::new();
    let mut dirs = vec![repository().join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    let text = std::fs::read_to_string(entry.path()).unwrap();
                    passed.extend(
                        text.split("fault_point::pass(\"")
                            .skip(1)
                            .filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned())),
                    );
                }
            }
        }
    }
    assert!(KILL_POINTS.iter().all(|point| passed.contains(*point)), "{KILL_POINTS:?} and {passed:?}");
}

#[test]
fn maps_have_no_order_and_nan_is_no_number() {
    let dir = place("");
    let text = "
        CREATE EXTERNAL TABLE events STORED AS KAFKA LOCATION 'kafka://nobody:1/events'
        OPTIONS ('value.proto' 'proto/events/v1/events.proto', 'value.message' 'events.v1.Event');
        CREATE EXTERNAL TABLE out (id VARCHAR, properties MAP(VARCHAR, VARCHAR), share DOUBLE) STORED AS DELTA
        LOCATION 'tables/out';
        INSERT INTO out SELECT event_id, properties, CAST(subject AS DOUBLE) FROM events;";
    std::fs::write(dir.path().join("p.sql"), text).unwrap();
    let case = |n: usize, share: &str| {
        format!(
            "
  - name: case {n}
    topics:
      events:
        - value: {{event_id: a, subject: {share}, properties: {{d: 4, a: 1, c: 3, b: 2}}}}
        - value: {{event_id: b, subject: '1', properties: {{}}}}
    expect:
      out:
        - {{id: a, share: .nan, properties: {{b: 2, a: 1, d: 4, c: 3}}}}
        - {{id: b, share: 1, properties: {{}}}}
"
        )
    };
    let all: String = (0..8).map(|n| case(n, "NaN")).collect();
    std::fs::write(dir.path().join("p.test.yaml"), format!("cases:{all}")).unwrap();
    test(dir.path(), &[]).exits(0);
    std::fs::write(dir.path().join("p.test.yaml"), format!("cases:{}", case(0, "'1'"))).unwrap();
    assert!(test(dir.path(), &[]).exits(3).stdout.contains("[NaN → 1.0]"));
}

#[test]
fn a_file_that_an_update_would_not_keep_stays_as_it_is() {
    let head = format!(
        "{SHARED}
cases:
  - name: one
    topics: {{events: [{{value: {{event_id: e-1, cents: 1}}}}]}}
    expect: {{named: {{partial: columns, rows: [&r {{id: other, cents: 1}}]}}}}
"
    );
    let shared = format!(
        "{head}  - name: two
    topics: {{events: [{{value: {{event_id: e-2, cents: 1}}}}]}}
    expect: {{named: {{partial: columns, rows: [*r]}}}}
"
    );
    let dir = place(&shared);
    let refused = test(dir.path(), &["--update"]).exits(2);
    assert!(refused.stderr.contains("p.test.yaml:12: rows say different things"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(dir.path().join("p.test.yaml")).unwrap(), shared);
    // What can be kept is: blocks of text, lists at the key's own place, carriage returns, words beyond ASCII.
    let odd = format!(
        "# Größe
{SHARED}
cases:
  - name: \"é\"
    topics: {{events: [{{value: {{event_id: e-1, user_id: u-1, cents: 1}}}}]}}
    expect:
      named:
        partial: columns
        rows:
        - name: |
            uno
            due
          id: e-1
        - id: 'ü'
          name: >-
            x
    counts: {{named: 7}}   # ü"
    )
    .replace('\n', "\r\n");
    let dir = place(&odd);
    test(dir.path(), &["--update"]).exits(0);
    test(dir.path(), &[]).exits(0);
    let now = std::fs::read_to_string(dir.path().join("p.test.yaml")).unwrap();
    assert!(now.ends_with("counts: {named: 1}   # ü") && now.contains("- name: one\r\n          id: e-1"), "{now}");
}

#[test]
fn a_recording_is_a_topic_too() {
    let dir = place(&format!(
        "{SHARED}
cases:
  - name: recorded
    topics: {{events: {{recording: kept}}}}
    expect: {{named: {{partial: columns, rows: [{{id: e-1}}, {{id: e-2}}]}}}}
"
    ));
    let lines = [
        r#"{"topic":"events","partition":0,"offset":5,"ts":1,"payload":"\n\u0003e-1\u00300\u0001"}"#,
        r#"{"topic":"events","partition":0,"offset":9,"ts":2,"payload":"\n\u0003e-2\u00300\u0001"}"#,
    ];
    std::fs::write(dir.path().join("lines"), lines.join("\n").replace("\\u00300", "0")).unwrap();
    finish(&mut flumen(dir.path(), ["record", "--topic", "events", "--from-kcat", "lines", "--into", "kept"])).exits(0);
    test(dir.path(), &[]).exits(0);
}

#[test]
fn what_differs_is_shown_and_exit_3() {
    let cases = format!(
        "{SHARED}
cases:
  - name: rows differ
    topics: {{events: [{{value: {{event_id: e-1, user_id: u-1, cents: 1}}}}, {{value: {{event_id: e-2, cents: 2}}}}]}}
    expect:
      named:
        partial: columns
        rows:
          - {{id: e-1, name: uno, cents: 1}}
          - {{id: e-9, name: x, cents: 9}}
  - name: counts differ
    topics: {{events: [{{value: {{event_id: e-1, cents: 1}}}}]}}
    counts: {{named: 2, texts: 3}}
  - name: nothing fails
    topics: {{events: [{{value: {{event_id: e-1, cents: 1}}}}]}}
    error: {{kind: violated}}
  - name: another error
    params: {{factor: 1}}
    set: {{flumen.memory_limit: 300 MB}}
    tables: {{names: {{file: names.csv}}}}
    topics: {{events: [{{value: {{event_id: e-1}}}}]}}
    steps:
      - run
    error: {{text: nobody says this}}
  - name: as it says
    topics: {{events: [{{value: {{event_id: e-1, cents: 1}}}}]}}
    counts: {{named: 1}}
  - name: never there
    steps:
      - kill: letters.write
      - push: {{events: [{{value: {{event_id: e-1, cents: 1}}}}]}}
  - name: rows are elsewhere
    topics: {{events: [{{value: {{event_id: e-1, cents: 0}}}}, {{base64: /////w==}}]}}
    counts: {{named: 1}}
  - name: nobody is killed
    steps: [kill: plan]
"
    );
    let dir = place(&cases);
    std::fs::write(dir.path().join("names.csv"), "id,name,rank\nu,n,many\n").unwrap();
    let failed = test(dir.path(), &["--junit", "out.xml"]).exits(3);
    let text = &failed.stdout;
    for part in [
        "FAIL  p.test.yaml  rows differ",
        "p.test.yaml:13: named has 2 rows, and 2 expected: 0 as it has to be",
        "│ ≠ ┆ e-1 ┆ [uno → one] ┆ 1",
        "│ - ┆ e-9 ┆ x",
        "│ + ┆ e-2 ┆ NULL",
        "p.test.yaml:20: named has 1 row, and 2 expected",
        "p.test.yaml:20: texts has 0 rows, and 3 expected",
        "p.test.yaml:41: named has 0 rows, and 1 expected; 1 row in named_quarantine; 1 row in named_dead_letters",
        "p.test.yaml:43: no push comes after it that could be killed at plan",
        "nothing failed, and an error is expected",
        "ok    p.test.yaml  as it says",
        "the micro-batch was never at letters.write, where it was to be killed",
        "PASS=1 FAIL=7 ERROR=0 TOTAL=8",
    ] {
        assert!(text.contains(part), "{part}\n{text}\n{}", failed.stderr);
    }
    assert!(failed.stderr.contains("7 of 8 cases are not as they say"), "{}", failed.stderr);
    let xml = std::fs::read_to_string(dir.path().join("out.xml")).unwrap();
    assert!(xml.contains("tests=\"8\"") && xml.contains("failures=\"7\"") && xml.contains("[uno → one]"), "{xml}");
    // In the order of the file, those that are killed last.
    let told: Vec<&str> = text.lines().filter(|line| line.contains(" p.test.yaml  ")).collect();
    assert!(told[0].contains("rows differ") && told[1].contains("counts differ"), "{told:?}");
    assert!(told[7].contains("nobody is killed"), "{told:?}");
    // One case, and as JSON.
    let one = finish(&mut flumen(dir.path(), ["-o", "json", "test", "--filter", "rows differ"])).exits(3);
    let lines = one.json();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let failure = &lines[0]["failures"][0];
    assert_eq!((&lines[0]["outcome"], &failure["line"]), (&Value::from("fail"), &Value::from(13)));
    assert_eq!(failure["difference"]["rows"]["only_left"], 2);
    assert_eq!((&lines[1]["fail"], &lines[1]["total"]), (&Value::from(1), &Value::from(1)));
    // A row of each kind, and how to see more.
    let few = test(dir.path(), &["--filter", "rows differ", "--rows", "1"]).exits(3);
    assert!(few.stdout.contains("1 more of a kind are not shown: --rows 2 shows all"), "{}", few.stdout);
}

#[test]
fn an_error_that_no_step_expects_is_an_error() {
    let dir = place(&format!(
        "{SHARED}
cases:
  - name: fails
    set: {{flumen.max_rows: 10}}
    params: {{factor: 1}}
    tables: {{names: {{file: names.csv}}}}
    topics: {{events: [{{value: {{event_id: e-1, user_id: u, cents: 1}}}}]}}
    counts: {{named: 1}}
"
    ));
    std::fs::write(dir.path().join("names.csv"), "id,name,rank\nu,n,many\n").unwrap();
    let failed = test(dir.path(), &[]).exits(3);
    assert!(failed.stdout.contains("ERROR p.test.yaml  fails") && failed.stdout.contains("many"), "{}", failed.stdout);
}

#[test]
fn an_update_rewrites_what_is_expected_and_nothing_else() {
    let cases = |rows: &str, count: &str, empty: &str| {
        format!(
            "# The file's own words.
{SHARED}
cases:
  - name: two   # stays
    topics:
      events: [{{value: {{event_id: e-1, user_id: u-1, cents: 1}}}}, {{value: {{event_id: '7', cents: 2}}}}]
    expect:
      named:
        partial: columns   # only these
        rows:
{rows}    counts: {{named: {count}, texts: 0}}
  - name: none
    topics: {{events: [{{value: {{event_id: e-1, cents: 3}}}}]}}
    expect:
      named:{empty}
"
        )
    };
    let (rows, empty) = (
        "          # the first
          - {id: e-1, name: uno, cents: 1}   # right, but for the name
          # the second
          - id: other
            name:
            cents: 5   # five
          - {id: gone, name: x, cents: 1}
",
        " {partial: columns, rows: []}",
    );
    let dir = place(&cases(rows, "5", empty));
    let done = test(dir.path(), &["--update"]).exits(0);
    for part in ["-          - {id: e-1, name: uno,", "+          - {id: e-1, name: one,", "--- p.test.yaml"] {
        assert!(done.stderr.contains(part), "{part}\n{}", done.stderr);
    }
    let now = std::fs::read_to_string(dir.path().join("p.test.yaml")).unwrap();
    let rows = "          # the first
          - {id: e-1, name: one, cents: 1}   # right, but for the name
          # the second
          - id: \"7\"
            name:
            cents: 2   # five
";
    assert!(now.starts_with(cases(rows, "2", " {partial").split("{partial").next().unwrap()), "{now}");
    test(dir.path(), &[]).exits(0);
    let again = test(dir.path(), &["--update"]).exits(0);
    assert_eq!(again.stderr, "");
    assert_eq!(std::fs::read_to_string(dir.path().join("p.test.yaml")).unwrap(), now);
}

#[test]
fn what_is_wrong_with_a_case_is_told_with_its_place_before_anything_runs() {
    let wrong = |cases: &str| {
        let dir = place(&format!("{SHARED}{cases}"));
        let failed = test(dir.path(), &[]).exits(2);
        assert_eq!(failed.stdout, "");
        failed.stderr
    };
    let form = wrong(
        "
case:
  - name: x
cases:
  - nam: y
    clock: noon
    steps:
      - kil: plan
      - kill: plann
      - jump
      - {}
    counts: {named: many}
    expect: {named: {rows: 3, partial: no}}
  - 7
",
    );
    let meaning = wrong(
        "
cases:
  - name: names that are not there
    tables: {name: [{id: x}]}
  - name: values that are none
    topics:
      event: []
      events:
        - value: {event_idd: x}
        - value: {cents: many, kind: KIND_CLIK, occurred_at: noon, properties: [1]}
        - {base64: '%'}
        - {partition: 1}
        - {value: {}, base64: aa==}
        - {value: {}, key: {base6: aa}}
        - {base64: null}
        - {value: {eventId: x, event_id: y}, partition: 4294967295}
      events_again: []
      raws: {partitions: 2, records: [{value: {a: 1}}, {value: x, partition: 2}]}
    expect:
      namedd: []
      named:
        - {idd: x}
        - {id: x, cents: 1.5, at: noon}
        - {id: x, at: 2026-11-22T10:00:00.1234567Z}
        - {name: x}
",
    );
    let pipeline = wrong("\npipeline: q.sql\ncases: [{name: x}]\n");
    let lookups = wrong("\ncases: [{name: x, tables: {names: [{id: x, rank: high}, {name: y}]}}]\n");
    let yaml = wrong("\ncases: [{name: x\n");
    let twice = wrong("\ncases: []\ncases: []\n");
    let accent = wrong("\ncases: \"a\" é\n");
    insta::assert_snapshot!([form, meaning, pipeline, lookups, yaml, twice, accent].join("\n=====\n"));
    let dir = place("");
    assert!(test(dir.path(), &["nowhere"]).exits(2).stderr.contains("nowhere: No such file"));
    assert!(test(dir.path(), &["proto"]).exits(2).stderr.contains("no file *.test.yaml in proto"));
    let none = place(&format!("{SHARED}\ncases: [{{name: x}}]"));
    assert!(test(none.path(), &["--filter", "zz"]).exits(2).stderr.contains("no case has `zz`"));
}

#[test]
fn the_schema_says_what_a_case_may_say() {
    let schema = finish(&mut flumen(&repository(), ["test", "--schema"])).exits(0).stdout;
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let case = &schema["properties"]["cases"]["items"]["properties"];
    assert_eq!(schema["additionalProperties"], false);
    for key in ["name", "topics", "steps", "expect", "counts", "error", "clock", "params", "tables"] {
        assert!(case[key]["description"].is_string(), "{key}: {case}");
    }
    let points = &case["steps"]["items"]["anyOf"][1]["properties"]["kill"]["enum"];
    assert_eq!(points.as_array().unwrap().len(), KILL_POINTS.len());
}

#[test]
fn batch_jobs_and_checks_follow_each_push() {
    let dir = place(&format!(
        "{SHARED}
cases:
  - name: nothing at all
    counts: {{totals: 0, named: 0}}
  - name: totals
    steps:
      - push: {{events: [{{value: {{event_id: e-1, user_id: u-1, cents: 1}}}}, {{value: {{event_id: e-2, user_id: u-1, cents: 2}}}}]}}
        expect: {{totals: [{{name: one, cents: 3}}]}}
      - push: {{events: [{{value: {{event_id: e-3, user_id: 2, cents: 5}}}}]}}
        expect: {{totals: [{{name: one, cents: 3}}, {{name: two, cents: 5}}]}}
      - tables: {{names: [{{id: u-1, name: forbidden}}]}}
        push: {{events: [{{value: {{event_id: e-4, user_id: u-1, cents: 1}}}}]}}
        error: {{kind: violated, text: this check must return no rows}}
        counts: {{named: 4}}
"
    ));
    let declared = TABLES.replace("named_again STORED", "named_again (name VARCHAR, cents BIGINT) STORED");
    std::fs::write(dir.path().join("p.sql"), format!("{declared}{PIPELINE}")).unwrap();
    test(dir.path(), &[]).exits(0);
}
