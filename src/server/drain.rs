//! How the process ends, in phases that only go forward: serving, draining (everything is still accepted and served),
//! closing (no new connection, the open ones end after what they have in work), aborted (all is cut off).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing ends.
    Serving,
    /// Paid calls in flight are awaited; clients are told to go elsewhere next time.
    Draining,
    /// Nothing new is accepted.
    Closing,
    /// What is still open is cut off.
    Aborted,
}

/// The handle by which the phases are announced and awaited; clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<State>);

#[derive(Debug, Default)]
struct State {
    phase: AtomicU8,
    changed: Notify,
}

impl Drain {
    /// A handle in the phase of serving.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current phase: one atomic read.
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            2 => Phase::Closing,
            _ => Phase::Aborted,
        }
    }

    /// Whether the process is on its way to its end.
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Announces that the process drains.
    pub fn begin(&self) {
        self.enter(1);
    }

    /// Announces that nothing new is accepted.
    pub fn close(&self) {
        self.enter(2);
    }

    /// Cuts off what is still open: the deadline has passed, or somebody is in a hurry.
    pub fn abort(&self) {
        self.enter(3);
    }

    /// Waits for [`Drain::begin`] or a later phase.
    pub async fn begun(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits for [`Drain::abort`].
    pub async fn aborted(&self) {
        self.reached(Phase::Aborted).await;
    }

    /// Waits until `phase` or a later one is reached. The waker of the first poll is kept: a later poll must come
    /// from the same task, and then costs one atomic read.
    pub(super) async fn reached(&self, phase: Phase) {
        let mut changed = pin!(self.0.changed.notified());
        let mut registered_in = None;
        poll_fn(|context| {
            loop {
                let now = self.phase();
                if now >= phase {
                    return Poll::Ready(());
                }
                if registered_in == Some(now) {
                    return Poll::Pending;
                }
                // The phase is read once more after this, so that no change falls between reading and registering.
                changed.set(self.0.changed.notified());
                registered_in = changed.as_mut().poll(context).is_pending().then_some(now);
            }
        })
        .await;
    }

    fn enter(&self, phase: u8) {
        if self.0.phase.fetch_max(phase, Ordering::AcqRel) < phase {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward_and_wake_who_waits_for_them_or_for_less() {
        let drain = Drain::new();
        let waits: Vec<_> = [Phase::Draining, Phase::Closing, Phase::Aborted]
            .map(|phase| {
                let drain = drain.clone();
                tokio::spawn(async move { drain.reached(phase).await })
            })
            .into();
        tokio::task::yield_now().await;
        assert_eq!(drain.phase(), Phase::Serving);
        drain.begin();
        tokio::task::yield_now().await;
        assert_eq!(waits.iter().map(|wait| wait.is_finished()).collect::<Vec<_>>(), [true, false, false]);
        drain.close();
        drain.begin();
        tokio::task::yield_now().await;
        assert_eq!(drain.phase(), Phase::Closing);
        assert_eq!(waits.iter().map(|wait| wait.is_finished()).collect::<Vec<_>>(), [true, true, false]);
        drain.abort();
        for wait in waits {
            wait.await.unwrap();
        }
        drain.aborted().await;
    }
}
