//! Where the rows of a subscription come from. The gateway's front only knows this trait.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tonic::Status;

use super::rules::SubscribePlan;
use crate::subscribe::Followed;

/// What a client asks for.
#[derive(Debug)]
pub enum Wants {
    /// The rows of a request, whose bytes decode as the plan's request and keep its rules.
    Request(Bytes),
    /// The rows of what it publishes on the same call.
    Own(Tracked),
}

/// What is known of a call that publishes and wants its rows.
#[derive(Debug)]
pub struct Tracked {
    /// The id with which those of its messages begin.
    pub request_id: Arc<str>,
    /// The keys of its records, each before it is published.
    pub keys: Arc<Followed>,
    /// Where to begin, as the client says it: as a request's `start`. None: with what comes from now on.
    pub start: Option<Arc<str>>,
}

/// The rows of a subscription, each as the bytes of a message. A call ends with its last row or its first error.
pub type Rows = BoxStream<'static, Result<Bytes, Status>>;

/// Gives the rows of tables.
#[async_trait]
pub trait Subscriber: fmt::Debug + Send + Sync {
    /// The rows that a client wants. When the gateway shuts down it drops them and tells the client to reconnect.
    ///
    /// # Errors
    /// The status with which the call ends.
    async fn subscribe(&self, plan: &SubscribePlan, wants: Wants) -> Result<Rows, Status>;

    /// The gateway shuts down: all rows end, each with the place where its client goes on. Those that do not end are
    /// ended soon after.
    fn drain(&self) {}
}
