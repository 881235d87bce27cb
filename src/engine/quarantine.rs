//! Quarantine: rows that break the contract, and the table that keeps them.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::DeltaScanNext;

use super::Deps;
use crate::contract::{Broken, Contract, ContractColumn};
use crate::error::{Error, Result};
use crate::pipeline::SinkSpec;
use crate::storage;

/// Where the rows go that `sink` does not take.
pub(crate) fn location(sink: &SinkSpec) -> String {
    match &sink.quarantine {
        Some(location) => location.clone(),
        None => format!("{}_quarantine", sink.location.trim_end_matches('/')),
    }
}

/// The quarantine table of `sink`: its columns, all of them nullable, then `_violations`, what a row breaks, by name;
/// `_unfit`, the values that their columns cannot hold, as a JSON object, NULL when there are none; and `_clock`, the
/// clock of the micro-batch. Columns that the contract adds are added there too.
pub(crate) fn table(sink: &SinkSpec) -> SinkSpec {
    let columns = sink.contract.columns.iter().map(|column| ContractColumn { nullable: true, ..column.clone() });
    let added = [
        ("_violations", violation_list(), false),
        ("_unfit", DataType::Utf8, true),
        ("_clock", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ];
    let added = added.map(|(name, data_type, nullable)| ContractColumn { name: name.into(), data_type, nullable });
    let contract = Contract { columns: columns.chain(added).collect(), checks: Vec::new() };
    SinkSpec { merge_schema: true, ..SinkSpec::append("quarantine", &location(sink), contract) }
}

fn violation_list() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, false)))
}

/// Broken rows as the quarantine table of `sink` has them.
///
/// # Errors
/// `Unavailable` when the columns do not fit together.
pub(crate) fn rows(sink: &SinkSpec, broken: &Broken, clock: DateTime<Utc>) -> Result<RecordBatch> {
    let count = broken.rows.num_rows();
    let mut names = ListBuilder::new(StringBuilder::new()).with_field(Field::new("element", DataType::Utf8, false));
    for row in &broken.violations {
        row.iter().for_each(|name| names.values().append_value(name));
        names.append(true);
    }
    let unfit = broken.unfit.iter().map(|row| {
        let object = || serde_json::to_string(row).unwrap_or_default();
        (!row.is_empty()).then(object)
    });
    let clock = TimestampMicrosecondArray::from_value(clock.timestamp_micros(), count).with_timezone("UTC");
    let added: [ArrayRef; 3] = [Arc::new(names.finish()), Arc::new(unfit.collect::<StringArray>()), Arc::new(clock)];
    let columns = broken.rows.columns().iter().cloned().chain(added).collect();
    RecordBatch::try_new(table(sink).contract.arrow_schema(), columns)
        .map_err(|e| Error::unavailable(format!("quarantined rows do not fit their table: {e}; run it again")))
}

/// How many rows are in the quarantine table of `sink`. Nothing is changed.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(crate) async fn count(deps: &Deps, sink: &SinkSpec) -> Result<u64> {
    let location = self::location(sink);
    let log = deps.storage.log_store(&location)?;
    let unreadable = |e: deltalake::DeltaTableError| {
        Error::unavailable(format!("table `{}` cannot be read; run it again", storage::shown(&location))).caused_by(e)
    };
    if !log.is_delta_table_location().await.map_err(unreadable)? {
        return Ok(0);
    }
    let context = SessionContext::new();
    let table = DeltaScanNext::builder().with_log_store(log).with_session(Arc::new(context.state())).build();
    context.register_table("quarantine", Arc::new(table.await?))?;
    Ok(context.table("quarantine").await?.count().await? as u64)
}
