//! What bounds the message of a call, its octets and its time, and how one that is none is told.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use super::pace::Who;
use super::places::Place;
use super::status::message_invalid;
use super::{BATCH_LEN_BYTES_MAX, BATCH_PATH, MESSAGE_LEN_BYTES_MAX, POLICY_PATH};

/// What stands before a message: whether it is compressed, and its length in four octets.
const PREFIX_LEN_BYTES: usize = 5;

/// A request that carries one message of bounded length, and carries it in time.
///
/// The server reads whatever comes after the message to the end. So the bound is on the whole: who
/// goes on sending after the message is cut off just as who sends it drop by drop.
pub(super) fn bounded(request: Request<Body>, time_max: Duration) -> Request<Body> {
    let is_long = [BATCH_PATH, POLICY_PATH].contains(&request.uri().path());
    let len_bytes_max = if is_long { BATCH_LEN_BYTES_MAX } else { MESSAGE_LEN_BYTES_MAX };
    let left_bytes = len_bytes_max.saturating_add(PREFIX_LEN_BYTES);
    let overdue = Box::pin(tokio::time::sleep(time_max));
    request.map(|body| Body::new(Bounded { body, left_bytes, overdue }))
}

struct Bounded {
    body: Body,
    left_bytes: usize,
    overdue: Pin<Box<Sleep>>,
}

impl HttpBody for Bounded {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if self.overdue.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(message_invalid(Code::InvalidArgument))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return Poll::Pending;
        };
        if let Some(Ok(frame)) = &frame {
            let len = frame.data_ref().map_or(0, prost::bytes::Bytes::len);
            match self.left_bytes.checked_sub(len) {
                Some(left) => self.left_bytes = left,
                None => return Poll::Ready(Some(Err(message_invalid(Code::InvalidArgument)))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that holds the place of its call until it has left.
pub(super) fn held(body: Body, place: Option<Place<Who>>) -> Body {
    match place {
        Some(place) => Body::new(Held { body, _place: place }),
        None => body,
    }
}

struct Held {
    body: Body,
    _place: Place<Who>,
}

impl HttpBody for Held {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Gives the library's own refusals their reason, as each of ours has one.
///
/// The library answers before any of our code sees the message: it is too long, compressed, cut
/// short or of another type, or the path leads nowhere. It tells no reason, and blames itself for
/// what the caller sent. Where gRPC wants `UNIMPLEMENTED`, so that a client knows not to compress
/// or not to ask again, it stays.
pub(super) fn explained(mut response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let is_ours = !status.details().is_empty();
    let code = match status.code() {
        Code::Internal | Code::OutOfRange if !is_ours => Code::InvalidArgument,
        Code::Unimplemented if !is_ours => Code::Unimplemented,
        _ => return response,
    };
    let status = message_invalid(code);
    tracing::info!(%code, reason = "MESSAGE_INVALID", "refused");
    match status.add_header(response.headers_mut()) {
        Ok(()) => response,
        Err(_) => status.into_http(),
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(response: &Response<Body>) -> (Code, Option<String>) {
        let status = Status::from_header_map(response.headers()).expect("a status");
        let info = status.get_details_error_info();
        (status.code(), info.map(|info| info.reason))
    }

    #[test]
    fn what_the_library_refuses_gets_a_reason_and_what_is_ours_keeps_its_own() {
        let invalid = Some("MESSAGE_INVALID".to_owned());
        for (code, told) in [
            (Code::Internal, Code::InvalidArgument),
            (Code::OutOfRange, Code::InvalidArgument),
            (Code::Unimplemented, Code::Unimplemented),
        ] {
            let response = explained(Status::new(code, "theirs").into_http());
            assert_eq!(reason(&response), (told, invalid.clone()));
        }
        // A client's own time-out, a health service that knows no such service.
        for code in [Code::Cancelled, Code::NotFound] {
            let response = explained(Status::new(code, "theirs").into_http());
            assert_eq!(reason(&response), (code, None));
        }
        let ours = super::super::status::from_error(&crate::vault::Reason::Internal.into());
        let response = explained(ours.into_http());
        assert_eq!(reason(&response), (Code::Internal, Some("INTERNAL".to_owned())));
        let answer = explained(Response::new(Body::empty()));
        assert!(answer.headers().is_empty());
    }

    #[tokio::test]
    async fn a_message_is_bounded_in_octets_and_time() {
        let next = async |body: &mut Body| {
            std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
        };
        let body_of = |path: &str, body: axum::body::Body, time_max: Duration| {
            let request = Request::post(path).body(Body::new(body)).expect("a request");
            bounded(request, time_max).into_body()
        };
        let octets = |len: usize| tokio_stream::once(Ok::<_, Status>(vec![0; len]));
        let path = "/firstkey.v1.KeyService/GetKey";
        let time = Duration::from_secs(10);
        let whole = MESSAGE_LEN_BYTES_MAX + PREFIX_LEN_BYTES;
        for (path, len, is_taken) in [
            (path, whole, true),
            (path, whole + 1, false),
            (BATCH_PATH, whole + 1, true),
            (POLICY_PATH, whole + 1, true),
            (BATCH_PATH, BATCH_LEN_BYTES_MAX + PREFIX_LEN_BYTES + 1, false),
        ] {
            let mut body = body_of(path, axum::body::Body::from_stream(octets(len)), time);
            let taken = next(&mut body).await.expect("a frame").is_ok();
            assert_eq!(taken, is_taken, "{path} {len}");
        }
        let silent = tokio_stream::pending::<Result<Vec<u8>, Status>>();
        let time = Duration::from_millis(20);
        let mut body = body_of(path, axum::body::Body::from_stream(silent), time);
        let status = next(&mut body).await.expect("an end").expect_err("too late");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
