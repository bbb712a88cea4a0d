//! Permits on one thread, given in the order in which they were asked for. Of a busy worker's polls every second one waits
//! for its own, and a semaphore that many threads may use takes a dozen locked instructions for that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// See the module's page.
#[derive(Debug)]
pub(super) struct Turns {
    /// None as long as somebody waits.
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Turn>>>,
}

/// Somebody who waits, or has just been given a permit.
#[derive(Debug, Default)]
struct Turn {
    is_given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turns {
    /// With so many permits.
    pub(super) fn new(free: usize) -> Self {
        Self { free: Cell::new(free), waiting: RefCell::default() }
    }

    /// Takes a permit, if there is one.
    pub(super) fn take(&self) -> bool {
        let free = self.free.get();
        self.free.set(free.saturating_sub(1));
        free > 0
    }

    /// Waits for a permit. Whoever leaves meanwhile takes none along.
    pub(super) fn wait(&self) -> Wait<'_> {
        let turn = Rc::<Turn>::default();
        match self.take() {
            true => turn.is_given.set(true),
            false => self.waiting.borrow_mut().push_back(Rc::clone(&turn)),
        }
        Wait { turns: self, turn: Some(turn) }
    }

    /// Gives so many permits, back or new ones: to whoever waits, the first one first.
    pub(super) fn give(&self, count: usize) {
        for given in 0..count {
            let Some(next) = self.waiting.borrow_mut().pop_front() else {
                return self.free.set(self.free.get().saturating_add(count - given));
            };
            next.is_given.set(true);
            if let Some(waker) = next.waker.take() {
                waker.wake();
            }
        }
    }

    /// How many permits nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.get()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }
}

/// Ready when a permit is given.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    turns: &'a Turns,
    /// None once its permit was taken.
    turn: Option<Rc<Turn>>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(turn) = self.turn.as_ref().filter(|turn| !turn.is_given.get()) {
            turn.waker.replace(Some(context.waker().clone()));
            return Poll::Pending;
        }
        self.turn = None;
        Poll::Ready(())
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        if turn.is_given.get() {
            self.turns.give(1);
        } else {
            self.turns.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn is_given(wait: Pin<&mut Wait<'_>>) -> bool {
        wait.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_permit_goes_to_the_first_who_is_still_there_and_none_is_lost() {
        let turns = Turns::new(1);
        assert!(turns.take() && !turns.take());
        let (first, mut second, mut third) = (turns.wait(), Box::pin(turns.wait()), Box::pin(turns.wait()));
        assert!(!is_given(second.as_mut()) && !is_given(third.as_mut()));
        turns.give(1);
        assert_eq!((turns.free(), turns.waiting()), (0, 2), "it is the first one's");
        drop(first);
        assert_eq!((turns.free(), turns.waiting()), (0, 1), "who left unserved has passed it on");
        assert!(!is_given(third.as_mut()) && is_given(second.as_mut()));
        drop(second);
        drop(third);
        assert_eq!((turns.free(), turns.waiting()), (0, 0), "who has it gives it back, who waited had none");
        turns.give(3);
        assert!(is_given(pin!(turns.wait())));
        assert_eq!(turns.free(), 2);
    }
}
