//! Close of books: a business day of a topic, sealed once.
//!
//! The records land in a table row by row. When the day is complete, the batch jobs of the file run over that table at
//! one version, into files that nobody sees. The figures of topic, landing table and files are compared, and the checks
//! of the file see the tables as they would be. Then one row in the table `_closings` decides: it holds the figures
//! and, for each final table, the files that are put in the place of others. Each final table is rolled forward from
//! it, in one version, and the row is marked as done. Whoever comes next finishes what was decided before anything
//! else, so that a day is sealed once, whoever is killed and however many run.

mod accounts;
mod books;
mod closed;
mod html;
mod keys;
mod land;
mod late;
mod prepare;
mod reconcile;
mod report;
mod seal;
mod staged;
mod tally;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::accounts::numbers;
use self::books::{Books, Closing};
use self::land::{Asked, Landed, Landing};
use self::late::Looked;
use self::prepare::discard;
use self::seal::Sealed;
use crate::engine::{Deps, Stop};
use crate::error::{Error, Result};
use crate::pipeline::{BusinessDay, Pipeline, QueryKind, QuerySpec, SinkSpec};

pub use self::closed::{Closed, CompleteBy, Exact, Figures, FinalTable, Reconciled, Sums};
pub use self::html::page;
pub use self::report::text;

/// How long a broker is waited for when a day is closed already: its late records can wait.
const HURRY: Duration = Duration::from_secs(10);

/// How often another date may be closed meanwhile.
const TRIES: u32 = 10;

/// The tables beside the final ones that somebody means by `_closings` or `<final table>_adjustments`, under that name.
pub fn side_table(pipeline: &Pipeline, name: &str) -> Option<SinkSpec> {
    if !pipeline.is_closing() {
        return None;
    }
    if name == books::TABLE {
        let first = pipeline.queries.iter().find(|query| query.kind == QueryKind::Batch)?;
        return Some(books::table(pipeline.sink(&first.name)?));
    }
    let sink = pipeline.sink(name.strip_suffix("_adjustments")?)?;
    let landing = pipeline.sink(sink.rows_of.as_ref()?)?;
    Some(SinkSpec { name: name.to_owned(), ..late::table(sink, landing) })
}

/// What is to be closed.
#[derive(Clone)]
pub struct Job {
    /// The pipeline, which has a zone and was given the date.
    pub pipeline: Arc<Pipeline>,
    /// Stores, time and topics.
    pub deps: Deps,
    /// The day.
    pub day: BusinessDay,
    /// How long records of the day are waited for after its end.
    pub lateness: Duration,
    /// Nothing is committed.
    pub dry_run: bool,
    /// Why a date that is closed is closed anew.
    pub reopen: Option<String>,
    /// Ends it before anything is decided.
    pub stop: Stop,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// The day.
    pub closed: Closed,
    /// Whether it was closed before.
    pub before: bool,
    /// Rows that came too late for it, and lie beside the final tables.
    pub adjustments: u64,
    /// Late rows that were found just now, by the date that they are late for.
    pub late: BTreeMap<String, u64>,
    /// Records that a dry run has not seen, as they are not landed.
    pub behind: u64,
    /// Earlier days that are not closed and of which the closing has seen rows, with how many.
    pub open: BTreeMap<String, u64>,
    /// What does not add up, and which checks are broken: then nothing was closed.
    pub differences: Vec<String>,
}

impl Outcome {
    fn new(closed: Closed, known: &Known) -> Self {
        let mut open = BTreeMap::new();
        // Each final table of a landing table tells of the same rows.
        let mut landings = BTreeSet::new();
        let own = closed.reconciled.iter().filter(|own| landings.insert(&own.landing));
        for (day, rows) in own.flat_map(|own| &own.total.open) {
            if *day < closed.date && !known.contains_key(day) {
                *open.entry(day.clone()).or_default() += rows.rows;
            }
        }
        let (late, differences) = (BTreeMap::new(), Vec::new());
        Self { closed, before: false, adjustments: 0, late, behind: 0, open, differences }
    }
}

