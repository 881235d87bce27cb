//! A case and its pipeline: names found, records encoded, rows typed. Nothing has run yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use parquet::errors::ParquetError;
use serde_json::Value;
use tempfile::TempDir;

use super::case::{Case, Step, What};
use super::yaml::{Kind, Node};
use super::{format, message, rows};
use crate::compare::rows_writer;
use crate::engine::{self, OpenTopic};
use crate::error::{Error, Result};
use crate::pipeline::{
    Environment, Facts, Fault, Faults, LookupFormat, LookupSpec, Pipeline, Severity, SinkSpec, SourceSpec, ValueFormat,
    did_you_mean,
};
use crate::source::Log;
use crate::source::memory::{MemoryLog, NewRecord};
use crate::source::recording::RecordingLog;

/// Partitions of a topic at most.
const MOST_PARTITIONS: u32 = 10_000;
/// When a record was sent of which nothing says when.
const LONG_AGO: &str = "2000-01-01T00:00:00Z";

/// A case that can run.
pub(super) struct Bound {
    pub(super) case: Case,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) topics: Topics,
    pub(super) acts: Vec<Act>,
    /// Its tables; goes with it.
    pub(super) dir: TempDir,
}

/// A step, ready.
pub(super) enum Act {
    /// Records by topic and partition, where they stand.
    Push(usize, Vec<(String, i32, NewRecord)>),
    Restart,
    Kill(usize, String),
    Clock(DateTime<Utc>),
    /// Files of lookups, with what is in them from here on.
    Tables(Vec<(PathBuf, Vec<u8>)>),
    Expect(Box<Expectation>),
    Count {
        line: usize,
        table: Table,
        count: u64,
        node: Node,
    },
    Failed {
        line: usize,
        kind: Option<String>,
        text: Option<String>,
    },
}

/// The rows that a table has to have.
pub(super) struct Expectation {
    pub(super) line: usize,
    pub(super) table: Table,
    /// The columns that are compared, with the rows.
    pub(super) rows: RecordBatch,
    /// The table may have more rows.
    pub(super) more_rows: bool,
    pub(super) tolerance: f64,
    /// The list of rows in the file.
    pub(super) node: Node,
}

/// A table that a pipeline writes.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    /// Where it lies and how it is read.
    pub(super) spec: LookupSpec,
    pub(super) schema: SchemaRef,
}

impl Table {
    pub(super) fn of(sink: &SinkSpec) -> Self {
        Self { name: sink.name.clone(), spec: sink.as_lookup(), schema: sink.contract.arrow_schema() }
    }

    /// Whether anything was written to it.
    pub(super) fn is_there(&self) -> bool {
        let location = Path::new(&self.spec.location);
        location.is_file() || location.join("_delta_log").is_dir()
    }
}

/// The topics of a case.
#[derive(Debug, Clone, Default)]
pub(super) struct Topics(pub(super) BTreeMap<String, MemoryLog>);

impl OpenTopic for Topics {
    fn open(&self, source: &SourceSpec, _patience: Option<Duration>) -> Result<Arc<dyn Log>> {
        let missing = || Error::invalid(format!("topic {} is not in the case: report this", source.topic));
        Ok(Arc::new(self.0.get(&source.topic).ok_or_else(missing)?.clone()))
    }
}

impl Bound {
    /// Reads the pipeline of a case and everything that the case says of it.
    ///
    /// # Errors
    /// `Unavailable` when there is no room for its tables. What is wrong with the case, and with the pipeline, is
    /// among `faults`.
    pub(super) async fn new(case: Case, root: &Path, facts: &dyn Facts, faults: &mut Faults) -> Result<Option<Self>> {
        let no_room = |error: std::io::Error| Error::unavailable("a case has no room for its tables").caused_by(error);
        let dir = TempDir::new().map_err(no_room)?;
        let mut binder = Binder { case: &case, root, dir: dir.path(), faults: Faults::default() };
        let bound = match binder.pipeline(facts).map_err(no_room)? {
            Some(pipeline) => {
                let topics = binder.topics(&pipeline).await?;
                let acts = binder.acts(&pipeline);
                Some((pipeline, topics, acts))
            }
            None => None,
        };
        let found = binder.faults;
        let is_fatal = found.is_fatal();
        // What only `check` tells of a pipeline stops no case.
        let errors = found.iter().filter(|fault| fault.severity == Severity::Error);
        errors.cloned().for_each(|fault| faults.push(fault));
        Ok(bound.filter(|_| !is_fatal).map(|(pipeline, topics, acts)| Self {
            case,
            pipeline: Arc::new(pipeline),
            topics,
            acts,
            dir,
        }))
    }
}

