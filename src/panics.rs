//! A panic of one future, made an outcome like another: what shares the task with it goes on.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// A future panicked; the hook has told what there is to tell.
#[derive(Debug)]
pub(crate) struct Panicked;

/// What `future` gives, unless it panics.
pub(crate) fn caught<F: Future>(mut future: Pin<&mut F>) -> impl Future<Output = Result<F::Output, Panicked>> {
    // Nothing is used after a panic but what the future shares with others, and their locks say if they are poisoned.
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
}
