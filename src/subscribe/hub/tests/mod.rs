//! The hub on a table in memory, with the clock of tokio standing still while somebody works.

mod endings;
mod journeys;
mod limits;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::{Hub, Message, Outlet, Subscription};
use crate::subscribe::cursor::Cursor;
use crate::subscribe::encode::EncodeOptions;
use crate::subscribe::ending::Ending;
use crate::subscribe::filter::{Filter, FilterPlan};
use crate::subscribe::options::HubOptions;
use crate::subscribe::start::Start;
use crate::subscribe::tests::message_of;
use crate::subscribe::versions_in_memory::VersionsInMemory;

const RESULT: &str = "message M { int64 id = 1; string ad = 2; string cursor = 3; bool replaces = 4; }";
const REQUEST: &str =
    "message M { repeated string ad = 1; repeated int64 id = 2; string start = 3; string cursor = 4; }";

/// A table, its hub and the one method.
struct Stage {
    table: Arc<VersionsInMemory>,
    hub: Hub,
    outlet: Arc<Outlet>,
    message: MessageDescriptor,
    requests: FilterPlan,
    next_id: std::sync::atomic::AtomicI64,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ad", DataType::Utf8, true),
        Field::new("other", DataType::Int64, true),
    ]))
}

/// Rows with these ids; the ad of an id is `ad-<id % 10>`.
fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let ads = ids.clone().map(|id| format!("ad-{}", id % 10));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(StringArray::from_iter_values(ads)),
        Arc::new(Int64Array::from_iter(ids.map(|_| None::<i64>))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

impl Stage {
    /// With a hub that runs.
    fn new(options: HubOptions) -> Self {
        Self::on(Arc::new(VersionsInMemory::new("first")), options, RESULT)
    }

    fn on(table: Arc<VersionsInMemory>, options: HubOptions, result: &str) -> Self {
        let message = message_of(result);
        let outlet = Outlet::plan(&message, &schema(), EncodeOptions::default(), options.message_bytes).unwrap();
        let hub = Hub::new(table.clone(), options).unwrap();
        let running = hub.clone();
        tokio::spawn(async move { running.run().await });
        let requests = FilterPlan::plan(&message_of(REQUEST), &schema()).unwrap();
        Self { table, hub, outlet: Arc::new(outlet), message, requests, next_id: 0.into() }
    }

    /// Commits the next ids, in batches of these sizes.
    fn commit(&self, sizes: &[i64]) -> u64 {
        let batches = sizes.iter().map(|size| {
            let first = self.next_id.fetch_add(*size, std::sync::atomic::Ordering::Relaxed);
            (rows(first..first + size), false)
        });
        self.table.commit(batches.collect())
    }

    fn ads(&self, ads: &[&str]) -> Filter {
        let mut request = DynamicMessage::new(message_of(REQUEST));
        request.set_field_by_name("ad", Value::List(ads.iter().map(|ad| Value::String((*ad).into())).collect()));
        self.requests.filter(&request).unwrap()
    }

    async fn subscribe(&self, start: Start) -> Subscription {
        self.hub.subscribe(&self.outlet, Filter::default(), start).await.unwrap()
    }

    async fn refused(&self, start: Start) -> Ending {
        self.hub.subscribe(&self.outlet, Filter::default(), start).await.unwrap_err()
    }

    /// The id of a message, which must carry its own cursor.
    fn id(&self, message: &Message) -> i64 {
        let decoded = self.decode(message);
        let carried = decoded.get_field_by_name("cursor").unwrap();
        assert_eq!(carried.as_str().unwrap().parse::<Cursor>().unwrap(), message.cursor);
        decoded.get_field_by_name("id").unwrap().as_i64().unwrap()
    }

    fn decode(&self, message: &Message) -> DynamicMessage {
        DynamicMessage::decode(self.message.clone(), message.payload.clone()).unwrap()
    }

    /// The ids of the next messages.
    async fn ids(&self, subscription: &mut Subscription, count: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.id(&next(subscription).await.unwrap()));
        }
        ids
    }
}

/// The next message, or how the subscription ends.
async fn next(subscription: &mut Subscription) -> Result<Message, Ending> {
    let message = tokio::time::timeout(Duration::from_secs(600), subscription.next());
    message.await.expect("nothing comes").expect("a subscription ends with a status")
}

/// Nothing comes for a while.
async fn is_quiet(subscription: &mut Subscription) {
    let message = tokio::time::timeout(Duration::from_secs(2), subscription.next()).await;
    assert!(message.is_err(), "{message:?}");
}
