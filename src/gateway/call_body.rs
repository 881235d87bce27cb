//! The body of a response, which knows how its call ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tonic::{Code, Status};

use super::access_log::CallRecord;
use super::status;

/// A response's body with the record of its call.
pub(super) struct CallBody {
    inner: Body,
    record: CallRecord,
    /// When the call has to end, whatever its service says.
    end: Option<BoxFuture<'static, ()>>,
    is_over: bool,
}

impl CallBody {
    /// The response of a call. With `end` the call is told to reconnect then.
    pub(super) fn wrap(
        response: Response<Body>,
        mut record: CallRecord,
        end: Option<BoxFuture<'static, ()>>,
    ) -> Response<Body> {
        record.end_by(response.headers());
        if !response.status().is_success() {
            record.end(Code::Unknown);
        }
        response.map(|inner| Body::new(CallBody { inner, record, end, is_over: false }))
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(end) = &mut self.end
            && end.poll_unpin(context).is_ready()
        {
            self.is_over = true;
            self.record.end(Code::Unavailable);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(status::reconnect())))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.end_by(trailers);
                }
            }
            Some(Err(status)) => {
                let code = status.code();
                self.record.end(code);
            }
            None => {
                self.is_over = true;
                self.record.end(Code::Ok);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }
}

/// A status as the trailers of a response.
fn trailers(status: Status) -> HeaderMap {
    let mut headers = status.into_http::<Body>().into_parts().0.headers;
    headers.remove(http::header::CONTENT_TYPE);
    headers
}
