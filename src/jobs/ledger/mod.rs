//! Where entries, idempotency keys and job records are kept. One trait, so that a ledger that survives a restart is
//! another implementation and not another gateway; each method is one step of the protocol in `MONEY.md`.

pub mod hot;
pub mod disk;
pub mod local;
pub mod observed;
pub mod redis;
mod slots;

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::headers::Standing;
use crate::admission::pace::Slot;
use crate::admission::rate::{Refusal, Taken};
use crate::bill::statement::Statement;
use crate::bill::tab::{Charge, Totals};
use crate::bill::terms::{Exhausted, Left, Terms};
use crate::clock::Time;
use crate::jobs::book::{Ask, Bounds, Counts, Ended, Ends, Found, Rank};
use crate::jobs::entry::{AttemptId, Caller, Created, Turn};
use crate::jobs::flight::{Flight, Progress};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, Page};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job};
use crate::request::client::Who;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::upstream::outcome::{NotSent, Outcome};

/// How long an id in hand waits for the ledger before it is answered all the same (M8).
pub const WRITE_PATIENCE: Duration = Duration::from_secs(1);

/// How long prompts are looked up by the fingerprints' key before the one in use too (M9).
pub const KEYS_OVERLAP: Duration = Duration::from_secs(48 * 3600);

/// A step's result, when it comes.
pub type Step<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// Why a step was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The entry has gone on without this attempt: the compare-and-set was lost (M1).
    #[error("the entry is another attempt's")]
    Superseded,
    /// The ledger cannot be reached or written.
    #[error("the ledger is unavailable")]
    Unavailable,
}

/// What a replica may do on the strength of a claim in a ledger that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// `ledger.lease`: how long a claim stands without being renewed (M4).
    pub length: Duration,
    /// `ledger.send_by`: how long after the ledger was asked for `sending` the first byte may still leave (M3).
    pub send_by: Duration,
}

/// A submission that asks to be admitted.
#[derive(Debug)]
pub struct Request {
    /// What it asks of the entries.
    pub ask: Ask,
    /// Whose limits it counts in.
    pub who: Who,
    /// What it may cost, and whom.
    pub charge: Charge,
    /// Whether its `requests` were taken by an earlier admission of the same submission.
    pub charged: bool,
    /// Why it could not start an attempt, if it cannot.
    pub closed: Option<Closed>,
}

/// Why no attempt can start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The process is ending.
    Draining,
    /// `upstream.submissions` are on their way.
    Busy,
    /// The ledger cannot be written, so nothing may be bought (M8).
    Ledger,
}

/// What a submission gets: one decision (M24, M25).
#[derive(Debug)]
pub enum Verdict {
    /// The job, for that much longer.
    Hit(Created, Time),
    /// A place beside those who wait for an attempt.
    Join {
        /// The fingerprint of its entry.
        fingerprint: Fingerprint,
        /// The attempt; it may run in another replica.
        attempt: AttemptId,
    },
    /// Nothing, for so long: an outcome is unknown.
    Held(Duration),
    /// The idempotency key came with another body.
    KeyReused,
    /// A limit refused it.
    Limited(Refusal),
    /// A budget is used up, or as many jobs run as may.
    Exhausted(Exhausted),
    /// No room for another attempt.
    Closed(Closed),
    /// No room for another entry or job record.
    Full,
    /// The right, and the duty, to send it. What it took comes back if it is certainly not sent.
    Claimed(Taken),
}

/// What would become of a submission.
#[derive(Debug)]
pub struct Preview {
    /// What it would find.
    pub found: Found,
    /// The budget that would refuse a new job, if one would.
    pub exhausted: Option<Exhausted>,
    /// The limit on new jobs that would, if one would.
    pub limited: Option<Refusal>,
    /// What is left of the budgets it would count in.
    pub left: Vec<Left>,
}

/// A verdict, and how the limits stand after it.
#[derive(Debug)]
pub struct Admission {
    /// What the submission gets.
    pub verdict: Verdict,
    /// The limits that were asked, for the answer's `RateLimit`.
    pub standing: Standing,
}

/// The ledger.
pub trait Ledger: Send + Sync {
    /// A hit that is certain without asking further, and for how much longer. `None` says nothing: an eviction is no miss
    /// (M25).
    fn hot(&self, fingerprint: &Fingerprint) -> Option<(Created, Duration)>;

    /// Look-up, limits and claim in one step (M24).
    fn admit<'a>(&'a self, request: &'a Request) -> Step<'a, Admission>;

    /// Takes one of its `requests` for a submission that only asks what would become of it; a refusal takes nothing.
    fn take_request<'a>(&'a self, who: &'a Who) -> Step<'a, Result<Standing, Refusal>>;

    /// What would become of a submission; nothing is changed.
    fn preview<'a>(&'a self, request: &'a Request) -> Step<'a, Preview>;

