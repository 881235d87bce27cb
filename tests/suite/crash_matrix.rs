//! The crash matrix: the real binary fails at every step of a micro-batch, in every way, and is started again. What is
//! in the tables then is what a run without a fault has: each record in the sink once, or named where it is instead.
//!
//! `scripts/test` takes a sample of the cases, `scripts/crash-matrix` all of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use serde_json::Value;

use crate::ads::impression;
use crate::binary::{Finished, finish, workspace};
use crate::broker::Broker;
use crate::chance::Chance;
use crate::{delta, topics};

const FILE: &str = "matrix.sql";
/// The records of each topic; a micro-batch reads 60.
const RECORDS: u64 = 600;
const SAMPLE: usize = 35;

/// What goes to side tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Nothing,
    Letters,
    Quarantine,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    OneQuery,
    TwoQueries,
    TwoTopics,
}

const SIDES: [Side; 4] = [Side::Nothing, Side::Letters, Side::Quarantine, Side::Both];
const SHAPES: [Shape; 3] = [Shape::OneQuery, Shape::TwoQueries, Shape::TwoTopics];
const ACTIONS: [&str; 5] = ["abort", "kill", "error", "away", "delay"];

/// A step: how often it is passed at least, and the side rows without which it is not.
const POINTS: [(&str, &[u64], Side); 18] = [
    ("positions", &[1], Side::Nothing),
    ("plan", &[1, 2, 5], Side::Nothing),
    ("fetch", &[1, 2, 5], Side::Nothing),
    ("decode", &[1, 2, 5], Side::Nothing),
    ("execute", &[1, 2, 5], Side::Nothing),
    ("write", &[1, 2, 5], Side::Nothing),
    ("letters.write", &[1, 2, 5], Side::Letters),
    ("letters.close", &[1, 2, 5], Side::Letters),
    ("quarantine.write", &[1, 2, 5], Side::Quarantine),
    ("quarantine.close", &[1, 2, 5], Side::Quarantine),
    ("close", &[1, 2, 5], Side::Nothing),
    ("commit.before", &[1, 2, 5], Side::Nothing),
    ("put.before", &[1, 2, 5], Side::Nothing),
    ("put.after", &[1, 2, 5], Side::Nothing),
    ("commit.after", &[1, 2, 5], Side::Nothing),
    ("side.before", &[1, 2, 5], Side::Both),
    ("side.after", &[1, 2, 5], Side::Both),
    ("publish", &[1, 2, 5], Side::Nothing),
];
/// Steps of upkeep, and how often a run that keeps its tables in order passes them at least.
const UPKEEP_POINTS: [(&str, &[u64]); 5] = [
    ("maintain.write", &[1, 2, 3]),
    ("maintain.before", &[1, 2]),
    ("maintain.after", &[1, 2]),
    ("maintain.checkpoint", &[1, 2]),
    ("maintain.clean_up", &[1, 2]),
];
const RETRY_POINTS: [&str; 5] = ["retry.before", "retry.after", "side.before", "side.after", "put.after"];

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A run.
    Run,
    /// A run that keeps its tables in order every few versions.
    Upkeep,
    /// `dead-letters retry`.
    Retry,
    /// `maintain`.
    Maintain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    point: &'static str,
    hit: u64,
    action: &'static str,
    side: Side,
    shape: Shape,
    /// Whether `.proto` and pipeline file change before the restart.
    changes: bool,
    what: What,
}

/// Every point, hit and action, each with side rows, shapes and changes in turn.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut turn = 0;
    for (point, hits, needs) in POINTS {
        let sides: Vec<Side> = SIDES.into_iter().filter(|side| has(*side, needs)).collect();
        for &hit in hits {
            for action in ACTIONS {
                let (side, shape) = (sides[turn % sides.len()], SHAPES[turn / sides.len() % 3]);
                cases.push(Case { point, hit, action, side, shape, changes: turn % 5 < 2, what: What::Run });
                turn += 1;
            }
        }
    }
    for point in RETRY_POINTS {
        for hit in [1, 2, 5] {
            for action in ACTIONS {
                let side = if turn % 2 == 0 { Side::Letters } else { Side::Both };
                let changes = turn % 5 < 2;
                cases.push(Case { point, hit, action, side, shape: SHAPES[turn % 3], changes, what: What::Retry });
                turn += 1;
            }
        }
    }
    for (what, points) in [(What::Upkeep, &UPKEEP_POINTS[..]), (What::Maintain, &UPKEEP_POINTS)] {
        for &(point, hits) in points {
            for &hit in hits.iter().take(if what == What::Maintain { 1 } else { hits.len() }) {
                for action in ACTIONS {
                    let (side, shape) = (SIDES[turn % 4], SHAPES[turn / 4 % 3]);
                    cases.push(Case { point, hit, action, side, shape, changes: turn % 5 < 2, what });
                    turn += 1;
                }
            }
        }
    }
    cases
}

