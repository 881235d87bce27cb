//! Descriptor sets with editions, made into ones that say the same in proto2.
//!
//! An edition is a set of defaults for features, which files, fields and enums may override
//! (<https://protobuf.dev/editions/features/>). What matters on the wire and in a table is said in proto2 too: a label,
//! a group, a packed option. Only a field that has no presence has no word there: it keeps its feature, and
//! [`is_implicit`] finds it.

use std::collections::BTreeMap;

use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage as _, Value};

use super::fault::{ProtoFault, ProtoFaultKind};

/// The editions that are known: 2023 and 2024, which do not differ on the wire.
const EDITIONS: std::ops::RangeInclusive<i32> = 1000..=1001;

/// `FieldDescriptorProto.Label` and `.Type`.
const LABEL_REQUIRED: i32 = 2;
const LABEL_REPEATED: i32 = 3;
const TYPE_GROUP: i32 = 10;
const TYPE_MESSAGE: i32 = 11;
/// Strings and bytes, which are never packed.
const UNPACKED: [i32; 4] = [9, TYPE_GROUP, TYPE_MESSAGE, 12];

/// `FeatureSet.FieldPresence`, `.RepeatedFieldEncoding`, `.MessageEncoding`.
const IMPLICIT: i32 = 2;
const LEGACY_REQUIRED: i32 = 3;
const PACKED: i32 = 1;
const DELIMITED: i32 = 2;

/// The features that matter here; both editions begin so.
#[derive(Debug, Clone, Copy)]
struct Features {
    presence: i32,
    repeated: i32,
    encoding: i32,
}

impl Features {
    const EDITION: Features = Features { presence: 1, repeated: PACKED, encoding: 1 };

    /// With what the options of a file or a field override.
    fn with(mut self, options: Option<&DynamicMessage>) -> Self {
        let Some(features) = options.and_then(|options| message(options, "features")) else { return self };
        let places = [
            ("field_presence", &mut self.presence),
            ("repeated_field_encoding", &mut self.repeated),
            ("message_encoding", &mut self.encoding),
        ];
        for (name, place) in places {
            *place = number(&features, name).filter(|number| *number != 0).unwrap_or(*place);
        }
        self
    }
}

/// The set without editions: `None` when it has none.
///
/// # Errors
/// An edition that is not known, named with its file; bytes that are no descriptor set.
pub(super) fn lowered(bytes: &[u8]) -> Result<Option<Vec<u8>>, ProtoFault> {
    let invalid = |error: prost_reflect::prost::DecodeError| {
        ProtoFault::new(ProtoFaultKind::Invalid, format!("not a descriptor set: {error}"))
    };
    let set = FileDescriptorSet::default();
    if !FileDescriptorSet::decode(bytes).map_err(invalid)?.file.iter().any(|file| file.syntax() == "editions") {
        return Ok(None);
    }
    let mut set = DynamicMessage::decode(set.descriptor(), bytes).map_err(invalid)?;
    for file in list(&mut set, "file") {
        if text(file, "syntax") != "editions" {
            continue;
        }
        let edition = number(file, "edition").unwrap_or(0);
        if !EDITIONS.contains(&edition) {
            let message = format!("edition {edition} of the descriptor is not supported: use 2023 or 2024");
            return Err(ProtoFault::new(ProtoFaultKind::Editions, message).in_file(text(file, "name")));
        }
        lower_file(file);
    }
    Ok(Some(set.encode_to_vec()))
}

/// The set with these files, by name, marked as of that edition.
///
/// # Errors
/// Bytes that are no descriptor set.
pub(super) fn marked(bytes: Vec<u8>, editions: &BTreeMap<String, i32>) -> Result<Vec<u8>, ProtoFault> {
    if editions.is_empty() {
        return Ok(bytes);
    }
    let set = FileDescriptorSet::default();
    let mut set = DynamicMessage::decode(set.descriptor(), &bytes[..])
        .map_err(|e| ProtoFault::new(ProtoFaultKind::Invalid, format!("not a descriptor set: {e}")))?;
    for file in list(&mut set, "file") {
        if let Some(edition) = editions.get(&text(file, "name")) {
            file.set_field_by_name("syntax", Value::String("editions".to_string()));
            file.set_field_by_name("edition", Value::EnumNumber(*edition));
        }
    }
    Ok(set.encode_to_vec())
}

/// Whether a field of a lowered set has no presence.
pub(super) fn is_implicit(field: &FieldDescriptor) -> bool {
    let features = message(&field.options(), "features");
    features.is_some_and(|features| number(&features, "field_presence") == Some(IMPLICIT))
}

