//! Which rows a subscription wants, as its request says it: each field that is set names a column and must be equal to
//! it; of a repeated field one value has to be; what is unset does not filter.
//!
//! A field without presence (proto3 without `optional`) is unset when it has its default: to ask for 0, `false` or `''`
//! the field has to be `optional` or a wrapper. NULL is equal to nothing. The fields that say where to begin
//! ([`crate::subscribe::start`]) are no filters. Enums are compared by name with `VARCHAR`, timestamps by the column's
//! unit.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    RecordBatch, Scalar, StringArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{cast, prep_null_mask_filter};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Schema, TimeUnit};
use chrono::{Datelike as _, NaiveDate};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

use crate::error::{Error, Result};
use crate::subscribe::encode::{Integers, PlanFault, Texts};
use crate::subscribe::follow::Followed;
use crate::subscribe::start;

/// A request may ask for this many values in all.
pub const MAX_VALUES: usize = 10_000;
/// Up to this many values are compared one after the other; more are looked up in a table.
const FEW: usize = 8;
/// From 0001-01-01, which is day 1 there, to 1970-01-01.
const DAYS_TO_EPOCH: i32 = 719_163;

/// How the requests of one method filter. Made once for a method and a table.
#[derive(Debug, Clone)]
pub struct FilterPlan {
    fields: Vec<Planned>,
}

#[derive(Debug, Clone)]
struct Planned {
    field: FieldDescriptor,
    /// The column's type, without a dictionary around it.
    data_type: DataType,
}

/// Which rows one subscription wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    conditions: Box<[Condition]>,
}

#[derive(Debug, Clone)]
struct Condition {
    column: Box<str>,
    data_type: DataType,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    /// Equal to one of a few: none of them is NULL.
    Few(Box<[Scalar<ArrayRef>]>),
    Texts(Arc<HashSet<Box<str>>>),
    Wholes(Arc<HashSet<i128>>),
    /// A text that begins so.
    Prefix(Box<str>),
    /// A key that is followed: a text, or a whole number in digits.
    Followed(Arc<Followed>),
}

/// A value of a request, ready to be compared.
enum Wanted {
    Text(Box<str>),
    Whole(i128),
    Other(ArrayRef),
}

impl FilterPlan {
    /// The plan of the requests of type `request` over a table.
    ///
    /// # Errors
    /// All that is wrong, at once: fields that name no column, nested messages, types that cannot be equal.
    pub fn plan(request: &MessageDescriptor, schema: &Schema) -> Result<Self, Vec<PlanFault>> {
        let mut faults = start::faults(request);
        let mut fields = Vec::new();
        for field in request.fields().filter(|field| !start::is_reserved(field.name())) {
            let Some((_, column)) = schema.column_with_name(field.name()) else {
                faults.push(PlanFault::new(
                    field.name(),
                    "the table has no such column to filter by; rename the field, or take it out of the request",
                ));
                continue;
            };
            let data_type = plain(column.data_type()).clone();
            match is_comparable(&field, &data_type) {
                Ok(()) => fields.push(Planned { field, data_type }),
                Err(why) => faults.push(PlanFault::new(field.name(), why)),
            }
        }
        if faults.is_empty() { Ok(Self { fields }) } else { Err(faults) }
    }

    /// The plan of requests that filter nothing.
    pub fn nothing() -> Self {
        Self { fields: Vec::new() }
    }

