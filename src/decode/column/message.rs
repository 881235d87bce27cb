//! The fields of a message: the loop that everything else is made for.

use arrow::datatypes::Fields;

use super::super::cursor::Cursor;
use super::super::fault::Reason;
use super::super::table::{MISMATCH, TagTable, UNKNOWN};
use super::super::vector::Validity;
use super::super::wire::{Ahead, MAX_DEPTH, Read, Stop};
use super::{Column, end_tag};

/// Nobody asked which member of the oneof is there.
pub(in crate::decode) const NO_CASE: u16 = u16::MAX;
/// Not a member of a oneof.
pub(in crate::decode) const NO_ONEOF: u16 = u16::MAX;
/// Nothing that may be guessed comes next: there is none, or it is a member of a oneof, with which more has to be done.
pub(in crate::decode) const NO_GUESS: u16 = u16::MAX;

/// What is done with a tag.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Entry {
    /// Field number and wire type.
    pub(in crate::decode) tag: u32,
    /// The column.
    pub(in crate::decode) slot: u16,
    /// The entry that is likely to come next, or [`NO_GUESS`].
    pub(in crate::decode) next: u16,
}

/// The member of a oneof that was seen last, and in which row. An old row never does harm: to clear a member that has
/// no value is no work.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Chosen {
    row: usize,
    slot: u16,
}

impl Chosen {
    pub(in crate::decode) const NONE: Chosen = Chosen { row: usize::MAX, slot: u16::MAX };
}

/// A message: its plan and the columns of its fields.
#[derive(Debug)]
pub(in crate::decode) struct Message {
    /// What is read, by field number.
    pub(in crate::decode) entries: Box<[Entry]>,
    /// The entry that is likely to come first, or [`NO_GUESS`].
    pub(in crate::decode) first: u16,
    /// For each entry the oneof that its field is a member of, or [`NO_ONEOF`].
    pub(in crate::decode) members: Box<[u16]>,
    /// Finds an entry.
    pub(in crate::decode) table: TagTable,
    /// A column for each of `fields`, then those that are only skipped.
    pub(in crate::decode) columns: Box<[Column]>,
    /// The fields' names, as long as `columns`.
    pub(in crate::decode) names: Box<[Box<str>]>,
    /// The last member seen of each oneof.
    pub(in crate::decode) oneofs: Box<[Chosen]>,
    /// For each oneof the column that names its member, or [`NO_CASE`].
    pub(in crate::decode) cases: Box<[u16]>,
    /// Where what is not known is kept, if it is.
    pub(in crate::decode) unknown: Option<Box<Unknown>>,
    /// The columns that a record must have, or that contain such.
    pub(in crate::decode) required: Box<[Required]>,
    /// The Arrow fields.
    pub(in crate::decode) fields: Fields,
    /// The rows that are written, and which of them are NULL.
    pub(in crate::decode) rows: usize,
    /// Whether a row is there.
    pub(in crate::decode) validity: Validity,
}

/// What was done with a field.
enum Step {
    /// It was read, or passed over; the entry that is likely to come next.
    Done(usize),
    /// Its tag was read: it is made of others.
    Nested(Entry),
}

/// A column that is looked at when a message is complete.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Required {
    /// The column.
    pub(in crate::decode) slot: u16,
    /// Whether it has to be there itself.
    pub(in crate::decode) itself: bool,
}

/// The column that keeps the fields that a message does not know.
#[derive(Debug)]
pub(in crate::decode) struct Unknown {
    /// The column.
    pub(in crate::decode) slot: u16,
    /// The numbers of all fields of the message, ascending: also of those that nobody reads.
    pub(in crate::decode) known: Box<[u32]>,
}

