//! One request and its answer, seen from the connection: a panic becomes an answer, and a body that was not read to
//! its end closes the connection, so that its rest can never be taken for a request.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, Response, Version};

use super::body::Upload;
use super::drain::Drain;
use super::tally::Tally;
use super::{Handler, Peer};

/// Answers one request.
pub(super) async fn answer<H: Handler>(
    handler: Rc<H>,
    request: Request<Incoming>,
    peer: Peer,
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
        (upload, reading) = Upload::new(incoming);
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

/// A future panicked; the hook has told what there is to tell.
#[derive(Debug)]
pub(super) struct Panicked;

/// What `future` gives, unless it panics.
pub(super) fn caught<F: Future>(mut future: Pin<&mut F>) -> impl Future<Output = Result<F::Output, Panicked>> {
    // Nothing is used after a panic but what the future shares with others, and their locks say if they are poisoned.
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
}
