//! Any ledger, with its operations counted and timed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Admission, Lease, Ledger, LedgerError, Preview, Request, Step};
use crate::admission::headers::Standing;
use crate::admission::pace::Slot;
use crate::admission::rate::{Refusal, Taken};
use crate::bill::statement::Statement;
use crate::bill::tab::Totals;
use crate::bill::terms::Terms;
use crate::clock::Time;
use crate::jobs::book::{Bounds, Counts, Ended, Ends, Rank};
use crate::jobs::entry::{AttemptId, Caller, Created, Turn};
use crate::jobs::flight::{Flight, Progress};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, Page};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job};
use crate::request::client::Who;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::telemetry::labels::{LedgerOperation, LedgerResult};
use crate::telemetry::metrics::Metrics;

/// See the module's page.
pub struct ObservedLedger<L> {
    ledger: L,
    metrics: Arc<Metrics>,
}

impl<L: Ledger> ObservedLedger<L> {
    /// Counts what `ledger` does.
    pub const fn new(ledger: L, metrics: Arc<Metrics>) -> Self {
        Self { ledger, metrics }
    }

    fn observe<'a, T: Send + 'a>(&'a self, operation: LedgerOperation, step: Step<'a, T>) -> Step<'a, T> {
        Box::pin(async move {
            let begun = Instant::now();
            let done = step.await;
            let result = match &done {
                Ok(_) => LedgerResult::Ok,
                Err(LedgerError::Superseded) => LedgerResult::Conflict,
                Err(LedgerError::Unavailable) => LedgerResult::Error,
            };
            self.metrics.ledger(operation, result, begun.elapsed());
            done
        })
    }
}

impl<L: Ledger> Ledger for ObservedLedger<L> {
    fn hot(&self, fingerprint: &Fingerprint) -> Option<(Created, Duration)> {
        self.ledger.hot(fingerprint)
    }

    fn admit<'a>(&'a self, request: &'a Request) -> Step<'a, Admission> {
        self.observe(LedgerOperation::Admit, self.ledger.admit(request))
    }

    fn take_request<'a>(&'a self, who: &'a Who) -> Step<'a, Result<Standing, Refusal>> {
        self.ledger.take_request(who)
    }

    fn preview<'a>(&'a self, request: &'a Request) -> Step<'a, Preview> {
        self.ledger.preview(request)
    }

    fn sending(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.observe(LedgerOperation::Sending, self.ledger.sending(fingerprint, attempt))
    }

    fn accepted(&self, job: Arc<Job>, created: Created) -> Step<'_, Rank> {
        self.observe(LedgerOperation::Accepted, self.ledger.accepted(job, created))
    }

    fn unknown(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.observe(LedgerOperation::Unknown, self.ledger.unknown(fingerprint, attempt))
    }

    fn free(&self, fingerprint: Fingerprint, attempt: AttemptId, back: Option<Taken>) -> Step<'_, ()> {
        self.observe(LedgerOperation::Free, self.ledger.free(fingerprint, attempt, back))
    }

    fn doubted(&self, fingerprint: Fingerprint, attempt: AttemptId, caller: Caller) -> Step<'_, ()> {
        self.observe(LedgerOperation::Doubted, self.ledger.doubted(fingerprint, attempt, caller))
    }

    fn undelivered(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.observe(LedgerOperation::Undelivered, self.ledger.undelivered(fingerprint, attempt))
    }

    fn job<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        // One for each poll: counting it would cost more than it says.
        self.ledger.job(id)
    }

    fn job_anew<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        self.ledger.job_anew(id)
    }

    fn own<'a>(&'a self, id: &'a RequestId, owner: Owner, most: usize) -> Step<'a, Owned> {
        self.observe(LedgerOperation::Own, self.ledger.own(id, owner, most))
    }

    fn adopt(&self, job: Arc<Job>) -> Step<'_, Arc<Job>> {
        self.observe(LedgerOperation::Adopt, self.ledger.adopt(job))
    }

    fn turned(&self, job: Arc<Job>, turn: Turn, end: End) -> Step<'_, Ended> {
        self.observe(LedgerOperation::Turned, self.ledger.turned(job, turn, end))
    }

    fn watch_next(&self, quiet: Duration, most: usize) -> Step<'_, Vec<Arc<Job>>> {
        // Asked for once a second, mostly in vain.
        self.ledger.watch_next(quiet, most)
    }

    fn polled(&self, job: &Job) -> Time {
        self.ledger.polled(job)
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Step<'a, Page<JobLine, Cursor>> {
        self.observe(LedgerOperation::List, self.ledger.jobs(query))
    }

    fn entries<'a>(&'a self, query: &'a EntryQuery) -> Step<'a, Page<EntryLine, Fingerprint>> {
        self.observe(LedgerOperation::List, self.ledger.entries(query))
    }

    fn forget(&self, fingerprint: Fingerprint, force: bool) -> Step<'_, Forgotten> {
        self.observe(LedgerOperation::Forget, self.ledger.forget(fingerprint, force))
    }

    fn lease(&self) -> Option<Lease> {
        self.ledger.lease()
    }

    fn renew(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.ledger.renew(fingerprint, attempt)
    }

    fn tell(&self, fingerprint: Fingerprint, attempt: AttemptId, progress: Progress) -> Step<'_, ()> {
        self.ledger.tell(fingerprint, attempt, progress)
    }

    fn awaited(&self, attempt: AttemptId) -> Step<'_, bool> {
        self.ledger.awaited(attempt)
    }

    fn follow(&self, fingerprint: Fingerprint, attempt: AttemptId, flight: Arc<Flight>) -> Step<'_, ()> {
        self.ledger.follow(fingerprint, attempt, flight)
    }

    fn next_slot(&self, interval: Duration) -> Step<'_, Slot> {
        self.observe(LedgerOperation::Slot, self.ledger.next_slot(interval))
    }

    fn pause(&self, wait: Duration) -> Step<'_, ()> {
        self.observe(LedgerOperation::Slot, self.ledger.pause(wait))
    }

    fn now(&self) -> Time {
        self.ledger.now()
    }

    fn sweep(&self) {
        self.ledger.sweep();
    }

    fn is_well(&self) -> bool {
        self.ledger.is_well()
    }

    fn flush(&self) -> Step<'_, ()> {
        self.ledger.flush()
    }

    fn counts(&self) -> (Counts, usize) {
        self.ledger.counts()
    }

    fn statement(&self, top: usize) -> Step<'_, Statement> {
        self.ledger.statement(top)
    }

    fn totals(&self) -> Vec<(Arc<str>, Totals)> {
        self.ledger.totals()
    }

    fn ends(&self) -> Ends {
        self.ledger.ends()
    }

    fn hot_entries(&self) -> u64 {
        self.ledger.hot_entries()
    }

    fn reload(&self, bounds: Bounds, terms: Arc<Terms>) {
        self.ledger.reload(bounds, terms);
    }
}
