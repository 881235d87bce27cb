//! The table `_closings` beside the final tables: who closed which day, with what. Its log decides: a closing is made
//! by the version that holds its row, and each version is written by somebody who knew all before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::closed::Closed;
use super::staged::date_value;
use super::upkeep::keep_in_order;
use crate::contract::{Contract, ContractColumn};
use crate::engine::Deps;
use crate::error::{Error, Result};
use crate::lookup::Lookup;
use crate::pipeline::SinkSpec;
use crate::sink::{Created, DeltaSink, Litter, Owner, SinkCommit, Swap};

/// The table's name.
pub const TABLE: &str = "_closings";

/// What becomes of a final table by a closing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableSwap {
    /// Its name in the file.
    pub table: String,
    /// What is put in the place of what.
    pub swap: Swap,
}

/// A closing in the books.
#[derive(Debug, Clone)]
pub struct Closing {
    /// What it says.
    pub closed: Closed,
    /// What it decided, until that is made good.
    pub staged: Vec<TableSwap>,
    /// Whether it is made good.
    pub is_done: bool,
}

/// The table.
pub struct Books {
    sink: DeltaSink,
    deps: Deps,
    job: String,
}

/// A row to be written.
enum Row<'a> {
    Sealed(&'a Closed, &'a [TableSwap]),
    Done(&'a Closed),
}

impl Books {
    /// The books of a job in a table.
    ///
    /// # Errors
    /// `Invalid` when there is another table; `Unavailable` when the store fails.
    pub async fn open(deps: &Deps, job: &str, spec: SinkSpec) -> Result<Self> {
        let owner = Owner::new(job, TABLE);
        let sink = DeltaSink::open(&spec, owner, &deps.storage, Arc::clone(&deps.clock)).await?;
        Ok(Self { sink, deps: deps.clone(), job: job.to_owned() })
    }

    /// Where it lies, without secrets.
    pub fn location(&self) -> String {
        self.sink.location()
    }

    /// The closings of the job as they are now, the newest of each date.
    ///
    /// # Errors
    /// `Unavailable` when the store fails; `Invalid` when a row is not as it was written.
    pub async fn read(&mut self) -> Result<BTreeMap<String, Closing>> {
        self.sink.reload().await?;
        let Some(version) = self.sink.version() else { return Ok(BTreeMap::new()) };
        let context = SessionContext::new_with_config_rt(Default::default(), self.deps.memory.runtime());
        let spec = self.sink.spec().as_lookup();
        let state = context.state();
        let table = Lookup::scanned(&spec, version, &self.deps.storage, &self.deps.memory, &state).await?;
        let wanted = ["closing", "state", "result", "staged"];
        let own = context.read_table(table)?.filter(col("job").eq(lit(self.job.as_str())))?;
        let rows = own.sort(vec![col("closing").sort(true, true)])?.select_columns(&wanted)?.collect().await?;
        let damaged = |what: String| {
            Error::invalid(format!("table `{}`: {what}: it is not as it was written; restore it", self.location()))
        };
        let mut books: BTreeMap<String, Closing> = BTreeMap::new();
        let mut done = Vec::new();
        for batch in rows {
            let closings = batch.column(0).as_primitive_opt::<arrow::datatypes::Int64Type>();
            let closings = closings.ok_or_else(|| damaged("column `closing`".into()))?;
            let texts = [1, 2, 3].map(|column| arrow::compute::cast(batch.column(column), &DataType::Utf8));
            let [states, results, staged] = texts;
            let (states, results, staged) = (states?, results?, staged?);
            let (states, results) = (states.as_string::<i32>(), results.as_string::<i32>());
            let staged = staged.as_string::<i32>();
            for row in 0..batch.num_rows() {
                let number = closings.value(row);
                let closed: Closed = serde_json::from_str(results.value(row))
                    .map_err(|e| damaged(format!("closing {number}")).caused_by(e))?;
                if states.value(row) == DONE {
                    done.push((closed.date, number));
                    continue;
                }
                let text = if staged.is_null(row) { "[]" } else { staged.value(row) };
                let swaps =
                    serde_json::from_str(text).map_err(|e| damaged(format!("closing {number}")).caused_by(e))?;
                books.insert(closed.date.clone(), Closing { closed, staged: swaps, is_done: false });
            }
        }
        for (date, number) in done {
            if let Some(closing) = books.get_mut(&date).filter(|closing| closing.closed.closing == number) {
                closing.is_done = true;
            }
        }
        Ok(books)
    }

