//! Small files are made larger ones: the rows stay, the list of files gets shorter.

use std::collections::HashSet;
use std::time::Duration;

use deltalake::kernel::{Add, Remove, Snapshot};
use deltalake::logstore::LogStore as _;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use serde_json::{Value, json};

use super::bins::{Rules, SmallFile, bins};
use super::{Maintained, Maintainer};
use crate::error::{Error, Result};
use crate::fault_point;
use crate::sink::commit::{MAX_REBASES, Nature, Put, Writer};
use crate::sink::{Litter, SinkCommit, SinkWriter, app_id, data_file, rows_of};

/// A partition that got no file for so long is closed.
const CLOSED_AFTER: Duration = Duration::from_secs(60 * 60);
/// Small files that one round looks at, at most: the newest ones.
const MAX_CANDIDATES: usize = 20_000;

/// What became of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// It is in the table.
    Landed,
    /// Others removed one of its files, or were quicker again and again.
    GivenUp,
    /// Others changed what the table is: it has to be read anew.
    AnotherTable,
}

impl Maintainer {
    /// Makes small files larger ones, bin by bin, each with a commit of its own.
    pub(super) async fn compact(&mut self, done: &mut Maintained) -> Result<()> {
        let rules = Rules {
            target_size: self.upkeep.target_file_size,
            max_files: usize::try_from(self.upkeep.spec.max_small_files).unwrap_or(usize::MAX),
            closed_since: self.before(CLOSED_AFTER).timestamp_millis(),
        };
        // What others have removed since the files were listed.
        let mut gone = HashSet::new();
        for bin in bins(self.small_files(rules).await?, rules) {
            let Some(files) = self.rewrite(&bin).await? else { continue };
            let written = files.len();
            match self.replace_files(&bin, files, &mut gone).await? {
                Replaced::Landed => {
                    done.files_compacted += bin.len();
                    done.files_written += written;
                }
                Replaced::GivenUp => done.compactions_given_up += 1,
                Replaced::AnotherTable => {
                    done.compactions_given_up += 1;
                    return self.sink.reload().await;
                }
            }
        }
        Ok(())
    }

    /// The small files of the newest version. Those with deletion vectors, or that do not say how many rows they have,
    /// are left alone.
    pub(super) async fn small_files(&self, rules: Rules) -> Result<Vec<SmallFile>> {
        let failed = |e| self.unavailable("the list of files could not be read").caused_by(e);
        let log = self.sink.log.store();
        let version = self.table()?.version;
        let snapshot = Snapshot::try_new(log, Some(version)).await.map_err(failed)?;
        let mut files = snapshot.file_views(log, None);
        let mut small = Vec::new();
        while let Some(file) = files.try_next().await.map_err(failed)? {
            let size = u64::try_from(file.size()).unwrap_or(0);
            if !rules.is_small(size) || file.deletion_vector_descriptor().is_some() {
                continue;
            }
            let Some(rows) = file.num_records() else { continue };
            let (path, modified) = (file.object_store_path(), file.modification_time());
            small.push(SmallFile { path, size, rows: rows as u64, modified, remove: file.remove_action(false) });
            if small.len() == MAX_CANDIDATES {
                break;
            }
        }
        Ok(small)
    }

    /// Writes the rows of some files of one partition into new ones; `None` when another program wrote one of them.
    pub(super) async fn rewrite(&self, bin: &[SmallFile]) -> Result<Option<Vec<Add>>> {
        let litter = Litter::default();
        let rewritten = self.rewrite_noting(bin, &litter).await;
        if !matches!(rewritten, Ok(Some(_))) {
            litter.remove().await;
        }
        rewritten
    }

    async fn rewrite_noting(&self, bin: &[SmallFile], litter: &Litter) -> Result<Option<Vec<Add>>> {
        let mut writer = self.sink.writer(&self.memory).noting(litter);
        let copied = self.copy(bin, &mut writer).await;
        if !matches!(copied, Ok(true)) {
            writer.abort().await;
            return copied.map(|_| None);
        }
        let mut files = writer.close().await?;
        let (before, after) = (bin.iter().map(|file| file.rows).sum::<u64>(), rows_of(&files)?);
        if before != after {
            return Err(Error::unavailable(format!(
                "table `{}`: a compaction of {before} rows came to {after}; nothing was committed, report this",
                self.sink.location()
            )));
        }
        files.iter_mut().for_each(|file| file.data_change = false);
        Ok(Some(files))
    }

