//! A column in the making, and how a value on the wire gets into it.

pub(super) mod calendar;
pub(super) mod json;
pub(super) mod message;
pub(super) mod nested;

use std::mem::size_of;

use self::calendar::Calendar;
use self::json::Json;
use self::message::Message;
use self::nested::{EnumNames, List, Map, Time, Wrapper};
use super::cursor::Cursor;
use super::fault::Reason;
use super::oddities::Oddities;
use super::vector::{Fixed, Variable};
use super::wire::{MAX_DEPTH, Read};

/// A column: its type on the wire says how it is read. All of them are written at a row, also the children of lists:
/// there a row is an element.
#[derive(Debug)]
pub(super) enum Column {
    Bool(Fixed<bool>),
    Int32(Fixed<i32>),
    Sint32(Fixed<i32>),
    Sfixed32(Fixed<i32>),
    Uint32(Fixed<i64>),
    Fixed32(Fixed<i64>),
    Int64(Fixed<i64>),
    Sint64(Fixed<i64>),
    Sfixed64(Fixed<i64>),
    Uint64(Fixed<i128>),
    Fixed64(Fixed<i128>),
    Float(Fixed<f32>),
    Double(Fixed<f64>),
    Text(Variable),
    Bytes(Variable),
    Enum(Fixed<i32>, Box<EnumNames>),
    Time(Box<Time>),
    Wrapper(Box<Wrapper>),
    Calendar(Box<Calendar>),
    /// A message that is a JSON text.
    Json(Box<Json>),
    /// A message of which only the presence is known.
    Empty(Fixed<bool>),
    /// A message as it is on the wire.
    Raw(Variable),
    Message(Box<Message>),
    List(Box<List>),
    Map(Box<Map>),
    /// A member of a oneof that is not read, but clears the others.
    Skip,
}

/// The end-group tag of the group that begins with `tag`; 0 for a message that has a length.
#[inline(always)]
pub(super) fn end_tag(tag: u32) -> u32 {
    if tag & 7 == 3 { tag + 1 } else { 0 }
}

