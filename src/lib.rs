//! Flumen runs SQL pipelines over Kafka topics of protobuf and commits the results exactly once to Delta Lake.
//!
//! ```text
//!  pipeline file ──▶ pipeline ──▶ engine: one bounded plan for each micro-batch
//!                                   │
//!  Kafka topic ──▶ source ──▶ decode ──▶ SQL: join lookups, score with models ──▶ contract ──▶ sink ──▶ Delta table
//!  (protobuf)      bounded    wire →     (DataFusion over all cores)             columns,      one
//!                  ranges     Arrow                                              checks        commit
//! ```
//!
//! The modules stand here in the order in which data flows. `ARCHITECTURE.md` has the layers and the reasons.
#![deny(missing_docs)]

// What a pipeline file says.
pub mod pipeline;
pub mod schema;

// What flows through it.
pub mod decode;
pub mod lookup;
pub mod model;
pub mod registry;
pub mod source;

// What happens with it, and where it goes.
pub mod cases;
pub mod close;
pub mod compare;
pub mod contract;
pub mod engine;
pub mod gateway;
pub mod record;
pub mod replay;
pub mod sink;
pub mod subscribe;

// What all of it stands on.
pub mod clock;
pub mod content;
pub mod error;
pub mod fault_point;
pub mod kafka;
pub mod memory;
pub mod observe;
pub mod offsets;
pub mod storage;

// Who calls it.
pub mod cli;
