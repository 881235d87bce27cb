//! Counting rows: of what landed, by where each belongs; and of what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::dataframe::DataFrame;
use futures::StreamExt as _;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use roaring::RoaringTreemap;
use tokio::task::JoinSet;

use super::accounts::is_in;
use super::closed::{Exact, Figures, Open, Sums};
use crate::error::{Error, Result};
use crate::observe::grouped;
use crate::pipeline::BusinessDay;

/// Offsets by partition, as sets.
pub type Offsets = BTreeMap<i32, RoaringTreemap>;

/// Whether a record is in a set.
pub fn holds(offsets: &Offsets, partition: i32, offset: i64) -> bool {
    offsets.get(&partition).is_some_and(|set| set.contains(offset as u64))
}

/// Where a row of a landing table belongs.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The day.
    pub day: BusinessDay,
    /// The first offset that no closing has accounted for, partition by partition.
    pub from: BTreeMap<i32, i64>,
    /// The records whose rows are kept.
    pub kept: Arc<Offsets>,
    /// The columns that add up.
    pub sums: Vec<String>,
    /// The zone of the days.
    pub zone: TimeZone,
    /// Offsets for whose rows of other days this closing vouches, partition by partition.
    pub vouches: BTreeMap<i32, Vec<(i64, i64)>>,
    /// Offsets of whose rows of the day closings of other days have told, partition by partition.
    pub told: BTreeMap<i32, Vec<(i64, i64)>>,
    /// Records among them that came after that.
    pub late: BTreeSet<(i32, i64)>,
}

/// Rows outside the day are told by their days, of so many at most.
const OPEN_DAYS: usize = 10_000;
/// Zones change at quarters of an hour.
const QUARTER_MICROS: i64 = 900_000_000;

/// Rows of a partition, counted.
#[derive(Debug, Clone, Default)]
struct Part {
    figures: Figures,
    /// In the order of the columns: of landed, brought forward, outside, kept and duplicate rows.
    sums: Vec<[Exact; 5]>,
    /// Rows outside by their days, with their sums.
    open: BTreeMap<Date, (u64, Vec<Exact>)>,
    /// Rows of the day of which closings of other days have told.
    told: (u64, Vec<Exact>),
}

/// Rows of a landing table, counted.
#[derive(Debug, Default)]
pub struct Tally {
    parts: BTreeMap<i32, Part>,
    /// The quarter of an hour whose day was asked for last.
    last: Option<(i64, Date)>,
}

/// The figures of a partition, and its rows of the day of which closings of other days have told.
pub type Counted = (Figures, Open);

/// Numbers that add up.
enum Column {
    Whole(ArrayRef),
    Decimal(ArrayRef, i8),
}

impl Column {
    fn new(batch: &RecordBatch, name: &str) -> Result<Self> {
        let column = named(batch, name)?;
        match column.data_type() {
            DataType::Decimal128(_, scale) => Ok(Column::Decimal(Arc::clone(column), *scale)),
            _ => Ok(Column::Whole(cast(column, &DataType::Int64)?)),
        }
    }

    /// The value of a row; nothing for NULL.
    fn value(&self, row: usize) -> Exact {
        match self {
            Column::Whole(column) if column.is_valid(row) => {
                Exact { units: i128::from(column.as_primitive::<Int64Type>().value(row)), scale: 0 }
            }
            Column::Decimal(column, scale) if column.is_valid(row) => {
                Exact { units: column.as_primitive::<Decimal128Type>().value(row), scale: *scale }
            }
            Column::Whole(_) => Exact::default(),
            Column::Decimal(_, scale) => Exact { units: 0, scale: *scale },
        }
    }
}