    /// The columns that a request may filter by.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|planned| planned.field.name())
    }

    /// What this request asks for.
    ///
    /// # Errors
    /// `Invalid` when it asks for too many values.
    pub fn filter(&self, request: &DynamicMessage) -> Result<Filter> {
        let (mut conditions, mut count) = (Vec::new(), 0);
        for Planned { field, data_type } in &self.fields {
            if !request.has_field(field) {
                continue;
            }
            let value = request.get_field(field);
            let values = match &*value {
                Value::List(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            count += values.len();
            if count > MAX_VALUES {
                return Err(Error::invalid(format!(
                    "the request asks for more than {MAX_VALUES} values: subscribe several times, or filter less"
                )));
            }
            let wanted: Vec<Wanted> =
                values.iter().filter_map(|value| wanted(&field.kind(), value, data_type)).collect();
            let test = Test::of(wanted, data_type)?;
            conditions.push(Condition { column: field.name().into(), data_type: data_type.clone(), test });
        }
        Ok(Filter { conditions: conditions.into() })
    }
}

impl Filter {
    /// The rows whose text in `column` begins with `prefix`.
    pub fn beginning_with(column: &str, data_type: &DataType, prefix: &str) -> Self {
        Self::of_one(column, data_type, Test::Prefix(prefix.into()))
    }

    /// The rows whose `column`, a text or a whole number, is one of the keys that are followed.
    pub fn following(column: &str, data_type: &DataType, keys: Arc<Followed>) -> Self {
        Self::of_one(column, data_type, Test::Followed(keys))
    }

    fn of_one(column: &str, data_type: &DataType, test: Test) -> Self {
        Self { conditions: [Condition { column: column.into(), data_type: plain(data_type).clone(), test }].into() }
    }

    /// Whether it wants every row.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Which rows of a batch it wants; `None` is all of them.
    ///
    /// # Errors
    /// `Violated` when the batch has not the columns that it was planned with.
    pub fn select(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let mut selected: Option<BooleanBuffer> = None;
        for condition in &self.conditions {
            let passed = condition.test(batch)?;
            selected = Some(match selected {
                Some(others) => &others & &passed,
                None => passed,
            });
            if selected.as_ref().is_some_and(|selected| selected.count_set_bits() == 0) {
                break;
            }
        }
        Ok(selected.map(|selected| BooleanArray::new(selected, None)))
    }
}

impl Condition {
    fn test(&self, batch: &RecordBatch) -> Result<BooleanBuffer> {
        let column = batch.column_by_name(&self.column).filter(|column| *plain(column.data_type()) == self.data_type);
        let column = column.ok_or_else(|| {
            Error::violated(format!(
                "column {} of the table is no longer what the subscription filters by: subscribe again",
                self.column
            ))
        })?;
        match &self.test {
            Test::Few(values) => {
                let mut passed = BooleanBuffer::new_unset(column.len());
                for value in values {
                    let equal = eq(column, value).map_err(|e| {
                        Error::violated(format!(
                            "column {} cannot be compared with what the request asks for: subscribe again",
                            self.column
                        ))
                        .caused_by(e)
                    })?;
                    let equal = match equal.null_count() {
                        0 => equal,
                        _ => prep_null_mask_filter(&equal),
                    };
                    passed = &passed | equal.values();
                }
                Ok(passed)
            }
            Test::Texts(wanted) => Ok(look_up(column, |values| {
                let texts = Texts::of(values)?;
                Some((0..values.len()).map(|row| wanted.contains(texts.read(row))).collect())
            })),
            Test::Wholes(wanted) => Ok(look_up(column, |values| {
                let numbers = Integers::of(values)?;
                Some((0..values.len()).map(|row| wanted.contains(&numbers.read(row))).collect())
            })),
            Test::Prefix(prefix) => Ok(look_up(column, |values| {
                let texts = Texts::of(values)?;
                Some((0..values.len()).map(|row| texts.read(row).starts_with(&**prefix)).collect())
            })),
            Test::Followed(keys) => Ok(look_up(column, |values| {
                if let Some(texts) = Texts::of(values) {
                    return Some(keys.contains_each((0..values.len()).map(|row| texts.read(row))));
                }
                let numbers = Integers::of(values)?;
                let digits: Vec<String> = (0..values.len()).map(|row| numbers.read(row).to_string()).collect();
                Some(keys.contains_each(digits.iter().map(String::as_str)))
            })),
        }
    }
}

/// The rows whose value passes; of a dictionary each value is looked up once.
fn look_up(column: &ArrayRef, passes: impl Fn(&dyn Array) -> Option<Vec<bool>>) -> BooleanBuffer {
    let none = || BooleanBuffer::new_unset(column.len());
    let nulls = column.logical_nulls();
    let is_there = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    match column.as_any_dictionary_opt() {
        None => match passes(column.as_ref()) {
            Some(passed) => BooleanBuffer::collect_bool(column.len(), |row| passed[row] && is_there(row)),
            None => none(),
        },
        Some(dictionary) => match (passes(dictionary.values().as_ref()), Integers::of(dictionary.keys())) {
            (Some(passed), Some(keys)) => BooleanBuffer::collect_bool(column.len(), |row| {
                is_there(row) && passed.get(keys.read(row) as usize).copied().unwrap_or(false)
            }),
            _ => none(),
        },
    }
}

impl Test {
    fn of(wanted: Vec<Wanted>, data_type: &DataType) -> Result<Self> {
        if wanted.len() > FEW && wanted.iter().all(|value| matches!(value, Wanted::Text(_))) {
            let text = |value| if let Wanted::Text(text) = value { Some(text) } else { None };
            return Ok(Test::Texts(Arc::new(wanted.into_iter().filter_map(text).collect())));
        }
        if wanted.len() > FEW && wanted.iter().all(|value| matches!(value, Wanted::Whole(_))) {
            let whole = |value| if let Wanted::Whole(whole) = value { Some(whole) } else { None };
            return Ok(Test::Wholes(Arc::new(wanted.into_iter().filter_map(whole).collect())));
        }
        let mut values = Vec::with_capacity(wanted.len());
        for value in wanted {
            let array: ArrayRef = match value {
                Wanted::Text(text) => Arc::new(StringArray::from_iter_values([text])),
                Wanted::Whole(whole) => {
                    let whole = Decimal128Array::from_iter_values([whole]);
                    Arc::new(whole.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)))
                }
                Wanted::Other(array) => array,
            };
            let array = cast(&array, data_type).map_err(|e| {
                Error::invalid(format!("a value of the request is no {data_type}: change it")).caused_by(e)
            })?;
            // What does not fit into the column is in no row of it.
            if !array.is_null(0) {
                values.push(Scalar::new(array));
            }
        }
        Ok(Test::Few(values.into()))
    }
}