/// The name of the zone of a pipeline's days.
fn zone_of(pipeline: &Pipeline) -> &str {
    pipeline.settings.close_zone.as_ref().and_then(|zone| zone.iana_name()).unwrap_or("UTC")
}

/// The closings of the job, by date.
type Known = BTreeMap<String, Closing>;

impl Job {
    /// Closes the day, or says how it was closed.
    ///
    /// # Errors
    /// `Unavailable` when the day is not complete or a store or broker fails, `Violated` when a row breaks a contract:
    /// nothing is committed then. `Invalid` when the file closes nothing. Figures that differ and checks that are
    /// broken are no error: [`Outcome::differences`] has them.
    pub async fn close(&self) -> Result<Outcome> {
        let finals = self.finals()?;
        let mut books = Books::open(&self.deps, &self.pipeline.name, books::table(finals[0].0)).await?;
        let known = books.read().await?;
        self.refuse_overlap(&known)?;
        let known = self.finish_others(&mut books, known).await?;
        let date = self.day.date.to_string();
        match (known.get(&date), &self.reopen) {
            (Some(closing), None) => return self.closed_before(&closing.closed, &known).await,
            (None, Some(_)) => {
                let job = &self.pipeline.name;
                return Err(Error::invalid(format!("--reopen: {date} was never closed by {job}; leave it out")));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let now = self.deps.clock.now();
        let landings = self.landings();
        let asked = self.ask(&landings).await?;
        let complete_by = match self.complete(now, &landings, &asked).await {
            Err(error) if self.dry_run => {
                self.deps.observer.note(&format!("a close would end here: {}", error.message()));
                CompleteBy::Clock
            }
            complete => complete?,
        };
        let (number, mut known) = (numbers(&known).get(&date).copied(), known);
        for _ in 0..TRIES {
            // After the books were read: nothing that others have accounted for is missing then.
            let landed = self.land_all(&landings, &asked).await?;
            let grounds = self.grounds(&landings, &landed, &known).await?;
            let prepared = self.pinned().await?.prepare(&finals, &grounds, &known, complete_by).await?;
            if self.dry_run || !prepared.differences.is_empty() {
                discard(&prepared.staged).await;
                let behind = landed.iter().map(|landed| landed.behind).sum();
                return Ok(Outcome {
                    behind,
                    differences: prepared.differences,
                    ..Outcome::new(prepared.closed, &known)
                });
            }
            let (closing, before) = match self.seal(&mut books, prepared).await? {
                Sealed::Ours(closing) => (closing, false),
                Sealed::Theirs(closing) => (closing, true),
                Sealed::Nobody => {
                    self.deps.observer.note("another date was closed meanwhile: the figures are made again after it");
                    known = books.read().await?;
                    known = self.finish_others(&mut books, known).await?;
                    match known.get(&date) {
                        Some(theirs) if Some(theirs.closed.closing) != number => (theirs.clone(), true),
                        _ => continue,
                    }
                }
            };
            if before && self.reopen.is_some() {
                return Err(Error::unavailable(format!(
                    "{date} was closed anew by somebody else meanwhile (closing {}): look at that one, and say it \
                     again where it is not enough",
                    closing.closed.closing
                )));
            }
            self.finish(&mut books, &closing).await?;
            let known = books.read().await?;
            let late = self.late(&landings, &asked, &known).await?;
            let adjustments = self.known_late(&closing.closed).await?;
            return Ok(Outcome { before, adjustments, late, ..Outcome::new(closing.closed, &known) });
        }
        Err(Error::unavailable("other dates are closed all the time; run it again"))
    }

    /// Refuses a day that shares hours with another one that is closed: its rows would be in both.
    fn refuse_overlap(&self, known: &Known) -> Result<()> {
        for Closed { date, zone, day_start, day_end, .. } in known.values().map(|closing| &closing.closed) {
            let is_same = *date == self.day.date.to_string();
            let overlaps = *day_start < self.day.end && self.day.start < *day_end;
            if (is_same && (*day_start, *day_end) != (self.day.start, self.day.end)) || (!is_same && overlaps) {
                return Err(Error::invalid(format!(
                    "{} shares hours with {date}, which was closed as a day of {zone}: rows would be in both. A \
                     pipeline keeps its close_zone; with another one give it another name (SET flumen.pipeline) and \
                     other final tables",
                    self.day.date
                )));
            }
            // Rows of other days were told by the days of that zone.
            if *zone != zone_of(&self.pipeline) {
                return Err(Error::invalid(format!(
                    "{date} was closed as a day of {zone}, and close_zone is {} now: days would be other hours. A \
                     pipeline keeps its close_zone; with another one give it another name (SET flumen.pipeline) and \
                     other final tables",
                    zone_of(&self.pipeline)
                )));
            }
        }
        Ok(())
    }

    /// The final tables of the file with the jobs that fill them, in its order.
    fn finals(&self) -> Result<Vec<(&SinkSpec, &QuerySpec)>> {
        let jobs = self.pipeline.queries.iter().filter(|query| query.kind == QueryKind::Batch);
        let finals: Vec<_> = jobs.filter_map(|query| Some((self.pipeline.sink(&query.name)?, query))).collect();
        if finals.is_empty() || self.landings().is_empty() {
            return Err(Error::invalid(format!(
                "pipeline {} closes nothing: it has no table that records land in, or none that a batch job fills",
                self.pipeline.name
            )));
        }
        Ok(finals)
    }

    /// What was decided and is not made good yet is made good first.
    async fn finish_others(&self, books: &mut Books, known: Known) -> Result<Known> {
        let own = self.day.date.to_string();
        let left: Vec<_> = known.values().filter(|closing| !closing.is_done).collect();
        if left.is_empty() {
            return Ok(known);
        }
        for closing in left {
            let date = &closing.closed.date;
            if self.dry_run {
                self.deps.observer.note(&format!("the closing of {date} is under way: a close finishes it first"));
                continue;
            }
            self.deps.observer.note(&format!("the closing of {date} was under way: it is finished first"));
            match self.finish(books, closing).await {
                // It is closed anew in any case.
                Err(error) if error.is_overtaken() && self.reopen.is_some() && *date == own => {
                    self.deps.observer.note(&format!("closing {} is given up: {error}", closing.closed.closing));
                }
                Err(error) if self.reopen.is_none() && known.get(&own).is_some_and(|closing| closing.is_done) => {
                    self.deps.observer.note(&format!("the closing of {date} is not finished: {error}"));
                }
                finished => finished?,
            }
        }
        books.read().await
    }

    /// A day that is closed stays as it is; what came too late is looked for.
    async fn closed_before(&self, closed: &Closed, known: &Known) -> Result<Outcome> {
        let mut late = BTreeMap::new();
        if !self.dry_run {
            let hurried = Job { deps: land::hurried(&self.deps, HURRY), ..self.clone() };
            let landings = hurried.landings();
            match hurried.look_again(&landings, known).await {
                Ok(found) => late = found,
                // The day is closed, whatever is wrong with what came after it.
                Err(error) => {
                    self.deps.observer.note(&format!("late records were not looked for: {}", error.message()))
                }
            }
        }
        let adjustments = self.known_late(closed).await?;
        Ok(Outcome { before: true, adjustments, late, ..Outcome::new(closed.clone(), known) })
    }

    /// Late rows, once the landing tables are where their topics are now.
    async fn look_again(&self, landings: &[Landing<'_>], known: &Known) -> Result<BTreeMap<String, u64>> {
        let asked = self.ask(landings).await?;
        self.late(landings, &asked, known).await
    }

    async fn land_all(&self, landings: &[Landing<'_>], asked: &[Asked]) -> Result<Vec<Landed>> {
        let mut landed = Vec::new();
        for (landing, asked) in landings.iter().zip(asked) {
            landed.push(self.land(landing, asked).await?);
        }
        Ok(landed)
    }

    /// Late rows of all landing tables that were not known, by the date that they are late for.
    async fn late(&self, landings: &[Landing<'_>], asked: &[Asked], known: &Known) -> Result<BTreeMap<String, u64>> {
        let closed: Vec<Closed> =
            known.values().filter(|closing| closing.is_done).map(|closing| closing.closed.clone()).collect();
        // By the landing table and the final one.
        let mut found: BTreeMap<(String, String), BTreeMap<String, u64>> = BTreeMap::new();
        let mut older = Vec::new();
        for _ in 0..TRIES {
            older.clear();
            let landed = self.land_all(landings, asked).await?;
            for ground in self.bare_grounds(landings, &landed).await? {
                for sink in self.keepers(&ground.landing.sink.name) {
                    match self.find_late(&ground, sink, &closed).await? {
                        Looked::Found(more) => {
                            let tables = (ground.landing.sink.name.clone(), sink.name.clone());
                            let found = found.entry(tables).or_default();
                            more.into_iter().for_each(|(date, rows)| *found.entry(date).or_default() += rows);
                        }
                        // The table is read again as it is now.
                        Looked::Older => older.push(ground.landed.location()),
                    }
                }
            }
            if older.is_empty() {
                return Ok(once(found));
            }
        }
        Err(Error::invalid(format!(
            "table `{}` has less than what was looked at for late records: was it made anew? Restore it, or delete the \
             final tables, their adjustments and the books together to begin anew",
            older.join("`, `")
        )))
    }

    /// The final tables that keep rows of a landing table.
    fn keepers(&self, landing: &str) -> impl Iterator<Item = &SinkSpec> {
        self.pipeline.sinks.iter().filter(move |sink| sink.rows_of.as_deref() == Some(landing))
    }

    /// How many rows are known to be late for a closing.
    async fn known_late(&self, closed: &Closed) -> Result<u64> {
        let mut all = BTreeMap::new();
        for sink in &self.pipeline.sinks {
            let Some(landing) = &sink.rows_of else { continue };
            let rows = self.adjustments(sink, closed).await?;
            all.insert((landing.clone(), sink.name.clone()), BTreeMap::from([((), rows)]));
        }
        Ok(once(all).into_values().sum())
    }
}

/// Rows of landing tables that final tables of theirs have found, each counted once.
fn once<K: Ord>(found: BTreeMap<(String, String), BTreeMap<K, u64>>) -> BTreeMap<K, u64> {
    let mut landings: BTreeMap<String, BTreeMap<K, u64>> = BTreeMap::new();
    for ((landing, _), rows) in found {
        let own = landings.entry(landing).or_default();
        for (key, rows) in rows {
            let most = own.entry(key).or_default();
            *most = rows.max(*most);
        }
    }
    let mut all = BTreeMap::new();
    for (key, rows) in landings.into_values().flatten() {
        *all.entry(key).or_default() += rows;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_final_tables_of_a_landing_table_find_the_same_rows() {
        let found = |landing: &str, table: &str, rows: &[(&'static str, u64)]| {
            ((landing.to_owned(), table.to_owned()), rows.iter().copied().collect::<BTreeMap<_, _>>())
        };
        let all = once(BTreeMap::from([
            found("calls", "by_call", &[("22", 3), ("23", 1)]),
            found("calls", "by_account", &[("22", 3)]),
            found("chats", "by_chat", &[("22", 2)]),
        ]));
        assert_eq!(all, BTreeMap::from([("22", 5), ("23", 1)]));
    }
}
