//! From a message's shape and the fields that are wanted to the columns that read them.

use arrow::datatypes::Fields;

use super::column::Column;
use super::column::calendar::{Calendar, CalendarKind};
use super::column::json::{Json, JsonKind};
use super::column::message::{Chosen, Entry, Message, NO_CASE, NO_GUESS, NO_ONEOF, Required, Unknown};
use super::column::nested::{EnumNames, List, Map, Time, TimeKind, Wrapper};
use super::selection::Selection;
use super::table::TagTable;
use super::vector::{Fixed, Validity, Variable};
use crate::schema::{FieldShape, Label, MessageShape, Scalar, ValueShape};

/// A field of a message and what is wanted of it: `None` is nothing, but a column that is filled at the end.
struct Wanted<'a> {
    field: &'a FieldShape,
    selection: Option<&'a Selection>,
}

/// The plan of the topic's message: a column for each name, in that order, or the name that it does not have.
///
/// With `nullable` a row may be NULL whole.
pub(super) fn root<'a>(
    shape: &MessageShape,
    names: &[&'a str],
    selection: &Selection,
    nullable: bool,
) -> Result<Message, &'a str> {
    let all = Selection::All;
    let mut wanted = Vec::with_capacity(names.len());
    for name in names {
        let field = shape.fields.iter().find(|field| field.name == *name).ok_or(*name)?;
        wanted.push(Wanted { field, selection: selection.field(name).or(Some(&all)) });
    }
    let fields = wanted.iter().map(|wanted| wanted.field.column_within(nullable)).collect();
    Ok(message(shape, &wanted, fields, Nulls { itself: false, within: nullable }))
}

/// Whether a value may be NULL.
#[derive(Clone, Copy)]
struct Nulls {
    /// Itself.
    itself: bool,
    /// Because of the messages that it is in.
    within: bool,
}

impl Nulls {
    fn any(self) -> bool {
        self.itself || self.within
    }
}

/// A nested message: all of its columns are there, those that are wanted are read.
fn nested(shape: &MessageShape, selection: &Selection, nulls: Nulls) -> Message {
    let wanted = shape.fields.iter().map(|field| Wanted { field, selection: selection.field(&field.name) });
    message(shape, &wanted.collect::<Vec<_>>(), shape.columns_within(nulls.any()), nulls)
}

