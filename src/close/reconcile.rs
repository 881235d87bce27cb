//! Where each record went: what the log says was read, what lies in the landing table and beside it, and what is kept.
//! Each figure is counted where it lies, and those that have to be the same are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::catalog::TableProvider;
use datafusion::common::{ScalarValue, cast::as_int32_array, cast::as_int64_array};
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::min;
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf, ident, lit};
use datafusion::prelude::SessionContext;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::Job;
use super::accounts::{Accounts, Letter, Told};
use super::closed::{Exact, Figures, Reconciled};
use super::keys::Keys;
use super::land::{Landed, Landing};
use super::tally::{Counted, Kept, Offsets, Scope, Tally, drain, holds, named};
use crate::engine;
use crate::error::{Error, Result};
use crate::lookup::Lookup;
use crate::observe::grouped;
use crate::pipeline::{BusinessDay, LandingSpec, SinkSpec};
use crate::sink::History;

/// The name of a landing table in sessions of our own.
const LANDED: &str = "landed";

/// A landing table at the version that is read.
pub struct Ground<'a> {
    pub landing: &'a Landing<'a>,
    pub spec: &'a LandingSpec,
    pub landed: &'a Landed,
    /// Its rows.
    pub rows: Arc<dyn TableProvider>,
    /// The first offset of each partition that this closing accounts for.
    pub from: BTreeMap<i32, i64>,
    /// What the log says was read from there on.
    pub read: BTreeMap<i32, Read>,
    /// What earlier closings have accounted for.
    pub accounts: Option<Accounts>,
}

/// Records of a partition that were read, as the commits say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Read {
    records: u64,
    null: u64,
    /// Offsets of which no commit says how many records they were.
    unsaid: u64,
}

impl Job {
    /// Finds out what a closing has to account for, after what others did.
    pub(super) async fn find_ranges(&self, ground: &mut Ground<'_>, accounts: Accounts) -> Result<()> {
        let (landing, landed) = (ground.landing, ground.landed);
        let history = History::open(&landing.sink.location, &self.deps.storage)?;
        let mut ranges: BTreeMap<i32, Vec<Range>> = BTreeMap::new();
        let first = accounts.version(&landed.location()).map_or(0, |version| version + 1);
        let mut ids = BTreeSet::new();
        history
            .infos(first..=landed.version, |info| {
                let own = |key: &str, value: &str| info.get(key).and_then(Value::as_str) == Some(value);
                let is_stream = info.contains_key("batch");
                if is_stream && own("pipeline", &self.pipeline.name) && own("query", &landing.query.name) {
                    for (partition, id, range) in ranges_of(info, &landed.identity.topic) {
                        ranges.entry(partition).or_default().push(range);
                        // A recording has no id, nor has a commit of nothing but what is gone.
                        ids.extend(Some(id).filter(|id| !id.is_empty()));
                    }
                }
            })
            .await?;
        if let Some(other) = ids.iter().find(|id| **id != landed.identity.topic_id) {
            return Err(Error::invalid(format!(
                "table `{}` has records of two topics {}: one was deleted and made again (topic ids {other} and {}), \
                 and their offsets cannot be told apart. Let the new topic land in another table",
                landed.table, landed.identity.topic, landed.identity.topic_id
            )));
        }
        // The log no longer says where the table began: its rows do.
        let is_cut = history.oldest().await? > first;
        let firsts = if is_cut { self.first_offsets(ground).await? } else { BTreeMap::new() };
        for (partition, end) in &landed.ends {
            let ranges = ranges.remove(partition).unwrap_or_default();
            let oldest = ranges.iter().map(|range| range.from).min().unwrap_or(*end);
            let oldest = firsts.get(partition).copied().map_or(oldest, |first| first.min(oldest));
            let start = accounts.from(*partition).unwrap_or(oldest).min(*end);
            let replaced = accounts.replaced(*partition, &landed.location());
            let begin = replaced.and_then(|(said, _)| said.to).unwrap_or(start).min(*end);
            let mut counted = Read { unsaid: (end - begin).max(0) as u64, ..Read::default() };
            for range in ranges.iter().filter(|range| range.from >= begin && range.to <= *end) {
                let Some(records) = range.records else { continue };
                counted.records += records;
                counted.null += range.null;
                counted.unsaid = counted.unsaid.saturating_sub((range.to - range.from).max(0) as u64);
            }
            counted.records += counted.unsaid;
            if let Some((said, by_offsets)) = replaced {
                counted.records += said.records;
                counted.null += said.null;
                counted.unsaid += if by_offsets { said.records } else { 0 };
            }
            ground.from.insert(*partition, start);
            ground.read.insert(*partition, counted);
        }
        ground.accounts = Some(accounts);
        Ok(())
    }

