//! Close of books through the real binary on a real broker: a day is sealed once, whatever happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};

use crate::binary::{Background, Finished, finish, flumen, until, workspace};
use crate::broker::{Broker, NewRecord};
use crate::{delta, topics};

const FILE: &str = "queries/close_of_books.sql";
/// 2026-11-22T05:00:00Z: the day of New York begins.
const DAY: i64 = 1_795_323_600;

/// `calls.v1.CallSummary`, as `proto/calls/v1/calls.proto` has it.
#[derive(Clone, PartialEq, Message)]
struct CallSummary {
    #[prost(string, tag = "1")]
    call_id: String,
    #[prost(string, tag = "2")]
    account_id: String,
    #[prost(message, optional, tag = "4")]
    ended_at: Option<Timestamp>,
    #[prost(int64, tag = "5")]
    seconds: i64,
    #[prost(int64, tag = "6")]
    cost_micros: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// The summary of a call that ended `second` seconds into 2026-11-22; its record was sent then.
fn call(partition: i32, id: &str, second: i64, seconds: i64) -> NewRecord {
    let message = CallSummary {
        call_id: id.to_owned(),
        account_id: format!("account-{}", id.len() % 3),
        ended_at: Some(Timestamp { seconds: DAY + second }),
        seconds,
        cost_micros: seconds * 450,
    };
    let value = Some(message.encode_to_vec());
    NewRecord { partition, value, timestamp: (DAY + second) * 1000, ..NewRecord::default() }
}

/// The shipped pipeline over a topic of this test's own.
struct Books {
    dir: tempfile::TempDir,
    topic: String,
}

impl Books {
    fn new(name: &str, partitions: i32) -> Self {
        let topic = topics::new_topic(Broker::shared(), name, partitions);
        let books = Self { dir: workspace(), topic };
        books.edit(FILE, "/call-summaries'", &format!("/{}'", books.topic));
        books
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn table(&self, name: &str) -> PathBuf {
        self.root().join("tables").join(name)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.root().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {file}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    fn publish(&self, records: &[NewRecord]) {
        Broker::shared().produce(&self.topic, records);
    }

    fn command(&self, date: &str, more: &[&str]) -> Command {
        let mut args = vec!["-o", "json", "close", FILE, "--date", date];
        args.extend(more);
        Broker::shared().flumen(self.root(), args)
    }

    /// A close that has come to a point and is stopped there, until it gets CONT.
    fn held_at(&self, point: &str) -> Background {
        self.date_held_at("2026-11-22", point)
    }

    fn date_held_at(&self, date: &str, point: &str) -> Background {
        let mark = self.root().join(format!("{date}.mark"));
        let mut command = self.command(date, &[]);
        command.env("FLUMEN_FAULT", format!("{point}:1:delay")).env("FLUMEN_FAULT_MARK", &mark);
        let held = Background::start(&mut command);
        until("it has come to the point", Duration::from_secs(60), || mark.exists());
        held.signal("STOP");
        held
    }

    fn close(&self, more: &[&str]) -> Finished {
        self.close_of("2026-11-22", more)
    }

    fn close_of(&self, date: &str, more: &[&str]) -> Finished {
        finish(&mut self.command(date, more))
    }

    /// The one line of a close that succeeds.
    fn closed(&self, more: &[&str]) -> Value {
        let lines = self.close(more).exits(0).json();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    fn rows(&self, table: &str) -> Vec<BTreeMap<String, Value>> {
        delta::read_with_python(&self.table(table)).rows
    }

    /// Call and seconds of what is kept, in order.
    fn kept(&self) -> Vec<(String, i64)> {
        let rows = self.rows("closed_calls");
        let mut kept: Vec<_> = rows
            .iter()
            .map(|row| (row["call_id"].as_str().unwrap().to_owned(), row["seconds"].as_i64().unwrap()))
            .collect();
        kept.sort();
        kept
    }

    /// How many versions each table has.
    fn versions(&self) -> Vec<usize> {
        let tables = ["_closings", "closed_calls", "closed_accounts", "closed_calls_adjustments"];
        tables.map(|table| delta::log(&self.table(table)).len()).to_vec()
    }

    /// The states in the books: date, closing, state.
    fn states(&self) -> Vec<(String, i64, String)> {
        let rows = self.rows("_closings");
        let mut states: Vec<_> = rows
            .iter()
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                (text("date"), row["closing"].as_i64().unwrap(), text("state"))
            })
            .collect();
        states.sort();
        states
    }

    fn sealed_once(&self) {
        let once = |state: &str| ("2026-11-22".to_owned(), 1, state.to_owned());
        assert_eq!(self.states(), [once("done"), once("sealed")]);
    }
}

/// A day of two partitions: 60 calls, of which 12 are told of twice.
fn a_day() -> Vec<NewRecord> {
    let mut records = Vec::new();
    for n in 0..60 {
        records.push(call(n % 2, &format!("call-{n:03}"), i64::from(n) * 60, 30));
        if n % 5 == 0 {
            records.push(call(n % 2, &format!("call-{n:03}"), i64::from(n) * 60 + 30, 60));
        }
    }
    records
}

fn the_day_as_it_is_closed() -> Vec<(String, i64)> {
    (0..60).map(|n| (format!("call-{n:03}"), if n % 5 == 0 { 60 } else { 30 })).collect()
}

fn figures(closed: &Value, names: &[&str]) -> Vec<i64> {
    let total = &closed["reconciled"][0]["total"];
    names.iter().map(|name| total[*name].as_i64().unwrap_or_else(|| panic!("{name} in {total}"))).collect()
}

#[test]
fn a_day_is_closed_once_and_everything_is_accounted_for() {
    let books = Books::new("close-day", 2);
    books.publish(&a_day());
    let more = [
        NewRecord { partition: 0, value: Some(vec![0xff; 4]), timestamp: DAY * 1000, ..NewRecord::default() },
        NewRecord { partition: 1, value: None, timestamp: DAY * 1000, ..NewRecord::default() },
        call(1, "", 10, 5),
        call(0, "yesterday", -1, 5),
        call(1, "tomorrow", 86_400, 5),
    ];
    books.publish(&more);
    let first = books.close(&["--report", "day.html"]).exits(0);
    let closed = &first.json()[0];
    let all = ["records", "landed", "dead", "null", "quarantined", "outside", "duplicates", "kept", "brought_forward"];
    assert_eq!(figures(closed, &all), [77, 74, 1, 1, 1, 2, 12, 60, 0], "{closed}");
    let of = |partition: &str, name: &str| closed["reconciled"][0]["partitions"][partition][name].as_i64().unwrap();
    let [zero, one] = ["0", "1"].map(|p| ["records", "dead", "null", "quarantined"].map(|name| of(p, name)));
    assert_eq!((zero, one), ([38, 1, 0, 0], [39, 0, 1, 1]), "{closed}");
    let sums = &closed["reconciled"][0]["total"]["sums"]["seconds"];
    assert_eq!(sums, &json!({"landed": 2530, "brought_forward": 0, "outside": 10, "kept": 2160, "duplicates": 360}));
    assert_eq!(
        (&closed["closing"], &closed["checks"], &closed["complete_by"]),
        (&1.into(), &2.into(), &"clock".into())
    );
    assert_eq!(books.kept(), the_day_as_it_is_closed());
    let owed: i64 = books.rows("closed_accounts").iter().map(|row| row["seconds"].as_i64().unwrap()).sum();
    assert_eq!(owed, 2160);
    for table in ["closed_calls", "closed_accounts"] {
        let id = format!("flumen-close:close_of_books:{table}:2026-11-22");
        assert_eq!(delta::txns(&books.table(table)).get(&id), Some(&1));
    }
    books.sealed_once();
    // Run again: the same words, and nothing else.
    let versions = books.versions();
    let again = books.close(&["--report", "again.html"]).exits(0);
    assert_eq!(again.stdout, first.stdout);
    assert!(again.stderr.contains("it was closed before"), "{}", again.stderr);
    assert_eq!(books.versions(), versions);
    // Without a broker too.
    let mut away = flumen(books.root(), ["-o", "json", "close", FILE, "--date", "2026-11-22"]);
    away.env("KAFKA_BROKERS", "127.0.0.1:9").args(["--set", "flumen.broker_timeout=200 milliseconds"]);
    let away = finish(&mut away).exits(0);
    assert_eq!(away.stdout, first.stdout);
    assert!(away.stderr.contains("late records were not looked for"), "{}", away.stderr);
    let [page, same] = ["day.html", "again.html"].map(|name| std::fs::read_to_string(books.root().join(name)).unwrap());
    assert_eq!(page, same);
    for part in ["<td>60</td>", "dead letters", "closed_accounts", closed["content_sha256"].as_str().unwrap()] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("http"), "it needs nothing else");
}

#[test]
fn a_day_that_is_not_complete_is_not_closed() {
    let books = Books::new("close-early", 3);
    books.publish(&[call(0, "a", 100, 1), call(1, "b", 100, 1), call(1, "late-enough", 86_400 + 7_200, 1)]);
    let clock = ["--clock", "2026-11-23T06:59:59Z"];
    let early = books.close(&clock).exits(1);
    let topic = &books.topic;
    for part in [
        format!("topic {topic} partition 0 ends at offset 1"),
        format!("topic {topic} partition 2 ends at offset 0"),
        "2026-11-23T07:00:00Z".to_owned(),
    ] {
        assert!(early.stderr.contains(&part), "{part}: {}", early.stderr);
    }
    assert!(!early.stderr.contains("partition 1"), "{}", early.stderr);
    assert!(!books.table("closed_calls").exists() && !books.table("_closings").exists());
    // Not as long after the day's end.
    books.publish(&[call(0, "c", 86_400 + 3_600, 1), call(2, "d", 86_400 + 3_600, 1)]);
    books.close(&clock).exits(1);
    let by_records = books.closed(&["--clock", "2026-11-23T05:30:00Z", "--lateness", "1 hour"]);
    assert_eq!(by_records["complete_by"], "records");
    assert_eq!(figures(&by_records, &["records", "kept", "outside"]), [5, 2, 3]);
}

#[test]
fn days_follow_each_other_and_rows_are_brought_forward() {
    let books = Books::new("close-days", 2);
    books.publish(&a_day());
    books.publish(&[call(0, "tomorrow", 86_400 + 5, 40), call(0, "tomorrow", 86_400 + 6, 50)]);
    books.closed(&[]);
    books.publish(&[call(0, "tomorrow", 86_400 + 4, 30), call(1, "other", 86_400 + 9, 7)]);
    let next = &books.close_of("2026-11-23", &[]).exits(0).json()[0];
    let all = ["records", "landed", "brought_forward", "outside", "duplicates", "kept"];
    assert_eq!(figures(next, &all), [2, 2, 2, 0, 2, 2], "{next}");
    let (from, to) =
        (&next["reconciled"][0]["partitions"]["0"]["from"], &next["reconciled"][0]["partitions"]["0"]["to"]);
    assert_eq!((from, to), (&38.into(), &39.into()), "{next}");
    let mut both = the_day_as_it_is_closed();
    both.extend([("other".to_owned(), 7), ("tomorrow".to_owned(), 50)]);
    assert_eq!(books.kept(), both);
    // A day without a record is closed too.
    let empty = &books.close_of("2026-11-24", &["--clock", "2026-11-25T12:00:00Z"]).exits(0).json()[0];
    assert_eq!(figures(empty, &all), [0, 0, 0, 0, 0, 0], "{empty}");
}

#[test]
fn what_does_not_add_up_is_not_closed() {
    let books = Books::new("close-differs", 2);
    books.publish(&a_day());
    finish(&mut Broker::shared().flumen(books.root(), ["run", FILE, "--available-now"])).exits(0);
    let refused = |books: &Books, parts: &[&str]| {
        let failed = books.close(&["--report", "not.html"]).exits(3);
        for part in parts {
            assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
        }
        assert!(!books.table("_closings").exists() && !books.table("closed_calls/_delta_log").exists());
        // Schedulers and people get the figures all the same.
        if let Some(line) = failed.json().first() {
            assert!(!line["differences"].as_array().unwrap().is_empty(), "{line}");
            assert_eq!(line["reconciled"][0]["total"]["records"], 72);
            assert!(std::fs::read_to_string(books.root().join("not.html")).unwrap().contains("was not closed"));
        }
        // Nothing that was staged is left.
        let left = walk(&books.table("closed_calls"));
        assert!(left.is_empty(), "{left:?}");
    };
    let shipped = std::fs::read_to_string(books.root().join(FILE)).unwrap();
    // A query that loses calls.
    books.edit(FILE, "WHERE place = 1;", "WHERE place = 1 AND seconds > 30;");
    refused(&books, &["partition 0: 24 different call_id have rows of the day and none that is kept"]);
    // One that keeps too many.
    std::fs::write(books.root().join(FILE), &shipped).unwrap();
    books.edit(FILE, "WHERE place = 1;", "WHERE place <= 2;");
    refused(&books, &["partition 1: 6 different call_id have more than one row that is kept"]);
    // One that changes what they say.
    std::fs::write(books.root().join(FILE), &shipped).unwrap();
    books.edit(
        FILE,
        "ended_at, seconds, cost_micros, outcome, _partition, _offset\nFROM (",
        "ended_at, seconds + 1, cost_micros, outcome, _partition, _offset\nFROM (",
    );
    refused(&books, &["seconds of the rows that are kept is 1080 as it landed, and 1110 now"]);
    // Rows of another day.
    std::fs::write(books.root().join(FILE), &shipped).unwrap();
    books.edit(FILE, "SELECT $date, call_id", "SELECT CAST('2026-11-21' AS DATE), call_id");
    refused(&books, &["business_date = 2026-11-21", "write $date into that column"]);
    // A check.
    std::fs::write(books.root().join(FILE), &shipped).unwrap();
    books.edit(FILE, "AND cost_micros < 0;", "AND cost_micros > 13500;");
    refused(&books, &["this check must return no rows and returned 12", "Nothing was committed"]);
    // Somebody takes rows away that landed.
    std::fs::write(books.root().join(FILE), &shipped).unwrap();
    python(&books.table("landed_calls"), "t.delete(\"call_id = 'call-007' OR call_id = 'call-008'\")");
    refused(
        &books,
        &["partition 0: 36 records were read, and 35 rows landed", "partition 1: 36 records were read, and 35"],
    );
}

/// Runs a line of Python with the table `t`.
fn python(table: &Path, line: &str) {
    let script = format!(
        "import os, sys, datetime\nfrom deltalake import DeltaTable, write_deltalake\nt = DeltaTable(sys.argv[1])\n{line}\nsys.stdout.flush()\nos._exit(0)"
    );
    finish(Command::new(delta::python()).args(["-c", &script]).arg(table)).exits(0);
}

/// The data files under a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

const POINTS: [(&str, u32); 19] = [
    ("plan", 1),
    ("commit.after", 1),
    ("close.stage", 1),
    ("close.stage", 2),
    ("close.checked", 1),
    ("close.seal", 1),
    ("close.sealed", 1),
    ("close.rolled", 1),
    ("close.rolled", 2),
    ("close.done", 1),
    ("close.late", 1),
    // The positions, the rows, the seal, the two final tables, the mark, and the adjustments.
    ("put.before", 3),
    ("put.before", 4),
    ("put.before", 6),
    ("put.before", 7),
    ("put.after", 3),
    ("put.after", 4),
    ("put.after", 5),
    ("put.after", 7),
];

#[test]
fn killed_anywhere_it_is_sealed_once() {
    for (point, hit) in POINTS {
        // A put that fails is put again: those are killed only.
        for action in ["abort", "error"].into_iter().take(if point.starts_with("put.") { 1 } else { 2 }) {
            let books = Books::new("close-killed", 2);
            books.publish(&a_day());
            let fault = format!("{point}:{hit}:{action}");
            let mark = books.root().join("mark");
            let mut command = books.command("2026-11-22", &[]);
            let failed = finish(command.env("FLUMEN_FAULT", &fault).env("FLUMEN_FAULT_MARK", &mark));
            assert!(mark.exists() && failed.code != Some(0), "{fault}: {failed:?}");
            let closed = books.closed(&[]);
            assert_eq!(closed["closing"], 1, "{fault}");
            assert_eq!(books.kept(), the_day_as_it_is_closed(), "{fault}");
            books.sealed_once();
            assert_eq!(books.rows("closed_accounts").len(), 1, "{fault}");
            let versions = books.versions();
            assert_eq!((versions[1], versions[2]), (1, 1), "{fault}: each final table is written once");
            assert_eq!(books.closed(&[]), closed, "{fault}");
        }
    }
}

#[test]
fn two_at_once_close_a_day_once() {
    let books = Books::new("close-twice", 2);
    books.publish(&a_day());
    finish(&mut Broker::shared().flumen(books.root(), ["run", FILE, "--available-now"])).exits(0);
    let both: Vec<_> = (0..3).map(|_| Background::start(&mut books.command("2026-11-22", &[]))).collect();
    let said: Vec<String> = both.into_iter().map(|run| run.wait().exits(0).stdout).collect();
    assert!(said.iter().all(|line| *line == said[0]), "{said:?}");
    books.sealed_once();
    assert_eq!(books.kept(), the_day_as_it_is_closed());
    // What the others staged is gone.
    let files =
        walk(&books.table("closed_calls")).into_iter().filter(|f| f.extension().is_some_and(|e| e == "parquet"));
    assert_eq!(files.count(), delta::files_added(&books.table("closed_calls"), 0).len());
}

#[test]
fn the_stream_goes_on_while_a_day_is_closed() {
    let books = Books::new("close-stream", 2);
    let args = ["-o", "json", "run", FILE, "--set", "flumen.trigger=2 seconds", "--query", "landed_calls"];
    let mut run = Background::start(&mut Broker::shared().flumen(books.root(), args));
    books.publish(&a_day());
    let closed = books.closed(&[]);
    assert_eq!(figures(&closed, &["records", "kept"]), [72, 60], "{closed}");
    assert!(run.running(), "the stream was not ended by the close");
    books.publish(&[call(0, "late", 5, 5)]);
    let position = || {
        delta::txns(&books.table("landed_calls"))
            .get(&format!("flumen:close_of_books:landed_calls:{}:0", books.topic))
            .copied()
    };
    until("the late record landed", Duration::from_secs(60), || position() == Some(37));
    let again = books.close(&[]).exits(0);
    assert!(again.stderr.contains("1 late rows of 2026-11-22"), "{}", again.stderr);
    run.signal("TERM");
    run.wait().exits(0);
    assert_eq!(books.kept(), the_day_as_it_is_closed());
    books.sealed_once();
}

#[test]
fn late_records_go_beside_and_a_date_can_be_closed_anew() {
    let books = Books::new("close-late", 2);
    books.publish(&a_day());
    let first = books.closed(&[]);
    assert_eq!(first["adjustments"], 0);
    books.publish(&[call(0, "forgotten", 50, 9), call(1, "call-003", 70_000, 90), call(1, "tomorrow", 90_000, 1)]);
    // The same line but for what is late, once.
    let found = books.close(&[]).exits(0);
    assert!(found.stderr.contains("2 late rows of 2026-11-22"), "{}", found.stderr);
    assert_eq!(found.json()[0]["adjustments"], 2);
    let again = books.close(&[]).exits(0);
    assert!(!again.stderr.contains("late rows"), "{}", again.stderr);
    assert_eq!(again.stdout, found.stdout);
    let late = books.rows("closed_calls_adjustments");
    let mut ids: Vec<_> =
        late.iter().map(|row| (row["call_id"].clone(), row["_date"].clone(), row["_closing"].clone())).collect();
    ids.sort_by_key(|row| row.0.to_string());
    assert_eq!(json!(ids), json!([["call-003", "2026-11-22", 1], ["forgotten", "2026-11-22", 1]]));
    assert_eq!(books.kept(), the_day_as_it_is_closed(), "what is sealed stays");
    let sql = "SELECT count(*) AS n FROM closed_calls_adjustments AS a JOIN _closings AS c ON c.closing = a._closing";
    let counted = finish(&mut flumen(books.root(), ["-o", "json", "sql", FILE, sql])).exits(0).json();
    assert_eq!(counted[0]["n"], 4, "two rows, sealed and done");
    // Anew, with a reason; it knows of the one before.
    let reopened = books.closed(&["--reopen", "--why", "the exchange was down"]);
    assert_eq!(
        (&reopened["closing"], &reopened["reopens"], &reopened["why"]),
        (&2.into(), &1.into(), &"the exchange was down".into())
    );
    let all = ["records", "brought_forward", "kept", "duplicates", "outside"];
    assert_eq!(figures(&reopened, &all), [75, 0, 61, 13, 1], "it accounts for what the one before did");
    assert_eq!(reopened["adjustments"], 0);
    let kept = books.kept();
    assert!(kept.contains(&("forgotten".to_owned(), 9)) && kept.contains(&("call-003".to_owned(), 90)), "{kept:?}");
    assert_eq!(kept.len(), 61);
    assert_eq!(books.closed(&[]), reopened);
    let id = "flumen-close:close_of_books:closed_calls:2026-11-22";
    assert_eq!(delta::txns(&books.table("closed_calls")).get(id), Some(&2));
}

#[test]
fn a_dead_letter_that_is_retried_after_its_day_is_late() {
    let books = Books::new("close-retried", 1);
    books.publish(&a_day().into_iter().map(|record| NewRecord { partition: 0, ..record }).collect::<Vec<_>>());
    // A field of another type than the message has: seconds as text.
    let good = call(0, "repaired", 77, 3);
    let bad = NewRecord { value: Some([good.value.clone().unwrap(), vec![0x3a, 1, b'x']].concat()), ..good };
    books.publish(&[bad]);
    let closed = books.closed(&[]);
    assert_eq!(figures(&closed, &["records", "landed", "dead", "kept"]), [73, 72, 1, 60], "{closed}");
    books.edit("proto/calls/v1/calls.proto", "  Outcome outcome = 7;\n", "  string note = 7;\n");
    books.edit(FILE, "cost_micros, outcome,\n  _partition", "cost_micros, note,\n  _partition");
    finish(&mut Broker::shared().flumen(books.root(), ["dead-letters", "retry", FILE])).exits(0);
    let found = books.close(&["--set", "flumen.schema_change=accept"]).exits(0);
    assert!(found.stderr.contains("1 late rows of 2026-11-22"), "{}", found.stderr);
    assert_eq!(books.rows("closed_calls_adjustments").len(), 1);
}

#[test]
fn whoever_touches_a_day_that_is_being_closed_is_named() {
    let books = Books::new("close-foreign", 2);
    books.publish(&a_day());
    books.closed(&[]);
    // Sealed and not made good: then somebody writes into the day.
    let mut command = books.command("2026-11-22", &["--reopen", "--why", "again"]);
    finish(command.env("FLUMEN_FAULT", "close.sealed:1:abort"));
    python(&books.table("closed_calls"), "t.delete(\"call_id = 'call-001'\")");
    let refused = books.close(&[]).exits(1);
    for part in ["closed_calls`: version 1 (DELETE) changed business_date = 2026-11-22", "--reopen"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    // The next day waits for it, and closing it anew is the way out.
    books.close_of("2026-11-23", &[]).exits(1);
    let reopened = books.closed(&["--reopen", "--why", "somebody deleted a call"]);
    assert_eq!(reopened["closing"], 3);
    assert_eq!(books.kept(), the_day_as_it_is_closed());
    books.close_of("2026-11-23", &[]).exits(0);
}

#[test]
fn rows_that_vanish_before_their_day_is_closed_are_missed() {
    let books = Books::new("close-vanished", 2);
    books.publish(&a_day());
    books.publish(&[call(0, "tomorrow", 86_400 + 5, 40), call(1, "other", 86_400 + 6, 50)]);
    let closed = books.closed(&[]);
    let day = &closed["reconciled"][0]["partitions"]["0"]["outside_by_day"]["2026-11-23"];
    assert_eq!(day, &json!({"rows": 1, "sums": {"cost_micros": 18_000, "seconds": 40}}));
    python(&books.table("landed_calls"), "t.delete(\"call_id = 'tomorrow'\")");
    let refused = books.close_of("2026-11-23", &[]).exits(3);
    for part in [
        "partition 0: 1 rows of the day had landed when other days were closed, and 0 of them are there now",
        "partition 0: seconds of rows of the day was 40 when other days were closed, and 0 is there now",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("partition 1"), "{}", refused.stderr);
    // A row that somebody puts in is found too.
    let copy = "r = t.to_pyarrow_table(); r = r.filter([v == 'call-001' for v in r['call_id'].to_pylist()]); \
                import pyarrow as pa; i = r.schema.get_field_index('ended_at'); \
                at = pa.array([datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.timezone.utc)], r.schema.field(i).type); \
                write_deltalake(sys.argv[1], r.set_column(i, r.schema.field(i), at), mode='append')";
    python(&books.table("landed_calls"), copy);
    let refused = books.close_of("2026-11-24", &["--clock", "2026-11-26T00:00:00Z"]).exits(3);
    assert!(refused.stderr.contains("0 rows of the day had landed when other"), "{}", refused.stderr);
}

#[test]
fn days_opened_again_and_again_keep_the_accounts_of_others() {
    let books = Books::new("close-reopened", 1);
    let later = |n: i64| call(0, &format!("later-{n}"), 2 * 86_400 + n, n);
    books.publish(&[call(0, "a", 10, 1), later(1)]);
    books.closed(&[]);
    books.publish(&[call(0, "b", 86_400 + 10, 1), later(2)]);
    books.close_of("2026-11-23", &[]).exits(0);
    books.publish(&[later(3)]);
    for n in [4, 5] {
        let reopened = books.closed(&["--reopen", "--why", "again"]);
        assert_eq!(figures(&reopened, &["records", "kept", "outside"]), [n + 1, 1, n], "{reopened}");
        books.publish(&[later(n)]);
    }
    let closed = &books.close_of("2026-11-24", &["--clock", "2026-11-26T00:00:00Z"]).exits(0).json()[0];
    assert_eq!(figures(closed, &["records", "brought_forward", "kept"]), [1, 4, 5], "{closed}");
}

#[test]
fn days_are_closed_and_opened_again_in_any_order() {
    let books = Books::new("close-any-order", 2);
    let clock = ["--clock", "2026-11-27T00:00:00Z"];
    let again = [&clock[..], &["--reopen", "--why", "again"]].concat();
    let days = ["2026-11-22", "2026-11-23", "2026-11-24"];
    let rows = |n: i64| {
        let row = |day: i64| call((n % 2) as i32, &format!("{day}-{n}"), day * 86_400 + 100 + n, n);
        books.publish(&[row(0), row(1), row(2)]);
    };
    let close = |day: &str, more: &[&str]| books.close_of(day, more).exits(0).json()[0].clone();
    rows(1);
    close(days[0], &clock);
    rows(2);
    // A day is left out and closed later.
    close(days[2], &clock);
    rows(3);
    let skipped = close(days[1], &clock);
    assert_eq!(figures(&skipped, &["brought_forward", "kept"]), [2, 3], "{skipped}");
    for (n, day) in (4..).zip([0, 1, 2, 0, 0, 2, 1, 0]) {
        rows(n);
        let closed = close(days[day], &again);
        assert_eq!(figures(&closed, &["kept"]), [n], "{closed}");
    }
    // What vanishes is missed by whoever comes to it.
    python(&books.table("landed_calls"), "t.delete(\"call_id = '1-2'\")");
    let refused = books.close_of(days[1], &again).exits(3);
    assert!(refused.stderr.contains("4 rows of the day had landed when other days were closed"), "{}", refused.stderr);
}

#[test]
fn what_adds_up_may_change_between_closings() {
    let books = Books::new("close-sums", 1);
    books.edit(FILE, "started_at TIMESTAMP,", "started_at TIMESTAMP NOT NULL,");
    books.edit(FILE, "nullif(account_id, ''), started_at,", "nullif(account_id, ''), COALESCE(started_at, ended_at),");
    let days = |n: i64| {
        books.publish(&[0, 1, 2, 3].map(|day| call(0, &format!("{day}-{n}"), day * 86_400 + 9, n)));
    };
    days(1);
    books.closed(&[]);
    let clock = ["--clock", "2026-11-27T00:00:00Z"];
    books.edit(FILE, "'seconds, cost_micros'", "'seconds'");
    days(2);
    books.close_of("2026-11-23", &clock).exits(0);
    books.edit(FILE, "'close.sums' 'seconds'", "'close.sums' 'cost_micros, seconds'");
    days(3);
    let closed = &books.close_of("2026-11-24", &clock).exits(0).json()[0];
    assert_eq!(closed["reconciled"][0]["total"]["sums"]["cost_micros"]["kept"], 6 * 450, "{closed}");
    // Another time makes other days.
    books.edit(FILE, "'close.time' 'ended_at'", "'close.time' 'started_at'");
    books.edit(
        FILE,
        "ended_at >= $day_start AND ended_at < $day_end",
        "started_at >= $day_start AND started_at < $day_end",
    );
    let refused = books.close_of("2026-11-25", &clock).exits(2);
    assert!(
        refused.stderr.contains("close.time is `started_at`, and was `ended_at` when 2026-11-22"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_log_that_was_cut_off_takes_no_account_with_it() {
    let books = Books::new("close-cut", 1);
    let cut = |table: &Path| {
        python(table, "t.create_checkpoint()");
        let log = table.join("_delta_log");
        let mut entries: Vec<_> =
            walk(&log).into_iter().filter(|path| path.extension() == Some("json".as_ref())).collect();
        entries.sort();
        entries.pop();
        entries.into_iter().for_each(|entry| std::fs::remove_file(entry).unwrap());
    };
    let nothing = || NewRecord { value: None, ..call(0, "nothing", 5, 1) };
    books.publish(&[call(0, "a", 1, 1), nothing(), call(0, "tomorrow", 86_400, 1)]);
    let run = || finish(&mut Broker::shared().flumen(books.root(), ["run", FILE, "--available-now"])).exits(0);
    run();
    books.publish(&[call(0, "b", 2, 1)]);
    run();
    cut(&books.table("landed_calls"));
    // Nobody knows how many records there were: their offsets are more.
    let closed = books.close(&[]).exits(0);
    assert!(closed.stderr.contains("4 records were read, and 3 rows landed"), "{}", closed.stderr);
    assert_eq!(closed.json()[0]["reconciled"][0]["by_offsets"], true, "{}", closed.stdout);
    books.publish(&[nothing(), call(0, "c", 86_401, 1)]);
    let next = &books.close_of("2026-11-23", &[]).exits(0).json()[0];
    assert_eq!(figures(next, &["records", "null", "landed", "brought_forward", "kept"]), [2, 1, 1, 1, 2], "{next}");
    // What a closing has said of its records stays known.
    books.publish(&[call(0, "d", 3, 1)]);
    run();
    cut(&books.table("landed_calls"));
    books.publish(&[call(0, "e", 86_402, 1)]);
    let closed = books.close_of("2026-11-23", &["--reopen", "--why", "again"]).exits(0);
    assert!(!closed.stderr.contains("records were read"), "{}", closed.stderr);
    let next = &closed.json()[0];
    assert_eq!(figures(next, &["records", "null", "landed", "kept"]), [4, 1, 3, 3], "{next}");
}

#[test]
fn whoever_looks_for_late_rows_does_not_go_back() {
    let books = Books::new("close-late-marks", 1);
    let (first, second) = ("2026-11-22", "2026-11-23");
    books.publish(&[call(0, "a", 1, 1), call(0, "b", 86_401, 1)]);
    books.closed(&[]);
    // One has read the books, and is held before it lands what came.
    books.publish(&[call(0, "c", 86_402, 1), call(0, "late-0", 2, 1)]);
    let before = books.date_held_at(first, "commit.before");
    // Another day is closed by somebody else, who is held when its late rows are looked for.
    let after = books.date_held_at(second, "close.late");
    books.publish(&[call(0, "late-1", 3, 1), call(0, "late-2", 86_403, 1)]);
    before.signal("CONT");
    before.wait().exits(0);
    after.signal("CONT");
    after.wait().exits(0);
    books.close_of(first, &[]).exits(0);
    books.close_of(second, &[]).exits(0);
    let rows = books.rows("closed_calls_adjustments");
    let mut late: Vec<_> = rows.iter().map(|row| row["call_id"].as_str().unwrap()).collect();
    late.sort_unstable();
    assert_eq!(late, ["late-0", "late-1", "late-2"]);
}

#[test]
fn of_two_dates_at_once_each_record_is_in_one() {
    let books = Books::new("close-both", 2);
    books.publish(&a_day());
    books.publish(&[call(0, "yesterday", -100, 9)]);
    // One is held when its figures are made; meanwhile another date is closed, and a record comes.
    let held = books.held_at("close.checked");
    books.publish(&[call(1, "between", 400, 7)]);
    let other = &books.close_of("2026-11-21", &[]).exits(0).json()[0];
    assert_eq!(figures(other, &["records", "kept", "outside"]), [74, 1, 73], "{other}");
    held.signal("CONT");
    let finished = held.wait().exits(0);
    assert!(finished.stderr.contains("another date was closed meanwhile"), "{}", finished.stderr);
    let all = ["records", "brought_forward", "kept", "duplicates"];
    assert_eq!(figures(&finished.json()[0], &all), [0, 73, 61, 12], "{}", finished.stdout);
    assert!(books.kept().contains(&("between".to_owned(), 7)));
    assert!(books.rows("closed_calls_adjustments").is_empty());
}

#[test]
fn a_row_that_lands_while_its_day_is_sealed_is_late() {
    let books = Books::new("close-between", 1);
    books.publish(&[call(0, "a", 10, 1), call(0, "yesterday", -100, 9)]);
    books.close_of("2026-11-21", &[]).exits(0);
    // The day is pinned and not sealed; a record of it lands, and somebody else looks for late rows.
    let held = books.held_at("close.seal");
    books.publish(&[call(0, "between", 400, 7)]);
    books.close_of("2026-11-21", &[]).exits(0);
    held.signal("CONT");
    held.wait().exits(0);
    let found = books.close(&[]).exits(0);
    assert_eq!(found.json()[0]["adjustments"], 1, "{}", found.stderr);
    let late = books.rows("closed_calls_adjustments");
    assert_eq!((late.len(), &late[0]["call_id"]), (1, &"between".into()));
}

#[test]
fn a_topic_that_was_made_again_is_not_closed() {
    let books = Books::new("close-again", 1);
    books.publish(&a_day().into_iter().map(|record| NewRecord { partition: 0, ..record }).collect::<Vec<_>>());
    books.closed(&[]);
    topics::make_again(Broker::shared(), &books.topic, 1);
    books.publish(&[call(0, "tomorrow", 86_400 + 5, 40)]);
    let refused = books.close_of("2026-11-23", &[]).exits(3);
    assert!(refused.stderr.contains("is not the topic that table"), "{}", refused.stderr);
    // Passed over by the stream, its offsets cannot be told from the old ones.
    books.edit(
        FILE,
        "'value.message' 'calls.v1.CallSummary'",
        "'value.message' 'calls.v1.CallSummary', 'on_data_loss' 'skip'",
    );
    let refused = books.close_of("2026-11-23", &[]).exits(2);
    assert!(refused.stderr.contains("their offsets cannot be told apart"), "{}", refused.stderr);
    // What is closed stays closed.
    assert_eq!(books.closed(&[])["closing"], 1);
}

#[test]
fn days_of_two_zones_do_not_share_hours_and_books_are_not_lost() {
    let books = Books::new("close-zones", 1);
    books.publish(&[call(0, "a", 10, 1)]);
    books.closed(&[]);
    for date in ["2026-11-22", "2026-11-23"] {
        let refused = books.close_of(date, &["--set", "flumen.close_zone=Asia/Kathmandu"]).exits(2);
        assert!(refused.stderr.contains("shares hours with 2026-11-22"), "{}", refused.stderr);
    }
    let refused = books.close_of("2026-11-25", &["--set", "flumen.close_zone=Asia/Kathmandu"]).exits(2);
    assert!(refused.stderr.contains("2026-11-22 was closed as a day of America/New_York"), "{}", refused.stderr);
    std::fs::remove_dir_all(books.table("_closings")).unwrap();
    let refused = books.close(&[]).exits(2);
    assert!(refused.stderr.contains("has closing 1 of 2026-11-22, and the books do not know"), "{}", refused.stderr);
}

/// Decimal sums, a final table with two partition columns, and a lookup.
const FEES: &str = "
    SET flumen.close_zone = 'UTC';
    SET flumen.pipeline = 'fees';
    CREATE EXTERNAL TABLE calls STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS}/TOPIC'
    OPTIONS ('value.proto' 'proto/calls/v1/calls.proto', 'value.message' 'calls.v1.CallSummary');
    CREATE EXTERNAL TABLE rates (account VARCHAR, rate INT) STORED AS CSV LOCATION 'rates.csv'
    OPTIONS ('format.has_header' 'true');
    CREATE EXTERNAL TABLE landed (\"Call Id\" VARCHAR, account VARCHAR, at TIMESTAMP NOT NULL, \"Fee, net\" DECIMAL(18, 2),
      _partition INT NOT NULL, _offset BIGINT NOT NULL) STORED AS DELTA LOCATION 'tables/landed'
    OPTIONS ('close.time' 'at', 'close.key' 'Call Id, account', 'close.sums' '\"Fee, net\"');
    INSERT INTO landed SELECT call_id, account_id, ended_at, CAST(seconds / 4.0 AS DECIMAL(18, 2)), _partition, _offset FROM calls;
    CREATE EXTERNAL TABLE fees (account VARCHAR, day DATE NOT NULL, \"Fee, net\" DECIMAL(18, 4), rate INT, _partition INT,
      _offset BIGINT) STORED AS DELTA PARTITIONED BY (day, account) LOCATION 'tables/fees'
    OPTIONS ('mode' 'replace_partitions', 'close.rows_of' 'landed');
    INSERT INTO fees SELECT l.account, $date, CAST(\"Fee, net\" / SHARE AS DECIMAL(18, 4)), rate, _partition, _offset FROM (
      SELECT *, row_number() OVER (PARTITION BY \"Call Id\", account ORDER BY at DESC, _offset DESC) AS n FROM landed
      WHERE at >= $day_start AND at < $day_end) AS l LEFT JOIN rates AS r ON r.account = l.account WHERE n = 1;";

#[test]
fn decimals_add_up_and_partitions_may_have_any_name() {
    let topic = topics::new_topic(Broker::shared(), "close-fees", 2);
    let dir = workspace();
    let close = |share: &str| {
        std::fs::write(dir.path().join("fees.sql"), FEES.replace("TOPIC", &topic).replace("SHARE", share)).unwrap();
        let args = ["-o", "json", "close", "fees.sql", "--date", "2026-11-22"];
        finish(&mut Broker::shared().flumen(dir.path(), args))
    };
    std::fs::write(dir.path().join("rates.csv"), "account,rate\na b,7\n").unwrap();
    let named = |partition: i32, id: &str, account: &str, second: i64, seconds: i64| {
        let message = CallSummary {
            call_id: id.to_owned(),
            account_id: account.to_owned(),
            ended_at: Some(Timestamp { seconds: DAY + second }),
            seconds,
            cost_micros: 0,
        };
        NewRecord { value: Some(message.encode_to_vec()), ..call(partition, "", second, 0) }
    };
    let records = [
        named(0, "a", "a b", 1, 2),
        named(0, "a", "a b", 2, 3),
        named(0, "b", "50% é/x", 3, 1),
        named(1, "a", "=:?#", 4, 10),
    ];
    Broker::shared().produce(&topic, &records);
    // A share of it does not add up, whatever the digits are.
    let refused = close("100").exits(3);
    assert!(
        refused.stderr.contains("Fee, net of the rows that are kept is 1.00 as it landed, and 0.0100 now"),
        "{}",
        refused.stderr
    );
    let closed = &close("1").exits(0).json()[0];
    assert_eq!(figures(closed, &["records", "kept", "duplicates"]), [4, 3, 1]);
    let sums = |of: &Value| of["sums"]["Fee, net"].clone();
    let own = &closed["reconciled"][0];
    let zero = "0.00";
    let all = json!({"landed": "4.00", "brought_forward": zero, "outside": zero, "kept": "3.50", "duplicates": "0.50"});
    let one = json!({"landed": "2.50", "brought_forward": zero, "outside": zero, "kept": "2.50", "duplicates": zero});
    assert_eq!((sums(&own["total"]), sums(&own["partitions"]["1"])), (all, one), "{closed}");
    let rows = delta::read_with_python(&dir.path().join("tables/fees")).rows;
    let mut found: Vec<_> =
        rows.iter().map(|row| (row["account"].clone(), row["Fee, net"].clone(), row["rate"].clone())).collect();
    found.sort_by_key(|row| row.0.to_string());
    assert_eq!(json!(found), json!([["50% é/x", "0.2500", null], ["=:?#", "2.5000", null], ["a b", "0.7500", 7]]));
    assert_eq!(close("1").exits(0).json()[0], *closed);
}

#[test]
fn a_dry_run_commits_nothing() {
    let books = Books::new("close-dry", 2);
    books.publish(&a_day());
    let none = books.close(&["--dry-run"]).exits(1);
    assert!(none.stderr.contains("does not exist yet"), "{}", none.stderr);
    finish(&mut Broker::shared().flumen(books.root(), ["run", FILE, "--available-now"])).exits(0);
    books.publish(&[call(0, "more", 9, 9)]);
    let dry = books.close(&["--dry-run", "--clock", "2026-11-22T12:00:00Z"]).exits(0);
    let line = &dry.json()[0];
    assert_eq!((figures(line, &["records", "kept"]), &line["dry_run"]), (vec![72, 60], &true.into()));
    for part in ["a close would end here", "1 records are not landed yet", "nothing was committed"] {
        assert!(dry.stderr.contains(part), "{part}: {}", dry.stderr);
    }
    assert!(!books.table("_closings").exists());
    assert!(walk(&books.table("closed_calls")).is_empty());
    assert_eq!(delta::log(&books.table("landed_calls")).len(), 2, "nothing landed");
    // It says what a close then says.
    assert_eq!(books.closed(&[])["closing"], 1);
    let dry = books.close(&["--dry-run", "--reopen", "--why", "to see"]).exits(0);
    assert_eq!(dry.json()[0]["closing"], 2);
    books.sealed_once();
}

#[test]
fn a_run_leaves_final_tables_to_the_close() {
    let books = Books::new("close-aside", 1);
    books.publish(&[call(0, "a", 1, 1)]);
    let refused = finish(&mut Broker::shared().flumen(books.root(), ["run", FILE, "--query", "closed_calls"])).exits(2);
    assert!(refused.stderr.contains("written by a close of books only: `flumen close"), "{}", refused.stderr);
    finish(&mut Broker::shared().flumen(books.root(), ["run", FILE, "--available-now"])).exits(0);
    assert!(!books.table("closed_calls").exists());
    assert_eq!(books.rows("landed_calls").len(), 1);
}

#[test]
fn what_is_wrong_is_told_before_anything_is_done() {
    let books = Books::new("close-wrong", 1);
    for (date, more, parts) in [
        ("2026-02-30", &[][..], &["error: --date: `2026-02-30` is no date"][..]),
        ("yesterday", &[], &["`yesterday` is no date", "such as 2026-11-22"]),
        ("2026-11-22", &["--reopen"], &["--why"]),
        ("2026-11-22", &["--why", "x"], &["--reopen"]),
        ("2026-11-22", &["--reopen", "--why", " "], &["--why: say why"]),
        ("2026-11-22", &["--reopen", "--why", "x"], &["was never closed"]),
        ("2026-11-22", &["--lateness", "two"], &["no duration"]),
        ("2026-11-22", &["--clock", "noon"], &["is no time"]),
        ("2026-11-22", &["--param", "date=2026-11-21"], &["the close gives it"]),
        ("2026-11-22", &["--param", "day_start=2026-11-21T00:00:00Z"], &["--param day_start: the close gives it"]),
        (
            "2026-11-22",
            &["--set", "flumen.close_zone=Mars/Olympus"],
            &["`Mars/Olympus` is no zone", "America/New_York"],
        ),
        ("2011-12-30", &["--set", "flumen.close_zone=Pacific/Apia"], &["no day of Pacific/Apia"]),
    ] {
        let failed = books.close_of(date, more).exits(2);
        for part in parts {
            assert!(failed.stderr.contains(part), "{date} {more:?}: {part}: {}", failed.stderr);
        }
        assert!(!books.root().join("tables").exists(), "{date} {more:?}");
    }
    let none =
        finish(&mut flumen(books.root(), ["close", "queries/route_events.sql", "--date", "2026-11-22"])).exits(2);
    assert!(none.stderr.contains("SET flumen.close_zone"), "{}", none.stderr);
}
