//! The rows of tables for the clients of methods that subscribe.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::rules::{GatewayPlan, MethodPlan, PublishPlan, SubscribePlan};
use super::stamp::StampKind;
use super::status::RETRY;
use super::subscriber::{Rows, Subscriber, Tracked, Wants};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::subscribe::{
    Code, DeltaVersions, EncodeOptions, Ending, Follow, Hub, HubOptions, Message, Metrics, PlanFault, Start,
    SubscribeMethod, Versions,
};

/// The trailing metadata with the place where a client goes on.
const CURSOR: &str = "flumen-cursor";

/// The tables that the methods of a plan subscribe to. Each is opened, and its methods are held against its columns,
/// when the first client asks for it: a pipeline may make it later.
pub struct Tables {
    tables: BTreeMap<String, Table>,
}

/// One table.
struct Table {
    versions: Arc<DeltaVersions>,
    hub: Hub,
    /// Reads new versions, as long as there are subscribers.
    reader: JoinHandle<()>,
    methods: Vec<Asked>,
    message_bytes: usize,
    /// The methods, as they were held against the columns last.
    ready: Mutex<Option<Ready>>,
}

/// A method that asks for the rows of a table.
struct Asked {
    plan: SubscribePlan,
    /// By what the rows of what it publishes may be found, when it publishes.
    follow: Option<Vec<Follow>>,
}

/// Methods by their paths, or why they do not fit the columns.
struct Ready {
    schema: SchemaRef,
    methods: HashMap<String, std::result::Result<Arc<SubscribeMethod>, String>>,
}

impl Tables {
    /// The tables of `plan`, at their places as `locate` gives them. It must be called in a tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when a location is none, or a limit is 0.
    pub fn open(
        plan: &GatewayPlan,
        locate: impl Fn(&str) -> String,
        storage: &Storage,
        options: &HubOptions,
    ) -> Result<Self> {
        let mut by_table: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
        for method in plan.methods.iter().filter_map(Asked::of) {
            by_table.entry(method.plan.table.clone()).or_default().push(method);
        }
        let mut tables = BTreeMap::new();
        for (name, methods) in by_table {
            let versions = Arc::new(DeltaVersions::open(&locate(&name), storage)?);
            let hub = Hub::new(Arc::clone(&versions) as Arc<dyn Versions>, options.clone())?;
            let reading = hub.clone();
            let reader = tokio::spawn(async move { reading.run().await });
            let message_bytes = options.message_bytes;
            let table = Table { versions, hub, reader, methods, message_bytes, ready: Mutex::default() };
            tables.insert(name, table);
        }
        Ok(Self { tables })
    }

    /// What the hub of each table counts, in the text format of Prometheus.
    pub fn to_prometheus(&self) -> String {
        let hubs: Vec<(String, Metrics)> = self
            .tables
            .iter()
            .map(|(name, table)| (name.replace('\\', "\\\\").replace('"', "\\\""), table.hub.metrics()))
            .collect();
        let mut text = String::new();
        for (at, (name, only_grows, _)) in Metrics::default().named().into_iter().enumerate() {
            let kind = if only_grows { "counter" } else { "gauge" };
            let _ = writeln!(text, "# TYPE flumen_subscribe_{name} {kind}");
            for (table, metrics) in &hubs {
                let (_, _, value) = metrics.named()[at];
                let _ = writeln!(text, "flumen_subscribe_{name}{{table=\"{table}\"}} {value}");
            }
        }
        text
    }

    /// What is wrong with the methods of `plan` over tables whose columns are known; for `flumen check`.
    pub fn faults(plan: &GatewayPlan, columns: impl Fn(&str) -> Option<SchemaRef>) -> Vec<String> {
        let mut faults = Vec::new();
        for method in &plan.methods {
            let Some(asked) = Asked::of(method) else { continue };
            let Some(schema) = columns(&asked.plan.table) else { continue };
            if let Err(of) = planned(&asked, &schema, HubOptions::default().message_bytes) {
                faults.extend(of.iter().map(|fault| format!("{}: {fault}", method.path)));
            }
        }
        faults
    }
}

/// A method held against the columns of its table.
fn planned(method: &Asked, schema: &SchemaRef, bytes: usize) -> std::result::Result<SubscribeMethod, Vec<PlanFault>> {
    let SubscribePlan { request, row, .. } = &method.plan;
    match &method.follow {
        Some(follow) => SubscribeMethod::track(request, row, follow, schema, bytes),
        None => SubscribeMethod::plan(request, row, schema, EncodeOptions::default(), bytes),
    }
}

