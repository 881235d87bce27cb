//! Where the decoder is in a record, and what it has seen on the way.

use std::ops::{Deref, DerefMut};

use super::fault::Reason;
use super::wire::Wire;

/// What one record may unpack to, in bytes of the columns. Lists of messages grow on the way: an element of two bytes
/// on the wire may stand for hundreds of columns.
const MAX_UNPACKED: usize = 1 << 28;

/// A place in a record, which it reads as, with what is told of the whole record.
pub(super) struct Cursor<'a> {
    pub(super) wire: Wire<'a>,
    unpacked: usize,
    /// The fields that were not known and are kept.
    unknown: u64,
    /// The names on the way out of a fault, the innermost first.
    trail: Vec<Box<str>>,
}

impl<'a> Deref for Cursor<'a> {
    type Target = Wire<'a>;

    fn deref(&self) -> &Wire<'a> {
        &self.wire
    }
}

impl<'a> DerefMut for Cursor<'a> {
    fn deref_mut(&mut self) -> &mut Wire<'a> {
        &mut self.wire
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self { wire: Wire::new(record), unpacked: 0, unknown: 0, trail: Vec::new() }
    }

    /// Counts a field that was not known.
    pub(super) fn count_unknown(&mut self) {
        self.unknown += 1;
    }

    /// The fields that were not known.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown
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

    /// Counts what an element takes in the columns.
    #[inline]
    pub(super) fn unpack(&mut self, width: usize) -> Result<(), Reason> {
        self.unpacked = self.unpacked.saturating_add(width);
        if self.unpacked > MAX_UNPACKED { Err(Reason::TooLarge) } else { Ok(()) }
    }
}
