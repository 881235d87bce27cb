//! What a decoder met that is no fault, and that somebody may want to know of.

/// Counts since they were taken last, of rows that became part of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Fields that a message does not know, where a column `_unknown` is read.
    pub unknown_fields: u64,
    /// Numbers of enums that have no name: they became digits.
    pub nameless_numbers: u64,
    /// Dates and times of day that no calendar has: they became NULL.
    pub impossible_dates: u64,
}

impl Oddities {
    /// Counts these too.
    pub fn add(&mut self, more: Oddities) {
        self.unknown_fields += more.unknown_fields;
        self.nameless_numbers += more.nameless_numbers;
        self.impossible_dates += more.impossible_dates;
    }
}
