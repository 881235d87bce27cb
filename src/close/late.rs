//! Records of days that are sealed: they go to a table beside the final one, `<final table>_adjustments`, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, cast as cast_expr, ident, lit};
use futures::StreamExt as _;

use super::Job;
use super::accounts::is_same;
use super::closed::Closed;
use super::reconcile::Ground;
use super::upkeep::keep_in_order;
use crate::contract::{Contract, ContractColumn};
use crate::error::{Error, Result};
use crate::fault_point;
use crate::pipeline::SinkSpec;
use crate::sink::{Created, DeltaSink, History, Litter, Owner, SinkCommit, SinkWriter};

/// How often somebody else may look for late rows at the same moment.
const TRIES: u32 = 10;
/// Retried records that are asked for one by one; of more all rows are looked at.
const ASKED_FOR: usize = 1_000;

/// A day that is sealed, as late rows are held against it.
struct Sealed<'a> {
    closed: &'a Closed,
    date: i32,
    /// The first and the last moment, in microseconds.
    micros: (i64, i64),
    /// What it accounted for.
    ends: BTreeMap<i32, i64>,
    /// The version that it read.
    version: i64,
    /// Whether its late rows were looked for before. Another closing may have looked while this one was not sealed yet.
    is_known: bool,
}

/// What is looked at.
struct Due<'a> {
    sealed: Vec<Sealed<'a>>,
    /// The first offset that nobody looked at, for days that are known.
    start: BTreeMap<i32, i64>,
    /// The version up to which retried records were looked at, for days that are known.
    since: i64,
    /// Records that a retry brought, with its version.
    retried: BTreeMap<(i32, i64), i64>,
    time: &'a str,
    /// Whether others have looked at more than what is there to be looked at.
    is_older: bool,
}

/// What came of a look for late rows.
pub enum Looked {
    /// So many, by date.
    Found(BTreeMap<String, u64>),
    /// Others have looked at a newer version of the landing table: that one has to be looked at.
    Older,
}

/// The table of late rows of a final table.
pub fn table(sink: &SinkSpec, landing: &SinkSpec) -> SinkSpec {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let own = [("_date", DataType::Date32), ("_closing", DataType::Int64), ("_found_at", time)];
    let own = own.map(|(name, data_type)| ContractColumn { name: name.into(), data_type, nullable: true });
    let landed = landing.contract.columns.iter().map(|column| ContractColumn { nullable: true, ..column.clone() });
    let contract = Contract { columns: own.into_iter().chain(landed).collect(), checks: Vec::new() };
    SinkSpec { merge_schema: true, ..SinkSpec::append("adjustments", &location(sink), contract) }
}

/// Where late rows of a final table go.
pub fn location(sink: &SinkSpec) -> String {
    format!("{}_adjustments", sink.location.trim_end_matches('/'))
}

