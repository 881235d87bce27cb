//! The response message: which of its fields are filled, and its bytes.

use bytes::Bytes;
use prost::encoding::encode_varint;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::wire::{put_delimited, put_number};

/// The fields of a response message that are filled. Each of them may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseLayout {
    code: Option<NumberField>,
    message: Option<u32>,
    topic: Option<u32>,
    partition: Option<NumberField>,
    offset: Option<NumberField>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NumberField {
    number: u32,
    form: NumberForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberForm {
    Varint,
    ZigZag,
    Fixed32,
    Fixed64,
}

/// What is said of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The gRPC status code.
    pub(super) code: i32,
    pub(super) message: &'a str,
    /// The topic, the partition and the offset, when it is published.
    pub(super) place: Option<(&'a str, i32, i64)>,
}

impl ResponseLayout {
    /// The layout of that message; each field that is of a wrong type is a fault.
    pub(super) fn new(message: &MessageDescriptor, faults: &mut Vec<String>) -> Self {
        let mut number = |name: &str, is_wide: bool| {
            let field = message.get_field_by_name(name)?;
            let form = number_form(&field, is_wide);
            if form.is_none() {
                let wanted = if is_wide { "an integer of 64 bits" } else { "an integer" };
                faults.push(wrong_type(&field, wanted));
            }
            Some(NumberField { number: field.number(), form: form? })
        };
        let (code, partition, offset) = (number("code", false), number("partition", false), number("offset", true));
        let mut text = |name: &str| {
            let field = message.get_field_by_name(name)?;
            let is_text = matches!(field.kind(), Kind::String) && !field.is_list();
            if !is_text {
                faults.push(wrong_type(&field, "a string"));
            }
            is_text.then(|| field.number())
        };
        Self { code, message: text("message"), topic: text("topic"), partition, offset }
    }

    /// Whether a refusal can be said in a response.
    pub fn has_code(&self) -> bool {
        self.code.is_some()
    }

    /// The bytes of a response.
    pub(super) fn encode(&self, answer: &Answer<'_>) -> Bytes {
        let mut bytes = Vec::with_capacity(48 + answer.message.len());
        let number = |field: Option<NumberField>, value: i64, bytes: &mut Vec<u8>| {
            if let Some(field) = field {
                field.put(value, bytes);
            }
        };
        number(self.code, i64::from(answer.code), &mut bytes);
        if let Some(field) = self.message.filter(|_| !answer.message.is_empty()) {
            put_delimited(field, answer.message.as_bytes(), &mut bytes);
        }
        if let Some((topic, partition, offset)) = answer.place {
            if let Some(field) = self.topic {
                put_delimited(field, topic.as_bytes(), &mut bytes);
            }
            number(self.partition, i64::from(partition), &mut bytes);
            number(self.offset, offset, &mut bytes);
        }
        bytes.into()
    }
}

impl NumberField {
    fn put(self, value: i64, bytes: &mut Vec<u8>) {
        let tag = |wire_type: u64| (u64::from(self.number) << 3) | wire_type;
        match self.form {
            NumberForm::Varint => put_number(self.number, value as u64, bytes),
            NumberForm::ZigZag => put_number(self.number, ((value << 1) ^ (value >> 63)) as u64, bytes),
            NumberForm::Fixed32 => {
                encode_varint(tag(5), bytes);
                bytes.extend_from_slice(&(value as i32).to_le_bytes());
            }
            NumberForm::Fixed64 => {
                encode_varint(tag(1), bytes);
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}

fn number_form(field: &FieldDescriptor, is_wide: bool) -> Option<NumberForm> {
    let form = match field.kind() {
        Kind::Int64 | Kind::Uint64 => NumberForm::Varint,
        Kind::Sint64 => NumberForm::ZigZag,
        Kind::Fixed64 | Kind::Sfixed64 => NumberForm::Fixed64,
        Kind::Int32 | Kind::Uint32 | Kind::Enum(_) if !is_wide => NumberForm::Varint,
        Kind::Sint32 if !is_wide => NumberForm::ZigZag,
        Kind::Fixed32 | Kind::Sfixed32 if !is_wide => NumberForm::Fixed32,
        _ => return None,
    };
    (!field.is_list()).then_some(form)
}

fn wrong_type(field: &FieldDescriptor, wanted: &str) -> String {
    let (name, of) = (field.name(), field.parent_message().full_name().to_owned());
    format!(
        "the response {of} has a field \"{name}\", which the gateway fills and which is not {wanted}; change its \
             type or its name"
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use prost_reflect::DynamicMessage;

    fn layout(fields: &str) -> (MessageDescriptor, ResponseLayout, Vec<String>) {
        let text = format!("syntax = \"proto3\"; enum Code {{ OK = 0; }} message R {{ {fields} }}");
        let message = samples::compiled(&text).get_message_by_name("R").unwrap();
        let mut faults = Vec::new();
        let layout = ResponseLayout::new(&message, &mut faults);
        (message, layout, faults)
    }

    fn text(fields: &str, answer: &Answer<'_>) -> String {
        let (message, layout, faults) = layout(fields);
        assert_eq!(faults, [""; 0]);
        DynamicMessage::decode(message, layout.encode(answer)).unwrap().to_text_format()
    }

    #[test]
    fn fields_that_exist_are_filled() {
        let all = "int32 code = 1; string message = 2; string topic = 3; int32 partition = 4; int64 offset = 5;";
        let other = "sint32 partition = 1; fixed64 offset = 2; Code code = 3; string id = 4;";
        let third = "fixed32 code = 1; sfixed32 partition = 2; sint64 offset = 3;";
        let done = Answer { code: 0, message: "", place: Some(("t", 7, 1 << 40)) };
        assert_eq!(text(all, &done), "topic:\"t\",partition:7,offset:1099511627776");
        assert_eq!(text(other, &done), "partition:7,offset:1099511627776");
        assert_eq!(text(third, &done), "partition:7,offset:1099511627776");
        assert_eq!(text("", &done), "");
        let refused = Answer { code: 3, message: "no", place: None };
        assert_eq!(text(all, &refused), "code:3,message:\"no\"");
        assert_eq!(text(third, &refused), "code:3");
    }

    #[test]
    fn wrong_types_are_all_named() {
        let (_, layout, faults) = layout(
            "string code = 1; int32 message = 2; repeated string topic = 3; bool partition = 4; int32 offset = 5;",
        );
        assert_eq!(layout, ResponseLayout::default());
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(
            faults[2].starts_with("the response R has a field \"offset\", which the gateway fills and which is not")
        );
    }
}
