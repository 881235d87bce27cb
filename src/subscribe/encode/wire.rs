//! Writing the wire format: <https://protobuf.dev/programming-guides/encoding/>.

/// Messages and groups nest no deeper than this, counted together: readers refuse what does.
pub(super) const MAX_DEPTH: usize = 100;

/// Wire types.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const START_GROUP: u32 = 3;
pub(super) const END_GROUP: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// The tag of a field.
pub(super) fn tag(number: u32, wire_type: u32) -> u32 {
    number << 3 | wire_type
}

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(super) fn put_tag(out: &mut Vec<u8>, tag: u32) {
    put_varint(out, u64::from(tag));
}

/// A length-delimited value.
#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Makes room for the length of what comes next: one byte, which is enough for most. Returns where it is.
#[inline]
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Writes the length of what was written since [`open`] before it.
#[inline]
pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
    } else {
        close_long(out, start, length);
    }
}

#[inline(never)]
fn close_long(out: &mut Vec<u8>, start: usize, length: usize) {
    let more = (length.ilog2() / 7) as usize;
    out.resize(out.len() + more, 0);
    out.copy_within(start..start + length, start + more);
    let mut rest = length;
    for byte in &mut out[start - 1..start + more - 1] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + more - 1] = rest as u8;
}

pub(super) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// Whether the bytes are fields, one after the other, as far as that can be seen without knowing them.
pub(super) fn is_message(bytes: &[u8], depth: usize) -> bool {
    skip_fields(bytes, 0, depth).is_some_and(<[u8]>::is_empty)
}

/// What is left after the fields up to the end, or up to the end of the group `until`.
fn skip_fields(mut bytes: &[u8], until: u64, depth: usize) -> Option<&[u8]> {
    if depth > MAX_DEPTH {
        return None;
    }
    while !bytes.is_empty() {
        let (tag, rest) = take_varint(bytes)?;
        if tag >> 3 == 0 || tag > u64::from(u32::MAX) {
            return None;
        }
        bytes = match (tag & 7) as u32 {
            VARINT => take_varint(rest)?.1,
            FIXED64 => rest.get(8..)?,
            FIXED32 => rest.get(4..)?,
            LENGTH => {
                let (length, rest) = take_varint(rest)?;
                rest.get(usize::try_from(length).ok()?..)?
            }
            START_GROUP => skip_fields(rest, tag >> 3, depth + 1)?,
            END_GROUP if until != 0 && tag >> 3 == until => return Some(rest),
            _ => return None,
        };
    }
    (until == 0).then_some(bytes)
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_before_what_was_written() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000, 2_097_151, 2_097_152] {
            let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut out = vec![7];
            let start = open(&mut out);
            out.extend_from_slice(&body);
            close(&mut out, start);
            let mut want = vec![7];
            put_bytes(&mut want, &body);
            assert!(out == want, "{length}");
        }
    }

    #[test]
    fn messages_are_told_from_what_is_none() {
        for good in [&[][..], &[8, 1], &[0x0a, 2, 1, 1], &[0x0b, 8, 1, 0x0c], &[0x0d, 1, 2, 3, 4]] {
            assert!(is_message(good, 0), "{good:?}");
        }
        for bad in [&[8][..], &[0], &[0x0a, 9, 1], &[0x0b], &[0x0b, 0x14], &[0x0c], &[0x0f], &[0xff; 11], &[9, 1]] {
            assert!(!is_message(bad, 0), "{bad:?}");
        }
        assert!(!is_message(&[0x0b; 500], 0));
    }
}