impl Message {
    /// Reads a nested message into `row`; what the row already has is merged.
    pub(in crate::decode) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        tag: u32,
        row: usize,
        depth: usize,
    ) -> Result<(), Reason> {
        if depth >= MAX_DEPTH {
            return Err(Reason::Depth);
        }
        if self.rows <= row {
            self.validity.gap(self.rows, row);
            self.rows = row + 1;
        }
        match end_tag(tag) {
            0 => {
                let outer = cursor.enter()?;
                self.decode(cursor, row, 0, depth + 1)?;
                cursor.leave(outer);
                Ok(())
            }
            until => self.decode(cursor, row, until, depth + 1),
        }
    }

    /// Reads fields into `row` up to the end of the message, or of the group that ends with the tag `until`.
    pub(in crate::decode) fn decode(
        &mut self,
        cursor: &mut Cursor<'_>,
        row: usize,
        until: u32,
        depth: usize,
    ) -> Result<(), Reason> {
        let beyond = cursor.beyond();
        let mut ahead = cursor.ahead();
        let mut next = usize::from(self.first);
        while ahead.rest.len() > beyond {
            let before = ahead;
            match self.read_ahead(&mut ahead, next, row) {
                Ok(Step::Done(likely)) if ahead.rest.len() >= beyond => {
                    next = likely;
                    continue;
                }
                Ok(Step::Nested(entry)) if ahead.rest.len() >= beyond => {
                    cursor.wire.follow(ahead);
                    let slot = usize::from(entry.slot);
                    if let Err(reason) = self.columns[slot].read_nested(cursor, entry.tag, row, depth) {
                        cursor.blame(&self.names[slot]);
                        return Err(reason);
                    }
                    next = usize::from(entry.next);
                }
                _ => {
                    cursor.wire.follow(before);
                    match self.read_odd(cursor, row, until, depth)? {
                        Some(likely) => next = likely,
                        None => return Ok(()),
                    }
                }
            }
            ahead = cursor.ahead();
        }
        cursor.wire.follow(ahead);
        if until == 0 { Ok(()) } else { Err(Reason::Truncated) }
    }

    /// Reads a field ahead, if it is whole and a scalar, or passes over it if nobody asked for it: nearly all fields of
    /// nearly all records. It tells no faults and may read beyond the message.
    #[inline(always)]
    fn read_ahead(&mut self, ahead: &mut Ahead<'_>, next: usize, row: usize) -> Result<Step, Stop> {
        let tag = ahead.varint()?;
        let entry = match self.entries.get(next) {
            Some(guess) if u64::from(guess.tag) == tag => guess,
            _ => {
                let tag = u32::try_from(tag).map_err(|_| Stop)?;
                match self.table.find(tag) {
                    UNKNOWN if self.unknown.is_none() && tag >= 8 && ahead.skip_plain(tag)? => {
                        return Ok(Step::Done(next));
                    }
                    UNKNOWN | MISMATCH => return Err(Stop),
                    index if self.members[index] != NO_ONEOF => return Err(Stop),
                    index => &self.entries[index],
                }
            }
        };
        match self.columns[usize::from(entry.slot)].read_scalar(ahead, row)? {
            true => Ok(Step::Done(usize::from(entry.next))),
            false => Ok(Step::Nested(*entry)),
        }
    }

    /// Reads a field, whatever it is, and tells what is wrong with it. Returns the entry that is likely to come next;
    /// `None` after the tag `until`.
    #[inline(never)]
    fn read_odd(
        &mut self,
        cursor: &mut Cursor<'_>,
        row: usize,
        until: u32,
        depth: usize,
    ) -> Result<Option<usize>, Reason> {
        let before = cursor.wire;
        let tag = cursor.tag()?;
        match self.table.find(tag) {
            UNKNOWN | MISMATCH if until != 0 && tag == until => Ok(None),
            UNKNOWN => {
                cursor.skip(tag, depth).inspect_err(|_| cursor.wire = before)?;
                if let Some(unknown) = &self.unknown {
                    let field = cursor.since(before.position(), cursor.position());
                    unknown.keep(cursor, tag, field, &mut self.columns, row)?;
                }
                Ok(Some(usize::from(NO_GUESS)))
            }
            MISMATCH => {
                cursor.wire = before;
                Err(mismatch(cursor, &self.entries, &self.names, tag))
            }
            index => {
                self.choose(index, row);
                let entry = self.entries[index];
                let slot = usize::from(entry.slot);
                if let Err(reason) = self.columns[slot].read(cursor, tag, row, depth) {
                    cursor.blame(&self.names[slot]);
                    return Err(reason);
                }
                Ok(Some(usize::from(entry.next)))
            }
        }
    }

    /// The last member of a oneof on the wire wins: clears the one before.
    fn choose(&mut self, index: usize, row: usize) {
        let oneof = usize::from(self.members[index]);
        let Some(chosen) = self.oneofs.get_mut(oneof) else { return };
        let entry = self.entries[index];
        if chosen.row == row && chosen.slot != entry.slot {
            self.columns[usize::from(chosen.slot)].truncate(row);
        }
        *chosen = Chosen { row, slot: entry.slot };
        if let Some(Column::Enum(case, _)) = self.columns.get_mut(usize::from(self.cases[oneof])) {
            case.put(row, (entry.tag >> 3) as i32);
        }
    }

    /// Whether it has required fields, itself or further in.
    pub(in crate::decode) fn has_required(&self) -> bool {
        !self.required.is_empty()
    }

    /// Looks whether a complete message has its required fields. Lists and maps look at their elements themselves.
    pub(in crate::decode) fn check(&self, cursor: &mut Cursor<'_>, row: usize) -> Result<(), Reason> {
        for Required { slot, itself } in &self.required {
            let slot = usize::from(*slot);
            let result = match &self.columns[slot] {
                column if column.has(row) => column.check(cursor, row),
                _ if *itself => Err(Reason::Missing),
                _ => Ok(()),
            };
            if let Err(reason) = result {
                cursor.blame(&self.names[slot]);
                return Err(reason);
            }
        }
        Ok(())
    }

    pub(in crate::decode) fn len(&self) -> usize {
        self.rows
    }

    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        self.validity.truncate(rows);
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
    }

    pub(in crate::decode) fn bytes(&self, rows: usize) -> usize {
        self.columns.iter().map(|column| column.bytes(rows)).sum()
    }
}

impl Unknown {
    /// Keeps the field with that tag, which is all of `bytes`, unless it is only not read.
    #[cold]
    fn keep(
        &self,
        cursor: &mut Cursor<'_>,
        tag: u32,
        bytes: &[u8],
        columns: &mut [Column],
        row: usize,
    ) -> Result<(), Reason> {
        if self.known.binary_search(&(tag >> 3)).is_ok() {
            return Ok(());
        }
        cursor.count_unknown();
        match columns.get_mut(usize::from(self.slot)) {
            Some(Column::Raw(kept)) => kept.append(row, bytes),
            _ => Ok(()),
        }
    }
}

/// A known field with another wire type than its own.
#[cold]
fn mismatch(cursor: &mut Cursor<'_>, entries: &[Entry], names: &[Box<str>], tag: u32) -> Reason {
    let found = (tag & 7) as u8;
    // An end-group tag is about the group that it ends and not about the field.
    if found == 4 {
        return Reason::EndGroup;
    }
    if found > 5 {
        return Reason::Tag;
    }
    match entries.iter().find(|entry| entry.tag >> 3 == tag >> 3) {
        Some(entry) => {
            cursor.blame(&names[usize::from(entry.slot)]);
            Reason::WireType { found, expected: (entry.tag & 7) as u8 }
        }
        None => Reason::Tag,
    }
}
