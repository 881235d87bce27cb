//! Kafka below the sources: what a client may be told, and a client that answers questions about a cluster. Records are
//! read in [`crate::source::kafka`].

mod client;
mod config;
mod presence;

pub use client::{KNOWN_PATIENCE, KafkaClient, Watch, is_refusal, is_temporary};
pub use config::{KafkaConfig, check_property};
pub use presence::Presence;
