//! The form of a case file, said once: the check of a file and the JSON Schema for editors both come from it.

use serde_json::{Value, json};

use super::yaml::{Kind, Node};
use crate::fault_point::KILL_POINTS;
use crate::pipeline::{Fault, Faults, SourceText, did_you_mean};

/// What may stand at a place.
pub(super) enum Shape {
    /// Anything.
    Any,
    /// A scalar, taken as text.
    Text,
    /// A time: RFC 3339.
    Time,
    /// A number from 0 on.
    Number,
    /// A whole number from 0 on.
    Count,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A mapping of names that the pipeline has.
    Names(&'static Shape),
    /// A mapping of these keys.
    Keys(&'static [Key]),
    /// One of these, told apart by what stands there.
    Either(&'static [Shape]),
}

/// A key of a mapping.
pub(super) struct Key {
    name: &'static str,
    shape: Shape,
    about: &'static str,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about }
}

static RECORD: Shape = Shape::Keys(&[
    key("value", Shape::Any, "the message as proto JSON; null is a tombstone; of a `raw` topic its text"),
    key("base64", Shape::Text, "the value's bytes, instead of `value`"),
    key("key", Shape::Any, "the key's text, or {base64: …}"),
    key("partition", Shape::Count, "the partition; 0 without it"),
    key("timestamp", Shape::Time, "when it was sent; without it the case's clock, or 2000-01-01T00:00:00Z"),
    key("headers", Shape::Names(&Shape::Text), "the headers, as text"),
]);
static RECORDS: Shape = Shape::List(&RECORD);
static TOPIC: Shape = Shape::Either(&[
    Shape::List(&RECORD),
    Shape::Keys(&[
        key("records", Shape::List(&RECORD), "what stands in the topic before the first step"),
        key("recording", Shape::Text, "the directory of a recording, instead of `records`"),
        key("partitions", Shape::Count, "how many partitions there are; without it as many as records name"),
    ]),
]);
static ROW: Shape = Shape::Names(&Shape::Any);
static LOOKUP: Shape = Shape::Either(&[
    Shape::List(&ROW),
    Shape::Keys(&[
        key("rows", Shape::List(&ROW), "the rows, by column"),
        key("file", Shape::Text, "a CSV, JSON or Parquet file or a Delta table, instead of `rows`"),
    ]),
]);
static EXPECTED: Shape = Shape::Either(&[
    Shape::List(&ROW),
    Shape::Keys(&[
        key("rows", Shape::List(&ROW), "the rows, by column, in any order"),
        key(
            "partial",
            Shape::Word(&["columns", "rows", "true", "false"]),
            "`columns`: those that no row names do not matter; `rows`: the table may have more; `true`: both",
        ),
        key("tolerance", Shape::Number, "floating-point numbers may differ by so much"),
    ]),
]);
const EXPECT: Shape = Shape::Names(&EXPECTED);
const COUNTS: Shape = Shape::Names(&Shape::Count);
const ERROR: Shape = Shape::Keys(&[
    key("kind", Shape::Word(&["invalid", "unavailable", "violated", "fenced"]), "what to do about it"),
    key("text", Shape::Text, "a part of its message"),
]);
static STEP: Shape = Shape::Either(&[
    Shape::Word(&["run", "restart"]),
    Shape::Keys(&[
        key("push", Shape::Names(&RECORDS), "records by topic; then everything up to the ends is one micro-batch"),
        key("run", Shape::Any, "a micro-batch of what `topics` holds, without new records"),
        key("restart", Shape::Any, "the run is stopped and begins anew from what is committed"),
        key("kill", Shape::Word(KILL_POINTS), "the next push is cut off at this point, as by a power failure"),
        key("clock", Shape::Time, "what now() is from here on"),
        key("tables", Shape::Names(&Shape::List(&ROW)), "lookups of the case that hold other rows from here on"),
        key("expect", EXPECT, "the rows of tables, those beside a sink too"),
        key("counts", COUNTS, "the numbers of rows of tables"),
        key("error", ERROR, "the push before it failed so"),
    ]),
]);

/// What all cases of a file share, and a case may say otherwise.
const SHARED: [Key; 6] = [
    key("pipeline", Shape::Text, "the pipeline's file, relative to this one; without it that of the same name, .sql"),
    key("params", Shape::Names(&Shape::Text), "what fills `$name`"),
    key("set", Shape::Names(&Shape::Text), "settings, as `flumen.max_rows`"),
    key("env", Shape::Names(&Shape::Text), "environment variables, the only ones that the pipeline sees"),
    key("clock", Shape::Time, "what now() is; without it when the last record was sent"),
    key("tables", Shape::Names(&LOOKUP), "lookups that hold something else here"),
];
static CASE: [Key; 12] = {
    let [pipeline, params, set, env, clock, tables] = SHARED;
    [
        key("name", Shape::Text, "what the case shows"),
        pipeline,
        params,
        set,
        env,
        clock,
        tables,
        key("topics", Shape::Names(&TOPIC), "what stands in topics before the first step"),
        key("steps", Shape::List(&STEP), "what happens; without it one run of what `topics` holds"),
        key("expect", EXPECT, "the rows of tables after the last step"),
        key("counts", COUNTS, "the numbers of rows of tables after the last step"),
        key("error", ERROR, "the last push failed so"),
    ]
};
static CASE_SHAPE: Shape = Shape::Keys(&CASE);
static FILE: [Key; 7] = {
    let [pipeline, params, set, env, clock, tables] = SHARED;
    [pipeline, params, set, env, clock, tables, key("cases", Shape::List(&CASE_SHAPE), "the cases")]
};
static FILE_SHAPE: Shape = Shape::Keys(&FILE);

/// Holds a file's tree to its form.
pub(super) fn check(source: &SourceText, file: &Node, faults: &mut Faults) {
    check_node(source, file, &FILE_SHAPE, faults);
}

fn check_node(source: &SourceText, node: &Node, shape: &Shape, faults: &mut Faults) {
    let mut wrong = |wanted: &str| {
        let message = format!("here is {}, and {wanted} has to be", found(node));
        faults.push(Fault::new(source, &node.place, message).remedy(format!("write {wanted}")));
    };
    let text = node.text();
    match shape {
        Shape::Any => {}
        Shape::Text if text.is_none() => wrong("a text"),
        Shape::Time if text.and_then(time).is_none() => wrong("a time from 1970 on as 2026-01-31T08:00:00Z"),
        Shape::Number if number(text).is_none() => wrong("a number from 0 on"),
        Shape::Count if text.and_then(|text| text.parse::<u32>().ok()).is_none() => wrong("a whole number from 0 on"),
        Shape::Text | Shape::Time | Shape::Number | Shape::Count => {}
        Shape::Word(words) => match text {
            Some(text) if words.contains(&text) => {}
            Some(text) => {
                let message = format!("`{text}` is none of {}", words.join(", "));
                let remedy = did_you_mean(text, words.iter().copied()).unwrap_or_else(|| "write one of them".into());
                faults.push(Fault::new(source, &node.place, message).remedy(remedy));
            }
            None => wrong("a word"),
        },
        Shape::List(of) => match &node.kind {
            Kind::List { items, .. } => items.iter().for_each(|item| check_node(source, item, of, faults)),
            _ => wrong("a list"),
        },
        Shape::Names(of) => match &node.kind {
            Kind::Map { entries, .. } => entries.iter().for_each(|(_, value)| check_node(source, value, of, faults)),
            _ => wrong("a mapping of names"),
        },
        Shape::Keys(keys) => match &node.kind {
            Kind::Map { entries, .. } => check_keys(source, entries, keys, faults),
            _ => wrong(&format!("a mapping with {}", names(keys).join(", "))),
        },
        Shape::Either(shapes) => match shapes.iter().find(|shape| is_like(node, shape)) {
            Some(shape) => check_node(source, node, shape, faults),
            None => shapes.iter().rev().take(1).for_each(|shape| check_node(source, node, shape, faults)),
        },
    }
}

fn check_keys(source: &SourceText, entries: &[(Node, Node)], keys: &[Key], faults: &mut Faults) {
    for (name, value) in entries {
        let text = name.text().unwrap_or_default();
        match keys.iter().find(|key| key.name == text) {
            Some(key) => check_node(source, value, &key.shape, faults),
            None => {
                let known = names(keys);
                let remedy = did_you_mean(text, known.iter().copied());
                let remedy = remedy.unwrap_or_else(|| format!("there are {}", known.join(", ")));
                faults.push(Fault::new(source, &name.place, format!("no key `{text}` here")).remedy(remedy));
            }
        }
    }
}

/// Whether a node has the outer form of a shape.
fn is_like(node: &Node, shape: &Shape) -> bool {
    match (&node.kind, shape) {
        (Kind::List { .. }, Shape::List(_)) | (Kind::Map { .. }, Shape::Keys(_) | Shape::Names(_)) => true,
        (Kind::Scalar { .. }, shape) => !matches!(shape, Shape::List(_) | Shape::Keys(_) | Shape::Names(_)),
        _ => false,
    }
}

fn found(node: &Node) -> String {
    match &node.kind {
        _ if node.is_null() => "nothing".to_owned(),
        Kind::Scalar { text, .. } => format!("`{}`", text.lines().next().unwrap_or_default()),
        Kind::List { .. } => "a list".to_owned(),
        Kind::Map { .. } => "a mapping".to_owned(),
    }
}

fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

fn number(text: Option<&str>) -> Option<f64> {
    text?.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
}

/// A time of RFC 3339 that a record can have been sent at: from 1970 on, and within what nanoseconds reach.
pub(super) fn time(text: &str) -> Option<chrono::DateTime<chrono::Utc>> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&chrono::Utc);
    time.timestamp_nanos_opt().filter(|nanos| *nanos >= 0).map(|_| time)
}

/// The form of a case file as a JSON Schema (draft 2020-12).
pub fn json_schema() -> Value {
    let mut schema = schema(&FILE_SHAPE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Cases of a Flumen pipeline");
    schema
}

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Text => json!({"type": ["string", "number", "boolean"]}),
        Shape::Time => json!({"type": "string", "format": "date-time"}),
        Shape::Number => json!({"type": "number", "minimum": 0}),
        Shape::Count => json!({"type": "integer", "minimum": 0}),
        Shape::Word(words) => {
            // YAML reads some of them as no text.
            let word = |word: &&str| word.parse::<bool>().map_or_else(|_| json!(word), Value::Bool);
            json!({"enum": words.iter().map(word).collect::<Vec<_>>()})
        }
        Shape::List(of) => json!({"type": "array", "items": schema(of)}),
        Shape::Names(of) => json!({"type": "object", "additionalProperties": schema(of)}),
        Shape::Keys(keys) => {
            let property = |key: &Key| {
                let mut schema = schema(&key.shape);
                schema["description"] = json!(key.about);
                (key.name.to_owned(), schema)
            };
            let properties: serde_json::Map<String, Value> = keys.iter().map(property).collect();
            json!({"type": "object", "additionalProperties": false, "properties": properties})
        }
        Shape::Either(shapes) => json!({"anyOf": shapes.iter().map(schema).collect::<Vec<_>>()}),
    }
}
