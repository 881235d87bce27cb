//! What stands before a record's message when its producer asks a schema registry: which schema it was written with.
//!
//! The format is Confluent's ("Wire format", <https://docs.confluent.io/platform/current/schema-registry/>): a byte 0,
//! the schema's id (4 bytes, big endian), then the message's place in the schema's file as a list of zig-zag varints:
//! their number, and the index of the message at each level. `[0]`, the first message, is shortened to one byte 0.

use super::fault::{DecodeFault, Reason};
use super::wire::{MAX_DEPTH, Read, Wire};

/// The byte that such a record begins with.
const MAGIC: u8 = 0;

/// What a record says of its schema, and its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed<'a> {
    /// The id of the schema.
    pub schema: u32,
    /// The list of indexes as it is on the wire: [`message_path`] reads it.
    pub index: &'a [u8],
    /// The message.
    pub message: &'a [u8],
    /// Where the message begins in the record.
    pub position: usize,
}

/// Takes a record apart.
///
/// # Errors
/// `Framing` when it does not begin as described.
pub fn unframe(record: &[u8]) -> Result<Framed<'_>, DecodeFault> {
    if let [MAGIC, a, b, c, d, 0, message @ ..] = record {
        let schema = u32::from_be_bytes([*a, *b, *c, *d]);
        return Ok(Framed { schema, index: &record[5..6], message, position: 6 });
    }
    unframe_listed(record)
}

/// A record whose message is not the first one of its file.
#[inline(never)]
fn unframe_listed(record: &[u8]) -> Result<Framed<'_>, DecodeFault> {
    let wrong = |position| DecodeFault { reason: Reason::Framing, position, field: String::new() };
    let [MAGIC, a, b, c, d, rest @ ..] = record else {
        return Err(wrong(if record.first() == Some(&MAGIC) { record.len() } else { 0 }));
    };
    let mut wire = Wire::new(rest);
    read_path(&mut wire, |_| {}).ok_or_else(|| wrong(5 + wire.position()))?;
    let (index, message) = rest.split_at(wire.position());
    let schema = u32::from_be_bytes([*a, *b, *c, *d]);
    Ok(Framed { schema, index, message, position: 5 + index.len() })
}

/// The indexes of [`Framed::index`]: of a message of the file, then of one in it, and so on. Never empty for what
/// [`unframe`] gave.
pub fn message_path(index: &[u8]) -> Vec<usize> {
    let mut path = Vec::new();
    let read = read_path(&mut Wire::new(index), |at| path.push(at));
    if read.is_some() { path } else { Vec::new() }
}

/// Passes over a list of indexes; `None` when it is none.
fn read_path(wire: &mut Wire<'_>, mut each: impl FnMut(usize)) -> Option<()> {
    let mut number = || -> Option<usize> {
        let start = wire.position();
        let raw = u32::try_from(wire.varint().ok()?).ok();
        // Zig-zag: an odd number is negative.
        let value = raw.filter(|raw| raw % 2 == 0).map(|raw| raw as usize / 2);
        if value.is_none() {
            wire.rewind(start);
        }
        value
    };
    let count = number()?;
    if count > MAX_DEPTH {
        return None;
    }
    if count == 0 {
        each(0);
    }
    for _ in 0..count {
        each(number()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_taken_off() {
        type Case = (&'static [u8], u32, &'static [usize], &'static [u8]);
        let cases: [Case; 6] = [
            (&[0, 0, 0, 0, 7, 0, 8, 1], 7, &[0], &[8, 1]),
            (&[0, 0, 0, 0, 7, 0], 7, &[0], &[]),
            (&[0, 0xff, 0xff, 0xff, 0xff, 2, 0, 9], u32::MAX, &[0], &[9]),
            (&[0, 0, 1, 0, 0, 2, 2, 9], 65_536, &[1], &[9]),
            (&[0, 0, 0, 0, 1, 4, 2, 0, 9], 1, &[1, 0], &[9]),
            (&[0, 0, 0, 0, 1, 6, 0x80, 2, 0, 4, 9, 9], 1, &[128, 0, 2], &[9, 9]),
        ];
        for (record, schema, path, message) in cases {
            let framed = unframe(record).unwrap();
            assert_eq!((framed.schema, framed.message), (schema, message));
            assert_eq!(message_path(framed.index), path);
            assert_eq!(&record[framed.position..], message);
        }
    }

    #[test]
    fn what_is_no_header_is_told_where_it_ends_to_be_one() {
        let cases: [(&[u8], usize); 9] = [
            (&[], 0),
            (&[1, 0, 0, 0, 7, 0], 0),
            (&[0x0a, 3], 0),
            (&[0, 0, 0], 3),
            (&[0, 0, 0, 0, 7], 5),
            (&[0, 0, 0, 0, 7, 2], 6),
            (&[0, 0, 0, 0, 7, 2, 1], 6),
            (&[0, 0, 0, 0, 7, 1], 5),
            (&[0, 0, 0, 0, 7, 0xca, 1, 0], 7),
        ];
        for (record, position) in cases {
            let fault = unframe(record).unwrap_err();
            assert_eq!((fault.reason, fault.position), (Reason::Framing, position), "{record:?}");
        }
    }
}
