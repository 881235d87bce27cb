//! One commit: a log entry that is written as the next version if nobody else has written it. Its cost does not depend
//! on the table's size: the last entry is looked at, the new one is put.
//!
//! The rules of fencing: a version is written only after every `txn` before it was read. When it is taken, the new
//! versions are read: one with a `txn` of this query and another attempt ends this instance; others are stepped over.
//! An unclear put is repeated with the same bytes at the same version until the log answers.

use std::collections::BTreeMap;
use std::time::Duration;

use deltalake::kernel::transaction::TransactionError;
use deltalake::kernel::{Action, Add, Remove};
use deltalake::logstore::{CommitOrBytes, LogStore as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock::Stopwatch;
use crate::error::{Alarm, Error, ErrorKind, Redefined, Result};
use crate::fault_point;
use crate::sink::definition::Definition;
use crate::sink::entry::{Digest, Entry};
use crate::sink::log::Anchor;
use crate::sink::{DeltaSink, TableState};
use crate::storage::{self, Absence};

/// Foreign versions that one commit steps over at most.
pub(super) const MAX_REBASES: u32 = 1_000;

/// How long a put is repeated whatever happens: its files may have been vacuumed a day after they were written, and
/// they were half a day old at most.
const LONGEST_PUT: Duration = Duration::from_secs(6 * 60 * 60);

/// The longest pause between two puts, where no store is waited for.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What is to be committed.
#[derive(Debug, Clone)]
pub struct SinkCommit {
    /// The files, from [`SinkWriter::close`](crate::sink::SinkWriter::close).
    pub adds: Vec<Add>,
    /// App ids and their new numbers ([`Owner`](crate::sink::Owner) makes the ids).
    pub txns: Vec<(String, i64)>,
    /// The attempt's identity, from [`Clock::new_id`](crate::clock::Clock::new_id); never used for other content.
    pub attempt: Uuid,
    /// The object `flumen` of the `commitInfo`; the attempt is put into it.
    pub info: Map<String, Value>,
}

/// A commit that is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The table's version that it made.
    pub version: u64,
}

/// How often an unclear put is repeated, and how long the pauses are.
#[derive(Debug, Clone, Copy)]
pub struct CommitRetries {
    /// Puts after the first.
    pub limit: u32,
    /// The first pause; each is twice the one before, 5 seconds at most.
    pub pause: Duration,
}

impl Default for CommitRetries {
    fn default() -> Self {
        Self { limit: 6, pause: Duration::from_millis(200) }
    }
}

/// A log entry, made once for an attempt.
#[derive(Clone)]
pub(super) struct LogEntry {
    bytes: CommitOrBytes,
    digest: Digest,
    attempt: Uuid,
    writer: Writer,
}

/// Who writes a log entry: that says which others are in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// The query's stream, or its batch job: there is one at a time.
    Stream,
    /// A retry of dead letters: it runs beside the stream, and only another retry is in its way.
    Retry,
    /// A close of books: what it commits was decided before, and it looks at the others by itself.
    Close,
    /// Upkeep of the table: nobody is in its way.
    Upkeep,
}

/// What a log entry is made of beside its `add` and `txn` actions.
pub(super) struct Nature<'a> {
    pub(super) operation: &'a str,
    pub(super) parameters: Value,
    pub(super) definition: Option<&'a Definition>,
    pub(super) with_protocol: bool,
    pub(super) is_append: bool,
    pub(super) removes: Vec<Remove>,
    pub(super) writer: Writer,
}

/// The log's answer to a put.
pub(super) enum Put {
    /// The entry is in the log at this version.
    Landed,
    /// Another entry is.
    Taken(Box<Entry>),
}

