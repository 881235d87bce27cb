//! Faults of a pipeline file: each with its place, the source line with a caret and a remedy; all of them at once.

use std::fmt;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::secret::{Secret, redact};
use super::text::{Place, SourceText};
use crate::error::Error;

/// Whether a fault stops the file from being run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be run.
    Error,
    /// The file can be run; somebody should know this.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Whether it stops the file from being run.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// The file: the pipeline's, or the `.proto` file that it names.
    pub file: PathBuf,
    /// The line, from 1; absent when the fault is in the arguments, not in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The text that the place is in, and the place; at most to the end of the line.
    #[serde(skip)]
    source: Option<(SourceText, Place)>,
}

impl Fault {
    /// An error at a place of `source`.
    pub fn new(source: &SourceText, place: &Place, message: impl Into<String>) -> Self {
        let (line, column) = source.position(place.start);
        let text = source.text();
        let width = text.get(place.start..).map_or(0, |rest| rest.find('\n').unwrap_or(rest.len()));
        let end = place.end.min(place.start + width).min(text.len());
        Self {
            severity: Severity::Error,
            message: message.into(),
            file: source.file().to_path_buf(),
            line: Some(line),
            column: Some(column),
            remedy: None,
            source: Some((source.clone(), place.start.min(end)..end)),
        }
    }

    /// An error of the arguments, such as a `--param` that nobody asked for.
    pub fn in_arguments(file: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            file: file.to_path_buf(),
            line: None,
            column: None,
            remedy: None,
            source: None,
        }
    }

    /// The same fault with what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same fault as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The fault for people: message, `file:line:column`, the source line with a caret, the remedy.
    pub fn render(&self, styled: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&self.message);
        let path = self.file.display().to_string();
        let mut group = match &self.source {
            Some((source, place)) => {
                let mark = AnnotationKind::Primary.span(place.clone());
                title.element(Snippet::source(source.text()).path(path).annotation(mark))
            }
            None => Group::with_title(title),
        };
        if let Some(remedy) = &self.remedy {
            group = group.element(Level::HELP.message(remedy));
        }
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// All faults of a file, in the order of their places.
#[derive(Debug, Clone, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault, once.
    pub fn push(&mut self, fault: Fault) {
        let known = |f: &Fault| f.message == fault.message && f.line == fault.line && f.column == fault.column;
        if !self.0.iter().any(known) {
            self.0.push(fault);
        }
    }

    /// The faults in their order: those of the arguments, then by file, line and column.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// Whether one of them stops the file from being run.
    pub fn is_fatal(&self) -> bool {
        self.0.iter().any(|f| f.severity == Severity::Error)
    }

    /// How many there are: errors and warnings.
    pub fn count(&self) -> (usize, usize) {
        let errors = self.0.iter().filter(|f| f.severity == Severity::Error).count();
        (errors, self.0.len() - errors)
    }

    /// The faults for people, a blank line between two.
    pub fn render(&self, styled: bool) -> String {
        self.0.iter().map(|f| f.render(styled)).collect::<Vec<_>>().join("\n\n")
    }

    /// Takes the values of `${…}` out of all messages.
    pub(super) fn redact(&mut self, secrets: &[Secret]) {
        for fault in &mut self.0 {
            fault.message = redact(&fault.message, secrets);
            fault.remedy = fault.remedy.take().map(|remedy| redact(&remedy, secrets));
        }
    }

    /// Puts the faults in order: the first thing to mend comes first.
    pub(super) fn sort(&mut self) {
        self.0.sort_by_key(|f| (f.line.is_some(), f.file.clone(), f.line, f.column));
    }

    /// The warnings alone.
    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Error::invalid(faults.render(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_line_caret_and_remedy() {
        let source = SourceText::new(Path::new("q.sql"), "SELECT 1;\nSELECT 'é', adid FROM t");
        let fault = Fault::new(&source, &(23..27), "no column `adid`").remedy("did you mean `ad_id`?");
        assert_eq!((fault.line, fault.column), (Some(2), Some(13)));
        let expected = [
            "error: no column `adid`",
            " --> q.sql:2:13",
            "  |",
            "2 | SELECT 'é', adid FROM t",
            "  |             ^^^^",
            "  |",
            "  = help: did you mean `ad_id`?",
        ]
        .join("\n");
        assert_eq!(fault.render(false), expected);
        let json = serde_json::to_string(&fault).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"severity":"error","message":"no column `adid`","file":"q.sql","#,
                r#""line":2,"column":13,"remedy":"did you mean `ad_id`?"}"#
            )
        );
    }

    #[test]
    fn faults_come_once_and_in_order() {
        let source = SourceText::new(Path::new("q.sql"), "a\nb\n");
        let mut faults = Faults::default();
        faults.push(Fault::new(&source, &(2..3), "second"));
        faults.push(Fault::new(&source, &(0..1), "first").warning());
        faults.push(Fault::new(&source, &(2..3), "second"));
        faults.sort();
        let messages: Vec<_> = faults.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(messages, ["first", "second"]);
        assert_eq!(faults.count(), (1, 1));
        assert_eq!(Error::from(faults).kind(), crate::error::ErrorKind::Invalid);
    }

    #[test]
    fn a_place_over_two_lines_is_marked_on_the_first() {
        let source = SourceText::new(Path::new("q.sql"), "SELECT\n  1");
        let rendered = Fault::new(&source, &(0..10), "x").render(false);
        assert!(rendered.contains("| ^^^^^^\n") || rendered.ends_with("| ^^^^^^"), "{rendered}");
    }
}
