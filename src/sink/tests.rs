//! The sink against tables that others write, race for, clean up and change.
#![cfg(test)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type};
use serde_json::Value;

use super::fixtures::*;
use super::*;
use crate::clock;
use crate::contract::ContractColumn;
use crate::error::ErrorKind;
use crate::pipeline::SinkMode;

struct Place {
    _dir: tempfile::TempDir,
    location: String,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let location = dir.path().join("a table").to_str().unwrap().to_string();
    Place { _dir: dir, location }
}

fn entry(location: &str, version: u64) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("{location}/_delta_log/{version:020}.json")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn nothing_is_made_before_the_first_commit() {
    let place = place();
    let mut sink = open(&spec(&place.location), &Storage::new()).await.unwrap();
    assert!(!sink.exists() && !std::path::Path::new(&place.location).exists());
    let error = sink.commit(commit(vec![], &[])).await.unwrap_err();
    assert!(error.message().contains("does not exist yet"), "{error}");
}

#[tokio::test]
async fn created_appended_and_opened_again() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &storage).await;
    let adds = files(&sink, 0..10).await;
    let mut first = commit(adds, &[(0, 10), (1, 5)]);
    first.info.insert("batch".into(), 7.into());
    let attempt = first.attempt;
    assert_eq!(sink.commit(first).await.unwrap().version, 1);
    let adds = files(&sink, 10..20).await;
    assert_eq!(sink.commit(commit(adds, &[(0, 20)])).await.unwrap().version, 2);

    assert_eq!(read(&place.location, "id").await, ids(0..20));
    let again = open(&spec, &storage).await.unwrap();
    assert_eq!(again.version(), Some(2));
    assert_eq!(again.positions("k"), BTreeMap::from([(0, 20), (1, 5)]));

    let lines = entry(&place.location, 1);
    let info = &lines[0]["commitInfo"];
    assert_eq!(info["operation"], "STREAMING UPDATE");
    assert_eq!(info["engineInfo"], concat!("flumen/", env!("CARGO_PKG_VERSION")));
    assert_eq!(info["isBlindAppend"], true);
    assert_eq!(info["flumen"]["attempt"], attempt.to_string());
    assert_eq!(info["flumen"]["batch"], 7);
    let stats: Value = serde_json::from_str(lines.last().unwrap()["add"]["stats"].as_str().unwrap()).unwrap();
    assert_eq!((&stats["numRecords"], &stats["maxValues"]["id"]), (&10.into(), &9.into()));
    assert_eq!(stats["nullCount"]["name"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_read_from_a_checkpoint() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &storage).await;
    for n in 1..=3 {
        let adds = files(&sink, n * 10..n * 10 + 10).await;
        sink.commit(commit(adds, &[(n as i32, n)])).await.unwrap();
    }
    deltalake::checkpoints::create_checkpoint(&delta_table(&place.location).await, None).await.unwrap();
    for version in 0..3 {
        std::fs::remove_file(format!("{}/_delta_log/{version:020}.json", place.location)).unwrap();
    }
    let mut sink = open(&spec, &storage).await.unwrap();
    assert_eq!(sink.version(), Some(3));
    assert_eq!(sink.positions("k"), BTreeMap::from([(0, 0), (1, 1), (2, 2), (3, 3)]));

    sink.commit(commit(vec![], &[(1, 100)])).await.unwrap();
    let again = open(&spec, &storage).await.unwrap();
    assert_eq!((again.version(), again.positions("k")[&1]), (Some(4), 100));

    // Only the checkpoint is left: it is what the next version builds on.
    std::fs::remove_file(format!("{}/_delta_log/{:020}.json", place.location, 4)).unwrap();
    std::fs::remove_file(format!("{}/_delta_log/{:020}.json", place.location, 3)).unwrap();
    let mut sink = open(&spec, &storage).await.unwrap();
    assert_eq!(sink.version(), Some(3));
    assert_eq!(sink.commit(commit(vec![], &[(1, 2)])).await.unwrap().version, 4);
}

