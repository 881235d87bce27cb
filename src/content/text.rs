//! Cells as text, the same as Arrow's formatter writes it, into a buffer and without a detour for the common types.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Datelike as _};

use super::nested;

const DAY_MICROS: i64 = 86_400_000_000;

/// The cells of a column.
pub(super) enum Texts<'a> {
    Text(&'a StringArray),
    View(&'a StringViewArray),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Date(&'a PrimitiveArray<Date32Type>, Day, ArrayFormatter<'a>),
    /// In UTC.
    Micros(&'a PrimitiveArray<TimestampMicrosecondType>, Day, ArrayFormatter<'a>),
    Other(ArrayFormatter<'a>),
    Nested(&'a dyn Array),
}

/// The text of the day that was written last: rows of one time stand together.
#[derive(Default)]
pub(super) struct Day(Option<(i64, [u8; 10])>);

impl Day {
    /// The text of a day since 1970-01-01; `None` for years without four digits.
    fn text(&mut self, day: i64) -> Option<&[u8; 10]> {
        if self.0.is_none_or(|(known, _)| known != day) {
            let date = DateTime::from_timestamp(day.checked_mul(86_400)?, 0)?.date_naive();
            let year = u32::try_from(date.year()).ok().filter(|year| *year <= 9_999)?;
            let mut text = *b"0000-00-00";
            digits(&mut text[..4], year);
            digits(&mut text[5..7], date.month());
            digits(&mut text[8..], date.day());
            self.0 = Some((day, text));
        }
        self.0.as_ref().map(|(_, text)| text)
    }
}

fn digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl<'a> Texts<'a> {
    /// Of a column.
    ///
    /// # Errors
    /// A type that has no text.
    pub(super) fn new(column: &'a ArrayRef, options: &FormatOptions<'a>) -> Result<Self, ArrowError> {
        let formatter = || ArrayFormatter::try_new(column.as_ref(), options);
        Ok(match column.data_type() {
            DataType::Utf8 => Texts::Text(column.as_string()),
            DataType::Utf8View => Texts::View(column.as_string_view()),
            DataType::Int16 => Texts::Int16(column.as_primitive()),
            DataType::Int32 => Texts::Int32(column.as_primitive()),
            DataType::Int64 => Texts::Int64(column.as_primitive()),
            DataType::Date32 => Texts::Date(column.as_primitive(), Day::default(), formatter()?),
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => {
                Texts::Micros(column.as_primitive(), Day::default(), formatter()?)
            }
            nested if nested.is_nested() => Texts::Nested(column.as_ref()),
            _ => Texts::Other(formatter()?),
        })
    }

    /// Appends the text of a cell that is not NULL.
    ///
    /// # Errors
    /// A value that has no text.
    pub(super) fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let mut number = itoa::Buffer::new();
        match self {
            Texts::Text(column) => out.extend_from_slice(column.value(row).as_bytes()),
            Texts::View(column) => out.extend_from_slice(column.value(row).as_bytes()),
            Texts::Int16(column) => out.extend_from_slice(number.format(column.value(row)).as_bytes()),
            Texts::Int32(column) => out.extend_from_slice(number.format(column.value(row)).as_bytes()),
            Texts::Int64(column) => out.extend_from_slice(number.format(column.value(row)).as_bytes()),
            Texts::Date(column, day, formatter) => match day.text(column.value(row).into()) {
                Some(text) => out.extend_from_slice(text),
                None => out.extend_from_slice(formatter.value(row).try_to_string()?.as_bytes()),
            },
            Texts::Micros(column, day, formatter) => {
                let micros = column.value(row);
                match day.text(micros.div_euclid(DAY_MICROS)) {
                    Some(text) => {
                        out.extend_from_slice(text);
                        write_time(micros.rem_euclid(DAY_MICROS), out);
                    }
                    None => out.extend_from_slice(formatter.value(row).try_to_string()?.as_bytes()),
                }
            }
            Texts::Other(formatter) => out.extend_from_slice(formatter.value(row).try_to_string()?.as_bytes()),
            Texts::Nested(column) => out.extend_from_slice(nested(*column, row)?.as_bytes()),
        }
        Ok(())
    }
}

/// `T15:04:05Z`, with as many digits behind the seconds as there are: none, three or six.
fn write_time(micros: i64, out: &mut Vec<u8>) {
    let (seconds, part) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
    let mut text = *b"T00:00:00.000000";
    digits(&mut text[1..3], seconds / 3600);
    digits(&mut text[4..6], seconds / 60 % 60);
    digits(&mut text[7..9], seconds % 60);
    digits(&mut text[10..], part);
    let end = match part {
        0 => 9,
        _ if part.is_multiple_of(1_000) => 13,
        _ => 16,
    };
    out.extend_from_slice(&text[..end]);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    fn same(column: &ArrayRef) {
        let options = FormatOptions::new();
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
        let mut texts = Texts::new(column, &options).unwrap();
        for row in 0..column.len() {
            let mut out = Vec::new();
            texts.write(row, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), formatter.value(row).try_to_string().unwrap());
        }
    }

    proptest! {
        #[test]
        fn dates_and_times_are_written_as_arrow_writes_them(
            micros in prop::collection::vec(-62_200_000_000_000_000i64..260_000_000_000_000_000, 1..50),
            parts in prop::collection::vec(0i64..4, 1..50),
        ) {
            let cut = |(micros, part): (&i64, &i64)| {
                let unit = [1, 1_000, 1_000_000, DAY_MICROS][*part as usize];
                micros.div_euclid(unit) * unit
            };
            let times: Vec<i64> = micros.iter().zip(&parts).map(cut).collect();
            let days: Vec<i32> = times.iter().map(|time| time.div_euclid(DAY_MICROS) as i32).collect();
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
            let days: ArrayRef = Arc::new(Date32Array::from(days));
            same(&times);
            same(&days);
        }
    }
}
