//! Fields that the server writes, on the wire: what stands there is taken out, and what is true is appended. All other
//! bytes stay as they are.

use std::net::IpAddr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prost_reflect::{FieldDescriptor, Kind};

use super::wire::{MAX_DEPTH, Reader, WireFault, put_delimited, put_number};

/// What the server writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampKind {
    /// When it had received the message, as a `google.protobuf.Timestamp`.
    Time,
    /// The same, in microseconds since 1970 as an `int64`.
    Micros,
    /// The id of the request.
    RequestId,
    /// The client's IP address.
    Peer,
}

/// A field that the server writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampField {
    /// The field's name.
    pub name: String,
    /// The field's number.
    pub number: u32,
    /// What is written.
    pub kind: StampKind,
}

/// What is true of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) time: DateTime<Utc>,
    pub(super) request_id: &'a str,
    pub(super) peer: IpAddr,
}

impl StampField {
    /// The field with the stamp of that name; else why it cannot carry it.
    pub(super) fn new(field: &FieldDescriptor, stamp: &str) -> Result<Self, String> {
        if field.is_list() || field.is_map() {
            return Err(format!("stamp {stamp} is on a field of several values; stamp a singular field"));
        }
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            let oneof = oneof.name();
            return Err(format!("stamp {stamp} is on a field of the oneof \"{oneof}\"; move the field out of it"));
        }
        let kind = match (stamp, field.kind()) {
            ("SERVER_TIME", Kind::Message(of))
                if of.full_name() == "google.protobuf.Timestamp" && !field.is_group() =>
            {
                StampKind::Time
            }
            ("SERVER_TIME", Kind::Int64) => StampKind::Micros,
            ("SERVER_TIME", _) => {
                return Err("stamp SERVER_TIME needs a google.protobuf.Timestamp or an int64 of microseconds; change \
                            the field's type"
                    .to_owned());
            }
            ("REQUEST_ID", Kind::String) => StampKind::RequestId,
            ("PEER", Kind::String) => StampKind::Peer,
            ("REQUEST_ID" | "PEER", _) => {
                return Err(format!("stamp {stamp} needs a string; change the field's type"));
            }
            _ => return Err(format!("stamp {stamp} is unknown; use SERVER_TIME, REQUEST_ID or PEER")),
        };
        Ok(Self { name: field.name().to_owned(), number: field.number(), kind })
    }
}

/// The message with its stamps. It is a message that decodes.
pub(super) fn stamp(message: &Bytes, stamps: &[StampField], facts: &Facts<'_>) -> Result<Bytes, WireFault> {
    if stamps.is_empty() {
        return Ok(message.clone());
    }
    let mut stamped = Vec::with_capacity(message.len() + stamps.len() * 48);
    let mut reader = Reader::new(message);
    let mut kept_from = 0;
    while !reader.is_at_end() {
        let start = reader.position();
        let (number, wire_type) = reader.tag()?;
        reader.skip(number, wire_type, MAX_DEPTH)?;
        if stamps.iter().any(|stamp| stamp.number == number) {
            stamped.extend_from_slice(message.get(kept_from..start).unwrap_or_default());
            kept_from = reader.position();
        }
    }
    stamped.extend_from_slice(message.get(kept_from..).unwrap_or_default());
    for field in stamps {
        match field.kind {
            StampKind::Time => put_delimited(field.number, &timestamp(facts.time), &mut stamped),
            StampKind::Micros => put_number(field.number, facts.time.timestamp_micros() as u64, &mut stamped),
            StampKind::RequestId => put_delimited(field.number, facts.request_id.as_bytes(), &mut stamped),
            StampKind::Peer => {
                put_delimited(field.number, facts.peer.to_canonical().to_string().as_bytes(), &mut stamped)
            }
        }
    }
    Ok(stamped.into())
}