fn has(side: Side, part: Side) -> bool {
    match part {
        Side::Nothing => true,
        // A step of any side table.
        Side::Both => side != Side::Nothing,
        part => side == part || side == Side::Both,
    }
}

/// Two topics of the same records for each kind of side rows; nothing changes them.
fn topics_of(side: Side) -> &'static [String; 2] {
    static TOPICS: [OnceLock<[String; 2]>; 4] = [const { OnceLock::new() }; 4];
    TOPICS[side as usize].get_or_init(|| {
        [0u64, 1].map(|second| {
            let topic = topics::new_topic(Broker::shared(), &format!("matrix-{second}"), 2);
            let value = |n: u64| {
                let mut one = impression(n + second * RECORDS);
                one.placement.get_or_insert_default();
                if n % 10 == 3 && has(side, Side::Quarantine) && side != Side::Nothing {
                    one.bid = -1.0;
                }
                match n % 10 == 7 && has(side, Side::Letters) && side != Side::Nothing {
                    // A later version has a text in the place of the slot.
                    true => [one.encode_to_vec(), vec![0x32, 0x03, 0x12, 0x01, b'7']].concat(),
                    false => one.encode_to_vec(),
                }
            };
            let values: Vec<_> = (0..RECORDS).map(value).collect();
            for (partition, half) in values.chunks(RECORDS as usize / 2).enumerate() {
                topics::produce(Broker::shared(), &topic, partition as i32, half);
            }
            topic
        })
    })
}

struct Place {
    dir: tempfile::TempDir,
    shape: Shape,
    what: What,
}

impl Place {
    fn new(side: Side, shape: Shape, what: What) -> Self {
        let place = Self { dir: workspace(), shape, what };
        place.write(side, "");
        place
    }

    fn write(&self, side: Side, more: &str) {
        let [first, second] = topics_of(side);
        let source = |name: &str, topic: &str| {
            format!(
                "CREATE EXTERNAL TABLE {name} STORED AS KAFKA LOCATION 'kafka://${{env:KAFKA_BROKERS}}/{topic}'
                 OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression',
                          'max_rows' '60', 'dead_letter_limit' '100%');\n"
            )
        };
        let upkeep = match self.what {
            What::Upkeep => "'checkpoint_interval' '2', 'max_small_files' '2'",
            _ => "'maintain' 'off', 'max_small_files' '2'",
        };
        let sink = |name: &str| {
            format!(
                "CREATE EXTERNAL TABLE {name} (topic VARCHAR NOT NULL, part INT NOT NULL, at BIGINT NOT NULL,
                   ad_id VARCHAR, slot BIGINT, bid DOUBLE CHECK (bid >= 0))
                 STORED AS DELTA LOCATION 'tables/{name}'
                 OPTIONS ('on_violation' 'quarantine', 'quarantine_limit' '100%', {upkeep});\n"
            )
        };
        let select = |from: &str| {
            format!(
                "SELECT substr(_topic, 1, 8), _partition, _offset, ad_id, CAST(placement.slot AS BIGINT), bid FROM {from}"
            )
        };
        let mut text = format!("{more}{}{}", source("one", first), sink("landed"));
        match self.shape {
            Shape::OneQuery => text += &format!("INSERT INTO landed {};", select("one")),
            Shape::TwoQueries => {
                text += &format!("{}INSERT INTO landed {};\n", sink("other"), select("one"));
                text += &format!("INSERT INTO other {};", select("one"));
            }
            Shape::TwoTopics => {
                text += &source("two", second);
                text += &format!("INSERT INTO landed {} UNION ALL {};", select("one"), select("two"));
            }
        }
        std::fs::write(self.dir.path().join(FILE), text).unwrap();
    }

    /// Changes that change no row: a comment, a setting, a field that nobody writes.
    fn change(&self, side: Side) {
        self.write(side, "-- Changed.\nSET flumen.grace = '20 seconds';\n");
        self.edit_proto("message Placement {", "message Placement {\n    string canary = 9;");
    }

    fn edit_proto(&self, from: &str, to: &str) {
        let path = self.dir.path().join("proto/ads/v1/ads.proto");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Broker::shared().flumen(self.dir.path(), words);
        command.env_remove("FLUMEN_FAULT");
        command
    }

    fn run(&self) -> Command {
        self.command(&["-o", "json", "run", FILE, "--available-now"])
    }

    fn retry(&self) -> Command {
        self.command(&["-o", "json", "dead-letters", "retry", FILE, "--at-once", "7"])
    }

    fn maintain(&self) -> Command {
        self.command(&["-o", "json", "maintain", FILE])
    }

    fn tables(&self) -> BTreeMap<String, Vec<String>> {
        let mut tables = BTreeMap::new();
        for entry in std::fs::read_dir(self.dir.path().join("tables")).unwrap() {
            let path = entry.unwrap().path();
            if path.join("_delta_log").exists() {
                tables.insert(path.file_name().unwrap().to_str().unwrap().to_string(), rows(&path));
            }
        }
        tables
    }
}

