//! Why a record could not be decoded.

use std::fmt;

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The message ends in the middle of a field.
    Truncated,
    /// A number has more than 10 bytes or does not fit 64 bits.
    Varint,
    /// A field number is 0 or does not fit 29 bits, or its wire type is 6 or 7.
    Tag,
    /// A known field has another wire type than its type asks for.
    WireType {
        /// The wire type in the record.
        found: u8,
        /// The wire type of the field.
        expected: u8,
    },
    /// A group ends that was not begun.
    EndGroup,
    /// Messages and groups nest deeper than 100.
    Depth,
    /// A text is not UTF-8.
    Utf8,
    /// A timestamp lies outside of the years 1 to 9999, or a duration beyond 10,000 years.
    OutOfRange,
    /// A required field is absent.
    Missing,
    /// The record unpacks to more than a column or a record may hold.
    TooLarge,
    /// The record is longer than the topic's `max_record_bytes`.
    Oversized,
    /// The record does not begin with the header of a schema registry.
    Framing,
    /// The schema of that id is not one that the record can be read with.
    Schema {
        /// The schema's id.
        id: u32,
        /// Why it is not.
        fault: SchemaFault,
    },
}

/// Why a record cannot be read with the schema that its header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaFault {
    /// The registry has no such schema.
    Unknown,
    /// It is not protobuf, or it is not complete.
    Invalid,
    /// It has no message at the header's index, or another one than the topic's.
    Message,
    /// A field that is read has another number or type there.
    Mismatch,
}

impl Reason {
    /// The reason as a short code that does not change.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Truncated => "truncated",
            Reason::Varint => "varint",
            Reason::Tag => "tag",
            Reason::WireType { .. } => "wire_type",
            Reason::EndGroup => "end_group",
            Reason::Depth => "depth",
            Reason::Utf8 => "utf8",
            Reason::OutOfRange => "out_of_range",
            Reason::Missing => "missing",
            Reason::TooLarge => "too_large",
            Reason::Oversized => "oversized",
            Reason::Framing => "framing",
            Reason::Schema { fault: SchemaFault::Unknown, .. } => "schema_unknown",
            Reason::Schema { fault: SchemaFault::Invalid, .. } => "schema_invalid",
            Reason::Schema { fault: SchemaFault::Message, .. } => "schema_message",
            Reason::Schema { fault: SchemaFault::Mismatch, .. } => "schema_mismatch",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Truncated => f.write_str("the message ends within a field"),
            Reason::Varint => f.write_str("a number of more than 64 bits"),
            Reason::Tag => f.write_str("an impossible tag"),
            Reason::WireType { found, expected } => {
                write!(f, "wire type {found} where {} was expected", wire_name(*expected))
            }
            Reason::EndGroup => f.write_str("the end of a group that was not begun"),
            Reason::Depth => f.write_str("nested deeper than 100"),
            Reason::Utf8 => f.write_str("a text that is not UTF-8"),
            Reason::OutOfRange => f.write_str("a time out of range"),
            Reason::Missing => f.write_str("a required field is missing"),
            Reason::TooLarge => f.write_str("more than a column can hold"),
            Reason::Oversized => f.write_str("a record longer than max_record_bytes"),
            Reason::Framing => f.write_str("no header of a schema registry"),
            Reason::Schema { id, fault } => {
                let why = match fault {
                    SchemaFault::Unknown => "is not in the registry",
                    SchemaFault::Invalid => "cannot be compiled",
                    SchemaFault::Message => "has another message there",
                    SchemaFault::Mismatch => "has the field otherwise",
                };
                write!(f, "schema {id} {why}")
            }
        }
    }
}

fn wire_name(wire: u8) -> &'static str {
    match wire {
        0 => "varint",
        1 => "64-bit",
        2 => "length-delimited",
        3 => "group",
        4 => "end-group",
        5 => "32-bit",
        _ => "nothing",
    }
}

/// Why, and where, a record could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeFault {
    /// What is wrong.
    pub reason: Reason,
    /// The offset in the record, in bytes.
    pub position: usize,
    /// The path of the field, such as `placement.slot`; empty outside of the fields that are read.
    pub field: String,
}

impl fmt::Display for DecodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} at byte {}", self.reason, self.position)
    }
}

impl std::error::Error for DecodeFault {}
