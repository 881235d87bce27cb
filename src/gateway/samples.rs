//! What the tests share: compiled texts, the ads of the documentation, random messages.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, Value};

use crate::schema::{Descriptors, ProtoFault};

fn compile(text: &str) -> Result<DescriptorPool, ProtoFault> {
    let texts = BTreeMap::from([("main.proto".to_owned(), text.to_owned())]);
    Ok(Descriptors::from_texts("main.proto", texts)?.pool().clone())
}

/// A text, compiled.
pub(super) fn compiled(text: &str) -> DescriptorPool {
    compile(text).unwrap()
}

/// Why a text does not compile.
pub(super) fn refused(text: &str) -> String {
    compile(text).unwrap_err().to_string()
}

/// `proto/ads/v1/ads.proto`, compiled.
pub(super) fn ads() -> DescriptorPool {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/ads/v1/ads.proto");
    Descriptors::compile(&[file], &[]).unwrap().pool().clone()
}

/// A text with all imports that a gateway's file may need, compiled.
pub(super) fn with_imports(text: &str) -> DescriptorPool {
    compiled(&imports(text))
}

/// A text after all imports that a gateway's file may need.
pub(super) fn imports(text: &str) -> String {
    format!(
        "syntax = \"proto3\"; package t; import \"buf/validate/validate.proto\"; \
         import \"flumen/v1/gateway.proto\"; import \"google/protobuf/timestamp.proto\"; \
         import \"google/protobuf/duration.proto\"; import \"google/protobuf/wrappers.proto\"; {text}"
    )
}

/// Random numbers from a seed.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }
}

/// A random message of that type.
pub(super) fn message(of: &MessageDescriptor, chance: &mut Chance, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        if chance.below(3) == 0 || (depth == 0 && field.kind().as_message().is_some()) {
            continue;
        }
        let value = if field.is_map() {
            let kind = field.kind();
            let value = kind.as_message().unwrap().map_entry_value_field().kind();
            let entries = (0..chance.below(3)).map(|n| (MapKey::String(n.to_string()), one(&value, chance, depth)));
            Value::Map(entries.collect::<HashMap<_, _>>())
        } else if field.cardinality() == Cardinality::Repeated {
            Value::List((0..chance.below(4)).map(|_| one(&field.kind(), chance, depth)).collect())
        } else {
            one(&field.kind(), chance, depth)
        };
        message.set_field(&field, value);
    }
    message
}

fn one(kind: &Kind, chance: &mut Chance, depth: usize) -> Value {
    let number = chance.next() >> chance.below(64);
    match kind {
        Kind::Double => Value::F64(number as f64),
        Kind::Float => Value::F32(number as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number),
        Kind::Bool => Value::Bool(number & 1 == 1),
        Kind::String => Value::String(["", "a", "zü", "ads-00042"][chance.below(4)].to_owned()),
        Kind::Bytes => Value::Bytes(number.to_le_bytes().to_vec().into()),
        Kind::Message(inner) => Value::Message(message(inner, chance, depth.saturating_sub(1))),
        Kind::Enum(_) => Value::EnumNumber(number as i32 & 1),
    }
}

/// Flips bytes, cuts, or puts bytes in.
pub(super) fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(2) {
        if bytes.is_empty() || chance.below(8) == 0 {
            let at = chance.below(bytes.len() + 1);
            bytes.insert(at, chance.next() as u8);
        } else if chance.below(8) == 0 {
            bytes.truncate(chance.below(bytes.len()));
        } else {
            let at = chance.below(bytes.len());
            bytes[at] = chance.next() as u8;
        }
    }
}
