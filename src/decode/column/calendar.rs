//! `google.type.Date` and `google.type.TimeOfDay`: messages of numbers that are one value here.
//!
//! Format: <https://github.com/googleapis/googleapis/tree/master/google/type>. A date without a day, a month or a year,
//! and what no calendar has, is NULL.

use arrow::buffer::NullBuffer;
use chrono::{Datelike, NaiveDate};

use super::super::cursor::Cursor;
use super::super::fault::Reason;
use super::super::vector::Fixed;
use super::super::wire::Read;
use super::nested::skip_beside;

/// Which of the two messages it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum CalendarKind {
    /// Year, month and day: days since the epoch.
    Date,
    /// Hours, minutes, seconds and nanoseconds: microseconds since midnight.
    TimeOfDay,
}

/// A column of dates or times of day.
#[derive(Debug)]
pub(in crate::decode) struct Calendar {
    pub(in crate::decode) values: Fixed<i64>,
    pub(in crate::decode) kind: CalendarKind,
    /// The row that was read last with its numbers, for a second message that merges.
    last: (usize, [i32; 4]),
    /// The rows whose message no calendar has.
    impossible: Vec<usize>,
    /// How many there were in the batches before, until they are taken.
    pub(in crate::decode) counted: u64,
}

/// The tags of the four numbers.
const TAGS: [u32; 4] = [0x08, 0x10, 0x18, 0x20];

impl Calendar {
    pub(in crate::decode) fn new(kind: CalendarKind, nullable: bool) -> Self {
        let last = (usize::MAX, [0; 4]);
        Self { values: Fixed::new(0, nullable), kind, last, impossible: Vec::new(), counted: 0 }
    }

    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, tag: u32, row: usize, depth: usize) -> Result<(), Reason> {
        let known = match self.kind {
            CalendarKind::Date => &TAGS[..3],
            CalendarKind::TimeOfDay => &TAGS[..],
        };
        let mut numbers = if self.last.0 == row { self.last.1 } else { [0; 4] };
        let outer = cursor.enter_as(tag, depth)?;
        while !cursor.at_end() {
            let tag = cursor.tag()?;
            match known.iter().position(|known| *known == tag) {
                Some(at) => numbers[at] = cursor.varint()? as i32,
                None => skip_beside(cursor, tag, known, depth + 1)?,
            }
        }
        cursor.leave(outer);
        self.put(row, numbers);
        Ok(())
    }

    /// Puts the value of four numbers into `row`.
    pub(super) fn put(&mut self, row: usize, numbers: [i32; 4]) {
        self.last = (row, numbers);
        self.impossible.pop_if(|last| *last == row);
        match self.kind.value(numbers) {
            Some(value) => self.values.put(row, value),
            None => {
                self.values.truncate(row);
                self.impossible.push(row);
            }
        }
    }

    /// Whether a message was read into `row`, the last one, be it one that no calendar has.
    pub(in crate::decode) fn has(&self, row: usize) -> bool {
        self.last.0 == row || self.values.len() > row
    }

    pub(in crate::decode) fn len(&self) -> usize {
        self.values.len()
    }

    /// Takes the values of that many rows. What comes next is another message.
    pub(in crate::decode) fn finish(&mut self, rows: usize) -> (Vec<i64>, Option<NullBuffer>) {
        self.last.0 = usize::MAX;
        self.counted += self.impossible.len() as u64;
        self.impossible.clear();
        self.values.finish(rows)
    }

    /// Drops the rows from `rows` on: what comes there next is another message.
    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.last.0 = usize::MAX;
        while self.impossible.pop_if(|last| *last >= rows).is_some() {}
    }
}

impl CalendarKind {
    /// The value of four numbers; `None` when there is no such day or time.
    fn value(self, [a, b, c, d]: [i32; 4]) -> Option<i64> {
        let within = |number: i32, end: i32| (0..end).contains(&number).then(|| i64::from(number));
        match self {
            CalendarKind::Date => {
                if !(1..=9999).contains(&a) {
                    return None;
                }
                let date = NaiveDate::from_ymd_opt(a, u32::try_from(b).ok()?, u32::try_from(c).ok()?)?;
                let epoch = NaiveDate::default();
                Some(i64::from(date.num_days_from_ce()) - i64::from(epoch.num_days_from_ce()))
            }
            CalendarKind::TimeOfDay => {
                let seconds = (within(a, 24)? * 60 + within(b, 60)?) * 60 + within(c, 60)?;
                Some(seconds * 1_000_000 + within(d, 1_000_000_000)? / 1_000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_that_exist() {
        use CalendarKind::*;
        for (kind, numbers, want) in [
            (Date, [1970, 1, 1, 0], Some(0)),
            (Date, [1969, 12, 31, 0], Some(-1)),
            (Date, [2024, 2, 29, 0], Some(19_782)),
            (Date, [1, 1, 1, 0], Some(-719_162)),
            (Date, [2023, 2, 29, 0], None),
            (Date, [2023, 0, 1, 0], None),
            (Date, [2023, 5, 0, 0], None),
            (Date, [0, 5, 1, 0], None),
            (Date, [10_000, 1, 1, 0], None),
            (Date, [2023, -1, 1, 0], None),
            (TimeOfDay, [23, 59, 59, 999_999_999], Some(86_399_999_999)),
            (TimeOfDay, [0, 0, 0, 0], Some(0)),
            (TimeOfDay, [24, 0, 0, 0], None),
            (TimeOfDay, [1, 60, 0, 0], None),
            (TimeOfDay, [1, 0, 0, -1], None),
        ] {
            assert_eq!(kind.value(numbers), want, "{kind:?} {numbers:?}");
        }
    }

    #[test]
    fn a_day_in_two_parts_merges() {
        let mut column = Calendar::new(CalendarKind::Date, true);
        // A field of length 3 { year: 2024 }, then { month: 2, day: 29 }.
        for (bytes, want) in [(&[3, 0x08, 0xe8, 0x0f][..], None), (&[4, 0x10, 2, 0x18, 29], Some(19_782))] {
            column.read(&mut Cursor::new(bytes), 0x0a, 0, 0).unwrap();
            assert_eq!((column.len() == 1).then(|| column.values.value(0)), want);
        }
        column.read(&mut Cursor::new(&[2, 0x10, 3]), 0x0a, 1, 0).unwrap();
        assert_eq!(column.len(), 1, "the next row's message is another one");
        column.read(&mut Cursor::new(&[3, 0x08, 0xe8, 0x0f]), 0x0a, 1, 0).unwrap();
        column.finish(2);
        column.read(&mut Cursor::new(&[4, 0x10, 2, 0x18, 29]), 0x0a, 1, 0).unwrap();
        assert_eq!(column.len(), 0, "that of the next batch too");
    }
}
