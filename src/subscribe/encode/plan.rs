//! From a message's descriptor and a table's columns to the plan that fills the one from the others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Fields, TimeUnit};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::fault::PlanFault;
use super::form::{Encoding, FieldPlan, Form, JsonKind, Label, MessagePlan, PerSecond, Source, Whole};
use super::mark::{CURSOR_FIELD, REPLACES_FIELD};
use super::wire::{END_GROUP, FIXED32, FIXED64, LENGTH, MAX_DEPTH, START_GROUP, VARINT, tag};

/// Names of columns that a fault lists.
const MAX_LISTED: usize = 20;

/// What a plan may leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Fields that need no column, by their paths: `note`, `placement.slot`. All that is in such a field needs none
    /// either.
    pub optional: BTreeSet<String>,
    /// No field needs a column, but for `required` ones of proto2.
    pub all_optional: bool,
}

/// The plan of the result message.
pub(super) fn message(
    message: &MessageDescriptor,
    columns: &Fields,
    options: &EncodeOptions,
) -> Result<MessagePlan, Vec<PlanFault>> {
    let mut planner = Planner { options, faults: Vec::new() };
    let plan = planner.message(message, columns, &Place { path: "", depth: 0, is_optional: options.all_optional });
    if planner.faults.is_empty() { Ok(plan) } else { Err(planner.faults) }
}

struct Planner<'a> {
    options: &'a EncodeOptions,
    faults: Vec<PlanFault>,
}

/// Where the planner is.
struct Place<'a> {
    /// The path of the message's field; empty for the result message.
    path: &'a str,
    depth: usize,
    /// Nothing in it needs a column.
    is_optional: bool,
}

