//! What earlier closings have accounted for: each record of a topic is accounted for once, and rows that were of a day
//! not closed yet have to be there when it is.

use std::collections::{BTreeMap, BTreeSet};

use super::Known;
use super::closed::{Exact, Figures, Open, Reconciled};
use super::land::Landed;
use crate::error::{Error, Result};
use crate::observe::grouped;
use crate::source::TopicIdentity;

/// A dead letter: partition, offset, and in which version of the landing table it was retried.
pub type Letter = (i32, i64, Option<i64>);

/// The closings that accounted for records of a topic, of which `date` is closed now.
#[derive(Debug, Clone)]
pub struct Accounts {
    /// All but the one that this closing takes the place of.
    others: Vec<Reconciled>,
    /// That one.
    replaced: Option<Reconciled>,
    date: String,
}

impl Accounts {
    /// Of the records of a topic, as they have landed; `time` is the column of the day.
    ///
    /// # Errors
    /// `Invalid` when the landing table has had the records of another topic of that name, or another column said the
    /// day.
    pub fn new(known: &Known, date: &str, landed: &Landed, time: &str) -> Result<Self> {
        let (landing, location, topic) = (&landed.table, landed.location(), &landed.identity);
        let mut accounts = Self { others: Vec::new(), replaced: None, date: date.to_owned() };
        for closed in known.values().map(|closing| &closing.closed) {
            let of_landing = |own: &&Reconciled| own.landing == *landing && own.location == location;
            if let Some(other) = closed.reconciled.iter().find(|own| of_landing(own) && !is_same(own, topic)) {
                return Err(Error::invalid(format!(
                    "table `{landing}` has records of topic {} as it was when {} was closed (topic id {}), and now it \
                     is another one ({}): their offsets cannot be told apart. Let the new topic land in another table",
                    other.topic, closed.date, other.topic_id, topic.topic_id
                )));
            }
            let is_own = |own: &&Reconciled| own.landing == *landing && is_same(own, topic);
            let Some(own) = closed.reconciled.iter().find(is_own) else { continue };
            if let Some(other) = own.time.as_deref().filter(|other| *other != time) {
                return Err(Error::invalid(format!(
                    "table `{landing}`: close.time is `{time}`, and was `{other}` when {} was closed: rows would be of \
                     other days. A pipeline keeps its close.time; with another one give it another name (SET \
                     flumen.pipeline) and other final tables",
                    closed.date
                )));
            }
            if closed.date == date {
                accounts.replaced = Some(own.clone());
            } else {
                accounts.others.push(own.clone());
            }
        }
        Ok(accounts)
    }

    /// The first offset of a partition that this closing accounts for: that of the closing that it takes the place of,
    /// else where the others end. `None`: nobody accounted for the partition.
    pub fn from(&self, partition: i32) -> Option<i64> {
        match &self.replaced {
            Some(replaced) => replaced.partitions.get(&partition).and_then(|figures| figures.from),
            None => self.end_of_others(partition),
        }
    }

    fn end_of_others(&self, partition: i32) -> Option<i64> {
        self.others.iter().filter_map(|own| own.partitions.get(&partition)?.to).max()
    }

    /// The offsets of a partition for whose rows of other days this closing vouches, of those up to `end`: no other one
    /// does. One that takes the place of another vouches for what that one did, and for what nobody has seen.
    pub fn vouches(&self, partition: i32, start: i64, end: i64) -> Vec<(i64, i64)> {
        let Some(replaced) = &self.replaced else { return vec![(start, end)] };
        let own = replaced.partitions.get(&partition);
        let mut all = own.map(Figures::vouches).unwrap_or_default();
        let seen = self.end_of_others(partition).max(own.and_then(|figures| figures.to)).unwrap_or(start);
        if seen < end {
            all.push((seen, end));
        }
        all
    }

    /// The version of the table at `location` up to which what is accounted for is known: that which the closing read
    /// that this one takes the place of, else the last of the others; `None` when nothing is known of it.
    pub fn version(&self, location: &str) -> Option<u64> {
        let of_table = |own: &&Reconciled| own.location == location;
        match &self.replaced {
            Some(replaced) => Some(replaced).filter(of_table).map(|own| own.version),
            None => self.others.iter().filter(of_table).map(|own| own.version).max(),
        }
    }