    /// The first offset of each partition that a landing table has.
    async fn first_offsets(&self, ground: &Ground<'_>) -> Result<BTreeMap<i32, i64>> {
        let rows = self.context()?.read_table(Arc::clone(&ground.rows))?;
        let firsts = rows.aggregate(vec![ident("_partition")], vec![min(ident("_offset"))])?.collect().await?;
        let mut all = BTreeMap::new();
        for batch in firsts {
            let (partitions, offsets) = (as_int32_array(batch.column(0))?, as_int64_array(batch.column(1))?);
            all.extend(partitions.iter().zip(offsets).filter_map(|(partition, first)| Some((partition?, first?))));
        }
        Ok(all)
    }

    /// The figures of a final table that keeps rows of `ground`, and what does not add up.
    pub(super) async fn reconcile(
        &self,
        ground: &Ground<'_>,
        sink: &SinkSpec,
        kept: Kept,
    ) -> Result<(Reconciled, Vec<String>)> {
        let Kept { offsets, partitions: kept } = kept;
        let letters = self.letters(ground).await?;
        let told = ground.accounts.as_ref().map(Accounts::told).unwrap_or_default();
        let scope = Arc::new(self.scope(ground, offsets, &letters, &told));
        let (mut counted, kept_once) = self.tally(ground, &scope).await?;
        let beside = self.beside(ground, &letters).await?;
        let mut differences = Vec::new();
        let name =
            |partition: &i32| format!("{}, topic {}, partition {partition}", sink.name, ground.landed.identity.topic);
        for (partition, told) in &told {
            let (_, found) = counted.entry(*partition).or_default();
            let differ = told.differs(found, &ground.spec.sums);
            differences.extend(differ.into_iter().map(|what| format!("{}: {what}", name(partition))));
        }
        let mut figures: BTreeMap<i32, Figures> = counted.into_iter().map(|(p, (figures, _))| (p, figures)).collect();
        let mut by_offsets = false;
        for (partition, read) in &ground.read {
            let own = figures.entry(*partition).or_default();
            own.from = ground.from.get(partition).copied();
            own.to = ground.landed.ends.get(partition).copied();
            (own.records, own.null) = (read.records, read.null);
            by_offsets |= read.unsaid > 0;
            (own.dead, own.quarantined) = beside.get(partition).copied().unwrap_or_default();
            zero_sums(own, ground);
            let vouches = scope.vouches.get(partition).cloned().unwrap_or_default();
            own.told = Some(vouches).filter(|vouches| *vouches != own.vouches());
        }
        for (partition, own) in &figures {
            let told = |what: String| format!("{}: {what}", name(partition));
            let unsaid = ground.read.get(partition).map_or(0, |read| read.unsaid);
            match landing_differs(own) {
                // Offsets are more than records where a topic is compacted, or written to in transactions.
                Some(what) if own.records > own.found() && own.records - own.found() <= unsaid => {
                    let say = "the log no longer says of all of them how many there were, so offsets are counted";
                    self.deps.observer.note(&format!("{} ({say})", told(what)));
                }
                what => differences.extend(what.map(told)),
            }
            let (rows, sums) = kept.get(partition).cloned().unwrap_or_default();
            differences.extend(kept_differs(own, rows, &sums, &ground.spec.sums).into_iter().map(told));
        }
        for (partition, (rows, _)) in kept.iter().filter(|(partition, _)| !figures.contains_key(partition)) {
            differences.push(format!("{}: {} rows are kept, and none landed", name(partition), grouped(*rows)));
        }
        if !kept_once {
            differences.extend(self.keys_that_differ(ground, sink, &scope.kept).await?);
        }
        let mut total = Figures::default();
        figures.values().for_each(|figures| total.add(figures));
        let reconciled = Reconciled {
            table: sink.name.clone(),
            landing: ground.landed.table.clone(),
            location: ground.landed.location(),
            version: ground.landed.version,
            time: Some(ground.spec.time.clone()),
            topic: ground.landed.identity.topic.clone(),
            topic_id: ground.landed.identity.topic_id.clone(),
            by_offsets,
            partitions: figures,
            total,
        };
        Ok((reconciled, differences))
    }

