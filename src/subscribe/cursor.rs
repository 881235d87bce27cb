//! A place in a table's history, as a text that a client keeps and gives back.
//!
//! A place is a version and how many rows of that version lie before it. The cursor of a message is the place behind
//! its row: so the first row of version 7 carries (7, 1), and (7, 0) is before it. Rows are counted as they stand in
//! the commit: files in the commit's order, rows in the file's order, and a filter does not change the count. Two
//! messages with the same cursor are the same row: that is what a client dedupes by.
//!
//! The text is base64url without padding of: one byte for the format (1), eight bytes that stand for the table (the
//! beginning of the SHA-256 of its id), version and rows as varints, four bytes of checksum. To a client it is opaque.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The format that is written.
const FORMAT: u8 = 1;
/// Format, table, two varints, checksum.
const MAX_BYTES: usize = 1 + 8 + 10 + 10 + 4;
/// The longest text of a cursor.
pub const MAX_CURSOR_TEXT: usize = MAX_BYTES.div_ceil(3) * 4;

/// Which table it is: the beginning of the SHA-256 of its id. A table that was deleted and made again is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableId([u8; 8]);

impl TableId {
    /// The table with this id: Delta's `metaData.id`.
    pub fn of(id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        Self(short)
    }
}

/// A place between two rows of the history, in the order of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The version.
    pub version: u64,
    /// How many rows of the version lie before it.
    pub rows: u64,
}

impl Place {
    /// Before the first row of a version.
    pub fn before(version: u64) -> Self {
        Self { version, rows: 0 }
    }

    /// Before the first row of the next version.
    #[must_use]
    pub fn next_version(self) -> Self {
        Self::before(self.version.saturating_add(1))
    }
}

/// A place in the history of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The table.
    pub table: TableId,
    /// The place.
    pub place: Place,
}

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorFault {
    /// It has a character that no cursor has.
    Alphabet,
    /// It was written by a later release.
    Newer(u8),
    /// Its checksum does not fit: it was cut or changed.
    Damaged,
}

impl fmt::Display for CursorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = "give back the text of a message's `cursor` as it came, or leave it out and say `start`";
        match self {
            CursorFault::Alphabet => {
                write!(f, "the cursor has characters other than letters, digits, `-` and `_`: {remedy}")
            }
            CursorFault::Newer(format) => write!(
                f,
                "the cursor has format {format} and this server knows {FORMAT}: it comes from a newer server; connect \
                 to that one, or leave the cursor out and say `start`"
            ),
            CursorFault::Damaged => write!(f, "the cursor was cut or changed on its way: {remedy}"),
        }
    }
}

impl std::error::Error for CursorFault {}

impl From<CursorFault> for Error {
    fn from(fault: CursorFault) -> Self {
        Error::invalid(fault.to_string())
    }
}

/// The text of a cursor, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct CursorText {
    text: [u8; MAX_CURSOR_TEXT],
    length: usize,
}

impl CursorText {
    /// The bytes of the text: ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl Cursor {
    /// The text of the cursor.
    pub fn text(&self) -> CursorText {
        let mut bytes = [0; MAX_BYTES];
        bytes[0] = FORMAT;
        bytes[1..9].copy_from_slice(&self.table.0);
        let mut end = put_varint(&mut bytes, 9, self.place.version);
        end = put_varint(&mut bytes, end, self.place.rows);
        let sum = checksum(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        let mut text = [0; MAX_CURSOR_TEXT];
        // The text has room for the most bytes that there can be.
        let length = URL_SAFE_NO_PAD.encode_slice(&bytes[..end + 4], &mut text).unwrap_or(0);
        CursorText { text, length }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.text().as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = CursorFault;

    fn from_str(text: &str) -> Result<Self, CursorFault> {
        if text.len() > MAX_CURSOR_TEXT {
            return Err(CursorFault::Damaged);
        }
        let strange = |byte: u8| !(byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if text.bytes().any(strange) {
            return Err(CursorFault::Alphabet);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorFault::Damaged)?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(CursorFault::Damaged)?;
        if checksum(bytes) != u32::from_le_bytes(*sum) {
            return Err(CursorFault::Damaged);
        }
        let (&format, rest) = bytes.split_first().ok_or(CursorFault::Damaged)?;
        if format != FORMAT {
            return Err(CursorFault::Newer(format));
        }
        let (table, rest) = rest.split_first_chunk::<8>().ok_or(CursorFault::Damaged)?;
        let (version, rest) = take_varint(rest).ok_or(CursorFault::Damaged)?;
        let (rows, rest) = take_varint(rest).ok_or(CursorFault::Damaged)?;
        if !rest.is_empty() {
            return Err(CursorFault::Damaged);
        }
        Ok(Self { table: TableId(*table), place: Place { version, rows } })
    }
}

/// FNV-1a: against slips and cuts, not against somebody who means it. A cursor grants no right.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn put_varint(bytes: &mut [u8; MAX_BYTES], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
    at + 1
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(version: u64, rows: u64) -> Cursor {
        Cursor { table: TableId::of("3b0a"), place: Place { version, rows } }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(version: u64, rows: u64) {
            let text = cursor(version, rows).to_string();
            prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor(version, rows)));
        }

        #[test]
        fn any_slip_is_seen(version in 0u64..100_000, rows in 0u64..100_000, at: usize, letter in "[A-Za-z0-9_-]") {
            let text = cursor(version, rows).to_string();
            let at = at % text.len();
            let mut other = text.clone();
            other.replace_range(at..=at, &letter);
            prop_assert!(other == text || other.parse::<Cursor>().is_err());
            prop_assert!(text[..at].parse::<Cursor>().is_err());
        }

        #[test]
        fn any_text_is_survived(text: String) {
            prop_assert!(text.parse::<Cursor>().is_err());
        }
    }

    #[test]
    fn the_text_is_short_and_printable() {
        let text = cursor(123_456, 1_000_000).to_string();
        assert!(text.len() <= 28, "{text}");
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let longest = cursor(u64::MAX, u64::MAX).to_string();
        assert!(longest.len() <= MAX_CURSOR_TEXT);
        assert_eq!(longest.parse(), Ok(cursor(u64::MAX, u64::MAX)));
    }

    #[test]
    fn faults_say_what_to_do() {
        assert_eq!("a b".parse::<Cursor>(), Err(CursorFault::Alphabet));
        assert_eq!("".parse::<Cursor>(), Err(CursorFault::Damaged));
        let mut newer = vec![9, 1, 2];
        newer.extend(checksum(&newer).to_le_bytes());
        let newer = URL_SAFE_NO_PAD.encode(newer);
        assert_eq!(newer.parse::<Cursor>(), Err(CursorFault::Newer(9)));
        for fault in [CursorFault::Alphabet, CursorFault::Damaged, CursorFault::Newer(9)] {
            assert!(fault.to_string().ends_with("`start`"), "{fault}");
        }
    }
}