/// A `google.protobuf.Timestamp` of microseconds.
fn timestamp(time: DateTime<Utc>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    put_number(1, time.timestamp() as u64, &mut bytes);
    put_number(2, u64::from(time.timestamp_subsec_micros()) * 1000, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Chance};
    use super::*;
    use prost_reflect::prost::Message;
    use prost_reflect::{DynamicMessage, Value};

    const TYPES: &str = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; \
        message M { string s = 1; google.protobuf.Timestamp at = 2; int64 micros = 3; string id = 4; string peer = 5; \
        M m = 6; repeated int64 l = 7; int32 i = 8; oneof o { string x = 9; } bytes b = 10; }";

    fn facts() -> Facts<'static> {
        let time = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
        Facts { time, request_id: "r-1", peer: [127, 0, 0, 1].into() }
    }

    #[test]
    fn stamps_replace_what_is_there_and_nothing_else() {
        let of = samples::compiled(TYPES).get_message_by_name("M").unwrap();
        let stamps = [("at", "SERVER_TIME"), ("micros", "SERVER_TIME"), ("id", "REQUEST_ID"), ("peer", "PEER")];
        let fields = stamps.map(|(name, stamp)| StampField::new(&of.get_field_by_name(name).unwrap(), stamp).unwrap());
        let mut chance = Chance::new(4);
        for _ in 0..500 {
            let mut bytes = samples::message(&of, &mut chance, 2).encode_to_vec();
            // Fields that the type does not know, and the same field again.
            put_delimited(900, b"unknown", &mut bytes);
            put_delimited(4, b"forged", &mut bytes);
            put_number(901, chance.next(), &mut bytes);
            let stamped = stamp(&bytes.clone().into(), &fields, &facts()).unwrap();
            let mut expected = DynamicMessage::decode(of.clone(), bytes.as_slice()).unwrap();
            let mut at = DynamicMessage::new(of.get_field_by_name("at").unwrap().kind().as_message().unwrap().clone());
            at.set_field_by_name("seconds", Value::I64(1_700_000_000));
            at.set_field_by_name("nanos", Value::I32(123_456_000));
            expected.set_field_by_name("at", Value::Message(at));
            expected.set_field_by_name("micros", Value::I64(1_700_000_000_123_456));
            expected.set_field_by_name("id", Value::String("r-1".into()));
            expected.set_field_by_name("peer", Value::String("127.0.0.1".into()));
            assert_eq!(DynamicMessage::decode(of.clone(), stamped.as_ref()).unwrap(), expected);
        }
    }

    #[test]
    fn other_bytes_stay_as_they_are() {
        let field = StampField { name: "id".into(), number: 4, kind: StampKind::RequestId };
        // A varint longer than it need be, a forged id, a group that is unknown, bytes in the middle of another field.
        let message = Bytes::from_static(b"\x40\x81\x00\x22\x01x\xa3\x06\x08\x01\xa4\x06\x22\x00\x0a\x01\x22");
        let stamped = stamp(&message, &[field], &facts()).unwrap();
        assert_eq!(stamped.as_ref(), b"\x40\x81\x00\xa3\x06\x08\x01\xa4\x06\x0a\x01\x22\x22\x03r-1");
        assert_eq!(stamp(&message, &[], &facts()).unwrap(), message);
    }

    #[test]
    fn wrong_types_are_named() {
        let of = samples::compiled(TYPES).get_message_by_name("M").unwrap();
        let fault = |name: &str, stamp: &str| StampField::new(&of.get_field_by_name(name).unwrap(), stamp).unwrap_err();
        assert!(fault("s", "SERVER_TIME").starts_with("stamp SERVER_TIME needs a google.protobuf.Timestamp or an"));
        assert!(fault("m", "SERVER_TIME").starts_with("stamp SERVER_TIME needs"));
        assert_eq!(fault("i", "PEER"), "stamp PEER needs a string; change the field's type");
        assert_eq!(fault("b", "REQUEST_ID"), "stamp REQUEST_ID needs a string; change the field's type");
        assert!(fault("l", "SERVER_TIME").contains("several values"));
        assert!(fault("x", "PEER").contains("oneof \"o\""));
        assert_eq!(fault("s", "7"), "stamp 7 is unknown; use SERVER_TIME, REQUEST_ID or PEER");
    }
}
