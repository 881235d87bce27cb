//! The bytes of a protobuf message, field by field, without knowing what they mean.

use std::fmt;

use prost::encoding::encode_varint;

/// How deep messages and groups may lie in each other, as protobuf's own libraries have it.
pub(super) const MAX_DEPTH: u32 = 100;

/// How the bytes of a field are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Delimited,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireFault {
    /// They end inside a field.
    Truncated,
    /// A number has more than 64 bits.
    Varint,
    /// A field's number or wire type does not exist.
    Tag,
    /// A group ends that did not start, or as another one.
    Group,
    /// Messages lie too deep in each other.
    Depth,
    /// A text is no UTF-8.
    Text,
    /// The bytes are not laid out as the field's type is.
    Type,
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WireFault::Truncated => "the bytes end too early",
            WireFault::Varint => "a number has more than 64 bits",
            WireFault::Tag => "a field's tag is none",
            WireFault::Group => "a group does not end as it starts",
            WireFault::Depth => "messages lie more than 100 deep in each other",
            WireFault::Text => "the text is not UTF-8",
            WireFault::Type => "the bytes are not of the field's type",
        })
    }
}

/// Reads the fields of a message one after the other.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The number and the wire type of the field that follows.
    pub(super) fn tag(&mut self) -> Result<(u32, WireType), WireFault> {
        let tag = u32::try_from(self.varint()?).map_err(|_| WireFault::Tag)?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Delimited,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(WireFault::Tag),
        };
        match tag >> 3 {
            0 => Err(WireFault::Tag),
            number => Ok((number, wire_type)),
        }
    }

    /// A number of 7 bits a byte.
    pub(super) fn varint(&mut self) -> Result<u64, WireFault> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(WireFault::Truncated)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(WireFault::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireFault::Varint)
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], WireFault> {
        let end = self.at.checked_add(length).ok_or(WireFault::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireFault::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// Bytes that follow their length.
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], WireFault> {
        let length = usize::try_from(self.varint()?).map_err(|_| WireFault::Truncated)?;
        self.take(length)
    }

    /// Passes over the rest of a field. `depth` is how deep groups may still lie in it.
    pub(super) fn skip(&mut self, number: u32, wire_type: WireType, depth: u32) -> Result<(), WireFault> {
        let inner = depth.checked_sub(1).ok_or(WireFault::Depth)?;
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
            WireType::Delimited => self.delimited().map(drop),
            WireType::EndGroup => Err(WireFault::Group),
            WireType::StartGroup => loop {
                match self.tag()? {
                    (end, WireType::EndGroup) if end == number => return Ok(()),
                    (_, WireType::EndGroup) => return Err(WireFault::Group),
                    (field, wire_type) => self.skip(field, wire_type, inner)?,
                }
            },
        }
    }
}

/// Appends a field of a number.
pub(super) fn put_number(field: u32, value: u64, bytes: &mut Vec<u8>) {
    encode_varint(u64::from(field) << 3, bytes);
    encode_varint(value, bytes);
}

/// Appends a field of bytes that follow their length.
pub(super) fn put_delimited(field: u32, value: &[u8], bytes: &mut Vec<u8>) {
    encode_varint((u64::from(field) << 3) | 2, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_64_bits() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            encode_varint(value, &mut bytes);
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).varint(), Err(WireFault::Truncated));
        }
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(WireFault::Varint));
        let mut too_big = [0xff; 10];
        too_big[9] = 2;
        assert_eq!(Reader::new(&too_big).varint(), Err(WireFault::Varint));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        let mut bytes = Vec::new();
        encode_varint(u64::MAX, &mut bytes);
        assert_eq!(Reader::new(&bytes).delimited(), Err(WireFault::Truncated));
    }

    #[test]
    fn deep_groups_end() {
        let bytes = vec![0x0b; 100_000];
        let mut reader = Reader::new(&bytes);
        let (number, wire_type) = reader.tag().unwrap();
        assert_eq!(reader.skip(number, wire_type, MAX_DEPTH), Err(WireFault::Depth));
    }
}
