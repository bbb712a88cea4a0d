//! The count of one submission, shared by its request and by the paid attempt that may outlive it: the first to know
//! the outcome counts it; if nobody ever does, it counts as aborted. So *created* agrees with the bill also for
//! clients that left (`DESIGN.md` §5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::labels::SubmissionOutcome;
use super::metrics::Metrics;
use crate::error::Error;

/// One submission, to be counted exactly once. Clones stand for the same one.
#[derive(Clone)]
pub struct SubmissionCount(Arc<Count>);

struct Count {
    metrics: Arc<Metrics>,
    is_settled: AtomicBool,
    /// The request of it panicked: so it counts, unless its attempt says more.
    has_panicked: AtomicBool,
}

impl SubmissionCount {
    /// The count of a submission that has just begun.
    pub fn begin(metrics: &Arc<Metrics>) -> Self {
        Self(Arc::new(Count {
            metrics: Arc::clone(metrics),
            is_settled: AtomicBool::new(false),
            has_panicked: AtomicBool::new(false),
        }))
    }

    /// Counts it as this, unless it is counted already.
    pub fn settle(&self, outcome: SubmissionOutcome) {
        self.0.settle(outcome);
    }

    /// Its request panics: it counts as what that is answered with, unless an attempt of it comes to something.
    pub fn panicked(&self) {
        self.0.has_panicked.store(true, Ordering::Relaxed);
    }
}

impl Count {
    fn settle(&self, outcome: SubmissionOutcome) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            self.metrics.submissions.inc(outcome);
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let panicked = *self.has_panicked.get_mut();
        self.settle(if panicked {
            SubmissionOutcome::of_refusal(&Error::Internal)
        } else {
            SubmissionOutcome::Aborted
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(metrics: &Metrics) -> Vec<(&'static str, u64)> {
        let count = |outcome: &SubmissionOutcome| (outcome.name(), metrics.submissions.value(*outcome));
        SubmissionOutcome::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn inv10_the_first_who_knows_the_outcome_counts_it() {
        let metrics = Arc::new(Metrics::new("1").unwrap());
        let request = SubmissionCount::begin(&metrics);
        let attempt = request.clone();
        drop(request);
        assert_eq!(counted(&metrics), [], "the attempt may still say more");
        attempt.settle(SubmissionOutcome::Unknown);
        attempt.settle(SubmissionOutcome::Created);
        drop(attempt);
        assert_eq!(counted(&metrics), [("unknown", 1)]);
    }

    #[test]
    fn inv10_a_submission_of_which_nobody_knows_the_outcome_is_aborted() {
        let metrics = Arc::new(Metrics::new("1").unwrap());
        let request = SubmissionCount::begin(&metrics);
        drop(request.clone());
        assert_eq!(counted(&metrics), []);
        drop(request);
        assert_eq!(counted(&metrics), [("aborted", 1)]);
    }
}
