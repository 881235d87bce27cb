//! Whether bytes are a message of a type: well formed, each field laid out as its type is, all texts UTF-8.
//!
//! It is what decoding the message would find, without building it. Fields that the type does not know pass.

use std::collections::HashMap;

use prost_reflect::{ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::wire::{MAX_DEPTH, Reader, WireFault, WireType};

/// Where and why bytes do not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Undecodable {
    /// The path of the field, such as `placement.page`. Empty for the message itself.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) fault: WireFault,
}

/// The types that lie in a message type, as a table.
#[derive(Debug)]
pub(super) struct Shape {
    /// The first one is the message itself.
    messages: Vec<Vec<Field>>,
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: String,
    form: Form,
    /// Whether several values may stand in one run of bytes.
    is_packable: bool,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    Bytes,
    Message(usize),
    Group(usize),
    /// An entry of a map: a message that does not count as depth.
    Entry(usize),
}

impl Shape {
    /// The shape of messages of that type.
    pub(super) fn new(message: &MessageDescriptor) -> Self {
        let mut indices = HashMap::from([(message.full_name().to_owned(), 0)]);
        let mut types = vec![message.clone()];
        let mut messages = Vec::new();
        while let Some(message) = types.get(messages.len()).cloned() {
            let mut place = |inner: &MessageDescriptor| {
                *indices.entry(inner.full_name().to_owned()).or_insert_with(|| {
                    types.push(inner.clone());
                    types.len() - 1
                })
            };
            let mut fields: Vec<Field> = message.fields().map(|field| Field::new(&field, &mut place)).collect();
            fields.extend(message.extensions().map(|field| Field::of_extension(&field, &mut place)));
            fields.sort_by_key(|field| field.number);
            messages.push(fields);
        }
        Self { messages }
    }

    /// Whether `bytes` are such a message.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), Undecodable> {
        self.message(0, &mut Reader::new(bytes), MAX_DEPTH, None).map_err(|mut found| {
            found.names.reverse();
            Undecodable { field: found.names.join("."), fault: found.fault }
        })
    }

    /// Reads a message to the end of the bytes, or to the end of the group `group`.
    fn message(&self, index: usize, reader: &mut Reader<'_>, depth: u32, group: Option<u32>) -> Result<(), Found<'_>> {
        let fields = self.messages.get(index).map_or(&[][..], Vec::as_slice);
        while !reader.is_at_end() {
            let (number, wire_type) = reader.tag()?;
            if wire_type == WireType::EndGroup {
                return if group == Some(number) { Ok(()) } else { Err(WireFault::Group.into()) };
            }
            match fields.binary_search_by_key(&number, |field| field.number).ok().and_then(|at| fields.get(at)) {
                Some(field) => {
                    self.field(field, reader, wire_type, depth).map_err(|found| found.within(&field.name))?
                }
                None => reader.skip(number, wire_type, depth)?,
            }
        }
        if group.is_some() { Err(WireFault::Truncated.into()) } else { Ok(()) }
    }

    fn field(&self, field: &Field, reader: &mut Reader<'_>, wire_type: WireType, depth: u32) -> Result<(), Found<'_>> {
        match (field.form, wire_type) {
            (Form::Varint, WireType::Varint) => reader.varint().map(drop)?,
            (Form::Fixed32, WireType::Fixed32) => reader.take(4).map(drop)?,
            (Form::Fixed64, WireType::Fixed64) => reader.take(8).map(drop)?,
            (Form::Bytes, WireType::Delimited) => reader.delimited().map(drop)?,
            (Form::Text, WireType::Delimited) => {
                std::str::from_utf8(reader.delimited()?).map_err(|_| WireFault::Text)?;
            }
            (form, WireType::Delimited) if field.is_packable => packed(form, reader.delimited()?)?,
            (Form::Entry(index), WireType::Delimited) => {
                self.message(index, &mut Reader::new(reader.delimited()?), depth, None)?;
            }
            (Form::Message(index), WireType::Delimited) => {
                let inner = depth.checked_sub(1).ok_or(WireFault::Depth)?;
                self.message(index, &mut Reader::new(reader.delimited()?), inner, None)?;
            }
            (Form::Group(index), WireType::StartGroup) => {
                let inner = depth.checked_sub(1).ok_or(WireFault::Depth)?;
                self.message(index, reader, inner, Some(field.number))?;
            }
            _ => return Err(WireFault::Type.into()),
        }
        Ok(())
    }
}

/// Several values in one run of bytes.
fn packed(form: Form, bytes: &[u8]) -> Result<(), WireFault> {
    let width = match form {
        Form::Fixed32 => 4,
        Form::Fixed64 => 8,
        _ => {
            let mut reader = Reader::new(bytes);
            while !reader.is_at_end() {
                reader.varint()?;
            }
            return Ok(());
        }
    };
    if bytes.len().is_multiple_of(width) { Ok(()) } else { Err(WireFault::Truncated) }
}

impl Field {
    fn new(field: &FieldDescriptor, place: &mut impl FnMut(&MessageDescriptor) -> usize) -> Self {
        let form = form(&field.kind(), field.is_group(), field.is_map(), place);
        Self { number: field.number(), name: field.name().to_owned(), form, is_packable: packs(form, field.is_list()) }
    }

    fn of_extension(field: &ExtensionDescriptor, place: &mut impl FnMut(&MessageDescriptor) -> usize) -> Self {
        let form = form(&field.kind(), field.is_group(), field.is_map(), place);
        let name = format!("[{}]", field.full_name());
        Self { number: field.number(), name, form, is_packable: packs(form, field.is_list()) }
    }
}

fn packs(form: Form, is_list: bool) -> bool {
    is_list && matches!(form, Form::Varint | Form::Fixed32 | Form::Fixed64)
}

fn form(kind: &Kind, is_group: bool, is_map: bool, place: &mut impl FnMut(&MessageDescriptor) -> usize) -> Form {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Form::Fixed64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Form::Fixed32,
        Kind::String => Form::Text,
        Kind::Bytes => Form::Bytes,
        Kind::Message(message) if is_group => Form::Group(place(message)),
        Kind::Message(message) if is_map => Form::Entry(place(message)),
        Kind::Message(message) => Form::Message(place(message)),
        _ => Form::Varint,
    }
}

