//! From protobuf on the wire to Arrow columns, without a message object in between.
//!
//! A [`Decoder`] is a plan that is compiled once from a message's descriptor and the fields that are wanted, together
//! with the columns that it fills. A record's bytes are walked once. Each tag is looked up in a small table, with a
//! guess at the field that came next the last time, and the value goes straight to the end of its column.
//!
//! Columns are filled lazily: a value is written at its row, and the rows in between get their default then, or at the
//! end. So absent fields cost nothing, a field that is seen twice is overwritten in place, a message that is seen twice
//! merges, and a record that turns out to be broken is undone by cutting each column back to the row.

mod array;
mod column;
mod cursor;
mod decoder;
mod fault;
mod framing;
mod oddities;
mod plan;
mod selection;
mod table;
mod vector;
mod wire;

#[cfg(test)]
mod tests;

pub use self::decoder::Decoder;
pub use self::fault::{DecodeFault, Reason, SchemaFault};
pub use self::framing::{Framed, message_path, unframe};
pub use self::oddities::Oddities;
pub use self::selection::Selection;
