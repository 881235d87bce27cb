//! Two versions of a message compared, field by field: what an older writer's records or an older reader's query mean
//! under the newer one. Fields are the same field when they have the same number, as on the wire.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::shape::{EnumShape, FieldShape, Label, MessageShape, Scalar, ValueShape};

/// A difference between two versions of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The path of the field: its new name where it has one, such as `placement.slot`.
    pub field: String,
    /// What kind of difference it is.
    pub rule: Rule,
    /// The difference in words.
    pub what: String,
}

/// What kind of difference it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A field is new: older records do not have it.
    FieldAdded,
    /// A field has another name: the same on the wire.
    FieldRenamed,
    /// A field knows now, or no longer, whether it was set.
    PresenceChanged,
    /// An enum has a new value.
    EnumValueAdded,
    /// A field moved into a oneof, or out of one.
    OneofChanged,
    /// A field is gone: newer records do not have it.
    FieldRemoved,
    /// A name has another number: newer records hold it where nobody looks.
    FieldRenumbered,
    /// A field has a wider type: a change of type, but what was written as the old one is read right as the new one.
    TypeWidened,
    /// A field has another type.
    TypeChanged,
    /// A field is repeated now: one value is read as a list of one.
    RepetitionAdded,
    /// A field is no longer repeated, or it is now, or no longer, a map.
    RepetitionChanged,
    /// A field must be there now: older records without it are broken.
    RequiredAdded,
    /// A number of an enum has no name any more.
    EnumValueRemoved,
    /// A number of an enum has another name.
    EnumValueRenamed,
}

impl Rule {
    /// Whether records or queries of the older version are no longer understood.
    pub fn is_breaking(self) -> bool {
        self >= Rule::OneofChanged
    }

    /// Whether a record of the older version cannot be read as the newer one: what is read, by the numbers of the
    /// fields, would be wrong.
    pub fn is_misread(self) -> bool {
        matches!(self, Rule::TypeChanged | Rule::RepetitionChanged)
    }

