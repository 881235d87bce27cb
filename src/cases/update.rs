//! What a case expects, rewritten to what is there. Comments and the order of rows stay: cells that differ are written
//! anew where they stand, rows that are gone go, and new ones come last.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::bind::{Expectation, Table};
use super::rows;
use super::yaml::{self, Kind, Node, plain};
use crate::error::{Error, Result};
use crate::pipeline::{Faults, SourceText};

/// Rows that a file may get: more are no case for people.
const MOST_ROWS: usize = 1000;

/// A place of a file, written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    place: Range<usize>,
    text: String,
}

/// What a table holds where a case expects something of it.
pub(super) enum Found {
    /// So many rows, where a number stands.
    Count(Node, usize),
    /// Rows, where rows stand.
    Rows(Box<FoundRows>),
}

#[derive(Clone)]
pub(super) struct FoundRows {
    node: Node,
    schema: SchemaRef,
    expected: Vec<Map<String, Value>>,
    actual: Vec<Map<String, Value>>,
    more_rows: bool,
    tolerance: f64,
    table: String,
}

impl Found {
    pub(super) fn new(
        table: &Table,
        node: &Node,
        told: Option<&Expectation>,
        actual: Vec<RecordBatch>,
    ) -> Result<Self> {
        let Some(told) = told else {
            return Ok(Found::Count(node.clone(), actual.iter().map(RecordBatch::num_rows).sum()));
        };
        let schema = told.rows.schema();
        let mut rows = Vec::new();
        for batch in &actual {
            let columns = schema.fields().iter().map(|field| batch.schema().index_of(field.name()));
            let columns = columns.collect::<Result<Vec<usize>, _>>().and_then(|columns| batch.project(&columns));
            rows.extend(objects(&columns.map_err(unreadable)?)?);
        }
        Ok(Found::Rows(Box::new(FoundRows {
            node: node.clone(),
            expected: objects(&told.rows)?,
            actual: rows,
            schema,
            more_rows: told.more_rows,
            tolerance: told.tolerance,
            table: table.name.clone(),
        })))
    }

    /// What has to be written anew.
    fn edits(&self, source: &SourceText) -> Result<Vec<Edit>> {
        match self {
            Found::Count(node, rows) if node.text() == Some(&rows.to_string()) => Ok(Vec::new()),
            Found::Count(node, rows) => Ok(vec![Edit { place: node.place.clone(), text: rows.to_string() }]),
            Found::Rows(rows) => rows.edits(source.text()),
        }
    }
}

impl FoundRows {
    fn edits(&self, text: &str) -> Result<Vec<Edit>> {
        let (pairs, gone, new) = self.matched();
        let left = pairs.len() + new.len();
        if left > MOST_ROWS {
            let message = format!("{} has {left} rows: a case takes {MOST_ROWS}; expect `counts:` instead", self.table);
            return Err(Error::invalid(message));
        }
        let Kind::List { items, block, within } = &self.node.kind else { return Ok(Vec::new()) };
        if left == 0 && !items.is_empty() {
            return Ok(vec![Edit { place: self.node.place.clone(), text: "[]".into() }]);
        }
        if items.is_empty() && !new.is_empty() && !within {
            return Ok(vec![self.first_rows(text, &new)]);
        }
        let mut edits = Vec::new();
        for (one, two) in pairs {
            let Some(item) = items.get(one) else { continue };
            self.edit_row(text, item, &self.expected[one], &self.actual[two], &mut edits);
        }
        if !(*block || gone.is_empty() && new.is_empty()) {
            let rows: Vec<String> = self.actual.iter().map(|row| self.row(row)).collect();
            return Ok(vec![Edit { place: self.node.place.clone(), text: format!("[{}]", rows.join(", ")) }]);
        }
        for item in gone.iter().filter_map(|&at| items.get(at)) {
            let dash = text[..item.place.start].rfind('-').unwrap_or(item.place.start);
            let start = text[..dash].rfind('\n').map_or(0, |at| at + 1);
            let end = line_end(text, item.place.end);
            let breaks = text[end..].chars().take_while(|c| "\r\n".contains(*c)).position(|c| c == '\n');
            edits.push(Edit { place: start..end + breaks.map_or(0, |at| at + 1), text: String::new() });
        }
        if let Some(last) = items.last().filter(|_| !new.is_empty()) {
            let dash = text[..last.place.start].rfind('-').unwrap_or(last.place.start);
            let indent = dash - text[..dash].rfind('\n').map_or(0, |at| at + 1);
            let end = line_end(text, last.place.end);
            let rows = new.iter().map(|&at| format!("\n{:indent$}- {}", "", self.row(&self.actual[at])));
            edits.push(Edit { place: end..end, text: rows.collect() });
        }
        Ok(edits)
    }