fn lower_file(file: &mut DynamicMessage) {
    let features = Features::EDITION.with(message(file, "options").as_ref());
    file.set_field_by_name("syntax", Value::String("proto2".to_string()));
    file.clear_field_by_name("edition");
    forget_features(file);
    list(file, "enum_type").for_each(lower_enum);
    list(file, "extension").for_each(|field| lower_field(field, features, false));
    list(file, "message_type").for_each(|message| lower_message(message, features));
}

fn lower_message(message: &mut DynamicMessage, features: Features) {
    let maps: Vec<String> =
        list(message, "nested_type").filter(|nested| is_map_entry(nested)).map(|nested| text(nested, "name")).collect();
    let is_entry = is_map_entry(message);
    forget_features(message);
    list(message, "oneof_decl").for_each(forget_features);
    list(message, "enum_type").for_each(lower_enum);
    for name in ["field", "extension"] {
        for field in list(message, name) {
            let of_map = is_entry || maps.iter().any(|map| text(field, "type_name").ends_with(&format!(".{map}")));
            lower_field(field, features, of_map);
        }
    }
    list(message, "nested_type").for_each(|nested| lower_message(nested, features));
}

fn lower_enum(of: &mut DynamicMessage) {
    forget_features(of);
    list(of, "value").for_each(forget_features);
}

fn lower_field(field: &mut DynamicMessage, features: Features, of_map: bool) {
    let features = features.with(message(field, "options").as_ref());
    forget_features(field);
    let (label, kind) = (number(field, "label").unwrap_or(1), number(field, "type").unwrap_or(0));
    if features.presence == LEGACY_REQUIRED && label != LABEL_REPEATED {
        field.set_field_by_name("label", Value::EnumNumber(LABEL_REQUIRED));
    }
    if features.encoding == DELIMITED && kind == TYPE_MESSAGE && !of_map {
        field.set_field_by_name("type", Value::EnumNumber(TYPE_GROUP));
    }
    if label == LABEL_REPEATED && !UNPACKED.contains(&kind) {
        set_option(field, "packed", Value::Bool(features.repeated == PACKED));
    }
    let singular = label != LABEL_REPEATED && kind != TYPE_MESSAGE && kind != TYPE_GROUP;
    if features.presence == IMPLICIT && singular && !field.has_field_by_name("oneof_index") && !of_map {
        let Some(mut options) = message_or_new(field, "options") else { return };
        let Some(mut kept) = message_or_new(&options, "features") else { return };
        kept.set_field_by_name("field_presence", Value::EnumNumber(IMPLICIT));
        options.set_field_by_name("features", Value::Message(kept));
        field.set_field_by_name("options", Value::Message(options));
    }
}

fn is_map_entry(message: &DynamicMessage) -> bool {
    let options = self::message(message, "options");
    options.is_some_and(|options| options.get_field_by_name("map_entry").is_some_and(|v| v.as_bool() == Some(true)))
}

/// Takes the features out of something's options.
fn forget_features(of: &mut DynamicMessage) {
    if let Some(mut options) = message(of, "options") {
        options.clear_field_by_name("features");
        of.set_field_by_name("options", Value::Message(options));
    }
}

fn set_option(of: &mut DynamicMessage, name: &str, value: Value) {
    let Some(mut options) = message_or_new(of, "options") else { return };
    options.set_field_by_name(name, value);
    of.set_field_by_name("options", Value::Message(options));
}

/// A message in a field, if it is there.
fn message(of: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    if !of.has_field_by_name(name) {
        return None;
    }
    of.get_field_by_name(name)?.as_message().cloned()
}

/// A message in a field, an empty one if it is not there.
fn message_or_new(of: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    of.get_field_by_name(name)?.as_message().cloned()
}

fn number(of: &DynamicMessage, name: &str) -> Option<i32> {
    if !of.has_field_by_name(name) {
        return None;
    }
    let value = of.get_field_by_name(name)?;
    value.as_enum_number().or_else(|| value.as_i32())
}

fn text(of: &DynamicMessage, name: &str) -> String {
    of.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

/// The messages of a repeated field.
fn list<'a>(of: &'a mut DynamicMessage, name: &str) -> impl Iterator<Item = &'a mut DynamicMessage> {
    let items = of.get_field_by_name_mut(name).and_then(Value::as_list_mut);
    items.into_iter().flatten().filter_map(Value::as_message_mut)
}

