//! One request and its answer, seen from the connection: a panic becomes an answer, and a body that was not read to
//! its end closes the connection, so that its rest can never be taken for a request.

use std::pin::pin;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, Response, Version};

use super::body::Upload;
use super::drain::Drain;
use super::http2::Life;
use super::tally::Tally;
use super::{Handler, Peer};
use crate::panics::{Panicked, caught};

/// Answers one request. What comes of its body is progress of the connection's `life`.
pub(super) async fn answer<H: Handler>(
    handler: Rc<H>,
    request: Request<Incoming>,
    peer: Peer,
    life: Option<Rc<Life>>,
    drain: &Drain,
    tally: &Tally,
) -> Response<H::Body> {
    let has_connection_header = request.version() <= Version::HTTP_11;
    let is_connect = request.method() == Method::CONNECT;
    let reading;
    let handling = pin!({
        // In a block of its own, so that the head is not held here as well.
        let (head, incoming) = request.into_parts();
        let upload;
        (upload, reading) = Upload::new(incoming, life);
        Rc::clone(&handler).handle(head, upload, peer)
    });
    let handled = caught(handling).await;
    let mut answer = handled.unwrap_or_else(|Panicked| {
        tally.add_panic();
        tracing::error!("a request panicked: it was answered with internal_error");
        handler.broken()
    });
    if has_connection_header && (reading.is_unread() || is_connect || drain.is_draining()) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
