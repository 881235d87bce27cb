//! Random message types and random messages of them, for the tests of who reads and who writes messages. Everything
//! follows from a seed.

use std::collections::{BTreeSet, HashMap};

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumOptions, EnumValueDescriptorProto, FieldDescriptorProto, FieldOptions,
    FileDescriptorProto, MessageOptions, OneofDescriptorProto,
};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number of a random length.
    pub fn number(&mut self) -> u64 {
        let shift = self.below(65);
        let value = self.next().checked_shr(shift as u32).unwrap_or(0);
        if self.chance(20) { value.wrapping_neg() } else { value }
    }
}

const SCALARS: [Type; 15] = [
    Type::Bool,
    Type::Int32,
    Type::Sint32,
    Type::Sfixed32,
    Type::Uint32,
    Type::Fixed32,
    Type::Int64,
    Type::Sint64,
    Type::Sfixed64,
    Type::Uint64,
    Type::Fixed64,
    Type::Float,
    Type::Double,
    Type::String,
    Type::Bytes,
];

/// Messages with columns of their own, in `google.protobuf` but for the last two.
const WELL_KNOWN: [&str; 20] = [
    "Struct",
    "Value",
    "ListValue",
    "FieldMask",
    "Timestamp",
    "Timestamp",
    "Duration",
    "Empty",
    "Any",
    "BoolValue",
    "Int32Value",
    "UInt32Value",
    "Int64Value",
    "UInt64Value",
    "FloatValue",
    "DoubleValue",
    "StringValue",
    "BytesValue",
    "Date",
    "TimeOfDay",
];

/// A file of a few messages that use each other, the first one being the topic's.
pub struct Types {
    pub proto3: bool,
    messages: usize,
}

impl Types {
    /// The descriptors; `flip` writes the packed fields unpacked and the other way around.
    pub fn message(seed: u64, flip: bool) -> MessageDescriptor {
        let mut dice = Dice(seed);
        let types = Types { proto3: dice.chance(60), messages: 1 + dice.below(4) };
        let mut file = FileDescriptorProto {
            name: Some("t.proto".into()),
            package: Some("t".into()),
            syntax: types.proto3.then(|| "proto3".into()),
            ..Default::default()
        };
        file.dependency = ["timestamp", "duration", "empty", "any", "wrappers", "struct", "field_mask"]
            .map(|name| format!("google/protobuf/{name}.proto"))
            .to_vec();
        file.enum_type.push(types.numbers());
        for index in 0..types.messages {
            file.message_type.push(types.describe(&mut dice, index, flip));
        }
        file.dependency.push("calendar.proto".into());
        let mut pool = DescriptorPool::global();
        pool.add_file_descriptor_proto(calendar()).unwrap();
        pool.add_file_descriptor_proto(file).unwrap();
        pool.get_message_by_name("t.M0").unwrap()
    }