#[tokio::test]
async fn a_checkpoint_in_lines_is_read_too() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &storage).await;
    sink.commit(commit(vec![], &[(0, 5)])).await.unwrap();
    let log = |name: &str| format!("{}/_delta_log/{name}", place.location);
    let lines = [entry(&place.location, 0), entry(&place.location, 1)].concat();
    let lines: Vec<_> = lines.iter().filter(|line| line["commitInfo"].is_null()).map(Value::to_string).collect();
    std::fs::write(log("00000000000000000001.checkpoint.80a083e8-7026.json"), lines.join("\n")).unwrap();
    // A hint that leads nowhere is no harm.
    std::fs::write(log("_last_checkpoint"), r#"{"version":7,"size":3}"#).unwrap();
    for version in 0..2 {
        std::fs::remove_file(log(&format!("{version:020}.json"))).unwrap();
    }
    let mut sink = open(&spec, &storage).await.unwrap();
    assert_eq!((sink.version(), sink.positions("k")), (Some(1), BTreeMap::from([(0, 5)])));
    assert_eq!(sink.commit(commit(vec![], &[(0, 6)])).await.unwrap().version, 2);

    std::fs::remove_file(log("00000000000000000001.checkpoint.80a083e8-7026.json")).unwrap();
    let error = open(&spec, &storage).await.unwrap_err();
    assert!(error.message().contains("is missing between others"), "{error}");
}

#[tokio::test]
async fn the_second_of_two_instances_is_fenced() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    drop(create(&spec, &storage).await);
    // Identical ranges, then other partitions.
    for (first, second) in [((0, 10), (0, 10)), ((1, 5), (2, 5))] {
        let mut one = open(&spec, &storage).await.unwrap();
        let mut two = open(&spec, &storage).await.unwrap();
        let adds = files(&two, 0..5).await;
        one.commit(commit(vec![], &[first])).await.unwrap();
        let before = one.version();
        let error = two.commit(commit(adds, &[second])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        assert!(error.message().contains("query `t` of pipeline `p`"), "{error}");
        assert_eq!(open(&spec, &storage).await.unwrap().version(), before);
    }
    assert!(read(&place.location, "id").await.is_empty());
}

#[tokio::test]
async fn foreign_appends_are_stepped_over() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &storage).await;
    let adds = files(&sink, 0..5).await;
    for ids in [100..103, 200..202] {
        delta_table(&place.location).await.write(vec![batch(&sink, ids)]).await.unwrap();
    }
    let mut other = DeltaSink::open(&spec, Owner::new("p", "other"), &storage, clock::system()).await.unwrap();
    let txns = vec![(other.owner().position("k", 0), 77)];
    let foreign = SinkCommit { txns, ..commit(vec![], &[]) };
    other.commit(foreign).await.unwrap();
    assert_eq!(sink.commit(commit(adds, &[(0, 5)])).await.unwrap().version, 4);
    assert_eq!(sink.txn("flumen:p:other:k:0"), Some(77));
    assert_eq!(read(&place.location, "id").await, ids((0..5).chain(100..103).chain(200..202)));
}

