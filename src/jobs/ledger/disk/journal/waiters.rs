//! Those who wait for their change to be on the disk. Each is woken once, when its own commit is through: while many
//! submissions are on their way, most of them wait for the next one. The writer wakes each runtime once, and there a task
//! tells all who wait in it: on a runtime's own thread that costs no system call and no change of threads for each.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::jobs::ledger::LedgerError;

/// What somebody is told: that a change is kept, or that it is not.
type Told = Result<(), LedgerError>;

/// Who waits.
#[derive(Debug)]
struct Waiter {
    change: u64,
    /// Where it waits, if that is a runtime.
    runtime: Option<Handle>,
    tell: oneshot::Sender<Told>,
}

/// See the module's page. `None` once there is nobody who writes.
#[derive(Debug)]
pub(super) struct Waiters(Mutex<Option<Vec<Waiter>>>);

impl Default for Waiters {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Waiters {
    /// A place for who waits for a change. How far the writing has come is to be looked at once more after this.
    pub(super) fn join(&self, change: u64) -> oneshot::Receiver<Told> {
        let (tell, told) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        if let Some(waiting) = &mut *self.waiting() {
            waiting.push(Waiter { change, runtime, tell });
        }
        told
    }

    /// All changes up to this number are on the disk.
    pub(super) fn kept(&self, upto: u64) {
        let done = match &mut *self.waiting() {
            Some(waiting) => waiting.extract_if(.., |waiter| waiter.change <= upto).collect(),
            None => Vec::new(),
        };
        tell_all(done, Ok(()));
    }

    /// Writing has failed: whatever is not kept yet may never be.
    pub(super) fn failed(&self) {
        let all = self.waiting().as_mut().map(std::mem::take);
        tell_all(all.unwrap_or_default(), Err(LedgerError::Unavailable));
    }

    /// Nobody writes any more.
    pub(super) fn close(&self) {
        let all = self.waiting().take();
        tell_all(all.unwrap_or_default(), Err(LedgerError::Unavailable));
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Waiter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock, since it wakes. Who has left meanwhile is told nothing.
fn tell_all(mut all: Vec<Waiter>, told: Told) {
    while let Some(Waiter { runtime, tell, .. }) = all.pop() {
        let id = runtime.as_ref().map(Handle::id);
        let is_there = |waiter: &mut Waiter| waiter.runtime.as_ref().map(Handle::id) == id;
        let others: Vec<_> = all.extract_if(.., is_there).map(|waiter| waiter.tell).collect();
        let tell = move || others.into_iter().chain([tell]).for_each(|tell| _ = tell.send(told));
        match runtime {
            Some(runtime) => _ = runtime.spawn(async move { tell() }),
            None => tell(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[tokio::test]
    async fn each_is_told_of_its_own_change_and_who_has_left_keeps_nobody() {
        for left in 0..4 {
            let waiters = Waiters::default();
            let mut places: Vec<_> = (0..4).map(|_| waiters.join(1)).collect();
            let mut later = waiters.join(2);
            drop(places.remove(left));
            waiters.kept(1);
            for place in places {
                assert_eq!(place.await, Ok(Ok(())));
            }
            assert!(later.try_recv().is_err());
            waiters.failed();
            assert_eq!(later.await, Ok(Err(LedgerError::Unavailable)));
        }
    }

    #[tokio::test]
    async fn what_waits_in_one_runtime_waits_for_nobody_in_another() {
        let waiters = Waiters::default();
        // It does not run.
        let other = Builder::new_current_thread().build().unwrap();
        let elsewhere = {
            let _guard = other.enter();
            [waiters.join(1), waiters.join(1)]
        };
        let here = [waiters.join(1), waiters.join(1)];
        waiters.kept(1);
        for place in here {
            assert_eq!(place.await, Ok(Ok(())));
        }
        // Now it never will.
        other.shutdown_background();
        for place in elsewhere {
            assert!(place.await.is_err());
        }
    }

    #[test]
    fn who_waits_in_no_runtime_is_told_too() {
        let waiters = Waiters::default();
        let place = waiters.join(1);
        waiters.close();
        assert_eq!(place.blocking_recv(), Ok(Err(LedgerError::Unavailable)));
    }
}