impl DeltaSink {
    /// Adds files and `txn`s to the table in one version. Foreign appends and removes in between are stepped over.
    ///
    /// After an error the sink has to be [reloaded](DeltaSink::reload) before the next commit: what the log holds is
    /// then read anew.
    ///
    /// # Errors
    /// `Fenced` when another attempt has committed for the same query, or the log was cleaned up or made again.
    /// `Unavailable` when the store does not answer, or another writer changed the table's definition; when that
    /// [passes](storage::is_passing), the commit is certainly not in the log. `Invalid` when the table does not exist
    /// yet or columns wait to be added.
    pub async fn commit(&mut self, commit: SinkCommit) -> Result<Committed> {
        let entry = self.append_entry(&commit)?;
        for _ in 0..MAX_REBASES {
            if let Some(committed) = self.try_commit(&entry, &commit).await? {
                return Ok(committed);
            }
        }
        Err(Error::unavailable(format!(
            "table `{}`: {MAX_REBASES} versions by other writers came in between; run it again when they are quieter",
            self.location()
        )))
    }

    /// [`DeltaSink::commit`] at the next version and no other: `None` when that version is another writer's, which is
    /// then known. The same attempt must not be used again.
    ///
    /// # Errors
    /// As [`DeltaSink::commit`].
    pub async fn commit_next(&mut self, commit: SinkCommit) -> Result<Option<Committed>> {
        let entry = self.append_entry(&commit)?;
        let committed = self.try_commit(&entry, &commit).await;
        self.settled = committed.is_ok();
        committed
    }

    fn append_entry(&self, commit: &SinkCommit) -> Result<LogEntry> {
        self.ready()?;
        let nature = Nature {
            operation: "STREAMING UPDATE",
            parameters: json!({ "outputMode": "Append" }),
            definition: None,
            with_protocol: false,
            is_append: true,
            removes: Vec::new(),
            writer: self.writer_of(commit),
        };
        self.log_entry(commit, nature)
    }

    async fn try_commit(&mut self, entry: &LogEntry, commit: &SinkCommit) -> Result<Option<Committed>> {
        self.settled = false;
        let version = self.next_version()?;
        match self.put(version, entry).await? {
            Put::Landed => Ok(Some(self.landed(version, entry, commit.txns.clone()))),
            Put::Taken(other) => {
                self.refuse_rival(version, &other, entry)?;
                if other.protocol.is_some() || other.metadata.is_some() {
                    self.validate_anew(version, entry).await?;
                } else {
                    self.step_over(version, *other);
                }
                Ok(None)
            }
        }
    }

    /// Another writer has changed the definition in `version`: reads the table anew and holds it against the contract.
    async fn validate_anew(&mut self, version: u64, own: &LogEntry) -> Result<()> {
        let rivals = |sink: &Self| -> BTreeMap<String, i64> {
            let rivals = sink.txns().filter(|(app_id, _)| sink.is_rival(app_id, own));
            rivals.map(|(app_id, number)| (app_id.to_owned(), number)).collect()
        };
        let (known, checks) = (rivals(self), self.checks.clone());
        self.reload().await.map_err(|error| match error.kind() {
            ErrorKind::Invalid => Error::violated(format!(
                "another writer changed the table's definition in version {version}, and it no longer is what the \
                 contract says. {}",
                error.message()
            ))
            .alarming(Alarm::ContractBroken),
            _ => error,
        })?;
        if rivals(self) != known {
            return Err(Error::fenced(format!(
                "table `{}`: another instance of {} has committed since version {version}; this one stops; run one \
                 instance at a time",
                self.location(),
                self.owner
            )));
        }
        self.settled = false;
        if self.checks != checks {
            return Err(Error::unavailable(format!(
                "table `{}`: another writer changed its constraints in version {version}; run it again, and the rows \
                 are held against them too",
                self.location()
            ))
            .caused_by(Redefined));
        }
        Ok(())
    }