impl Place<'_> {
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl Planner<'_> {
    fn fault(&mut self, path: &str, message: String) {
        self.faults.push(PlanFault::new(path, message));
    }

    fn message(&mut self, message: &MessageDescriptor, columns: &Fields, place: &Place<'_>) -> MessagePlan {
        let mut fields: Vec<FieldPlan> = Vec::new();
        let mut members: Vec<(String, usize)> = Vec::new();
        if place.depth > MAX_DEPTH {
            self.fault(place.path, format!("it lies in more than {MAX_DEPTH} messages; use a flatter message"));
            return MessagePlan { fields: fields.into() };
        }
        // `fields()` walks in the order of the numbers.
        for field in message.fields() {
            let path = place.path_of(field.name());
            let column = columns.iter().position(|column| column.name() == field.name());
            let planned = match (reserved(&field).filter(|_| place.path.is_empty()), column) {
                (Some(source), None) => Some(self.reserved(&field, source, &path)),
                (Some(_), Some(_)) => {
                    self.fault(&path, ambiguous(&field));
                    None
                }
                (None, Some(at)) => self.field(&field, at, columns[at].data_type(), place, &path),
                (None, None) => {
                    self.missing(&field, columns, place, &path);
                    None
                }
            };
            let Some(mut plan) = planned else { continue };
            if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
                let others = members.iter().filter(|(name, _)| name == oneof.full_name());
                plan.rivals = others.map(|(_, at)| *at).collect();
                members.push((oneof.full_name().to_owned(), fields.len()));
            }
            fields.push(plan);
        }
        MessagePlan { fields: fields.into() }
    }

    fn missing(&mut self, field: &FieldDescriptor, columns: &Fields, place: &Place<'_>, path: &str) {
        let is_optional = place.is_optional || self.options.optional.contains(path);
        if is_optional && !field.is_required() {
            return;
        }
        let remedy = if field.is_required() {
            "add the column to the query that writes it, or make the field optional"
        } else {
            "add the column to the query that writes it, or take the field out of the message"
        };
        let name = columns.iter().map(|column| column.name()).find(|name| name.eq_ignore_ascii_case(field.name()));
        let hint = match name {
            Some(name) => format!("it has `{name}`, and names are compared letter by letter"),
            None => format!("it has {}", listed(columns)),
        };
        let reserved = match field.name() {
            CURSOR_FIELD if place.path.is_empty() => ". A `cursor` that the server fills is a `string`",
            REPLACES_FIELD if place.path.is_empty() => ". A `replaces` that the server fills is a `bool`",
            _ => "",
        };
        self.fault(path, format!("the table has no column `{}` ({hint}); {remedy}{reserved}", field.name()));
    }

    fn reserved(&mut self, field: &FieldDescriptor, source: Source, path: &str) -> FieldPlan {
        let (form, wire_type) = match source {
            Source::Replaces => (Form::Bool, VARINT),
            _ => (Form::Text, LENGTH),
        };
        FieldPlan {
            path: path.into(),
            source,
            label: Label::One,
            form,
            tag: tag(field.number(), wire_type),
            group_end: 0,
            implicit: !field.supports_presence(),
            required: false,
            rivals: Box::default(),
        }
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        at: usize,
        data_type: &DataType,
        place: &Place<'_>,
        path: &str,
    ) -> Option<FieldPlan> {
        let is_optional = place.is_optional || self.options.optional.contains(path);
        let inside = Place { path, depth: place.depth + 1, is_optional };
        let number = field.number();
        let data_type = plain(data_type);
        let (label, kind, data_type) = match (field.kind(), data_type) {
            (Kind::Message(entry), DataType::Map(pair, _)) if field.is_map() => {
                let DataType::Struct(pair) = pair.data_type() else { return None };
                let [key, value] = &pair[..] else { return None };
                let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                let form = self.value(&key_kind, key.data_type(), &inside)?;
                let (key_tag, value_tag) = (tag(1, wire_type(&key_kind)), tag(2, wire_type(&value_kind)));
                (Label::Map { key: form, key_tag, value_tag }, value_kind, value.data_type())
            }
            (kind, DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _))
                if field.is_list() =>
            {
                let label = if field.is_packed() { Label::Packed } else { Label::Repeated };
                (label, kind, element.data_type())
            }
            (_, data_type) if field.is_map() => return self.mismatch(data_type, "a map", "a map", path),
            (_, data_type) if field.is_list() => return self.mismatch(data_type, "a repeated field", "a list", path),
            (kind, data_type) => (Label::One, kind, data_type),
        };
        let form = self.value(&kind, data_type, &inside)?;
        let wire_type = match &label {
            Label::Packed | Label::Map { .. } => LENGTH,
            _ if field.is_group() => START_GROUP,
            _ => wire_type(&kind),
        };
        let is_one = matches!(label, Label::One);
        Some(FieldPlan {
            path: path.into(),
            source: Source::Column(at),
            label,
            form,
            tag: tag(number, wire_type),
            group_end: if wire_type == START_GROUP { tag(number, END_GROUP) } else { 0 },
            implicit: is_one && !field.supports_presence(),
            required: field.is_required(),
            rivals: Box::default(),
        })
    }

    /// How a column's values become those of a field; `None` after a fault.
    fn value(&mut self, kind: &Kind, data_type: &DataType, place: &Place<'_>) -> Option<Form> {
        let data_type = plain(data_type);
        if let Some(form) = scalar(kind, data_type) {
            return Some(form);
        }
        let message = match kind {
            Kind::Message(message) => message,
            Kind::Enum(numbers) if is_text(data_type) => return Some(Form::EnumName(Arc::new(names(numbers)))),
            Kind::Enum(_) => return self.mismatch(data_type, "an enum", "VARCHAR or a whole number", place.path),
            kind => return self.mismatch(data_type, &format!("{kind:?}").to_lowercase(), taken(kind), place.path),
        };
        let name = message.full_name();
        if is_octets(data_type) && name != "google.protobuf.BytesValue" {
            return Some(Form::Raw);
        }
        if let Some(well_known) = well_known(name, data_type) {
            return match well_known {
                Ok(form) => Some(form),
                Err(taken) => self.mismatch(data_type, name, taken, place.path),
            };
        }
        if let Some(value) = wrapped(message) {
            return match scalar(&value, data_type) {
                Some(form) => Some(Form::Wrapper(Box::new(form), tag(1, wire_type(&value)))),
                None => self.mismatch(data_type, name, taken(&value), place.path),
            };
        }
        match data_type {
            DataType::Struct(columns) => Some(Form::Message(self.message(message, columns, place))),
            DataType::Boolean if message.fields().len() == 0 => Some(Form::Present),
            _ if message.fields().len() == 0 => self.mismatch(data_type, name, "BOOLEAN", place.path),
            _ => self.mismatch(data_type, name, "a struct", place.path),
        }
    }

    fn mismatch<T>(&mut self, found: &DataType, field: &str, taken: &str, path: &str) -> Option<T> {
        self.fault(
            path,
            format!(
                "the table's column is {}, and {field} takes {taken}; change the field's type, or cast the column in \
                 the query that writes the table",
                sql_name(found)
            ),
        );
        None
    }
}