    /// Rows that are paired (expected, actual), expected ones that are gone, new ones.
    fn matched(&self) -> (Vec<(usize, usize)>, Vec<usize>, Vec<usize>) {
        let mut new: Vec<usize> = (0..self.actual.len()).collect();
        let mut gone = Vec::new();
        let mut pairs = Vec::new();
        for one in 0..self.expected.len() {
            let columns = self.schema.fields().len();
            match new.iter().position(|&two| self.same_cells(one, two) == columns) {
                Some(at) => pairs.push((one, new.remove(at))),
                None => gone.push(one),
            }
        }
        let mut left = Vec::new();
        for one in gone {
            let best = (0..new.len()).max_by_key(|&at| (self.same_cells(one, new[at]), std::cmp::Reverse(at)));
            match best {
                Some(at) => pairs.push((one, new.remove(at))),
                None => left.push(one),
            }
        }
        if self.more_rows {
            new.clear();
        }
        (pairs, left, new)
    }

    fn same_cells(&self, one: usize, two: usize) -> usize {
        let (one, two) = (&self.expected[one], &self.actual[two]);
        self.schema.fields().iter().filter(|field| self.same(one.get(field.name()), two.get(field.name()))).count()
    }

    fn same(&self, one: Option<&Value>, two: Option<&Value>) -> bool {
        let (one, two) = (one.unwrap_or(&Value::Null), two.unwrap_or(&Value::Null));
        let whole = |value: &Value| value.is_i64() || value.is_u64();
        match (one.as_f64(), two.as_f64()) {
            _ if whole(one) && whole(two) => one == two,
            (Some(one), Some(two)) => (one - two).abs() <= self.tolerance * one.abs().max(two.abs()).max(1.0),
            _ => one == two,
        }
    }

    fn edit_row(
        &self,
        text: &str,
        item: &Node,
        expected: &Map<String, Value>,
        actual: &Map<String, Value>,
        edits: &mut Vec<Edit>,
    ) {
        let Kind::Map { entries, block } = &item.kind else { return };
        let mut added = String::new();
        for field in self.schema.fields() {
            let (name, value) = (field.name(), actual.get(field.name()));
            if self.same(expected.get(name), value) {
                continue;
            }
            let told = yaml_text(value.unwrap_or(&Value::Null));
            match item.get(name) {
                Some(cell) if cell.place.is_empty() => {
                    let text = if told == "null" { String::new() } else { format!(" {told}") };
                    edits.push(Edit { place: cell.place.clone(), text });
                }
                Some(cell) => edits.push(Edit { place: cell.place.clone(), text: told }),
                None if *block => {
                    let start = item.place.start;
                    let indent = start - text[..start].rfind('\n').map_or(0, |at| at + 1);
                    added.push_str(&format!("\n{:indent$}{name}: {told}", ""));
                }
                None => added.push_str(&format!(", {name}: {told}")),
            }
        }
        if let Some((_, last)) = entries.last().filter(|_| !added.is_empty()) {
            let end = if *block { line_end(text, last.place.end) } else { last.place.end };
            edits.push(Edit { place: end..end, text: added });
        }
    }

