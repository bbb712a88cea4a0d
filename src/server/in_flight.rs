//! Requests in work, counted and capped: past the cap a request is refused at once instead of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count of requests in work.
#[derive(Debug)]
pub struct InFlight {
    limit: usize,
    count: AtomicUsize,
}

impl InFlight {
    /// Room for `limit` requests.
    pub fn new(limit: usize) -> Self {
        Self { limit, count: AtomicUsize::new(0) }
    }

    /// A place for one request, if there is one left.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        if self.count.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Some(Place(Arc::clone(self)));
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Requests in work now.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// The place of a request in work; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<InFlight>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lim9_a_full_house_refuses_until_somebody_leaves() {
        let in_flight = Arc::new(InFlight::new(2));
        let first = in_flight.enter().unwrap();
        let _second = in_flight.enter().unwrap();
        assert!(in_flight.enter().is_none());
        assert!(in_flight.enter().is_none());
        drop(first);
        assert!(in_flight.enter().is_some());
        assert_eq!(in_flight.count(), 1);
    }
}
