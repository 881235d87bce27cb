//! gRPC in: what a client sends is validated, stamped and published, as the options of the `.proto` say.
//!
//! [`plan`] makes a plan from descriptors, without any IO. [`Server`] serves it: each message goes on byte for byte,
//! but for the fields that the server stamps. Who puts records into topics ([`Publisher`]: [`KafkaPublisher`]) and who
//! gives rows ([`Subscriber`]: [`Tables`]) are handed in.

mod access_log;
mod activity;
mod call_body;
mod caller;
mod calls;
mod codec;
mod connection;
mod decodable;
mod drain;
mod idempotency;
mod kafka_publisher;
mod key;
mod limits;
mod memory_publisher;
mod metrics;
mod metrics_page;
mod principal;
mod publisher;
mod publishing;
mod queue;
mod recall;
mod response;
mod rules;
#[cfg(test)]
mod samples;
mod server;
mod service;
mod stamp;
mod status;
mod subscriber;
mod tables;
mod tls;
mod validate;
mod watched_files;
mod wire;

pub use codec::RawCodec;
pub use idempotency::{IdempotencyOptions, Recalling, Remembered};
pub use kafka_publisher::KafkaPublisher;
pub use key::Key;
pub use limits::LimitOptions;
pub use memory_publisher::{Behaviour, MemoryPublisher};
pub use metrics::Metrics;
pub use metrics_page::MetricsPage;
pub use publisher::{NoPublisher, Placed, PublishError, PublishErrorKind, Publisher, Record};
pub use queue::QueueOptions;
pub use recall::recall;
pub use response::ResponseLayout;
pub use rules::{Action, CallShape, GatewayPlan, MethodPlan, PublishPlan, RuleFault, SubscribePlan, plan};
pub use server::{Server, ServerOptions, Services};
pub use stamp::{StampField, StampKind};
pub use subscriber::{Rows, Subscriber, Tracked, Wants};
pub use tables::Tables;
pub use tls::TlsOptions;
