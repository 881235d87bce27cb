//! Columns that are made of other columns, and the well-known messages that are scalars here.

use std::collections::HashMap;

use super::super::cursor::Cursor;
use super::super::fault::Reason;
use super::super::vector::{Fixed, Offsets};
use super::super::wire::{MAX_DEPTH, Read, Wire};
use super::Column;

/// The names of an enum's numbers.
#[derive(Debug)]
pub(in crate::decode) struct EnumNames {
    /// The names of the numbers from 0 on, as far as they are close together.
    dense: Vec<Option<Box<str>>>,
    others: HashMap<i32, Box<str>>,
    longest: usize,
    /// Numbers without a name that were spelled out, until they are taken.
    pub(in crate::decode) nameless: u64,
}

/// The longest number as text: `-2147483648`.
const LONGEST_NUMBER: usize = 11;

impl EnumNames {
    pub(in crate::decode) fn new(names: &[(i32, String)]) -> Self {
        let mut dense = vec![None; names.len() * 2];
        let mut others = HashMap::new();
        let mut longest = LONGEST_NUMBER;
        for (number, name) in names {
            longest = longest.max(name.len());
            match usize::try_from(*number).ok().and_then(|number| dense.get_mut(number)) {
                Some(place) => *place = Some(name.as_str().into()),
                None => _ = others.insert(*number, name.as_str().into()),
            }
        }
        Self { dense, others, longest, nameless: 0 }
    }

    /// The name of a number, if it has one.
    #[inline]
    pub(in crate::decode) fn name(&self, number: i32) -> Option<&str> {
        let near = usize::try_from(number).ok().and_then(|number| self.dense.get(number));
        match near {
            Some(name) => name.as_deref(),
            None => self.others.get(&number).map(AsRef::as_ref),
        }
    }

    /// The bytes of the longest text that a number may become.
    pub(in crate::decode) fn longest(&self) -> usize {
        self.longest
    }
}

/// What the two fields of a time mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum TimeKind {
    /// `google.protobuf.Timestamp`: nanoseconds count forward.
    Timestamp,
    /// `google.protobuf.Duration`: both have the same sign.
    Duration,
}

/// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// 10,000 years, as `duration.proto` bounds it.
const DURATION_SECONDS: std::ops::RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;
/// Nanoseconds that are less than a second.
const MAX_NANOS: i32 = 999_999_999;

/// Timestamps or durations, in microseconds.
#[derive(Debug)]
pub(in crate::decode) struct Time {
    pub(in crate::decode) values: Fixed<i64>,
    pub(in crate::decode) kind: TimeKind,
    /// The row that was read last with its seconds and nanoseconds, for a second message that merges.
    last: (usize, i64, i32),
}

impl Time {
    pub(in crate::decode) fn new(kind: TimeKind, nullable: bool) -> Self {
        Self { values: Fixed::new(0, nullable), kind, last: (usize::MAX, 0, 0) }
    }

    pub(in crate::decode) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        tag: u32,
        row: usize,
        depth: usize,
    ) -> Result<(), Reason> {
        let mut wire = cursor.wire;
        let result = self.read_at(&mut wire, tag, row, depth);
        cursor.wire = wire;
        result
    }

    #[inline(always)]
    fn read_at(&mut self, wire: &mut Wire<'_>, tag: u32, row: usize, depth: usize) -> Result<(), Reason> {
        let before = *wire;
        let outer = wire.enter_as(tag, depth)?;
        let (mut seconds, mut nanos) = match self.last {
            (last, seconds, nanos) if last == row && self.values.len() == row + 1 => (seconds, nanos),
            _ => (0, 0),
        };
        while !wire.at_end() {
            match wire.tag()? {
                0x08 => seconds = wire.varint()? as i64,
                0x10 => nanos = wire.varint()? as i32,
                tag => wire.apart(|wire| skip_beside(wire, tag, &[0x08, 0x10], depth + 1))?,
            }
        }
        wire.leave(outer);
        self.last = (row, seconds, nanos);
        match self.kind.micros(seconds, nanos) {
            Some(micros) => self.values.put(row, micros),
            None => {
                *wire = before;
                return Err(Reason::OutOfRange);
            }
        }
        Ok(())
    }

    pub(in crate::decode) fn len(&self) -> usize {
        self.values.len()
    }

    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
    }
}

