//! Arrow columns as a row is read from them: typed once a batch, views, large types and dictionaries included.

use arrow::array::{
    Array, AsArray, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes as types;
use arrow::datatypes::{DataType, TimeUnit};

use super::form::{FieldPlan, Form, Label, MessagePlan, Source};

/// A column, or what lies in one.
#[derive(Debug)]
pub(super) struct Values<'a> {
    nulls: Option<&'a NullBuffer>,
    pub(super) kind: Kind<'a>,
}

/// What a column holds.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    /// No column: the field is filled by the subscription.
    Nothing,
    Bools(&'a BooleanArray),
    Integers(Integers<'a>),
    Floats(&'a [f32]),
    Doubles(&'a [f64]),
    Texts(Texts<'a>),
    Octets(Octets<'a>),
    List(Ranges<'a>, Box<Values<'a>>),
    Map(&'a [i32], Box<[Values<'a>; 2]>),
    /// The fields that the plan wants, in its order.
    Struct(Box<[Values<'a>]>),
    Dictionary(Integers<'a>, Box<Values<'a>>),
}

/// Whole numbers, and what is stored as such: dates, times, decimals without a fraction.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // They are named as in Rust.
pub(crate) enum Integers<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    I128(&'a [i128]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

/// Texts.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // They are named as in Arrow.
pub(crate) enum Texts<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

/// Bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Octets<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
    Fixed(&'a FixedSizeBinaryArray),
}

/// Where the elements of each row's list are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ranges<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
    Fixed(usize),
}

impl<'a> Values<'a> {
    /// The column of a field; `None` when its type is not the planned one.
    pub(super) fn of_field(field: &FieldPlan, array: &'a dyn Array) -> Option<Self> {
        let nulls = array.nulls();
        let kind = match &field.label {
            Label::One => return Self::of_value(&field.form, array),
            _ if matches!(array.data_type(), DataType::Dictionary(..)) => {
                let dictionary = array.as_any_dictionary_opt()?;
                let values = Self::of_field(field, dictionary.values().as_ref())?;
                Kind::Dictionary(Integers::of(dictionary.keys())?, Box::new(values))
            }
            Label::Repeated | Label::Packed => {
                let (ranges, elements) = lists(array)?;
                Kind::List(ranges, Box::new(Self::of_value(&field.form, elements)?))
            }
            Label::Map { key, .. } => {
                let map = array.as_map_opt()?;
                let keys = Self::of_value(key, map.keys().as_ref())?;
                let values = Self::of_value(&field.form, map.values().as_ref())?;
                Kind::Map(map.value_offsets(), Box::new([keys, values]))
            }
        };
        Some(Self { nulls, kind })
    }

    fn of_value(form: &Form, array: &'a dyn Array) -> Option<Self> {
        let kind = match array.data_type() {
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary_opt()?;
                let values = Self::of_value(form, dictionary.values().as_ref())?;
                Kind::Dictionary(Integers::of(dictionary.keys())?, Box::new(values))
            }
            DataType::Boolean => Kind::Bools(array.as_boolean_opt()?),
            DataType::Float32 => Kind::Floats(array.as_primitive_opt::<types::Float32Type>()?.values()),
            DataType::Float64 => Kind::Doubles(array.as_primitive_opt::<types::Float64Type>()?.values()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Texts(Texts::of(array)?),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Kind::Octets(Octets::of(array)?)
            }
            DataType::Struct(_) => match form {
                Form::Message(plan) => {
                    let fields = array.as_struct_opt()?;
                    Kind::Struct(Self::of_message(plan, |column| fields.columns().get(column).map(AsRef::as_ref))?)
                }
                _ => return None,
            },
            _ => Kind::Integers(Integers::of(array)?),
        };
        Some(Self { nulls: array.nulls(), kind })
    }

    /// The columns of a message's fields.
    pub(super) fn of_message(
        plan: &MessagePlan,
        column: impl Fn(usize) -> Option<&'a dyn Array>,
    ) -> Option<Box<[Self]>> {
        let fields = plan.fields.iter().map(|field| match field.source {
            Source::Column(at) => Self::of_field(field, column(at)?),
            Source::Cursor | Source::Replaces => Some(Self { nulls: None, kind: Kind::Nothing }),
        });
        fields.collect()
    }

    /// Where the value of a row is, through dictionaries; `None` when it is NULL.
    #[inline]
    pub(super) fn at(&self, mut row: usize) -> Option<(&Kind<'a>, usize)> {
        let mut values = self;
        loop {
            if values.nulls.is_some_and(|nulls| nulls.is_null(row)) {
                return None;
            }
            match &values.kind {
                Kind::Dictionary(keys, inner) => {
                    row = keys.read(row) as usize;
                    values = inner;
                }
                kind => return Some((kind, row)),
            }
        }
    }
}

fn lists(array: &dyn Array) -> Option<(Ranges<'_>, &dyn Array)> {
    Some(match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list_opt::<i32>()?;
            (Ranges::Small(list.value_offsets()), list.values().as_ref())
        }
        DataType::LargeList(_) => {
            let list = array.as_list_opt::<i64>()?;
            (Ranges::Large(list.value_offsets()), list.values().as_ref())
        }
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list_opt()?;
            (Ranges::Fixed(usize::try_from(list.value_length()).ok()?), list.values().as_ref())
        }
        _ => return None,
    })
}

impl Ranges<'_> {
    #[inline]
    pub(super) fn at(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Ranges::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Ranges::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Ranges::Fixed(length) => row * length..(row + 1) * length,
        }
    }
}

