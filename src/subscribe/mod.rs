//! gRPC out: the rows of a Delta table, version by version, as protobuf messages for many clients.
//!
//! A [`Hub`] reads each version of a table once for all its subscribers. A [`SubscribeMethod`] is what one method makes
//! of them: its request filters the rows and says where to begin, its response is what a row becomes.

mod cursor;
mod delta;
mod encode;
mod ending;
mod filter;
mod follow;
mod hub;
mod method;
mod metrics;
mod options;
mod start;
mod versions;
#[cfg(test)]
#[cfg(feature = "faults")]
mod versions_in_memory;

#[cfg(test)]
mod tests;

pub use cursor::{Cursor, CursorFault, Place, TableId};
pub use delta::DeltaVersions;
pub use encode::{EncodeOptions, PlanFault};
pub use ending::{Code, Ending};
pub use filter::{Filter, FilterPlan};
pub use follow::Followed;
pub use hub::{Hub, Message, Outlet, Subscription};
pub use method::{Follow, SubscribeMethod};
pub use metrics::Metrics;
pub use options::HubOptions;
pub use start::Start;
pub use versions::{ReadFault, RowStream, Rows, Versions};
