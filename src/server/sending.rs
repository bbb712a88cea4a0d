//! Answers on the streams of HTTP/2, while clients have no room for them. hyper asks a body for its next piece only when
//! there is room for the last one, so whoever opens no window would keep what is behind the body, a connection of the
//! upstream's, for as long as they like. The task of such a stream fetches meanwhile what is short, and ends in time.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Handler;
use super::http2::Life;
use super::tally::Tally;
use crate::panics::caught;

/// Runs the streams of HTTP/2 connections on the thread of the connections.
pub(super) struct Streams<H: Handler> {
    tally: Arc<Tally>,
    write_timeout: Duration,
    /// The answer that the stream has come to that is polled just now.
    begun: Rc<RefCell<Option<Rc<Sending<H>>>>>,
}

impl<H: Handler> Streams<H> {
    /// Streams end whose clients have no room for anything for `write_timeout`.
    pub(super) fn new(tally: Arc<Tally>, write_timeout: Duration) -> Self {
        Self { tally, write_timeout, begun: Rc::default() }
    }

    /// An answer begins, on the stream that is polled just now.
    pub(super) fn begin(&self, body: H::Body, life: Rc<Life>) -> Followed<H> {
        let sending =
            Rc::new(Sending { body: RefCell::new(body), no_room_since: Cell::new(None), fetched: Cell::new(0), life });
        *self.begun.borrow_mut() = Some(Rc::clone(&sending));
        Followed(sending)
    }

    /// Runs a stream to its end; an answer that nobody takes ends it before.
    async fn run(self, stream: impl Future) {
        let mut stream = pin!(stream);
        let mut stream = pin!(caught(stream.as_mut()));
        let mut sending = None;
        let mut patience = None;
        let ran = poll_fn(|context| {
            let ran = stream.as_mut().poll(context);
            sending = self.begun.take().or_else(|| sending.take());
            let (Poll::Pending, Some(sending)) = (&ran, &sending) else { return ran.map_ok(drop) };
            ready!(sending.poll_given_up(&mut patience, self.write_timeout, context));
            Poll::Ready(Ok(()))
        });
        if caught(pin!(ran)).await.flatten().is_err() {
            self.tally.add_panic();
            tracing::error!("the answer of a request panicked: it was cut off");
        }
    }
}

impl<H: Handler> Clone for Streams<H> {
    fn clone(&self) -> Self {
        let Self { tally, write_timeout, begun } = self;
        Self { tally: Arc::clone(tally), write_timeout: *write_timeout, begun: Rc::clone(begun) }
    }
}

impl<H: Handler, F: Future + 'static> hyper::rt::Executor<F> for Streams<H> {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(self.clone().run(stream));
    }
}

/// An answer on its way, as hyper and the stream's task share it.
struct Sending<H: Handler> {
    body: RefCell<H::Body>,
    /// Since when hyper has had a piece and asked for no further one.
    no_room_since: Cell<Option<Instant>>,
    /// How many bytes of the body were fetched and wait.
    fetched: Cell<usize>,
    life: Rc<Life>,
}

impl<H: Handler> Sending<H> {
    /// Fetches what is short of an answer that the client has no room for. Ready when it had none for too long.
    fn poll_given_up(
        &self,
        patience: &mut Option<Pin<Box<Sleep>>>,
        write_timeout: Duration,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(since) = self.no_room_since.get() else { return Poll::Pending };
        let most = MOST_FETCHED.min(self.fetched.get() + MOST_FETCHED_OF_ALL.saturating_sub(self.life.fetched.get()));
        self.holds(H::fetch(&mut self.body.borrow_mut(), context, most));
        let deadline = since + write_timeout;
        let patience = patience.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if patience.deadline() != deadline {
            patience.as_mut().reset(deadline);
        }
        patience.as_mut().poll(context)
    }

    fn holds(&self, fetched: usize) {
        let before = self.fetched.replace(fetched);
        let others = self.life.fetched.get().saturating_sub(before);
        self.life.fetched.set(others.saturating_add(fetched));
    }
}

impl<H: Handler> Drop for Sending<H> {
    fn drop(&mut self) {
        self.holds(0);
    }
}

/// An answer's body as hyper has it. Its frames are signs of life.
pub(super) struct Followed<H: Handler>(Rc<Sending<H>>);

impl<H: Handler> Body for Followed<H> {
    type Data = <H::Body as Body>::Data;
    type Error = <H::Body as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let sending = &*self.0;
        let frame = Pin::new(&mut *sending.body.borrow_mut()).poll_frame(context);
        sending.no_room_since.set(frame.is_ready().then(|| sending.life.progress()));
        if sending.fetched.get() > 0 {
            sending.holds(0);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.borrow().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.borrow().size_hint()
    }
}

/// The most that is fetched of an answer that the client has no room for, in bytes: all of any answer about a job.
const MOST_FETCHED: usize = 64 << 10;
/// The same of all answers of one connection.
const MOST_FETCHED_OF_ALL: usize = 1 << 20;
