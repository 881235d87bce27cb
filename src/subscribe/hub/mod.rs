//! Many subscribers of one table, and one read of each version.
//!
//! [`Hub::run`] looks for new versions and puts their rows as chunks into a ring of bounded size. Each subscriber has a
//! place in the history and a task that moves it: it filters the chunk at its place, takes the messages of the rows
//! that are wanted, which are encoded once for all subscribers of the same message, and puts them into a short queue.
//! At the head it waits for the next chunk. A subscriber whose place is no longer in the ring, or not yet, reads
//! version by version by itself until it is there.
//!
//! Nobody waits for a subscriber but its own task: the ring drops its oldest chunks whoever has not seen them, and a
//! queue that stays full longer than a limit ends the subscription with its cursor. Delivery is at least once; by the
//! cursors, which are the same whichever way a row was read, a client knows what it has.

mod chunk;
mod outlet;
mod pump;
mod reader;
mod registry;
mod ring;
mod signal;
mod state;
mod subscription;
mod table;
mod timer;

// On a clock that stands still.
#[cfg(test)]
#[cfg(feature = "faults")]
mod tests;

pub use self::outlet::Outlet;
pub use self::subscription::{Message, Subscription};
pub use self::table::Hub;