/// What fills a field of the result message that is not the table's.
fn reserved(field: &FieldDescriptor) -> Option<Source> {
    match (field.name(), field.kind()) {
        _ if field.is_list() => None,
        (CURSOR_FIELD, Kind::String) => Some(Source::Cursor),
        (REPLACES_FIELD, Kind::Bool) => Some(Source::Replaces),
        _ => None,
    }
}

fn ambiguous(field: &FieldDescriptor) -> String {
    format!(
        "the server fills a field `{0}` of this type itself, and the table has a column `{0}` too; take the field out \
         of the message, or rename the column in the query that writes the table",
        field.name()
    )
}

fn listed(columns: &Fields) -> String {
    let mut names: Vec<&str> = columns.iter().take(MAX_LISTED).map(|column| column.name().as_str()).collect();
    if columns.len() > MAX_LISTED {
        names.push("…");
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The type of a dictionary's values; any other type is itself.
fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        other => other,
    }
}

/// The form of a scalar field, or of an enum by number.
fn scalar(kind: &Kind, data_type: &DataType) -> Option<Form> {
    if let Some(whole) = whole(kind) {
        let is_long = matches!(kind, Kind::Int64 | Kind::Sint64 | Kind::Sfixed64);
        return match per_second(data_type) {
            Some(per_second) => is_long.then_some(Form::Micros(whole, per_second)),
            None => is_whole(data_type).then_some(Form::Whole(whole)),
        };
    }
    let is_small = matches!(
        data_type,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32
    );
    match (kind, data_type) {
        (Kind::Bool, DataType::Boolean) => Some(Form::Bool),
        (Kind::Float, DataType::Float32) => Some(Form::Float),
        (Kind::Double, DataType::Float32 | DataType::Float64) => Some(Form::Double),
        (Kind::Double, _) if is_small => Some(Form::Double),
        (Kind::String, found) if is_text(found) => Some(Form::Text),
        (Kind::Bytes, found) if is_octets(found) => Some(Form::Octets),
        _ => None,
    }
}

fn whole(kind: &Kind) -> Option<Whole> {
    use Encoding::{Fixed32, Fixed64, Varint, Zigzag};
    let (encoding, least, most, name) = match kind {
        Kind::Int32 => (Varint, i128::from(i32::MIN), i128::from(i32::MAX), "int32"),
        Kind::Sint32 => (Zigzag, i128::from(i32::MIN), i128::from(i32::MAX), "sint32"),
        Kind::Sfixed32 => (Fixed32, i128::from(i32::MIN), i128::from(i32::MAX), "sfixed32"),
        Kind::Uint32 => (Varint, 0, i128::from(u32::MAX), "uint32"),
        Kind::Fixed32 => (Fixed32, 0, i128::from(u32::MAX), "fixed32"),
        Kind::Int64 => (Varint, i128::from(i64::MIN), i128::from(i64::MAX), "int64"),
        Kind::Sint64 => (Zigzag, i128::from(i64::MIN), i128::from(i64::MAX), "sint64"),
        Kind::Sfixed64 => (Fixed64, i128::from(i64::MIN), i128::from(i64::MAX), "sfixed64"),
        Kind::Uint64 => (Varint, 0, i128::from(u64::MAX), "uint64"),
        Kind::Fixed64 => (Fixed64, 0, i128::from(u64::MAX), "fixed64"),
        Kind::Enum(_) => (Varint, i128::from(i32::MIN), i128::from(i32::MAX), "an enum"),
        _ => return None,
    };
    Some(Whole { encoding, least, most, name })
}

