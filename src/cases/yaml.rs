//! YAML as a tree whose every node knows its place in the file.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

use crate::pipeline::{Fault, SourceText};

/// Nodes of a file at most, those of repeated anchors each time.
const MOST_NODES: usize = 1_000_000;
/// How deep nodes may lie within each other.
const DEEPEST: usize = 64;

/// Keys and values, in the file's order.
type Entries = Vec<(Node, Node)>;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Its bytes in the file: of a list or a mapping up to its last value.
    pub(super) place: Range<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A scalar; `plain` when it stands without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    /// `within`: what it stands in is written in brackets.
    List {
        items: Vec<Node>,
        block: bool,
        within: bool,
    },
    Map {
        entries: Entries,
        block: bool,
    },
}

impl Node {
    /// The text of a scalar, whatever its type.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        let Kind::Scalar { text, plain: true } = &self.kind else { return false };
        matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The items of a list; none for anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List { items, .. } => items,
            _ => &[],
        }
    }

    /// The entries of a mapping; none for anything else.
    pub(super) fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Map { entries, .. } => entries,
            _ => &[],
        }
    }

    /// The value of a mapping's key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// The value that YAML's core schema has it as. Numbers that JSON has not are text: `NaN`, `inf`, `-inf`.
    pub(super) fn json(&self) -> Value {
        match &self.kind {
            _ if self.is_null() => Value::Null,
            Kind::Scalar { text, plain: true } => plain(text),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::List { items, .. } => Value::Array(items.iter().map(Node::json).collect()),
            Kind::Map { entries, .. } => {
                let entry = |(key, value): &(Node, Node)| (key.text().unwrap_or_default().to_owned(), value.json());
                Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
            }
        }
    }
}

/// A scalar without quotes.
pub(super) fn plain(text: &str) -> Value {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Value::String("NaN".into()),
        ".inf" | "+.inf" => Value::String("inf".into()),
        "-.inf" => Value::String("-inf".into()),
        _ if is_number => {
            let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
            let number = whole.ok().or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
            number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
        _ => Value::String(text.to_owned()),
    }
}

/// Reads a file of one document.
///
/// # Errors
/// What is no YAML, or more than is read, with its place.
pub(super) fn read(source: &SourceText) -> Result<Node, Box<Fault>> {
    let text = source.text();
    if let Some(at) = text.find('\u{feff}') {
        let fault = Fault::new(source, &(at..at + '\u{feff}'.len_utf8()), "here is a byte order mark");
        return Err(Box::new(fault.remedy("save the file as UTF-8 without it")));
    }
    let starts = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
    let mut reader = Reader {
        source,
        parser: Parser::new_from_str(source.text()),
        anchors: BTreeMap::new(),
        nodes: 0,
        brackets: 0,
        starts,
    };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if document.is_some() => {
                return Err(reader.fault(&span, "the file has a second document", "put all cases under one `cases:`"));
            }
            event => document = Some(reader.node(event, span, 0)?),
        }
    }
    let empty = || Fault::new(source, &(0..0), "the file is empty").remedy("write `cases:` and a list of cases");
    document.ok_or_else(|| Box::new(empty()))
}

struct Reader<'s> {
    source: &'s SourceText,
    parser: Parser<'s, saphyr_parser::StrInput<'s>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    /// The brackets and braces that are open.
    brackets: usize,
    /// Where each character begins, when not all of them are of one byte.
    starts: Option<Vec<usize>>,
}

