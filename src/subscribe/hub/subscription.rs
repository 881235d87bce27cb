//! What a client's stream is made of.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{FutureExt as _, Stream};
use tokio::sync::{mpsc, oneshot};

use super::chunk::Parcel;
use crate::subscribe::cursor::{Cursor, TableId};
use crate::subscribe::ending::{Code, Ending};
use crate::subscribe::metrics::Counters;

/// One row as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message on the wire: shared with others that want the same row.
    pub payload: Bytes,
    /// The place behind the row.
    pub cursor: Cursor,
}

/// The messages of one subscriber. It ends with an error, always: a subscription has no end of its own. To drop it is
/// to unsubscribe.
#[derive(Debug)]
pub struct Subscription {
    parcels: mpsc::Receiver<Box<Parcel>>,
    /// Why it ends: read when all parcels are.
    ending: Option<oneshot::Receiver<Ending>>,
    current: Option<(Box<Parcel>, usize)>,
    table: TableId,
    counters: Arc<Counters>,
}

impl Subscription {
    pub(super) fn new(
        parcels: mpsc::Receiver<Box<Parcel>>,
        ending: oneshot::Receiver<Ending>,
        table: TableId,
        counters: Arc<Counters>,
    ) -> Self {
        Self { parcels, ending: Some(ending), current: None, table, counters }
    }

    /// The next message of the parcel at hand.
    fn at_hand(&mut self) -> Option<Message> {
        let (parcel, at) = self.current.as_mut()?;
        let found = parcel.message(*at);
        *at += 1;
        match found {
            Some((payload, place)) => {
                self.counters.rows_sent.add(1);
                Some(Message { payload, cursor: Cursor { table: self.table, place } })
            }
            None => {
                self.current = None;
                None
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Message, Ending>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.at_hand() {
                return Poll::Ready(Some(Ok(message)));
            }
            match self.parcels.poll_recv(context) {
                Poll::Ready(Some(parcel)) => self.current = Some((parcel, 0)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => break,
            }
        }
        let Some(ending) = self.ending.as_mut() else { return Poll::Ready(None) };
        let ending = futures::ready!(ending.poll_unpin(context));
        self.ending = None;
        let lost = || Ending::new(Code::Internal, "the subscription broke off; connect again with the last cursor");
        Poll::Ready(Some(Err(ending.unwrap_or_else(|_| lost()))))
    }
}