    /// The bytes of a commit. Nothing in them depends on the version they land at.
    pub(super) fn log_entry(&self, commit: &SinkCommit, nature: Nature<'_>) -> Result<LogEntry> {
        let mut info = commit.info.clone();
        info.insert("attempt".into(), json!(commit.attempt));
        let mut lines = vec![
            json!({ "commitInfo": {
                "timestamp": self.clock.now().timestamp_millis(),
                "operation": nature.operation,
                "operationParameters": nature.parameters,
                "isBlindAppend": nature.is_append,
                "engineInfo": concat!("flumen/", env!("CARGO_PKG_VERSION")),
                "flumen": info,
            }})
            .to_string(),
        ];
        if let Some(definition) = nature.definition {
            if nature.with_protocol {
                lines.push(json!({ "protocol": definition.protocol }).to_string());
            }
            lines.push(json!({ "metaData": definition.metadata }).to_string());
        }
        for (app_id, version) in &commit.txns {
            lines.push(json!({ "txn": { "appId": app_id, "version": version } }).to_string());
        }
        let removes = nature.removes.into_iter().map(Action::Remove);
        for action in removes.chain(commit.adds.iter().cloned().map(Action::Add)) {
            lines.push(serde_json::to_string(&action).map_err(|e| {
                Error::unavailable(format!("table `{}`: a file action has no JSON form", self.location())).caused_by(e)
            })?);
        }
        let mut text = lines.join("\n");
        text.push('\n');
        let digest = Sha256::digest(text.as_bytes()).into();
        let bytes = CommitOrBytes::LogBytes(text.into_bytes().into());
        Ok(LogEntry { bytes, digest, attempt: commit.attempt, writer: nature.writer })
    }