/// A fault on its way out, with the names of the fields from the innermost one.
struct Found<'a> {
    names: Vec<&'a str>,
    fault: WireFault,
}

impl<'a> Found<'a> {
    fn within(mut self, name: &'a str) -> Self {
        self.names.push(name);
        self
    }
}

impl From<WireFault> for Found<'_> {
    fn from(fault: WireFault) -> Self {
        Self { names: Vec::new(), fault }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Chance};
    use super::*;
    use prost_reflect::DynamicMessage;
    use prost_reflect::prost::Message;

    const TYPES: &str = "syntax = \"proto2\"; message M { optional string s = 1; optional int32 i = 2; \
        repeated sint64 l = 3 [packed = true]; repeated fixed32 f = 4; optional M m = 5; repeated double d = 6; \
        optional group G = 7 { optional bytes b = 8; optional M m = 9; } optional bool o = 10; \
        repeated string t = 11; extensions 100 to 200; } \
        extend M { optional string x = 100; } \
        message N { map<string, M> m = 1; optional M n = 2; }";

    fn shape(name: &str) -> (MessageDescriptor, Shape) {
        let message = samples::compiled(TYPES).get_message_by_name(name).unwrap();
        let shape = Shape::new(&message);
        (message, shape)
    }

    fn at(bytes: &[u8]) -> (String, WireFault) {
        let found = shape("M").1.check(bytes).unwrap_err();
        (found.field, found.fault)
    }

    #[test]
    fn faults_have_a_path() {
        assert_eq!(at(&[0x0a, 1, 0xff]), ("s".to_owned(), WireFault::Text));
        assert_eq!(at(&[0x2a, 3, 0x0a, 1, 0xff]), ("m.s".to_owned(), WireFault::Text));
        assert_eq!(at(&[0x3b, 0x4a, 2, 0x10, 0x80]), ("g.m.i".to_owned(), WireFault::Truncated));
        assert_eq!(at(&[0x3b]), ("g".to_owned(), WireFault::Truncated));
        assert_eq!(at(&[0x12, 0]), ("i".to_owned(), WireFault::Type));
        assert_eq!(at(&[0x22, 3, 0, 0, 0]), ("f".to_owned(), WireFault::Truncated));
        assert_eq!(at(&[0xa2, 0x06, 1, 0xff]), ("[x]".to_owned(), WireFault::Text));
        assert_eq!(at(&[0x06]), (String::new(), WireFault::Tag));
        assert_eq!(at(&[0x44]), (String::new(), WireFault::Group));
        assert_eq!(at(&[0x0b; 100_000]).1, WireFault::Type);
        assert_eq!(at(&[0xfb, 0x01].repeat(100_000)).1, WireFault::Depth);
    }

    #[test]
    fn depth_is_counted_as_prost_does() {
        let (message, shape) = shape("M");
        for depth in [99, 100, 101, 102, 5000] {
            let mut bytes = Vec::new();
            for _ in 0..depth {
                let mut outer = Vec::new();
                super::super::wire::put_delimited(5, &bytes, &mut outer);
                bytes = outer;
            }
            let oracle = DynamicMessage::decode(message.clone(), bytes.as_slice()).is_ok();
            assert_eq!(shape.check(&bytes).is_ok(), oracle, "depth {depth}");
            assert_eq!(oracle, depth <= 100);
        }
    }

    #[test]
    fn it_finds_what_decoding_finds() {
        let mut chance = Chance::new(1);
        let (message, shape) = shape("M");
        let mut seen = [0_usize; 2];
        for _ in 0..20_000 {
            let mut bytes = samples::message(&message, &mut chance, 3).encode_to_vec();
            assert_eq!(shape.check(&bytes), Ok(()));
            samples::damage(&mut bytes, &mut chance);
            let oracle = DynamicMessage::decode(message.clone(), bytes.as_slice());
            let ours = shape.check(&bytes);
            assert_eq!(ours.is_ok(), oracle.is_ok(), "{bytes:02x?}: {ours:?}, {oracle:?}");
            seen[usize::from(oracle.is_ok())] += 1;
        }
        assert!(seen.iter().all(|count| *count > 2000), "{seen:?}");
    }

    #[test]
    fn what_passes_decodes_with_maps_too() {
        let mut chance = Chance::new(2);
        let (message, shape) = shape("N");
        for _ in 0..5000 {
            let mut bytes = samples::message(&message, &mut chance, 3).encode_to_vec();
            assert_eq!(shape.check(&bytes), Ok(()));
            samples::damage(&mut bytes, &mut chance);
            if shape.check(&bytes).is_ok() {
                DynamicMessage::decode(message.clone(), bytes.as_slice()).unwrap();
            }
        }
    }
}
