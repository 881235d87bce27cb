//! The key of a record: the value of one of its message's fields.

use bytes::Bytes;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::wire::{Reader, WireFault, WireType};

/// Where the key stands in a message, and how its value becomes bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    path: String,
    /// The number of the field in the message, of the field in that one, and so on.
    numbers: Vec<u32>,
    form: KeyForm,
    has_presence: bool,
}

/// How a value is written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyForm {
    Bytes,
    Signed,
    /// As `int32`, of which only 32 bits count.
    Signed32,
    Unsigned,
    Unsigned32,
    ZigZag,
    ZigZag32,
    Fixed32,
    SignedFixed32,
    Fixed64,
    SignedFixed64,
}

impl Key {
    /// The name of the field, without those of the messages around it.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The key at `path` of `message`; else why there is none.
    pub(super) fn find(message: &MessageDescriptor, path: &str) -> Result<Self, String> {
        let mut numbers = Vec::new();
        let (mut message, mut rest) = (message.clone(), path);
        loop {
            let (name, inner) = rest.split_once('.').map_or((rest, None), |(name, inner)| (name, Some(inner)));
            let field = message.get_field_by_name(name).ok_or_else(|| unknown(&message, path, name))?;
            check_is_one(&field, path)?;
            numbers.push(field.number());
            let kind = field.kind();
            match (kind.as_message(), inner) {
                (Some(of), Some(inner)) => {
                    rest = inner;
                    message = of.clone();
                }
                (None, None) => {
                    let form = form(&kind).ok_or_else(|| wrong_type(path, &kind))?;
                    let has_presence = field.supports_presence();
                    return Ok(Self { path: path.to_owned(), numbers, form, has_presence });
                }
                (Some(of), None) => {
                    let (of, example) = (of.full_name(), of.fields().next());
                    let example =
                        example.map_or(String::new(), |field| format!(", such as \"{path}.{}\"", field.name()));
                    return Err(format!("key \"{path}\" is the message {of}; name a field inside it{example}"));
                }
                (None, Some(_)) => {
                    return Err(format!("key \"{path}\": \"{name}\" is no message; end the path there"));
                }
            }
        }
    }

    /// The path as the rule says it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The key of a message that decodes.
    pub(super) fn of(&self, message: &Bytes) -> Result<Option<Bytes>, WireFault> {
        let mut found = None;
        self.look(message, &self.numbers, &mut found)?;
        Ok(match (found, self.form) {
            (Some(Found::Bytes(value)), _) => Some(message.slice_ref(value)).filter(|value| !value.is_empty()),
            (Some(Found::Number(value)), form) => Some(Bytes::from(decimal(form, value))),
            (None, _) => None,
        })
    }

    /// The last value wins, also among several parts of one message, as when it is decoded.
    fn look<'a>(&self, bytes: &'a [u8], path: &[u32], found: &mut Option<Found<'a>>) -> Result<(), WireFault> {
        let Some((wanted, inner)) = path.split_first() else { return Ok(()) };
        if inner.is_empty() && found.is_none() && !self.has_presence && self.form != KeyForm::Bytes {
            // The message is there, and a 0 is not written.
            *found = Some(Found::Number(0));
        }
        let mut reader = Reader::new(bytes);
        while !reader.is_at_end() {
            let (number, wire_type) = reader.tag()?;
            match wire_type {
                _ if number != *wanted => reader.skip(number, wire_type, super::wire::MAX_DEPTH)?,
                WireType::Delimited if inner.is_empty() => *found = Some(Found::Bytes(reader.delimited()?)),
                WireType::Delimited => self.look(reader.delimited()?, inner, found)?,
                WireType::Varint => *found = Some(Found::Number(reader.varint()?)),
                WireType::Fixed32 => *found = Some(Found::Number(little_endian(reader.take(4)?))),
                WireType::Fixed64 => *found = Some(Found::Number(little_endian(reader.take(8)?))),
                WireType::StartGroup | WireType::EndGroup => return Err(WireFault::Type),
            }
        }
        Ok(())
    }
}

enum Found<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn unknown(message: &MessageDescriptor, path: &str, name: &str) -> String {
    let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
    let (of, names) = (message.full_name(), names.join(", "));
    format!("key \"{path}\": {of} has no field \"{name}\"; name one of {names}")
}

fn check_is_one(field: &FieldDescriptor, path: &str) -> Result<(), String> {
    let name = field.name();
    if field.is_list() || field.is_map() {
        return Err(format!("key \"{path}\": \"{name}\" has several values; name a field that has one"));
    }
    if field.is_group() {
        return Err(format!("key \"{path}\": \"{name}\" is a group; name a field outside of groups"));
    }
    match field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        Some(oneof) => {
            let oneof = oneof.name();
            Err(format!("key \"{path}\": \"{name}\" is in the oneof \"{oneof}\"; name a field outside of oneofs"))
        }
        None => Ok(()),
    }
}

