//! One connection: its handshake, its first bytes, its calls, its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::body::Body;
use tower::Service;

use super::activity::Activity;
use super::drain::Drain;
use super::limits::LimitOptions;

/// What an HTTP/2 client sends first.
const PREFACE: usize = 24;

/// The window that each HTTP/2 connection has from the start: it cannot be smaller.
const FIRST_WINDOW: u32 = 65_535;

/// So many streams that are not read fill the window of their connection: fewer do not hold up the others.
const STREAMS_TO_FILL: u32 = 8;

/// The largest window that HTTP/2 has.
const LARGEST_WINDOW: u32 = i32::MAX as u32;

/// How long a connection that is told to close may take for it.
const CLOSING: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By its client, or as it was told to.
    Closed,
    /// Too many of its calls were cancelled.
    Abused,
    /// It did not close in time.
    Late,
}

/// How HTTP is spoken on all connections.
pub(super) fn protocol(limits: &LimitOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake)
        .max_buf_size((limits.header_bytes as usize).max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(limits.local_resets)
        .initial_stream_window_size((limits.window_bytes / STREAMS_TO_FILL).clamp(FIRST_WINDOW, LARGEST_WINDOW))
        .initial_connection_window_size(limits.window_bytes.clamp(FIRST_WINDOW, LARGEST_WINDOW))
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive_answer);
    builder
}

/// Serves a connection until it ends.
pub(super) async fn serve<S, I>(
    stream: I,
    service: S,
    protocol: &Builder<TokioExecutor>,
    limits: &LimitOptions,
    activity: &Activity,
    drain: &Drain,
) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(Opening::new(stream, limits.handshake));
    let mut connection = pin!(protocol.serve_connection(stream, TowerToHyperService::new(service)));
    let mut drained = drain.signal();
    let mut abused = pin!(activity.is_abused());
    let mut tick = pin!(tokio::time::sleep(limits.idle));
    let (mut calls_before, mut is_closing) = (u64::MAX, false);
    loop {
        tokio::select! {
            // A fault of a client's bytes is its own, and the log has each call.
            _ = connection.as_mut() => return Ended::Closed,
            () = &mut abused => return Ended::Abused,
            () = &mut drained, if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
                tick.set(tokio::time::sleep(limits.drain));
            }
            () = &mut tick => {
                if is_closing {
                    return Ended::Late;
                }
                let (calls, is_busy) = activity.calls();
                if !is_busy && (calls == calls_before || calls == 0) {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    tick.set(tokio::time::sleep(CLOSING));
                } else {
                    tick.set(tokio::time::sleep(limits.idle));
                }
                calls_before = calls;
            }
        }
    }
}

/// A stream whose client has to send its first bytes in time.
struct Opening<I> {
    inner: I,
    /// None: they came.
    deadline: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl<I> Opening<I> {
    fn new(inner: I, within: Duration) -> Self {
        Self { inner, deadline: Some(Box::pin(tokio::time::sleep(within))), read: 0 }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Opening<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(deadline) = &mut self.deadline {
            let is_late = deadline.as_mut().poll(context).is_ready();
            self.read += buffer.filled().len().saturating_sub(before);
            if self.read >= PREFACE {
                self.deadline = None;
            } else if is_late {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Opening<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// The activity of a connection with these limits.
pub(super) fn activity(limits: &LimitOptions) -> Arc<Activity> {
    Arc::new(Activity::new(limits.cancelled))
}
