//! The tree of a message's fields, as the decoder and the Arrow schema see it.

use prost_reflect::{EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};

use super::editions;
use crate::error::{Error, Result};

/// Messages nest no deeper than the wire format may.
const MAX_DEPTH: usize = 100;
/// A message type that is used in many places is written out in each: this bounds the tree.
const MAX_FIELDS: usize = 20_000;

/// A message: its fields in the order of the `.proto` file.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageShape {
    /// The full name.
    pub name: String,
    /// The fields.
    pub fields: Vec<FieldShape>,
    /// How many oneofs it has, not counting those that only stand for `optional`.
    pub oneofs: usize,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldShape {
    /// The name in the `.proto` file.
    pub name: String,
    /// The field number.
    pub number: u32,
    /// How often it occurs.
    pub label: Label,
    /// The oneof that it is a member of: an index below [`MessageShape::oneofs`].
    pub oneof: Option<usize>,
    /// Whether it is written between group tags instead of with a length (proto2).
    pub group: bool,
    /// What a value is; for a map, what a map's value is.
    pub value: ValueShape,
}

/// How often a field occurs.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// At most once; without it the field has its default (proto3 without `optional`).
    Implicit,
    /// At most once; without it the field is NULL.
    Optional,
    /// Once; a record without it is broken (proto2).
    Required,
    /// Any number of times.
    Repeated,
    /// Any number of times, with a key of that type.
    Map(Scalar),
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueShape {
    /// A number, a text or bytes.
    Scalar(Scalar),
    /// An enum's number.
    Enum(EnumShape),
    /// `google.protobuf.Int32Value` and its kin: a message whose field 1 is the value.
    Wrapper(Scalar),
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// `google.protobuf.Duration`.
    Duration,
    /// `google.type.Date`.
    Date,
    /// `google.type.TimeOfDay`.
    TimeOfDay,
    /// `google.protobuf.Struct`.
    JsonObject,
    /// `google.protobuf.Value`.
    JsonValue,
    /// `google.protobuf.ListValue`.
    JsonList,
    /// Which member of a oneof is there, by its name: a column of ours, no field of the message.
    Case {
        /// The oneof: an index below [`MessageShape::oneofs`].
        oneof: usize,
        /// Number and name of the members.
        members: Vec<(i32, String)>,
    },
    /// The fields on the wire that the message does not know, as they are there: a column of ours, no field of it.
    Unknown,
    /// A message without fields: all that can be known is whether it is there.
    Empty,
    /// A message that contains itself more often than is asked for: left as it is on the wire.
    Recursive,
    /// Any other message.
    Message(MessageShape),
}

/// The scalar types of protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // They are named as in a `.proto` file.
pub enum Scalar {
    Bool,
    Int32,
    Sint32,
    Sfixed32,
    Uint32,
    Fixed32,
    Int64,
    Sint64,
    Sfixed64,
    Uint64,
    Fixed64,
    Float,
    Double,
    String,
    Bytes,
}

/// The names of an enum's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct EnumShape {
    /// Number and name, ascending; of several names for one number the first one written.
    pub names: Vec<(i32, String)>,
    /// The number of a value that is not there.
    pub default: i32,
}

impl MessageShape {
    /// The tree of `message`.
    ///
    /// # Errors
    /// It nests deeper than 100 messages or has more than 20,000 fields in all.
    pub fn of(message: &MessageDescriptor) -> Result<Self> {
        Self::with(message, Shaping::default())
    }

    /// The tree of `message` as it is asked for.
    ///
    /// # Errors
    /// As [`MessageShape::of`], and when a field has the name of a column of ours.
    pub fn with(message: &MessageDescriptor, shaping: Shaping) -> Result<Self> {
        Outline { root: message.full_name(), stack: Vec::new(), fields: 0, shaping }.message(message)
    }
}

/// What a message's tree has besides its fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shaping {
    /// How often a message that contains itself is unfolded.
    pub max_recursion: usize,
    /// Whether each oneof has a column `<oneof>__case` with the name of the member that is there.
    pub oneof_case: bool,
    /// Whether the extensions of a message are among its columns, by their full names with `_` for `.`.
    pub extensions: bool,
    /// Whether each message has a column [`UNKNOWN_FIELDS`] with the fields that it does not know.
    pub unknown_fields: bool,
}

