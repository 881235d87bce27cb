//! Everything that is tested through the library's surface or the real binary: one binary, since each one links
//! DataFusion again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod ads;
mod allocations;
mod binary;
mod broker;
mod cases;
mod chance;
mod close;
mod cluster;
mod command_line;
mod conditions;
mod corpus;
mod crash_matrix;
mod dead_letters;
mod delta;
mod diff;
mod disk;
mod docs;
mod exactly_once;
mod faults;
mod faulty_proxy;
mod fencing;
mod gateway;
mod log_conformance;
mod lookups;
mod main_job;
mod memory;
mod models;
mod parquet_sink;
mod quarantine;
mod record;
mod recordings;
mod registry_server;
mod replay;
mod s3;
mod schema_registry;
mod secrets;
mod secure_broker;
mod simulation;
mod tidy;
mod topics;
mod upkeep;
mod versions;

// What the fuzzer's targets name as `crate::…`.
use flumen::decode;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