fn wrong_type(path: &str, kind: &Kind) -> String {
    let word = match kind {
        Kind::Enum(of) => of.full_name().to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("key \"{path}\" is of the type {word}, which is no key; name a string, bytes or an integer")
}

fn form(kind: &Kind) -> Option<KeyForm> {
    Some(match kind {
        Kind::String | Kind::Bytes => KeyForm::Bytes,
        Kind::Int32 => KeyForm::Signed32,
        Kind::Int64 => KeyForm::Signed,
        Kind::Uint32 => KeyForm::Unsigned32,
        Kind::Uint64 => KeyForm::Unsigned,
        Kind::Sint32 => KeyForm::ZigZag32,
        Kind::Sint64 => KeyForm::ZigZag,
        Kind::Fixed32 => KeyForm::Fixed32,
        Kind::Sfixed32 => KeyForm::SignedFixed32,
        Kind::Fixed64 => KeyForm::Fixed64,
        Kind::Sfixed64 => KeyForm::SignedFixed64,
        Kind::Double | Kind::Float | Kind::Bool | Kind::Message(_) | Kind::Enum(_) => return None,
    })
}

fn decimal(form: KeyForm, value: u64) -> String {
    let zig_zag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
    match form {
        KeyForm::Signed32 | KeyForm::SignedFixed32 => (value as i32).to_string(),
        KeyForm::Signed | KeyForm::SignedFixed64 => (value as i64).to_string(),
        KeyForm::Unsigned32 | KeyForm::Fixed32 => (value as u32).to_string(),
        KeyForm::ZigZag32 => zig_zag(u64::from(value as u32)).to_string(),
        KeyForm::ZigZag => zig_zag(value).to_string(),
        KeyForm::Unsigned | KeyForm::Fixed64 | KeyForm::Bytes => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Chance};
    use super::*;
    use prost_reflect::prost::Message;
    use prost_reflect::{DynamicMessage, ReflectMessage, Value};

    const TYPES: &str = "syntax = \"proto3\"; message M { string s = 1; bytes b = 2; int32 i32 = 3; int64 i64 = 4; \
        uint32 u32 = 5; uint64 u64 = 6; sint32 s32 = 7; sint64 s64 = 8; fixed32 f32 = 9; fixed64 f64 = 10; \
        sfixed32 sf32 = 11; sfixed64 sf64 = 12; optional int32 o = 13; M m = 14; double d = 15; \
        oneof x { string y = 16; } repeated string r = 17; map<string, string> map = 18; bool t = 19; }";

    fn type_m() -> MessageDescriptor {
        samples::compiled(TYPES).get_message_by_name("M").unwrap()
    }

    fn expected(message: &DynamicMessage, path: &str) -> Option<Bytes> {
        if let Some((name, inner)) = path.split_once('.') {
            let value = message.get_field_by_name(name).unwrap();
            return if message.has_field_by_name(name) { expected(value.as_message().unwrap(), inner) } else { None };
        }
        let field = message.descriptor().get_field_by_name(path).unwrap();
        let text = match message.get_field(&field).into_owned() {
            Value::String(text) => return (!text.is_empty()).then(|| text.into()),
            Value::Bytes(bytes) => return (!bytes.is_empty()).then_some(bytes),
            Value::I32(value) => value.to_string(),
            Value::I64(value) => value.to_string(),
            Value::U32(value) => value.to_string(),
            Value::U64(value) => value.to_string(),
            other => panic!("{other:?}"),
        };
        (message.has_field(&field) || !field.supports_presence()).then(|| text.into())
    }

    #[test]
    fn keys_are_what_decoding_gives() {
        let (of, mut chance) = (type_m(), Chance::new(3));
        let names = ["s", "b", "i32", "i64", "u32", "u64", "s32", "s64", "f32", "f64", "sf32", "sf64", "o"];
        let paths: Vec<String> = names.iter().flat_map(|n| [n.to_string(), format!("m.{n}")]).collect();
        for _ in 0..200 {
            // Two messages after each other are one, merged.
            let mut bytes = samples::message(&of, &mut chance, 2).encode_to_vec();
            bytes.extend(samples::message(&of, &mut chance, 2).encode_to_vec());
            let message = DynamicMessage::decode(of.clone(), bytes.as_slice()).unwrap();
            for path in &paths {
                let found = Key::find(&of, path).unwrap().of(&Bytes::from(bytes.clone())).unwrap();
                assert_eq!(found, expected(&message, path), "{path}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let fault = |path: &str| Key::find(&type_m(), path).unwrap_err();
        assert!(fault("z").starts_with("key \"z\": M has no field \"z\"; name one of s, b, i32"));
        assert!(fault("m.z").starts_with("key \"m.z\": M has no field \"z\""));
        assert_eq!(fault("d"), "key \"d\" is of the type double, which is no key; name a string, bytes or an integer");
        assert!(fault("t").contains("of the type bool"));
        assert_eq!(fault("m"), "key \"m\" is the message M; name a field inside it, such as \"m.s\"");
        assert_eq!(fault("s.x"), "key \"s.x\": \"s\" is no message; end the path there");
        assert!(fault("y").contains("\"y\" is in the oneof \"x\""));
        assert!(fault("r").contains("\"r\" has several values"));
        assert!(fault("map.key").contains("\"map\" has several values"));
        assert_eq!(Key::find(&type_m(), "m.m.s").unwrap().path(), "m.m.s");
    }
}
