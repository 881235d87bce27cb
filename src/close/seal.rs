//! The seal: one row in the books decides, and each final table is rolled forward from it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::accounts::numbers;
use super::books::{Books, Closing, TableSwap};
use super::closed::Closed;
use super::prepare::{Prepared, discard};
use super::upkeep::keep_in_order;
use super::{Job, Known};
use crate::engine::Staged;
use crate::error::{Error, Result};
use crate::fault_point;
use crate::sink::{DeltaSink, Owner, Swap};

/// How often others may write into the books while a day is sealed.
const TRIES: u32 = 100;

/// Who closed the day.
pub(super) enum Sealed {
    /// This process.
    Ours(Closing),
    /// Another one, meanwhile.
    Theirs(Closing),
    /// Nobody: another date was closed meanwhile, and records that this closing accounted for are that one's.
    Nobody,
}

impl Job {
    /// Writes the closing into the books, unless somebody else closed the date meanwhile.
    ///
    /// # Errors
    /// `Unavailable` when a store fails, or when others have touched the date in a final table: then nothing is
    /// decided.
    pub(super) async fn seal(&self, books: &mut Books, prepared: Prepared) -> Result<Sealed> {
        let Prepared { closed, mut staged, after, .. } = prepared;
        let swaps = match self.swaps(&closed, &mut staged).await {
            Ok(swaps) => swaps,
            Err(error) => {
                discard(&staged).await;
                // Whoever touched the date may have closed it.
                let theirs = newer(&books.read().await?, &closed);
                return theirs.map(Sealed::Theirs).ok_or(error);
            }
        };
        fault_point::pass("close.seal").await?;
        for _ in 0..TRIES {
            // An error leaves open whether it is decided: its files stay.
            if books.seal(&closed, &swaps).await? {
                staged.iter().for_each(|staged| staged.litter.keep());
                fault_point::pass("close.sealed").await?;
                return Ok(Sealed::Ours(Closing { closed, staged: swaps, is_done: false }));
            }
            let known = books.read().await?;
            if let Some(theirs) = newer(&known, &closed) {
                discard(&staged).await;
                return Ok(Sealed::Theirs(theirs));
            }
            if numbers(&known) != after {
                discard(&staged).await;
                return Ok(Sealed::Nobody);
            }
        }
        discard(&staged).await;
        Err(Error::unavailable(format!(
            "table `{}`: others write into it all the time; run it again",
            books.location()
        )))
    }

    /// What is put in the place of what, when nobody else has touched it.
    async fn swaps(&self, closed: &Closed, staged: &mut [Staged]) -> Result<Vec<TableSwap>> {
        let mut swaps = Vec::new();
        for staged in staged {
            let column = staged.sink.spec().date_column().unwrap_or_default().to_owned();
            let swap = Swap {
                removes: staged.sink.files_of_date(&column, &closed.date).await?,
                column,
                date: closed.date.clone(),
                closing: closed.closing,
                attempt: self.deps.clock.new_id(),
                since: staged.sink.version(),
                adds: staged.adds.clone(),
            };
            staged.sink.reload().await?;
            staged.sink.refuse_touched_since(&swap).await?;
            let known = staged.sink.txn(&staged.sink.owner().close(&closed.date)).unwrap_or(0);
            if known >= closed.closing {
                return Err(Error::invalid(format!(
                    "table `{}` has closing {known} of {}, and the books do not know of it: restore `{}`, or delete \
                     the final tables, their adjustments and the books together to begin anew",
                    staged.sink.location(),
                    closed.date,
                    super::books::TABLE
                )));
            }
            swaps.push(TableSwap { table: staged.sink.spec().name.clone(), swap });
        }
        Ok(swaps)
    }

    /// Makes good what a closing decided, and marks it as done.
    ///
    /// # Errors
    /// `Unavailable` when a store fails, or when somebody else has changed the date in a final table, naming it.
    pub(super) async fn finish(&self, books: &mut Books, closing: &Closing) -> Result<()> {
        if closing.is_done {
            return Ok(());
        }
        let mut rolled = Vec::new();
        for TableSwap { table, swap } in &closing.staged {
            let spec = self.pipeline.sink(table).ok_or_else(|| {
                Error::invalid(format!(
                    "the closing of {} is under way and fills table `{table}`, which the file no longer declares: \
                     declare it until that is done",
                    closing.closed.date
                ))
            })?;
            let owner = Owner::new(&self.pipeline.name, table);
            let mut sink = DeltaSink::open(spec, owner, &self.deps.storage, Arc::clone(&self.deps.clock)).await?;
            sink.add_columns().await?;
            sink.make_good(swap, info(&closing.closed, table)).await?;
            fault_point::pass("close.rolled").await?;
            rolled.push(sink);
        }
        books.mark_done(&closing.closed).await?;
        fault_point::pass("close.done").await?;
        for sink in &rolled {
            keep_in_order(&self.deps, sink).await;
        }
        Ok(())
    }
}

/// The closing of the same date that somebody else made meanwhile.
fn newer(known: &Known, closed: &Closed) -> Option<Closing> {
    known.get(&closed.date).filter(|theirs| theirs.closed.closing >= closed.closing).cloned()
}

/// The object `flumen` of a final table's commit.
fn info(closed: &Closed, table: &str) -> Map<String, Value> {
    let rows = closed.tables.iter().find(|own| own.table == table);
    let mut info = Owner::new(&closed.job, table).info();
    let more = json!({
        "pipeline_sha256": closed.pipeline_sha256,
        "clock": closed.closed_at,
        "sources": [],
        "lookups": closed.lookups.iter().map(|(t, v)| json!({ "table": t, "version": v })).collect::<Vec<_>>(),
        "models": closed.models.iter().map(|(n, s)| json!({ "name": n, "sha256": s })).collect::<Vec<_>>(),
        "rows": { "written": rows.map(|rows| rows.rows) },
        "closing": { "date": closed.date, "number": closed.closing, "sha256": rows.map(|rows| &rows.sha256) },
    });
    if let Value::Object(more) = more {
        info.extend(more);
    }
    info
}