impl Job {
    /// Looks for rows of sealed days that came after their closing, and writes those that are new. How many, by date.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    pub(super) async fn find_late(&self, ground: &Ground<'_>, sink: &SinkSpec, closed: &[Closed]) -> Result<Looked> {
        let spec = table(sink, ground.landing.sink);
        let owner = Owner::new(&self.pipeline.name, &sink.name);
        let mut table = DeltaSink::open(&spec, owner, &self.deps.storage, Arc::clone(&self.deps.clock)).await?;
        table.add_columns().await?;
        for _ in 0..TRIES {
            let litter = Litter::default();
            let Some(due) = self.due(&table, ground, closed).await? else { return Ok(Looked::Found(BTreeMap::new())) };
            if due.is_older {
                return Ok(Looked::Older);
            }
            let (commit, found) = self.look(&table, ground, &due, &litter).await?;
            fault_point::pass("close.late").await?;
            let written = match table.exists() {
                true => table.commit_next(commit).await?.is_some(),
                false => matches!(table.create(commit).await?, Created::Ours(_)),
            };
            if written {
                litter.keep();
                keep_in_order(&self.deps, &table).await;
                return Ok(Looked::Found(found));
            }
            litter.remove().await;
            table.reload().await?;
        }
        Err(Error::unavailable(format!(
            "table `{}`: others look for late rows at the same time; run it again",
            table.location()
        )))
    }

    /// How many rows are known to be late for a closing.
    pub(super) async fn adjustments(&self, sink: &SinkSpec, closed: &Closed) -> Result<u64> {
        let spec = SinkSpec { location: location(sink), ..sink.clone() }.as_lookup();
        let Some(version) = History::open(&spec.location, &self.deps.storage)?.newest_if_any().await? else {
            return Ok(0);
        };
        let context = self.context()?;
        let state = context.state();
        let spec = crate::pipeline::LookupSpec { declared: None, ..spec };
        let rows =
            crate::lookup::Lookup::scanned(&spec, version, &self.deps.storage, &self.deps.memory, &state).await?;
        let date = super::staged::date_value(&closed.date)?;
        let own = ident("_date").eq(lit(date)).and(ident("_closing").eq(lit(closed.closing)));
        Ok(context.read_table(rows)?.filter(own)?.count().await? as u64)
    }

    /// What is to be looked at; `None` when there is nothing.
    async fn due<'a>(
        &self,
        table: &DeltaSink,
        ground: &'a Ground<'_>,
        closed: &'a [Closed],
    ) -> Result<Option<Due<'a>>> {
        let (topic, id) = (&ground.landed.identity.topic, &ground.landed.identity.topic_id);
        let owner = table.owner();
        let ends = &ground.landed.ends;
        let looked_for = |day: &Sealed<'_>| table.txn(&owner.late_of(&day.closed.date)).unwrap_or(0);
        let mut sealed = sealed_days(ground, &owner.query, closed);
        // Others know of a newer closing of the day.
        sealed.retain(|day| looked_for(day) <= day.closed.closing);
        sealed.iter_mut().for_each(|day| day.is_known = looked_for(day) == day.closed.closing);
        if sealed.is_empty() {
            return Ok(None);
        }
        let position = |partition: &i32| table.txn(&owner.late(topic, id, *partition)).unwrap_or(0);
        let start: BTreeMap<i32, i64> = ends.keys().map(|partition| (*partition, position(partition))).collect();
        let since = table.txn(&owner.late_version()).unwrap_or(0);
        let version = ground.landed.version as i64;
        // Of another landing table versions say nothing.
        let is_ahead = since > version && sealed.iter().any(|day| day.version != i64::MAX);
        let is_older = is_ahead || start.iter().any(|(partition, start)| *start > ends[partition]);
        let is_new = sealed.iter().any(|day| !day.is_known);
        if !is_new && start.iter().all(|(partition, start)| start >= &ends[partition]) && since >= version {
            return Ok(None);
        }
        let letters = self.letters(ground).await?.into_iter();
        let retried = letters.filter_map(|(partition, offset, retried)| Some(((partition, offset), retried?)));
        let oldest = sealed.iter().map(|day| if day.is_known { since } else { day.version }).min().unwrap_or(0);
        let retried = retried.filter(|(_, at)| *at > oldest && *at <= version).collect();
        Ok(Some(Due { sealed, start, since, retried, time: &ground.spec.time, is_older }))
    }

    /// Writes what is late to files.
    async fn look(
        &self,
        table: &DeltaSink,
        ground: &Ground<'_>,
        due: &Due<'_>,
        litter: &Litter,
    ) -> Result<(SinkCommit, BTreeMap<String, u64>)> {
        let (topic, id) = (&ground.landed.identity.topic, &ground.landed.identity.topic_id);
        let owner = table.owner();
        let ends = ground.landed.ends.iter();
        let mut txns: Vec<_> = ends.map(|(partition, end)| (owner.late(topic, id, *partition), *end)).collect();
        txns.push((owner.late_version(), ground.landed.version as i64));
        let new = due.sealed.iter().filter(|day| !day.is_known);
        txns.extend(new.map(|day| (owner.late_of(&day.closed.date), day.closed.closing)));
        let mut writer = table.writer(&self.deps.memory).noting(litter);
        let found = self.write_late(table, ground, due, &mut writer).await?;
        let adds = writer.close().await?;
        Ok((SinkCommit { adds, txns, attempt: self.deps.clock.new_id(), info: owner.info() }, found))
    }

    async fn write_late(
        &self,
        table: &DeltaSink,
        ground: &Ground<'_>,
        due: &Due<'_>,
        writer: &mut SinkWriter,
    ) -> Result<BTreeMap<String, u64>> {
        let columns = ground.landing.sink.contract.columns.iter();
        let columns = columns.map(|c| cast_expr(ident(&c.name), c.data_type.clone()).alias(&c.name));
        let context = self.context()?;
        let rows = context.read_table(Arc::clone(&ground.rows))?.filter(due.filter())?;
        let mut rows = rows.select(columns.collect::<Vec<_>>())?.execute_stream().await?;
        let mut found = BTreeMap::new();
        let now = self.deps.clock.now().timestamp_micros();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let days = due.days(&batch)?;
            for date in days.iter().flatten().map(|day| &due.sealed[*day].closed.date) {
                *found.entry(date.clone()).or_default() += 1;
            }
            let mask: BooleanArray = days.iter().map(|day| Some(day.is_some())).collect();
            let kept = filter_record_batch(&batch, &mask)?;
            let of = |get: fn(&Sealed<'_>) -> i64| days.iter().flatten().map(move |day| get(&due.sealed[*day]));
            let dates: Date32Array = of(|day| i64::from(day.date)).map(|days| Some(days as i32)).collect();
            let closings: Int64Array = of(|day| day.closed.closing).map(Some).collect();
            let at = arrow::array::TimestampMicrosecondArray::from_value(now, kept.num_rows()).with_timezone("UTC");
            let own: [ArrayRef; 3] = [Arc::new(dates), Arc::new(closings), Arc::new(at)];
            let columns = own.into_iter().chain(kept.columns().iter().cloned()).collect();
            writer.write(&RecordBatch::try_new(Arc::clone(table.schema()), columns)?).await?;
        }
        Ok(found)
    }
}

