//! Flumen runs SQL pipelines over Kafka topics of protobuf and commits the results exactly once to Delta Lake.
#![deny(missing_docs)]

pub mod clock;
pub mod contract;
pub mod error;
pub mod offsets;
pub mod source;