    /// Writes a closing into the books as they were read last: from then on it is decided. `false` when somebody else
    /// wrote into them meanwhile: then they have to be read again.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn seal(&mut self, closed: &Closed, staged: &[TableSwap]) -> Result<bool> {
        self.write(&Row::Sealed(closed, staged)).await
    }

    /// Notes that what a closing decided is made good.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub async fn mark_done(&mut self, closed: &Closed) -> Result<()> {
        while !self.write(&Row::Done(closed)).await? {
            let known = self.read().await?;
            let is_done = |closing: &Closing| closing.is_done || closing.closed.closing > closed.closing;
            if known.get(&closed.date).is_some_and(is_done) {
                return Ok(());
            }
        }
        // So that the books open as fast after years.
        keep_in_order(&self.deps, &self.sink).await;
        Ok(())
    }

    async fn write(&mut self, row: &Row<'_>) -> Result<bool> {
        let litter = Litter::default();
        let mut writer = self.sink.writer(&self.deps.memory).noting(&litter);
        writer.write(&self.batch(row)?).await?;
        let adds = writer.close().await?;
        let mut info = self.sink.owner().info();
        info.extend(Map::from_iter([("date".to_owned(), self.date_of(row).into())]));
        let commit = SinkCommit { adds, txns: Vec::new(), attempt: self.deps.clock.new_id(), info };
        let written = if self.sink.exists() {
            self.sink.commit_next(commit).await?.is_some()
        } else {
            matches!(self.sink.create(commit).await?, Created::Ours(_))
        };
        if written {
            litter.keep();
        } else {
            litter.remove().await;
        }
        Ok(written)
    }

    fn date_of(&self, row: &Row<'_>) -> String {
        let (Row::Sealed(closed, _) | Row::Done(closed)) = row;
        closed.date.clone()
    }

    fn batch(&self, row: &Row<'_>) -> Result<RecordBatch> {
        let (state, closed, staged) = match row {
            Row::Sealed(closed, staged) => (SEALED, *closed, Some(serde_json::to_string(staged))),
            Row::Done(closed) => (DONE, *closed, None),
        };
        let json = |e: serde_json::Error| Error::unavailable("a closing has no JSON form; report this").caused_by(e);
        let staged = staged.transpose().map_err(json)?;
        let result = serde_json::to_string(closed).map_err(json)?;
        let rows: u64 = closed.tables.iter().map(|table| table.rows).sum();
        let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        let maybe = |text: Option<&str>| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        let columns: Vec<ArrayRef> = vec![
            text(&self.job),
            date_value(&closed.date)?.to_array()?,
            Arc::new(Int64Array::from(vec![closed.closing])),
            text(state),
            Arc::new(
                TimestampMicrosecondArray::from(vec![self.deps.clock.now().timestamp_micros()]).with_timezone("UTC"),
            ),
            Arc::new(Int64Array::from(vec![closed.reopens])),
            maybe(closed.why.as_deref()),
            Arc::new(Int64Array::from(vec![rows as i64])),
            text(&closed.content_sha256),
            text(&closed.pipeline_sha256),
            text(&result),
            maybe(staged.as_deref()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(self.sink.schema()), columns)?)
    }
}

const SEALED: &str = "sealed";
const DONE: &str = "done";

/// The books of a pipeline: beside its first final table.
pub fn table(first: &SinkSpec) -> SinkSpec {
    let location = first.location.trim_end_matches('/');
    let parent = location.rfind('/').map_or("", |at| &location[..=at]);
    SinkSpec::append(TABLE, &format!("{parent}{TABLE}"), contract())
}

/// `state` is `sealed` in the row that decides, `done` in the one that says that the final tables have it. `result` is
/// a [`Closed`] as JSON; `staged`, of sealed rows, what becomes of the final tables: the `add` and `remove` actions.
fn contract() -> Contract {
    let columns = [
        ("job", DataType::Utf8, false),
        ("date", DataType::Date32, false),
        ("closing", DataType::Int64, false),
        ("state", DataType::Utf8, false),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        ("reopens", DataType::Int64, true),
        ("why", DataType::Utf8, true),
        ("rows", DataType::Int64, false),
        ("content_sha256", DataType::Utf8, false),
        ("pipeline_sha256", DataType::Utf8, false),
        ("result", DataType::Utf8, false),
        ("staged", DataType::Utf8, true),
    ];
    let column = |(name, data_type, nullable): (&str, DataType, bool)| ContractColumn {
        name: name.to_owned(),
        data_type,
        nullable,
    };
    Contract { columns: columns.map(column).into(), checks: Vec::new() }
}