struct Binder<'c> {
    case: &'c Case,
    root: &'c Path,
    dir: &'c Path,
    faults: Faults,
}

impl Binder<'_> {
    fn fault(&mut self, node: &Node, message: String, remedy: &str) {
        self.faults.push(Fault::new(&self.case.source, &node.place, message).remedy(remedy));
    }

    /// Of two keys only one may be there.
    fn one_of(&mut self, node: &Node, keys: [&str; 2]) {
        if let [Some(_), Some(second)] = keys.map(|key| node.get(key)) {
            let second = second.clone();
            self.fault(&second, format!("here are `{}` and `{}`", keys[0], keys[1]), "keep one of the two");
        }
    }

    /// A path of the case, which is relative to its file.
    fn path(&self, text: &str) -> PathBuf {
        self.root.join(self.case.file().parent().unwrap_or(Path::new(""))).join(text)
    }

    fn pipeline(&mut self, facts: &dyn Facts) -> std::io::Result<Option<Pipeline>> {
        let file = &self.case.pipeline;
        let text = match fs::read_to_string(self.root.join(file)) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("the pipeline {} cannot be read: {error}", file.display());
                let fault = Fault::new(&self.case.source, &self.case.place, message);
                self.faults.push(fault.remedy("name it: `pipeline: FILE`, relative to this file"));
                return Ok(None);
            }
        };
        let mut environment = Environment {
            root: self.root.to_owned(),
            params: self.case.params.clone(),
            settings: self.case.settings.clone(),
            tables: BTreeMap::new(),
            variables: self.case.variables.clone(),
        };
        for (number, (name, given)) in self.case.tables.iter().enumerate() {
            let name = name.text().unwrap_or_default();
            let path = match given.get("file").and_then(Node::text) {
                Some(file) => {
                    let path = self.path(file);
                    self.one_of(given, ["file", "rows"]);
                    if !path.exists() {
                        let message = format!("there is no file {}", path.display());
                        let node = given.get("file").unwrap_or(given).clone();
                        self.fault(&node, message, "name one relative to the case's file");
                        return Ok(None);
                    }
                    path
                }
                None => {
                    let path = self.dir.join(format!("lookup-{number}.jsonl"));
                    fs::write(&path, json_lines(given_rows(given).iter().map(Node::json)))?;
                    path
                }
            };
            environment.tables.insert(name.to_owned(), path.to_string_lossy().into_owned());
        }
        let mut pipeline = match Pipeline::load(&text, file, &environment, facts) {
            Ok(pipeline) => pipeline,
            Err(faults) => {
                faults.iter().for_each(|fault| self.of_pipeline(fault));
                return Ok(None);
            }
        };
        self.type_lookups(&mut pipeline)?;
        // What waits for the next second finds nothing more.
        pipeline.settings.trigger = Duration::ZERO;
        match pipeline.elsewhere(&self.dir.join("tables")) {
            Ok(pipeline) => Ok(Some(pipeline)),
            Err(error) => {
                let fault = Fault::new(&self.case.source, &self.case.place, error.to_string());
                self.faults.push(fault.remedy("mend the pipeline"));
                Ok(None)
            }
        }
    }

    /// Where the case stands.
    fn place(&self) -> String {
        format!("{}:{}", self.case.file().display(), self.case.line)
    }

    /// A fault of the pipeline; one of what the case gives to it is where the case does so.
    fn of_pipeline(&mut self, fault: &Fault) {
        if fault.line.is_some() {
            // The file speaks of the command line; here the case gives what is missing.
            let remedy = fault.remedy.clone().unwrap_or_default();
            let parameter = remedy.strip_prefix("write --param ").and_then(|rest| rest.split_once('='));
            let variable = fault.message.contains("environment variable");
            return self.faults.push(match parameter {
                Some((name, _)) => fault.clone().remedy(format!("write `params: {{{name}: …}}` in {}", self.place())),
                None if variable => fault.clone().remedy(format!("write it under `env:` in {}", self.place())),
                None => fault.clone(),
            });
        }
        let mut names = self.case.tables.iter().map(|(name, _)| name);
        let named = |name: &&Node| fault.message.contains(&format!("`{}`", name.text().unwrap_or_default()));
        let place = names.find(named).map_or_else(|| self.case.place.clone(), |name| name.place.clone());
        let told = Fault::new(&self.case.source, &place, fault.message.trim_start_matches("--"));
        self.faults.push(told.remedy(fault.remedy.clone().unwrap_or_else(|| "mend the case".into())));
    }

    /// Where a lookup declares its columns, the rows of the case have to be of them; they are kept as Parquet then.
    fn type_lookups(&mut self, pipeline: &mut Pipeline) -> std::io::Result<()> {
        for (name, given) in self.case.tables.iter().filter(|(_, given)| given.get("file").is_none()) {
            if let Some((path, rows)) = self.lookup(pipeline, name, given) {
                fs::write(&path, rows)?;
                let lookup = pipeline.lookups.iter_mut().find(|lookup| Some(lookup.name.as_str()) == name.text());
                if let Some(lookup) = lookup.filter(|lookup| lookup.declared.is_some()) {
                    lookup.format = LookupFormat::Parquet;
                    lookup.options = LookupFormat::Parquet.usual_options();
                    lookup.location = path.to_string_lossy().into_owned();
                }
            }
        }
        Ok(())
    }

    /// The file of a lookup of the case, and these rows as it has them.
    fn lookup(&mut self, pipeline: &Pipeline, name: &Node, given: &Node) -> Option<(PathBuf, Vec<u8>)> {
        let text = name.text().unwrap_or_default();
        let number = self.case.tables.iter().position(|(known, _)| known.text() == name.text());
        let lines = self.dir.join(format!("lookup-{}.jsonl", number.unwrap_or(usize::MAX)));
        if !lines.exists() {
            let message = format!("lookup `{text}` began without rows of the case");
            self.fault(
                name,
                message,
                "say under `tables` of the case which rows it holds at first; a file stays as it is",
            );
            return None;
        }
        let Some(schema) = pipeline.lookup(text).and_then(|lookup| lookup.declared.clone()) else {
            return Some((lines, json_lines(given_rows(given).iter().map(Node::json)).into_bytes()));
        };
        let batch =
            rows::batch(&self.case.source, text, given_rows(given), &schema, Some("name it"), &mut self.faults)?;
        match parquet(&batch) {
            Ok(bytes) => Some((lines.with_extension("parquet"), bytes)),
            Err(error) => {
                self.fault(given, format!("these rows are none of a lookup: {error}"), "write simpler ones");
                None
            }
        }
    }

    /// The source that a case names, by its topic or by its table.
    fn source<'p>(&mut self, pipeline: &'p Pipeline, name: &Node) -> Option<&'p SourceSpec> {
        let text = name.text().unwrap_or_default();
        let found = pipeline.sources.iter().find(|source| source.topic == text || source.name == text);
        if found.is_none() {
            let topics: Vec<&str> = pipeline.sources.iter().map(|source| source.topic.as_str()).collect();
            let known = || format!("it reads {}", topics.join(", "));
            let remedy = did_you_mean(text, topics.iter().copied()).unwrap_or_else(known);
            self.fault(name, format!("pipeline {} reads no topic `{text}`", pipeline.name), &remedy);
        }
        found
    }

    /// The topics, with what stands in them at first.
    async fn topics(&mut self, pipeline: &Pipeline) -> Result<Topics> {
        let mut topics = Topics::default();
        for (name, given) in self.case.topics.clone() {
            let Some(source) = self.source(pipeline, &name) else { continue };
            self.one_of(&given, ["recording", "records"]);
            self.one_of(&given, ["recording", "partitions"]);
            let log = match given.get("recording").and_then(Node::text) {
                Some(dir) => match open(&self.path(dir), &source.topic).await {
                    Ok(log) => log,
                    Err(error) => {
                        self.fault(&given, error.to_string(), "name the directory of a recording of this topic");
                        continue;
                    }
                },
                None => {
                    let records = given.get("records").unwrap_or(&given).items().to_vec();
                    let partitions = given.get("partitions").and_then(Node::text).and_then(|text| text.parse().ok());
                    if partitions.is_some_and(|partitions| !(1..=MOST_PARTITIONS).contains(&partitions)) {
                        let node = given.get("partitions").unwrap_or(&given).clone();
                        self.fault(&node, "a topic of a case has 1 to 10000 partitions".into(), "write such a number");
                        continue;
                    }
                    let log = MemoryLog::new(&source.topic, partitions.unwrap_or(1));
                    let records = records.iter().map(|record| self.record(source, record, self.case.clock));
                    log.append(records.collect::<Vec<_>>());
                    log
                }
            };
            if topics.0.insert(source.topic.clone(), log).is_some() {
                let message = format!("topic {} is named twice, here and by its other name", source.topic);
                self.fault(&name, message, "put all of it under one of them");
            }
        }
        for source in &pipeline.sources {
            topics.0.entry(source.topic.clone()).or_insert_with(|| MemoryLog::new(&source.topic, 1));
        }
        Ok(topics)
    }

    fn record(&mut self, source: &SourceSpec, node: &Node, clock: Option<DateTime<Utc>>) -> (i32, NewRecord) {
        let text = |key: &str| node.get(key).and_then(Node::text);
        let partition = text("partition").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        let most = self.partitions(source);
        if let Some(named) = node.get("partition").filter(|_| partition >= most) {
            let named = named.clone();
            let message = format!("topic {} has partitions 0 to {}", source.topic, most - 1);
            self.fault(&named, message, "name one of them, or say `partitions:` under `topics`");
        }
        let sent = text("timestamp").and_then(format::time).or(clock).or_else(|| format::time(LONG_AGO));
        let headers = node.get("headers").map(Node::entries).unwrap_or_default();
        let header = |(name, value): &(Node, Node)| {
            Some((
                name.text()?.to_owned(),
                value.text().filter(|_| !value.is_null()).map(|text| text.as_bytes().to_vec()),
            ))
        };
        let record = NewRecord {
            timestamp: sent.map_or(-1, |sent| sent.timestamp_millis()),
            key: node.get("key").and_then(|key| self.bytes(key)),
            value: self.value(source, node),
            headers: headers.iter().filter_map(header).collect(),
        };
        (partition as i32, record)
    }

    /// How many partitions a topic may have.
    fn partitions(&self, source: &SourceSpec) -> u32 {
        let is_it = |(name, _): &&(Node, Node)| [&source.topic, &source.name].iter().any(|n| name.text() == Some(n));
        let said = self.case.topics.iter().find(is_it).and_then(|(_, given)| given.get("partitions")?.text());
        said.and_then(|text| text.parse().ok()).unwrap_or(MOST_PARTITIONS).clamp(1, MOST_PARTITIONS)
    }

    /// A text's bytes, or those of `{base64: …}`; `None` for a null.
    fn bytes(&mut self, node: &Node) -> Option<Vec<u8>> {
        match node.get("base64") {
            Some(base64) => Some(self.base64(base64)),
            None if node.is_null() => None,
            None if node.text().is_none() => {
                self.fault(node, "this is no text".into(), "write a text, or `{base64: …}`");
                None
            }
            None => node.text().map(|text| text.as_bytes().to_vec()),
        }
    }

    fn base64(&mut self, node: &Node) -> Vec<u8> {
        let text = node.text().filter(|_| !node.is_null()).unwrap_or("?");
        STANDARD.decode(text).unwrap_or_else(|error| {
            self.fault(node, format!("this is no base64: {error}"), "write the bytes in base64");
            Vec::new()
        })
    }

    fn value(&mut self, source: &SourceSpec, node: &Node) -> Option<Vec<u8>> {
        match (node.get("value"), node.get("base64"), &source.format) {
            (Some(value), Some(_), _) => {
                self.fault(value, "the record has a `value` and `base64`".into(), "keep one of the two");
                None
            }
            (None, Some(base64), _) => Some(self.base64(base64)),
            (None, None, _) => {
                self.fault(
                    node,
                    "the record has no value".into(),
                    "write `value: …` (null for a tombstone) or `base64: …`",
                );
                None
            }
            (Some(value), None, _) if value.is_null() => None,
            (Some(value), None, _) if source.registry.is_some() => {
                let text = format!("records of topic {} begin with the id of a schema", source.topic);
                self.fault(value, text, "write them whole, as `base64: …`, or name a recording");
                None
            }
            (Some(value), None, ValueFormat::Raw) => self.bytes(value),
            (Some(value), None, ValueFormat::Protobuf { message, .. }) => {
                Some(message::encode(&self.case.source, value, message, &mut self.faults))
            }
        }
    }

    fn acts(&mut self, pipeline: &Pipeline) -> Vec<Act> {
        let mut clock = self.case.clock;
        let mut acts = Vec::new();
        for step in &self.case.steps {
            if let What::Clock(time) = step.what {
                clock = Some(time);
            }
            acts.extend(self.act(pipeline, step, clock));
        }
        acts
    }

    fn act(&mut self, pipeline: &Pipeline, step: &Step, clock: Option<DateTime<Utc>>) -> Option<Act> {
        let line = self.case.source.position(step.place.start).0;
        match &step.what {
            What::Push(topics) => {
                let mut pushed = Vec::new();
                for (topic, records) in topics {
                    let Some(source) = self.source(pipeline, topic) else { continue };
                    for record in records.items() {
                        let (partition, record) = self.record(source, record, clock);
                        pushed.push((source.topic.clone(), partition, record));
                    }
                }
                Some(Act::Push(line, pushed))
            }
            What::Restart => Some(Act::Restart),
            What::Kill(point) => Some(Act::Kill(line, point.clone())),
            What::Clock(time) => Some(Act::Clock(*time)),
            What::Tables(tables) => {
                let files = tables.iter().filter_map(|(name, given)| self.lookup(pipeline, name, given));
                Some(Act::Tables(files.collect()))
            }
            What::Expect(name, given) => {
                let table = self.table(pipeline, name)?;
                self.expectation(line, table, given).map(|expected| Act::Expect(Box::new(expected)))
            }
            What::Count(name, count, node) => {
                let table = self.table(pipeline, name)?;
                Some(Act::Count { line, table, count: *count, node: node.clone() })
            }
            What::Failed { kind, text } => Some(Act::Failed { line, kind: kind.clone(), text: text.clone() }),
        }
    }

    fn table(&mut self, pipeline: &Pipeline, name: &Node) -> Option<Table> {
        let text = name.text().unwrap_or_default();
        let Some(sink) = pipeline.sink(text).cloned().or_else(|| engine::side_table(pipeline, text)) else {
            let sinks: Vec<&str> = pipeline.sinks.iter().map(|sink| sink.name.as_str()).collect();
            let known = || format!("it writes {}, each with _dead_letters and _quarantine", sinks.join(", "));
            let sides =
                sinks.iter().flat_map(|sink| ["", "_dead_letters", "_quarantine"].map(|s| format!("{sink}{s}")));
            let all: Vec<String> = sides.collect();
            let remedy = did_you_mean(text, all.iter().map(String::as_str)).unwrap_or_else(known);
            self.fault(name, format!("pipeline {} writes no table `{text}`", pipeline.name), &remedy);
            return None;
        };
        Some(Table::of(&sink))
    }

    fn expectation(&mut self, line: usize, table: Table, given: &Node) -> Option<Expectation> {
        let node = given.get("rows").unwrap_or(given);
        let partial = given.get("partial").and_then(Node::text);
        let any_columns = matches!(partial, Some("columns" | "true"));
        if !matches!(node.kind, Kind::List { .. }) {
            self.fault(given, "no rows are named".into(), "write `rows:` and a list of them; `rows: []` is none");
            return None;
        }
        let named = rows::named(node.items(), &table.schema);
        let some = any_columns && !named.fields().is_empty();
        let whole = (!any_columns).then_some("name it, or write `partial: columns` beside `rows:`");
        let all = rows::batch(&self.case.source, &table.name, node.items(), &table.schema, whole, &mut self.faults)?;
        let columns = named.fields().iter().filter_map(|field| all.schema().index_of(field.name()).ok());
        let rows = if some { all.project(&columns.collect::<Vec<_>>()).ok()? } else { all };
        let tolerance = given.get("tolerance").and_then(Node::text).and_then(|text| text.parse().ok());
        Some(Expectation {
            line,
            table,
            rows,
            more_rows: matches!(partial, Some("rows" | "true")),
            tolerance: tolerance.unwrap_or(0.0),
            node: node.clone(),
        })
    }
}

fn given_rows(given: &Node) -> &[Node] {
    given.get("rows").unwrap_or(given).items()
}

fn json_lines(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| format!("{row}\n")).collect()
}

/// Rows as a Parquet file.
pub(super) fn parquet(rows: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    let mut writer = rows_writer(Vec::new(), rows.schema())?;
    writer.write(rows)?;
    writer.into_inner()
}

async fn open(dir: &Path, topic: &str) -> Result<MemoryLog> {
    if !dir.is_dir() {
        return Err(Error::invalid(format!("{}: there is no such directory", dir.display())));
    }
    let log = RecordingLog::open(dir)?;
    if log.topic() != topic {
        let text = format!("{}: it is a recording of topic {}, not of {topic}", dir.display(), log.topic());
        return Err(Error::invalid(text));
    }
    log.verify()?;
    MemoryLog::copy(&log).await
}
