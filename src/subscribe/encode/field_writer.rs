//! The walk over a row: each field that has a value is appended to the message.

use chrono::{Datelike as _, NaiveDate};

use super::arrays::{Kind, Values};
use super::fault::{RowFault, Written};
use super::form::{Encoding, FieldPlan, Form, Label, MessagePlan, PerSecond, Source, Whole};
use super::json;
use super::mark::Mark;
use super::wire::{close, is_message, open, put_bytes, put_tag, put_varint, tag, zigzag};

/// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i128> = -62_135_596_800..=253_402_300_799;
/// 10,000 years, as `duration.proto` bounds it.
const DURATION_SECONDS: std::ops::RangeInclusive<i128> = -315_576_000_000..=315_576_000_000;
const DAY_SECONDS: std::ops::Range<i128> = 0..86_400;
const NANOS: i128 = 1_000_000_000;
const MICROS: i128 = 1_000_000;
/// From 0001-01-01, which is day 1 there, to 1970-01-01.
const DAYS_TO_EPOCH: i128 = 719_163;

/// Appends the fields of a row. The message lies in `depth` others.
pub(super) fn write_message(
    plan: &MessagePlan,
    columns: &[Values<'_>],
    row: usize,
    mark: &Mark,
    depth: usize,
    out: &mut Vec<u8>,
) -> Written {
    for (field, values) in plan.fields.iter().zip(columns) {
        let written = match (&field.label, field.source) {
            (_, Source::Cursor) => write_cursor(field, mark, out),
            (_, Source::Replaces) => write_replaces(field, mark, out),
            (Label::One, _) => match present(field, values, row) {
                Some((kind, at)) => {
                    rivals(plan, columns, field, row).and_then(|()| write_field(field, kind, at, mark, depth, out))
                }
                None if field.required => Err(missing(field)),
                None => Ok(()),
            },
            _ => write_many(field, values, row, mark, depth, out),
        };
        written.map_err(|fault| fault.in_column(&field.path))?;
    }
    Ok(())
}

/// Where the value of a field is that occurs once; `None` when it is not there.
#[inline]
fn present<'v, 'a>(field: &FieldPlan, values: &'v Values<'a>, row: usize) -> Option<(&'v Kind<'a>, usize)> {
    let found = values.at(row)?;
    match (&field.form, found) {
        (Form::Present, (Kind::Bools(flags), at)) if !flags.value(at) => None,
        _ => Some(found),
    }
}

/// Of a oneof one member may be there.
#[inline]
fn rivals(plan: &MessagePlan, columns: &[Values<'_>], field: &FieldPlan, row: usize) -> Written {
    for rival in &field.rivals {
        let (Some(other), Some(values)) = (plan.fields.get(*rival), columns.get(*rival)) else { continue };
        if present(other, values, row).is_some() {
            return Err(RowFault::new(format!(
                "it and {} have values, and a message holds one of a oneof; leave one of them NULL in the query",
                other.path
            )));
        }
    }
    Ok(())
}

#[cold]
fn missing(field: &FieldPlan) -> Box<RowFault> {
    RowFault::new("it is NULL, and the message requires the field; fill it in the query, or make the field optional")
        .in_column(&field.path)
}

fn write_cursor(field: &FieldPlan, mark: &Mark, out: &mut Vec<u8>) -> Written {
    put_tag(out, field.tag);
    put_bytes(out, mark.cursor.text().as_bytes());
    Ok(())
}

fn write_replaces(field: &FieldPlan, mark: &Mark, out: &mut Vec<u8>) -> Written {
    if mark.replaces || !field.implicit {
        put_tag(out, field.tag);
        out.push(u8::from(mark.replaces));
    }
    Ok(())
}

/// Tag and value. A default that need not be written begins with a zero and has nothing else: it is taken back.
#[inline]
fn write_field(
    field: &FieldPlan,
    kind: &Kind<'_>,
    row: usize,
    mark: &Mark,
    depth: usize,
    out: &mut Vec<u8>,
) -> Written {
    let before = out.len();
    put_tag(out, field.tag);
    let start = out.len();
    write_value(&field.form, field.group_end, kind, row, mark, depth, out)?;
    if field.implicit && out[start..].iter().all(|byte| *byte == 0) {
        out.truncate(before);
    }
    Ok(())
}

/// The elements of a list or the entries of a map.
fn write_many(
    field: &FieldPlan,
    values: &Values<'_>,
    row: usize,
    mark: &Mark,
    depth: usize,
    out: &mut Vec<u8>,
) -> Written {
    let Some((kind, row)) = values.at(row) else { return Ok(()) };
    match (&field.label, kind) {
        (Label::Packed, Kind::List(ranges, elements)) => {
            let range = ranges.at(row);
            if range.is_empty() {
                return Ok(());
            }
            put_tag(out, field.tag);
            let start = open(out);
            for row in range {
                write_element(field, elements, row, mark, depth, out)?;
            }
            close(out, start);
        }
        (Label::Repeated, Kind::List(ranges, elements)) => {
            for row in ranges.at(row) {
                put_tag(out, field.tag);
                write_element(field, elements, row, mark, depth, out)?;
            }
        }
        (Label::Map { key, key_tag, value_tag }, Kind::Map(offsets, entries)) => {
            let [keys, values] = &**entries;
            for row in offsets[row] as usize..offsets[row + 1] as usize {
                put_tag(out, field.tag);
                let entry = open(out);
                let Some((kind, at)) = keys.at(row) else { return Err(RowFault::new("a key of the map is NULL")) };
                put_tag(out, *key_tag);
                write_value(key, 0, kind, at, mark, depth, out)?;
                put_tag(out, *value_tag);
                write_element(field, values, row, mark, depth + 1, out)?;
                close(out, entry);
            }
        }
        _ => return Err(changed()),
    }
    Ok(())
}

/// An element, or the value of a map's entry: protobuf has no NULL there.
fn write_element(
    field: &FieldPlan,
    values: &Values<'_>,
    row: usize,
    mark: &Mark,
    depth: usize,
    out: &mut Vec<u8>,
) -> Written {
    match values.at(row) {
        Some((kind, at)) => write_value(&field.form, field.group_end, kind, at, mark, depth, out),
        None if field.form.has_null_message() && field.group_end == 0 => {
            out.push(0);
            Ok(())
        }
        None if field.form.has_null_message() => {
            put_tag(out, field.group_end);
            Ok(())
        }
        None => Err(RowFault::new(
            "an element is NULL, and protobuf has none in lists and maps; leave it out or fill it in the query",
        )),
    }
}

/// The value without its tag; a message with its length, or with the tag that ends a group.
#[inline]
fn write_value(
    form: &Form,
    group_end: u32,
    kind: &Kind<'_>,
    row: usize,
    mark: &Mark,
    depth: usize,
    out: &mut Vec<u8>,
) -> Written {
    match (form, kind) {
        (Form::Whole(whole), Kind::Integers(numbers)) => whole.write(numbers.read(row), out)?,
        (Form::Text, Kind::Texts(texts)) => put_bytes(out, texts.read(row).as_bytes()),
        (Form::Double, Kind::Doubles(numbers)) => out.extend_from_slice(&numbers[row].to_le_bytes()),
        (Form::Double, Kind::Floats(numbers)) => out.extend_from_slice(&f64::from(numbers[row]).to_le_bytes()),
        (Form::Double, Kind::Integers(numbers)) => out.extend_from_slice(&(numbers.read(row) as f64).to_le_bytes()),
        (Form::Float, Kind::Floats(numbers)) => out.extend_from_slice(&numbers[row].to_le_bytes()),
        (Form::Bool, Kind::Bools(flags)) => out.push(u8::from(flags.value(row))),
        (Form::Octets, Kind::Octets(octets)) => put_bytes(out, octets.read(row)),
        (Form::EnumName(numbers), Kind::Texts(texts)) => {
            let name = texts.read(row);
            let number = numbers.get(name).copied().or_else(|| name.parse().ok()).ok_or_else(|| {
                RowFault::new(format!(
                    "`{}` is no value of the enum; add it to the `.proto` file, or leave such rows out in the query",
                    shortened(name)
                ))
            })?;
            put_varint(out, i64::from(number) as u64);
        }
        (Form::Micros(whole, per_second), Kind::Integers(numbers)) => {
            whole.write(per_second.micros(numbers.read(row)), out)?;
        }
        _ if group_end != 0 => {
            write_body(form, kind, row, mark, depth + 1, out)?;
            put_tag(out, group_end);
        }
        _ => {
            let start = open(out);
            write_body(form, kind, row, mark, depth + 1, out)?;
            close(out, start);
        }
    }
    Ok(())
}

/// The fields of a message; it lies in `depth` others.
fn write_body(form: &Form, kind: &Kind<'_>, row: usize, mark: &Mark, depth: usize, out: &mut Vec<u8>) -> Written {
    match (form, kind) {
        (Form::Message(plan), Kind::Struct(columns)) => write_message(plan, columns, row, mark, depth, out)?,
        (Form::Timestamp(per_second), Kind::Integers(numbers)) => {
            let of = numbers.read(row);
            let (seconds, nanos) = (of.div_euclid(per_second.0), of.rem_euclid(per_second.0) * per_second.nanos());
            in_range(TIMESTAMP_SECONDS.contains(&seconds), of, "google.protobuf.Timestamp, years 1 to 9999")?;
            put_numbers(out, [seconds, nanos]);
        }
        (Form::Duration(per_second), Kind::Integers(numbers)) => {
            let of = numbers.read(row);
            let (seconds, nanos) = (of / per_second.0, of % per_second.0 * per_second.nanos());
            in_range(DURATION_SECONDS.contains(&seconds), of, "google.protobuf.Duration, 10,000 years")?;
            put_numbers(out, [seconds, nanos]);
        }
        (Form::TimeOfDay(per_second), Kind::Integers(numbers)) => {
            let of = numbers.read(row);
            let (seconds, nanos) = (of.div_euclid(per_second.0), of.rem_euclid(per_second.0) * per_second.nanos());
            in_range(DAY_SECONDS.contains(&seconds), of, "google.type.TimeOfDay, a day")?;
            put_numbers(out, [seconds / 3600, seconds / 60 % 60, seconds % 60, nanos]);
        }
        (Form::Date, Kind::Integers(numbers)) => {
            let days = numbers.read(row);
            let date = i32::try_from(days + DAYS_TO_EPOCH).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
            let date = date.filter(|date| (1..=9999).contains(&date.year()));
            in_range(date.is_some(), days, "google.type.Date, years 1 to 9999")?;
            if let Some(date) = date {
                put_numbers(out, [i128::from(date.year()), i128::from(date.month()), i128::from(date.day())]);
            }
        }
        (Form::Wrapper(value, tag), kind) => {
            let before = out.len();
            put_tag(out, *tag);
            let start = out.len();
            write_value(value, 0, kind, row, mark, depth, out)?;
            if out[start..].iter().all(|byte| *byte == 0) {
                out.truncate(before);
            }
        }
        (Form::Json(json), Kind::Texts(texts)) => json::write(*json, texts.read(row), depth, out)?,
        (Form::Raw, Kind::Octets(octets)) => {
            let bytes = octets.read(row);
            if !is_message(bytes, depth) {
                return Err(RowFault::new(
                    "the bytes are no protobuf message, which the field is; mend the column, or make the field `bytes`",
                ));
            }
            out.extend_from_slice(bytes);
        }
        (Form::Present, Kind::Bools(_)) => {}
        _ => return Err(changed()),
    }
    Ok(())
}

/// Fields 1, 2, … of whole numbers that are not written when they are 0.
fn put_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [i128; N]) {
    for (number, field) in numbers.into_iter().zip(1..) {
        if number != 0 {
            put_tag(out, tag(field, 0));
            put_varint(out, number as i64 as u64);
        }
    }
}

impl Whole {
    #[inline]
    fn write(&self, value: i128, out: &mut Vec<u8>) -> Written {
        if value < self.least || value > self.most {
            return Err(self.does_not_fit(value));
        }
        match self.encoding {
            // A negative number has ten bytes, as if it were an `int64`.
            Encoding::Varint => put_varint(out, value as u64),
            Encoding::Zigzag => put_varint(out, zigzag(value as i64)),
            Encoding::Fixed32 => out.extend_from_slice(&(value as u32).to_le_bytes()),
            Encoding::Fixed64 => out.extend_from_slice(&(value as u64).to_le_bytes()),
        }
        Ok(())
    }

    #[cold]
    fn does_not_fit(&self, value: i128) -> Box<RowFault> {
        RowFault::new(format!(
            "{value} does not fit into {}, which holds {} to {}; widen the field, or leave such rows out in the query",
            self.name, self.least, self.most
        ))
    }
}

impl PerSecond {
    /// The nanoseconds of a unit.
    fn nanos(self) -> i128 {
        NANOS / self.0
    }

    fn micros(self, value: i128) -> i128 {
        if self.0 > MICROS { value.div_euclid(self.0 / MICROS) } else { value * (MICROS / self.0) }
    }
}

#[inline]
fn in_range(is_in_range: bool, value: i128, of: &str) -> Written {
    if is_in_range {
        return Ok(());
    }
    Err(RowFault::new(format!("{value} is out of the range of {of}; leave such rows out in the query")))
}

#[cold]
fn changed() -> Box<RowFault> {
    RowFault::new("the column has another type than when the subscription began; subscribe again")
}

/// The beginning of a text: messages are short.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}