    /// Puts the entry at `version` until the log says clearly what is there. A failure that
    /// [passes](storage::is_passing) says that it is certainly not there.
    pub(super) async fn put(&self, version: u64, entry: &LogEntry) -> Result<Put> {
        let asked = Stopwatch::start();
        let (mut round, mut unclear, mut is_refused) = (0u32, 0, true);
        let fault = loop {
            let fault = match self.put_once(version, entry).await {
                Ok(Some(put)) => return Ok(put),
                Ok(None) => None,
                Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Err(error) => Some(error),
            };
            is_refused &= fault.as_ref().is_some_and(storage::is_full);
            let absence = fault.as_ref().and_then(|fault| Some((self.absence(fault, entry)?, fault)));
            let pause = match absence {
                Some((absence, fault)) => absence.failed(fault).filter(|_| asked.elapsed() < LONGEST_PUT),
                None if unclear >= self.retries.limit => None,
                None => {
                    tracing::warn!(table = %self.location(), version, round, "commit is unclear, asking the log again");
                    unclear += 1;
                    Some(self.retries.pause.saturating_mul(1 << (unclear - 1).min(16)).min(LAST_PAUSE))
                }
            };
            round = round.saturating_add(1);
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break fault,
            }
        };
        let error = |known: &str| {
            let location = self.location();
            Error::unavailable(format!(
                "table `{location}`: version {version} could not be written in {round} tries{known}; run it again when \
                 the store is back: nothing is lost or doubled"
            ))
        };
        Err(match fault {
            Some(fault) if is_refused => error("").caused_by(fault),
            // In words only: by its causes it would be taken for a failure that passes, and the same rows be put once
            // more under other files while these may still arrive.
            Some(fault) => error(", and whether it was is not known").caused_by(fault.to_string()),
            None => error(", and whether it was is not known"),
        })
    }

    /// How the store is waited for after `fault`, if it passes. Upkeep does not wait: its next round comes.
    fn absence(&self, fault: &Error, entry: &LogEntry) -> Option<&Absence> {
        self.storage.absence().filter(|_| entry.writer != Writer::Upkeep && storage::is_passing(fault))
    }

    /// One put; `None` when the store says "taken" but has no such entry.
    async fn put_once(&self, version: u64, entry: &LogEntry) -> Result<Option<Put>> {
        if let Some(state) = &self.state
            && !self.log.holds(&state.anchor).await?
        {
            return Err(Error::fenced(format!(
                "table `{}`: version {} is no longer what it was, so the log was cleaned up or the table was \
                 made again while this ran; start again to read it anew",
                self.location(),
                state.version
            )));
        }
        fault_point::pass("put.before").await?;
        let answer = self.log.store().write_commit_entry(version, entry.bytes.clone(), entry.attempt).await;
        fault_point::pass("put.after").await?;
        match answer {
            Ok(()) => Ok(Some(Put::Landed)),
            Err(TransactionError::VersionAlreadyExists(_)) => {
                let Some(other) = self.log.entry(version).await? else { return Ok(None) };
                let ours = other.attempt.as_deref() == Some(entry.attempt.to_string().as_str());
                Ok(Some(if ours { Put::Landed } else { Put::Taken(Box::new(other)) }))
            }
            Err(TransactionError::ObjectStore { source }) => {
                Err(storage::failed(&self.spec.location, &format!("version {version} could not be written"), source))
            }
            Err(e) => Err(Error::unavailable(format!("version {version} could not be written")).caused_by(e)),
        }
    }

    /// Another writer's version: an error when it must not be stepped over.
    pub(super) fn refuse_taken(&self, version: u64, other: &Entry, own: &LogEntry) -> Result<()> {
        self.refuse_rival(version, other, own)?;
        if other.protocol.is_some() || other.metadata.is_some() {
            return Err(Error::unavailable(format!(
                "table `{}`: another writer changed its definition in version {version}; run it again, and it is \
                 compared with the contract anew",
                self.location()
            )));
        }
        Ok(())
    }

    /// Who makes a commit, by what it says of positions.
    pub(super) fn writer_of(&self, commit: &SinkCommit) -> Writer {
        let is_retry = commit.txns.iter().any(|(app_id, _)| *app_id == self.owner.retry());
        if is_retry { Writer::Retry } else { Writer::Stream }
    }

    /// Whether a version with that app id is by another instance of the same query.
    fn is_rival(&self, app_id: &str, own: &LogEntry) -> bool {
        match own.writer {
            Writer::Stream => self.owner.is_fenced_by(app_id),
            Writer::Retry => app_id == self.owner.retry(),
            Writer::Close | Writer::Upkeep => false,
        }
    }

    /// A version by another instance of the same query is an error.
    fn refuse_rival(&self, version: u64, other: &Entry, own: &LogEntry) -> Result<()> {
        if let Some((app_id, _)) = other.txns.iter().find(|(app_id, _)| self.is_rival(app_id, own)) {
            return Err(Error::fenced(format!(
                "table `{}`: another instance of {} has committed version {version} (`{app_id}`, attempt {}); this one \
                 stops; run one instance at a time",
                self.location(),
                self.owner,
                other.attempt.as_deref().unwrap_or("unknown")
            )));
        }
        Ok(())
    }

    /// The version after the newest one known.
    pub(super) fn next_version(&self) -> Result<u64> {
        let state = self.state.as_ref().ok_or_else(|| self.missing())?;
        Ok(state.version + 1)
    }

    /// A foreign version was read: it is now the newest one known.
    pub(super) fn step_over(&mut self, version: u64, other: Entry) {
        if let Some(state) = &mut self.state {
            state.version = version;
            state.anchor = Anchor::Entry(version, other.digest);
            state.txns.extend(other.txns);
        }
    }

    /// The own entry is in the log: it is now the newest version known.
    pub(super) fn landed(&mut self, version: u64, entry: &LogEntry, txns: Vec<(String, i64)>) -> Committed {
        if let Some(state) = &mut self.state {
            state.version = version;
            state.anchor = Anchor::Entry(version, entry.digest);
            state.txns.extend(txns);
        }
        self.settled = true;
        Committed { version }
    }

    /// The table's state right after its first version was written.
    pub(super) fn created(&mut self, definition: Definition, entry: &LogEntry, txns: Vec<(String, i64)>) -> Committed {
        let anchor = Anchor::Entry(0, entry.digest);
        self.state =
            Some(TableState { version: 0, definition, txns: txns.into_iter().collect(), anchor, checkpoint: None });
        self.settled = true;
        Committed { version: 0 }
    }
}