    /// Rows in the place of an empty list.
    fn first_rows(&self, text: &str, new: &[usize]) -> Edit {
        let start = self.node.place.start;
        let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let indent = text[line..].len() - text[line..].trim_start_matches([' ', '-']).len() + 2;
        let rows = new.iter().map(|&at| format!("\n{:indent$}- {}", "", self.row(&self.actual[at])));
        let blanks = text[..start].len() - text[..start].trim_end_matches(' ').len();
        Edit { place: start - blanks..self.node.place.end, text: rows.collect() }
    }

    fn row(&self, row: &Map<String, Value>) -> String {
        let cells = self.schema.fields().iter().filter_map(|field| {
            let value = row.get(field.name()).filter(|value| !value.is_null())?;
            Some(format!("{}: {}", yaml_text(&Value::String(field.name().clone())), yaml_text(value)))
        });
        format!("{{{}}}", cells.collect::<Vec<_>>().join(", "))
    }
}

/// Where the line ends that a byte is in, without what ends it.
fn line_end(text: &str, from: usize) -> usize {
    let end = text[from..].find('\n').map_or(text.len(), |at| from + at);
    if text[from..end].ends_with('\r') { end - 1 } else { end }
}

/// The text with what was found in the place of what was expected. It is read again before anybody writes it: a file
/// that is written in a way that this does not keep stays as it is.
///
/// # Errors
/// `Invalid` when it cannot be rewritten so.
pub(super) fn rewritten(source: &SourceText, found: &[Found]) -> Result<String> {
    let mut edits = Vec::new();
    for found in found {
        edits.extend(found.edits(source)?);
    }
    let after = apply(source, edits)?;
    tracing::debug!(file = %source.file().display(), "rewritten:\n{after}");
    if after != source.text() && !is_as_found(source, &SourceText::new(source.file(), &after), found) {
        return Err(Error::invalid(format!(
            "{}: it is written in a way that --update would not keep, and stays as it is; write expected rows as \
             `- {{column: value}}`, one a line, without anchors",
            source.file().display()
        )));
    }
    Ok(after)
}

/// Whether a file says the same as before, but for what it expects, and expects what was found.
fn is_as_found(before: &SourceText, after: &SourceText, found: &[Found]) -> bool {
    let (Ok(old), Ok(new)) = (yaml::read(before), yaml::read(after)) else { return false };
    let (olds, news) = (expectations(&old), expectations(&new));
    let same = frame(&old) == frame(&new) && olds.len() == news.len();
    same && found.iter().all(|found| {
        // An anchor's rows stand wherever it is named.
        let mut places = olds.iter().zip(&news).filter(|(old, _)| old.place == found.node().place).peekable();
        places.peek().is_some() && places.all(|(_, new)| found.is_in(after, new))
    })
}

/// The nodes of what a file expects, in its order.
fn expectations(file: &Node) -> Vec<&Node> {
    let mut nodes = Vec::new();
    for case in file.get("cases").map(Node::items).unwrap_or_default() {
        let steps = case.get("steps").map(Node::items).unwrap_or_default();
        for holder in steps.iter().chain([case]) {
            let rows = holder.get("expect").map(Node::entries).unwrap_or_default();
            nodes.extend(rows.iter().map(|(_, given)| given.get("rows").unwrap_or(given)));
            nodes.extend(holder.get("counts").map(Node::entries).unwrap_or_default().iter().map(|(_, count)| count));
        }
    }
    nodes
}

/// A file without what it expects.
fn frame(node: &Node) -> Value {
    match &node.kind {
        Kind::Map { entries, .. } => {
            let entry = |(key, value): &(Node, Node)| {
                let name = key.text().unwrap_or_default().to_owned();
                let expects = matches!(name.as_str(), "expect" | "counts");
                let names = || value.entries().iter().filter_map(|(name, _)| Some(Value::from(name.text()?))).collect();
                let value = if expects { Value::Array(names()) } else { frame(value) };
                (name, value)
            };
            Value::Object(entries.iter().map(entry).collect())
        }
        Kind::List { items, .. } => Value::Array(items.iter().map(frame).collect()),
        Kind::Scalar { .. } => node.json(),
    }
}