impl TimeKind {
    /// Microseconds, rounded down; `None` out of range.
    fn micros(self, seconds: i64, nanos: i32) -> Option<i64> {
        let valid = match self {
            TimeKind::Timestamp => TIMESTAMP_SECONDS.contains(&seconds) && (0..=MAX_NANOS).contains(&nanos),
            TimeKind::Duration => {
                let opposed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
                DURATION_SECONDS.contains(&seconds) && (-MAX_NANOS..=MAX_NANOS).contains(&nanos) && !opposed
            }
        };
        valid.then(|| seconds * 1_000_000 + i64::from(nanos.div_euclid(1000)))
    }
}

/// Passes over a field of a message whose own fields have the tags `known`.
pub(super) fn skip_beside(wire: &mut Wire<'_>, tag: u32, known: &[u32], depth: usize) -> Result<(), Reason> {
    let (number, found) = (tag >> 3, (tag & 7) as u8);
    match known.iter().find(|known| *known >> 3 == number) {
        Some(known) if found < 6 && found != 4 => Err(Reason::WireType { found, expected: (known & 7) as u8 }),
        _ => wire.skip(tag, depth),
    }
}

/// A wrapper message such as `google.protobuf.Int32Value`: NULL without the message, a default without its value.
#[derive(Debug)]
pub(in crate::decode) struct Wrapper {
    pub(in crate::decode) value: Column,
    /// The tag of the value.
    tag: u32,
}

impl Wrapper {
    pub(in crate::decode) fn new(value: Column, wire: u32) -> Self {
        Self { value, tag: 1 << 3 | wire }
    }

    pub(in crate::decode) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        tag: u32,
        row: usize,
        depth: usize,
    ) -> Result<(), Reason> {
        let outer = cursor.enter_as(tag, depth)?;
        while !cursor.at_end() {
            let tag = cursor.tag()?;
            if tag == self.tag {
                self.value.read(cursor, tag, row, depth + 1)?;
            } else {
                skip_beside(cursor, tag, &[self.tag], depth + 1)?;
            }
        }
        cursor.leave(outer);
        self.value.settle(row);
        Ok(())
    }

    pub(in crate::decode) fn len(&self) -> usize {
        self.value.len()
    }

    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        self.value.truncate(rows);
    }

    pub(in crate::decode) fn bytes(&self, rows: usize) -> usize {
        self.value.bytes(rows)
    }
}

/// A repeated field.
#[derive(Debug)]
pub(in crate::decode) struct List {
    pub(in crate::decode) offsets: Offsets,
    pub(in crate::decode) item: Column,
    /// The tag of one element, when the elements may also be packed into one value.
    element: Option<u32>,
    /// The bytes that an element takes at least.
    width: usize,
}

impl List {
    /// `element` is the tag of a single element if elements may be packed.
    pub(in crate::decode) fn new(item: Column, element: Option<u32>) -> Self {
        let width = item.bytes(1);
        Self { offsets: Offsets::new(), item, element, width }
    }

    #[inline(never)]
    pub(in crate::decode) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        tag: u32,
        row: usize,
        depth: usize,
    ) -> Result<(), Reason> {
        let at = self.offsets.open(row);
        match self.element {
            Some(element) if tag & 7 == 2 => {
                let outer = cursor.enter()?;
                self.read_packed(cursor, element, at, depth)?;
                cursor.leave(outer);
                // They are no more than the bytes of the record, but each may unpack to a long name.
                cursor.unpack(self.width.saturating_mul(self.offsets.total() - at))
            }
            _ => {
                cursor.unpack(self.width)?;
                self.item.read(cursor, tag, at, depth)?;
                self.item.check(cursor, at)?;
                self.offsets.push()
            }
        }
    }

    /// Reads elements up to the end of the message; the most frequent types in a loop of their own.
    fn read_packed(&mut self, cursor: &mut Cursor<'_>, element: u32, at: usize, depth: usize) -> Result<(), Reason> {
        let List { offsets, item, .. } = self;
        match item {
            Column::Int32(c) | Column::Enum(c, _) => pack(cursor, offsets, c, at, |wire| Ok(wire.varint()? as i32)),
            Column::Int64(c) => pack(cursor, offsets, c, at, |wire| Ok(wire.varint()? as i64)),
            Column::Float(c) => pack(cursor, offsets, c, at, |wire| Ok(f32::from_le_bytes(wire.fixed()?))),
            Column::Double(c) => pack(cursor, offsets, c, at, |wire| Ok(f64::from_le_bytes(wire.fixed()?))),
            _ => {
                let mut at = at;
                while !cursor.at_end() {
                    item.read(cursor, element, at, depth)?;
                    offsets.push()?;
                    at += 1;
                }
                Ok(())
            }
        }
    }

    pub(in crate::decode) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        let items = self.offsets.truncate(rows);
        self.item.truncate(items);
    }

    pub(in crate::decode) fn bytes(&self, rows: usize) -> usize {
        rows * size_of::<i32>() + self.item.bytes(self.offsets.total())
    }
}

