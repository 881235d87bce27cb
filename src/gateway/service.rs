//! Which call goes where: the methods of the plan, health, reflection, and nothing else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header};
use prost_reflect::MessageDescriptor;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::access_log::CallRecord;
use super::activity::ConnectionInfo;
use super::call_body::CallBody;
use super::caller::{Caller, deadline, id_of_key, idempotency_key, start};
use super::calls::{self, Answers, Bounds};
use super::codec::RawCodec;
use super::principal::{Access, Principal};
use super::publishing::{Means, Publishing};
use super::rules::{Action, CallShape, GatewayPlan, MethodPlan, SubscribePlan};
use super::status;
use super::subscriber::Subscriber;
use super::validate::Validation;
use crate::clock::Clock;

/// Everybody may ask for this, so that a balancer needs no token.
const HEALTH: &str = "grpc.health.v1.Health";
/// This is answered also while the gateway shuts down.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// A service that is not of the plan: health or reflection.
pub(super) type ForeignService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What the methods are served with.
pub(super) struct Parts {
    pub(super) access: Access,
    pub(super) bounds: Bounds,
    pub(super) means: Means,
    pub(super) subscriber: Option<Arc<dyn Subscriber>>,
    /// Services by their full name.
    pub(super) foreign: HashMap<&'static str, ForeignService>,
    /// Bytes of one message.
    pub(super) message_bytes: usize,
}

/// The service behind a port. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gateway(Arc<Inner>);

struct Inner {
    methods: HashMap<Arc<str>, Arc<Method>>,
    parts: Parts,
}

/// A method of the plan, ready to be called.
struct Method {
    index: usize,
    shape: CallShape,
    publishing: Option<Arc<Publishing>>,
    subscribing: Option<Subscribing>,
}

/// How the requests of a method become rows.
struct Subscribing {
    plan: SubscribePlan,
    /// None on a call that publishes too.
    request: Option<Arc<Validation>>,
}

/// What messages are held against, once for each type.
#[derive(Default)]
struct Validations(HashMap<String, Arc<Validation>>);

impl Validations {
    fn of(&mut self, message: &MessageDescriptor, clock: &Arc<dyn Clock>) -> Arc<Validation> {
        let make = || Arc::new(Validation::new(message, Arc::clone(clock)));
        Arc::clone(self.0.entry(message.full_name().to_owned()).or_insert_with(make))
    }
}

impl Gateway {
    pub(super) fn new(plan: &GatewayPlan, parts: Parts) -> Self {
        let mut validations = Validations::default();
        let method = |(index, method): (usize, &MethodPlan)| {
            let path: Arc<str> = Arc::from(method.path.as_str());
            let publishing = method.publish().map(|plan| {
                let validation = validations.of(&plan.message, &parts.means.clock);
                Arc::new(Publishing::new(plan.clone(), Arc::clone(&path), validation, parts.means.clone()))
            });
            let is_alone = matches!(method.action, Action::Subscribe(_));
            let subscribing = method.subscribe().map(|plan| {
                let request = is_alone.then(|| validations.of(&plan.request, &parts.means.clock));
                Subscribing { plan: plan.clone(), request }
            });
            (path, Arc::new(Method { index, shape: method.shape, publishing, subscribing }))
        };
        let methods = plan.methods.iter().enumerate().map(method).collect();
        Self(Arc::new(Inner { methods, parts }))
    }
}

impl tower::Service<Request<Body>> for Gateway {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        async move { Ok(inner.respond(request).await) }.boxed()
    }
}

impl Inner {
    async fn respond(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let Some(connection) = request.extensions().get::<ConnectionInfo>().cloned() else {
            return Status::internal("the call has no connection").into_http();
        };
        let path = request.uri().path().to_owned();
        let method = self.methods.get(path.as_str()).cloned();
        let metrics = Arc::clone(&self.parts.means.metrics);
        let request_id: Arc<str> = Arc::from(self.parts.means.clock.new_id().to_string());
        let index = method.as_ref().map(|method| method.index);
        let mut record = CallRecord::start(metrics, connection.clone(), index, &path, Arc::clone(&request_id));
        if let Some(refusal) = not_grpc(&request) {
            return CallBody::wrap(refusal, record, None);
        }
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let principal = match self.admit(service, &path, &request, &connection) {
            Ok(principal) => principal,
            Err(status) => return CallBody::wrap(status.into_http(), record, None),
        };
        record.is_by(&principal.name);
        let (response, end) = match method {
            Some(method) => {
                let response = self.serve(method, request, principal, connection, &record, &request_id).await;
                (response, None)
            }
            None => match self.parts.foreign.get(service) {
                Some(foreign) => {
                    let Ok(response) = foreign.clone().oneshot(request).await;
                    let is_check = path == HEALTH_CHECK;
                    (response, (!is_check).then(|| self.parts.bounds.drain.signal()))
                }
                None => (Status::unimplemented(format!("there is no method {path:?} here")).into_http(), None),
            },
        };
        CallBody::wrap(with_id(response, &request_id), record, end)
    }

