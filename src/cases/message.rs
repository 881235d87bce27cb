//! A record's value as it is written in a case, in proto JSON, to the bytes of its message.

use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MessageDescriptor, Value};
use serde_json::{Map, Value as Json};

use super::yaml::{Kind, Node};
use crate::pipeline::{Fault, Faults, SourceText, did_you_mean};

/// Names of an enum that a remedy tells at most.
const MOST_NAMES: usize = 20;

/// The bytes of the message that `node` tells; what it tells wrongly is among `faults`.
pub(super) fn encode(source: &SourceText, node: &Node, message: &MessageDescriptor, faults: &mut Faults) -> Vec<u8> {
    build(source, node, message, faults).encode_to_vec()
}

fn build(source: &SourceText, node: &Node, descriptor: &MessageDescriptor, faults: &mut Faults) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let Kind::Map { entries, .. } = &node.kind else {
        let fault = Fault::new(source, &node.place, format!("this is no message {}", descriptor.full_name()));
        faults.push(fault.remedy("write a mapping of its fields"));
        return message;
    };
    for (key, value) in entries {
        let name = key.text().unwrap_or_default();
        let Some(field) = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name)) else {
            let fields: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            let known = || format!("it has {}", fields.join(", "));
            let remedy = did_you_mean(name, fields.iter().map(String::as_str)).unwrap_or_else(known);
            let text = format!("message {} has no field `{name}`", descriptor.full_name());
            faults.push(Fault::new(source, &key.place, text).remedy(remedy));
            continue;
        };
        let rival = field.containing_oneof().and_then(|of| of.fields().find(|other| message.has_field(other)));
        if let Some(rival) =
            rival.filter(|_| !value.is_null()).or_else(|| message.has_field(&field).then(|| field.clone()))
        {
            let text =
                format!("field `{}` is here, and `{}` was before: there can be one of the two", name, rival.name());
            faults.push(Fault::new(source, &key.place, text).remedy("keep one of them"));
            continue;
        }
        if value.is_null() && !is_value(&field) {
            continue;
        }
        if let Some(built) = build_field(source, value, descriptor, &field, faults) {
            message.set_field(&field, built);
        }
    }
    message
}

fn build_field(
    source: &SourceText,
    node: &Node,
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    faults: &mut Faults,
) -> Option<Value> {
    match (ours(field), &node.kind) {
        (Some(inner), Kind::Map { .. }) if !field.is_list() && !field.is_map() => {
            Some(Value::Message(build(source, node, &inner, faults)))
        }
        (Some(inner), Kind::List { items, .. }) if field.is_list() => {
            let messages = items.iter().map(|item| Value::Message(build(source, item, &inner, faults)));
            Some(Value::List(messages.collect()))
        }
        _ => {
            // The library knows the rest of proto JSON.
            let object = Map::from_iter([(field.json_name().to_owned(), json(node, field))]);
            match DynamicMessage::deserialize(message.clone(), Json::Object(object)) {
                Ok(message) => Some(message.get_field(field).into_owned()),
                Err(error) => {
                    let text = format!("field `{}` does not hold this: {error}", field.name());
                    let remedy = format!("write {}, as proto JSON has it", kind_in_words(field));
                    faults.push(Fault::new(source, &node.place, text).remedy(remedy));
                    None
                }
            }
        }
    }
}

/// The message of a field that is written field by field: not one that JSON has a form of its own for.
fn ours(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        FieldKind::Message(inner) if !field.is_map() && !inner.full_name().starts_with("google.protobuf.") => {
            Some(inner)
        }
        _ => None,
    }
}

/// Whether a null is a value of the field: `google.protobuf.Value`.
fn is_value(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), FieldKind::Message(inner) if inner.full_name() == "google.protobuf.Value")
}

/// A value for a field: text stays text, whatever it looks like.
fn json(node: &Node, field: &FieldDescriptor) -> Json {
    let is_text = match field.kind() {
        FieldKind::String | FieldKind::Bytes => true,
        FieldKind::Message(inner) => {
            matches!(inner.full_name(), "google.protobuf.StringValue" | "google.protobuf.Timestamp")
        }
        _ => false,
    };
    match &node.kind {
        Kind::Scalar { text, .. } if is_text && !node.is_null() => Json::String(text.clone()),
        Kind::List { items, .. } if field.is_list() => {
            Json::Array(items.iter().map(|item| json(item, field)).collect())
        }
        Kind::Map { entries, .. } if field.is_map() => match field.kind() {
            FieldKind::Message(entry) => {
                let of = entry.map_entry_value_field();
                let pair = |(key, value): &(Node, Node)| (key.text().unwrap_or_default().to_owned(), json(value, &of));
                Json::Object(entries.iter().map(pair).collect())
            }
            _ => node.json(),
        },
        Kind::Scalar { plain: true, .. } => match node.json() {
            Json::String(text) if text == "inf" => Json::String("Infinity".into()),
            Json::String(text) if text == "-inf" => Json::String("-Infinity".into()),
            value => value,
        },
        _ => node.json(),
    }
}

fn kind_in_words(field: &FieldDescriptor) -> String {
    let one = match field.kind() {
        FieldKind::Bool => "true or false".to_owned(),
        FieldKind::String => "a text".to_owned(),
        FieldKind::Bytes => "base64".to_owned(),
        FieldKind::Enum(of) => {
            let names: Vec<String> = of.values().take(MOST_NAMES).map(|value| value.name().to_owned()).collect();
            format!("a name of {}: {}", of.full_name(), names.join(", "))
        }
        FieldKind::Message(of) if of.full_name() == "google.protobuf.Timestamp" => {
            "a time as 2026-01-31T08:00:00Z".to_owned()
        }
        FieldKind::Message(of) if of.full_name() == "google.protobuf.Duration" => "a duration as 1.5s".to_owned(),
        FieldKind::Message(of) => format!("a {}", of.full_name()),
        kind => format!("a number of type {kind:?}").to_lowercase(),
    };
    match () {
        () if field.is_map() => "a mapping".to_owned(),
        () if field.is_list() => format!("a list, each {one}"),
        () => one,
    }
}
