//! How many polls a worker has underway at once while it is busy: few. Of a burst of a thousand all would else go out
//! before the first answer is read, each on a connection of its own, and nothing of a poll would still be in the
//! processor's cache when its answer comes. A poll waits for its permit only while the worker has other work: once it
//! has none all go out, so that none is answered later for it.

use std::cell::Cell;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// One worker's limit of polls that are underway. It adapts: an upstream that answers slowly needs many of them for a
/// worker to be busy.
#[derive(Debug)]
pub(super) struct Concurrency {
    limit: Cell<usize>,
    free: Semaphore,
    /// How many polls wait for a permit.
    waiting: Cell<usize>,
    /// Somebody waits.
    called: Notify,
    /// How many polls have come, and how many were answered.
    came: Cell<u64>,
    ended: Cell<u64>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            limit: Cell::new(FEW),
            free: Semaphore::new(FEW),
            waiting: Cell::default(),
            called: Notify::new(),
            came: Cell::default(),
            ended: Cell::default(),
        }
    }
}

impl Concurrency {
    /// A permit for one poll: at once if there is one, else in the order in which they were asked for.
    pub(super) async fn permit(&self) -> Permit<'_> {
        self.came.set(self.came.get().wrapping_add(1));
        match self.free.try_acquire() {
            Ok(permit) => Permit { of: self, permit: Some(permit), has_waited: false },
            // Boxed, since it is rare and its state would make every poll's larger.
            Err(_) => Box::pin(self.wait()).await,
        }
    }

    async fn wait(&self) -> Permit<'_> {
        let _waiting = Waiting::begin(&self.waiting);
        self.called.notify_one();
        // Only a semaphore that was closed gives none, and nobody closes it.
        Permit { of: self, permit: self.free.acquire().await.ok(), has_waited: true }
    }

    /// Raises the limit whenever somebody waits and the worker has nothing else to do, or has had no answer for too
    /// long. It never ends.
    pub(super) async fn adapt(&self) {
        loop {
            self.called.notified().await;
            let mut in_vain = 0;
            // Of those that count as waiting some may have been given a permit just now.
            while self.waiting.get() > 0 && self.free.available_permits() == 0 {
                let (came, ended) = (self.came.get(), self.ended.get());
                // Everything that is ready now comes first, and what the sockets have meanwhile.
                yield_now().await;
                in_vain = if self.ended.get() == ended { in_vain + 1 } else { 0 };
                let is_idle = in_vain > 0 && self.came.get() == came;
                if is_idle || in_vain == PATIENCE {
                    in_vain = 0;
                    self.double();
                }
            }
        }
    }

    fn double(&self) {
        let more = self.limit.get().min(Semaphore::MAX_PERMITS.saturating_sub(self.limit.get()));
        self.free.add_permits(more);
        self.limit.set(self.limit.get().saturating_add(more));
    }
}

/// A poll that is underway, until this is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Concurrency,
    permit: Option<SemaphorePermit<'a>>,
    has_waited: bool,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Self { of, permit, has_waited } = self;
        of.ended.set(of.ended.get().wrapping_add(1));
        // It became free while somebody waited, so what a slow upstream needed is more than a busy worker needs.
        if *has_waited
            && of.limit.get() > FEW
            && let Some(permit) = permit.take()
        {
            permit.forget();
            of.limit.set(of.limit.get().saturating_sub(1));
        }
    }
}

/// Somebody who waits, also one whose client leaves meanwhile.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get().saturating_add(1));
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// As many keep a worker busy whose upstream answers at once; their memory fits the processor's nearest caches.
const FEW: usize = 16;
/// How often the worker may go round without an answer, up to 61 tasks each time, until more polls go out though it is busy
/// with those that come.
const PATIENCE: u32 = 64;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::{JoinHandle, spawn_local};

    use super::*;

    /// Runs a scene in a runtime like a worker's.
    fn scene(of: impl AsyncFnOnce(Rc<Concurrency>)) {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(of(Rc::default()));
    }

    fn with_adapting(polls: &Rc<Concurrency>) {
        let adapting = polls.clone();
        spawn_local(async move { adapting.adapt().await });
    }

    /// A poll that notes when it is underway, and is so until it is told to end.
    fn poll(
        polls: &Rc<Concurrency>,
        noted: &Rc<RefCell<Vec<usize>>>,
        number: usize,
        end: &Rc<Notify>,
    ) -> JoinHandle<()> {
        let (polls, noted, end) = (polls.clone(), noted.clone(), end.clone());
        spawn_local(async move {
            let _permit = polls.permit().await;
            noted.borrow_mut().push(number);
            end.notified().await;
        })
    }

    async fn settle() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    #[test]
    fn few_are_underway_and_who_waits_is_next_in_order_also_when_somebody_leaves() {
        scene(async |polls| {
            let (noted, end) = (Rc::default(), Rc::new(Notify::new()));
            let all: Vec<_> = (0..FEW + 4).map(|number| poll(&polls, &noted, number, &end)).collect();
            settle().await;
            assert_eq!(*noted.borrow(), (0..FEW).collect::<Vec<_>>());
            assert_eq!(polls.waiting.get(), 4);
            all[FEW + 1].abort();
            settle().await;
            assert_eq!(polls.waiting.get(), 3);
            for next in [FEW, FEW + 2, FEW + 3] {
                end.notify_one();
                settle().await;
                assert_eq!(noted.borrow().last(), Some(&next));
            }
            assert_eq!((polls.waiting.get(), polls.free.available_permits()), (0, 0));
            end.notify_waiters();
            settle().await;
            assert_eq!(polls.free.available_permits(), FEW);
        });
    }

    #[test]
    fn an_idle_worker_raises_the_limit_and_it_falls_again_by_those_that_waited() {
        scene(async |polls| {
            with_adapting(&polls);
            let (noted, end) = (Rc::default(), Rc::new(Notify::new()));
            let _all: Vec<_> = (0..100).map(|number| poll(&polls, &noted, number, &end)).collect();
            settle().await;
            assert_eq!(noted.borrow().len(), 100, "nobody waits for an upstream that is slow");
            assert_eq!(polls.limit.get(), 128);
            end.notify_waiters();
            settle().await;
            // Those that had to wait were most, and each took its permit with it.
            assert_eq!((polls.limit.get(), polls.free.available_permits()), (128 - (100 - FEW), 128 - (100 - FEW)));
        });
    }

    #[test]
    fn a_worker_that_is_always_busy_raises_it_after_a_while() {
        scene(async |polls| {
            with_adapting(&polls);
            let (noted, end) = (Rc::default(), Rc::new(Notify::new()));
            let _all: Vec<_> = (0..=FEW).map(|number| poll(&polls, &noted, number, &end)).collect();
            for _ in 0..PATIENCE / 2 {
                polls.came.set(polls.came.get() + 1);
                yield_now().await;
            }
            assert_eq!(noted.borrow().len(), FEW, "others come all the time");
            for _ in 0..PATIENCE {
                polls.came.set(polls.came.get() + 1);
                yield_now().await;
            }
            assert_eq!(noted.borrow().len(), FEW + 1);
        });
    }
}
