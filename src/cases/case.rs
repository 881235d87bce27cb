//! A case as it is written: what it names, with places, before the pipeline is known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::format::{self, time};
use super::yaml::{self, Node};
use crate::pipeline::{Fault, Faults, SourceText};

/// One case of a file.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file, with its text.
    pub(super) source: SourceText,
    /// What it shows.
    pub name: String,
    /// The line at which it begins, from 1.
    pub line: usize,
    /// Where it is named.
    pub(super) place: std::ops::Range<usize>,
    /// The pipeline's file.
    pub(super) pipeline: PathBuf,
    pub(super) params: BTreeMap<String, String>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) clock: Option<DateTime<Utc>>,
    /// Lookups by name.
    pub(super) tables: Vec<(Node, Node)>,
    /// Topics by name.
    pub(super) topics: Vec<(Node, Node)>,
    pub(super) steps: Vec<Step>,
}

/// A step, where it stands.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) place: std::ops::Range<usize>,
    pub(super) what: What,
}

/// What happens.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Records by topic, then a micro-batch of each query; no records: of what is there.
    Push(Vec<(Node, Node)>),
    /// The run ends and begins anew.
    Restart,
    /// The next push ends at this point.
    Kill(String),
    /// What now() is.
    Clock(DateTime<Utc>),
    /// Lookups that hold other rows.
    Tables(Vec<(Node, Node)>),
    /// The rows of a table.
    Expect(Node, Node),
    /// The number of rows of a table.
    Count(Node, u64, Node),
    /// How the push before it failed: kind and a part of the text.
    Failed { kind: Option<String>, text: Option<String> },
}

impl Case {
    /// The file that it stands in.
    pub fn file(&self) -> &Path {
        self.source.file()
    }
}

/// The cases of a file, whose name `file` is for messages; `dir` is where it lies.
pub(super) fn read(source: &SourceText, dir: &Path, faults: &mut Faults) -> Vec<Case> {
    let tree = match yaml::read(source) {
        Ok(tree) => tree,
        Err(fault) => {
            faults.push(*fault);
            return Vec::new();
        }
    };
    let mut found = Faults::default();
    format::check(source, &tree, &mut found);
    let cases = tree.get("cases").map(Node::items).unwrap_or_default();
    if cases.is_empty() && !found.is_fatal() {
        found.push(Fault::new(source, &(0..0), "the file has no cases").remedy("write `cases:` and a list of cases"));
    }
    let steps = cases.iter().filter_map(|case| case.get("steps")).flat_map(Node::items);
    for step in steps.filter(|step| step.text().is_none() && step.entries().is_empty()) {
        found.push(Fault::new(source, &step.place, "the step is empty").remedy("say what happens, or leave it out"));
    }
    let is_fatal = found.is_fatal();
    found.iter().cloned().for_each(|fault| faults.push(fault));
    if is_fatal {
        return Vec::new();
    }
    cases.iter().map(|case| Case::new(source, dir, &tree, case)).collect()
}

impl Case {
    fn new(source: &SourceText, dir: &Path, file: &Node, case: &Node) -> Self {
        let line = source.position(case.place.start).0;
        // What a case does not say is as the file says.
        let both = |key: &str| case.get(key).or_else(|| file.get(key));
        let text = |key: &str| both(key).and_then(Node::text).map(str::to_owned);
        let texts = |key: &str| {
            let entries = [file.get(key), case.get(key)].into_iter().flatten().flat_map(Node::entries);
            entries.filter_map(|(name, value)| Some((name.text()?.to_owned(), value.text()?.to_owned())))
        };
        let named = |key: &str| {
            let own: Vec<(Node, Node)> = case.get(key).map(|node| node.entries().to_vec()).unwrap_or_default();
            let shared = file.get(key).into_iter().flat_map(Node::entries).cloned();
            let missing = shared.filter(|(name, _)| !own.iter().any(|(other, _)| other.text() == name.text()));
            missing.chain(own.iter().cloned()).collect::<Vec<_>>()
        };
        let pipeline = text("pipeline").map_or_else(|| beside(source.file()), PathBuf::from);
        Self {
            source: source.clone(),
            name: case.get("name").and_then(Node::text).map_or_else(|| format!("line {line}"), str::to_owned),
            line,
            place: case.get("name").map_or_else(|| case.place.clone(), |name| name.place.clone()),
            pipeline: dir.join(pipeline),
            params: texts("params").collect(),
            settings: texts("set").collect(),
            variables: texts("env").collect(),
            clock: text("clock").as_deref().and_then(time),
            tables: named("tables"),
            topics: named("topics"),
            steps: steps(case),
        }
    }
}

/// The pipeline of `x.test.yaml`: `x.sql`.
fn beside(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    PathBuf::from(format!("{}.sql", name.trim_end_matches(super::ENDING)))
}

fn steps(case: &Node) -> Vec<Step> {
    let listed: Vec<Step> = case.get("steps").into_iter().flat_map(Node::items).flat_map(of_step).collect();
    let run = Step { place: case.place.clone(), what: What::Push(Vec::new()) };
    let listed = if case.get("steps").is_none() { vec![run] } else { listed };
    listed.into_iter().chain(outcomes(case)).collect()
}

/// The steps of one item: a word, or a mapping of several that follow each other.
fn of_step(item: &Node) -> Vec<Step> {
    let place = item.place.clone();
    let step = |what| Step { place: place.clone(), what };
    match item.text() {
        Some("restart") => return vec![step(What::Restart)],
        Some(_) => return vec![step(What::Push(Vec::new()))],
        None => {}
    }
    let mut steps = Vec::new();
    steps.extend(item.get("clock").and_then(Node::text).and_then(time).map(|time| step(What::Clock(time))));
    steps.extend(item.get("tables").map(|tables| step(What::Tables(tables.entries().to_vec()))));
    steps.extend(item.get("restart").map(|_| step(What::Restart)));
    steps.extend(item.get("kill").and_then(Node::text).map(|point| step(What::Kill(point.to_owned()))));
    steps.extend(item.get("run").map(|_| step(What::Push(Vec::new()))));
    steps.extend(item.get("push").map(|topics| step(What::Push(topics.entries().to_vec()))));
    steps.extend(outcomes(item));
    steps
}

/// What is looked at: `error`, `expect`, `counts`.
fn outcomes(node: &Node) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(error) = node.get("error") {
        let text = |key: &str| error.get(key).and_then(Node::text).map(str::to_owned);
        let what = What::Failed { kind: text("kind"), text: text("text") };
        steps.push(Step { place: error.place.clone(), what });
    }
    for (table, rows) in node.get("expect").into_iter().flat_map(Node::entries) {
        steps.push(Step { place: table.place.clone(), what: What::Expect(table.clone(), rows.clone()) });
    }
    for (table, count) in node.get("counts").into_iter().flat_map(Node::entries) {
        let number = count.text().and_then(|text| text.parse().ok()).unwrap_or_default();
        steps.push(Step { place: table.place.clone(), what: What::Count(table.clone(), number, count.clone()) });
    }
    steps
}
