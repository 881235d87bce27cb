//! A protobuf message on the wire with some of its fields replaced: everything else is copied as it is.
//! <https://protobuf.dev/programming-guides/encoding/>

use std::collections::BTreeMap;

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use prost_reflect::Kind;

use super::disguise::{Disguise, How};

/// Messages nest no deeper than this.
const MAX_DEPTH: u32 = 100;

/// What happens with the fields of a message.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// By number; what is not named stays.
    pub(super) fields: BTreeMap<u32, Rule>,
}

/// What happens with a field.
#[derive(Debug)]
pub(super) enum Rule {
    /// Its values are hidden.
    Hide(How, Kind),
    /// It is a message, or a list of them, in which this happens.
    Into(Node),
}

/// Appends `message` to `out`, rewritten.
///
/// # Errors
/// What is wrong with the message; `out` is then of no use.
pub(super) fn message(node: &Node, disguise: &Disguise, message: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    Rewrite { disguise, depth: 0 }.message(node, message, out)
}

struct Rewrite<'a> {
    disguise: &'a Disguise,
    depth: u32,
}

impl Rewrite<'_> {
    fn message(&mut self, node: &Node, mut rest: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        while !rest.is_empty() {
            let whole = rest;
            let (number, wire) = decode_key(&mut rest)?;
            if wire == WireType::EndGroup {
                return Err(broken("a group ends that did not begin"));
            }
            let from = rest;
            skip_field(wire, number, &mut rest, DecodeContext::default())?;
            let value = &from[..from.len() - rest.len()];
            match node.fields.get(&number) {
                None => out.extend_from_slice(&whole[..whole.len() - rest.len()]),
                Some(Rule::Hide(How::Null, _)) => {}
                Some(Rule::Hide(how, kind)) => self.hide(*how, kind, number, wire, value, out)?,
                Some(Rule::Into(node)) => self.inner(node, number, wire, value, out)?,
            }
        }
        Ok(())
    }

    /// A message within; `value` begins with its length, or ends with the end of its group.
    fn inner(
        &mut self,
        node: &Node,
        number: u32,
        wire: WireType,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        if self.depth == MAX_DEPTH {
            return Err(broken("messages are nested too deep"));
        }
        self.depth += 1;
        match wire {
            WireType::LengthDelimited => {
                let mut inner = Vec::with_capacity(value.len());
                self.message(node, delimited(value)?, &mut inner)?;
                delimit(number, &inner, out);
            }
            WireType::StartGroup => {
                let mut end = Vec::new();
                encode_key(number, WireType::EndGroup, &mut end);
                let fields = value.strip_suffix(&end[..]).ok_or_else(|| broken("a group does not end"))?;
                encode_key(number, WireType::StartGroup, out);
                self.message(node, fields, out)?;
                out.extend_from_slice(&end);
            }
            // Not a message: it may say what is to be hidden.
            _ => {}
        }
        self.depth -= 1;
        Ok(())
    }

    /// A value, or a packed list of them. A value of another wire type is not this field's: nobody knows what it says,
    /// and it is left out.
    fn hide(
        &self,
        how: How,
        kind: &Kind,
        number: u32,
        wire: WireType,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        match (kind, wire) {
            (Kind::String, WireType::LengthDelimited) => {
                let text = String::from_utf8_lossy(delimited(value)?);
                delimit(number, self.disguise.text(how, &text).as_bytes(), out);
            }
            (Kind::Bytes, WireType::LengthDelimited) => {
                delimit(number, &self.disguise.bytes(how, delimited(value)?), out);
            }
            (Kind::String | Kind::Bytes | Kind::Message(_), _) => {}
            (kind, WireType::LengthDelimited) => {
                let (mut values, mut packed) = (delimited(value)?, Vec::new());
                while !values.is_empty() {
                    self.number(how, kind, &mut values, &mut packed)?;
                }
                delimit(number, &packed, out);
            }
            (kind, wire) if wire == wire_of(kind) => {
                encode_key(number, wire, out);
                self.number(how, kind, &mut &value[..], out)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// One number, without its key.
    fn number(&self, how: How, kind: &Kind, from: &mut &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let short = || broken("a number is cut off");
        match wire_of(kind) {
            WireType::ThirtyTwoBit => {
                let bits = from.try_get_u32_le().map_err(|_| short())?;
                let new = match kind {
                    Kind::Float => {
                        let random = self.disguise.number(u64::from(bits)) as u32;
                        // Sign and exponent stay: it is of the same size.
                        if f32::from_bits(bits).is_normal() { bits & !0x7f_ffff | random & 0x7f_ffff } else { bits }
                    }
                    Kind::Sfixed32 => self.integer(how, i128::from(bits as i32), 31) as i32 as u32,
                    _ => self.integer(how, i128::from(bits), 32) as u32,
                };
                out.extend_from_slice(&new.to_le_bytes());
            }
            WireType::SixtyFourBit => {
                let bits = from.try_get_u64_le().map_err(|_| short())?;
                const MANTISSA: u64 = (1 << 52) - 1;
                let new = match kind {
                    Kind::Double if f64::from_bits(bits).is_normal() => {
                        bits & !MANTISSA | self.disguise.number(bits) & MANTISSA
                    }
                    Kind::Double => bits,
                    Kind::Sfixed64 => self.integer(how, i128::from(bits as i64), 63) as i64 as u64,
                    Kind::Fixed64 if how == How::Fake => self.integer(how, i128::from(bits), 64) as u64,
                    _ => self.integer(how, i128::from(bits), 63) as u64,
                };
                out.extend_from_slice(&new.to_le_bytes());
            }
            _ => {
                let bits = decode_varint(from)?;
                let new = match kind {
                    Kind::Int32 => self.integer(how, i128::from(bits as i32), 31) as i64 as u64,
                    Kind::Int64 => self.integer(how, i128::from(bits as i64), 63) as i64 as u64,
                    Kind::Sint32 => zigzag(self.integer(how, unzigzag(u64::from(bits as u32)), 31)),
                    Kind::Sint64 => zigzag(self.integer(how, unzigzag(bits), 63)),
                    Kind::Uint32 => self.integer(how, i128::from(bits as u32), 32) as u64,
                    Kind::Uint64 if how == How::Fake => self.integer(how, i128::from(bits), 64) as u64,
                    // Numbers of 64 bits become the same hash, whatever their type is.
                    _ => self.integer(how, i128::from(bits), 63) as u64,
                };
                encode_varint(new, out);
            }
        }
        Ok(())
    }

    /// An integer of so many bits, without the sign: a hash, or a fake of as many digits and the same sign.
    fn integer(&self, how: How, value: i128, bits: u32) -> i128 {
        let random = i128::from(self.disguise.number(value as u64));
        let most = (1_i128 << bits) - 1;
        if how != How::Fake {
            return random & most;
        }
        let least = 10_i128.pow(value.unsigned_abs().checked_ilog10().unwrap_or_default());
        let (low, high) = if least == 1 { (0, 9) } else { (least, (least * 10 - 1).min(most)) };
        (low + random % (high - low + 1)) * value.signum()
    }
}

fn wire_of(kind: &Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn zigzag(value: i128) -> u64 {
    let value = value as i64;
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(bits: u64) -> i128 {
    i128::from((bits >> 1) as i64 ^ -((bits & 1) as i64))
}

/// What comes after the length.
fn delimited(value: &[u8]) -> Result<&[u8], DecodeError> {
    let mut rest = value;
    let length = decode_varint(&mut rest)?;
    if length == rest.len() as u64 { Ok(rest) } else { Err(broken("a length is wrong")) }
}

fn delimit(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[allow(deprecated, reason = "there is no other way to make one")]
fn broken(why: &'static str) -> DecodeError {
    DecodeError::new(why)
}
