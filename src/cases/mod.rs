//! Cases of pipelines: files `*.test.yaml`, in which records go in and rows come out, without broker or network.
//!
//! A file is read to a tree with places (`yaml`), held to its form (`format`), read (`case`), and bound to its pipeline
//! (`bind`): whatever is wrong with any of them is told before anything runs. Then each case runs (`run`).

mod bind;
mod case;
mod format;
mod message;
mod rows;
mod run;
mod update;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use self::case::Case;
pub use self::format::json_schema;
pub use self::run::{Failure, Verdict};

use self::bind::Bound;
use self::update::Found;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::pipeline::{Facts, Faults, SourceText};

/// How the names of case files end.
pub const ENDING: &str = ".test.yaml";
/// Only the pages of a stack that are used are real.
const STACK: usize = 256 << 20;
/// How deep directories are looked through.
const DEEPEST: usize = 32;

/// What is run, and how.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only cases whose `file: name` has this text.
    pub filter: Option<String>,
    /// Rows that are kept of each kind of difference.
    pub samples: usize,
    /// What cases expect is rewritten to what is there.
    pub update: bool,
}

/// How a case went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The file, as it was found.
    pub file: PathBuf,
    /// The case's name.
    pub name: String,
    /// The line at which it begins.
    pub line: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// How it ended.
    pub verdict: Verdict,
}

/// A file that was rewritten.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The file, as it was found.
    pub file: PathBuf,
    /// Its text before.
    pub before: String,
    /// Its text now.
    pub after: String,
}

/// The case files at `paths` (relative to `root`), directories looked through; each once, in order.
///
/// # Errors
/// `Invalid` when a path is not there, or there is no case file at all.
pub fn find(root: &Path, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let found = |error| Error::invalid(format!("{}: {error}; name a case file or a directory", path.display()));
        let kind = fs::metadata(root.join(path)).map_err(found)?;
        if kind.is_file() && !path.to_string_lossy().ends_with(ENDING) {
            return Err(Error::invalid(format!("{}: a case file is called *{ENDING}; name one", path.display())));
        } else if kind.is_file() {
            files.push(path.clone());
        } else {
            look_through(root, path, 0, &mut files).map_err(found)?;
        }
    }
    files.sort();
    // A file may be named in several ways.
    let mut known = BTreeSet::new();
    files.retain(|file| known.insert(fs::canonicalize(root.join(file)).unwrap_or_else(|_| file.clone())));
    if files.is_empty() {
        let places: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::invalid(format!("no file *{ENDING} in {}: write one beside a pipeline", places.join(", "))));
    }
    Ok(files)
}

