//! Lookups that change, are missing, or are not what was declared.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use datafusion::common::stats::Precision;
use datafusion::physical_plan::{StatisticsArgs, StatisticsContext};

use super::*;
use crate::contract::{Contract, ContractColumn};
use crate::memory::Memory;
use crate::pipeline::SinkSpec;
use crate::storage::Storage;

fn state() -> SessionState {
    SessionContext::new().state()
}

fn spec(format: LookupFormat, location: &std::path::Path) -> LookupSpec {
    LookupSpec {
        name: "l".into(),
        format,
        location: location.to_str().unwrap().into(),
        options: BTreeMap::new(),
        declared: None,
        version: None,
    }
}

fn declared(spec: LookupSpec, columns: &[(&str, DataType, bool)]) -> LookupSpec {
    let fields = columns.iter().map(|(name, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable));
    LookupSpec { declared: Some(Arc::new(Schema::new(fields.collect::<Vec<_>>()))), ..spec }
}

async fn load(spec: &LookupSpec) -> Result<Lookup> {
    Lookup::load(spec, &Storage::new(), &Memory::new(1_000_000_000)?, &state()).await
}

async fn sum(lookup: &Lookup, column: &str) -> i64 {
    let session = SessionContext::new();
    session.register_table("l", lookup.provider()).unwrap();
    let batches = session.sql(&format!("SELECT sum({column}) FROM l")).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test]
async fn a_csv_is_read_again_when_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.csv");
    fs::write(&path, "k,v\na,1\nb,2\n").unwrap();
    let mut lookup = load(&spec(LookupFormat::Csv, &path)).await.unwrap();
    assert_eq!((lookup.num_rows(), sum(&lookup, "v").await), (2, 3));
    assert_eq!(lookup.schema().field(0).data_type(), &DataType::Utf8);
    let version = lookup.version().to_string();
    assert!(!lookup.refresh().await.unwrap());
    fs::write(&path, "k,v\na,1\nb,2\nc,30\n").unwrap();
    assert!(lookup.refresh().await.unwrap());
    assert_eq!((lookup.num_rows(), sum(&lookup, "v").await), (3, 33));
    assert_ne!(lookup.version(), version);
    fs::remove_file(&path).unwrap();
    lookup.refresh().await.unwrap_err();
    assert_eq!(sum(&lookup, "v").await, 33);
}

#[tokio::test]
async fn text_is_read_as_declared() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("l.csv");
    fs::write(&csv, "k;v\na;1\nb;2\n").unwrap();
    let mut spec_csv = spec(LookupFormat::Csv, &csv);
    spec_csv.options.insert("format.delimiter".into(), ";".into());
    let float = declared(spec_csv.clone(), &[("k", DataType::Utf8, false), ("v", DataType::Float64, true)]);
    assert_eq!(load(&float).await.unwrap().schema(), float.declared.as_ref().unwrap());
    let swapped = declared(spec_csv, &[("v", DataType::Utf8, true), ("k", DataType::Utf8, true)]);
    let error = load(&swapped).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("declared (v, k), is (k, v)"), "{error}");

    let json = dir.path().join("l.json");
    fs::write(&json, "{\"k\":\"a\",\"v\":1}\n{\"k\":\"b\"}\n").unwrap();
    let wrong = declared(spec(LookupFormat::Json, &json), &[("w", DataType::Int64, true)]);
    assert!(load(&wrong).await.unwrap_err().message().contains("w: declared, is missing"));
    let strict = declared(spec(LookupFormat::Json, &json), &[("v", DataType::Int64, false)]);
    let error = load(&strict).await.unwrap_err();
    assert!(error.to_string().contains("NULL") || error.to_string().contains("null"), "{error}");
    assert_eq!(load(&spec(LookupFormat::Json, &json)).await.unwrap().num_rows(), 2);
}

