//! The log is kept short: a checkpoint says all that it says, and what is older may go.

use std::collections::{BTreeSet, HashSet};

use delta_kernel::Snapshot;
use deltalake::checkpoints::cleanup_expired_logs_for;
use deltalake::logstore::LogStore as _;
use serde_json::json;

use super::{Maintained, Maintainer, Round, TableRole};
use crate::error::Result;
use crate::fault_point;
use crate::sink::{DeltaSink, SinkCommit, app_id};

impl Maintainer {
    /// Writes a checkpoint when one is due, and takes away what is older than another and than the log's retention.
    pub(super) async fn keep_log(&mut self, round: Round, done: &mut Maintained) -> Result<()> {
        let state = self.table()?;
        let is_due = match round {
            Round::Whole => state.version > 0 && state.checkpoint != Some(state.version),
            Round::Due => self.sink.is_upkeep_due(&self.upkeep.spec),
        };
        if !is_due {
            return Ok(());
        }
        let settled = self.note_settled().await?;
        let version = self.table()?.version;
        fault_point::pass("maintain.checkpoint").await?;
        self.write_checkpoint(version).await?;
        done.checkpoint = Some(version);
        if let Some(state) = &mut self.sink.state {
            state.checkpoint = Some(version);
        }
        if self.property("delta.enableExpiredLogCleanup").is_some_and(|text| text.eq_ignore_ascii_case("false")) {
            return Ok(());
        }
        fault_point::pass("maintain.clean_up").await?;
        let cutoff = self.before(self.log_retention()).timestamp_millis();
        let kept_from = settled.min(version);
        let removed = cleanup_expired_logs_for(kept_from, self.sink.log.store(), cutoff, None).await;
        done.log_files_removed =
            removed.map_err(|e| self.unavailable("the log could not be cleaned up").caused_by(e))?;
        Ok(())
    }

    /// Says in the table up to which version its side tables have got what they were owed: the log does not say it any
    /// longer when it is cleaned up. Returns the version up to which that holds for all who write it.
    async fn note_settled(&mut self) -> Result<u64> {
        let TableRole::Sink { settled } = self.upkeep.role else { return Ok(u64::MAX) };
        let settled = settled.min(self.table()?.version);
        let id = self.sink.owner.settled();
        let own = format!("{}:{}", self.sink.owner.pipeline, self.sink.owner.query);
        let debtors = |sink: &DeltaSink| -> BTreeSet<String> {
            let owing = sink.txns().filter(|(_, number)| *number != 0);
            owing.filter_map(|(id, _)| app_id::debtor(id).map(str::to_string)).collect()
        };
        if debtors(&self.sink).contains(&own) && self.sink.txn(&id).is_none_or(|known| (known as u64) < settled) {
            let txns = vec![(id, settled as i64)];
            let commit =
                SinkCommit { adds: Vec::new(), txns, attempt: self.clock.new_id(), info: self.sink.owner.info() };
            self.put_upkeep(&commit, "SETTLED", json!({}), Vec::new(), &mut HashSet::new()).await?;
        }
        let others = debtors(&self.sink).into_iter().filter(|debtor| *debtor != own);
        let theirs = others.map(|debtor| self.sink.txn(&app_id::settled_of(&debtor)).unwrap_or(0).max(0) as u64);
        Ok(theirs.min().unwrap_or(u64::MAX).min(settled))
    }

    /// Delta's own reader and writer of logs does it, which streams: the list of files is not held.
    async fn write_checkpoint(&self, version: u64) -> Result<()> {
        let failed = || self.unavailable(&format!("the checkpoint of version {version} could not be written"));
        let store = self.sink.log.store();
        let root = store.transaction_url(None).map_err(|e| failed().caused_by(e))?;
        let engine = store.engine(None);
        let written = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::builder_for(root).at_version(version).build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None).map(|_| ())
        });
        written.await.map_err(|e| failed().caused_by(e))?.map_err(|e| failed().caused_by(e))
    }
}
