//! From the columns in the making to Arrow arrays.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray,
    Float32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{filter, nullif};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use super::column::Column;
use super::column::calendar::{Calendar, CalendarKind};
use super::column::message::Message;
use super::column::nested::{EnumNames, List, Map, Time, TimeKind};

/// With fewer entries than this, keys are compared one by one.
const FEW_ENTRIES: usize = 16;

impl Column {
    /// The array of `rows` rows; the column starts anew.
    pub(super) fn finish(&mut self, rows: usize, field: &Field) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Column::Bool(c) | Column::Empty(c) => {
                let (values, nulls) = c.finish(rows);
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Column::Int32(c) | Column::Sint32(c) | Column::Sfixed32(c) => {
                let (values, nulls) = c.finish(rows);
                Arc::new(Int32Array::try_new(values.into(), nulls)?)
            }
            Column::Uint32(c) | Column::Fixed32(c) | Column::Int64(c) | Column::Sint64(c) | Column::Sfixed64(c) => {
                let (values, nulls) = c.finish(rows);
                Arc::new(Int64Array::try_new(values.into(), nulls)?)
            }
            Column::Uint64(c) | Column::Fixed64(c) => {
                let (values, nulls) = c.finish(rows);
                Arc::new(Decimal128Array::try_new(values.into(), nulls)?.with_precision_and_scale(20, 0)?)
            }
            Column::Float(c) => {
                let (values, nulls) = c.finish(rows);
                Arc::new(Float32Array::try_new(values.into(), nulls)?)
            }
            Column::Double(c) => {
                let (values, nulls) = c.finish(rows);
                Arc::new(Float64Array::try_new(values.into(), nulls)?)
            }
            Column::Text(c) => {
                let (offsets, data, nulls) = c.finish(rows);
                Arc::new(StringArray::try_new(offsets, data.into(), nulls)?)
            }
            Column::Bytes(c) | Column::Raw(c) => {
                let (offsets, data, nulls) = c.finish(rows);
                Arc::new(BinaryArray::try_new(offsets, data.into(), nulls)?)
            }
            Column::Enum(c, names) => {
                let (numbers, nulls) = c.finish(rows);
                Arc::new(spell(&numbers, names, nulls)?)
            }
            Column::Time(c) => finish_time(c, rows)?,
            Column::Calendar(c) => finish_calendar(c, rows)?,
            Column::Json(c) => {
                c.complete().map_err(|_| ArrowError::OffsetOverflowError(c.values.data_len()))?;
                let (offsets, data, nulls) = c.values.finish(rows);
                Arc::new(StringArray::try_new(offsets, data.into(), nulls)?)
            }
            Column::Wrapper(c) => c.value.finish(rows, field)?,
            Column::Message(c) => Arc::new(c.finish(rows)?),
            Column::List(c) => Arc::new(finish_list(c, rows, field)?),
            Column::Map(c) => Arc::new(finish_map(c, rows, field)?),
            Column::Skip => return Err(ArrowError::SchemaError(format!("{} is not read", field.name()))),
        })
    }
}

impl Message {
    /// The columns of `rows` rows; they start anew.
    pub(super) fn finish_columns(&mut self, rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns.iter_mut().zip(&self.fields).map(|(column, field)| column.finish(rows, field)).collect()
    }

    fn finish(&mut self, rows: usize) -> Result<StructArray, ArrowError> {
        self.validity.gap(self.rows, rows);
        self.rows = 0;
        let nulls = self.validity.finish(rows);
        let mut columns = self.finish_columns(rows)?;
        if let Some(nulls) = &nulls {
            columns = columns.into_iter().map(|column| masked(column, nulls)).collect::<Result<_, _>>()?;
        }
        StructArray::try_new_with_length(self.fields.clone(), columns, nulls, rows)
    }
}

/// The column with NULL also where `nulls` has one, with all that is in it: whoever takes a field out of a struct looks
/// at that field alone.
pub(super) fn masked(column: ArrayRef, nulls: &NullBuffer) -> Result<ArrayRef, ArrowError> {
    let Some(whole) = column.as_struct_opt() else {
        return nullif(&column, &BooleanArray::new(!nulls.inner(), None));
    };
    let (fields, children, own) = whole.clone().into_parts();
    let children = children.into_iter().map(|child| masked(child, nulls)).collect::<Result<Vec<_>, _>>()?;
    let nulls = NullBuffer::union(own.as_ref(), Some(nulls));
    Ok(Arc::new(StructArray::try_new_with_length(fields, children, nulls, column.len())?))
}

fn finish_time(time: &mut Time, rows: usize) -> Result<ArrayRef, ArrowError> {
    let (values, nulls) = time.values.finish(rows);
    Ok(match time.kind {
        TimeKind::Timestamp => Arc::new(TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone("UTC")),
        TimeKind::Duration => Arc::new(DurationMicrosecondArray::try_new(values.into(), nulls)?),
    })
}

