//! JSON text as `google.protobuf.Struct`, `Value` and `ListValue`, written while it is parsed.
//!
//! Format: <https://protobuf.dev/reference/protobuf/google.protobuf/#struct>. Numbers are doubles there: a whole number
//! beyond 2^53 is rounded. Of several members with one name the last one counts, as readers of maps have it. The texts
//! `"NaN"` and `"Infinity"`, which the decoder writes for what JSON has no word for, stay texts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::fault::{RowFault, Written};
use super::form::JsonKind;
use super::wire::{MAX_DEPTH, close, open, put_bytes};

/// Tags of `Value`, its members being 1 to 6.
const NULL: u8 = 0x08;
const NUMBER: u8 = 0x11;
const TEXT: u8 = 0x1a;
const BOOL: u8 = 0x20;
const STRUCT: u8 = 0x2a;
const LIST: u8 = 0x32;
/// Field 1, with a length: the entries of a struct, the name in an entry, the values of a list.
const FIRST: u8 = 0x0a;
/// Field 2, with a length: the value in an entry.
const SECOND: u8 = 0x12;

/// Appends the fields of the message that `text` stands for; it lies in `depth` others.
pub(super) fn write(kind: JsonKind, text: &str, depth: usize, out: &mut Vec<u8>) -> Written {
    let mut json = serde_json::Deserializer::from_str(text);
    let body = Body { kind, depth, out };
    body.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| {
        RowFault::new(format!("the text is no JSON that a {} holds ({error}); mend it in the query", kind.name()))
    })
}

impl JsonKind {
    fn name(self) -> &'static str {
        match self {
            JsonKind::Struct => "google.protobuf.Struct",
            JsonKind::Value => "google.protobuf.Value",
            JsonKind::List => "google.protobuf.ListValue",
        }
    }
}

/// The fields of a message, to be written.
struct Body<'a> {
    kind: JsonKind,
    depth: usize,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("it nests too deeply"));
        }
        match self.kind {
            JsonKind::Struct => json.deserialize_map(self),
            JsonKind::List => json.deserialize_seq(self),
            JsonKind::Value => json.deserialize_any(self),
        }
    }
}

impl Body<'_> {
    /// A value of the kind that `visit` was called for; a struct or a list is nothing but itself.
    fn scalar<E: serde::de::Error>(self, tag: u8, found: &str, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), E> {
        if self.kind != JsonKind::Value {
            return Err(E::custom(format!("it is {found}")));
        }
        self.out.push(tag);
        put(self.out);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            JsonKind::Struct => "an object",
            JsonKind::List => "an array",
            JsonKind::Value => "a value",
        })
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar(NULL, "null", |out| out.push(0))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.scalar(BOOL, "a boolean", |out| out.push(u8::from(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.scalar(NUMBER, "a number", |out| out.extend_from_slice(&value.to_le_bytes()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.scalar(TEXT, "a text", |out| put_bytes(out, value.as_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Body { kind, depth, out } = self;
        let (wrapping, depth) = wrap(kind, STRUCT, depth, out);
        loop {
            let start = out.len();
            out.push(FIRST);
            let entry = open(out);
            out.push(FIRST);
            if members.next_key_seed(Name { out: &mut *out })?.is_none() {
                out.truncate(start);
                break;
            }
            out.push(SECOND);
            let value = open(out);
            members.next_value_seed(Body { kind: JsonKind::Value, depth: depth + 2, out: &mut *out })?;
            close(out, value);
            close(out, entry);
        }
        unwrap(wrapping, out);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let Body { kind, depth, out } = self;
        let (wrapping, depth) = wrap(kind, LIST, depth, out);
        loop {
            let start = out.len();
            out.push(FIRST);
            let value = open(out);
            let body = Body { kind: JsonKind::Value, depth: depth + 1, out: &mut *out };
            if values.next_element_seed(body)?.is_none() {
                out.truncate(start);
                break;
            }
            close(out, value);
        }
        unwrap(wrapping, out);
        Ok(())
    }
}

/// Begins the struct or the list that a value holds. Returns where it begins, if it is in a value.
fn wrap(kind: JsonKind, tag: u8, depth: usize, out: &mut Vec<u8>) -> (Option<usize>, usize) {
    if kind != JsonKind::Value {
        return (None, depth);
    }
    out.push(tag);
    (Some(open(out)), depth + 1)
}

fn unwrap(wrapping: Option<usize>, out: &mut Vec<u8>) {
    if let Some(start) = wrapping {
        close(out, start);
    }
}

/// A member's name.
struct Name<'a> {
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<(), E> {
        put_bytes(self.out, name.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::prost::Message as _;
    use prost_reflect::prost_types::value::Kind as Of;
    use prost_reflect::prost_types::{ListValue, Struct, Value};

    fn wire(kind: JsonKind, text: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        write(kind, text, 1, &mut out).map(|()| out).map_err(|fault| fault.message)
    }

    #[test]
    fn every_kind_of_value_is_written() {
        let long = "x".repeat(300);
        let text = format!(
            r#"{{"n": null, "yes": true, "whole": -3, "part": 0.25, "big": 18446744073709551615, "": "{long}",
                 "in": {{"a": {{}}}}, "list": [1, [], {{"b": "ü\n"}}], "twice": 1, "twice": 2}}"#
        );
        let found = Struct::decode(&*wire(JsonKind::Struct, &text).unwrap()).unwrap();
        let kind = |name: &str| found.fields[name].kind.clone().unwrap();
        assert_eq!(kind("n"), Of::NullValue(0));
        assert_eq!(kind("yes"), Of::BoolValue(true));
        assert_eq!(kind("whole"), Of::NumberValue(-3.0));
        assert_eq!(kind("part"), Of::NumberValue(0.25));
        assert_eq!(kind("big"), Of::NumberValue(1.8446744073709552e19));
        assert_eq!(kind(""), Of::StringValue(long));
        assert_eq!(kind("twice"), Of::NumberValue(2.0));
        let inner = |of| Struct { fields: [("a".to_string(), Value { kind: Some(of) })].into() };
        assert_eq!(kind("in"), Of::StructValue(inner(Of::StructValue(Struct::default()))));
        let Of::ListValue(ListValue { values }) = kind("list") else { panic!("no list") };
        assert_eq!(values.len(), 3);
        assert_eq!(values[1].kind, Some(Of::ListValue(ListValue::default())));
        let value = Value::decode(&*wire(JsonKind::Value, " null ").unwrap()).unwrap();
        assert_eq!(value.kind, Some(Of::NullValue(0)));
        assert_eq!(ListValue::decode(&*wire(JsonKind::List, "[7]").unwrap()).unwrap().values.len(), 1);
    }

    #[test]
    fn what_is_none_is_told() {
        for (kind, text) in [
            (JsonKind::Struct, "[]"),
            (JsonKind::Struct, "null"),
            (JsonKind::List, "{}"),
            (JsonKind::Value, ""),
            (JsonKind::Value, "{"),
            (JsonKind::Value, "1 2"),
            (JsonKind::Value, "1e999"),
            (JsonKind::Value, "NaN"),
        ] {
            let fault = wire(kind, text).unwrap_err();
            assert!(fault.starts_with("the text is no JSON that a google.protobuf."), "{fault}");
        }
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(wire(JsonKind::Value, &deep(30)).is_ok());
        assert!(wire(JsonKind::Value, &deep(60)).unwrap_err().contains("nests too deeply"));
        assert!(wire(JsonKind::Value, &deep(100_000)).is_err());
    }
}
