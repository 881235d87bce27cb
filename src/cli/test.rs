//! `flumen test`: cases of pipelines, without broker or network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;
use similar::TextDiff;

use super::difference::rows_that_differ;
use super::output::{print_json, print_line, print_told};
use super::{Format, Globals, load};
use crate::cases::{self, Failure, Outcome, Rewritten, Selection, Verdict};
use crate::clock::Stopwatch;
use crate::engine::Facts;
use crate::error::{Error, Result};
use crate::pipeline::Faults;
use crate::storage::Storage;

/// `flumen test [PATH…]`.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Case files, or directories in which all *.test.yaml are
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// Only cases whose file or name has this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Rewrite what the cases expect to what is there, and show what changed
    #[arg(long)]
    update: bool,
    /// Write the outcome to a file as JUnit XML too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Rows that are shown of each kind of difference
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    /// Print the JSON Schema of case files, for editors, and end
    #[arg(long)]
    schema: bool,
}

impl Test {
    pub(crate) fn run(self, globals: &Globals) -> Result<()> {
        if self.schema {
            let text = serde_json::to_string_pretty(&cases::json_schema());
            print_line(&text.map_err(|e| Error::unavailable("the schema does not print").caused_by(e))?);
            return Ok(());
        }
        let root = load::root(globals)?;
        if let Some(file) = &self.junit {
            // An old outcome must not stand for this one.
            drop(std::fs::remove_file(root.join(file)));
        }
        let watch = Stopwatch::start();
        let mut faults = Faults::default();
        let files = cases::find(&root, &self.paths)?;
        let read = cases::read(&root, &files, self.filter.as_deref(), &mut faults)?;
        let selection = Selection { filter: self.filter, samples: self.rows, update: self.update };
        let facts = Facts { storage: &Storage::new() };
        let (form, rows) = (globals.output, self.rows);
        let done = |outcome: &Outcome| match form {
            Format::Json => drop(print_json(&as_json(outcome))),
            Format::Text => print_line(&as_text(outcome, rows)),
        };
        let (outcomes, rewritten) = cases::run(&root, read, &selection, &facts, &mut faults, &done)?;
        if faults.is_fatal() {
            return Err(faults.into());
        }
        rewritten.iter().for_each(|file| print_told(&changes(file)));
        let count = |is: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| is(&outcome.verdict)).count();
        let [pass, fail, error] = [
            count(|verdict| matches!(verdict, Verdict::Pass)),
            count(|verdict| matches!(verdict, Verdict::Fail(..))),
            count(|verdict| matches!(verdict, Verdict::Error(..))),
        ];
        let (total, seconds) = (outcomes.len(), watch.elapsed().as_secs_f64());
        match form {
            Format::Json => print_json(&json!({
                "pass": pass, "fail": fail, "error": error, "total": total, "seconds": seconds,
                "rewritten": rewritten.iter().map(|file| file.file.display().to_string()).collect::<Vec<_>>(),
            }))?,
            Format::Text => {
                print_line(&format!("Done in {seconds:.2} s. PASS={pass} FAIL={fail} ERROR={error} TOTAL={total}"));
            }
        }
        if let Some(file) = &self.junit {
            write_junit(&root.join(file), &outcomes)?;
        }
        if fail + error == 0 {
            return Ok(());
        }
        Err(Error::violated(format!("{} of {total} cases are not as they say", fail + error)))
    }
}

fn place(outcome: &Outcome, line: usize) -> String {
    format!("{}:{line}", outcome.file.display())
}

fn as_text(outcome: &Outcome, most: usize) -> String {
    let head =
        |word: &str| format!("{word:<5} {}  {}  {:.0} ms", outcome.file.display(), outcome.name, outcome.seconds * 1e3);
    match &outcome.verdict {
        Verdict::Pass => head("ok"),
        Verdict::Error(line, message) => {
            format!("{}\n  {}: {}", head("ERROR"), place(outcome, *line), indented(message))
        }
        Verdict::Fail(failures) => {
            let failures = failures.iter().map(|failure| told(outcome, failure, most));
            std::iter::once(head("FAIL")).chain(failures).collect::<Vec<_>>().join("\n")
        }
    }
}

/// One thing that is not as a case says.
fn told(outcome: &Outcome, failure: &Failure, most: usize) -> String {
    let mut text = format!("  {}: {}", place(outcome, failure.line), indented(&failure.message));
    let Some(difference) = &failure.difference else { return text };
    let table = rows_that_differ(&difference.samples).unwrap_or_default();
    text.push_str(&format!("\n  {}", indented(&format!("[expected → actual]\n{table}"))));
    let all = difference.rows.only_left.max(difference.rows.only_right);
    let hidden = all.saturating_sub(most as u64);
    if hidden > 0 {
        text.push_str(&format!("\n  {hidden} more of a kind are not shown: --rows {all} shows all"));
    }
    text
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let failure =
        |failure: &Failure| json!({"line": failure.line, "message": failure.message, "difference": failure.difference});
    let (word, failures) = match &outcome.verdict {
        Verdict::Pass => ("pass", Vec::new()),
        Verdict::Fail(failures) => ("fail", failures.iter().map(failure).collect()),
        Verdict::Error(line, message) => ("error", vec![json!({"line": line, "message": message})]),
    };
    json!({
        "file": outcome.file.display().to_string(), "case": outcome.name, "line": outcome.line, "outcome": word,
        "seconds": outcome.seconds, "failures": failures,
    })
}

/// The lines of a file that an update changed.
fn changes(file: &Rewritten) -> String {
    let name = file.file.display().to_string();
    let diff = TextDiff::from_lines(&file.before, &file.after);
    diff.unified_diff().context_radius(1).header(&name, &name).to_string().trim_end().to_owned()
}

/// A text with signs in the place of what XML cannot hold.
fn for_xml(text: &str) -> String {
    let is_lost = |c: char| (c.is_control() && !"\t\n\r".contains(c)) || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if is_lost(c) { '\u{fffd}' } else { c }).collect()
}

fn write_junit(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut report = Report::new("flumen");
    let mut suites: Vec<TestSuite> = Vec::new();
    for outcome in outcomes {
        let file = outcome.file.display().to_string();
        let mut status = match &outcome.verdict {
            Verdict::Pass => TestCaseStatus::success(),
            Verdict::Fail(..) => TestCaseStatus::non_success(NonSuccessKind::Failure),
            Verdict::Error(..) => TestCaseStatus::non_success(NonSuccessKind::Error),
        };
        let first = match &outcome.verdict {
            Verdict::Pass => None,
            Verdict::Fail(failures) => failures.first().map(|failure| (failure.line, &failure.message)),
            Verdict::Error(line, message) => Some((*line, message)),
        };
        if let Some((line, message)) = first {
            status.set_message(for_xml(&format!("{}: {message}", place(outcome, line))));
            status.set_description(for_xml(&as_text(outcome, usize::MAX)));
        }
        let mut case = TestCase::new(for_xml(&outcome.name), status);
        case.set_classname(file.clone()).set_time(Duration::from_secs_f64(outcome.seconds));
        match suites.last_mut().filter(|suite| suite.name.as_str() == file) {
            Some(suite) => _ = suite.add_test_case(case),
            None => {
                let mut suite = TestSuite::new(file);
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    report.add_test_suites(suites);
    let text = report.to_string().map_err(|e| Error::unavailable("the outcome does not print as XML").caused_by(e))?;
    std::fs::write(path, text)
        .map_err(|e| Error::unavailable(format!("--junit {}: it cannot be written", path.display())).caused_by(e))
}
