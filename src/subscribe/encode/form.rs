//! The plan of a message: what its fields are filled from, and how their values go onto the wire.

use std::collections::HashMap;
use std::sync::Arc;

/// The plan of a message.
#[derive(Debug)]
pub(super) struct MessagePlan {
    /// In the order of the field numbers, as messages are written.
    pub(super) fields: Box<[FieldPlan]>,
}

/// The plan of a field.
#[derive(Debug)]
pub(super) struct FieldPlan {
    /// Where the field is in the message: `placement.slot`.
    pub(super) path: Box<str>,
    pub(super) source: Source,
    pub(super) label: Label,
    /// How a value is written: of an element, if it is repeated; of a map's value.
    pub(super) form: Form,
    /// Number and wire type of what is written for it.
    pub(super) tag: u32,
    /// The tag that ends it, if it is a group; 0.
    pub(super) group_end: u32,
    /// Without a value it has its default: so the default is not written.
    pub(super) implicit: bool,
    /// Each message must have it.
    pub(super) required: bool,
    /// The fields before it that are members of the same oneof, by their place in the plan.
    pub(super) rivals: Box<[usize]>,
}

/// What fills a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The column at this place.
    Column(usize),
    /// The cursor of the row.
    Cursor,
    /// Whether the row is of a partition that was replaced.
    Replaces,
}

/// How often a field occurs.
#[derive(Debug)]
pub(super) enum Label {
    One,
    Repeated,
    Packed,
    Map { key: Form, key_tag: u32, value_tag: u32 },
}

/// How a value goes onto the wire.
#[derive(Debug)]
pub(super) enum Form {
    Bool,
    Whole(Whole),
    /// A time as a number of microseconds.
    Micros(Whole, PerSecond),
    Float,
    Double,
    Text,
    Octets,
    /// An enum by the names of its values.
    EnumName(Arc<HashMap<Box<str>, i32>>),
    Timestamp(PerSecond),
    Duration(PerSecond),
    TimeOfDay(PerSecond),
    Date,
    Json(JsonKind),
    /// A message with one value in it, of which this is the tag.
    Wrapper(Box<Form>, u32),
    /// A message without fields.
    Present,
    /// A message that is there as it is on the wire.
    Raw,
    Message(MessagePlan),
}

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub(super) encoding: Encoding,
    pub(super) least: i128,
    pub(super) most: i128,
    /// The type, as in a `.proto` file.
    pub(super) name: &'static str,
}

/// How a whole number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Varint,
    Zigzag,
    Fixed32,
    Fixed64,
}

/// How many units of a time make a second: 1, 1,000, 1,000,000 or 1,000,000,000.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerSecond(pub(super) i128);

/// Which message of `struct.proto` it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonKind {
    Struct,
    Value,
    List,
}

impl Form {
    /// Whether NULL in a list or a map is written as a message without fields: a date that no calendar
    /// has. (A time of day without fields is midnight.)
    pub(super) fn has_null_message(&self) -> bool {
        matches!(self, Form::Date)
    }
}