/// The type of a dictionary's values; any other type is itself.
fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether a field may be equal to a column, and why not.
fn is_comparable(field: &FieldDescriptor, data_type: &DataType) -> Result<(), String> {
    let is_whole = data_type.is_integer() || matches!(data_type, DataType::Decimal128(_, 0));
    let is_octets = matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    );
    let kind = match field.kind() {
        _ if field.is_map() => return Err("a map is no filter; take it out of the request".into()),
        Kind::Message(message) => match wrapped(&message) {
            Some(kind) => kind,
            None => Kind::Message(message),
        },
        kind => kind,
    };
    let fits = match &kind {
        Kind::Bool => *data_type == DataType::Boolean,
        Kind::Float => *data_type == DataType::Float32,
        Kind::Double => *data_type == DataType::Float64,
        Kind::String => is_text(data_type),
        Kind::Bytes => is_octets,
        Kind::Enum(_) => is_text(data_type) || is_whole,
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => matches!(data_type, DataType::Timestamp(..)),
            "google.type.Date" => *data_type == DataType::Date32,
            name => {
                return Err(format!(
                    "{name} is a message, and only values are filters; name the columns in fields of their own"
                ));
            }
        },
        _ => is_whole,
    };
    match fits {
        true => Ok(()),
        false => Err(format!(
            "it is a {}, and the table's column is {data_type}, which is never equal to one; give the field the \
             column's type",
            told(&kind)
        )),
    }
}

