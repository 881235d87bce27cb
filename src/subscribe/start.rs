//! Where a subscription begins, as its request says it.
//!
//! Three fields of a request are not filters but say where to begin:
//!
//! - `cursor`, a `string`: behind the row that carried this cursor. It wins over the other two, so that a client adds
//!   it to the request that it began with.
//! - `from_version`, a whole number: with the first row of this version. 0 is unset where the field has no presence:
//!   say `start: "0"` there.
//! - `start`, a `string`: `latest` (what is committed from now on, also when nothing is set), `earliest` (all that can
//!   still be read), a version in digits, or a cursor.
//!
//! `start` and `from_version` together are refused.

use std::str::FromStr;

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use crate::error::{Error, Result};
use crate::subscribe::cursor::Cursor;
use crate::subscribe::encode::PlanFault;

const START: &str = "start";
const CURSOR: &str = "cursor";
const FROM_VERSION: &str = "from_version";

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With what is committed from now on.
    #[default]
    Latest,
    /// With the oldest version that can still be read.
    Earliest,
    /// With the first row of this version.
    Version(u64),
    /// Behind this place.
    Cursor(Cursor),
}

/// Whether a field of a request says where to begin.
pub fn is_reserved(name: &str) -> bool {
    [START, CURSOR, FROM_VERSION].contains(&name)
}

/// What is wrong with the types of a request's reserved fields.
pub fn faults(request: &MessageDescriptor) -> Vec<PlanFault> {
    let mut faults = Vec::new();
    for field in request.fields().filter(|field| is_reserved(field.name())) {
        let is_number = matches!(
            field.kind(),
            Kind::Int32
                | Kind::Sint32
                | Kind::Sfixed32
                | Kind::Uint32
                | Kind::Fixed32
                | Kind::Int64
                | Kind::Sint64
                | Kind::Sfixed64
                | Kind::Uint64
                | Kind::Fixed64
        );
        let (fits, want) = match field.name() {
            FROM_VERSION => (is_number, "a whole number such as `uint64`"),
            _ => (field.kind() == Kind::String, "a `string`"),
        };
        if !fits || field.is_list() || field.is_map() {
            let name = field.name();
            let message =
                format!("`{name}` says where a subscription begins and has to be {want}; change its type or its name");
            faults.push(PlanFault::new(name, message));
        }
    }
    faults
}

impl Start {
    /// Where this request begins.
    ///
    /// # Errors
    /// `Invalid` when the text is none of the words, a cursor is damaged, or both ways of saying it are used.
    pub fn of_request(request: &DynamicMessage) -> Result<Self> {
        let set = |name: &str| -> Option<Value> {
            let has = request.has_field_by_name(name);
            has.then(|| request.get_field_by_name(name)).flatten().map(std::borrow::Cow::into_owned)
        };
        let text = |name: &str| set(name).and_then(|value| value.as_str().map(str::to_owned)).filter(|t| !t.is_empty());
        if let Some(cursor) = text(CURSOR) {
            return Ok(Start::Cursor(cursor.parse()?));
        }
        match (text(START), set(FROM_VERSION)) {
            (Some(_), Some(_)) => Err(Error::invalid("the request sets `start` and `from_version`: set one of them")),
            (Some(start), None) => start.parse(),
            (None, Some(version)) => match whole(&version) {
                Some(version) => Ok(Start::Version(version)),
                None => Err(Error::invalid("`from_version` is negative: versions begin with 0")),
            },
            (None, None) => Ok(Start::Latest),
        }
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::I32(value) => u64::try_from(*value).ok(),
        Value::I64(value) => u64::try_from(*value).ok(),
        Value::U32(value) => Some(u64::from(*value)),
        Value::U64(value) => Some(*value),
        _ => None,
    }
}

impl FromStr for Start {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "latest" => Ok(Start::Latest),
            "earliest" => Ok(Start::Earliest),
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .map(Start::Version)
                .map_err(|_| Error::invalid(format!("`start` is {digits}, and no version is that high"))),
            other => other.parse().map(Start::Cursor).map_err(|_| {
                Error::invalid(
                    "`start` is none of what it can be: say `latest`, `earliest`, a version in digits, or a cursor as \
                     a message carried it",
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::cursor::{Place, TableId};
    use crate::subscribe::tests::message_of;
    use prost_reflect::ReflectMessage as _;

    fn request(set: &[(&str, Value)]) -> DynamicMessage {
        let proto = "message M { string start = 1; string cursor = 2; int64 from_version = 3; string ad_id = 4; }";
        let mut request = DynamicMessage::new(message_of(proto));
        for (name, value) in set {
            request.set_field_by_name(name, value.clone());
        }
        request
    }

    #[test]
    fn a_request_says_where_to_begin() {
        let cursor = Cursor { table: TableId::of("t"), place: Place { version: 3, rows: 9 } };
        let start = |text: &str| ("start", Value::String(text.into()));
        let from = |version| ("from_version", Value::I64(version));
        let behind = ("cursor", Value::String(cursor.to_string()));
        for (set, want) in [
            (vec![], Start::Latest),
            (vec![start("")], Start::Latest),
            (vec![start("latest")], Start::Latest),
            (vec![start("earliest")], Start::Earliest),
            (vec![start("12")], Start::Version(12)),
            (vec![start(&cursor.to_string())], Start::Cursor(cursor)),
            (vec![from(4)], Start::Version(4)),
            (vec![start("earliest"), from(4), behind], Start::Cursor(cursor)),
        ] {
            assert_eq!(Start::of_request(&request(&set)).unwrap(), want);
        }
        for (set, want) in [
            (vec![start("soon")], "say `latest`, `earliest`, a version in digits, or a cursor"),
            (vec![start("99999999999999999999")], "no version is that high"),
            (vec![from(-1)], "`from_version` is negative"),
            (vec![start("latest"), from(1)], "set one of them"),
            (vec![("cursor", Value::String("xyz".into()))], "was cut or changed"),
        ] {
            let error = Start::of_request(&request(&set)).unwrap_err();
            assert!(error.message().contains(want), "{error}");
        }
    }

    #[test]
    fn reserved_fields_have_their_types() {
        let wrong = message_of("message M { int32 start = 1; repeated string cursor = 2; string from_version = 3; }");
        let faults = faults(&wrong);
        assert_eq!(
            faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(),
            ["start", "cursor", "from_version"]
        );
        assert!(faults[2].message.contains("a whole number"), "{}", faults[2]);
        assert!(super::faults(&request(&[]).descriptor()).is_empty());
    }
}