    /// Whether the call may be made, and by whom.
    fn admit(
        &self,
        service: &str,
        path: &str,
        request: &Request<Body>,
        connection: &ConnectionInfo,
    ) -> Result<Principal, Status> {
        let peer = connection.peer.ip().to_canonical();
        let principal = if service == HEALTH {
            Principal { name: Arc::from("anonymous"), rate: Arc::from(peer.to_string()) }
        } else {
            self.parts.access.check(path, request.headers(), connection.subject.as_ref(), peer)?
        };
        let bounds = &self.parts.bounds;
        if bounds.drain.is_on() && service != HEALTH {
            return Err(status::reconnect());
        }
        let wait = bounds.rates.take(&principal.rate, bounds.clock.now());
        wait.map_err(|wait| status::exhausted("too many calls; try again later", Some(wait)))?;
        Ok(principal)
    }

    async fn serve(
        self: &Arc<Self>,
        method: Arc<Method>,
        request: Request<Body>,
        principal: Principal,
        connection: ConnectionInfo,
        record: &CallRecord,
        request_id: &Arc<str>,
    ) -> Response<Body> {
        let headers = request.headers();
        let asked = deadline(headers).and_then(|deadline| Ok((deadline, idempotency_key(headers)?, start(headers)?)));
        let (deadline, idempotency_key, start) = match asked {
            Ok(asked) => asked,
            Err(status) => return status.into_http(),
        };
        let request_id = match &idempotency_key {
            Some(key) => Arc::from(id_of_key(request.uri().path(), &principal.name, key)),
            None => Arc::clone(request_id),
        };
        let caller = Caller {
            principal,
            peer: connection.peer.ip(),
            request_id,
            deadline,
            idempotency_key,
            follows: None,
            start,
            messages: record.messages(),
        };
        // One kind of call serves all: a unary one is a stream of one message, and looks the same to its client.
        Grpc::new(RawCodec)
            .max_decoding_message_size(self.parts.message_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .streaming(Handler { inner: Arc::clone(self), method, caller: Some(caller) }, request)
            .await
    }
}

/// One call of a method of the plan.
struct Handler {
    inner: Arc<Inner>,
    method: Arc<Method>,
    caller: Option<Caller>,
}

impl StreamingService<Bytes> for Handler {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let (inner, method, caller) = (Arc::clone(&self.inner), Arc::clone(&self.method), self.caller.take());
        async move {
            let caller = caller.ok_or_else(|| Status::internal("the call was made twice"))?;
            method.answers(&inner.parts, request.into_inner(), caller).await.map(tonic::Response::new)
        }
        .boxed()
    }
}

impl Method {
    async fn answers(&self, parts: &Parts, messages: Streaming<Bytes>, caller: Caller) -> Result<Answers, Status> {
        let bounds = parts.bounds.clone();
        let one = |answer: Bytes| futures::stream::iter([Ok(answer)]);
        match (&self.publishing, &self.subscribing) {
            (Some(publishing), None) => {
                let publishing = Arc::clone(publishing);
                Ok(match self.shape {
                    CallShape::Unary => Box::pin(one(calls::unary(publishing, messages, bounds, caller).await?)),
                    CallShape::ClientStreaming => {
                        Box::pin(one(calls::upload(publishing, messages, bounds, caller).await?))
                    }
                    _ => calls::bidirectional(publishing, messages, bounds, caller),
                })
            }
            (publishing, Some(subscribing)) => {
                let plan = &subscribing.plan;
                let subscriber = parts.subscriber.as_deref();
                let subscriber = subscriber
                    .ok_or_else(|| Status::unimplemented("this gateway serves no rows; it was started without them"))?;
                match publishing {
                    Some(publishing) => {
                        calls::track(Arc::clone(publishing), subscriber, plan, messages, bounds, caller).await
                    }
                    None => {
                        let check = |request: &[u8]| subscribing.check(request);
                        calls::rows(subscriber, plan, check, messages, bounds, caller).await
                    }
                }
            }
            (None, None) => Err(Status::unimplemented("the method has no rule")),
        }
    }
}

impl Subscribing {
    fn check(&self, request: &[u8]) -> Result<(), Status> {
        let Some(validation) = &self.request else { return Ok(()) };
        validation.decodes(request).and_then(|()| validation.keeps_rules(request)).map_err(status::refused)
    }
}

/// The refusal of what is no gRPC call.
fn not_grpc(request: &Request<Body>) -> Option<Response<Body>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_grpc = content_type.is_some_and(|content_type| {
        content_type
            .strip_prefix("application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    });
    let code = if request.method() != HttpMethod::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !is_grpc {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        return None;
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    Some(response)
}

fn with_id(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