    /// Rows of the date that others have told of, partition by partition.
    pub fn told(&self) -> BTreeMap<i32, Told> {
        let mut all: BTreeMap<i32, Told> = BTreeMap::new();
        for own in &self.others {
            for (partition, figures) in &own.partitions {
                let told = all.entry(*partition).or_default();
                told.offsets.extend(figures.vouches());
                let open = figures.open.get(&self.date).filter(|open| open.rows > 0);
                open.into_iter().for_each(|open| told.add(open));
            }
        }
        all
    }

    /// Letters that were retried after somebody had told of the rows at their offsets: partitions and offsets.
    pub fn came_later(&self, letters: &[Letter]) -> BTreeSet<(i32, i64)> {
        let is_later = |partition: i32, offset: i64, version: i64| {
            self.others.iter().filter(|own| version > own.version as i64).any(|own| {
                let ranges = own.partitions.get(&partition).map(Figures::vouches).unwrap_or_default();
                is_in(&ranges, offset)
            })
        };
        let retried =
            letters.iter().filter_map(|(partition, offset, version)| Some((*partition, *offset, (*version)?)));
        retried.filter(|(p, o, v)| is_later(*p, *o, *v)).map(|(partition, offset, _)| (partition, offset)).collect()
    }

    /// What the closing that this one takes the place of said of a partition, from the table at `location`; and whether
    /// it had to count offsets.
    pub fn replaced(&self, partition: i32, location: &str) -> Option<(&Figures, bool)> {
        let replaced = self.replaced.as_ref().filter(|own| own.location == location)?;
        Some((replaced.partitions.get(&partition)?, replaced.by_offsets))
    }
}

/// Whether an offset is in one of the ranges.
pub fn is_in(ranges: &[(i64, i64)], offset: i64) -> bool {
    ranges.iter().any(|(from, to)| (*from..*to).contains(&offset))
}

/// Rows of a day in a partition that closings of other days have told of.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How many rows; the columns that all who told of some have added up.
    rows: u64,
    sums: Option<BTreeMap<String, Exact>>,
    /// The offsets that were looked at.
    pub offsets: Vec<(i64, i64)>,
}

impl Told {
    fn add(&mut self, open: &Open) {
        self.rows += open.rows;
        let Some(sums) = &mut self.sums else {
            self.sums = Some(open.sums.clone());
            return;
        };
        sums.retain(|column, _| open.sums.contains_key(column));
        sums.iter_mut().for_each(|(column, sum)| sum.add(open.sums[column]));
    }

    /// What differs in the rows of those offsets now; `columns` are those that add up now.
    pub fn differs(&self, found: &Open, columns: &[String]) -> Vec<String> {
        let mut differences = Vec::new();
        if self.rows != found.rows {
            let (expected, found) = (grouped(self.rows), grouped(found.rows));
            differences.push(format!(
                "{expected} rows of the day had landed when other days were closed, and {found} of them are there now"
            ));
        }
        let then = |column: &String| Some((column.clone(), *self.sums.as_ref()?.get(column)?));
        for (column, then) in columns.iter().filter_map(then) {
            let now = found.sums.get(&column).copied().unwrap_or_default();
            if !then.is_same(now) {
                differences.push(format!(
                    "{column} of rows of the day was {then} when other days were closed, and {now} is there now"
                ));
            }
        }
        differences
    }
}

/// The number of each date's closing.
pub fn numbers(known: &Known) -> BTreeMap<String, i64> {
    known.iter().map(|(date, closing)| (date.clone(), closing.closed.closing)).collect()
}

/// Whether figures are of this topic. A recording has no id.
pub fn is_same(own: &Reconciled, topic: &TopicIdentity) -> bool {
    let no_id = own.topic_id.is_empty() || topic.topic_id.is_empty();
    own.topic == topic.topic && (no_id || own.topic_id == topic.topic_id)
}