#[cfg(test)]
mod tests {
    use crate::decode::{Decoder, Selection};
    use crate::schema::{Descriptors, Label, MessageShape, ProtoFaultKind};
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;

    fn read(name: &str) -> Descriptors {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/editions").join(name);
        Descriptors::from_set(&std::fs::read(path).unwrap()).unwrap_or_else(|fault| panic!("{fault}"))
    }

    fn labels(shape: &MessageShape) -> Vec<(&str, &Label, bool)> {
        shape.fields.iter().map(|field| (field.name.as_str(), &field.label, field.group)).collect()
    }

    #[test]
    fn fields_are_what_their_features_say() {
        let shape = MessageShape::of(&read("events.binpb").message("events.v1.Event").unwrap()).unwrap();
        let got = labels(&shape);
        assert_eq!(
            got[..4],
            [
                ("id", &Label::Optional, false),
                ("count", &Label::Implicit, false),
                ("account", &Label::Required, false),
                ("place", &Label::Optional, true),
            ]
        );
        assert_eq!(got[4..6], [("packed", &Label::Repeated, false), ("loose", &Label::Repeated, false)]);
        assert!(matches!(got[6], ("places", Label::Map(_), false)));
        assert_eq!(
            got[7..],
            [
                ("kind", &Label::Optional, false),
                ("number", &Label::Optional, false),
                ("there", &Label::Optional, true),
                ("implicit_kind", &Label::Implicit, false),
                ("closed", &Label::Optional, false),
            ]
        );
    }

    #[test]
    fn a_files_features_hold_for_all_of_it_but_maps() {
        let shape = MessageShape::of(&read("all_implicit.binpb").message("all.v1.All").unwrap()).unwrap();
        let got = labels(&shape);
        assert_eq!(got[..2], [("a", &Label::Implicit, false), ("inner", &Label::Optional, true)]);
        assert!(matches!(got[2], ("named", Label::Map(_), false)));
        assert_eq!(got[3..], [("many", &Label::Repeated, true), ("b", &Label::Optional, false)]);
    }

    #[test]
    fn a_text_is_read_as_protocs_descriptor_set_of_it() {
        for (name, message) in [("events", "events.v1.Event"), ("all_implicit", "all.v1.All")] {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/editions");
            let path = dir.join(format!("{name}.proto"));
            let text = Descriptors::compile(&[path], &[dir]).unwrap_or_else(|fault| panic!("{fault}"));
            let shape = |of: &Descriptors| MessageShape::of(&of.message(message).unwrap()).unwrap();
            assert_eq!(shape(&text), shape(&read(&format!("{name}.binpb"))));
            // It stays one with editions where it is kept.
            assert_eq!(shape(&Descriptors::from_set(text.encoded()).unwrap()), shape(&text));
            assert!(text.encoded().windows(8).any(|bytes| bytes == b"editions"));
        }
    }

    #[test]
    fn records_are_decoded_by_them() {
        let message = read("events.binpb").message("events.v1.Event").unwrap();
        let names = ["id", "count", "place"];
        let mut decoder = Decoder::new(&message, &names, &Selection::All).unwrap();
        // place (4) as a group with name (1) = "x", then nothing but the required account, which is not read here.
        decoder.push(&[0x23, 0x0a, 1, b'x', 0x24]).unwrap();
        decoder.push(&[0x1a, 1, b'a']).unwrap();
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.column(1).as_primitive::<Int32Type>().values(), &[0, 0]);
        assert_eq!(
            batch.column(2).as_struct().column(0).as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("x"), None]
        );
        assert_eq!(batch.column(0).null_count(), 2);
        let mut whole = Decoder::new(&message, &["account"], &Selection::All).unwrap();
        assert_eq!(whole.push(&[]).unwrap_err().reason.as_str(), "missing");
    }

    #[test]
    fn the_set_keeps_its_bytes_and_unknown_editions_are_named() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/editions/events.binpb");
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(Descriptors::from_set(&bytes).unwrap().encoded(), bytes);
        // Edition 2023 is 1000, the varint e8 07, in field 14: 1100 is not an edition.
        let at = bytes.windows(3).position(|w| w == [0x70, 0xe8, 0x07]).unwrap();
        let mut later = bytes;
        later[at + 1] = 0xcc;
        later[at + 2] = 0x08;
        let fault = Descriptors::from_set(&later).unwrap_err();
        assert_eq!(fault.kind, ProtoFaultKind::Editions);
        assert!(fault.message.contains("edition 1100"), "{fault}");
    }
}