fn look_through(root: &Path, dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if dir == Path::new(".") { PathBuf::from(&name) } else { dir.join(&name) };
        let kind = entry.file_type()?;
        // Links are not followed: they might go round in a circle.
        if kind.is_dir() && !name.starts_with('.') && depth < DEEPEST {
            look_through(root, &path, depth + 1, files)?;
        } else if kind.is_file() && name.ends_with(ENDING) {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads case files (relative to `root`), those that have the text `filter` in their name or anywhere; what is wrong
/// with them is among `faults`.
///
/// # Errors
/// `Invalid` when a file cannot be read.
pub fn read(root: &Path, files: &[PathBuf], filter: Option<&str>, faults: &mut Faults) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for file in files {
        let text = fs::read_to_string(root.join(file))
            .map_err(|error| Error::invalid(format!("{}: {error}; name a case file", file.display())))?;
        // Others need not be without fault.
        if filter.is_some_and(|filter| !text.contains(filter) && !file.to_string_lossy().contains(filter)) {
            continue;
        }
        let dir = file.parent().unwrap_or(Path::new(""));
        cases.extend(case::read(&SourceText::new(file, &text), dir, faults));
    }
    Ok(cases)
}

/// Binds cases to their pipelines and runs them, as many at a time as there are cores; `done` hears of each in the
/// order of the files, those that are killed last. With faults nothing runs.
///
/// # Errors
/// `Invalid` when no case is left, or an update cannot be written.
pub fn run(
    root: &Path,
    cases: Vec<Case>,
    selection: &Selection,
    facts: &(dyn Facts + Sync),
    faults: &mut Faults,
    done: &(dyn Fn(&Outcome) + Sync),
) -> Result<(Vec<Outcome>, Vec<Rewritten>)> {
    let wanted = |case: &Case| {
        let named = format!("{}: {}", case.file().display(), case.name);
        selection.filter.as_ref().is_none_or(|filter| named.contains(filter))
    };
    let cases: Vec<Case> = cases.into_iter().filter(wanted).collect();
    let all = each(cores(), cases, &|_, case| {
        let mut faults = Faults::default();
        (run::wait_for(Bound::new(case, root, facts, &mut faults)), faults)
    });
    let mut bound: Vec<Bound> = Vec::new();
    for (one, found) in all {
        found.iter().cloned().for_each(|fault| faults.push(fault));
        bound.extend(one?);
    }
    if faults.is_fatal() {
        return Ok((Vec::new(), Vec::new()));
    }
    if bound.is_empty() {
        let filter = selection.filter.as_deref().unwrap_or_default();
        return Err(Error::invalid(format!("no case has `{filter}` in its file's or its own name: filter by less")));
    }
    run_bound(root, bound, selection, done)
}

fn run_bound(
    root: &Path,
    bound: Vec<Bound>,
    selection: &Selection,
    done: &(dyn Fn(&Outcome) + Sync),
) -> Result<(Vec<Outcome>, Vec<Rewritten>)> {
    let all: Mutex<BTreeMap<PathBuf, (SourceText, Vec<Found>)>> = Mutex::default();
    let waiting: Mutex<(usize, BTreeMap<usize, Outcome>)> = Mutex::default();
    let run = |at: usize, bound: Bound| -> Result<Outcome> {
        let watch = Stopwatch::start();
        let (verdict, found) = run::run(&bound, selection.samples, selection.update);
        if selection.update {
            let source = &bound.case.source;
            let mut all = all.lock();
            all.entry(source.file().to_owned()).or_insert_with(|| (source.clone(), Vec::new())).1.extend(found);
        }
        let (file, name, line) = (bound.case.file().to_owned(), bound.case.name.clone(), bound.case.line);
        let outcome = Outcome { file, name, line, seconds: watch.elapsed().as_secs_f64(), verdict };
        // Told in the order of the files, whoever ends first.
        let mut waiting = waiting.lock();
        let (next, ended) = &mut *waiting;
        ended.insert(at, outcome.clone());
        while let Some(outcome) = ended.remove(next) {
            done(&outcome);
            *next += 1;
        }
        Ok(outcome)
    };
    // A snare is the process's: whoever lays one is alone.
    let (alone, together): (Vec<Bound>, Vec<Bound>) = bound.into_iter().partition(run::is_killed);
    let first = together.len();
    let mut outcomes = each(cores(), together, &run);
    outcomes.extend(each(1, alone, &|at, bound| run(first + at, bound)));
    let mut outcomes = outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?;
    outcomes.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let mut rewritten = Vec::new();
    for (file, (source, found)) in all.into_inner() {
        let (before, after) = (source.text().to_owned(), update::rewritten(&source, &found)?);
        if before != after {
            write(&root.join(&file), &after)?;
            rewritten.push(Rewritten { file, before, after });
        }
    }
    Ok((outcomes, rewritten))
}

/// Writes a file anew, in one step.
fn write(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("yaml.aside");
    let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, path));
    written.map_err(|error| Error::unavailable(format!("{} cannot be written", path.display())).caused_by(error))
}

/// As many threads as there are cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `work` on each item and its number, on so many threads; the results in the order of the items.
fn each<T: Send, R: Send>(threads: usize, items: Vec<T>, work: &(dyn Fn(usize, T) -> R + Sync)) -> Vec<R> {
    let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let some = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at).and_then(|item| item.lock().take()) else { break };
                *results[at].lock() = Some(work(at, item));
            }
        };
        let started = (0..threads).filter(|_| {
            // SQL nests as deep as people write it.
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, some).is_ok()
        });
        if started.count() == 0 {
            some();
        }
    });
    results.into_iter().filter_map(Mutex::into_inner).collect()
}
