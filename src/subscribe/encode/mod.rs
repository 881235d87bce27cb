//! From Arrow columns to protobuf on the wire, without a message object in between: the decoder's table backwards.
//!
//! An [`Encoder`] is a plan that is made once from a table's schema and a message's descriptor: for each field the
//! column of its name and how its values are written. For each batch the columns are looked up once; then each row is a
//! walk over the plan that appends to one buffer.
//!
//! | column | field |
//! |---|---|
//! | `BOOLEAN` | `bool`; a message without fields, which is there when it is true |
//! | a whole number of any width, `DECIMAL(p, 0)` | any whole number, if the value fits; an enum, by number |
//! | the same, as microseconds | `google.protobuf.Duration`, `google.type.TimeOfDay` |
//! | `INT` and smaller | `double` too |
//! | `FLOAT` | `float`, `double` |
//! | `DOUBLE` | `double` |
//! | `VARCHAR` | `string`; an enum, by name, or by the digits of a number that has none |
//! | the same, as JSON | `google.protobuf.Struct`, `Value`, `ListValue` |
//! | `VARBINARY` | `bytes`; any message, as it is on the wire |
//! | `TIMESTAMP` of any unit | `google.protobuf.Timestamp`; `int64` as microseconds since 1970, rounded down |
//! | `DATE` | `google.type.Date` |
//! | `TIME` | `google.type.TimeOfDay`; `int64` as microseconds since midnight |
//! | interval (Duration) | `google.protobuf.Duration`; `int64` as microseconds |
//! | struct | message or group, field by field |
//! | list | `repeated`, packed where the field is |
//! | map | `map` |
//!
//! What fits a type fits its wrapper (`google.protobuf.Int32Value` and its kin). Views, large types and dictionaries
//! are read like their plain types. NULL is an absent field. A column without a field is left out. Two fields are not
//! the table's: [`CURSOR_FIELD`] and [`REPLACES_FIELD`].

mod arrays;
mod encoder;
mod fault;
mod field_writer;
mod form;
mod json;
mod mark;
mod plan;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use self::arrays::{Integers, Texts};
pub use self::encoder::Encoder;
pub use self::fault::PlanFault;
pub use self::mark::Mark;
pub use self::plan::EncodeOptions;