impl<'s> Reader<'s> {
    fn next(&mut self) -> Result<(Event<'s>, Span), Box<Fault>> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span)),
            Some(Err(error)) => {
                let at = self.byte(error.marker());
                let message = format!("this is no YAML: {}", error.info());
                let width = self.source.text()[at..].chars().next().map_or(0, char::len_utf8);
                Err(self.at(&(at..at + width), &message, "mind indentation, quotes and colons"))
            }
            None => Ok((Event::StreamEnd, Span::empty(Marker::default()))),
        }
    }

    /// The byte of a mark, which counts characters.
    fn byte(&self, marker: &Marker) -> usize {
        let index = marker.index();
        match &self.starts {
            Some(starts) => starts.get(index).copied().unwrap_or(self.source.text().len()),
            None => index.min(self.source.text().len()),
        }
    }

    fn fault(&self, span: &Span, message: &str, remedy: &str) -> Box<Fault> {
        self.at(&(self.byte(&span.start)..self.byte(&span.end)), message, remedy)
    }

    fn at(&self, place: &Range<usize>, message: &str, remedy: &str) -> Box<Fault> {
        Box::new(Fault::new(self.source, place, message).remedy(remedy))
    }

    fn node(&mut self, event: Event<'s>, span: Span, depth: usize) -> Result<Node, Box<Fault>> {
        self.nodes += 1;
        if depth > DEEPEST || self.nodes > MOST_NODES {
            let most = format!("a file may have {MOST_NODES} values, {DEEPEST} within each other");
            return Err(self.fault(&span, "there is too much here", &most));
        }
        let start = self.byte(&span.start);
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let kind = Kind::Scalar { text: text.into_owned(), plain };
                // A block of text begins with its sign, a line before, and its mark is where the next line begins.
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let sign = if block { self.source.text()[..start].rfind(['|', '>']) } else { None };
                let start = sign.unwrap_or(start);
                let end = self.byte(&span.end).max(start);
                let end = start + self.source.text()[start..end].trim_end().len();
                (Node { place: start..end, kind }, anchor)
            }
            Event::Alias(id) => {
                let anchored = self.anchors.get(&id).cloned();
                let anchored = anchored.ok_or_else(|| self.fault(&span, "no such anchor", "name one above"))?;
                self.nodes += count(&anchored);
                // Faults within it are where it is written.
                return Ok(anchored);
            }
            Event::SequenceStart(anchor, _) => {
                let block = !self.is_in_brackets(start, '[');
                self.brackets += usize::from(!block);
                let mut items: Vec<Node> = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break self.byte(&end.end),
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                let end = if block { items.last().map_or(start, |item| item.place.end) } else { end };
                self.brackets -= usize::from(!block);
                let within = self.brackets > 0;
                (Node { place: start..end, kind: Kind::List { items, block, within } }, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let block = !self.is_in_brackets(start, '{');
                self.brackets += usize::from(!block);
                let (entries, end) = self.entries(depth)?;
                self.brackets -= usize::from(!block);
                let end = if block { entries.last().map_or(start, |(_, value)| value.place.end) } else { end };
                (Node { place: start..end, kind: Kind::Map { entries, block } }, anchor)
            }
            _ => return Err(self.fault(&span, "this is no value", "write a value here")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// Whether what begins at a byte is written in brackets, behind its anchor and its tag.
    fn is_in_brackets(&self, start: usize, bracket: char) -> bool {
        let mut rest = self.source.text()[start..].trim_start();
        while rest.starts_with(['&', '!']) {
            rest = rest.find(char::is_whitespace).map_or("", |end| rest[end..].trim_start());
        }
        self.brackets > 0 || rest.starts_with(bracket)
    }

    /// The entries of a mapping, and where it ends.
    fn entries(&mut self, depth: usize) -> Result<(Entries, usize), Box<Fault>> {
        let mut entries = Entries::new();
        let mut names = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((entries, self.byte(&span.end)));
            }
            let key = self.node(event, span, depth + 1)?;
            let Some(name) = key.text() else {
                return Err(self.at(&key.place, "a key is a word", "write `name: value`"));
            };
            if !names.insert(name.to_owned()) {
                let message = format!("key `{name}` is here twice");
                return Err(self.at(&key.place, &message, "keep one of the two"));
            }
            let (event, span) = self.next()?;
            let mut value = self.node(event, span, depth + 1)?;
            if value.place.is_empty() && value.is_null() {
                // Nothing stands there: what follows belongs to what comes next.
                let rest = &self.source.text()[key.place.end..];
                let colon = rest.find(':').map_or(0, |at| at + 1);
                value.place = key.place.end + colon..key.place.end + colon;
            }
            entries.push((key, value));
        }
    }
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::List { items, .. } => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Map { entries, .. } => 1 + entries.iter().map(|(_, value)| 1 + count(value)).sum::<usize>(),
    }
}
