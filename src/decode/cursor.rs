//! Reading the wire format: <https://protobuf.dev/programming-guides/encoding/>.

use std::mem;

use super::fault::Reason;

/// Messages and groups nest no deeper than this, counted together.
pub(super) const MAX_DEPTH: usize = 100;
/// What one record may unpack to, in bytes of the columns. Lists of messages grow on the way: an element of two bytes
/// on the wire may stand for hundreds of columns.
const MAX_UNPACKED: usize = 1 << 28;

/// The place in a record. Its bytes end where the message that is being read ends.
pub(super) struct Cursor<'a> {
    /// All of the record.
    record: &'a [u8],
    /// The record up to the end of the message.
    data: &'a [u8],
    position: usize,
    unpacked: usize,
    /// The fields that were not known and are kept.
    unknown: u64,
    /// The names on the way out of a fault, the innermost first.
    trail: Vec<Box<str>>,
}

/// The bytes around a nested message, to be put back after it.
pub(super) struct Outer<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { record: data, data, position: 0, unpacked: 0, unknown: 0, trail: Vec::new() }
    }

    #[inline(always)]
    pub(super) fn at_end(&self) -> bool {
        self.position >= self.data.len()
    }

    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Counts a field that was not known.
    pub(super) fn count_unknown(&mut self) {
        self.unknown += 1;
    }

    /// The fields that were not known.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Moves back to where a faulty value starts.
    #[cold]
    pub(super) fn rewind(&mut self, position: usize) {
        self.position = position;
    }

    /// Notes the field that a fault lies in.
    #[cold]
    pub(super) fn blame(&mut self, name: &str) {
        self.trail.push(name.into());
    }

    /// The path of the fault.
    #[cold]
    pub(super) fn path(&self) -> String {
        let names: Vec<&str> = self.trail.iter().rev().map(AsRef::as_ref).collect();
        names.join(".")
    }

    /// The bytes from `start` to the place.
    pub(super) fn since(&self, start: usize, end: usize) -> &'a [u8] {
        self.data.get(start..end).unwrap_or_default()
    }

    /// Counts what an element takes in the columns.
    #[inline]
    pub(super) fn unpack(&mut self, width: usize) -> Result<(), Reason> {
        self.unpacked = self.unpacked.saturating_add(width);
        if self.unpacked > MAX_UNPACKED { Err(Reason::TooLarge) } else { Ok(()) }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Reason> {
        match self.data.get(self.position..) {
            Some([a, ..]) if *a < 0x80 => {
                self.position += 1;
                Ok(u64::from(*a))
            }
            Some([a, b, ..]) if *b < 0x80 => {
                self.position += 2;
                Ok(u64::from(*a & 0x7f) | u64::from(*b) << 7)
            }
            _ => self.long_varint(),
        }
    }

    /// Three to eight bytes at once, without a branch a byte: the high bits say where it ends, three shifts close the
    /// gaps that they leave.
    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Reason> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        if let Some(eight) = rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                self.position += ends.trailing_zeros() as usize / 8 + 1;
                let kept = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
                let pairs = (kept & 0x007f_007f_007f_007f) | (kept & 0x7f00_7f00_7f00_7f00) >> 1;
                let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
                return Ok((fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4);
            }
        }
        let mut value = 0;
        for (index, byte) in rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                if index == 9 && *byte > 1 {
                    return Err(Reason::Varint);
                }
                self.position += index + 1;
                return Ok(value);
            }
        }
        Err(if rest.len() < 10 { Reason::Truncated } else { Reason::Varint })
    }

    /// The next tag: field number and wire type. May still be one of those that do not exist.
    #[inline(always)]
    pub(super) fn tag(&mut self) -> Result<u32, Reason> {
        let start = self.position;
        u32::try_from(self.varint()?).map_err(|_| {
            self.position = start;
            Reason::Tag
        })
    }

    #[inline(always)]
    pub(super) fn fixed32(&mut self) -> Result<[u8; 4], Reason> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        let bytes = *rest.first_chunk().ok_or(Reason::Truncated)?;
        self.position += 4;
        Ok(bytes)
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<[u8; 8], Reason> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        let bytes = *rest.first_chunk().ok_or(Reason::Truncated)?;
        self.position += 8;
        Ok(bytes)
    }

    /// The end of the length-delimited value whose length comes next.
    #[inline(always)]
    fn length(&mut self) -> Result<usize, Reason> {
        let start = self.position;
        let length = self.varint()?;
        let left = self.data.len() - self.position;
        if length > left as u64 {
            self.position = start;
            return Err(Reason::Truncated);
        }
        Ok(self.position + length as usize)
    }

    /// A length-delimited value.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Reason> {
        let end = self.length()?;
        let bytes = &self.data[self.position..end];
        self.position = end;
        Ok(bytes)
    }

    /// The 16 bytes of the record that begin with `short`, the value that was just read, if the record has as many.
    #[inline(always)]
    pub(super) fn chunk(&self, short: &[u8]) -> Option<&'a [u8; 16]> {
        self.record.get(self.position - short.len()..)?.first_chunk()
    }

    /// Enters a length-delimited message.
    #[inline(always)]
    pub(super) fn enter(&mut self) -> Result<Outer<'a>, Reason> {
        let end = self.length()?;
        let outer = Outer(self.data);
        self.data = &self.data[..end];
        Ok(outer)
    }

    /// Leaves a message that was read to its end.
    #[inline(always)]
    pub(super) fn leave(&mut self, outer: Outer<'a>) {
        self.data = outer.0;
    }

    /// Enters the message of a field with that tag, whether it has a length or is a group, which is inside of `depth`
    /// others: with where the place is to be after it, which is 0 where it ends with the message.
    #[inline(always)]
    pub(super) fn enter_as(&mut self, tag: u32, depth: usize) -> Result<(Outer<'a>, usize), Reason> {
        if depth >= MAX_DEPTH {
            return Err(Reason::Depth);
        }
        if tag & 7 == 3 { self.enter_group(tag + 1, depth + 1) } else { Ok((self.enter()?, 0)) }
    }

    #[cold]
    fn enter_group(&mut self, until: u32, depth: usize) -> Result<(Outer<'a>, usize), Reason> {
        let start = self.position;
        let end = self.skip_fields(until, depth)?;
        let after = mem::replace(&mut self.position, start);
        let outer = Outer(self.data);
        self.data = &self.data[..end];
        Ok((outer, after))
    }

    /// Leaves a message that was entered by [`Cursor::enter_as`].
    #[inline(always)]
    pub(super) fn leave_to(&mut self, outer: Outer<'a>, after: usize) {
        self.leave(outer);
        if after != 0 {
            self.position = after;
        }
    }

    #[inline(always)]
    fn advance(&mut self, count: usize) -> Result<(), Reason> {
        if count > self.data.len() - self.position {
            return Err(Reason::Truncated);
        }
        self.position += count;
        Ok(())
    }

    /// Passes over the value of a field that nobody asked for, at that depth of messages.
    #[inline(always)]
    pub(super) fn skip(&mut self, tag: u32, depth: usize) -> Result<(), Reason> {
        if tag < 8 {
            return Err(Reason::Tag);
        }
        match tag & 7 {
            0 => self.varint().map(|_| ()),
            2 => self.bytes().map(|_| ()),
            5 => self.advance(4),
            1 => self.advance(8),
            _ => self.skip_group(tag, depth),
        }
    }

    /// Passes over a group with all groups in it, without recursion.
    #[cold]
    fn skip_group(&mut self, tag: u32, depth: usize) -> Result<(), Reason> {
        if !matches!(tag & 7, 3) {
            return Err(if tag & 7 == 4 { Reason::EndGroup } else { Reason::Tag });
        }
        let mut open = [0u32; MAX_DEPTH];
        let limit = MAX_DEPTH.saturating_sub(depth);
        let mut level = 0;
        let mut next = tag;
        loop {
            match next & 7 {
                3 if next < 8 => return Err(Reason::Tag),
                3 if level == limit => return Err(Reason::Depth),
                3 => {
                    open[level] = next >> 3;
                    level += 1;
                }
                4 => {
                    level -= 1;
                    if open[level] != next >> 3 {
                        return Err(Reason::EndGroup);
                    }
                    if level == 0 {
                        return Ok(());
                    }
                }
                6 | 7 => return Err(Reason::Tag),
                _ => self.skip(next, depth)?,
            }
            next = self.tag()?;
        }
    }

    /// Passes over all fields up to the end of the message, or of the group that ends with the tag `until`. Returns
    /// where the fields end.
    pub(super) fn skip_fields(&mut self, until: u32, depth: usize) -> Result<usize, Reason> {
        while !self.at_end() {
            let start = self.position;
            match self.tag()? {
                tag if until != 0 && tag == until => return Ok(start),
                tag => self.skip(tag, depth)?,
            }
        }
        if until == 0 { Ok(self.position) } else { Err(Reason::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    #[test]
    fn varints_of_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift, 0x5555_5555_5555_5555 >> shift] {
                for tail in [0, 1, 12] {
                    let mut bytes = encode(value);
                    let length = bytes.len();
                    bytes.resize(length + tail, 0xff);
                    let mut cursor = Cursor::new(&bytes);
                    assert_eq!(cursor.varint(), Ok(value));
                    assert_eq!(cursor.position(), length);
                    let mut cursor = Cursor::new(&bytes[..length - 1]);
                    assert_eq!(cursor.varint(), Err(Reason::Truncated));
                }
            }
        }
    }

    #[test]
    fn varints_that_are_none() {
        let mut ten = [0x80u8; 10];
        assert_eq!(Cursor::new(&ten).varint(), Err(Reason::Varint));
        ten[9] = 2;
        assert_eq!(Cursor::new(&ten).varint(), Err(Reason::Varint));
        ten[9] = 0;
        assert_eq!(Cursor::new(&ten).varint(), Ok(0));
    }

    #[test]
    fn groups_nest_a_hundred_deep() {
        let mut bytes = vec![0x0b; 100];
        bytes.extend([0x0c; 100]);
        assert_eq!(Cursor::new(&bytes).skip_fields(0, 0), Ok(200));
        assert_eq!(Cursor::new(&bytes).skip_fields(0, 1), Err(Reason::Depth));
        assert_eq!(Cursor::new(&bytes[..199]).skip_fields(0, 0), Err(Reason::Truncated));
        assert_eq!(Cursor::new(&[0x0b; 100_000]).skip_fields(0, 0), Err(Reason::Depth));
        assert_eq!(Cursor::new(&[0x0b, 0x14]).skip_fields(0, 0), Err(Reason::EndGroup));
        assert_eq!(Cursor::new(&[0x0c]).skip_fields(0, 0), Err(Reason::EndGroup));
        assert_eq!(Cursor::new(&[0x03, 0x04]).skip_fields(0, 0), Err(Reason::Tag));
        assert_eq!(Cursor::new(&[0x0b, 0x03]).skip_fields(0, 0), Err(Reason::Tag));
        assert_eq!(Cursor::new(&[0x0e]).skip_fields(0, 0), Err(Reason::Tag));
    }
}
