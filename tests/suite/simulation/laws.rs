//! What holds after every step, whatever happened, and what the tables hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray as _;
use arrow::datatypes::{Int32Type, Int64Type};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::World;
use super::topic::{PARTITIONS, Place, place};
use crate::delta;

pub const TABLES: [(&str, Place); 3] =
    [("landed", Place::Sink), ("landed_dead_letters", Place::Letters), ("landed_quarantine", Place::Quarantine)];

/// The actions of every version that was ever written of a table.
fn history(world: &World, table: &str) -> Vec<Vec<Value>> {
    let entries = world.entries.lock();
    let of_table: Vec<_> = entries.iter().filter(|((name, _), _)| name == table).collect();
    for (expected, ((_, version), _)) in (0..).zip(&of_table) {
        assert_eq!(*version, expected, "versions of {table} have a hole");
    }
    let parse = |bytes: &Vec<u8>| {
        serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().map(Result::unwrap).collect::<Vec<_>>()
    };
    of_table.into_iter().map(|(_, bytes)| parse(bytes)).collect()
}

/// The laws of a table's log: ranges follow on from each other, records and rows are accounted for, positions are the
/// ends and never go back, files come and go once.
pub fn check(world: &World) {
    for (table, kind) in TABLES {
        let mut next: BTreeMap<i64, i64> = BTreeMap::new();
        let mut positions: BTreeMap<String, i64> = BTreeMap::new();
        for (version, actions) in history(world, table).iter().enumerate() {
            let at = format!("{table} version {version}");
            for txn in actions.iter().filter_map(|action| action.get("txn")) {
                let (id, number) = (txn["appId"].as_str().unwrap(), txn["version"].as_i64().unwrap());
                let before = positions.insert(id.to_string(), number).unwrap_or(i64::MIN);
                let counts_up = id.rsplit(':').next().is_some_and(|last| last.parse::<i32>().is_ok());
                assert!(!counts_up || before <= number, "{at}: {id} goes back from {before} to {number}");
            }
            let info = actions.iter().find_map(|action| action["commitInfo"].get("flumen"));
            if let (Some(info), Place::Sink) = (info.filter(|info| info.get("sources").is_some()), kind) {
                check_info(info, &mut next, &at);
                for (partition, end) in &next {
                    let position = positions.get(&format!("flumen:p:landed:ads:{partition}"));
                    assert_eq!(position, Some(end), "{at}: partition {partition}");
                }
            }
        }
        live(world, table);
    }
}

fn check_info(info: &Value, next: &mut BTreeMap<i64, i64>, at: &str) {
    let number = |value: &Value| value.as_i64().unwrap();
    for source in info["sources"].as_array().unwrap() {
        let partition = number(&source["partition"]);
        let start = PARTITIONS[partition as usize].0;
        let before = next.insert(partition, number(&source["to"])).unwrap_or(start);
        assert_eq!(number(&source["from"]), before, "{at}: partition {partition} reads from elsewhere");
    }
    delta::check_conservation(info);
}

/// The files of a table's newest version.
fn live(world: &World, table: &str) -> BTreeSet<String> {
    let mut live = BTreeSet::new();
    let mut ever = BTreeSet::new();
    for action in history(world, table).iter().flatten() {
        if let Some(path) = action["remove"]["path"].as_str() {
            assert!(live.remove(path), "{table}: {path} is removed and was not there");
        }
        if let Some(path) = action["add"]["path"].as_str() {
            assert!(ever.insert(path.to_string()), "{table}: {path} is added twice");
            live.insert(path.to_string());
        }
    }
    live
}

/// Every record of the topic is in one place, once.
pub async fn check_rows(world: &World) {
    let mut found: Vec<(Place, i32, i64)> = Vec::new();
    for (table, kind) in TABLES {
        for file in live(world, table) {
            let path = Path::from(format!("{table}/{file}"));
            let bytes = world.store.get(&path).await.unwrap().bytes().await.unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let column = |name: &str| batch.column_by_name(name).unwrap().clone();
                let partitions = column("partition");
                let offsets = column("offset");
                let (partitions, offsets) =
                    (partitions.as_primitive::<Int32Type>(), offsets.as_primitive::<Int64Type>());
                found.extend((0..offsets.len()).map(|row| (kind, partitions.value(row), offsets.value(row))));
            }
        }
    }
    found.sort_unstable();
    let mut expected: Vec<(Place, i32, i64)> = Vec::new();
    for (partition, (low, high)) in (0..).zip(PARTITIONS) {
        let places = (low..high).filter_map(|offset| Some((place(partition, offset)?, partition, offset)));
        expected.extend(places.filter(|(place, ..)| *place != Place::Nowhere));
    }
    expected.sort_unstable();
    let only = |a: &[(Place, i32, i64)], b: &[(Place, i32, i64)]| {
        a.iter().filter(|row| !b.contains(row)).copied().collect::<Vec<_>>()
    };
    assert!(
        found == expected,
        "{} rows instead of {}; only there {:?}, missing {:?}",
        found.len(),
        expected.len(),
        only(&found, &expected),
        only(&expected, &found)
    );
}