    fn numbers(&self) -> EnumDescriptorProto {
        let values = [("ZERO", 0), ("ONE", 1), ("UNO", 1), ("MINUS", -1), ("FAR", 100_000)];
        let value = |(name, number): (&str, i32)| EnumValueDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            options: None,
        };
        EnumDescriptorProto {
            name: Some("E".into()),
            value: values.map(value).to_vec(),
            options: Some(EnumOptions { allow_alias: Some(true), ..Default::default() }),
            ..Default::default()
        }
    }

    fn describe(&self, dice: &mut Dice, index: usize, flip: bool) -> DescriptorProto {
        let mut message = DescriptorProto { name: Some(format!("M{index}")), ..Default::default() };
        let count = dice.below(9);
        let mut taken = BTreeSet::new();
        let oneof = dice.chance(50);
        if oneof {
            message.oneof_decl.push(OneofDescriptorProto { name: Some("pick".into()), options: None });
        }
        let mut optional = Vec::new();
        for at in 0..count {
            let number = match dice.below(10) {
                0 => 200 + dice.below(200) as i32,
                1 => *dice.pick(&[2047, 2048, 20_000, 536_870_911]),
                _ => 1 + dice.below(20) as i32,
            };
            if !taken.insert(number) {
                continue;
            }
            let mut field = FieldDescriptorProto {
                name: Some(format!("f{at}")),
                number: Some(number),
                label: Some(Label::Optional.into()),
                ..Default::default()
            };
            self.typed(dice, &mut field);
            match dice.below(10) {
                0..=2 => self.repeated(dice, &mut field, flip),
                3 => self.map(dice, &mut message, &mut field, index),
                4..=5 if oneof => field.oneof_index = Some(0),
                6 if self.proto3 => optional.push(message.field.len()),
                6 if dice.chance(40) => field.label = Some(Label::Required.into()),
                _ => {}
            }
            message.field.push(field);
        }
        if oneof && message.field.iter().all(|field| field.oneof_index.is_none()) {
            message.oneof_decl.clear(); // A oneof needs a member.
        }
        for at in optional {
            message.field[at].proto3_optional = Some(true);
            message.field[at].oneof_index = Some(message.oneof_decl.len() as i32);
            let name = Some(format!("_f{at}"));
            message.oneof_decl.push(OneofDescriptorProto { name, options: None });
        }
        message
    }

    fn typed(&self, dice: &mut Dice, field: &mut FieldDescriptorProto) {
        let (kind, name) = match dice.below(10) {
            0 => (Type::Enum, Some(".t.E".into())),
            1..=2 => (Type::Message, Some(format!(".t.M{}", dice.below(self.messages)))),
            3 if !self.proto3 && dice.chance(70) => (Type::Group, Some(format!(".t.M{}", dice.below(self.messages)))),
            3 if !self.proto3 => (Type::Group, Some(well_known(dice))),
            4 => (Type::Message, Some(well_known(dice))),
            _ => (*dice.pick(&SCALARS), None),
        };
        field.r#type = Some(kind.into());
        field.type_name = name;
    }

    fn repeated(&self, dice: &mut Dice, field: &mut FieldDescriptorProto, flip: bool) {
        field.label = Some(Label::Repeated.into());
        let packable = !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message | Type::Group);
        let packed = dice.chance(50);
        if packable {
            field.options = Some(FieldOptions { packed: Some(packed != flip), ..Default::default() });
        }
    }

    fn map(&self, dice: &mut Dice, message: &mut DescriptorProto, field: &mut FieldDescriptorProto, index: usize) {
        if field.r#type() == Type::Group {
            return;
        }
        let keys: Vec<Type> =
            SCALARS.iter().copied().filter(|t| !matches!(t, Type::Float | Type::Double | Type::Bytes)).collect();
        let entry = format!("F{}Entry", &field.name()[1..]);
        let part = |name: &str, number, kind: Type, type_name| FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            label: Some(Label::Optional.into()),
            r#type: Some(kind.into()),
            type_name,
            ..Default::default()
        };
        let key = part("key", 1, *dice.pick(&keys), None);
        let value = part("value", 2, field.r#type(), field.type_name.take());
        message.nested_type.push(DescriptorProto {
            name: Some(entry.clone()),
            field: vec![key, value],
            options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
            ..Default::default()
        });
        field.label = Some(Label::Repeated.into());
        field.r#type = Some(Type::Message.into());
        field.type_name = Some(format!(".t.M{index}.{entry}"));
    }
}

fn well_known(dice: &mut Dice) -> String {
    match *dice.pick(&WELL_KNOWN) {
        name @ ("Date" | "TimeOfDay") => format!(".google.type.{name}"),
        name => format!(".google.protobuf.{name}"),
    }
}

