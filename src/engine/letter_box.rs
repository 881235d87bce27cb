//! The dead letters of a query, read back: those that are open, which no retry has committed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::DeltaScanNext;

use super::side::SideTables;
use super::{Deps, letter, side};
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, QuerySpec};
use crate::sink::{DeltaSink, Owner};
use crate::source::{Headers, Payloads, RawBatch};

/// Open letters: found, and not committed by a retry since.
const OPEN: &str = "FROM letters l WHERE l.pipeline = $pipeline AND l.query = $query AND l.retried IS NULL
    AND NOT EXISTS (SELECT 1 FROM letters r WHERE r.retried IS NOT NULL AND r.pipeline = l.pipeline
        AND r.query = l.query AND r.topic = l.topic
        AND r.\"partition\" = l.\"partition\" AND r.\"offset\" = l.\"offset\")";

/// The tables in which a query's dead letters lie.
pub(crate) struct LetterBox {
    pub(crate) owner: Owner,
    pub(crate) sink: DeltaSink,
    pub(crate) sides: Arc<SideTables>,
    /// The locations that hold a table.
    locations: Vec<String>,
    context: SessionContext,
}

/// Letters of one topic.
pub(crate) type TopicLetters = BTreeMap<String, Vec<RawBatch>>;

impl LetterBox {
    /// Opens the dead letters of `query` and makes good what was owed to them; `None` when its sink does not exist yet.
    ///
    /// # Errors
    /// `Invalid` when a table is not one of dead letters; `Unavailable` when the store fails.
    pub(crate) async fn open(deps: &Deps, pipeline: &Pipeline, query: &QuerySpec) -> Result<Option<Self>> {
        Self::find(deps, pipeline, query, true).await
    }

    /// As [`LetterBox::open`], but nothing is made good: nothing is written.
    ///
    /// # Errors
    /// As [`LetterBox::open`].
    pub(crate) async fn look(deps: &Deps, pipeline: &Pipeline, query: &QuerySpec) -> Result<Option<Self>> {
        Self::find(deps, pipeline, query, false).await
    }

    async fn find(deps: &Deps, pipeline: &Pipeline, query: &QuerySpec, make_good: bool) -> Result<Option<Self>> {
        let sink_spec = super::sink_of(pipeline, query)?;
        let owner = Owner::new(&pipeline.name, &query.name);
        let sink = DeltaSink::open(sink_spec, owner.clone(), &deps.storage, Arc::clone(&deps.clock)).await?;
        if !sink.exists() {
            return Ok(None);
        }
        let sides = Arc::new(side::of_query(deps, pipeline, query, sink_spec, owner.clone()));
        if make_good {
            sides.roll_forward(&sink).await?;
        }
        let mut locations = Vec::new();
        for source in pipeline.sources.iter().filter(|source| query.sources.contains(&source.name)) {
            let location = letter::location(source, sink_spec);
            let log = deps.storage.log_store(&location)?;
            let exists = log.is_delta_table_location().await.map_err(|e| unreadable(&location, e))?;
            if exists && !locations.contains(&location) {
                locations.push(location);
            }
        }
        let context =
            SessionContext::new_with_config_rt(super::session::config(pipeline, false)?, deps.memory.runtime());
        Ok(Some(Self { owner, sink, sides, locations, context }))
    }

    /// Where letters lie.
    pub(crate) fn locations(&self) -> &[String] {
        &self.locations
    }

    /// `SELECT columns` of the open letters at `location`, with `rest` after the conditions.
    ///
    /// # Errors
    /// As [`LetterBox::open`].
    pub(crate) async fn select(&self, deps: &Deps, location: &str, columns: &str, rest: &str) -> Result<DataFrame> {
        let log = deps.storage.log_store(location)?;
        let table = DeltaScanNext::builder().with_log_store(log).with_session(Arc::new(self.context.state())).build();
        let table = table.await.map_err(|e| unreadable(location, e))?;
        self.context.deregister_table("letters")?;
        self.context.register_table("letters", Arc::new(table))?;
        let sql = format!("SELECT {columns} {OPEN} {rest}");
        let names = [("pipeline", self.owner.pipeline.as_str()), ("query", self.owner.query.as_str())];
        let values: Vec<_> = names.into_iter().map(|(name, value)| (name, value.into())).collect();
        Ok(self.context.sql(&sql).await?.with_param_values(values)?)
    }

    /// The open letters at `location` as records, in the order of topic, partition and offset.
    ///
    /// # Errors
    /// As [`LetterBox::open`].
    pub(crate) async fn records(&self, deps: &Deps, location: &str) -> Result<SendableRecordBatchStream> {
        let columns = "arrow_cast(l.topic, 'Utf8') AS topic, l.\"partition\", l.\"offset\", l.\"timestamp\", \
                       arrow_cast(l.key, 'Binary') AS key, arrow_cast(l.value, 'Binary') AS value, l.headers";
        let frame = self.select(deps, location, columns, "ORDER BY 1, 2, 3").await?;
        Ok(frame.execute_stream().await?)
    }
}

/// Adds rows of [`LetterBox::records`] to the records of their topics.
///
/// # Errors
/// `Invalid` when a column is not what it is in a table of dead letters.
pub(crate) fn collect(rows: &RecordBatch, letters: &mut TopicLetters) -> Result<()> {
    let wrong = || Error::invalid("a table of dead letters has other columns; name another with 'dead_letters'");
    let topics = rows.column(0).as_string_opt::<i32>().ok_or_else(wrong)?;
    let partitions = rows.column(1).as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
    let offsets = rows.column(2).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let times = rows.column(3).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?;
    let keys = rows.column(4).as_binary_opt::<i32>().ok_or_else(wrong)?;
    let values = rows.column(5).as_binary_opt::<i32>().ok_or_else(wrong)?;
    for row in 0..rows.num_rows() {
        let of_topic = letters.entry(topics.value(row).to_string()).or_default();
        let partition = partitions.value(row);
        if of_topic.last().is_none_or(|batch| batch.partition != partition) {
            let (keys, headers) = (Some(Payloads::default()), Some(Vec::new()));
            of_topic.push(RawBatch { partition, keys, headers, ..RawBatch::default() });
        }
        let Some(batch) = of_topic.last_mut() else { continue };
        batch.offsets.push(offsets.value(row));
        batch.timestamps.push(if times.is_null(row) { -1 } else { times.value(row).div_euclid(1000) });
        batch.values.push(values.is_valid(row).then(|| values.value(row)));
        if let Some(of_batch) = &mut batch.keys {
            of_batch.push(keys.is_valid(row).then(|| keys.value(row)));
        }
        if let Some(of_batch) = &mut batch.headers {
            of_batch.push(headers(rows.column(6).as_ref(), row).ok_or_else(wrong)?);
        }
    }
    Ok(())
}

fn headers(column: &dyn Array, row: usize) -> Option<Headers> {
    let list = column.as_list_opt::<i32>()?;
    if list.is_null(row) {
        return Some(Headers::new());
    }
    let entries = list.value(row);
    let entries = entries.as_struct_opt()?;
    let keys = arrow::compute::cast(entries.column(0), &arrow::datatypes::DataType::Utf8).ok()?;
    let values = arrow::compute::cast(entries.column(1), &arrow::datatypes::DataType::Binary).ok()?;
    let (keys, values) = (keys.as_string_opt::<i32>()?, values.as_binary_opt::<i32>()?);
    let value = |at: usize| values.is_valid(at).then(|| values.value(at).to_vec());
    Some((0..entries.len()).map(|at| (keys.value(at).to_string(), value(at))).collect())
}

fn unreadable(location: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let location = crate::storage::shown(location);
    Error::unavailable(format!("dead letters at {location} could not be read; check the store and run it again"))
        .caused_by(error)
}