fn told(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(numbers) => numbers.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// What a wrapper message wraps.
fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    let name = message.full_name();
    let is_wrapper = name.starts_with("google.protobuf.") && name.ends_with("Value");
    let is_one = message.fields().len() == 1 && !matches!(name, "google.protobuf.ListValue");
    (is_wrapper && is_one).then(|| message.get_field(1)).flatten().map(|field| field.kind())
}

/// A value of a request; `None` when no row can be equal to it.
fn wanted(kind: &Kind, value: &Value, data_type: &DataType) -> Option<Wanted> {
    let other = |array: ArrayRef| Some(Wanted::Other(array));
    match value {
        Value::Bool(value) => other(Arc::new(BooleanArray::from(vec![*value]))),
        Value::F32(value) => other(Arc::new(Float32Array::from(vec![*value]))),
        Value::F64(value) => other(Arc::new(Float64Array::from(vec![*value]))),
        Value::Bytes(value) => other(Arc::new(BinaryArray::from_vec(vec![&value[..]]))),
        Value::String(value) => Some(Wanted::Text(value.as_str().into())),
        Value::I32(value) => Some(Wanted::Whole(i128::from(*value))),
        Value::I64(value) => Some(Wanted::Whole(i128::from(*value))),
        Value::U32(value) => Some(Wanted::Whole(i128::from(*value))),
        Value::U64(value) => Some(Wanted::Whole(i128::from(*value))),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(numbers) if is_text(data_type) => {
                // As the decoder has it: the first name of a number, or its digits.
                let mut names: Vec<_> = numbers.values().filter(|value| value.number() == *number).collect();
                names.sort_by_key(|value| value.path().last().copied());
                let name = names.first().map_or_else(|| number.to_string(), |value| value.name().to_owned());
                Some(Wanted::Text(name.into()))
            }
            _ => Some(Wanted::Whole(i128::from(*number))),
        },
        Value::Message(message) => of_message(message, data_type),
        Value::List(_) | Value::Map(_) => None,
    }
}

