//! Reading the wire format: <https://protobuf.dev/programming-guides/encoding/>.

use super::fault::Reason;

/// Messages and groups nest no deeper than this, counted together.
pub(super) const MAX_DEPTH: usize = 100;

/// Reads values that are no messages, one after the other. A value that cannot be read is not passed over.
pub(super) trait Read<'a> {
    /// Why a value cannot be read.
    type Fault: From<Reason>;

    /// What is left to read.
    fn rest(&self) -> &'a [u8];

    /// Goes on with what is left after a value.
    fn go_on(&mut self, rest: &'a [u8]);

    /// The 16 bytes that `from`, a part of what is left, begins with, if the reader sees as many.
    fn chunk(&self, from: &'a [u8]) -> Option<&'a [u8; 16]>;

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Self::Fault> {
        let (value, rest) = varint(self.rest())?;
        self.go_on(rest);
        Ok(value)
    }

    /// A value of `N` bytes, the lowest one first.
    #[inline(always)]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Self::Fault> {
        let (bytes, rest) = self.rest().split_first_chunk().ok_or(Reason::Truncated)?;
        self.go_on(rest);
        Ok(*bytes)
    }

    /// A length-delimited value.
    #[inline(always)]
    fn bytes(&mut self) -> Result<&'a [u8], Self::Fault> {
        let (bytes, rest) = delimited(self.rest())?;
        self.go_on(rest);
        Ok(bytes)
    }

    /// A length-delimited value that is not passed over yet.
    #[inline(always)]
    fn text(&self) -> Result<Text<'a>, Self::Fault> {
        let (length, from) = varint(self.rest())?;
        let (bytes, rest) = split(length, from)?;
        Ok(Text { bytes, chunk: self.chunk(from), rest })
    }

    /// Passes over it.
    #[inline(always)]
    fn pass(&mut self, text: &Text<'a>) {
        self.go_on(text.rest);
    }

    /// Passes over the value of a field that nobody asked for; `false` if it is a group, or nothing that there is.
    #[inline(always)]
    fn skip_plain(&mut self, tag: u32) -> Result<bool, Self::Fault> {
        match tag & 7 {
            0 => _ = self.varint()?,
            1 => _ = self.fixed::<8>()?,
            2 => _ = self.bytes()?,
            5 => _ = self.fixed::<4>()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A length-delimited value.
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    /// The 16 bytes that begin with it, if the record has as many.
    pub(super) chunk: Option<&'a [u8; 16]>,
    /// What comes after it.
    rest: &'a [u8],
}

/// The place in a record. Its bytes end where the message that is being read ends.
///
/// It is copied into loops that read values: there it stays in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<'a> {
    /// All of the record.
    record: &'a [u8],
    /// What is left of the message.
    rest: &'a [u8],
    /// The bytes of the record after the message.
    beyond: usize,
}

/// What comes after a nested message, to be put back after it.
pub(super) struct Outer<'a> {
    rest: &'a [u8],
    beyond: usize,
}

