//! An HTTP/2 client that sends what no gRPC client would.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::harness::SERVICE;

/// A connection.
pub struct Http2 {
    pub requests: SendRequest<Bytes>,
    pub connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub http: StatusCode,
    pub headers: HeaderMap,
}

impl Reply {
    pub fn code(&self) -> Code {
        self.status().code()
    }

    pub fn message(&self) -> String {
        self.status().message().to_owned()
    }

    pub fn status(&self) -> Status {
        Status::from_header_map(&self.headers).expect("no status")
    }
}

/// A message as gRPC frames it.
pub fn frame(message: &[u8]) -> Bytes {
    framed(0, message.len() as u32, message)
}

pub fn framed(flag: u8, length: u32, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(length);
    bytes.put_slice(message);
    bytes.freeze()
}

/// Waits for all that comes back.
pub async fn reply(response: ResponseFuture) -> Reply {
    let (parts, mut body) = response.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let mut headers = parts.headers;
    headers.extend(body.trailers().await.unwrap().unwrap_or_default());
    Reply { http: parts.status, headers }
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Opens a call, whose messages are still to come.
    pub async fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{SERVICE}{path}") };
        let mut request = Request::post(format!("http://localhost{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        futures::future::poll_fn(|context| self.requests.poll_ready(context)).await.unwrap();
        self.requests.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// A call of those bytes.
    pub async fn call(&mut self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        let (response, mut sender) = self.open(path, headers).await;
        sender.send_data(body, true).unwrap();
        reply(response).await
    }

    /// A call that is reset at once.
    pub async fn reset(&mut self, path: &str) -> Result<(), h2::Error> {
        futures::future::poll_fn(|context| self.requests.poll_ready(context)).await?;
        let request =
            Request::post(format!("http://localhost{SERVICE}{path}")).header("content-type", "application/grpc");
        let (_response, mut sender) = self.requests.send_request(request.body(()).unwrap(), false)?;
        sender.send_reset(Reason::CANCEL);
        Ok(())
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
