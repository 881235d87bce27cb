//! `google.protobuf.Struct`, `Value` and `ListValue` as JSON text.
//!
//! Format: <https://protobuf.dev/reference/protobuf/google.protobuf/#struct>, written as the JSON mapping of protobuf
//! does. What JSON has no word for is a string: `"NaN"`, `"Infinity"`, `"-Infinity"`. A value without a kind is `null`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::fault::Reason;
use super::super::vector::Variable;
use super::super::wire::{MAX_DEPTH, Read, Wire};
use super::nested::skip_beside;

/// With fewer members than this, names are compared one by one.
const FEW_MEMBERS: usize = 16;

/// Which of the three messages it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum JsonKind {
    Struct,
    Value,
    List,
}

/// A column of JSON texts.
#[derive(Debug)]
pub(in crate::decode) struct Json {
    pub(in crate::decode) values: Variable,
    kind: JsonKind,
    /// The row that was read last and its message: one that is seen twice merges, which on the wire is to put one
    /// behind the other.
    last: usize,
    wire: Vec<u8>,
    /// The row's text is still that of its first part: it is written anew when the row is complete.
    is_behind: bool,
    text: Vec<u8>,
}

impl Json {
    pub(in crate::decode) fn new(kind: JsonKind, nullable: bool) -> Self {
        Self {
            values: Variable::new(nullable),
            kind,
            last: usize::MAX,
            wire: Vec::new(),
            is_behind: false,
            text: Vec::new(),
        }
    }

    /// Reads the message `bytes`, which lies in `depth` others, into `row`.
    pub(super) fn read(&mut self, bytes: &[u8], row: usize, depth: usize) -> Result<(), Reason> {
        let is_more = self.last == row && self.values.len() == row + 1;
        if !is_more {
            self.catch_up()?;
            self.wire.clear();
        }
        // Each part is looked at by itself: together they are no worse.
        self.text.clear();
        self.kind.write(bytes, &mut self.text, depth)?;
        self.last = row;
        self.wire.extend_from_slice(bytes);
        if is_more {
            self.is_behind = true;
            return Ok(());
        }
        self.values.put(row, &self.text)
    }

    /// Writes the text of a row that came in several parts.
    fn catch_up(&mut self) -> Result<(), Reason> {
        if std::mem::take(&mut self.is_behind) {
            self.text.clear();
            self.kind.write(&self.wire, &mut self.text, 0)?;
            self.values.put(self.last, &self.text)?;
        }
        Ok(())
    }

    /// Ends the last row: what comes next is another message.
    pub(in crate::decode) fn complete(&mut self) -> Result<(), Reason> {
        self.last = self.catch_up().map(|()| usize::MAX)?;
        Ok(())
    }

    /// Drops the rows from `rows` on.
    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        if self.last >= rows {
            self.last = usize::MAX;
            self.is_behind = false;
        }
        self.values.truncate(rows);
    }
}

impl JsonKind {
    fn write(self, wire: &[u8], text: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        match self {
            JsonKind::Struct => object(wire, text, depth),
            JsonKind::Value => value(wire, text, depth),
            JsonKind::List => list(wire, text, depth),
        }
    }
}

/// One message's bytes, or those of several that merge.
type Merged<'a> = Cow<'a, [u8]>;

fn merge<'a>(merged: &mut Merged<'a>, more: &'a [u8]) {
    match merged.is_empty() {
        true => *merged = Cow::Borrowed(more),
        false => merged.to_mut().extend_from_slice(more),
    }
}

fn object(wire: &[u8], text: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
    let mut members: Vec<(&str, Merged<'_>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut cursor = deeper(wire, depth)?;
    while !cursor.at_end() {
        match cursor.tag()? {
            0x0a => {
                let (name, value) = member(cursor.bytes()?, depth + 1)?;
                if members.len() == FEW_MEMBERS && places.is_empty() {
                    places.extend(members.iter().enumerate().map(|(at, (name, _))| (*name, at)));
                }
                let known = match members.len() < FEW_MEMBERS {
                    true => members.iter().position(|(other, _)| *other == name),
                    false => places.get(name).copied(),
                };
                match known {
                    Some(at) => members[at].1 = value,
                    None => {
                        if members.len() >= FEW_MEMBERS {
                            places.insert(name, members.len());
                        }
                        members.push((name, value));
                    }
                }
            }
            tag => skip_beside(&mut cursor, tag, &[0x0a], depth)?,
        }
    }
    text.push(b'{');
    for (at, (name, of)) in members.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        string(name, text)?;
        text.push(b':');
        value(of, text, depth + 2)?;
    }
    text.push(b'}');
    Ok(())
}