#[tokio::test]
async fn under_a_changed_definition_the_contract_is_validated_anew() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &storage).await;
    let properties = std::collections::HashMap::from([("delta.logRetentionDuration".into(), "interval 9 days".into())]);
    delta_table(&place.location).await.set_tbl_properties().with_properties(properties).await.unwrap();
    let adds = files(&sink, 0..5).await;
    assert_eq!(sink.commit(commit(adds, &[(0, 5)])).await.unwrap().version, 2, "the contract holds: it goes on");

    // The rows of this micro-batch were not held against a new constraint.
    delta_table(&place.location).await.add_constraint().with_constraint("few", "id < 100").await.unwrap();
    let error = sink.commit(commit(vec![], &[(0, 6)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("changed its constraints in version 3"), "{error}");
    let error = sink.commit(commit(vec![], &[(0, 6)])).await.unwrap_err();
    assert!(error.message().contains("not known after the last error"), "{error}");

    // A column that the contract does not have.
    let mut sink = open(&spec, &storage).await.unwrap();
    let column = deltalake::kernel::StructField::nullable("more", deltalake::kernel::DataType::LONG);
    delta_table(&place.location).await.add_columns().with_fields([column]).await.unwrap();
    let error = sink.commit(commit(vec![], &[(0, 6)])).await.unwrap_err();
    assert_eq!((error.kind(), error.alarm()), (ErrorKind::Violated, Some(crate::error::Alarm::ContractBroken)));
    assert!(error.message().contains("more"), "{error}");

    // Another instance came in between, and a definition too.
    let place = self::place();
    let spec = self::spec(&place.location);
    let (mut one, mut two) = (create(&spec, &storage).await, open(&spec, &storage).await.unwrap());
    let properties = std::collections::HashMap::from([("delta.logRetentionDuration".into(), "interval 9 days".into())]);
    delta_table(&place.location).await.set_tbl_properties().with_properties(properties).await.unwrap();
    two.commit(commit(vec![], &[(0, 7)])).await.unwrap();
    assert_eq!(one.commit(commit(vec![], &[(0, 6)])).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn an_unclear_commit_is_settled_by_the_log() {
    let place = place();
    let script = Arc::new(Script::default());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &script.storage()).await;
    for (n, faults) in [
        vec![Fault::After],
        vec![Fault::Before, Fault::Before],
        vec![Fault::FalseConflict],
        vec![Fault::Before, Fault::After],
    ]
    .into_iter()
    .enumerate()
    {
        let n = n as i64;
        let adds = files(&sink, n * 10..n * 10 + 10).await;
        *script.faults.lock().unwrap() = VecDeque::from(faults);
        assert_eq!(sink.commit(commit(adds, &[(0, n)])).await.unwrap().version, n as u64 + 1);
    }
    assert_eq!(read(&place.location, "id").await, ids(0..40));
    assert_eq!(open(&spec, &Storage::new()).await.unwrap().version(), Some(4));
}

/// However long the store was away before: that it is unclear does not go on for ever.
#[cfg(feature = "faults")]
#[tokio::test(start_paused = true)]
async fn an_absence_is_waited_for_and_what_stays_unclear_ends() {
    let place = place();
    let script = Arc::new(Script::default());
    let spec = spec(&place.location);
    let absence = Arc::new(crate::storage::Absence::new("query t", None));
    let mut sink = create(&spec, &script.storage().with_absence(&absence)).await;
    let away = || std::iter::repeat_n(Fault::Before, 9);
    *script.faults.lock().unwrap() = away().collect();
    assert_eq!(sink.commit(commit(vec![], &[(0, 1)])).await.unwrap().version, 1);
    *script.faults.lock().unwrap() = away().chain(std::iter::repeat_n(Fault::FalseConflict, 100)).collect();
    let error = sink.commit(commit(vec![], &[(0, 2)])).await.unwrap_err();
    assert!(error.message().contains("whether it was is not known"), "{error}");
    assert!(!crate::storage::is_passing(&error), "the same rows must not be put under other files");
    assert_eq!(script.faults.lock().unwrap().len(), 100 - 4, "one try and three more");
}

#[tokio::test]
async fn a_store_that_stays_away_ends_the_tries() {
    let place = place();
    let script = Arc::new(Script::default());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &script.storage()).await;
    script.faults.lock().unwrap().extend([Fault::Before; 4]);
    let error = sink.commit(commit(vec![], &[(0, 5)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("in 4 tries"), "{error}");
    assert!(error.to_string().contains("connection reset"), "{error}");
    sink.commit(commit(vec![], &[(0, 5)])).await.unwrap_err();
    sink.reload().await.unwrap();
    assert_eq!(sink.commit(commit(vec![], &[(0, 5)])).await.unwrap().version, 1);
}

#[tokio::test]
async fn an_unclear_put_and_a_rival_is_fenced() {
    let place = place();
    let script = Arc::new(Script::default());
    let spec = spec(&place.location);
    let mut sink = create(&spec, &script.storage()).await;
    let mut rival = open(&spec, &Storage::new()).await.unwrap();
    rival.commit(commit(vec![], &[(0, 3)])).await.unwrap();
    script.faults.lock().unwrap().push_back(Fault::Before);
    assert_eq!(sink.commit(commit(vec![], &[(0, 5)])).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_log_that_was_cleaned_or_made_again_is_fenced() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut cleaned = create(&spec, &storage).await;
    std::fs::remove_dir_all(&place.location).unwrap();
    let error = cleaned.commit(commit(vec![], &[(0, 5)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert!(!std::path::Path::new(&place.location).join("_delta_log").exists());

    let mut old = create(&spec, &storage).await;
    std::fs::remove_dir_all(&place.location).unwrap();
    drop(create(&spec, &storage).await);
    assert_eq!(old.commit(commit(vec![], &[(0, 5)])).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_race_to_create() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    let mut one = open(&spec, &storage).await.unwrap();
    let mut two = open(&spec, &storage).await.unwrap();
    let mut stranger = DeltaSink::open(&spec, Owner::new("x", "t"), &storage, clock::system()).await.unwrap();
    assert!(matches!(one.create(commit(vec![], &[(0, 0)])).await.unwrap(), Created::Ours(_)));
    assert_eq!(two.create(commit(vec![], &[(0, 0)])).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(stranger.create(commit(vec![], &[])).await.unwrap(), Created::Another);
    assert_eq!(stranger.version(), Some(0));
    let error = stranger.refuse_strangers("k").unwrap_err();
    assert!(error.message().contains("query `t` of pipeline `p`, and none of query `t` of pipeline `x`"), "{error}");
    one.refuse_strangers("k").unwrap();
    stranger.refuse_strangers("other").unwrap();
}

#[tokio::test]
async fn the_tables_own_checks_are_known() {
    let (place, storage) = (place(), Storage::new());
    let spec = spec(&place.location);
    drop(create(&spec, &storage).await);
    delta_table(&place.location).await.add_constraint().with_constraint("small", "id < 9").await.unwrap();
    let sink = open(&spec, &storage).await.unwrap();
    let [check] = sink.table_checks() else { panic!("{:?}", sink.table_checks()) };
    assert_eq!((check.name.as_str(), check.sql.as_str()), ("small", "id < 9"));
}

#[tokio::test]
async fn a_table_that_differs_is_refused() {
    let (place, storage) = (place(), Storage::new());
    drop(create(&spec(&place.location), &storage).await);
    let mut other = spec(&place.location);
    other.contract.columns[1].nullable = false;
    let error = open(&other, &storage).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("name    string not null  string"), "{error}");
    assert!(error.message().starts_with("table `"), "{error}");
}

fn with_column(mut spec: SinkSpec) -> SinkSpec {
    let column = ContractColumn { name: "more".into(), data_type: DataType::Int64, nullable: true };
    spec.contract.columns.push(column);
    spec.merge_schema = true;
    spec
}

#[tokio::test]
async fn columns_are_added_by_themselves() {
    let (place, storage) = (place(), Storage::new());
    let mut sink = create(&spec(&place.location), &storage).await;
    let adds = files(&sink, 0..3).await;
    sink.commit(commit(adds, &[(0, 3)])).await.unwrap();

    let wider = with_column(spec(&place.location));
    let mut one = open(&wider, &storage).await.unwrap();
    let mut two = open(&wider, &storage).await.unwrap();
    assert!(one.has_pending_columns());
    one.commit(commit(vec![], &[])).await.unwrap_err();
    assert_eq!(one.add_columns().await.unwrap().unwrap().version, 2);
    assert_eq!(one.add_columns().await.unwrap(), None);
    assert_eq!(two.add_columns().await.unwrap_err().kind(), ErrorKind::Unavailable);

    let rows = RecordBatch::try_new(
        one.schema().clone(),
        batch(&sink, 3..5)
            .columns()
            .iter()
            .cloned()
            .chain([Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef])
            .collect(),
    )
    .unwrap();
    let mut writer = one.writer(&memory());
    writer.write(&rows).await.unwrap();
    let adds = writer.close().await.unwrap();
    one.commit(commit(adds, &[(0, 5)])).await.unwrap();
    assert_eq!(read(&place.location, "more").await, ["", "", "", "7", "8"]);
    assert!(!open(&wider, &storage).await.unwrap().has_pending_columns());
    // The old contract no longer agrees, nor does the instance that still has it.
    assert_eq!(sink.commit(commit(vec![], &[(1, 1)])).await.unwrap_err().kind(), ErrorKind::Violated);
    assert_eq!(open(&spec(&place.location), &storage).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_replaces_all_rows() {
    let (place, storage) = (place(), Storage::new());
    let spec = SinkSpec { mode: SinkMode::Replace, ..spec(&place.location) };
    let mut sink = open(&spec, &storage).await.unwrap();
    let adds = files(&sink, 0..10).await;
    sink.create(SinkCommit { txns: vec![], ..commit(adds, &[]) }).await.unwrap();
    let adds = files(&sink, 5..8).await;
    assert_eq!(sink.replace(commit(adds, &[])).await.unwrap().version, 1);
    assert_eq!(read(&place.location, "id").await, ids(5..8));
    let info = &entry(&place.location, 1)[0]["commitInfo"];
    assert_eq!((&info["operation"], &info["isBlindAppend"]), (&"WRITE".into(), &false.into()));

    // Another writer's append in between is replaced too: the list is read once more.
    let adds = files(&sink, 20..22).await;
    delta_table(&place.location).await.write(vec![batch(&sink, 90..95)]).await.unwrap();
    assert_eq!(sink.replace(commit(adds, &[])).await.unwrap().version, 3);
    assert_eq!(read(&place.location, "id").await, ids(20..22));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_replaces_the_partitions_it_touches() {
    let (place, storage) = (place(), Storage::new());
    let mode = SinkMode::ReplacePartitions;
    let spec = SinkSpec { mode, partition_by: vec!["day".into()], ..spec(&place.location) };
    let mut sink = open(&spec, &storage).await.unwrap();
    let adds = files(&sink, 0..4).await;
    assert_eq!(adds.len(), 4);
    sink.create(SinkCommit { txns: vec![], ..commit(adds, &[]) }).await.unwrap();
    let rows = batch(&sink, 2..4);
    let renumbered: ArrayRef = Arc::new(Int64Array::from(vec![72, 73]));
    let columns = [vec![renumbered], rows.columns()[1..].to_vec()].concat();
    let mut writer = sink.writer(&memory());
    writer.write(&RecordBatch::try_new(sink.schema().clone(), columns).unwrap()).await.unwrap();
    let adds = writer.close().await.unwrap();
    sink.replace(commit(adds, &[])).await.unwrap();
    assert_eq!(read(&place.location, "id").await, ids([0, 1, 72, 73]));
    let removed = entry(&place.location, 1).iter().filter(|line| line["remove"].is_object()).count();
    assert_eq!(removed, 2);
}

#[tokio::test]
async fn an_append_sink_never_replaces() {
    let (place, storage) = (place(), Storage::new());
    let mut sink = create(&spec(&place.location), &storage).await;
    assert_eq!(sink.replace(commit(vec![], &[])).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn many_partitions_need_few_open_files() {
    let (place, storage) = (place(), Storage::new());
    let spec = SinkSpec { partition_by: vec!["day".into()], ..spec(&place.location) };
    let mut sink = create(&spec, &storage).await;
    let mut writer = sink.writer(&memory());
    for ids in [0..150, 100..250] {
        writer.write(&batch(&sink, ids)).await.unwrap();
    }
    let adds = writer.close().await.unwrap();
    assert_eq!(adds.len(), 250, "one file for each partition");
    sink.commit(commit(adds, &[(0, 1)])).await.unwrap();
    assert_eq!(read(&place.location, "id").await, ids((0..150).chain(100..250)));
}

#[tokio::test]
async fn an_abandoned_writer_leaves_nothing_visible() {
    let (place, storage) = (place(), Storage::new());
    let sink = create(&spec(&place.location), &storage).await;
    let mut writer = sink.writer(&memory());
    writer.write(&batch(&sink, 0..10)).await.unwrap();
    writer.abort().await;
    let mut writer = sink.writer(&memory());
    let other = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert_eq!(writer.write(&other).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(writer.close().await.unwrap().is_empty());
    assert!(read(&place.location, "id").await.is_empty());
}

#[tokio::test]
async fn nested_columns_are_read_back() {
    let (place, storage) = (place(), Storage::new());
    let mut spec = spec(&place.location);
    let item = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    spec.contract.columns = vec![ContractColumn { name: "xs".into(), data_type: item, nullable: true }];
    let mut sink = create(&spec, &storage).await;
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let mut writer = sink.writer(&memory());
    writer.write(&RecordBatch::try_new(sink.schema().clone(), vec![Arc::new(lists)]).unwrap()).await.unwrap();
    let adds = writer.close().await.unwrap();
    sink.commit(commit(adds, &[(0, 3)])).await.unwrap();
    assert_eq!(read(&place.location, "xs").await, ["", "[1, ]", "[]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_cost_no_more_than_ten() {
    let place = place();
    let spec = spec(&place.location);
    let mut sink = create(&spec, &Storage::new()).await;
    let [real] = <[_; 1]>::try_from(files(&sink, 0..3).await).unwrap();
    let adds = (0..10_000).map(|n| deltalake::kernel::Add { path: format!("part-{n}.parquet"), ..real.clone() });
    sink.commit(commit(adds.collect(), &[(0, 9)])).await.unwrap();
    deltalake::checkpoints::create_checkpoint(&delta_table(&place.location).await, None).await.unwrap();

    let script = Arc::new(Script::default());
    let mut sink = open(&spec, &script.storage()).await.unwrap();
    assert_eq!(sink.positions("k"), BTreeMap::from([(0, 9)]));
    let requests = script.take_requests();
    assert!(requests.len() <= 12, "{requests:?}");
    sink.commit(commit(vec![real], &[(0, 10)])).await.unwrap();
    sink.commit(commit(vec![], &[(0, 11)])).await.unwrap();
    let entry = |version: u64| format!("{version:020}.json");
    let expected =
        [("GET", 1), ("PUT", 2), ("GET", 2), ("PUT", 3)].map(|(what, version)| format!("{what} {}", entry(version)));
    assert_eq!(script.take_requests(), expected);
}

#[tokio::test]
async fn parallel_streams_go_into_one_commit() {
    let (place, storage) = (place(), Storage::new());
    let mut sink = create(&spec(&place.location), &storage).await;
    let mut streams = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (mut writer, rows) = (sink.writer(&memory()), batch(&sink, n * 10..n * 10 + 10));
        streams.spawn(async move {
            writer.write(&rows).await?;
            writer.close().await
        });
    }
    let adds: Vec<_> = streams.join_all().await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(adds.len(), 4);
    let committed = tokio::spawn(async move { sink.commit(commit(adds, &[(0, 40)])).await }).await.unwrap();
    assert_eq!(committed.unwrap().version, 1);
    assert_eq!(read(&place.location, "id").await, ids(0..40));
}