    /// Where rows of `ground` belong, when the records at `kept` have theirs kept.
    fn scope(&self, ground: &Ground<'_>, kept: Offsets, letters: &[Letter], told: &BTreeMap<i32, Told>) -> Scope {
        let accounts = ground.accounts.as_ref();
        let vouches = |accounts: &Accounts| -> BTreeMap<i32, Vec<(i64, i64)>> {
            let end = |partition| ground.landed.ends.get(partition).copied().unwrap_or(0);
            ground.from.iter().map(|(p, from)| (*p, accounts.vouches(*p, *from, end(p)))).collect()
        };
        Scope {
            day: self.day,
            from: ground.from.clone(),
            kept: Arc::new(kept),
            sums: ground.spec.sums.clone(),
            zone: self.pipeline.settings.close_zone.clone().unwrap_or(TimeZone::UTC),
            vouches: accounts.map(vouches).unwrap_or_default(),
            told: told.iter().map(|(partition, told)| (*partition, told.offsets.clone())).collect(),
            late: accounts.map(|accounts| accounts.came_later(letters)).unwrap_or_default(),
        }
    }

    /// A session in which rows are counted.
    pub(super) fn context(&self) -> Result<SessionContext> {
        Ok(SessionContext::new_with_config_rt(
            engine::session_config(&self.pipeline, false)?,
            self.deps.memory.runtime(),
        ))
    }

