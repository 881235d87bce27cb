//! Delta tables as others see them: through the Python `deltalake` package, and the raw log.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Rows, versions and `txn`s of a table as the Python `deltalake` package reads it.
#[derive(Debug, serde::Deserialize)]
pub struct Foreign {
    pub version: i64,
    pub columns: BTreeMap<String, String>,
    pub partitions: Vec<String>,
    pub rows: Vec<BTreeMap<String, Value>>,
}

pub const READ: &str = r#"
import json, os, sys
from deltalake import DeltaTable
t = DeltaTable(sys.argv[1])
data = t.to_pyarrow_table()
json.dump({
    "version": t.version(),
    "columns": {f.name: str(f.type) for f in data.schema},
    "partitions": t.metadata().partition_columns,
    "rows": data.to_pylist(),
}, sys.stdout, default=str)
sys.stdout.flush()
# Threads of the reading libraries may still be there: an orderly exit sometimes aborts.
os._exit(0)
"#;

/// The Python of the tests, with the packages that `scripts/test` installs.
pub fn python() -> String {
    std::env::var("FLUMEN_PYTHON").unwrap_or_else(|_| {
        panic!("FLUMEN_PYTHON names no Python with the package deltalake: run the tests with scripts/test")
    })
}

/// Reads a table with Python.
pub fn read_with_python(table: &Path) -> Foreign {
    read_by(Command::new(python()).args(["-c", READ]).arg(table))
}

/// Reads a table with the command that runs the script.
pub fn read_by(command: &mut Command) -> Foreign {
    let output = command.output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("what the script prints")
}

/// The actions of every version in the log, in order.
pub fn log(table: &Path) -> Vec<Vec<Value>> {
    let mut versions = Vec::new();
    loop {
        let path = table.join("_delta_log").join(format!("{:020}.json", versions.len()));
        let Ok(text) = std::fs::read_to_string(path) else { return versions };
        versions.push(text.lines().map(|line| serde_json::from_str(line).expect("an action")).collect());
    }
}

/// The newest version of each `txn`.
pub fn txns(table: &Path) -> BTreeMap<String, i64> {
    let mut txns = BTreeMap::new();
    for action in log(table).iter().flatten() {
        if let Some(txn) = action.get("txn") {
            txns.insert(txn["appId"].as_str().expect("an id").to_owned(), txn["version"].as_i64().expect("a number"));
        }
    }
    txns
}

/// The object `flumen` of each version's commitInfo.
pub fn commit_infos(table: &Path) -> Vec<Value> {
    log(table)
        .iter()
        .filter_map(|actions| actions.iter().find_map(|a| a.get("commitInfo")).and_then(|info| info.get("flumen")))
        .cloned()
        .collect()
}

/// The laws of conservation in the object `flumen` of a commit: every record and every row is accounted for.
#[track_caller]
pub fn check_conservation(info: &Value) {
    let of = |counts: &str, names: &[&str]| -> i64 {
        names.iter().map(|name| info[counts][*name].as_i64().expect("a count")).sum()
    };
    assert_eq!(of("records", &["read"]), of("records", &["decoded", "dead", "null"]), "{info}");
    assert_eq!(of("rows", &["produced"]), of("rows", &["written", "quarantined", "dropped"]), "{info}");
}

/// The paths of the files that a version adds.
pub fn files_added(table: &Path, version: usize) -> Vec<String> {
    let actions = log(table).remove(version);
    let adds = actions.iter().filter_map(|action| action.get("add"));
    adds.map(|add| add["path"].as_str().expect("a path").to_owned()).collect()
}