impl Asked {
    fn of(method: &MethodPlan) -> Option<Self> {
        let plan = method.subscribe()?.clone();
        Some(Self { plan, follow: method.publish().map(follow) })
    }
}

/// By what the rows of published messages may be found, best first.
fn follow(publish: &PublishPlan) -> Vec<Follow> {
    let stamps = publish.stamps.iter().filter(|stamp| stamp.kind == StampKind::RequestId);
    let ids = stamps.map(|stamp| Follow::RequestId(stamp.name.clone()));
    ids.chain(publish.key.as_ref().map(|key| Follow::Key(key.name().to_owned()))).collect()
}

impl Table {
    /// The method over the columns that the table has now.
    async fn method(&self, plan: &SubscribePlan) -> std::result::Result<Arc<SubscribeMethod>, Ending> {
        let failed = |error: Error| Ending::from(&error);
        let mut ready = self.ready.lock().await;
        let mut schema = self.versions.shape().await.map_err(failed)?.schema;
        let mut is_fresh = false;
        loop {
            let current = match &*ready {
                Some(current) if current.schema == schema => current,
                _ => ready.insert(self.planned(&schema)),
            };
            match current.methods.get(&plan.path) {
                Some(Ok(method)) => return Ok(Arc::clone(method)),
                // Columns may have come while nobody followed the table.
                Some(Err(_)) if !is_fresh => {
                    schema = self.versions.look_again().await.map_err(failed)?.schema;
                    is_fresh = true;
                }
                Some(Err(why)) => return Err(Ending::new(Code::FailedPrecondition, why.as_str())),
                None => return Err(Ending::new(Code::Internal, "the method is not one of this table")),
            }
        }
    }

    fn planned(&self, schema: &SchemaRef) -> Ready {
        let mut columns = BTreeSet::new();
        let mut methods = HashMap::new();
        for method in &self.methods {
            let planned = planned(method, schema, self.message_bytes);
            let planned = planned.map_err(|faults| {
                let name = self.versions.name();
                let error = PlanFault::together(&format!("table {name} does not have what the method gives"), &faults);
                error.message().to_owned()
            });
            if let Ok(method) = &planned {
                columns.extend(method.columns());
            }
            methods.insert(method.plan.path.clone(), planned.map(Arc::new));
        }
        self.versions.read_only(columns);
        Ready { schema: Arc::clone(schema), methods }
    }

    async fn rows(&self, plan: &SubscribePlan, wants: Wants) -> std::result::Result<Rows, Ending> {
        let method = self.method(plan).await?;
        let (filter, start) = match wants {
            Wants::Request(request) => method.read(&request)?,
            Wants::Own(Tracked { request_id, keys, start }) => {
                let prefix = format!("{request_id}-");
                let filter = method.of_stream(&prefix, &keys);
                let filter = filter.ok_or_else(|| Ending::new(Code::Internal, "the method follows nothing"))?;
                let start = start.map_or(Ok(Start::Latest), |start| start.parse());
                (filter, start.map_err(|error| Ending::new(Code::InvalidArgument, error.message()))?)
            }
        };
        let subscription = self.hub.subscribe(method.outlet(), filter, start).await?;
        Ok(subscription.map(|next| next.map(|Message { payload, .. }| payload).map_err(status)).boxed())
    }
}

#[async_trait]
impl Subscriber for Tables {
    async fn subscribe(&self, plan: &SubscribePlan, wants: Wants) -> std::result::Result<Rows, Status> {
        let table = self.tables.get(&plan.table);
        let table = table.ok_or_else(|| Status::internal("the table is not one of this gateway"))?;
        table.rows(plan, wants).await.map_err(status)
    }

    fn drain(&self) {
        self.tables.values().for_each(|table| table.hub.drain());
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.hub.drain();
        self.reader.abort();
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("tables", &self.tables.keys()).finish()
    }
}

/// The end of a subscription as gRPC says it, with the place where the client goes on.
fn status(ending: Ending) -> Status {
    let code = GrpcCode::from_i32(ending.code.number());
    let mut metadata = MetadataMap::new();
    if let Some(cursor) = ending.cursor
        && let Ok(cursor) = MetadataValue::try_from(cursor.to_string())
    {
        metadata.insert(CURSOR, cursor);
    }
    let mut details = ErrorDetails::new();
    if matches!(ending.code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(RETRY));
    }
    Status::with_error_details_and_metadata(code, ending.message, details, metadata)
}