    /// The figures of the rows that landed, and whether each key certainly has one row that is kept.
    async fn tally(&self, ground: &Ground<'_>, scope: &Arc<Scope>) -> Result<(BTreeMap<i32, Counted>, bool)> {
        let (time, key) = (ground.spec.time.clone(), ground.spec.key.clone());
        let mut columns = vec!["_partition".to_owned(), "_offset".to_owned(), time.clone()];
        for column in ground.spec.sums.iter().chain(&key) {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        let oldest = ground.from.values().min().copied().unwrap_or(0);
        let wanted = of_day(&time, &self.day).or(ident("_offset").gt_eq(lit(oldest)));
        let rows = self.context()?.read_table(Arc::clone(&ground.rows))?.filter(wanted)?;
        let rows = rows.select(columns.iter().map(ident).collect::<Vec<_>>())?;
        let (counting, memory) = (Arc::clone(scope), self.deps.memory.clone());
        let step = move |(tally, keys): &mut (Tally, Keys), batch: &RecordBatch| {
            let kept = tally.add(batch, &time, &counting)?;
            let columns = key.iter().map(|column| named(batch, column).cloned()).collect::<Result<Vec<_>>>()?;
            keys.add(&columns, kept.into_iter(), &memory)
        };
        let (tallies, keys): (Vec<_>, Vec<_>) = drain(rows, step).await?.into_iter().unzip();
        let mut all = Tally::default();
        tallies.into_iter().for_each(|tally| all.merge(tally));
        Ok((all.figures(&ground.spec.sums), Keys::are_kept_once(keys).await?))
    }

    /// The dead letters and the quarantined rows of the closing's offsets, partition by partition.
    async fn beside(&self, ground: &Ground<'_>, letters: &[Letter]) -> Result<BTreeMap<i32, (u64, u64)>> {
        let mut beside: BTreeMap<i32, (u64, u64)> = BTreeMap::new();
        let is_due = |partition: i32, offset: i64| {
            let from = ground.from.get(&partition).copied().unwrap_or(0);
            (from..ground.landed.ends.get(&partition).copied().unwrap_or(0)).contains(&offset)
        };
        let (mut dead, mut retried, mut after) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for &(partition, offset, version) in letters {
            match version {
                Some(version) if version <= ground.landed.version as i64 => drop(retried.insert((partition, offset))),
                // For this closing it is a dead letter, wherever it went.
                Some(_) => drop(after.insert((partition, offset))),
                None if is_due(partition, offset) => drop(dead.insert((partition, offset))),
                None => {}
            }
        }
        dead.difference(&retried).for_each(|(partition, _)| beside.entry(*partition).or_default().0 += 1);
        if let Some(rows) = self.side(&format!("{}_quarantine", ground.landing.sink.name)).await? {
            let oldest = ground.from.values().min().copied().unwrap_or(0);
            let rows = rows.filter(ident("_offset").gt_eq(lit(oldest)))?;
            for batch in rows.select(vec![ident("_partition"), ident("_offset")])?.collect().await? {
                let (partitions, offsets) = (as_int32_array(batch.column(0))?, as_int64_array(batch.column(1))?);
                for (partition, offset) in partitions.iter().zip(offsets).filter_map(|(p, o)| Some((p?, o?))) {
                    if is_due(partition, offset) && !after.contains(&(partition, offset)) {
                        beside.entry(partition).or_default().1 += 1;
                    }
                }
            }
        }
        Ok(beside)
    }

    /// Each dead letter of a landing query: partition, offset, and in which version of the table it was retried.
    pub(super) async fn letters(&self, ground: &Ground<'_>) -> Result<Vec<Letter>> {
        let query = ground.landing.query.name.as_str();
        let Some(rows) = self.side(&format!("{query}_dead_letters")).await? else { return Ok(Vec::new()) };
        let own = ident("pipeline").eq(lit(self.pipeline.name.as_str())).and(ident("query").eq(lit(query)));
        let own = own.and(ident("topic").eq(lit(ground.landed.identity.topic.as_str())));
        // Of old ones only those that came back.
        let oldest = ground.from.values().min().copied().unwrap_or(0);
        let own = own.and(ident("retried").is_not_null().or(ident("offset").gt_eq(lit(oldest))));
        let rows = rows.filter(own)?.select(vec![ident("partition"), ident("offset"), ident("retried")])?;
        let mut letters = Vec::new();
        for batch in rows.collect().await? {
            let retried = batch.column(2).as_primitive::<Int64Type>();
            let (partitions, offsets) = (as_int32_array(batch.column(0))?, as_int64_array(batch.column(1))?);
            for (row, (partition, offset)) in partitions.iter().zip(offsets).enumerate() {
                let version = arrow::array::Array::is_valid(retried, row).then(|| retried.value(row));
                letters.extend(partition.zip(offset).map(|(partition, offset)| (partition, offset, version)));
            }
        }
        Ok(letters)
    }

    /// The rows of a table beside a sink as they are now; `None` when there is no such table.
    async fn side(&self, name: &str) -> Result<Option<DataFrame>> {
        let Some(spec) = engine::side_table(&self.pipeline, name) else { return Ok(None) };
        let history = History::open(&spec.location, &self.deps.storage)?;
        let Some(version) = history.newest_if_any().await? else { return Ok(None) };
        let context = self.context()?;
        let state = context.state();
        let lookup = spec.as_lookup();
        let table = Lookup::scanned(&lookup, version, &self.deps.storage, &self.deps.memory, &state).await?;
        Ok(Some(context.read_table(table)?))
    }

    /// What is of the day and has no row that is kept, or more than one, by its key.
    async fn keys_that_differ(&self, ground: &Ground<'_>, sink: &SinkSpec, kept: &Arc<Offsets>) -> Result<Vec<String>> {
        let context = self.context()?;
        let kept = Arc::clone(kept);
        let is_kept = move |values: &[ColumnarValue]| {
            let values = ColumnarValue::values_to_arrays(values)?;
            let (partitions, offsets) = (values[0].as_primitive::<Int32Type>(), values[1].as_primitive::<Int64Type>());
            let flags = partitions.values().iter().zip(offsets.values());
            let flags = flags.map(|(partition, offset)| i64::from(holds(&kept, *partition, *offset)));
            Ok(ColumnarValue::Array(Arc::new(flags.collect::<Int64Array>())))
        };
        let arguments = vec![DataType::Int32, DataType::Int64];
        let function = create_udf("is_kept", arguments, DataType::Int64, Volatility::Immutable, Arc::new(is_kept));
        context.register_udf(function);
        let rows = context.read_table(Arc::clone(&ground.rows))?.filter(of_day(&ground.spec.time, &self.day))?;
        context.register_table(LANDED, rows.into_view())?;
        let key: Vec<String> = ground.spec.key.iter().map(|column| quoted(column)).collect();
        let sql = format!(
            "SELECT at, count(*) FILTER (WHERE kept = 0), count(*) FILTER (WHERE kept > 1) FROM (SELECT \
             min(_partition) AS at, sum(is_kept(_partition, _offset)) AS kept FROM {LANDED} GROUP BY {}) WHERE kept <> \
             1 GROUP BY at ORDER BY at",
            key.join(", ")
        );
        let mut differences = Vec::new();
        for batch in context.sql(&sql).await?.collect().await? {
            let partitions = as_int32_array(batch.column(0))?;
            let (lost, twice) = (as_int64_array(batch.column(1))?, as_int64_array(batch.column(2))?);
            for row in 0..batch.num_rows() {
                let place = format!(
                    "{}, topic {}, partition {}",
                    sink.name,
                    ground.landed.identity.topic,
                    partitions.value(row)
                );
                let of = |count: i64, what: &str| {
                    (count > 0).then(|| {
                        format!(
                            "{place}: {} different {} have {what}",
                            grouped(count as u64),
                            ground.spec.key.join(", ")
                        )
                    })
                };
                differences.extend(of(lost.value(row), "rows of the day and none that is kept"));
                differences.extend(of(twice.value(row), "more than one row that is kept"));
            }
        }
        Ok(differences)
    }
}

/// Sums of nothing where nothing landed, with as many digits as their columns have.
fn zero_sums(own: &mut Figures, ground: &Ground<'_>) {
    for column in &ground.spec.sums {
        let declared = ground.landing.sink.contract.columns.iter().find(|other| other.name == *column);
        let scale = match declared.map(|column| &column.data_type) {
            Some(DataType::Decimal128(_, scale)) => *scale,
            _ => 0,
        };
        let zero = Exact { units: 0, scale };
        let sums = own.sums.entry(column.clone()).or_default();
        let all = [&mut sums.landed, &mut sums.brought_forward, &mut sums.outside, &mut sums.kept];
        all.into_iter().chain([&mut sums.duplicates]).for_each(|sum| sum.add(zero));
    }
}

/// A range of a commit.
#[derive(Debug, Clone, Copy)]
struct Range {
    from: i64,
    to: i64,
    /// Not said by the commits of old versions.
    records: Option<u64>,
    null: u64,
}

fn ranges_of(info: &Map<String, Value>, topic: &str) -> Vec<(i32, String, Range)> {
    let list = |key: &str| info.get(key).and_then(Value::as_array).into_iter().flatten();
    // What was due and is gone was passed over: no record of it was read.
    let id = list("sources").find_map(|source| source.get("topic_id")?.as_str()).unwrap_or_default();
    let lost = list("lost").cloned().map(|mut lost| {
        (lost["records"], lost["topic_id"]) = (0.into(), id.into());
        lost
    });
    let sources: Vec<Value> = list("sources").cloned().chain(lost).collect();
    let range = |source: &Value| {
        let number = |key: &str| source.get(key).and_then(Value::as_i64);
        let partition = i32::try_from(number("partition")?).ok()?;
        let records = source.get("records").and_then(Value::as_u64);
        let null = source.get("null").and_then(Value::as_u64).unwrap_or_default();
        let id = source.get("topic_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((partition, id, Range { from: number("from")?, to: number("to")?, records, null }))
    };
    sources
        .iter()
        .filter(|source| source.get("topic").and_then(Value::as_str) == Some(topic))
        .filter_map(range)
        .collect()
}

/// What was read against what became of it.
fn landing_differs(own: &Figures) -> Option<String> {
    let found = own.found();
    let what = if own.records > found { "missing" } else { "too many" };
    (own.records != found).then(|| {
        format!(
            "{} records were read, and {} rows landed, {} are dead letters, {} quarantined, {} without a value: {} \
             {what}",
            grouped(own.records),
            grouped(own.landed),
            grouped(own.dead),
            grouped(own.quarantined),
            grouped(own.null),
            grouped(own.records.abs_diff(found))
        )
    })
}

/// What is kept, as it landed, against what the final table has.
fn kept_differs(own: &Figures, rows: u64, sums: &[Exact], columns: &[String]) -> Vec<String> {
    let mut differences = Vec::new();
    if own.kept != rows {
        let (rows, kept) = (grouped(rows), grouped(own.kept));
        differences.push(format!("{rows} rows are kept, of which {kept} are rows of the day that landed"));
    }
    for (index, column) in columns.iter().enumerate() {
        let landed = own.sums.get(column).map(|sums| sums.kept).unwrap_or_default();
        let kept = sums.get(index).copied().unwrap_or_default();
        if !landed.is_same(kept) {
            differences.push(format!("{column} of the rows that are kept is {landed} as it landed, and {kept} now"));
        }
    }
    differences
}

/// Whether a row is of the day.
pub fn of_day(time: &str, day: &BusinessDay) -> Expr {
    let at = |time: chrono::DateTime<chrono::Utc>| {
        lit(ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), Some("UTC".into())))
    };
    ident(time).gt_eq(at(day.start)).and(ident(time).lt(at(day.end)))
}

fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}