#[inline(always)]
fn pack<T: Copy>(
    wire: &mut Wire<'_>,
    offsets: &mut Offsets,
    column: &mut Fixed<T>,
    mut at: usize,
    next: impl Fn(&mut Wire<'_>) -> Result<T, Reason>,
) -> Result<(), Reason> {
    wire.apart(|wire| {
        while !wire.at_end() {
            column.put(at, next(wire)?);
            offsets.push()?;
            at += 1;
        }
        Ok(())
    })
}

/// A map. A key that comes again is only dropped when the column is finished.
#[derive(Debug)]
pub(in crate::decode) struct Map {
    pub(in crate::decode) offsets: Offsets,
    pub(in crate::decode) keys: Column,
    pub(in crate::decode) values: Column,
    key_tag: u32,
    value_tag: u32,
    width: usize,
}

impl Map {
    pub(in crate::decode) fn new(keys: Column, key_wire: u32, values: Column, value_wire: u32) -> Self {
        let width = keys.bytes(1) + values.bytes(1);
        let (key_tag, value_tag) = (1 << 3 | key_wire, 2 << 3 | value_wire);
        Self { offsets: Offsets::new(), keys, values, key_tag, value_tag, width }
    }

    pub(in crate::decode) fn read(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: usize) -> Result<(), Reason> {
        if depth >= MAX_DEPTH {
            return Err(Reason::Depth);
        }
        cursor.unpack(self.width)?;
        let at = self.offsets.open(row);
        let outer = cursor.enter()?;
        while !cursor.at_end() {
            let tag = cursor.tag()?;
            let (part, name) = match tag {
                tag if tag == self.key_tag => (&mut self.keys, "key"),
                tag if tag == self.value_tag => (&mut self.values, "value"),
                _ => {
                    skip_beside(cursor, tag, &[self.key_tag, self.value_tag], depth)?;
                    continue;
                }
            };
            if let Err(reason) = part.read(cursor, tag, at, depth) {
                cursor.blame(name);
                return Err(reason);
            }
        }
        cursor.leave(outer);
        // A value that is absent is an empty message: that has a text, and is a time of day.
        match &mut self.values {
            Column::Json(texts) if texts.values.len() <= at => texts.read(&[], at, depth + 1)?,
            Column::Calendar(days) if !days.has(at) => days.put(at, [0; 4]),
            _ => {}
        }
        self.values.check(cursor, at)?;
        self.offsets.push()
    }

    pub(in crate::decode) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        let entries = self.offsets.truncate(rows);
        self.keys.truncate(entries);
        self.values.truncate(entries);
    }

    pub(in crate::decode) fn bytes(&self, rows: usize) -> usize {
        let entries = self.offsets.total();
        rows * size_of::<i32>() + self.keys.bytes(entries) + self.values.bytes(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down() {
        use TimeKind::*;
        let cases = [
            (Timestamp, 1, 1_999, Some(1_000_001)),
            (Timestamp, -1, 999_999_999, Some(-1)),
            (Timestamp, -62_135_596_800, 0, Some(-62_135_596_800_000_000)),
            (Timestamp, -62_135_596_801, 0, None),
            (Timestamp, 253_402_300_799, 999_999_999, Some(253_402_300_799_999_999)),
            (Timestamp, 253_402_300_800, 0, None),
            (Timestamp, i64::MIN, 0, None),
            (Timestamp, 0, -1, None),
            (Timestamp, 0, 1_000_000_000, None),
            (Duration, 0, -1, Some(-1)),
            (Duration, -1, -1_001, Some(-1_000_002)),
            (Duration, 1, -1, None),
            (Duration, -1, 1, None),
            (Duration, 315_576_000_000, 999_999_999, Some(315_576_000_000_999_999)),
            (Duration, i64::MAX, 0, None),
            (Duration, 0, i32::MIN, None),
        ];
        for (kind, seconds, nanos, want) in cases {
            assert_eq!(kind.micros(seconds, nanos), want, "{kind:?} {seconds} {nanos}");
        }
    }

    #[test]
    fn enum_names_are_found_near_and_far() {
        let names = EnumNames::new(&[(-1, "NEG".into()), (0, "ZERO".into()), (1_000_000, "FAR".into())]);
        let got = [-1, 0, 1, 1_000_000, 7].map(|number| names.name(number));
        assert_eq!(got, [Some("NEG"), Some("ZERO"), None, Some("FAR"), None]);
        assert_eq!(names.longest(), 11);
    }
}