fn message(shape: &MessageShape, wanted: &[Wanted<'_>], fields: Fields, nulls: Nulls) -> Message {
    let mut columns: Vec<Column> =
        wanted.iter().map(|w| column(w.field, w.selection.unwrap_or(&NONE), nulls.any())).collect();
    let mut names: Vec<Box<str>> = wanted.iter().map(|w| w.field.name.as_str().into()).collect();
    let read = wanted.iter().enumerate().filter(|(_, wanted)| wanted.selection.is_some());
    let mut slots: Vec<(usize, &FieldShape)> = read.map(|(slot, wanted)| (slot, wanted.field)).collect();
    let mut cases = vec![NO_CASE; shape.oneofs];
    for (slot, field) in &slots {
        if let ValueShape::Case { oneof, .. } = field.value {
            cases[oneof] = *slot as u16;
        }
    }
    let kept = slots.iter().find(|(_, field)| field.value == ValueShape::Unknown).map(|(slot, _)| *slot as u16);
    let unknown = kept.map(|slot| {
        let mut known: Vec<u32> = shape.fields.iter().map(|field| field.number).collect();
        known.sort_unstable();
        Box::new(Unknown { slot, known: known.into() })
    });
    slots.retain(|(_, field)| !matches!(field.value, ValueShape::Case { .. } | ValueShape::Unknown));
    // A member that nobody wants still clears one that is wanted, and is told as the case.
    for field in shape.fields.iter().filter(|field| field.oneof.is_some()) {
        let wanted = slots.iter().any(|(_, other)| other.oneof == field.oneof)
            || field.oneof.is_some_and(|oneof| cases[oneof] != NO_CASE);
        if wanted && !slots.iter().any(|(_, other)| other.number == field.number) {
            slots.push((columns.len(), field));
            columns.push(Column::Skip);
            names.push(field.name.as_str().into());
        }
    }
    let required = slots.iter().filter_map(|(slot, field)| {
        let inside = matches!(&columns[*slot], Column::Message(message) if message.has_required());
        let itself = field.label == Label::Required;
        (itself || inside).then_some(Required { slot: *slot as u16, itself })
    });
    let required = required.collect();
    slots.sort_by_key(|(_, field)| field.number);
    let (entries, members) = entries(&slots);
    let tags: Vec<u32> = entries.iter().map(|entry| entry.tag).collect();
    Message {
        table: TagTable::new(&tags),
        entries: entries.into(),
        first: if members.first() == Some(&NO_ONEOF) { 0 } else { NO_GUESS },
        members: members.into(),
        columns: columns.into(),
        names: names.into(),
        oneofs: vec![Chosen::NONE; shape.oneofs].into(),
        cases: cases.into(),
        unknown,
        required,
        fields,
        rows: 0,
        validity: Validity::new(nulls.itself),
    }
}

static NONE: Selection = Selection::Fields(std::collections::BTreeMap::new());

/// What is done with each tag, in the order of the field numbers, as messages are written, and which oneof each is of.
fn entries(slots: &[(usize, &FieldShape)]) -> (Vec<Entry>, Vec<u16>) {
    let mut entries = Vec::with_capacity(slots.len());
    let mut members = Vec::with_capacity(slots.len());
    for (slot, field) in slots {
        let wire = field.wire();
        let packable = field.label == Label::Repeated && wire != 2 && wire != 3;
        // Writers pack numbers, so the packed form is what comes; either form is followed by the next field, but the
        // single one more likely by another of the same.
        let forms: &[(u32, bool)] = match packable {
            true => &[(2, false), (wire, true)],
            false => &[(wire, matches!(field.label, Label::Repeated | Label::Map(_)))],
        };
        let after = entries.len() + forms.len();
        for (wire, again) in forms {
            let next = if *again { entries.len() } else { after };
            entries.push(Entry { tag: field.number << 3 | wire, slot: *slot as u16, next: next as u16 });
            members.push(field.oneof.map_or(NO_ONEOF, |oneof| oneof as u16));
        }
    }
    for entry in &mut entries {
        if members.get(usize::from(entry.next)) != Some(&NO_ONEOF) {
            entry.next = NO_GUESS;
        }
    }
    (entries, members)
}

fn column(field: &FieldShape, selection: &Selection, within: bool) -> Column {
    // What a list or a map holds is there, whatever it is in.
    let held = Nulls { itself: field.value.may_be_null(), within: false };
    match &field.label {
        Label::Repeated => {
            let wire = field.wire();
            let element = (wire != 2 && wire != 3).then_some(field.number << 3 | wire);
            Column::List(Box::new(List::new(value(&field.value, selection, held), element)))
        }
        Label::Map(key) => {
            let keys = scalar(*key, false);
            // Maps are read whole, but not when nothing of the field is read at all.
            let values = value(&field.value, &Selection::All, held);
            Column::Map(Box::new(Map::new(keys, key.wire(), values, field.value.wire())))
        }
        label => {
            let itself = *label == Label::Optional || field.value.may_be_null();
            value(&field.value, selection, Nulls { itself, within })
        }
    }
}

fn value(shape: &ValueShape, selection: &Selection, nulls: Nulls) -> Column {
    let nullable = nulls.itself;
    match shape {
        ValueShape::Scalar(kind) => scalar(*kind, nullable),
        ValueShape::Enum(numbers) => {
            Column::Enum(Fixed::new(numbers.default, nullable), Box::new(EnumNames::new(&numbers.names)))
        }
        ValueShape::Case { members, .. } => Column::Enum(Fixed::new(0, nullable), Box::new(EnumNames::new(members))),
        ValueShape::Wrapper(kind) => Column::Wrapper(Box::new(Wrapper::new(scalar(*kind, nullable), kind.wire()))),
        ValueShape::Timestamp => Column::Time(Box::new(Time::new(TimeKind::Timestamp, nullable))),
        ValueShape::Date => Column::Calendar(Box::new(Calendar::new(CalendarKind::Date, nullable))),
        ValueShape::TimeOfDay => Column::Calendar(Box::new(Calendar::new(CalendarKind::TimeOfDay, nullable))),
        ValueShape::JsonObject => Column::Json(Box::new(Json::new(JsonKind::Struct, nullable))),
        ValueShape::JsonValue => Column::Json(Box::new(Json::new(JsonKind::Value, nullable))),
        ValueShape::JsonList => Column::Json(Box::new(Json::new(JsonKind::List, nullable))),
        ValueShape::Duration => Column::Time(Box::new(Time::new(TimeKind::Duration, nullable))),
        // What is not NULL is there: an element, a map's value.
        ValueShape::Empty => Column::Empty(Fixed::new(!nullable, nullable)),
        ValueShape::Recursive | ValueShape::Unknown => Column::Raw(Variable::new(nullable)),
        ValueShape::Message(message) => Column::Message(Box::new(nested(message, selection, nulls))),
    }
}

fn scalar(kind: Scalar, nullable: bool) -> Column {
    match kind {
        Scalar::Bool => Column::Bool(Fixed::new(false, nullable)),
        Scalar::Int32 => Column::Int32(Fixed::new(0, nullable)),
        Scalar::Sint32 => Column::Sint32(Fixed::new(0, nullable)),
        Scalar::Sfixed32 => Column::Sfixed32(Fixed::new(0, nullable)),
        Scalar::Uint32 => Column::Uint32(Fixed::new(0, nullable)),
        Scalar::Fixed32 => Column::Fixed32(Fixed::new(0, nullable)),
        Scalar::Int64 => Column::Int64(Fixed::new(0, nullable)),
        Scalar::Sint64 => Column::Sint64(Fixed::new(0, nullable)),
        Scalar::Sfixed64 => Column::Sfixed64(Fixed::new(0, nullable)),
        Scalar::Uint64 => Column::Uint64(Fixed::new(0, nullable)),
        Scalar::Fixed64 => Column::Fixed64(Fixed::new(0, nullable)),
        Scalar::Float => Column::Float(Fixed::new(0.0, nullable)),
        Scalar::Double => Column::Double(Fixed::new(0.0, nullable)),
        Scalar::String => Column::Text(Variable::new(nullable)),
        Scalar::Bytes => Column::Bytes(Variable::new(nullable)),
    }
}

impl FieldShape {
    /// The wire type of the field: of one element, if it is repeated.
    fn wire(&self) -> u32 {
        match self.label {
            Label::Map(_) => 2,
            _ if self.group => 3,
            _ => self.value.wire(),
        }
    }
}

impl ValueShape {
    fn wire(&self) -> u32 {
        match self {
            ValueShape::Scalar(scalar) => scalar.wire(),
            ValueShape::Enum(_) => 0,
            _ => 2,
        }
    }
}

impl Scalar {
    fn wire(self) -> u32 {
        match self {
            Scalar::Sfixed32 | Scalar::Fixed32 | Scalar::Float => 5,
            Scalar::Sfixed64 | Scalar::Fixed64 | Scalar::Double => 1,
            Scalar::String | Scalar::Bytes => 2,
            _ => 0,
        }
    }
}