impl Column {
    /// Reads the value of a field with that tag, inside of `depth` messages, into `row`.
    #[inline(always)]
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, tag: u32, row: usize, depth: usize) -> Result<(), Reason> {
        match self {
            Column::Text(c) => read_text(c, &mut cursor.wire, row),
            _ if self.is_nested() => self.read_nested(cursor, tag, row, depth),
            _ => self.read_lone_scalar(cursor, row),
        }
    }

    /// Whether this is read by [`Column::read`] alone.
    #[inline(always)]
    pub(super) fn is_nested(&self) -> bool {
        !matches!(
            self,
            Column::Bool(_)
                | Column::Int32(_)
                | Column::Sint32(_)
                | Column::Sfixed32(_)
                | Column::Uint32(_)
                | Column::Fixed32(_)
                | Column::Int64(_)
                | Column::Sint64(_)
                | Column::Sfixed64(_)
                | Column::Uint64(_)
                | Column::Fixed64(_)
                | Column::Float(_)
                | Column::Double(_)
                | Column::Text(_)
                | Column::Bytes(_)
                | Column::Enum(..)
        )
    }

    #[inline(never)]
    fn read_lone_scalar(&mut self, cursor: &mut Cursor<'_>, row: usize) -> Result<(), Reason> {
        self.read_scalar(&mut cursor.wire, row).map(|_| ())
    }

    /// Reads the value of a scalar into `row`; `false` if this is none.
    #[inline(always)]
    pub(super) fn read_scalar<'a, R: Read<'a>>(&mut self, reader: &mut R, row: usize) -> Result<bool, R::Fault> {
        match self {
            Column::Bool(c) => c.put(row, reader.varint()? != 0),
            Column::Int32(c) | Column::Enum(c, _) => c.put(row, reader.varint()? as i32),
            Column::Sint32(c) => c.put(row, zigzag(u64::from(reader.varint()? as u32)) as i32),
            Column::Sfixed32(c) => c.put(row, i32::from_le_bytes(reader.fixed()?)),
            Column::Uint32(c) => c.put(row, i64::from(reader.varint()? as u32)),
            Column::Fixed32(c) => c.put(row, i64::from(u32::from_le_bytes(reader.fixed()?))),
            Column::Int64(c) => c.put(row, reader.varint()? as i64),
            Column::Sint64(c) => c.put(row, zigzag(reader.varint()?)),
            Column::Sfixed64(c) => c.put(row, i64::from_le_bytes(reader.fixed()?)),
            Column::Uint64(c) => c.put(row, i128::from(reader.varint()?)),
            Column::Fixed64(c) => c.put(row, i128::from(u64::from_le_bytes(reader.fixed()?))),
            Column::Float(c) => c.put(row, f32::from_le_bytes(reader.fixed()?)),
            Column::Double(c) => c.put(row, f64::from_le_bytes(reader.fixed()?)),
            Column::Text(c) => read_text(c, reader, row)?,
            Column::Bytes(c) => c.put(row, reader.bytes()?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// [`Column::read`] of what is not a scalar.
    #[inline(never)]
    pub(super) fn read_nested(
        &mut self,
        cursor: &mut Cursor<'_>,
        tag: u32,
        row: usize,
        depth: usize,
    ) -> Result<(), Reason> {
        match self {
            Column::Message(c) => c.read(cursor, tag, row, depth),
            Column::List(c) => c.read(cursor, tag, row, depth),
            Column::Map(c) => c.read(cursor, row, depth),
            Column::Time(c) => c.read(cursor, tag, row, depth),
            Column::Wrapper(c) => c.read(cursor, tag, row, depth),
            Column::Calendar(c) => c.read(cursor, tag, row, depth),
            Column::Json(c) => {
                let start = cursor.position();
                let bytes = read_raw(cursor, tag, depth)?;
                c.read(bytes, row, depth + 1).inspect_err(|_| cursor.rewind(start))
            }
            Column::Empty(c) => {
                read_raw(cursor, tag, depth)?;
                c.put(row, true);
                Ok(())
            }
            Column::Raw(c) => c.append(row, read_raw(cursor, tag, depth)?),
            _ => cursor.skip(tag, depth),
        }
    }

    /// The rows that are written so far. Later ones have no value.
    pub(super) fn len(&self) -> usize {
        match self {
            Column::Bool(c) | Column::Empty(c) => c.len(),
            Column::Int32(c) | Column::Sint32(c) | Column::Sfixed32(c) | Column::Enum(c, _) => c.len(),
            Column::Uint32(c) | Column::Fixed32(c) => c.len(),
            Column::Int64(c) | Column::Sint64(c) | Column::Sfixed64(c) => c.len(),
            Column::Uint64(c) | Column::Fixed64(c) => c.len(),
            Column::Float(c) => c.len(),
            Column::Double(c) => c.len(),
            Column::Text(c) | Column::Bytes(c) | Column::Raw(c) => c.len(),
            Column::Time(c) => c.len(),
            Column::Wrapper(c) => c.len(),
            Column::Calendar(c) => c.len(),
            Column::Json(c) => c.values.len(),
            Column::Message(c) => c.len(),
            Column::List(c) => c.len(),
            Column::Map(c) => c.len(),
            Column::Skip => 0,
        }
    }

    /// Whether something was read into `row`, the last one.
    pub(super) fn has(&self, row: usize) -> bool {
        match self {
            Column::Calendar(c) => c.has(row),
            _ => self.len() > row,
        }
    }

    /// Takes the counts of what was odd in finished batches.
    pub(super) fn tally(&mut self, odd: &mut Oddities) {
        match self {
            Column::Enum(_, names) => odd.nameless_numbers += std::mem::take(&mut names.nameless),
            Column::Calendar(c) => odd.impossible_dates += std::mem::take(&mut c.counted),
            Column::Message(c) => c.columns.iter_mut().for_each(|column| column.tally(odd)),
            Column::List(c) => c.item.tally(odd),
            Column::Map(c) => c.values.tally(odd),
            _ => {}
        }
    }

    /// Drops the rows from `rows` on.
    pub(super) fn truncate(&mut self, rows: usize) {
        match self {
            Column::Bool(c) | Column::Empty(c) => c.truncate(rows),
            Column::Int32(c) | Column::Sint32(c) | Column::Sfixed32(c) | Column::Enum(c, _) => c.truncate(rows),
            Column::Uint32(c) | Column::Fixed32(c) => c.truncate(rows),
            Column::Int64(c) | Column::Sint64(c) | Column::Sfixed64(c) => c.truncate(rows),
            Column::Uint64(c) | Column::Fixed64(c) => c.truncate(rows),
            Column::Float(c) => c.truncate(rows),
            Column::Double(c) => c.truncate(rows),
            Column::Text(c) | Column::Bytes(c) | Column::Raw(c) => c.truncate(rows),
            Column::Time(c) => c.truncate(rows),
            Column::Wrapper(c) => c.truncate(rows),
            Column::Calendar(c) => c.truncate(rows),
            Column::Json(c) => c.truncate(rows),
            Column::Message(c) => c.truncate(rows),
            Column::List(c) => c.truncate(rows),
            Column::Map(c) => c.truncate(rows),
            Column::Skip => {}
        }
    }

    /// Makes sure that `row` of a scalar column has a value.
    pub(super) fn settle(&mut self, row: usize) {
        match self {
            Column::Bool(c) | Column::Empty(c) => c.settle(row),
            Column::Int32(c) | Column::Sint32(c) | Column::Sfixed32(c) | Column::Enum(c, _) => c.settle(row),
            Column::Uint32(c) | Column::Fixed32(c) => c.settle(row),
            Column::Int64(c) | Column::Sint64(c) | Column::Sfixed64(c) => c.settle(row),
            Column::Uint64(c) | Column::Fixed64(c) => c.settle(row),
            Column::Float(c) => c.settle(row),
            Column::Double(c) => c.settle(row),
            Column::Text(c) | Column::Bytes(c) | Column::Raw(c) => c.settle(row),
            _ => {}
        }
    }

    /// The memory of that many rows, in bytes of Arrow.
    pub(super) fn bytes(&self, rows: usize) -> usize {
        match self {
            Column::Bool(_) | Column::Empty(_) => rows,
            Column::Int32(_) | Column::Sint32(_) | Column::Sfixed32(_) | Column::Float(_) => rows * size_of::<i32>(),
            Column::Uint64(_) | Column::Fixed64(_) => rows * size_of::<i128>(),
            Column::Enum(_, names) => rows * (size_of::<i32>() + names.longest()),
            Column::Text(c) | Column::Bytes(c) | Column::Raw(c) => rows * size_of::<i32>() + c.data_len(),
            Column::Wrapper(c) => c.bytes(rows),
            Column::Json(c) => rows * size_of::<i32>() + c.values.data_len(),
            Column::Message(c) => c.bytes(rows),
            Column::List(c) => c.bytes(rows),
            Column::Map(c) => c.bytes(rows),
            Column::Skip => 0,
            _ => rows * size_of::<i64>(),
        }
    }

    /// Whether `row` and all that is in it has its required fields.
    pub(super) fn check(&self, cursor: &mut Cursor<'_>, row: usize) -> Result<(), Reason> {
        match self {
            Column::Message(c) if c.has_required() => c.check(cursor, row),
            _ => Ok(()),
        }
    }
}

#[inline(always)]
fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The high bit of every byte.
const HIGH_BITS: u128 = u128::from_ne_bytes([0x80; 16]);

/// The high bits of the first bytes of a chunk, by how many those are.
const FIRST_BITS: [u128; 17] = {
    let mut masks = [0; 17];
    let mut length = 1;
    while length <= 16 {
        masks[length] = HIGH_BITS >> (8 * (16 - length));
        length += 1;
    }
    masks
};

/// Reads a text. Most are short and plain: those are checked and copied as chunks of 16 bytes, whatever their length.
#[inline(always)]
fn read_text<'a, R: Read<'a>>(column: &mut Variable, reader: &mut R, row: usize) -> Result<(), R::Fault> {
    let text = reader.text()?;
    let bytes = text.bytes;
    if let (Some(mask), Some(chunk)) = (FIRST_BITS.get(bytes.len()), text.chunk)
        && u128::from_le_bytes(*chunk) & mask == 0
    {
        column.put_short(row, chunk, bytes.len())?;
    } else if let (17..=32, Some(first), Some(last)) = (bytes.len(), bytes.first_chunk(), bytes.last_chunk())
        && (u128::from_le_bytes(*first) | u128::from_le_bytes(*last)) & HIGH_BITS == 0
    {
        column.put_medium(row, first, last, bytes.len())?;
    } else {
        read_any_text(column, bytes, row)?;
    }
    reader.pass(&text);
    Ok(())
}

#[inline(never)]
fn read_any_text(column: &mut Variable, text: &[u8], row: usize) -> Result<(), Reason> {
    match std::str::from_utf8(text) {
        Ok(text) => column.put(row, text.as_bytes()),
        Err(_) => Err(Reason::Utf8),
    }
}

/// The bytes of a message whose fields are only looked at for their framing.
fn read_raw<'a>(cursor: &mut Cursor<'a>, tag: u32, depth: usize) -> Result<&'a [u8], Reason> {
    if depth >= MAX_DEPTH {
        return Err(Reason::Depth);
    }
    let until = end_tag(tag);
    let outer = if until == 0 { Some(cursor.enter()?) } else { None };
    let start = cursor.position();
    let end = cursor.skip_fields(until, depth + 1)?;
    let bytes = cursor.since(start, end);
    if let Some(outer) = outer {
        cursor.leave(outer);
    }
    Ok(bytes)
}