/// The days of a final table that are sealed, by their time.
fn sealed_days<'a>(ground: &Ground<'_>, table: &str, closed: &'a [Closed]) -> Vec<Sealed<'a>> {
    let landed = ground.landed;
    let of = |closed: &'a Closed| {
        let own = closed.reconciled.iter().find(|own| own.table == table)?;
        let ScalarValue::Date32(Some(date)) = super::staged::date_value(&closed.date).ok()? else { return None };
        let micros = (closed.day_start.timestamp_micros(), closed.day_end.timestamp_micros());
        // Of another topic it has accounted for nothing; of another landing table it has read no version.
        let partitions = own.partitions.iter().filter(|_| is_same(own, &landed.identity));
        let ends = partitions.filter_map(|(partition, figures)| Some((*partition, figures.to?))).collect();
        let version = if own.location == landed.location() { own.version as i64 } else { i64::MAX };
        Some(Sealed { closed, date, micros, ends, version, is_known: false })
    };
    let mut days: Vec<_> = closed.iter().filter_map(of).collect();
    days.sort_by_key(|day| day.micros);
    days
}

impl Due<'_> {
    /// The first offset of a partition at which a row is late for a day and not known.
    fn start_of(&self, day: &Sealed<'_>, partition: i32) -> i64 {
        let of = |offsets: &BTreeMap<i32, i64>| offsets.get(&partition).copied().unwrap_or(0);
        if day.is_known { of(&self.start).max(of(&day.ends)) } else { of(&day.ends) }
    }

    /// What is not read needlessly: rows of sealed days that nobody looked at.
    fn filter(&self) -> Expr {
        let micros = |time: i64| lit(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())));
        let first = self.sealed.first().map_or(0, |day| day.micros.0);
        let last = self.sealed.iter().map(|day| day.micros.1).max().unwrap_or(0);
        let of_days = ident(self.time).gt_eq(micros(first)).and(ident(self.time).lt(micros(last)));
        if self.retried.len() > ASKED_FOR {
            return of_days;
        }
        let starts =
            self.sealed.iter().flat_map(|day| self.start.keys().map(|partition| self.start_of(day, *partition)));
        let new = ident("_offset").gt_eq(lit(starts.min().unwrap_or(0)));
        let offsets: BTreeSet<i64> = self.retried.keys().map(|(_, offset)| *offset).collect();
        let brought = ident("_offset").in_list(offsets.into_iter().map(lit).collect(), false);
        of_days.and(if self.retried.is_empty() { new } else { new.or(brought) })
    }

    /// For each row the sealed day that it is late for.
    fn days(&self, batch: &RecordBatch) -> Result<Vec<Option<usize>>> {
        let column = |name: &str, data_type: &DataType| -> Result<ArrayRef> {
            let column = batch.column_by_name(name).ok_or_else(|| Error::invalid(format!("no column `{name}`")))?;
            Ok(cast(column, data_type)?)
        };
        let (partitions, offsets) = (column("_partition", &DataType::Int32)?, column("_offset", &DataType::Int64)?);
        let (partitions, offsets) = (partitions.as_primitive::<Int32Type>(), offsets.as_primitive::<Int64Type>());
        let times = column(self.time, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let late = |row: usize| {
            let (time, origin) =
                (times.is_valid(row).then(|| times.value(row))?, (partitions.value(row), offsets.value(row)));
            let at = self.sealed.partition_point(|day| day.micros.0 <= time).checked_sub(1)?;
            let day = &self.sealed[at];
            let is_of_day = time < day.micros.1;
            let is_new = origin.1 >= self.start_of(day, origin.0);
            let looked_at = if day.is_known { self.since.max(day.version) } else { day.version };
            let is_brought = self.retried.get(&origin).is_some_and(|version| *version > looked_at);
            (is_of_day && (is_new || is_brought)).then_some(at)
        };
        Ok((0..batch.num_rows()).map(late).collect())
    }
}