fn finish_calendar(calendar: &mut Calendar, rows: usize) -> Result<ArrayRef, ArrowError> {
    let (values, nulls) = calendar.finish(rows);
    Ok(match calendar.kind {
        CalendarKind::Date => {
            let days: Vec<i32> = values.into_iter().map(|days| days as i32).collect();
            Arc::new(Date32Array::try_new(days.into(), nulls)?)
        }
        CalendarKind::TimeOfDay => Arc::new(Time64MicrosecondArray::try_new(values.into(), nulls)?),
    })
}

/// The names of numbers; a number without a name is written out.
fn spell(numbers: &[i32], names: &mut EnumNames, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    let mut text = String::new();
    let mut nameless = 0;
    let mut ends = Vec::with_capacity(numbers.len() + 1);
    ends.push(0);
    for number in numbers {
        match names.name(*number) {
            Some(name) => text.push_str(name),
            None => {
                nameless += 1;
                _ = write!(text, "{number}");
            }
        }
        ends.push(i32::try_from(text.len()).map_err(|_| ArrowError::OffsetOverflowError(text.len()))?);
    }
    names.nameless += nameless;
    StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), text.into_bytes().into(), nulls)
}

fn finish_list(list: &mut List, rows: usize, field: &Field) -> Result<ListArray, ArrowError> {
    let DataType::List(item) = field.data_type() else { return Err(misfit(field)) };
    let items = list.item.finish(list.offsets.total(), item)?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(list.offsets.finish(rows)));
    ListArray::try_new(item.clone(), offsets, items, None)
}

fn finish_map(map: &mut Map, rows: usize, field: &Field) -> Result<MapArray, ArrowError> {
    let DataType::Map(entries, _) = field.data_type() else { return Err(misfit(field)) };
    let DataType::Struct(pair) = entries.data_type() else { return Err(misfit(field)) };
    let total = map.offsets.total();
    let mut offsets = map.offsets.finish(rows);
    let kept = last_of_each_key(&map.keys, total, &mut offsets);
    let mut keys = map.keys.finish(total, &pair[0])?;
    let mut values = map.values.finish(total, &pair[1])?;
    if let Some(kept) = kept {
        let kept = BooleanArray::from(kept);
        keys = filter(&keys, &kept)?;
        values = filter(&values, &kept)?;
    }
    let pairs = StructArray::try_new(pair.clone(), vec![keys, values], None)?;
    MapArray::try_new(entries.clone(), OffsetBuffer::new(ScalarBuffer::from(offsets)), pairs, None, false)
}

/// A key of a map.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Number(i128),
    Text(&'a [u8]),
}

fn key(keys: &Column, at: usize) -> Key<'_> {
    match keys {
        Column::Bool(c) => Key::Number(c.value(at).into()),
        Column::Int32(c) | Column::Sint32(c) | Column::Sfixed32(c) => Key::Number(c.value(at).into()),
        Column::Uint32(c) | Column::Fixed32(c) => Key::Number(c.value(at).into()),
        Column::Int64(c) | Column::Sint64(c) | Column::Sfixed64(c) => Key::Number(c.value(at).into()),
        Column::Uint64(c) | Column::Fixed64(c) => Key::Number(c.value(at)),
        Column::Text(c) => Key::Text(c.value(at)),
        _ => Key::Number(0),
    }
}

/// Which entries stay when the last one of each key wins; `None` when all do. The offsets become those of what stays.
fn last_of_each_key(keys: &Column, total: usize, offsets: &mut [i32]) -> Option<Vec<bool>> {
    let mut kept: Option<Vec<bool>> = None;
    for map in offsets.windows(2) {
        let (start, end) = (map[0] as usize, map[1] as usize);
        if end - start < 2 {
            continue;
        }
        let mut drop = |at: usize| kept.get_or_insert_with(|| vec![true; total])[at] = false;
        if end - start < FEW_ENTRIES {
            for at in start..end - 1 {
                let this = key(keys, at);
                if (at + 1..end).any(|later| key(keys, later) == this) {
                    drop(at);
                }
            }
        } else {
            let mut last = HashMap::with_capacity(end - start);
            for at in start..end {
                if let Some(earlier) = last.insert(key(keys, at), at) {
                    drop(earlier);
                }
            }
        }
    }
    if let Some(kept) = &kept {
        let (mut at, mut left) = (0, 0);
        for offset in offsets {
            let end = *offset as usize;
            left += kept[at..end].iter().filter(|kept| **kept).count() as i32;
            at = end;
            *offset = left;
        }
    }
    kept
}

fn misfit(field: &Field) -> ArrowError {
    ArrowError::SchemaError(format!("column {} has the type {}", field.name(), field.data_type()))
}