    /// The rule as a short code that does not change.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::FieldAdded => "field_added",
            Rule::FieldRenamed => "field_renamed",
            Rule::PresenceChanged => "presence_changed",
            Rule::EnumValueAdded => "enum_value_added",
            Rule::OneofChanged => "oneof_changed",
            Rule::FieldRemoved => "field_removed",
            Rule::FieldRenumbered => "field_renumbered",
            Rule::TypeWidened | Rule::TypeChanged => "type_changed",
            Rule::RepetitionAdded | Rule::RepetitionChanged => "repetition_changed",
            Rule::RequiredAdded => "required_added",
            Rule::EnumValueRemoved => "enum_value_removed",
            Rule::EnumValueRenamed => "enum_value_renamed",
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

/// What differs from `old` to `new`, in the order of the old fields, then of the new ones.
pub fn changes(old: &MessageShape, new: &MessageShape) -> Vec<Change> {
    let mut found = Vec::new();
    message("", old, new, &mut found);
    found
}

fn message(path: &str, old: &MessageShape, new: &MessageShape, found: &mut Vec<Change>) {
    let by_number: BTreeMap<u32, &FieldShape> = new.fields.iter().map(|field| (field.number, field)).collect();
    for was in &old.fields {
        match by_number.get(&was.number) {
            Some(is) => field(&join(path, &is.name), was, is, found),
            None => {
                let place = join(path, &was.name);
                match new.fields.iter().find(|field| field.name == was.name) {
                    Some(is) => push(
                        found,
                        &place,
                        Rule::FieldRenumbered,
                        format!("field {} is now field {}", was.number, is.number),
                    ),
                    None => push(found, &place, Rule::FieldRemoved, format!("field {} is gone", was.number)),
                }
            }
        }
    }
    let is_new =
        |field: &&FieldShape| old.fields.iter().all(|was| was.number != field.number && was.name != field.name);
    for field in new.fields.iter().filter(is_new) {
        let rule = if field.label == Label::Required { Rule::RequiredAdded } else { Rule::FieldAdded };
        let what = format!("new field {}: {}", field.number, spelled(field));
        push(found, &join(path, &field.name), rule, what);
    }
}

fn field(path: &str, was: &FieldShape, is: &FieldShape, found: &mut Vec<Change>) {
    if was.name != is.name {
        push(found, path, Rule::FieldRenamed, format!("field {} was called {}", was.number, was.name));
    }
    if was.oneof.is_some() != is.oneof.is_some() {
        let what = if is.oneof.is_some() { "is now a member of a oneof" } else { "is no longer a member of a oneof" };
        push(found, path, Rule::OneofChanged, what.to_string());
    }
    label(path, was, is, found);
    value(path, was, is, found);
}

fn label(path: &str, was: &FieldShape, is: &FieldShape, found: &mut Vec<Change>) {
    let many = |label: &Label| matches!(label, Label::Repeated | Label::Map(_));
    let turned = matches!((&was.label, &is.label), (Label::Map(_), Label::Repeated) | (Label::Repeated, Label::Map(_)));
    if turned || many(&was.label) != many(&is.label) {
        let what = format!("was {}, is {}", spelled(was), spelled(is));
        let added = is.label == Label::Repeated && !many(&was.label);
        push(found, path, if added { Rule::RepetitionAdded } else { Rule::RepetitionChanged }, what);
    } else if let (Label::Map(was), Label::Map(is)) = (&was.label, &is.label) {
        if was != is {
            push(found, path, Rule::TypeChanged, format!("the keys were {}, are {}", scalar(*was), scalar(*is)));
        }
    } else if was.label != is.label {
        let rule = if is.label == Label::Required { Rule::RequiredAdded } else { Rule::PresenceChanged };
        push(found, path, rule, format!("was {}, is {}", presence(&was.label), presence(&is.label)));
    }
}

fn value(path: &str, was: &FieldShape, is: &FieldShape, found: &mut Vec<Change>) {
    let is_message = |value: &ValueShape| matches!(value, ValueShape::Message(_) | ValueShape::Empty);
    if was.group != is.group && (was.value == is.value || is_message(&was.value) && is_message(&is.value)) {
        push(found, path, Rule::TypeChanged, "is framed in another way (group or length)".to_string());
        return;
    }
    match (&was.value, &is.value) {
        (ValueShape::Message(was), ValueShape::Message(is)) => message(path, was, is, found),
        // A message without fields is one that has none of the other's.
        (ValueShape::Empty, ValueShape::Message(is)) => message(path, &without_fields(is), is, found),
        (ValueShape::Message(was), ValueShape::Empty) => message(path, was, &without_fields(was), found),
        (ValueShape::Enum(was), ValueShape::Enum(is)) => numbers(path, was, is, found),
        (a, b) if a == b => {}
        (a, b) => {
            let rule = if is_widened(a, b) { Rule::TypeWidened } else { Rule::TypeChanged };
            push(found, path, rule, format!("was {}, is {}", spelled(was), spelled(is)));
        }
    }
}

fn without_fields(message: &MessageShape) -> MessageShape {
    MessageShape { name: message.name.clone(), fields: Vec::new(), oneofs: 0 }
}

/// Whether the bytes of every `old` value are those of the same `new` value:
/// <https://protobuf.dev/programming-guides/proto3/#updating>, without the pairs that cut values off.
fn is_widened(old: &ValueShape, new: &ValueShape) -> bool {
    use Scalar::*;
    match (old, new) {
        (ValueShape::Scalar(old), ValueShape::Scalar(new)) => matches!(
            (old, new),
            (Bool, Int32 | Int64 | Uint32 | Uint64)
                | (Int32, Int64)
                | (Uint32, Int64 | Uint64)
                | (Sint32, Sint64)
                | (String, Bytes)
                // What is no text is refused.
                | (Bytes, String)
        ),
        (ValueShape::Enum(_), ValueShape::Scalar(Int32 | Int64)) => true,
        _ => false,
    }
}

fn numbers(path: &str, was: &EnumShape, is: &EnumShape, found: &mut Vec<Change>) {
    for (number, name) in &was.names {
        match is.names.iter().find(|(other, _)| other == number) {
            Some((_, other)) if other == name => {}
            Some((_, other)) => {
                push(found, path, Rule::EnumValueRenamed, format!("value {number} was {name}, is {other}"));
            }
            None => push(found, path, Rule::EnumValueRemoved, format!("value {number} ({name}) is gone")),
        }
    }
    for (number, name) in &is.names {
        if was.names.iter().all(|(other, _)| other != number) {
            push(found, path, Rule::EnumValueAdded, format!("new value {number} ({name})"));
        }
    }
}

fn push(found: &mut Vec<Change>, field: &str, rule: Rule, what: String) {
    found.push(Change { field: field.to_string(), rule, what });
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// The field's type as a `.proto` file says it.
fn spelled(field: &FieldShape) -> String {
    let value = match &field.value {
        ValueShape::Scalar(kind) => scalar(*kind).to_string(),
        ValueShape::Enum(_) | ValueShape::Case { .. } => "an enum".to_string(),
        ValueShape::Unknown => "what is not known".to_string(),
        ValueShape::Wrapper(kind) => format!("a wrapped {}", scalar(*kind)),
        ValueShape::Timestamp => "google.protobuf.Timestamp".to_string(),
        ValueShape::Duration => "google.protobuf.Duration".to_string(),
        ValueShape::Date => "google.type.Date".to_string(),
        ValueShape::TimeOfDay => "google.type.TimeOfDay".to_string(),
        ValueShape::JsonObject => "google.protobuf.Struct".to_string(),
        ValueShape::JsonValue => "google.protobuf.Value".to_string(),
        ValueShape::JsonList => "google.protobuf.ListValue".to_string(),
        ValueShape::Empty => "an empty message".to_string(),
        ValueShape::Recursive => "a message in itself".to_string(),
        ValueShape::Message(message) => message.name.clone(),
    };
    match &field.label {
        Label::Repeated => format!("repeated {value}"),
        Label::Map(key) => format!("map<{}, {value}>", scalar(*key)),
        _ => value,
    }
}

fn presence(label: &Label) -> &'static str {
    match label {
        Label::Implicit => "without presence (absent is the default)",
        Label::Optional => "optional (absent is NULL)",
        Label::Required => "required",
        Label::Repeated | Label::Map(_) => "repeated",
    }
}

fn scalar(kind: Scalar) -> &'static str {
    match kind {
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Sint32 => "sint32",
        Scalar::Sfixed32 => "sfixed32",
        Scalar::Uint32 => "uint32",
        Scalar::Fixed32 => "fixed32",
        Scalar::Int64 => "int64",
        Scalar::Sint64 => "sint64",
        Scalar::Sfixed64 => "sfixed64",
        Scalar::Uint64 => "uint64",
        Scalar::Fixed64 => "fixed64",
        Scalar::Float => "float",
        Scalar::Double => "double",
        Scalar::String => "string",
        Scalar::Bytes => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Descriptors;

    fn shape(body: &str) -> MessageShape {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.proto");
        std::fs::write(
            &path,
            format!(
                "syntax = \"proto3\";\nmessage M {{ {body} }}\nenum E {{ Z = 0; ONE = 1; }}\n\
            enum F {{ NULL = 0; TWO = 2; }}"
            ),
        )
        .unwrap();
        MessageShape::of(&Descriptors::compile(&[path], &[]).unwrap().message("M").unwrap()).unwrap()
    }

    fn told(old: &str, new: &str) -> Vec<(Rule, String)> {
        changes(&shape(old), &shape(new)).into_iter().map(|c| (c.rule, c.to_string())).collect()
    }

    #[test]
    fn every_difference_has_its_rule() {
        use Rule::*;
        for (old, new, rule, text) in [
            ("int32 a = 1;", "int32 a = 1; string b = 2;", FieldAdded, "b: new field 2: string"),
            ("int32 a = 1;", "int32 b = 1;", FieldRenamed, "b: field 1 was called a"),
            ("int32 a = 1;", "optional int32 a = 1;", PresenceChanged, "a: was without presence"),
            ("int32 a = 1;", "oneof o { int32 a = 1; }", OneofChanged, "a: is now a member of a oneof"),
            ("int32 a = 1; int32 b = 2;", "int32 b = 2;", FieldRemoved, "a: field 1 is gone"),
            ("int32 a = 1;", "int32 a = 2;", FieldRenumbered, "a: field 1 is now field 2"),
            ("int32 a = 1;", "int64 a = 1;", TypeWidened, "a: was int32, is int64"),
            ("int64 a = 1;", "int32 a = 1;", TypeChanged, "a: was int64, is int32"),
            ("sint32 a = 1;", "int32 a = 1;", TypeChanged, "a: was sint32, is int32"),
            ("int32 a = 1;", "repeated int32 a = 1;", RepetitionAdded, "a: was int32, is repeated int32"),
            ("repeated int32 a = 1;", "int32 a = 1;", RepetitionChanged, "a: was repeated int32, is int32"),
            ("bytes a = 1;", "string a = 1;", TypeWidened, "a: was bytes, is string"),
            ("message I {} I a = 1;", "message I { int32 x = 1; } I a = 1;", FieldAdded, "a.x: new field 1: int32"),
            ("message I { int32 x = 1; } I a = 1;", "message I {} I a = 1;", FieldRemoved, "a.x: field 1 is gone"),
            (
                "map<string, int32> a = 1;",
                "map<int32, int32> a = 1;",
                TypeChanged,
                "a: the keys were string, are int32",
            ),
            ("E a = 1;", "F a = 1;", EnumValueRenamed, "a: value 0 was Z, is NULL"),
            (
                "message I { int32 x = 1; } I a = 1;",
                "message I { string x = 1; } I a = 1;",
                TypeChanged,
                "a.x: was int32, is string",
            ),
        ] {
            let told = told(old, new);
            assert!(told.iter().any(|(r, t)| *r == rule && t.starts_with(text)), "{old} -> {new}: {told:?}");
        }
        let values: Vec<Rule> = told("E a = 1;", "F a = 1;").into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(values, [EnumValueRenamed, EnumValueRemoved, EnumValueAdded]);
        assert!(told("int32 a = 1; E e = 2;", "int32 a = 1; E e = 2;").is_empty());
    }

    #[test]
    fn groups_and_lengths_are_told_apart() {
        let edition = |option: &str| {
            let text = format!("edition = \"2023\"; message M {{ I a = 1 {option}; }} message I {{ int32 x = 1; }}");
            let texts = [("m".to_string(), text)].into();
            MessageShape::of(&Descriptors::from_texts("m", texts).unwrap().message("M").unwrap()).unwrap()
        };
        let found = changes(&edition(""), &edition("[features.message_encoding = DELIMITED]"));
        assert_eq!(found.iter().map(|c| c.rule).collect::<Vec<_>>(), [Rule::TypeChanged]);
    }

    #[test]
    fn what_older_records_and_queries_survive_is_not_breaking() {
        use Rule::*;
        let calm = [FieldAdded, FieldRenamed, PresenceChanged, EnumValueAdded];
        let breaking = [OneofChanged, FieldRemoved, FieldRenumbered, TypeChanged, RepetitionChanged, RequiredAdded];
        assert!(calm.iter().all(|rule| !rule.is_breaking()));
        assert!(breaking.iter().all(|rule| rule.is_breaking()));
    }
}