impl<'a> Wire<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self { record, rest: record, beyond: 0 }
    }

    /// Lets a copy take a step that is not inlined: a place whose address is not given away stays in registers.
    #[inline(always)]
    pub(super) fn apart<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> T {
        let mut copy = *self;
        let result = step(&mut copy);
        *self = copy;
        result
    }

    #[inline(always)]
    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.record.len() - self.beyond - self.rest.len()
    }

    /// Moves to another position of the message.
    pub(super) fn rewind(&mut self, position: usize) {
        self.rest = self.since(position, self.record.len() - self.beyond);
    }

    /// A reader that runs ahead.
    #[inline(always)]
    pub(super) fn ahead(&self) -> Ahead<'a> {
        Ahead { rest: self.since(self.position(), self.record.len()) }
    }

    /// The bytes of the record after the message.
    #[inline(always)]
    pub(super) fn beyond(&self) -> usize {
        self.beyond
    }

    /// Goes to where the reader is that ran ahead.
    #[inline(always)]
    pub(super) fn follow(&mut self, ahead: Ahead<'a>) {
        self.rest = ahead.rest.get(..ahead.rest.len() - self.beyond).unwrap_or_default();
    }

    /// The bytes of the record from `start` to `end`.
    pub(super) fn since(&self, start: usize, end: usize) -> &'a [u8] {
        self.record.get(start..end).unwrap_or_default()
    }

    /// The next tag: field number and wire type. May still be one of those that do not exist.
    #[inline(always)]
    pub(super) fn tag(&mut self) -> Result<u32, Reason> {
        let (tag, rest) = varint(self.rest)?;
        let tag = u32::try_from(tag).map_err(|_| Reason::Tag)?;
        self.rest = rest;
        Ok(tag)
    }

    /// Enters a length-delimited message.
    #[inline(always)]
    pub(super) fn enter(&mut self) -> Result<Outer<'a>, Reason> {
        let (message, rest) = delimited(self.rest)?;
        let outer = Outer { rest, beyond: self.beyond };
        self.rest = message;
        self.beyond += rest.len();
        Ok(outer)
    }

    /// Leaves a message that was read to its end.
    #[inline(always)]
    pub(super) fn leave(&mut self, outer: Outer<'a>) {
        self.rest = outer.rest;
        self.beyond = outer.beyond;
    }

    /// Enters the message of a field with that tag, whether it has a length or is a group, which is inside of `depth`
    /// others.
    #[inline(always)]
    pub(super) fn enter_as(&mut self, tag: u32, depth: usize) -> Result<Outer<'a>, Reason> {
        if depth >= MAX_DEPTH {
            return Err(Reason::Depth);
        }
        if tag & 7 != 3 {
            return self.enter();
        }
        self.apart(|wire| wire.enter_group(tag + 1, depth + 1))
    }

    #[cold]
    fn enter_group(&mut self, until: u32, depth: usize) -> Result<Outer<'a>, Reason> {
        let start = self.position();
        let end = self.skip_fields(until, depth)?;
        let outer = Outer { rest: self.rest, beyond: self.beyond };
        self.rest = self.since(start, end);
        self.beyond = self.record.len() - end;
        Ok(outer)
    }

    /// Passes over the value of a field that nobody asked for, at that depth of messages.
    #[inline(always)]
    pub(super) fn skip(&mut self, tag: u32, depth: usize) -> Result<(), Reason> {
        if tag < 8 {
            return Err(Reason::Tag);
        }
        if self.skip_plain(tag)? { Ok(()) } else { self.apart(|wire| wire.skip_group(tag, depth)) }
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
            let start = self.position();
            match self.tag()? {
                tag if until != 0 && tag == until => return Ok(start),
                tag => self.skip(tag, depth)?,
            }
        }
        if until == 0 { Ok(self.position()) } else { Err(Reason::Truncated) }
    }
}

impl<'a> Read<'a> for Wire<'a> {
    type Fault = Reason;

    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    fn go_on(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    #[inline(always)]
    fn chunk(&self, from: &'a [u8]) -> Option<&'a [u8; 16]> {
        from.first_chunk().or_else(|| {
            let start = self.record.len() - self.beyond - from.len();
            self.record.get(start..)?.first_chunk()
        })
    }
}

/// A reader that runs ahead of a [`Wire`]: it does not see where the message ends, only where the record does, and does
/// not tell its faults. Whoever finds that it went wrong goes back to the [`Wire`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// What is left of the record.
    pub(super) rest: &'a [u8],
}

/// The reader ahead found something that it cannot read.
#[derive(Debug)]
pub(super) struct Stop;

impl From<Reason> for Stop {
    #[inline(always)]
    fn from(_: Reason) -> Self {
        Stop
    }
}

