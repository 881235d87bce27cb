//! From `.proto` files to descriptors, and from a message's descriptor to Arrow columns.
//!
//! [`Descriptors`] holds what was compiled; [`columns`] names the Arrow type of each field. Both the columns and the
//! decoder's plan are made from one tree, [`MessageShape`], so that they cannot disagree.

mod arrow;
mod built_in;
mod compat;
mod descriptors;
mod edition_text;
mod editions;
mod fault;
#[cfg(test)]
pub(crate) mod random;
mod roots;
mod shape;
mod texts;

pub use self::arrow::columns;
pub use self::compat::{Change, Rule, changes};
pub use self::descriptors::Descriptors;
pub use self::fault::{ProtoFault, ProtoFaultKind};
pub use self::shape::{EnumShape, FieldShape, Label, MessageShape, Scalar, Shaping, UNKNOWN_FIELDS, ValueShape};