/// `google.type.Date` and `google.type.TimeOfDay`.
fn calendar() -> FileDescriptorProto {
    let message = |name: &str, fields: &[&str]| DescriptorProto {
        name: Some(name.into()),
        field: fields
            .iter()
            .zip(1..)
            .map(|(field, number)| FieldDescriptorProto {
                name: Some((*field).into()),
                number: Some(number),
                label: Some(Label::Optional.into()),
                r#type: Some(Type::Int32.into()),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    FileDescriptorProto {
        name: Some("calendar.proto".into()),
        package: Some("google.type".into()),
        syntax: Some("proto3".into()),
        message_type: vec![
            message("Date", &["year", "month", "day"]),
            message("TimeOfDay", &["hours", "minutes", "seconds", "nanos"]),
        ],
        ..Default::default()
    }
}

/// Which values random messages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All that the wire can carry, what is out of range and missing among it.
    Anything,
    /// Those that columns give back as they were. Messages in a message may stand in one column as their bytes, and
    /// reflection writes a map in any order: so their maps have one entry at most.
    Lasting,
}

/// The depth of a message that lies in no other one.
pub const DEPTH: usize = 4;

/// A random message.
pub fn message(dice: &mut Dice, wanted: Wanted, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let beyond = usize::from(wanted == Wanted::Anything);
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            message.set_field_by_name("seconds", Value::I64((dice.next() % 253_000_000_000) as i64 - 62_000_000_000));
            message.set_field_by_name("nanos", Value::I32(dice.below(1_000_000_000) as i32));
            return message;
        }
        "google.protobuf.Duration" => {
            let sign = if dice.chance(50) { -1 } else { 1 };
            message.set_field_by_name("seconds", Value::I64(sign * dice.below(300_000_000_000) as i64));
            message.set_field_by_name("nanos", Value::I32(sign as i32 * dice.below(1_000_000_000) as i32));
            return message;
        }
        "google.type.Date" | "google.type.TimeOfDay" => {
            let (hours, sixty) = (24 + beyond, 60 + beyond);
            let ends = [("year", 3000), ("month", 13), ("day", 30)];
            let ends = ends.into_iter().chain([("hours", hours), ("minutes", sixty), ("seconds", sixty)]);
            for (name, end) in ends.filter(|(name, _)| descriptor.get_field_by_name(name).is_some()) {
                if dice.chance(90) {
                    message.set_field_by_name(name, Value::I32(dice.below(end) as i32));
                }
            }
            return message;
        }
        _ => {}
    }
    for field in descriptor.fields() {
        let is_set = match wanted {
            Wanted::Anything => dice.chance(if field.is_required() { 95 } else { 70 }),
            Wanted::Lasting => field.is_required() || dice.chance(70),
        };
        if is_set && let Some(value) = field_value(dice, wanted, &field, depth) {
            message.set_field(&field, value);
        }
    }
    message
}

fn field_value(dice: &mut Dice, wanted: Wanted, field: &FieldDescriptor, depth: usize) -> Option<Value> {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let most = if wanted == Wanted::Anything || depth == DEPTH { 20 } else { 1 };
        let count = if dice.chance(10) { most } else { dice.below(4).min(most) };
        let pairs = (0..count).map(|_| Some((key_value(dice, &key), one(dice, wanted, &value, depth)?)));
        return Some(Value::Map(pairs.collect::<Option<HashMap<_, _>>>()?));
    }
    if field.is_list() {
        let items = (0..dice.below(5)).map(|_| one(dice, wanted, &field.kind(), depth));
        return Some(Value::List(items.collect::<Option<_>>()?));
    }
    one(dice, wanted, &field.kind(), depth)
}

fn key_value(dice: &mut Dice, kind: &Kind) -> MapKey {
    match one(dice, Wanted::Anything, kind, 0) {
        Some(Value::Bool(value)) => MapKey::Bool(value),
        Some(Value::I32(value)) => MapKey::I32(value),
        Some(Value::I64(value)) => MapKey::I64(value),
        Some(Value::U32(value)) => MapKey::U32(value),
        Some(Value::U64(value)) => MapKey::U64(value),
        Some(Value::String(value)) => MapKey::String(value),
        other => panic!("{other:?}"),
    }
}

fn one(dice: &mut Dice, wanted: Wanted, kind: &Kind, depth: usize) -> Option<Value> {
    let number = if dice.chance(15) { 0 } else { dice.number() };
    Some(match kind {
        Kind::Bool => Value::Bool(number & 1 == 1),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number),
        Kind::Float => Value::F32(f32::from_bits(number as u32)),
        Kind::Double => Value::F64(f64::from_bits(number)),
        Kind::String => {
            let pieces = ["", "a", "slot", "ö", "日本", "🦀", "a longer text of plain letters"];
            Value::String((0..dice.below(4)).map(|_| *dice.pick(&pieces)).collect())
        }
        Kind::Bytes => Value::Bytes((0..dice.below(9)).map(|_| dice.next() as u8).collect::<Vec<_>>().into()),
        Kind::Enum(_) => Value::EnumNumber(*dice.pick(&[0, 1, -1, 100_000, 2, -77])),
        Kind::Message(_) if depth == 0 => return None,
        Kind::Message(descriptor) => Value::Message(message(dice, wanted, descriptor, depth - 1)),
    })
}