impl<'a> Read<'a> for Ahead<'a> {
    type Fault = Stop;

    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    fn go_on(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    #[inline(always)]
    fn chunk(&self, from: &'a [u8]) -> Option<&'a [u8; 16]> {
        from.first_chunk()
    }
}

/// A varint and what comes after it.
#[inline(always)]
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Reason> {
    match bytes {
        [a, rest @ ..] if *a < 0x80 => Ok((u64::from(*a), rest)),
        [a, b, rest @ ..] if *b < 0x80 => Ok((u64::from(*a & 0x7f) | u64::from(*b) << 7, rest)),
        _ => long_varint(bytes),
    }
}

/// A length-delimited value and what comes after it.
#[inline(always)]
fn delimited(bytes: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let (length, rest) = varint(bytes)?;
    split(length, rest)
}

/// The first `length` bytes and the others.
#[inline(always)]
fn split(length: u64, bytes: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let length = usize::try_from(length).map_err(|_| Reason::Truncated)?;
    bytes.split_at_checked(length).ok_or(Reason::Truncated)
}

/// Three to eight bytes at once, without a branch a byte: the high bits say where it ends, three shifts close the gaps
/// that they leave. Returns the value and what comes after it.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Reason> {
    if let Some(eight) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            let kept = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
            let pairs = (kept & 0x007f_007f_007f_007f) | (kept & 0x7f00_7f00_7f00_7f00) >> 1;
            let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
            let value = (fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4;
            return Ok((value, &bytes[ends.trailing_zeros() as usize / 8 + 1..]));
        }
    }
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            if index == 9 && *byte > 1 {
                return Err(Reason::Varint);
            }
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(if bytes.len() < 10 { Reason::Truncated } else { Reason::Varint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::varint as encode;

    #[test]
    fn varints_of_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift, 0x5555_5555_5555_5555 >> shift] {
                for tail in [0, 1, 12] {
                    let mut bytes = encode(value);
                    let length = bytes.len();
                    bytes.resize(length + tail, 0xff);
                    let mut wire = Wire::new(&bytes);
                    assert_eq!(wire.varint(), Ok(value));
                    assert_eq!(wire.position(), length);
                    let mut wire = Wire::new(&bytes[..length - 1]);
                    assert_eq!(wire.varint(), Err(Reason::Truncated));
                }
            }
        }
    }

    #[test]
    fn varints_that_are_none() {
        let mut ten = [0x80u8; 10];
        assert_eq!(Wire::new(&ten).varint(), Err(Reason::Varint));
        ten[9] = 2;
        assert_eq!(Wire::new(&ten).varint(), Err(Reason::Varint));
        ten[9] = 0;
        assert_eq!(Wire::new(&ten).varint(), Ok(0));
    }

    #[test]
    fn groups_nest_a_hundred_deep() {
        let mut bytes = vec![0x0b; 100];
        bytes.extend([0x0c; 100]);
        assert_eq!(Wire::new(&bytes).skip_fields(0, 0), Ok(200));
        assert_eq!(Wire::new(&bytes).skip_fields(0, 1), Err(Reason::Depth));
        assert_eq!(Wire::new(&bytes[..199]).skip_fields(0, 0), Err(Reason::Truncated));
        assert_eq!(Wire::new(&[0x0b; 100_000]).skip_fields(0, 0), Err(Reason::Depth));
        assert_eq!(Wire::new(&[0x0b, 0x14]).skip_fields(0, 0), Err(Reason::EndGroup));
        assert_eq!(Wire::new(&[0x0c]).skip_fields(0, 0), Err(Reason::EndGroup));
        assert_eq!(Wire::new(&[0x03, 0x04]).skip_fields(0, 0), Err(Reason::Tag));
        assert_eq!(Wire::new(&[0x0b, 0x03]).skip_fields(0, 0), Err(Reason::Tag));
        assert_eq!(Wire::new(&[0x0e]).skip_fields(0, 0), Err(Reason::Tag));
    }
}
