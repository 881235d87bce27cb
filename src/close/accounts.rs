//! What earlier closings have accounted for: each record of a topic is accounted for once, and rows that were of a day
//! not closed yet have to be there when it is.

use std::collections::{BTreeMap, BTreeSet};

use super::Known;
use super::closed::{Exact, Figures, Open, Reconciled};
use crate::error::{Error, Result};
use crate::observe::grouped;
use crate::source::TopicIdentity;

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
    /// Of the records of `topic`, as they land in `landing`.
    ///
    /// # Errors
    /// `Invalid` when the landing table has had the records of another topic of that name.
    pub fn new(known: &Known, date: &str, landing: &str, location: &str, topic: &TopicIdentity) -> Result<Self> {
        let mut accounts = Self { others: Vec::new(), replaced: None, date: date.to_owned() };
        for closed in known.values().map(|closing| &closing.closed) {
            let of_landing = |own: &&Reconciled| own.landing == landing && own.location == location;
            if let Some(other) = closed.reconciled.iter().find(|own| of_landing(own) && !is_same(own, topic)) {
                return Err(Error::invalid(format!(
                    "table `{landing}` has records of topic {} as it was when {} was closed (topic id {}), and now it \
                     is another one ({}): their offsets cannot be told apart. Let the new topic land in another table",
                    other.topic, closed.date, other.topic_id, topic.topic_id
                )));
            }
            let is_own = |own: &&Reconciled| own.landing == landing && is_same(own, topic);
            let Some(own) = closed.reconciled.iter().find(is_own) else { continue };
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

    /// The version of the table at `location` that the last of them read; `None` when nothing is known of it.
    pub fn version(&self, location: &str) -> Option<u64> {
        if self.replaced.is_some() {
            return None;
        }
        self.others.iter().filter(|own| own.location == location).map(|own| own.version).max()
    }

    /// Rows of the date of a partition that closings before `from` have seen: how many, and what they add up to.
    pub fn expected(&self, partition: i32, from: i64) -> Open {
        let mut all = Open::default();
        for figures in self.others.iter().filter_map(|own| own.partitions.get(&partition)) {
            if let Some(open) = figures.open.get(&self.date).filter(|_| figures.to.is_some_and(|to| to <= from)) {
                all.add(open);
            }
        }
        all
    }

    /// The records of letters that were retried after they had been accounted for: partition, offset and the version
    /// of the retry.
    pub fn came_later(&self, letters: &[(i32, i64, Option<i64>)]) -> BTreeSet<(i32, i64)> {
        let is_later = |partition: i32, offset: i64, version: i64| {
            self.others.iter().chain(&self.replaced).any(|own| {
                let Some(figures) = own.partitions.get(&partition) else { return false };
                let accounted =
                    figures.from.is_some_and(|from| from <= offset) && figures.to.is_some_and(|to| offset < to);
                accounted && version > own.version as i64
            })
        };
        let retried =
            letters.iter().filter_map(|(partition, offset, version)| Some((*partition, *offset, (*version)?)));
        retried.filter(|(p, o, v)| is_later(*p, *o, *v)).map(|(partition, offset, _)| (partition, offset)).collect()
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

/// Rows of the date that are there from before, against those that were seen then.
pub fn forward_differs(expected: &Open, found: &Open) -> Vec<String> {
    let mut differences = Vec::new();
    if expected.rows != found.rows {
        let (expected, found) = (grouped(expected.rows), grouped(found.rows));
        differences.push(format!(
            "{expected} rows of the day had landed when earlier days were closed, and {found} of them are there now"
        ));
    }
    for column in expected.sums.keys().chain(found.sums.keys()).collect::<BTreeSet<_>>() {
        let of = |open: &Open| open.sums.get(column).copied().unwrap_or_default();
        let (then, now): (Exact, Exact) = (of(expected), of(found));
        if !then.is_same(now) {
            differences.push(format!(
                "{column} of rows of the day was {then} when earlier days were closed, and {now} is there now"
            ));
        }
    }
    differences
}
