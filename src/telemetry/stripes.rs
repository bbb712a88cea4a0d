//! Numbers that every worker adds to, kept in as many stripes as there are processors: a thread adds to its own, so that
//! no two cores take a cache line from each other for each request, and who asks for a sum reads all.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
        if let Some(number) = self.0.get(own()).and_then(|stripe| stripe.get(place)) {
            number.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// The number at `place`.
    pub(super) fn sum(&self, place: usize) -> u64 {
        let numbers = self.0.iter().filter_map(|stripe| stripe.get(place));
        numbers.fold(0, |sum, number| sum.wrapping_add(number.load(Ordering::Relaxed)))
    }
}

/// The stripe of this thread. Threads beyond the number of stripes share them.
fn own() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.get().unwrap_or_else(|| {
        let own = NEXT.fetch_add(1, Ordering::Relaxed) % *STRIPES;
        OWN.set(Some(own));
        own
    })
}

/// How many stripes there are: more than there are processors would separate nobody.
static STRIPES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MOST));
const MOST: usize = 64;
/// What stands unused behind each stripe, so that the next one begins on another cache line.
const APART: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_add_is_summed_and_taken_away_again() {
        let stripes = Stripes::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 * *STRIPES {
                scope.spawn(|| {
                    (0..1_000).for_each(|_| stripes.add(1, 3));
                    (0..1_000).for_each(|_| stripes.add(1, u64::MAX));
                });
            }
        });
        let threads = u64::try_from(2 * *STRIPES).unwrap();
        assert_eq!((stripes.sum(0), stripes.sum(1)), (0, threads * 2_000));
        stripes.add(2 + APART, 1);
        assert_eq!(stripes.sum(2 + APART), 0, "there is no such place");
    }
}