impl<'a> Integers<'a> {
    /// The numbers of a column; `None` when it has none.
    pub(crate) fn of(array: &'a dyn Array) -> Option<Self> {
        macro_rules! values {
            ($form:ident, $type:ident) => {
                Integers::$form(array.as_primitive_opt::<types::$type>()?.values())
            };
        }
        Some(match array.data_type() {
            DataType::Int8 => values!(I8, Int8Type),
            DataType::Int16 => values!(I16, Int16Type),
            DataType::Int32 => values!(I32, Int32Type),
            DataType::Int64 => values!(I64, Int64Type),
            DataType::UInt8 => values!(U8, UInt8Type),
            DataType::UInt16 => values!(U16, UInt16Type),
            DataType::UInt32 => values!(U32, UInt32Type),
            DataType::UInt64 => values!(U64, UInt64Type),
            DataType::Decimal32(_, 0) => values!(I32, Decimal32Type),
            DataType::Decimal64(_, 0) => values!(I64, Decimal64Type),
            DataType::Decimal128(_, 0) => values!(I128, Decimal128Type),
            DataType::Date32 => values!(I32, Date32Type),
            DataType::Time32(TimeUnit::Second) => values!(I32, Time32SecondType),
            DataType::Time32(_) => values!(I32, Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => values!(I64, Time64MicrosecondType),
            DataType::Time64(_) => values!(I64, Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => values!(I64, TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => values!(I64, TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => values!(I64, TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => values!(I64, TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => values!(I64, DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => values!(I64, DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => values!(I64, DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => values!(I64, DurationNanosecondType),
            _ => return None,
        })
    }

    /// The number of a row.
    #[inline]
    pub(crate) fn read(&self, row: usize) -> i128 {
        match self {
            Integers::I64(values) => i128::from(values[row]),
            Integers::I32(values) => i128::from(values[row]),
            Integers::I8(values) => i128::from(values[row]),
            Integers::I16(values) => i128::from(values[row]),
            Integers::I128(values) => values[row],
            Integers::U8(values) => i128::from(values[row]),
            Integers::U16(values) => i128::from(values[row]),
            Integers::U32(values) => i128::from(values[row]),
            Integers::U64(values) => i128::from(values[row]),
        }
    }
}

impl<'a> Texts<'a> {
    /// The texts of a column; `None` when it has none.
    pub(crate) fn of(array: &'a dyn Array) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Texts::Small(array.as_string_opt()?),
            DataType::LargeUtf8 => Texts::Large(array.as_string_opt()?),
            _ => Texts::View(array.as_string_view_opt()?),
        })
    }

    /// The text of a row.
    #[inline]
    pub(crate) fn read(&self, row: usize) -> &'a str {
        match self {
            Texts::Small(values) => values.value(row),
            Texts::Large(values) => values.value(row),
            Texts::View(values) => values.value(row),
        }
    }
}

impl<'a> Octets<'a> {
    fn of(array: &'a dyn Array) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Binary => Octets::Small(array.as_binary_opt()?),
            DataType::LargeBinary => Octets::Large(array.as_binary_opt()?),
            DataType::BinaryView => Octets::View(array.as_binary_view_opt()?),
            _ => Octets::Fixed(array.as_fixed_size_binary_opt()?),
        })
    }

    #[inline]
    pub(super) fn read(&self, row: usize) -> &'a [u8] {
        match self {
            Octets::Small(values) => values.value(row),
            Octets::Large(values) => values.value(row),
            Octets::View(values) => values.value(row),
            Octets::Fixed(values) => values.value(row),
        }
    }
}
