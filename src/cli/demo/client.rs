//! The demo's gateway and the client that calls it: impressions go in, scores come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::super::gateway::plan;
use super::publish::Records;
use crate::clock;
use crate::error::{Error, Result};
use crate::gateway::{KafkaPublisher, RawCodec, Server, ServerOptions, Services, Subscriber, Tables};
use crate::kafka::KafkaConfig;
use crate::schema::Descriptors;
use crate::storage::Storage;
use crate::subscribe::HubOptions;

/// Records that may be published and not yet read: the broker in this process keeps 5 MiB a partition.
const AHEAD: u64 = 15_000;
/// The pipeline makes the table with its first commit: so often is asked for its rows until then.
const AGAIN: Duration = Duration::from_millis(20);
const SERVICE: &str = "/ads.v1.ClickTrackService";

/// A gateway in this process; it ends when it is told to.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    descriptors: Descriptors,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<()>>,
}

impl Gateway {
    /// Serves the methods of `descriptors` on a free port of this machine; tables lie where `locate` says.
    pub(super) async fn start(
        brokers: &str,
        descriptors: Descriptors,
        locate: impl Fn(&str) -> String,
    ) -> Result<Self> {
        let plan = plan(&descriptors)?;
        let tables = Tables::open(&plan, locate, &Storage::new(), &HubOptions::default())?;
        let services = Services {
            publisher: Arc::new(KafkaPublisher::new(KafkaConfig::new(brokers, &[].into())?)?),
            subscriber: Some(Arc::new(tables) as Arc<dyn Subscriber>),
            clock: clock::system(),
        };
        let options = ServerOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        let server = Server::bind(options, &plan, descriptors.pool(), services).await?;
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.run(async move { drop(stopped.await) }));
        Ok(Self { address, descriptors, stop, server })
    }

    /// A client of it.
    pub(super) fn client(&self) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(|e| failed(&e.to_string()))?;
        Ok(Client { calls: Grpc::new(endpoint.connect_lazy()), descriptors: self.descriptors.clone() })
    }

    /// Lets it end what is under way.
    pub(super) async fn end(self) -> Result<()> {
        drop(self.stop);
        self.server.await.unwrap_or_else(|error| Err(failed(&error.to_string())))
    }
}

/// A client of the gateway.
#[derive(Clone)]
pub(super) struct Client {
    calls: Grpc<Channel>,
    descriptors: Descriptors,
}

impl Client {
    /// Sends impressions on one stream, never further ahead of the reader than the broker keeps; how many were
    /// acknowledged.
    pub(super) async fn publish(
        mut self,
        records: u64,
        made_up: Box<dyn Records>,
        read: watch::Receiver<(u64, u64)>,
    ) -> Result<u64> {
        let messages = stream::unfold((0, made_up, read), move |(number, mut made_up, mut read)| async move {
            if number == records || read.wait_for(|(done, _)| number < done + AHEAD).await.is_err() {
                return None;
            }
            let (mut key, mut value) = (Vec::new(), Vec::new());
            made_up.encode(number, None, &mut key, &mut value);
            Some((Bytes::from(value), (number + 1, made_up, read)))
        });
        let path = format!("{SERVICE}/AdTrackStream");
        let mut responses = self.call(&path, messages).await.map_err(|status| ended(&path, &status))?;
        let of = self.message("ads.v1.Response")?;
        let mut acknowledged = 0;
        while let Some(response) = responses.message().await.map_err(|status| ended(&path, &status))? {
            let response = DynamicMessage::decode(of.clone(), response).map_err(|e| failed(&e.to_string()))?;
            let code = response.get_field_by_name("code").and_then(|code| code.as_i32()).unwrap_or(0);
            if code != 0 {
                let why = response.get_field_by_name("message");
                return Err(failed(why.as_deref().and_then(Value::as_str).unwrap_or_default()));
            }
            acknowledged += 1;
        }
        Ok(acknowledged)
    }

    /// The first scores that are committed, from the beginning of the table, as JSON.
    pub(super) async fn scores(mut self, count: usize) -> Result<Vec<String>> {
        let mut request = DynamicMessage::new(self.message("ads.v1.ScoreRequest")?);
        request.set_field_by_name("start", Value::String("earliest".to_owned()));
        let request = Bytes::from(request.encode_to_vec());
        let path = format!("{SERVICE}/Scores");
        let of = self.message("ads.v1.ScoredImpression")?;
        let mut rows = loop {
            match self.call(&path, stream::iter([request.clone()])).await {
                Ok(rows) => break rows,
                Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(AGAIN).await,
                Err(status) => return Err(ended(&path, &status)),
            }
        };
        let mut scores = Vec::new();
        while scores.len() < count {
            let Some(row) = rows.message().await.map_err(|status| ended(&path, &status))? else { break };
            let row = DynamicMessage::decode(of.clone(), row).map_err(|e| failed(&e.to_string()))?;
            scores.push(serde_json::to_string(&row).map_err(|e| failed(&e.to_string()))?);
        }
        Ok(scores)
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor> {
        self.descriptors.message(name).ok_or_else(|| failed(&format!("there is no message {name}")))
    }

    async fn call(
        &mut self,
        path: &str,
        messages: impl futures::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        self.calls.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = path.parse().map_err(|_| Status::internal("no path"))?;
        Ok(self.calls.streaming(tonic::Request::new(messages), path, RawCodec).await?.into_inner())
    }
}

fn failed(why: &str) -> Error {
    Error::unavailable(format!("the demo's gateway: {why}; is the loopback interface up?"))
}

fn ended(path: &str, status: &Status) -> Error {
    failed(&format!("{path} ended with {}: {}", status.code(), status.message()))
}