/// The rows of a table, sorted, without what the time or the number of a version is in.
fn rows(table: &Path) -> Vec<String> {
    let mut files: BTreeMap<String, bool> = BTreeMap::new();
    for action in delta::log(table).iter().flatten() {
        if let Some(path) = action["add"]["path"].as_str() {
            let known = files.insert(path.to_string(), true);
            assert_eq!(known, None, "{path} is added twice to {}", table.display());
        }
        if let Some(path) = action["remove"]["path"].as_str() {
            assert_eq!(files.insert(path.to_string(), false), Some(true), "{path} is removed from {}", table.display());
        }
    }
    let mut rows = Vec::new();
    for (file, _) in files.into_iter().filter(|(_, is_live)| *is_live) {
        let file = std::fs::File::open(table.join(file)).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            rows.extend(lines(&batch.unwrap()));
        }
    }
    rows.sort();
    rows
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default();
    let schema = batch.schema();
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(field, _)| !["clock", "_clock"].contains(&field.name().as_str()))
        .map(|(field, column)| (field.name() == "retried", ArrayFormatter::try_new(column, &options).unwrap()))
        .collect();
    let cell = |row: usize, (is_version, cells): &(bool, ArrayFormatter<'_>)| {
        let text = cells.value(row).to_string();
        if *is_version && !text.is_empty() { "marked".to_string() } else { text }
    };
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| cell(row, column)).collect::<Vec<_>>().join("|"))
        .collect()
}

/// What the log of a sink has to say whatever happened: ranges follow on from each other, the laws hold, positions are
/// the ends.
fn check_log(table: &Path) {
    let mut next: BTreeMap<(String, i64), i64> = BTreeMap::new();
    // A compaction reads no topic.
    for info in delta::commit_infos(table).into_iter().filter(|info| info.get("sources").is_some()) {
        let number = |value: &Value| value.as_i64().unwrap();
        for source in info["sources"].as_array().unwrap() {
            let place = (source["topic"].as_str().unwrap().to_string(), number(&source["partition"]));
            let from = next.insert(place, number(&source["to"])).unwrap_or(0);
            assert_eq!(number(&source["from"]), from, "{info}");
        }
        delta::check_conservation(&info);
    }
    let txns = delta::txns(table);
    for ((topic, partition), end) in next {
        let found = txns.iter().find(|(id, _)| id.ends_with(&format!(":{topic}:{partition}")));
        assert_eq!((found.map(|(_, position)| *position), end), (Some(end), RECORDS as i64 / 2));
    }
}

