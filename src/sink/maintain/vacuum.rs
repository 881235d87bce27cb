//! Files that no version names go, when they have been so for long enough: those that a compaction replaced, and those
//! that a crash left.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use deltalake::DeltaTable;
use deltalake::logstore::{LogStore as _, ObjectStoreRef};
use deltalake::operations::vacuum::{Clock as VacuumClock, VacuumMode};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use serde_json::{Value, json};

use super::{DAY, Maintained, Maintainer};
use crate::clock::Clock;
use crate::error::Result;
use crate::fault_point;

/// When the last vacuum was. Delta's readers leave directories alone that begin with `_`.
const STATE: &str = "_flumen/upkeep.json";

impl Maintainer {
    /// Whether the last vacuum is a day ago.
    pub(super) async fn is_vacuum_due(&self) -> Result<bool> {
        let store = self.sink.log.store().object_store(None);
        let bytes = match store.get(&Path::from(STATE)).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => {
                // A table has nothing to take before it is a day old; from now on the days count.
                self.note_vacuum(&store).await?;
                return Ok(false);
            }
            Err(e) => Err(e),
        };
        let bytes = bytes.map_err(|e| self.unavailable("when the last vacuum was is not readable").caused_by(e))?;
        let state: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let last = state["vacuumed"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        Ok(last.is_none_or(|last| last < self.before(DAY)))
    }

    /// Removes files that no version has named for as long as they are to stay.
    pub(super) async fn vacuum(&self, done: &mut Maintained) -> Result<()> {
        let failed = |e| self.unavailable("the vacuum did not come to its end").caused_by(e);
        let store = self.sink.log.store().object_store(None);
        fault_point::pass("maintain.vacuum").await?;
        let retention = chrono::Duration::from_std(self.vacuum_retention()).unwrap_or(chrono::Duration::MAX);
        let table = DeltaTable::new(self.sink.log.store().clone());
        let (_, found) = table
            .vacuum()
            .with_mode(VacuumMode::Full)
            .with_retention_period(retention)
            .with_enforce_retention_duration(false)
            .with_clock(Arc::new(Now(Arc::clone(&self.clock))))
            .with_dry_run(true)
            .await
            .map_err(failed)?;
        let files = self.own(&store, found.files_deleted).await?;
        let removed: Vec<Path> = store
            .delete_stream(futures::stream::iter(files.into_iter().map(Ok)).boxed())
            .filter(|result| {
                let gone = !matches!(result, Err(object_store::Error::NotFound { .. }));
                futures::future::ready(gone)
            })
            .try_collect()
            .await
            .map_err(|e| failed(e.into()))?;
        done.files_vacuumed = removed.len();
        self.note_vacuum(&store).await
    }

    /// Without the files of tables that lie inside of this one's directory: they are not this one's.
    async fn own(&self, store: &ObjectStoreRef, files: Vec<String>) -> Result<Vec<Path>> {
        let mut known = BTreeMap::new();
        let mut own = Vec::new();
        for path in files.iter().filter_map(|file| Path::parse(file).ok()) {
            if !self.is_in_a_table(store, &path, &mut known).await? {
                own.push(path);
            }
        }
        Ok(own)
    }

    /// Whether one of the directories above a file is a table; `known` keeps which are.
    async fn is_in_a_table(
        &self,
        store: &ObjectStoreRef,
        file: &Path,
        known: &mut BTreeMap<Path, bool>,
    ) -> Result<bool> {
        let mut directory = Path::default();
        let depth = file.parts().count().saturating_sub(1);
        for part in file.parts().take(depth) {
            directory = directory.join(part);
            if !known.contains_key(&directory) {
                let log = store.list(Some(&directory.clone().join("_delta_log"))).next().await.transpose();
                let log = log.map_err(|e| self.unavailable("a directory is not readable").caused_by(e))?;
                known.insert(directory.clone(), log.is_some());
            }
            if known.get(&directory) == Some(&true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn note_vacuum(&self, store: &ObjectStoreRef) -> Result<()> {
        let state = json!({ "vacuumed": self.clock.now().to_rfc3339() }).to_string();
        let put = store.put(&Path::from(STATE), PutPayload::from(state.into_bytes())).await;
        put.map(|_| ()).map_err(|e| self.unavailable("the time of the vacuum could not be noted").caused_by(e))
    }
}

/// Our clock as the library wants it.
#[derive(Debug)]
struct Now(Arc<dyn Clock>);

impl VacuumClock for Now {
    fn current_timestamp_millis(&self) -> i64 {
        self.0.now().timestamp_millis()
    }
}