impl Tally {
    /// Counts rows of a landing table; `time` is the column of the day. For each row of the day whether it is kept.
    pub fn add(&mut self, batch: &RecordBatch, time: &str, scope: &Scope) -> Result<Vec<Option<bool>>> {
        let (partitions, offsets) = origins(batch)?;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times = cast(named(batch, time)?, &micros)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let columns = scope.sums.iter().map(|name| Column::new(batch, name)).collect::<Result<Vec<_>>>()?;
        let (start, end) = (scope.day.start.timestamp_micros(), scope.day.end.timestamp_micros());
        let mut all = vec![None; batch.num_rows()];
        for (row, kept) in all.iter_mut().enumerate() {
            let (partition, offset) = (partitions.value(row), offsets.value(row));
            let part = self.parts.entry(partition).or_default();
            part.sums.resize(columns.len(), [Exact::default(); 5]);
            let is_new = scope.from.get(&partition).is_none_or(|from| offset >= *from);
            let of_day = times.is_valid(row) && (start..end).contains(&times.value(row));
            let figures = &mut part.figures;
            let (came, came_as) = match (is_new, of_day) {
                (true, _) => (&mut figures.landed, 0),
                (false, true) => (&mut figures.brought_forward, 1),
                (false, false) => continue,
            };
            *came += 1;
            let (became, became_as) = match of_day {
                false => (&mut figures.outside, 2),
                true if holds(&scope.kept, partition, offset) => (&mut figures.kept, 3),
                true => (&mut figures.duplicates, 4),
            };
            *became += 1;
            *kept = of_day.then_some(became_as == 3);
            for (sums, column) in part.sums.iter_mut().zip(&columns) {
                let value = column.value(row);
                [came_as, became_as].iter().for_each(|class| sums[*class].add(value));
            }
            let is_among = |ranges: &BTreeMap<i32, Vec<(i64, i64)>>| {
                ranges.get(&partition).is_some_and(|ranges| is_in(ranges, offset))
            };
            let (rows, sums) = if !of_day && times.is_valid(row) && is_among(&scope.vouches) {
                let day = day_of(&mut self.last, times.value(row), &scope.zone)?;
                if part.open.len() >= OPEN_DAYS && !part.open.contains_key(&day) {
                    return Err(too_many_days(time));
                }
                part.open.entry(day).or_default()
            } else if of_day && is_among(&scope.told) && !scope.late.contains(&(partition, offset)) {
                &mut part.told
            } else {
                continue;
            };
            *rows += 1;
            sums.resize(columns.len(), Exact::default());
            sums.iter_mut().zip(&columns).for_each(|(sum, column)| sum.add(column.value(row)));
        }
        Ok(all)
    }

    /// Counts those of another tally too.
    pub fn merge(&mut self, other: Tally) {
        for (partition, more) in other.parts {
            let part = self.parts.entry(partition).or_default();
            part.figures.add(&more.figures);
            part.sums.resize(more.sums.len().max(part.sums.len()), [Exact::default(); 5]);
            for (own, more) in part.sums.iter_mut().zip(&more.sums) {
                own.iter_mut().zip(more).for_each(|(own, more)| own.add(*more));
            }
            for (day, more) in more.open {
                add(part.open.entry(day).or_default(), &more);
            }
            add(&mut part.told, &more.told);
        }
    }

    /// The figures of each partition.
    pub fn figures(self, columns: &[String]) -> BTreeMap<i32, Counted> {
        let open = |(rows, sums): (u64, Vec<Exact>)| Open { rows, sums: columns.iter().cloned().zip(sums).collect() };
        let named = |part: Part| {
            let told = open(part.told);
            let sums = columns.iter().zip(part.sums);
            let sums = sums.map(|(column, [landed, brought_forward, outside, kept, duplicates])| {
                (column.clone(), Sums { landed, brought_forward, outside, kept, duplicates })
            });
            let days = part.open.into_iter().map(|(day, counted)| (day.to_string(), open(counted)));
            (Figures { sums: sums.collect(), open: days.collect(), ..part.figures }, told)
        };
        self.parts.into_iter().map(|(partition, part)| (partition, named(part))).collect()
    }
}

/// Adds rows and sums.
fn add((rows, sums): &mut (u64, Vec<Exact>), (more, others): &(u64, Vec<Exact>)) {
    *rows += more;
    sums.resize(others.len().max(sums.len()), Exact::default());
    sums.iter_mut().zip(others).for_each(|(sum, more)| sum.add(*more));
}

