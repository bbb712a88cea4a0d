//! A panic of one future or call, made an outcome like another: what shares the task with it goes on.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::Poll;
use std::thread;

use tracing::debug;

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

/// What `call` gives, unless it panics. A library's way to say that a file is damaged is told by whoever made the call, in
/// words for its operator, so the hook is silent about a panic of this thread meanwhile.
pub(crate) fn quietly<T>(call: impl FnOnce() -> T) -> thread::Result<T> {
    MUTED.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |told| if IS_QUIET.get() { debug!("{told}") } else { tell(told) }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    IS_QUIET.set(was_quiet);
    done
}

/// The hook is one for the whole process, and so is whether it is ours.
static MUTED: Once = Once::new();

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_call_itself_is_quiet_and_only_on_its_thread() {
        let seen = quietly(|| {
            let beside = thread::spawn(|| IS_QUIET.get()).join().unwrap();
            let inner = quietly(|| panic!("damaged")).is_err();
            (IS_QUIET.get(), beside, inner)
        });
        assert_eq!(seen.unwrap(), (true, false, true));
        assert!(!IS_QUIET.get());
        assert!(quietly(|| panic!("damaged")).is_err() && !IS_QUIET.get());
    }
}
