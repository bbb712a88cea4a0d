//! Numbers that every worker adds to, kept in stripes: a thread has one for itself, so that no two cores take a cache line
//! from each other for each request and nothing is locked; who asks for a sum reads all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// A row of numbers, all zero at first.
#[derive(Debug)]
pub(super) struct Stripes(Box<[Box<[AtomicU64]>]>);

impl Stripes {
    /// A row of `length` numbers.
    pub(super) fn new(length: usize) -> Self {
        let stripe = || (0..length + APART).map(|_| AtomicU64::new(0)).collect();
        Self((0..*STRIPES).map(|_| stripe()).collect())
    }

    /// Adds to the number at `place`. A sum wraps around, so to add `u64::MAX` takes one away.
    pub(super) fn add(&self, place: usize, amount: u64) {
        // A thread that ends may have given its stripe back already.
        let own = OWN.try_with(|own| own.0).unwrap_or(SHARED);
        let Some(number) = self.0.get(own).and_then(|stripe| stripe.get(place)) else { return };
        if own == SHARED {
            number.fetch_add(amount, Ordering::Relaxed);
        } else {
            // Nobody else writes here.
            number.store(number.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// The number at `place`.
    pub(super) fn sum(&self, place: usize) -> u64 {
        let numbers = self.0.iter().filter_map(|stripe| stripe.get(place));
        numbers.fold(0, |sum, number| sum.wrapping_add(number.load(Ordering::Relaxed)))
    }
}

/// The stripe of one thread, as long as that runs.
struct Own(usize);

impl Own {
    fn take() -> Self {
        Self(FREE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or(SHARED))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.0 != SHARED {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
        }
    }
}

thread_local!(static OWN: Own = Own::take());

/// The stripes that no thread has.
static FREE: LazyLock<Mutex<Vec<usize>>> = LazyLock::new(|| Mutex::new((SHARED + 1..*STRIPES).rev().collect()));
/// How many stripes there are: for a worker on each processor, for the few other threads that count, and one to share.
static STRIPES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from).min(MOST) + OTHERS + SHARED + 1);
/// The stripe of the threads for which none was left.
const SHARED: usize = 0;
const MOST: usize = 64;
const OTHERS: usize = 6;
/// What stands unused behind each stripe, so that the next one begins on another cache line.
const APART: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn what_many_threads_add_is_summed_and_taken_away_again() {
        let stripes = Stripes::new(2);
        // Twice, so that threads have the stripes of others that have ended.
        for round in 1..=2 {
            let (all, stripes_taken) = (Barrier::new(2 * *STRIPES), Mutex::new(Vec::new()));
            std::thread::scope(|scope| {
                for _ in 0..2 * *STRIPES {
                    scope.spawn(|| {
                        // Each has its stripe before the first one gives it back.
                        stripes_taken.lock().unwrap().push(OWN.with(|own| own.0));
                        all.wait();
                        (0..1_000).for_each(|_| stripes.add(1, 3));
                        (0..1_000).for_each(|_| stripes.add(1, u64::MAX));
                    });
                }
            });
            let mut sole = stripes_taken.into_inner().unwrap();
            sole.retain(|stripe| *stripe != SHARED);
            assert_eq!(sole.iter().collect::<HashSet<_>>().len(), sole.len(), "two threads write to one stripe");
            let threads = u64::try_from(2 * *STRIPES).unwrap();
            assert_eq!((stripes.sum(0), stripes.sum(1)), (0, round * threads * 2_000));
        }
        stripes.add(2 + APART, 1);
        assert_eq!(stripes.sum(2 + APART), 0, "there is no such place");
    }
}
