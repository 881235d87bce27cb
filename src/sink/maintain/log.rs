//! The log is kept short: a checkpoint says all that it says, and what is older may go.

use delta_kernel::Snapshot;
use deltalake::checkpoints::cleanup_expired_logs_for;
use deltalake::logstore::LogStore as _;

use super::{Maintained, Maintainer, Round};
use crate::error::Result;
use crate::fault_point;

impl Maintainer {
    /// Writes a checkpoint when one is due, and takes away what is older than another and than the log's retention.
    pub(super) async fn keep_log(&mut self, round: Round, done: &mut Maintained) -> Result<()> {
        let state = self.table()?;
        let version = state.version;
        let fresh = match (round, state.checkpoint) {
            (Round::Whole, checkpoint) => checkpoint != Some(version) && version > 0,
            (Round::Due, _) => self.sink.is_upkeep_due(&self.upkeep.spec),
        };
        if !fresh {
            return Ok(());
        }
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
        let removed = cleanup_expired_logs_for(version, self.sink.log.store(), cutoff, None).await;
        done.log_files_removed =
            removed.map_err(|e| self.unavailable("the log could not be cleaned up").caused_by(e))?;
        Ok(())
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