/// Name and value of an entry of a struct's map; either may be absent.
fn member(wire: &[u8], depth: usize) -> Result<(&str, Merged<'_>), Reason> {
    let (mut name, mut value) = ("", Cow::Borrowed(&[][..]));
    let mut cursor = deeper(wire, depth)?;
    while !cursor.at_end() {
        match cursor.tag()? {
            0x0a => name = utf8(cursor.bytes()?)?,
            0x12 => merge(&mut value, cursor.bytes()?),
            tag => skip_beside(&mut cursor, tag, &[0x0a, 0x12], depth)?,
        }
    }
    Ok((name, value))
}

/// The member of the oneof that was seen last.
enum Kind<'a> {
    Null,
    Number(f64),
    Text(&'a str),
    Bool(bool),
    Object(Merged<'a>),
    List(Merged<'a>),
}

fn value(wire: &[u8], text: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
    let mut kind = Kind::Null;
    let mut cursor = deeper(wire, depth)?;
    while !cursor.at_end() {
        kind = match cursor.tag()? {
            0x08 => {
                cursor.varint()?;
                Kind::Null
            }
            0x11 => Kind::Number(f64::from_le_bytes(cursor.fixed()?)),
            0x1a => Kind::Text(utf8(cursor.bytes()?)?),
            0x20 => Kind::Bool(cursor.varint()? != 0),
            0x2a => {
                let mut merged = if let Kind::Object(merged) = kind { merged } else { Cow::Borrowed(&[][..]) };
                merge(&mut merged, cursor.bytes()?);
                Kind::Object(merged)
            }
            0x32 => {
                let mut merged = if let Kind::List(merged) = kind { merged } else { Cow::Borrowed(&[][..]) };
                merge(&mut merged, cursor.bytes()?);
                Kind::List(merged)
            }
            tag => {
                skip_beside(&mut cursor, tag, &[0x08, 0x11, 0x1a, 0x20, 0x2a, 0x32], depth)?;
                kind
            }
        };
    }
    match kind {
        Kind::Null => text.extend_from_slice(b"null"),
        Kind::Bool(true) => text.extend_from_slice(b"true"),
        Kind::Bool(false) => text.extend_from_slice(b"false"),
        Kind::Number(of) => number(of, text)?,
        Kind::Text(of) => string(of, text)?,
        Kind::Object(of) => object(&of, text, depth + 1)?,
        Kind::List(of) => list(&of, text, depth + 1)?,
    }
    Ok(())
}

fn list(wire: &[u8], text: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
    let mut first = true;
    let mut cursor = deeper(wire, depth)?;
    text.push(b'[');
    while !cursor.at_end() {
        match cursor.tag()? {
            0x0a => {
                if !std::mem::take(&mut first) {
                    text.push(b',');
                }
                value(cursor.bytes()?, text, depth + 1)?;
            }
            tag => skip_beside(&mut cursor, tag, &[0x0a], depth)?,
        }
    }
    text.push(b']');
    Ok(())
}

/// A cursor over a message that lies in `depth` others.
fn deeper(wire: &[u8], depth: usize) -> Result<Wire<'_>, Reason> {
    if depth > MAX_DEPTH { Err(Reason::Depth) } else { Ok(Wire::new(wire)) }
}

fn utf8(bytes: &[u8]) -> Result<&str, Reason> {
    std::str::from_utf8(bytes).map_err(|_| Reason::Utf8)
}

fn string(of: &str, text: &mut Vec<u8>) -> Result<(), Reason> {
    serde_json::to_writer(text, of).map_err(|_| Reason::TooLarge)
}

/// The largest whole numbers that a double tells apart: 2^53.
const WHOLE: f64 = 9_007_199_254_740_992.0;

fn number(of: f64, text: &mut Vec<u8>) -> Result<(), Reason> {
    if of.is_nan() {
        string("NaN", text)
    } else if of.is_infinite() {
        string(if of > 0.0 { "Infinity" } else { "-Infinity" }, text)
    } else if of.fract() == 0.0 && of.abs() <= WHOLE && (of != 0.0 || of.is_sign_positive()) {
        serde_json::to_writer(text, &(of as i64)).map_err(|_| Reason::TooLarge)
    } else {
        serde_json::to_writer(text, &of).map_err(|_| Reason::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::prost::Message as _;
    use prost_reflect::prost_types::value::Kind as Of;
    use prost_reflect::prost_types::{ListValue, Struct, Value};

    fn some(kind: Of) -> Value {
        Value { kind: Some(kind) }
    }

    fn read(kind: JsonKind, messages: &[Vec<u8>]) -> Result<String, Reason> {
        let mut column = Json::new(kind, true);
        for message in messages {
            column.read(message, 0, 1)?;
        }
        column.catch_up()?;
        Ok(String::from_utf8(column.values.value(0).to_vec()).unwrap())
    }

    #[test]
    fn every_kind_has_its_json() {
        let list = ListValue { values: vec![some(Of::NumberValue(1.0)), Value { kind: None }] };
        let members = [
            ("n", some(Of::NullValue(0))),
            ("whole", some(Of::NumberValue(-3.0))),
            ("part", some(Of::NumberValue(0.25))),
            ("nothing", some(Of::NumberValue(-0.0))),
            ("huge", some(Of::NumberValue(1e300))),
            ("nan", some(Of::NumberValue(f64::NAN))),
            ("text", some(Of::StringValue("a \"b\"\n".into()))),
            ("yes", some(Of::BoolValue(true))),
            ("list", some(Of::ListValue(list))),
            ("in", some(Of::StructValue(Struct { fields: [("x".to_string(), some(Of::BoolValue(false)))].into() }))),
        ];
        let all = Struct { fields: members.into_iter().map(|(name, value)| (name.to_string(), value)).collect() };
        let json = read(JsonKind::Struct, &[all.encode_to_vec()]).unwrap();
        let told: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "n": null, "whole": -3, "part": 0.25, "nothing": -0.0, "huge": 1e300,
                "nan": "NaN", "text": "a \"b\"\n", "yes": true,
                "list": [1, null], "in": {"x": false}
            })
        );
        assert!(json.contains("\"whole\":-3,") || json.contains("\"whole\":-3}"), "{json}");
        assert!(json.contains("\"nothing\":-0.0"), "{json}");
    }

    #[test]
    fn what_is_seen_twice_merges_and_the_last_one_of_a_name_counts() {
        let with = |name: &str, number: f64| {
            Struct { fields: [(name.to_string(), some(Of::NumberValue(number)))].into() }.encode_to_vec()
        };
        assert_eq!(read(JsonKind::Struct, &[with("a", 1.0), with("b", 2.0)]).unwrap(), r#"{"a":1,"b":2}"#);
        assert_eq!(read(JsonKind::Struct, &[with("a", 1.0), with("a", 2.0)]).unwrap(), r#"{"a":2}"#);
        let many: Vec<Vec<u8>> = (0..100).map(|n| with(&format!("m{}", n % 40), f64::from(n))).collect();
        let told: serde_json::Value = serde_json::from_str(&read(JsonKind::Struct, &many).unwrap()).unwrap();
        assert_eq!((told.as_object().unwrap().len(), &told["m39"], &told["m0"]), (40, &79.into(), &80.into()));
        let text = some(Of::StringValue("last".into())).encode_to_vec();
        assert_eq!(read(JsonKind::Value, &[with("a", 1.0), text]).map_err(|_| ()), Err(()));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert_eq!(read(JsonKind::Value, &[vec![0x1a, 1, 0xff]]), Err(Reason::Utf8));
        assert_eq!(read(JsonKind::Value, &[vec![0x1a, 9]]), Err(Reason::Truncated));
        assert_eq!(read(JsonKind::List, &[vec![0x08, 0]]), Err(Reason::WireType { found: 0, expected: 2 }));
        let mut deep = some(Of::NullValue(0));
        for _ in 0..200 {
            deep = some(Of::ListValue(ListValue { values: vec![deep] }));
        }
        assert_eq!(read(JsonKind::Value, &[deep.encode_to_vec()]), Err(Reason::Depth));
    }
}
