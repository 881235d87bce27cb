//! A commit of a run, made again: the same ranges, clock and versions of lookups, and the rows compared.

mod ranges;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::Schema;
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Map, Value};

use self::ranges::OnlyRanges;
use crate::clock::FixedClock;
use crate::compare::{Difference, Question, TableRef, compare, rows_writer};
use crate::engine::{self, Deps, OpenTopic, RunOptions};
use crate::error::{Error, Result};
use crate::lookup::Lookup;
use crate::memory::Memory;
use crate::observe::{Observer, Silent};
use crate::offsets::PartitionRange;
use crate::pipeline::{LookupFormat, LookupSpec, Pipeline, QueryKind, SinkSpec, did_you_mean};
use crate::sink::{History, PastCommit};
use crate::storage::Storage;

/// Which commits are made again: `TABLE@VERSION` or `TABLE@FROM..TO`, both ends among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Like {
    /// A table that the pipeline writes.
    pub table: String,
    /// The first version.
    pub from: u64,
    /// The last version.
    pub to: u64,
}

impl FromStr for Like {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` names no commits; write TABLE@VERSION or TABLE@FROM..TO");
        let (table, versions) = text.rsplit_once('@').filter(|(table, _)| !table.is_empty()).ok_or_else(wrong)?;
        let (from, to) = versions.split_once("..").unwrap_or((versions, versions));
        let [from, to] = [from, to].map(|version| version.parse::<u64>().map_err(|_| wrong()));
        let (from, to) = (from?, to?);
        if to < from {
            return Err(format!("`{text}`: {from} is after {to}; write the earlier version first"));
        }
        Ok(Self { table: table.to_owned(), from, to })
    }
}

impl fmt::Display for Like {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            return write!(f, "{}@{}", self.table, self.from);
        }
        write!(f, "{}@{}..{}", self.table, self.from, self.to)
    }
}

/// How a commit came out that was made again.
#[derive(Debug, Clone, Serialize)]
pub struct Again {
    /// Its table.
    pub table: String,
    /// Its version.
    pub version: u64,
    /// Records that were read again.
    pub records: u64,
    /// How the rows differ: the table's on the left, the replay's on the right.
    pub difference: Option<Difference>,
    /// What else differs: counts of records and rows.
    pub counts: Vec<String>,
    /// Why nothing was made again, where that is so.
    pub skipped: Option<String>,
    /// What may be the cause of a difference: the file or a model is another one now.
    pub notes: Vec<String>,
}

impl Again {
    /// Whether everything is as it was.
    pub fn is_same(&self) -> bool {
        self.counts.is_empty() && self.difference.as_ref().is_none_or(Difference::is_none)
    }
}

/// What commits are made again from.
#[derive(Debug)]
pub struct Remaking<'a> {
    /// The pipeline, as its file says.
    pub pipeline: &'a Pipeline,
    /// Lookups that `--table` replaces: they are taken as they are.
    pub replaced: &'a [String],
    /// Opens topics: recordings, or the topics themselves.
    pub topics: Arc<dyn OpenTopic>,
    /// Whether these are the topics themselves.
    pub live: bool,
    /// Rows that are shown of each kind of difference.
    pub samples: usize,
    /// The stores.
    pub storage: Storage,
}

/// What a commit says of the micro-batch that it holds.
struct Micro {
    clock: DateTime<Utc>,
    ranges: BTreeMap<String, Vec<PartitionRange>>,
    topic_ids: BTreeMap<String, String>,
    lookups: Vec<(String, String)>,
}

impl Remaking<'_> {
    /// Makes one commit again, into tables under `dir`, which is made.
    ///
    /// # Errors
    /// `Invalid` when the pipeline writes no such table; `Violated` when something is gone that the commit was made
    /// from: log entries, files, records, versions of lookups, each by name.
    pub async fn again(&self, table: &str, version: u64, dir: &Path) -> Result<Again> {
        let sink = self.sink(table)?;
        let history = History::open(&sink.location, &self.storage)?;
        let commit = history.commit(version).await?;
        let mut again = Again {
            table: table.to_owned(),
            version,
            records: 0,
            difference: None,
            counts: Vec::new(),
            skipped: self.skipped(table, &commit),
            notes: Vec::new(),
        };
        if again.skipped.is_some() {
            return Ok(again);
        }
        let micro = Micro::of(&commit)?;
        std::fs::create_dir_all(dir)
            .map_err(|error: std::io::Error| Error::unavailable("there is no room for tables").caused_by(error))?;
        let pipeline = self.pinned(table, &micro, dir).await?;
        let clock = micro.clock;
        let topics = OnlyRanges::new(Arc::clone(&self.topics), micro.ranges, micro.topic_ids);
        let deps = Deps {
            storage: self.storage.clone(),
            clock: Arc::new(FixedClock(clock)),
            observer: Arc::new(Silent) as Arc<dyn Observer>,
            memory: Memory::new(pipeline.settings.memory_limit)?,
            topics: Arc::new(topics),
            patience: pipeline.settings.broker_timeout.into(),
            cuts: None,
        };
        let (_stopper, stop) = engine::stopper();
        let options = RunOptions { available_now: true, query: Some(table.to_owned()), closes: false };
        let pipeline = Arc::new(pipeline);
        let run = engine::run(Arc::clone(&pipeline), options, deps, stop).await;
        run.map_err(|error| error.within(format!("{table}@{version}")))?;
        self.compare(&history, &commit, sink, dir, &mut again).await?;
        Ok(again)
    }

    fn sink(&self, table: &str) -> Result<&SinkSpec> {
        let queries = self.pipeline.queries.iter().filter(|query| query.kind == QueryKind::Streaming);
        let names: Vec<&str> = queries.map(|query| query.name.as_str()).collect();
        self.pipeline.sink(table).filter(|sink| names.contains(&sink.name.as_str())).ok_or_else(|| {
            let known = || format!("it writes {}", names.join(", "));
            Error::invalid(format!(
                "--like {table}@…: no streaming query of pipeline {} writes it; {}",
                self.pipeline.name,
                did_you_mean(table, names.iter().copied()).unwrap_or_else(known)
            ))
        })
    }

    /// Why a commit is no micro-batch of the query, if it is none.
    fn skipped(&self, table: &str, commit: &PastCommit) -> Option<String> {
        let text = |key: &str| commit.info.get(key).and_then(Value::as_str);
        let sources = commit.info.get("sources").and_then(Value::as_array);
        match (text("query"), sources) {
            (Some(query), Some(sources)) if query == table && text("pipeline") == Some(&self.pipeline.name) => {
                let any = sources.iter().any(|source| source["from"].as_i64() < source["to"].as_i64());
                let added = commit.info.get("rows").and_then(|rows| rows["written"].as_u64()).unwrap_or(0) > 0;
                let why = if added { "a retry of dead letters wrote it" } else { "it read no records" };
                (!any).then(|| why.to_owned())
            }
            (Some(query), Some(_)) => {
                Some(format!("query {query} of pipeline {} wrote it", text("pipeline").unwrap_or_default()))
            }
            _ => Some("no query wrote it: upkeep, or another program".to_owned()),
        }
    }

    /// The pipeline that writes under `dir`, and reads the lookups that the commit was made with.
    async fn pinned(&self, table: &str, micro: &Micro, dir: &Path) -> Result<Pipeline> {
        let mut lookups = self.pipeline.lookups.clone();
        for (name, version) in &micro.lookups {
            let Some(lookup) = lookups.iter_mut().find(|lookup| lookup.name == *name) else { continue };
            if !self.replaced.contains(name) {
                self.pin(lookup, version).await?;
            }
        }
        let records = micro.ranges.values().flatten().map(|range| (range.to - range.from).max(0) as u64).sum::<u64>();
        let mut pipeline = self.pipeline.clone();
        let registries: Vec<_> = pipeline.sources.iter_mut().map(|source| source.registry.take()).collect();
        if !self.live {
            pipeline.sources.iter_mut().zip(&registries).for_each(|(source, kept)| source.registry.clone_from(kept));
        }
        let mut pipeline = pipeline.elsewhere(dir)?;
        if self.live {
            // Who reads the topic itself may ask its registry, too.
            pipeline.sources.iter_mut().zip(registries).for_each(|(source, kept)| source.registry = kept);
        }
        // Also those that the file writes itself: as they were, where they were.
        pipeline.lookups = lookups;
        pipeline.sources.iter_mut().for_each(|source| source.max_rows = Some(records.max(1)));
        pipeline.sinks.iter_mut().filter(|sink| sink.name == table).for_each(|sink| sink.upkeep.auto = false);
        Ok(pipeline)
    }

    /// Has a lookup read the version that a commit names.
    async fn pin(&self, lookup: &mut LookupSpec, version: &str) -> Result<()> {
        let state = SessionContext::new().state();
        let gone = |why: String| {
            Error::violated(format!(
                "lookup `{}`: version {version}, which the commit was made with, is gone: {why}. Name another commit, \
                 or what the lookup was then: --table {}=PATH",
                lookup.name, lookup.name
            ))
        };
        if lookup.format != LookupFormat::Delta {
            let now = Lookup::version_now(lookup, &self.storage, &state).await?;
            let changed = || gone("its files are others now, and files have no versions".to_owned());
            return if now == version { Ok(()) } else { Err(changed()) };
        }
        let Ok(number) = version.parse::<u64>() else {
            return Err(gone("the lookup was a file then, and is a Delta table now".to_owned()));
        };
        let pinned = LookupSpec { version: Some(number), ..lookup.clone() };
        let is_there = async {
            let (_, mut rows) = Lookup::rows(&pinned, pinned.version, &self.storage, &state).await?;
            while rows.next().await.transpose()?.is_some() {}
            Ok::<_, Error>(())
        };
        is_there.await.map_err(|e| gone("log clean-up or a vacuum has taken it".to_owned()).caused_by(e))?;
        *lookup = pinned;
        Ok(())
    }

    /// Compares the rows that the commit added, and what it counted, with those of the replay.
    async fn compare(
        &self,
        history: &History,
        commit: &PastCommit,
        sink: &SinkSpec,
        dir: &Path,
        again: &mut Again,
    ) -> Result<()> {
        let location = dir.join(&sink.name).to_string_lossy().into_owned();
        let remade = last_info(&location, &self.storage).await?;
        let of = |info: &Map<String, Value>, object: &str| info.get(object).cloned().unwrap_or_default();
        for object in ["records", "rows"] {
            let (then, now) = (of(&commit.info, object), of(&remade, object));
            for (name, count) in then.as_object().into_iter().flatten() {
                let now = now.get(name).unwrap_or(&Value::Null);
                if count != now {
                    again.counts.push(format!("{object} {name}: {count} then, {now} now"));
                }
            }
        }
        if of(&commit.info, "pipeline_sha256") != of(&remade, "pipeline_sha256") {
            again.notes.push("the pipeline's file is not the one that made the commit".to_owned());
        }
        if of(&commit.info, "models") != of(&remade, "models") {
            again.notes.push("a model's file is not the one that made the commit".to_owned());
        }
        again.records = of(&remade, "records").get("read").and_then(Value::as_u64).unwrap_or(0);
        let then = dir.join("then.parquet");
        let failed = |e: parquet::errors::ParquetError| Error::unavailable("rows could not be kept").caused_by(e);
        let file = File::create(&then).map_err(|e| Error::unavailable("there is no room for rows").caused_by(e))?;
        // What is NOT NULL now may have been missing then.
        let fields = sink.contract.arrow_schema();
        let fields = fields.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut writer = rows_writer(file, Arc::clone(&schema)).map_err(failed)?;
        history.rows(commit, &schema, |batch| writer.write(&batch).map_err(failed)).await?;
        writer.close().map_err(failed)?;
        let [then, now] = [("then", then.to_string_lossy().into_owned()), ("now", location)]
            .map(|(name, path)| TableRef::new(&format!("{} {name}", sink.name), |_| path.clone()));
        let question = Question {
            samples: self.samples,
            columns: Some(schema.fields().iter().map(|field| field.name().clone()).collect()),
            ..Question::default()
        };
        let memory = Memory::new(self.pipeline.settings.memory_limit)?;
        again.difference = Some(compare(&then?, &now?, &question, &memory).await?);
        Ok(())
    }
}

/// What the commits of the table of a replay say, with the sums of what they count.
async fn last_info(location: &str, storage: &Storage) -> Result<Map<String, Value>> {
    let history = History::open(location, storage)?;
    let mut sums = Map::new();
    // A replay may cut what was one micro-batch: its counts are theirs together.
    for version in 0..=history.newest().await? {
        let mut info = history.commit(version).await?.info;
        for object in ["records", "rows"] {
            let before = sums.get(object).and_then(Value::as_object);
            let Some(counts) = info.get_mut(object).and_then(Value::as_object_mut) else { continue };
            for (name, count) in counts {
                let more = before.and_then(|before| before.get(name)?.as_u64()).unwrap_or(0);
                *count = Value::from(count.as_u64().unwrap_or(0) + more);
            }
        }
        sums.extend(info);
    }
    Ok(sums)
}

impl Micro {
    fn of(commit: &PastCommit) -> Result<Self> {
        let damaged = || {
            Error::invalid(format!("version {} does not say what it was made from; name another one", commit.version))
        };
        let list = |key: &str| commit.info.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let clock = commit.info.get("clock").and_then(Value::as_str).and_then(|text| text.parse().ok());
        let mut ranges: BTreeMap<String, Vec<PartitionRange>> = BTreeMap::new();
        let mut topic_ids = BTreeMap::new();
        for source in list("sources") {
            let number = |key: &str| source.get(key).and_then(Value::as_i64);
            let topic = text(&source, "topic").ok_or_else(damaged)?;
            let partition = number("partition").and_then(|partition| i32::try_from(partition).ok());
            let (Some(partition), Some(from), Some(to)) = (partition, number("from"), number("to")) else {
                return Err(damaged());
            };
            topic_ids.insert(topic.clone(), text(&source, "topic_id").unwrap_or_default());
            ranges.entry(topic).or_default().push(PartitionRange { partition, from, to });
        }
        let lookups = list("lookups").into_iter().filter_map(|lookup| {
            let version = lookup.get("version")?;
            let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
            Some((text(&lookup, "table")?, version))
        });
        Ok(Self { clock: clock.ok_or_else(damaged)?, ranges, topic_ids, lookups: lookups.collect() })
    }
}