impl Shaping {
    /// The same for trees that are compared: all that a message has on the wire, and no column of ours.
    #[must_use]
    pub fn to_compare(self) -> Self {
        Self { max_recursion: self.max_recursion, extensions: true, ..Self::default() }
    }
}

/// The column of what a message does not know.
pub const UNKNOWN_FIELDS: &str = "_unknown";

/// The walk over a message's descriptor.
struct Outline<'a> {
    root: &'a str,
    /// The messages that are being walked, outermost first.
    stack: Vec<String>,
    fields: usize,
    shaping: Shaping,
}

impl Outline<'_> {
    fn message(&mut self, message: &MessageDescriptor) -> Result<MessageShape> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_large(&format!("nests deeper than {MAX_DEPTH} messages")));
        }
        self.stack.push(message.full_name().to_owned());
        let oneofs: Vec<String> =
            message.oneofs().filter(|o| !o.is_synthetic()).map(|o| o.full_name().to_owned()).collect();
        let mut shape = MessageShape { name: message.full_name().to_owned(), fields: Vec::new(), oneofs: oneofs.len() };
        // `fields()` walks in the order of the numbers; people expect the order of the file.
        let mut fields: Vec<FieldDescriptor> = message.fields().collect();
        fields.sort_by_key(|field| field.path().last().copied());
        for field in fields {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(self.too_large(&format!("has more than {MAX_FIELDS} fields, written out")));
            }
            let oneof = field.containing_oneof();
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|name| name == oneof.full_name()));
            shape.fields.push(self.field(&field, oneof)?);
        }
        if self.shaping.extensions {
            let mut extensions: Vec<ExtensionDescriptor> = message.extensions().collect();
            extensions.sort_by_key(ExtensionDescriptor::number);
            for extension in extensions {
                let field = self.extension(&extension)?;
                self.add(&mut shape, field)?;
            }
        }
        if self.shaping.oneof_case {
            for (index, oneof) in message.oneofs().filter(|oneof| !oneof.is_synthetic()).enumerate() {
                self.add(&mut shape, case(index, &oneof))?;
            }
        }
        if self.shaping.unknown_fields {
            self.add(&mut shape, unknown())?;
        }
        self.stack.pop();
        Ok(shape)
    }

    fn field(&mut self, field: &FieldDescriptor, oneof: Option<usize>) -> Result<FieldShape> {
        let (label, kind) = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let key = scalar(&entry.map_entry_key_field().kind()).unwrap_or(Scalar::String);
                (Label::Map(key), entry.map_entry_value_field().kind())
            }
            kind if field.is_list() => (Label::Repeated, kind),
            kind if field.is_required() => (Label::Required, kind),
            kind if editions::is_implicit(field) => (Label::Implicit, kind),
            kind if field.supports_presence() => (Label::Optional, kind),
            kind => (Label::Implicit, kind),
        };
        let (name, group) = (field.name().to_owned(), field.is_group());
        Ok(FieldShape { name, number: field.number(), label, oneof, group, value: self.value(&kind)? })
    }

    fn extension(&mut self, extension: &ExtensionDescriptor) -> Result<FieldShape> {
        let label = if extension.is_list() { Label::Repeated } else { Label::Optional };
        let (name, group) = (extension.full_name().replace('.', "_"), extension.is_group());
        Ok(FieldShape {
            name,
            number: extension.number(),
            label,
            oneof: None,
            group,
            value: self.value(&extension.kind())?,
        })
    }

    /// Adds what no field of the message has given its name to.
    fn add(&mut self, shape: &mut MessageShape, field: FieldShape) -> Result<()> {
        if shape.fields.iter().any(|other| other.name == field.name) {
            return Err(Error::invalid(format!(
                "message {} has two columns {}: rename the field, or leave out the option that adds the other one",
                self.root, field.name
            )));
        }
        self.fields += 1;
        shape.fields.push(field);
        Ok(())
    }

    fn value(&mut self, kind: &Kind) -> Result<ValueShape> {
        if let Some(scalar) = scalar(kind) {
            return Ok(ValueShape::Scalar(scalar));
        }
        let message = match kind {
            Kind::Message(message) => message,
            Kind::Enum(numbers) => return Ok(ValueShape::Enum(EnumShape::of(numbers))),
            _ => return Ok(ValueShape::Empty),
        };
        Ok(match message.full_name() {
            "google.protobuf.Timestamp" => ValueShape::Timestamp,
            "google.protobuf.Duration" => ValueShape::Duration,
            "google.protobuf.Struct" => ValueShape::JsonObject,
            "google.protobuf.Value" => ValueShape::JsonValue,
            "google.protobuf.ListValue" => ValueShape::JsonList,
            "google.type.Date" => ValueShape::Date,
            "google.type.TimeOfDay" => ValueShape::TimeOfDay,
            name if self.stack.iter().filter(|open| *open == name).count() > self.shaping.max_recursion => {
                ValueShape::Recursive
            }
            name => match wrapped(name, message) {
                Some(scalar) => ValueShape::Wrapper(scalar),
                None if self.is_empty(message) => ValueShape::Empty,
                None => ValueShape::Message(self.message(message)?),
            },
        })
    }

    fn is_empty(&self, message: &MessageDescriptor) -> bool {
        let extensions = self.shaping.extensions && message.extensions().len() > 0;
        message.fields().len() == 0 && !extensions && !self.shaping.unknown_fields
    }

    fn too_large(&self, what: &str) -> Error {
        Error::invalid(format!("message {} {what}: use a smaller message", self.root))
    }
}