impl Found {
    fn node(&self) -> &Node {
        match self {
            Found::Count(node, _) => node,
            Found::Rows(rows) => &rows.node,
        }
    }

    /// Whether a node says what was found.
    fn is_in(&self, source: &SourceText, node: &Node) -> bool {
        let rows = match self {
            Found::Count(_, rows) => return node.text() == Some(&rows.to_string()),
            Found::Rows(rows) => rows,
        };
        let mut faults = Faults::default();
        let told = rows::batch(source, &rows.table, node.items(), &rows.schema, None, &mut faults);
        let Some(Ok(expected)) = told.map(|told| objects(&told)) else { return false };
        let again = FoundRows { expected, node: node.clone(), ..rows.as_ref().clone() };
        let (pairs, gone, new) = again.matched();
        let columns = rows.schema.fields().len();
        gone.is_empty() && new.is_empty() && pairs.iter().all(|&(one, two)| again.same_cells(one, two) == columns)
    }
}

fn apply(source: &SourceText, mut edits: Vec<Edit>) -> Result<String> {
    edits.sort_by_key(|edit| (edit.place.start, edit.place.end));
    edits.dedup();
    if let Some(pair) = edits.windows(2).find(|pair| pair[1].place.start < pair[0].place.end) {
        let line = source.position(pair[1].place.start).0;
        let file = source.file().display();
        return Err(Error::invalid(format!(
            "{file}:{line}: rows say different things of one place; write what an anchor stands for in each case"
        )));
    }
    let mut text = source.text().to_owned();
    if text.contains("\r\n") {
        edits.iter_mut().for_each(|edit| edit.text = edit.text.replace('\n', "\r\n"));
    }
    for edit in edits.iter().rev() {
        let end = edit.place.end.min(text.len());
        if text.get(edit.place.start..end).is_some() {
            text.replace_range(edit.place.start..end, &edit.text);
        }
    }
    Ok(text)
}

fn objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    if batch.num_columns() == 0 {
        return Ok(vec![Map::new(); batch.num_rows()]);
    }
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    lines.write(batch).and_then(|()| lines.finish()).map_err(unreadable)?;
    let bytes = lines.into_inner();
    let rows = serde_json::Deserializer::from_slice(&bytes).into_iter::<Map<String, Value>>();
    let mut rows: Vec<Map<String, Value>> = rows.collect::<Result<_, _>>().map_err(unreadable)?;
    for field in batch.schema().fields().iter().filter(|f| matches!(f.data_type(), DataType::Binary)) {
        for row in &mut rows {
            if let Some(Value::String(text)) = row.get_mut(field.name()) {
                *text = STANDARD.encode(hex::decode(&*text).map_err(unreadable)?);
            }
        }
    }
    Ok(rows)
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("a table's rows cannot be written into a case: report this").caused_by(error)
}

fn yaml_text(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(yaml_text).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| {
                format!("{}: {}", yaml_text(&Value::String(name.clone())), yaml_text(value))
            };
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether a text is itself in YAML without quotes.
fn is_plain(text: &str) -> bool {
    let known = |c: char| c.is_alphanumeric() || " _./:+-".contains(c);
    let first = text.starts_with(|c: char| c.is_alphanumeric() || "_/".contains(c));
    let words = ["null", "Null", "NULL", "~", "yes", "no", "on", "off"];
    let is_text = matches!(plain(text), Value::String(same) if same == text) && !words.contains(&text);
    first && is_text && text.chars().all(known) && !text.contains(": ") && !text.ends_with([' ', ':'])
}
