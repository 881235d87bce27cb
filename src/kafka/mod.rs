//! Kafka below the sources: what a client may be told, and a client that answers questions about a cluster. Records are
//! read in [`crate::source::kafka`].

mod client;
mod config;
mod presence;
mod refusal;

pub use client::{KNOWN_PATIENCE, KafkaClient, Watch, is_temporary};
pub use config::{KafkaConfig, check_property};
pub use presence::Presence;
pub use refusal::is_refusal;
