//! The text of a pipeline file: its statements' places, and lines and columns to bytes and back.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::common::Span as PlanSpan;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// A place in a text, in bytes.
pub type Place = Range<usize>;

/// A file's text with the beginnings of its lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceText {
    file: Arc<PathBuf>,
    text: Arc<str>,
    lines: Arc<Vec<usize>>,
}

impl SourceText {
    /// The text of `file`; the name is for messages only.
    pub fn new(file: &Path, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: Arc::new(file.to_path_buf()), text: text.into(), lines: Arc::new(lines) }
    }

    /// The file's name as it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The part of the text at `place`.
    pub fn slice(&self, place: &Place) -> &str {
        self.text.get(place.clone()).unwrap_or("")
    }

    /// Line and column (in characters) of a byte, both from 1.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let byte = byte.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= byte).max(1);
        let start = self.lines[line - 1];
        (line, self.text.get(start..byte).map_or(1, |t| t.chars().count() + 1))
    }

    /// The byte at a line and column (in characters), both from 1; the nearest one there is.
    pub fn byte(&self, line: usize, column: usize) -> usize {
        let Some(&start) = self.lines.get(line.saturating_sub(1)) else { return self.text.len() };
        let rest = &self.text[start..];
        let width = rest.find('\n').unwrap_or(rest.len());
        let at = rest[..width].char_indices().nth(column.saturating_sub(1)).map_or(width, |(at, _)| at);
        start + at
    }

    /// The place of a parser's span; `None` for the empty span.
    pub fn place(&self, span: Span) -> Option<Place> {
        (span != Span::empty()).then(|| self.between(span.start, span.end))
    }

    /// The place of a planner's span.
    pub fn plan_place(&self, span: PlanSpan) -> Option<Place> {
        let location = |l: datafusion::common::Location| Location { line: l.line, column: l.column };
        (span.start.line > 0).then(|| self.between(location(span.start), location(span.end)))
    }

    fn between(&self, start: Location, end: Location) -> Place {
        let byte = |l: Location| self.byte(l.line as usize, l.column as usize);
        let start = byte(start);
        start..byte(end).max(start)
    }

    /// The places of the statements, without the semicolons. Strings, quoted names and comments may hold semicolons.
    pub fn statements(&self) -> Vec<Place> {
        let mut statements = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while at < self.text.len() {
            let rest = &self.text[at..];
            if rest.starts_with(';') {
                statements.push(start..at);
                start = at + 1;
            }
            at += skip(rest);
        }
        statements.push(start..self.text.len());
        statements.into_iter().filter_map(|place| self.trim(place)).collect()
    }

    /// The place without blanks and comments around it; `None` when nothing is left.
    fn trim(&self, place: Place) -> Option<Place> {
        let mut start = place.start;
        while start < place.end {
            let rest = &self.text[start..place.end];
            let blank = rest.starts_with(char::is_whitespace);
            if !blank && !rest.starts_with("--") && !rest.starts_with("/*") {
                let end = place.start + self.text[place.clone()].trim_end().len();
                return Some(start..end);
            }
            start += skip(rest);
        }
        None
    }
}

/// The length of what stands at the beginning of `rest`: a string, a quoted name, a comment or one character.
fn skip(rest: &str) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    match rest.chars().next() {
        Some('\'') => until(1, "'"),
        Some('"') => until(1, "\""),
        Some('-') if rest.starts_with("--") => until(2, "\n"),
        Some('/') if rest.starts_with("/*") => block_comment(rest),
        Some(c) => c.len_utf8(),
        None => 0,
    }
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str) -> Vec<String> {
        let source = SourceText::new(Path::new("x.sql"), text);
        source.statements().iter().map(|place| source.slice(place).to_string()).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_strings_and_comments() {
        assert_eq!(statements("a; b;;  ;\n c"), ["a", "b", "c"]);
        assert_eq!(statements("a ';' b; \"x;y\""), ["a ';' b", "\"x;y\""]);
        assert_eq!(statements("a 'it''s;' b; c"), ["a 'it''s;' b", "c"]);
        assert_eq!(statements("-- one; two\na; /* x; /* y; */ z; */ b -- end;\n"), ["a", "b -- end;"]);
        assert_eq!(statements("-- nothing;\n/* at all; */"), Vec::<String>::new());
        assert_eq!(statements("a 'open; b"), ["a 'open; b"]);
        assert_eq!(statements("/* open; b"), Vec::<String>::new());
        assert_eq!(statements("é; 'ü;'"), ["é", "'ü;'"]);
    }

    #[test]
    fn positions_count_characters_from_one() {
        let source = SourceText::new(Path::new("x.sql"), "ab\nçd e\n");
        for (byte, position) in [(0, (1, 1)), (2, (1, 3)), (3, (2, 1)), (5, (2, 2)), (7, (2, 4)), (9, (3, 1))] {
            assert_eq!(source.position(byte), position);
            assert_eq!(source.byte(position.0, position.1), byte);
        }
        assert_eq!(source.byte(9, 9), 9);
        assert_eq!(source.position(99), (3, 1));
    }
}
