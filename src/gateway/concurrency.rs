//! How many polls a worker has underway at once while it is busy: few. Of a burst of a thousand all would otherwise go out
//! before the first answer is read, each on a connection of its own, and nothing of a poll would still be in the
//! processor's cache when its answer comes. A poll waits for its permit only while others come or end all the time, and
//! where the upstream is slow no longer than [`PATIENCE`].

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::turns::Turns;

/// One worker's limit of polls that are underway. It adapts: an upstream that answers slowly needs many of them for a
/// worker to be busy.
#[derive(Debug)]
pub(super) struct Concurrency {
    limit: Cell<usize>,
    turns: Turns,
    /// Somebody waits.
    called: Notify,
    /// How many polls have come, and how many have ended.
    came: Cell<u64>,
    ended: Cell<u64>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            limit: Cell::new(FEW),
            turns: Turns::new(FEW),
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
        let has_waited = !self.turns.take();
        if has_waited {
            self.called.notify_one();
            self.turns.wait().await;
        }
        Permit { of: self, has_waited }
    }

    /// Raises the limit while somebody waits: at once if polls neither come nor end, so that the worker has little else to
    /// do, and soon if by those that end it would take too long until it is everybody's turn. It never ends.
    pub(super) async fn adapt(&self) {
        loop {
            self.called.notified().await;
            let mut since = (Instant::now(), self.ended.get());
            while self.is_short() {
                let (came, ended) = (self.came.get(), self.ended.get());
                // Everything that is ready now comes first, and what the sockets have meanwhile.
                yield_now().await;
                let is_idle = (self.came.get(), self.ended.get()) == (came, ended);
                if !is_idle && since.0.elapsed() < A_WHILE {
                    continue;
                }
                if self.is_short() && (is_idle || self.wait_after(since) > PATIENCE) {
                    self.double();
                }
                since = (Instant::now(), self.ended.get());
            }
        }
    }

    /// Whether somebody waits.
    fn is_short(&self) -> bool {
        self.turns.waiting() > 0
    }

    /// How long the last one in the line would wait, by how many have ended since.
    fn wait_after(&self, (begun, ended): (Instant, u64)) -> Duration {
        let ended = u32::try_from(self.ended.get().wrapping_sub(ended)).unwrap_or(u32::MAX);
        let waiting = u32::try_from(self.turns.waiting()).unwrap_or(u32::MAX);
        begun.elapsed().saturating_mul(waiting).checked_div(ended).unwrap_or(Duration::MAX)
    }

    fn double(&self) {
        let more = self.limit.get();
        self.limit.set(more.saturating_mul(2));
        self.turns.give(more);
    }
}

/// A poll that is underway, until this is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Concurrency,
    has_waited: bool,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Self { of, has_waited } = self;
        of.ended.set(of.ended.get().wrapping_add(1));
        // What a slow upstream needed may be more than a busy worker needs. It falls while polls wait for others, whose line
        // goes on meanwhile, and slowly in any case: what is still needed comes back in a moment.
        let one_in = if *has_waited { 2 } else { 4 };
        if of.ended.get().is_multiple_of(one_in) && of.limit.get() > FEW {
            of.limit.set(of.limit.get().saturating_sub(1));
        } else {
            of.turns.give(1);
        }
    }
}

/// As many keep a worker busy whose upstream answers at once; their memory fits the processor's nearest caches.
const FEW: usize = 16;
/// About the longest that a poll may have to wait for others, by how fast they end.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long it is watched how many polls end: long enough for many of an upstream that answers at once.
const A_WHILE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::task::Poll;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::{JoinHandle, spawn_local};
    use tokio::time::advance;

    use super::*;

    /// Runs a scene in a runtime like a worker's, in which time passes as it is told.
    fn scene(of: impl AsyncFnOnce(Rc<Concurrency>)) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build_local(LocalOptions::default())
            .unwrap();
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
            assert_eq!(polls.turns.waiting(), 4);
            all[FEW + 1].abort();
            settle().await;
            assert_eq!(polls.turns.waiting(), 3);
            for next in [FEW, FEW + 2, FEW + 3] {
                end.notify_one();
                settle().await;
                assert_eq!(noted.borrow().last(), Some(&next));
            }
            assert_eq!((polls.turns.waiting(), polls.turns.free()), (0, 0));
            end.notify_waiters();
            settle().await;
            assert_eq!(polls.turns.free(), FEW);
        });
    }

    #[test]
    fn an_idle_worker_raises_the_limit_as_far_as_needed_and_it_falls_again() {
        for (burst, raised) in [(FEW, 16), (17, 32), (32, 32), (33, 64), (100, 128)] {
            scene(async |polls| {
                with_adapting(&polls);
                let (noted, end) = (Rc::default(), Rc::new(Notify::new()));
                let _all: Vec<_> = (0..burst).map(|number| poll(&polls, &noted, number, &end)).collect();
                settle().await;
                assert_eq!(noted.borrow().len(), burst, "nobody waits for an upstream that is slow");
                assert_eq!(polls.limit.get(), raised);
                end.notify_waiters();
                settle().await;
                for number in 0..400 {
                    let one = poll(&polls, &noted, number, &end);
                    settle().await;
                    end.notify_one();
                    one.await.unwrap();
                }
                assert_eq!((polls.limit.get(), polls.turns.free()), (FEW, FEW), "after {burst}");
            });
        }
    }

    #[test]
    fn what_a_slow_upstream_needs_is_kept_as_long_as_it_is_used() {
        scene(async |polls| {
            with_adapting(&polls);
            let (noted, end) = (Rc::default(), Rc::new(Notify::new()));
            for number in 0..1_000 {
                _ = poll(&polls, &noted, number, &end);
                settle().await;
                if number >= 200 {
                    end.notify_one();
                    settle().await;
                }
                assert_eq!(noted.borrow().len(), number + 1);
            }
            assert!((200..=400).contains(&polls.limit.get()), "{}", polls.limit.get());
        });
    }

    #[test]
    fn a_busy_worker_raises_it_soon_if_polls_would_wait_too_long_and_else_not() {
        const MILLISECOND: Duration = Duration::from_millis(1);
        scene(async |polls| {
            let others = polls.clone();
            // Polls come all the time, so that the worker is never idle.
            spawn_local(poll_fn(move |context| {
                others.came.set(others.came.get() + 1);
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
            with_adapting(&polls);
            let (noted, end) = (Rc::default(), Rc::new(Notify::new()));
            let _all: Vec<_> = (0..200).map(|number| poll(&polls, &noted, number, &end)).collect();
            settle().await;
            // Sixteen in four milliseconds: the last one waits for less than PATIENCE.
            for turned in 1..=5 {
                advance(MILLISECOND * 4).await;
                (0..FEW).for_each(|_| end.notify_one());
                settle().await;
                assert_eq!((noted.borrow().len(), polls.limit.get()), (FEW * (turned + 1), FEW));
            }
            assert_eq!(polls.turns.waiting(), 104);
            // One in two milliseconds: it would wait for twice as long.
            for _ in 0..30 {
                advance(MILLISECOND * 2).await;
                end.notify_one();
                settle().await;
            }
            assert!(polls.turns.waiting() <= 50, "{} of 74 that would wait", polls.turns.waiting());
        });
    }
}