#[tokio::test]
async fn a_missing_lookup_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for format in [LookupFormat::Csv, LookupFormat::Json, LookupFormat::Parquet, LookupFormat::Delta] {
        let error = load(&spec(format, &dir.path().join("nowhere"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{format:?}: {error}");
        assert!(error.message().contains("lookup `l`") && error.message().contains("nowhere"), "{error}");
        assert!(error.message().contains("mend LOCATION"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_of_parquet_is_one_lookup() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionContext::new();
    let rows = session.sql("SELECT column1 AS k, column2 AS v FROM (VALUES ('a', 1), ('b', 2))").await.unwrap();
    let options = datafusion::dataframe::DataFrameWriteOptions::new();
    let file = dir.path().join("one.parquet");
    rows.write_parquet(file.to_str().unwrap(), options, None).await.unwrap();
    let spec = spec(LookupFormat::Parquet, dir.path());
    let mut lookup = load(&spec).await.unwrap();
    assert_eq!((lookup.num_rows(), sum(&lookup, "v").await), (2, 3));
    assert_eq!(lookup.schema().field(0).data_type(), &DataType::Utf8);
    let schema = Lookup::schema_of(&spec, &Storage::new(), &state()).await.unwrap();
    assert_eq!(&schema, lookup.schema());
    fs::copy(&file, dir.path().join("two.parquet")).unwrap();
    assert!(lookup.refresh().await.unwrap());
    assert_eq!(lookup.num_rows(), 4);
}

fn sink_spec(location: &std::path::Path) -> SinkSpec {
    let column = |name: &str, data_type| ContractColumn { name: name.into(), data_type, nullable: true };
    let columns = vec![column("k", DataType::Utf8), column("v", DataType::Int64), column("part", DataType::Utf8)];
    let contract = Contract { columns, checks: vec![] };
    let sink = SinkSpec::append("t", location.to_str().unwrap(), contract);
    SinkSpec { partition_by: vec!["part".into()], ..sink }
}

/// Adds a row to a Delta table with delta-rs, which makes it when it is not there.
async fn append(location: &std::path::Path, value: i64) {
    let spec = sink_spec(location);
    fs::create_dir_all(location).unwrap();
    let url = Url::from_directory_path(location).unwrap();
    let mut table = deltalake::DeltaTableBuilder::from_url(url).unwrap().build().unwrap();
    if table.verify_deltatable_existence().await.unwrap() {
        table.load().await.unwrap();
    }
    let fields = spec.contract.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(arrow::array::StringArray::from(vec!["a"])),
        Arc::new(arrow::array::Int64Array::from(vec![value])),
        Arc::new(arrow::array::StringArray::from(vec!["p"])),
    ];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap();
    table.write(vec![batch]).with_partition_columns(["part"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_is_read_again_when_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    append(&path, 1).await;
    let spec = spec(LookupFormat::Delta, &path);
    let mut lookup = load(&spec).await.unwrap();
    assert_eq!((lookup.version(), sum(&lookup, "v").await), ("0", 1));
    let types: Vec<_> = lookup.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Int64, DataType::Utf8]);
    assert!(!lookup.refresh().await.unwrap());
    append(&path, 10).await;
    assert!(lookup.refresh().await.unwrap());
    assert_eq!((lookup.version(), sum(&lookup, "v").await), ("1", 11));

    // The same number of versions, but another table.
    fs::remove_dir_all(&path).unwrap();
    append(&path, 5).await;
    append(&path, 6).await;
    assert!(lookup.refresh().await.unwrap());
    assert_eq!((lookup.version(), sum(&lookup, "v").await), ("1", 11));

    let plan = lookup.provider().scan(&state(), None, &[], None).await.unwrap();
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).unwrap();
    assert_eq!(statistics.num_rows, Precision::Exact(2));
    let schema = Lookup::schema_of(&spec, &Storage::new(), &state()).await.unwrap();
    assert_eq!(&schema, lookup.schema());
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_columns_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    append(&path, 1).await;
    let right =
        declared(spec(LookupFormat::Delta, &path), &[("v", DataType::Int64, false), ("k", DataType::Utf8, true)]);
    let lookup = load(&right).await.unwrap();
    assert_eq!(lookup.schema(), right.declared.as_ref().unwrap());
    let wrong =
        declared(spec(LookupFormat::Delta, &path), &[("v", DataType::Float64, true), ("w", DataType::Utf8, true)]);
    let error = load(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("v: declared Float64, is Int64\n  w: declared Utf8, is missing"), "{error}");
}