/// The column that says which member of a oneof is there.
fn case(index: usize, oneof: &OneofDescriptor) -> FieldShape {
    let members = oneof.fields().map(|field| (field.number() as i32, field.name().to_owned())).collect();
    ours(format!("{}__case", oneof.name()), ValueShape::Case { oneof: index, members })
}

/// The column of the fields that a message does not know.
fn unknown() -> FieldShape {
    ours(UNKNOWN_FIELDS.to_owned(), ValueShape::Unknown)
}

/// A column of ours: no field has its number.
fn ours(name: String, value: ValueShape) -> FieldShape {
    FieldShape { name, number: 0, label: Label::Optional, oneof: None, group: false, value }
}

impl ValueShape {
    /// Whether a value that is there may be NULL all the same: a date that no calendar has.
    pub fn may_be_null(&self) -> bool {
        matches!(self, ValueShape::Date | ValueShape::TimeOfDay)
    }
}

impl EnumShape {
    fn of(numbers: &EnumDescriptor) -> Self {
        let mut names: Vec<(i32, String)> = Vec::new();
        let mut declared: Vec<_> = numbers.values().collect();
        declared.sort_by_key(|value| value.path().last().copied());
        for value in declared {
            names.push((value.number(), value.name().to_owned()));
        }
        names.sort_by_key(|(number, _)| *number); // Stable: the first name of a number stays first.
        names.dedup_by_key(|(number, _)| *number);
        Self { names, default: numbers.default_value().number() }
    }
}

/// The scalar that a wrapper message wraps.
fn wrapped(name: &str, message: &MessageDescriptor) -> Option<Scalar> {
    let wrappers = ["Bool", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "Bytes"];
    let stem = name.strip_prefix("google.protobuf.")?.strip_suffix("Value")?;
    wrappers.contains(&stem).then(|| message.get_field(1)).flatten().and_then(|field| scalar(&field.kind()))
}

fn scalar(kind: &Kind) -> Option<Scalar> {
    Some(match kind {
        Kind::Bool => Scalar::Bool,
        Kind::Int32 => Scalar::Int32,
        Kind::Sint32 => Scalar::Sint32,
        Kind::Sfixed32 => Scalar::Sfixed32,
        Kind::Uint32 => Scalar::Uint32,
        Kind::Fixed32 => Scalar::Fixed32,
        Kind::Int64 => Scalar::Int64,
        Kind::Sint64 => Scalar::Sint64,
        Kind::Sfixed64 => Scalar::Sfixed64,
        Kind::Uint64 => Scalar::Uint64,
        Kind::Fixed64 => Scalar::Fixed64,
        Kind::Float => Scalar::Float,
        Kind::Double => Scalar::Double,
        Kind::String => Scalar::String,
        Kind::Bytes => Scalar::Bytes,
        Kind::Message(_) | Kind::Enum(_) => return None,
    })
}