    /// `claimed → sending`, before the first byte (M2).
    fn sending(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()>;

    /// The upstream gave an id.
    fn accepted(&self, job: Arc<Job>, created: Created) -> Step<'_, Rank>;

    /// Nobody knows whether the attempt was paid.
    fn unknown(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()>;

    /// The attempt made nothing. `back` holds what it took, if it was certainly not sent.
    fn free(&self, fingerprint: Fingerprint, attempt: AttemptId, back: Option<Taken>) -> Step<'_, ()>;

    /// A caller was told that the attempt's outcome is unknown (M14).
    fn doubted(&self, fingerprint: Fingerprint, attempt: AttemptId, caller: Caller) -> Step<'_, ()>;

    /// The waiter of a keyless attempt left before its answer was taken (M15).
    fn undelivered(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()>;

    /// The job of an id.
    fn job<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>>;

    /// The same, as it stands now: what this process remembers of a job may lack an owner that came to it elsewhere.
    fn job_anew<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        self.job(id)
    }

    /// From now on `owner` may see the job, if no more than `most` do beside the team it was made for; it lasts when
    /// this returns (M31). Who owns it already costs no write.
    fn own<'a>(&'a self, id: &'a RequestId, owner: Owner, most: usize) -> Step<'a, Owned>;

    /// Records a job that nobody here made, for whoever asked for it first (M31), and gives the job as it then stands:
    /// somebody else may have been first. It lasts when this returns.
    fn adopt(&self, job: Arc<Job>) -> Step<'_, Arc<Job>>;

    /// A poll has shown that a job's life came to a turn.
    fn turned(&self, job: Arc<Job>, turn: Turn, end: End) -> Step<'_, Ended>;

    /// At most `most` running jobs that nobody has polled for `quiet`, to be looked at by us (M23). Each is given once, and
    /// not again before its next look is due; so of the replicas that share a ledger one at a time looks at a job, and
    /// what it was given is its lease until then.
    fn watch_next(&self, quiet: Duration, most: usize) -> Step<'_, Vec<Arc<Job>>>;

    /// A client polls a job, so we need not look at it for a while. Told at each poll: it must cost next to nothing. A
    /// shared ledger tells the other replicas now and then. Gives the time that was noted.
    fn polled(&self, job: &Job) -> Time {
        let now = self.now();
        job.note_polled(now);
        now
    }

    /// A page of jobs, newest first, and of outcomes that are unknown. Nothing waits for a walk through all of them.
    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Step<'a, Page<JobLine, Cursor>>;
    /// A page of entries, by their fingerprint.
    fn entries<'a>(&'a self, query: &'a EntryQuery) -> Step<'a, Page<EntryLine, Fingerprint>>;
    /// An operator's wish: forgets what stands under a fingerprint, and the idempotency keys that lead there, so that the
    /// next identical prompt makes a new job. Where an attempt is on its way only with `force`.
    fn forget(&self, fingerprint: Fingerprint, force: bool) -> Step<'_, Forgotten>;

    /// The lease under which an attempt may begin to send; `None` where no other process shares the ledger (M4).
    fn lease(&self) -> Option<Lease> {
        None
    }

    /// Renews the lease of an attempt of this replica; its holder asks for it each third of [`Lease::length`], also when
    /// another attempt's entry lies over it by now.
    ///
    /// # Errors
    /// [`LedgerError::Superseded`] if the entry is another attempt's by now.
    fn renew(&self, _fingerprint: Fingerprint, _attempt: AttemptId) -> Step<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    /// Tells the waiters in other replicas how far an attempt of this one has come (M5, M25); never before the ledger's own
    /// write, and once more if it failed.
    fn tell(&self, _fingerprint: Fingerprint, _attempt: AttemptId, _progress: Progress) -> Step<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    /// Whether somebody in another replica waits for an attempt of this one (M6). Asked about once a second while nobody
    /// waits here, and once more before the send; an error counts as nobody.
    fn awaited(&self, _attempt: AttemptId) -> Step<'_, bool> {
        Box::pin(ready(Ok(false)))
    }

    /// Brings to `flight` what another replica tells of an attempt, until it has landed there; meanwhile the other
    /// replica sees that somebody waits (M6). An attempt of which nothing can be learned any more lands void, so that
    /// its waiters ask for admission again. The caller drops the step when all waiters have left.
    fn follow(&self, _fingerprint: Fingerprint, _attempt: AttemptId, flight: Arc<Flight>) -> Step<'_, ()> {
        flight.land(Arc::new(Outcome::NotSent(NotSent::Superseded)), self.now());
        Box::pin(ready(Ok(())))
    }

    /// Reserves the next slot of the upstream's pace that all replicas keep together, and `interval` behind it (M27). A slot
    /// that is not used is lost. Where no other process shares the ledger, each is now.
    fn next_slot(&self, _interval: Duration) -> Step<'_, Slot> {
        Box::pin(ready(Ok(Slot::default())))
    }

    /// No replica is given a slot for so long: the upstream said so (M27).
    fn pause(&self, _wait: Duration) -> Step<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    /// The time by which leases and holds are judged: with Redis its own, else this process's.
    fn now(&self) -> Time;

    /// Drops what time has ended.
    fn sweep(&self);

    /// Whether what it is told lasts.
    fn is_well(&self) -> bool;

    /// Waits until everything that was decided so far is written down.
    fn flush(&self) -> Step<'_, ()>;

    /// How many entries stand in each state, and how many jobs are running.
    fn counts(&self) -> (Counts, usize);

    /// What was spent in the day and the month of now, with the `top` users that spent most.
    fn statement(&self, top: usize) -> Step<'_, Statement>;

    /// What this process has seen of each team's money.
    fn totals(&self) -> Vec<(Arc<str>, Totals)>;

    /// How many jobs this process has seen end: each counts where its end was written first, and once.
    fn ends(&self) -> Ends;

    /// How many entries are in the hot cache.
    fn hot_entries(&self) -> u64;

    /// Applies the settings of a reload.
    fn reload(&self, bounds: Bounds, terms: Arc<Terms>);
}

pub use slots::SharedPace;

#[cfg(test)]
mod conformance;
