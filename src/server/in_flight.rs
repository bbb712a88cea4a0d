//! Requests in work, counted and capped: past the cap a request is refused at once instead of waiting.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places for requests in work, of all workers together.
#[derive(Debug)]
pub struct InFlight {
    /// Places that no worker has.
    free: AtomicUsize,
    /// How many a worker takes at a time.
    at_once: usize,
}

impl InFlight {
    /// Room for `limit` requests at so many workers.
    pub fn new(limit: usize, workers: usize) -> Self {
        // What they keep among them is at most twice this for each.
        let at_once = limit.checked_div(64 * workers).unwrap_or_default().min(MOST_AT_ONCE);
        Self { free: AtomicUsize::new(limit), at_once }
    }

    fn take(&self) -> Option<usize> {
        let wanted = self.at_once.max(1);
        let left = |free: usize| (free > 0).then(|| free.saturating_sub(wanted));
        let free = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).ok()?;
        Some(free.min(wanted))
    }

    fn give_back(&self, places: usize) {
        self.free.fetch_add(places, Ordering::Relaxed);
    }
}

/// One worker's places. It keeps a few that nobody is at, so that the processors do not take the count of all from each
/// other twice for each request. There are never more requests than places; some may be refused while other workers have
/// some, no more than a 32nd of all.
#[derive(Debug)]
pub struct Places {
    all: Arc<InFlight>,
    spare: Cell<usize>,
}

impl Places {
    /// A worker's, none yet.
    pub fn new(all: Arc<InFlight>) -> Rc<Self> {
        Rc::new(Self { all, spare: Cell::new(0) })
    }

    /// A place for one request, if there is one left.
    pub fn enter(self: &Rc<Self>) -> Option<Place> {
        let spare = match self.spare.get() {
            0 => self.all.take()?,
            spare => spare,
        };
        self.spare.set(spare - 1);
        Some(Place(Rc::clone(self)))
    }

    fn leave(&self) {
        let (spare, kept) = (self.spare.get() + 1, self.all.at_once);
        if spare > 2 * kept {
            self.all.give_back(spare - kept);
            self.spare.set(kept);
        } else {
            self.spare.set(spare);
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.all.give_back(self.spare.get());
    }
}

/// The place of a request in work; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Rc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The most that a worker takes at a time; it keeps twice as many at most.
const MOST_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lim9_a_full_house_refuses_until_somebody_leaves() {
        let all = Arc::new(InFlight::new(2, 2));
        let (here, there) = (Places::new(all.clone()), Places::new(all.clone()));
        let first = here.enter().unwrap();
        let _second = there.enter().unwrap();
        assert!(here.enter().is_none());
        assert!(there.enter().is_none());
        drop(first);
        assert!(there.enter().is_some());
        assert_eq!(all.free.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lim9_what_many_workers_keep_is_little() {
        for (limit, workers) in [(1, 1), (100, 2), (1024, 512), (16_384, 64), (1_000_000, 1024)] {
            let all = Arc::new(InFlight::new(limit, workers));
            let places: Vec<_> = (0..workers).map(|_| Places::new(all.clone())).collect();
            let burst: Vec<_> = places.iter().flat_map(|worker| [worker.enter(), worker.enter()]).collect();
            drop(burst);
            let of_one = std::iter::from_fn(|| places[0].enter()).collect::<Vec<_>>().len();
            assert!((limit - limit / 32..=limit).contains(&of_one), "{of_one} of {limit} at one of {workers}");
        }
    }

    #[test]
    fn lim9_there_are_never_more_requests_than_places_and_nearly_as_many() {
        const LIMIT: usize = 20_000;
        let all = Arc::new(InFlight::new(LIMIT, 3));
        let workers = [(); 3].map(|()| Places::new(all.clone()));
        let mut entered = Vec::new();
        for round in 0.. {
            let came: Vec<_> = workers.iter().filter_map(Places::enter).collect();
            if came.is_empty() {
                break;
            }
            entered.extend(came);
            assert!(entered.len() <= LIMIT);
            // Some leave meanwhile.
            entered.truncate(entered.len() - usize::from(round % 3 == 0));
        }
        assert!(entered.len() >= LIMIT - 2 * workers.len() * MOST_AT_ONCE, "{}", entered.len());
        entered.clear();
        assert!(all.free.load(Ordering::Relaxed) >= LIMIT - 2 * workers.len() * MOST_AT_ONCE);
        drop(workers);
        assert_eq!(all.free.load(Ordering::Relaxed), LIMIT);
    }
}