    /// Copies rows; `false` when a file is by another program: what it means by its types is left to it.
    async fn copy(&self, bin: &[SmallFile], writer: &mut SinkWriter) -> Result<bool> {
        let store = self.sink.log.store().object_store(None);
        for file in bin {
            let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
                self.unavailable(&format!("data file `{}` could not be read", file.path)).caused_by(e)
            };
            let rows = data_file::open(&store, &file.path).await.map_err(failed)?;
            if !rows.is_ours() {
                return Ok(false);
            }
            let values = file.remove.partition_values.clone().unwrap_or_default();
            for batch in rows.read().map_err(failed)? {
                let batch = batch.map_err(|e| failed(e.into()))?;
                let batch = data_file::conform(&batch, self.sink.schema(), &values).map_err(|e| failed(e.into()))?;
                fault_point::pass("maintain.write").await?;
                writer.write(&batch).await?;
            }
        }
        Ok(true)
    }

    /// Commits new files in the place of others. What versions in between remove is added to `gone`, which has all that
    /// was removed since the others were listed.
    pub(super) async fn replace_files(
        &mut self,
        bin: &[SmallFile],
        adds: Vec<Add>,
        gone: &mut HashSet<String>,
    ) -> Result<Replaced> {
        let removes = bin.iter().map(|file| file.remove.clone()).collect();
        let parameters = json!({ "targetSize": self.upkeep.target_file_size.to_string() });
        let commit = SinkCommit { adds, txns: Vec::new(), attempt: self.clock.new_id(), info: self.sink.owner.info() };
        fault_point::pass("maintain.before").await?;
        let replaced = self.put_upkeep(&commit, "OPTIMIZE", parameters, removes, gone).await?;
        match replaced {
            Replaced::Landed => fault_point::pass("maintain.after").await?,
            Replaced::GivenUp | Replaced::AnotherTable => self.discard(&commit.adds).await,
        }
        Ok(replaced)
    }

    /// Puts a commit of upkeep at the next version. Those in between are stepped over; what they remove is added to
    /// `gone`, and the commit is given up when one of its own `removes` is there.
    pub(super) async fn put_upkeep(
        &mut self,
        commit: &SinkCommit,
        operation: &str,
        parameters: Value,
        removes: Vec<Remove>,
        gone: &mut HashSet<String>,
    ) -> Result<Replaced> {
        let replaced: Vec<String> = removes.iter().map(|remove| remove.path.clone()).collect();
        let nature = Nature {
            operation,
            parameters,
            definition: None,
            with_protocol: false,
            is_append: false,
            removes,
            writer: Writer::Upkeep,
        };
        let entry = self.sink.log_entry(commit, nature)?;
        for _ in 0..MAX_REBASES {
            if replaced.iter().any(|path| gone.contains(path)) {
                break;
            }
            let version = self.sink.next_version()?;
            match self.sink.put(version, &entry).await? {
                Put::Landed => {
                    self.sink.landed(version, &entry, commit.txns.clone());
                    self.note_version(version, false);
                    return Ok(Replaced::Landed);
                }
                Put::Taken(other) if other.protocol.is_some() || other.metadata.is_some() => {
                    return Ok(Replaced::AnotherTable);
                }
                Put::Taken(other) => {
                    gone.extend(other.removes.iter().cloned());
                    self.note_version(version, other.txns.iter().any(|(id, _)| app_id::debtor(id).is_some()));
                    self.sink.step_over(version, *other);
                }
            }
        }
        Ok(Replaced::GivenUp)
    }

    /// Removes files that certainly no version names. What stays is for the vacuum.
    async fn discard(&self, files: &[Add]) {
        let store = self.sink.log.store().object_store(None);
        let paths: Vec<_> = files.iter().filter_map(|file| Path::parse(&file.path).ok()).map(Ok).collect();
        let mut results = store.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                tracing::debug!(table = %self.sink.location(), %error, "a file of a given-up compaction stays");
            }
        }
    }
}