/// The form of a message that is one value in a table, or what it takes; `None` when it is no such message.
fn well_known(name: &str, data_type: &DataType) -> Option<Result<Form, &'static str>> {
    const MICROS: PerSecond = PerSecond(1_000_000);
    let units = per_second(data_type);
    let form = match (name, data_type) {
        ("google.protobuf.Timestamp", DataType::Timestamp(..)) => units.map(Form::Timestamp),
        ("google.protobuf.Duration", DataType::Duration(_)) => units.map(Form::Duration),
        ("google.protobuf.Duration", found) if is_whole(found) => Some(Form::Duration(MICROS)),
        ("google.type.TimeOfDay", DataType::Time32(_) | DataType::Time64(_)) => units.map(Form::TimeOfDay),
        ("google.type.TimeOfDay", found) if is_whole(found) => Some(Form::TimeOfDay(MICROS)),
        ("google.type.Date", DataType::Date32) => Some(Form::Date),
        ("google.protobuf.Struct", found) if is_text(found) => Some(Form::Json(JsonKind::Struct)),
        ("google.protobuf.Value", found) if is_text(found) => Some(Form::Json(JsonKind::Value)),
        ("google.protobuf.ListValue", found) if is_text(found) => Some(Form::Json(JsonKind::List)),
        _ => None,
    };
    let taken = match name {
        "google.protobuf.Timestamp" => "TIMESTAMP",
        "google.protobuf.Duration" => "an interval or a whole number of microseconds",
        "google.type.TimeOfDay" => "TIME or a whole number of microseconds",
        "google.type.Date" => "DATE",
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => "VARCHAR with JSON",
        _ => return None,
    };
    Some(form.ok_or(taken))
}

/// What a wrapper message wraps.
fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    let stem = message.full_name().strip_prefix("google.protobuf.")?.strip_suffix("Value")?;
    let wrappers = ["Bool", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "Bytes"];
    wrappers.contains(&stem).then(|| message.get_field(1)).flatten().map(|field| field.kind())
}

/// What a scalar field takes.
fn taken(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOLEAN",
        Kind::Float => "FLOAT",
        Kind::Double => "DOUBLE, FLOAT or INT",
        Kind::String => "VARCHAR",
        Kind::Bytes => "VARBINARY",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a whole number or a time",
        _ => "a whole number",
    }
}

fn names(numbers: &EnumDescriptor) -> HashMap<Box<str>, i32> {
    numbers.values().map(|value| (value.name().into(), value.number())).collect()
}

fn wire_type(kind: &Kind) -> u32 {
    match kind {
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => FIXED32,
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => FIXED64,
        Kind::String | Kind::Bytes | Kind::Message(_) => LENGTH,
        _ => VARINT,
    }
}

fn is_whole(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(data_type, DataType::Decimal32(_, 0) | DataType::Decimal64(_, 0) | DataType::Decimal128(_, 0))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_octets(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// The units of a time.
fn per_second(data_type: &DataType) -> Option<PerSecond> {
    let (DataType::Timestamp(unit, _) | DataType::Duration(unit) | DataType::Time32(unit) | DataType::Time64(unit)) =
        data_type
    else {
        return None;
    };
    Some(PerSecond(match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }))
}

/// A type as people write it in SQL.
fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Duration(_) => "an interval".into(),
        DataType::Struct(_) => "a struct".into(),
        DataType::Map(..) => "a map".into(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "a list".into(),
        found if is_text(found) => "VARCHAR".into(),
        found if is_octets(found) => "VARBINARY".into(),
        other => other.to_string(),
    }
}