fn of_message(message: &DynamicMessage, data_type: &DataType) -> Option<Wanted> {
    let number = |name: &str| {
        message.get_field_by_name(name).and_then(|value| match &*value {
            Value::I64(value) => Some(*value),
            Value::I32(value) => Some(i64::from(*value)),
            _ => None,
        })
    };
    if let Some(seconds) = number("seconds") {
        let nanos = number("nanos")?;
        let DataType::Timestamp(unit, zone) = data_type else { return None };
        let per_second: i64 = match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        };
        let value = seconds.checked_mul(per_second)?.checked_add(nanos.div_euclid(1_000_000_000 / per_second))?;
        let plain: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![value]));
        let typed = cast(&plain, &DataType::Timestamp(*unit, zone.clone())).ok()?;
        return Some(Wanted::Other(typed));
    }
    if let Some(year) = number("year") {
        let (year, month, day) = (i32::try_from(year).ok()?, number("month")?, number("day")?);
        let date = NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)?;
        return Some(Wanted::Other(Arc::new(Date32Array::from(vec![date.num_days_from_ce() - DAYS_TO_EPOCH]))));
    }
    let value = message.get_field_by_name("value")?.into_owned();
    let kind = wrapped(&message.descriptor())?;
    wanted(&kind, &value, data_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::tests::message_of;
    use arrow::array::{DictionaryArray, Int32Array, Int64Array, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Int32Type};
    use proptest::prelude::*;

    const REQUEST: &str = "message M {
            string ad = 1; repeated int64 number = 2; optional bool flag = 3; E color = 4; uint64 big = 5;
            google.protobuf.Timestamp at = 6; google.type.Date day = 7; google.protobuf.StringValue note = 8;
            repeated string word = 9; bytes raw = 10; optional double share = 11; string start = 12;
        } enum E { RED = 0; BLUE = 1; }";

    fn batch() -> RecordBatch {
        let words: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("y"), Some("x")].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ad", Arc::new(StringViewArray::from(vec![Some("a"), Some("b"), None, Some("a")]))),
            ("number", Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(3), None]))),
            ("flag", Arc::new(BooleanArray::from(vec![Some(false), Some(true), None, Some(false)]))),
            ("color", Arc::new(StringArray::from(vec!["BLUE", "RED", "7", "BLUE"]))),
            (
                "big",
                Arc::new(
                    Decimal128Array::from(vec![1, i128::from(u64::MAX), 3, 4]).with_precision_and_scale(20, 0).unwrap(),
                ),
            ),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000, -1, 0]).with_timezone("UTC"))),
            ("day", Arc::new(Date32Array::from(vec![0, 1, 2, 19_782]))),
            ("note", Arc::new(StringArray::from(vec![Some(""), None, Some("n"), Some("")]))),
            ("word", Arc::new(words)),
            ("raw", Arc::new(BinaryArray::from(vec![&b"a"[..], b"b", b"", b"a"]))),
            ("share", Arc::new(Float64Array::from(vec![0.0, 0.5, f64::NAN, 0.5]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn plan() -> FilterPlan {
        FilterPlan::plan(&message_of(REQUEST), batch().schema_ref()).unwrap()
    }

    /// The rows that a request in JSON wants.
    fn wants(json: &str) -> Vec<usize> {
        let mut text = serde_json::Deserializer::from_str(json);
        let request = DynamicMessage::deserialize(message_of(REQUEST), &mut text).unwrap();
        let filter = plan().filter(&request).unwrap();
        match filter.select(&batch()).unwrap() {
            None => vec![0, 1, 2, 3],
            Some(selected) => (0..4).filter(|row| selected.value(*row)).collect(),
        }
    }

    #[test]
    fn fields_that_are_set_are_equal_to_their_columns() {
        for (json, rows) in [
            ("{}", vec![0, 1, 2, 3]),
            (r#"{"start": "latest"}"#, vec![0, 1, 2, 3]),
            (r#"{"ad": ""}"#, vec![0, 1, 2, 3]),
            (r#"{"ad": "a"}"#, vec![0, 3]),
            (r#"{"ad": "a", "number": [1, 2]}"#, vec![0]),
            (r#"{"ad": "nobody", "number": [1, 2]}"#, vec![]),
            (r#"{"number": []}"#, vec![0, 1, 2, 3]),
            (r#"{"number": ["9007199254740993"]}"#, vec![]),
            (r#"{"number": ["9007199254740993", 3]}"#, vec![2]),
            (r#"{"number": [9, 8, 7, 6, 5, 4, 3, 2, 11, "9007199254740993"]}"#, vec![1, 2]),
            (r#"{"flag": false}"#, vec![0, 3]),
            (r#"{"flag": true}"#, vec![1]),
            (r#"{"color": "BLUE"}"#, vec![0, 3]),
            (r#"{"color": 7}"#, vec![2]),
            (r#"{"big": "18446744073709551615"}"#, vec![1]),
            (r#"{"at": "1970-01-01T00:00:00Z"}"#, vec![0, 3]),
            (r#"{"at": "1970-01-01T00:00:01.500000999Z"}"#, vec![1]),
            (r#"{"at": "1969-12-31T23:59:59.999999Z"}"#, vec![2]),
            (r#"{"day": {"year": 2024, "month": 2, "day": 29}}"#, vec![3]),
            (r#"{"day": {"year": 2024, "month": 2, "day": 30}}"#, vec![]),
            (r#"{"note": ""}"#, vec![0, 3]),
            (r#"{"word": ["x"]}"#, vec![0, 3]),
            (r#"{"word": ["y", "z"]}"#, vec![2]),
            (r#"{"word": ["1", "2", "3", "4", "5", "6", "7", "8", "x"]}"#, vec![0, 3]),
            (r#"{"raw": "YQ=="}"#, vec![0, 3]),
            (r#"{"share": 0.5}"#, vec![1, 3]),
        ] {
            assert_eq!(wants(json), rows, "{json}");
        }
    }

    #[test]
    fn a_plan_tells_all_its_faults_at_once() {
        let request = message_of(
            "message M { string ad = 1; string gone = 2; In in = 3; map<string, string> note = 4; int32 word = 5;
              google.protobuf.Struct color = 6; bool start = 7; google.protobuf.Timestamp day = 8; float share = 9; }
             message In { string a = 1; }",
        );
        let mut fields = batch().schema().fields().to_vec();
        fields.push(Arc::new(Field::new("in", DataType::Utf8, true)));
        let faults = FilterPlan::plan(&request, &Schema::new(fields)).unwrap_err();
        let told: Vec<String> = faults.iter().map(PlanFault::to_string).collect();
        let begins = [
            "field start: `start` says where a subscription begins and has to be a `string`",
            "field gone: the table has no such column to filter by",
            "field in: In is a message, and only values are filters",
            "field note: a map is no filter",
            "field word: it is a int32, and the table's column is Utf8",
            "field color: google.protobuf.Struct is a message",
            "field day: it is a google.protobuf.Timestamp, and the table's column is Date32",
            "field share: it is a float, and the table's column is Float64",
        ];
        assert_eq!(told.len(), begins.len(), "{told:#?}");
        for (fault, begin) in told.iter().zip(begins) {
            assert!(fault.starts_with(begin), "{fault}");
        }
        assert_eq!(plan().columns().count(), 11);
    }

    #[test]
    fn too_much_is_refused_and_other_columns_are_seen() {
        let mut request = DynamicMessage::new(message_of(REQUEST));
        request.set_field_by_name("number", Value::List(vec![Value::I64(1); MAX_VALUES + 1]));
        let error = plan().filter(&request).unwrap_err();
        assert!(error.message().contains("more than 10000 values"), "{error}");
        request.set_field_by_name("number", Value::List(vec![Value::I64(1); MAX_VALUES]));
        let filter = plan().filter(&request).unwrap();
        let error = filter.select(&batch().project(&[0]).unwrap()).unwrap_err();
        assert!(error.message().contains("column number"), "{error}");
    }

    proptest! {
        #[test]
        fn few_and_many_values_are_compared_alike(
            rows in prop::collection::vec(prop::option::of(0i64..20), 1..50),
            wanted in prop::collection::vec(0i64..20, 1..20),
            as_text: bool,
            is_dictionary: bool,
        ) {
            let name = |number: i64| format!("n{number}");
            let (column, value): (ArrayRef, fn(i64) -> Value) = match as_text {
                true => {
                    let texts = StringArray::from_iter(rows.iter().map(|n| n.map(name)));
                    (Arc::new(texts), |n| Value::String(format!("n{n}")))
                }
                false => (Arc::new(Int64Array::from(rows.clone())), Value::I64),
            };
            let column = match is_dictionary {
                true => {
                    let values = Box::new(column.data_type().clone());
                    cast(&column, &DataType::Dictionary(Box::new(DataType::Int8), values)).unwrap()
                }
                false => column,
            };
            let field = if as_text { "repeated string c = 1;" } else { "repeated int64 c = 1;" };
            let message = message_of(&format!("message M {{ {field} }}"));
            let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
            let mut request = DynamicMessage::new(message.clone());
            request.set_field_by_name("c", Value::List(wanted.iter().map(|n| value(*n)).collect()));
            let filter = FilterPlan::plan(&message, batch.schema_ref()).unwrap().filter(&request).unwrap();
            let selected = filter.select(&batch).unwrap().unwrap();
            for (row, of) in rows.iter().enumerate() {
                prop_assert_eq!(selected.value(row), of.is_some_and(|of| wanted.contains(&of)));
            }
        }
    }
}