/// The tables of a run without a fault.
fn expected(side: Side, shape: Shape, retry: bool) -> BTreeMap<String, Vec<String>> {
    static KNOWN: [OnceLock<BTreeMap<String, Vec<String>>>; 24] = [const { OnceLock::new() }; 24];
    let known = &KNOWN[(side as usize * 3 + shape as usize) * 2 + usize::from(retry)];
    known
        .get_or_init(|| {
            let place = Place::new(side, shape, if retry { What::Retry } else { What::Run });
            finish(&mut place.run()).exits(0);
            if retry {
                place.edit_proto("int32 slot = 2;", "string slot = 2;");
                finish(&mut place.retry()).exits(0);
            }
            place.tables()
        })
        .clone()
}

fn run(case: Case) {
    let place = Place::new(case.side, case.shape, case.what);
    let command = match case.what {
        What::Run | What::Upkeep => Place::run,
        What::Retry => {
            finish(&mut place.run()).exits(0);
            place.edit_proto("int32 slot = 2;", "string slot = 2;");
            Place::retry
        }
        What::Maintain => {
            finish(&mut place.run()).exits(0);
            Place::maintain
        }
    };
    let mark = place.dir.path().join("mark");
    let fault = format!("{}:{}:{}", case.point, case.hit, case.action);
    let failed: Finished = finish(command(&place).env("FLUMEN_FAULT", fault).env("FLUMEN_FAULT_MARK", &mark));
    assert!(mark.exists(), "{case:?}: the fault did not happen; {} {}", failed.stdout, failed.stderr);
    match case.action {
        "abort" | "kill" => assert_eq!(failed.code, None, "{case:?}: {}", failed.stderr),
        "delay" => assert_eq!(failed.code, Some(0), "{case:?}: {}", failed.stderr),
        // Upkeep beside a run that fails breaks nothing.
        _ if case.what == What::Upkeep => assert_eq!(failed.code, Some(0), "{case:?}: {}", failed.stderr),
        // A store that is away is waited for, within the run.
        "away" if case.what == What::Run => assert_eq!(failed.code, Some(0), "{case:?}: {}", failed.stderr),
        // A put whose answer is an error is asked again.
        _ => assert_eq!(failed.code, Some(i32::from(!case.point.starts_with("put."))), "{case:?}: {}", failed.stderr),
    }
    if case.changes && case.what != What::Retry {
        place.change(case.side);
    }
    let again = finish(&mut command(&place));
    assert_eq!(again.code, Some(0), "{case:?}: {}", again.stderr);
    let (found, expected) = (place.tables(), expected(case.side, case.shape, case.what == What::Retry));
    for name in found.keys().chain(expected.keys()) {
        let (found, expected) = (found.get(name), expected.get(name));
        if found != expected {
            let (found, expected) = (found.cloned().unwrap_or_default(), expected.cloned().unwrap_or_default());
            let only = |a: &[String], b: &[String]| {
                a.iter().filter(|row| !b.contains(row)).take(5).cloned().collect::<Vec<_>>()
            };
            panic!(
                "{case:?}: table {name} has {} rows instead of {}; only there {:?}, missing {:?}",
                found.len(),
                expected.len(),
                only(&found, &expected),
                only(&expected, &found)
            );
        }
    }
    for sink in ["landed", "other"] {
        let table = place.dir.path().join("tables").join(sink);
        if table.exists() {
            check_log(&table);
        }
    }
}

/// The environment variable `FLUMEN_MATRIX`: `all`, or the seed of a sample.
#[test]
fn whatever_fails_each_record_is_in_one_place() {
    if !cfg!(feature = "faults") {
        panic!("the points at which it fails need the feature: cargo test --features faults");
    }
    let wish = std::env::var("FLUMEN_MATRIX").unwrap_or_else(|_| "1".into());
    let mut chosen = cases();
    let all = chosen.len();
    if wish != "all" {
        let mut chance = Chance::new(wish.parse().expect("FLUMEN_MATRIX is `all` or a number"));
        for at in 0..SAMPLE {
            let other = at + chance.below((all - at) as u64) as usize;
            chosen.swap(at, other);
        }
        chosen.truncate(SAMPLE);
    }
    let waiting = std::sync::Mutex::new(chosen);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some(case) = next else { return };
                    run(case);
                }
            });
        }
    });
    println!("{} of {all} cases", if wish == "all" { all } else { SAMPLE });
}