/// The day of a time.
fn day_of(last: &mut Option<(i64, Date)>, micros: i64, zone: &TimeZone) -> Result<Date> {
    let quarter = micros.div_euclid(QUARTER_MICROS);
    if let Some((_, day)) = last.filter(|(known, _)| *known == quarter) {
        return Ok(day);
    }
    let time = Timestamp::from_microsecond(micros).map_err(|_| {
        Error::violated(format!("a row has a time that is in no calendar ({micros} microseconds from 1970 on)"))
    })?;
    let day = time.to_zoned(zone.clone()).date();
    *last = Some((quarter, day));
    Ok(day)
}

fn too_many_days(time: &str) -> Error {
    Error::violated(format!(
        "rows of more than {} days landed since the last closing: is `{time}` the time of the day? Close the days in \
         their order, or mend what was sent",
        grouped(OPEN_DAYS as u64)
    ))
}

/// Rows that are kept, counted by the partition that they came from.
#[derive(Debug, Default)]
pub struct Kept {
    /// Which records they came from.
    pub offsets: Offsets,
    /// How many rows, and what they add up to, partition by partition.
    pub partitions: BTreeMap<i32, (u64, Vec<Exact>)>,
}

impl Kept {
    /// Counts rows of a final table.
    pub fn add(&mut self, batch: &RecordBatch, sums: &[String]) -> Result<()> {
        let (partitions, offsets) = origins(batch)?;
        let columns = sums.iter().map(|name| Column::new(batch, name)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let partition = if partitions.is_null(row) || offsets.is_null(row) { -1 } else { partitions.value(row) };
            let (rows, totals) = self.partitions.entry(partition).or_default();
            *rows += 1;
            totals.resize(columns.len(), Exact::default());
            totals.iter_mut().zip(&columns).for_each(|(total, column)| total.add(column.value(row)));
            if partition >= 0 {
                self.offsets.entry(partition).or_default().insert(offsets.value(row) as u64);
            }
        }
        Ok(())
    }

    /// Counts those of another one too.
    pub fn merge(&mut self, other: Kept) {
        for (partition, set) in other.offsets {
            *self.offsets.entry(partition).or_default() |= set;
        }
        for (partition, (rows, totals)) in other.partitions {
            let own = self.partitions.entry(partition).or_default();
            own.0 += rows;
            own.1.resize(totals.len().max(own.1.len()), Exact::default());
            own.1.iter_mut().zip(totals).for_each(|(own, more)| own.add(more));
        }
    }
}

/// Runs a plan, each of its streams into an account of its own.
///
/// # Errors
/// What the plan and `step` return.
pub async fn drain<A: Default + Send + 'static>(
    frame: DataFrame,
    step: impl Fn(&mut A, &RecordBatch) -> Result<()> + Send + Sync + 'static,
) -> Result<Vec<A>> {
    let step = Arc::new(step);
    let mut tasks: JoinSet<Result<A>> = JoinSet::new();
    for mut stream in frame.execute_stream_partitioned().await? {
        let step = Arc::clone(&step);
        tasks.spawn(async move {
            let mut account = A::default();
            while let Some(batch) = stream.next().await {
                step(&mut account, &batch?)?;
            }
            Ok(account)
        });
    }
    let mut accounts = Vec::new();
    while let Some(done) = tasks.join_next().await {
        accounts.push(done.map_err(|e| Error::unavailable(format!("a task failed: {e}; run it again")))??);
    }
    Ok(accounts)
}

/// Which records the rows came from: partitions and offsets.
fn origins(batch: &RecordBatch) -> Result<(Int32Array, Int64Array)> {
    let partitions = cast(named(batch, "_partition")?, &DataType::Int32)?;
    let offsets = cast(named(batch, "_offset")?, &DataType::Int64)?;
    Ok((partitions.as_primitive::<Int32Type>().clone(), offsets.as_primitive::<Int64Type>().clone()))
}

/// A column by its name.
pub fn named<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::invalid(format!("column `{name}` is missing; declare it")))
}
