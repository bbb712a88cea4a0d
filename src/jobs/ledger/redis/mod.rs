//! The ledger that many replicas share, in one Redis (`MONEY.md` M2–M5, M25, M26). A step is a unit of work: the few
//! records it touches are read into a small book, the book's own step is taken, and what it has changed is written in one
//! script if nothing has changed meanwhile. So the state machine is the same for all ledgers, and Redis only compares.

mod admit;
mod epoch;
mod failure;
mod filing;
mod hits;
mod late;
mod link;
mod list;
mod mirror;
mod names;
mod naming;
mod news;
pub mod open;
mod pace;
mod places;
mod preview;
mod room;
mod script;
mod seal;
mod shared;
mod statement;
mod upkeep;
mod watch;
mod work;

#[cfg(test)]
mod poisoned;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::late::Late;
use self::shared::{PLAIN, Shared};
use self::work::Wanted;
use super::{Admission, Lease, Ledger, LedgerError, Preview, Request, Step, Verdict};
use crate::admission::headers::Standing;
use crate::admission::pace::Slot;
use crate::admission::quota::Kind;
use crate::admission::rate::{Refusal, Taken};
use crate::bill::statement::Statement;
use crate::bill::tab::Totals;
use crate::bill::terms::Terms;
use crate::clock::Time;
use crate::jobs::book::{Bounds, Counts, Ended, Ends, Rank};
use crate::jobs::entry::{AttemptId, Caller, Created, State, Turn};
use crate::jobs::flight::{Flight, Progress};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, Page};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job};
use crate::request::client::Who;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

pub use failure::Failure;

/// See the module's page.
pub struct RedisLedger {
    shared: Arc<Shared>,
    /// Ends what goes on beside the requests.
    over: CancellationToken,
}

impl Drop for RedisLedger {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Ledger for RedisLedger {
    fn hot(&self, fingerprint: &Fingerprint) -> Option<(Created, Duration)> {
        // It decides nothing while Redis does (M25).
        if self.shared.link.is_well() { None } else { self.shared.hot.lasting(fingerprint, self.shared.time()) }
    }

    fn admit<'a>(&'a self, request: &'a Request) -> Step<'a, Admission> {
        Box::pin(async move {
            let admission = self.shared.admit(request).await;
            let ask = &request.ask;
            if admission.is_err() && !ask.asker.no_cache && ask.key.is_none() && ask.base.is_none() {
                let known = self.shared.hot.get(&ask.fingerprint, self.shared.time());
                if let Some((created, until)) = known {
                    let verdict = Verdict::Hit(created, until);
                    return Ok(Admission { verdict, standing: Standing::default() });
                }
            }
            if self.shared.estranged.load(Ordering::Relaxed) {
                return Err(LedgerError::Unavailable);
            }
            admission
        })
    }

    fn take_request<'a>(&'a self, who: &'a Who) -> Step<'a, Result<Standing, Refusal>> {
        Box::pin(self.shared.take_one(who, Kind::Requests, false))
    }

    fn preview<'a>(&'a self, request: &'a Request) -> Step<'a, Preview> {
        Box::pin(self.shared.preview(request))
    }

    fn sending(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        Box::pin(async move {
            let shared = &self.shared;
            let lease_end = AtomicU64::new(0);
            let length = shared.lease.length;
            let dress = |command: &mut script::Command| command.not_after = Some(lease_end.load(Ordering::Relaxed));
            let step = |book: &mut crate::jobs::book::Book, now: Time, bounds: &Bounds| {
                let own = book.entry_of(fingerprint, attempt).filter(|own| own.state == State::Claimed);
                let lease = own.and_then(|own| own.rest.lease).ok_or(LedgerError::Superseded)?;
                lease_end.store(lease.as_millis(), Ordering::Relaxed);
                book.sending(fingerprint, attempt, &bounds.windows).map_err(|_| LedgerError::Superseded)?;
                book.lease(fingerprint, attempt, Some(now + length), &bounds.windows);
                Ok(())
            };
            shared.unit(Wanted::attempt(fingerprint, attempt), &dress, step).await
        })
    }

    fn accepted(&self, job: Arc<Job>, created: Created) -> Step<'_, Rank> {
        Box::pin(async move {
            let (shared, late) = (self.shared.clone(), Late::Accepted(job.clone(), created.clone()));
            self.shared.see_through(late, async move { shared.accepted(&job, &created).await }).await
        })
    }

    fn unknown(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        Box::pin(async move {
            let owed = self.shared.owe(Late::Unknown(fingerprint, attempt));
            self.shared.unknown(fingerprint, attempt).await?;
            owed.written();
            Ok(())
        })
    }

    fn free(&self, fingerprint: Fingerprint, attempt: AttemptId, back: Option<Taken>) -> Step<'_, ()> {
        Box::pin(async move {
            let owed = self.shared.owe(Late::Free(fingerprint, attempt, back.map(Box::new)));
            self.shared.free(fingerprint, attempt, owed.taken()).await?;
            if let Some(Late::Free(_, _, Some(taken))) = owed.written() {
                self.shared.give_back_here(*taken);
            }
            Ok(())
        })
    }

    fn doubted(&self, fingerprint: Fingerprint, attempt: AttemptId, caller: Caller) -> Step<'_, ()> {
        Box::pin(self.shared.unit(Wanted::entry(fingerprint), PLAIN, move |book, now, bounds| {
            book.doubted(fingerprint, attempt, caller, now, &bounds.windows);
            Ok(())
        }))
    }

    fn undelivered(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        Box::pin(self.shared.unit(Wanted::entry(fingerprint), PLAIN, move |book, _, bounds| {
            book.undelivered(fingerprint, attempt, &bounds.windows);
            Ok(())
        }))
    }

    fn job<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        if let Some(job) = self.shared.jobs.get(id) {
            return Box::pin(std::future::ready(Ok(Some(job))));
        }
        Box::pin(self.shared.job(id))
    }

    fn job_anew<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        Box::pin(self.shared.job(id))
    }

    fn own<'a>(&'a self, id: &'a RequestId, owner: Owner, most: usize) -> Step<'a, Owned> {
        Box::pin(async move {
            // Owners only come, so who was one here is one everywhere.
            let known = self.shared.jobs.get(id);
            if known.as_ref().is_some_and(|job| job.is_of(&owner)) {
                return Ok(Owned::Already);
            }
            let wanted = Wanted { jobs: [id.clone()].into(), ..Wanted::default() };
            let owned = self.shared.unit(wanted, PLAIN, |book, _, _| Ok(book.own(id, owner.clone(), most))).await?;
            if let (Some(job), Owned::Already | Owned::News) = (known, owned) {
                job.note_owner(owner);
            }
            Ok(owned)
        })
    }

    fn adopt(&self, job: Arc<Job>) -> Step<'_, Arc<Job>> {
        Box::pin(async move {
            let wanted = Wanted { jobs: [job.id.clone()].into(), ..Wanted::default() };
            let job = self.shared.unit(wanted, PLAIN, |book, _, bounds| Ok(book.adopt(&job, bounds))).await?;
            self.shared.jobs.insert(job.id.clone(), job.clone());
            Ok(job)
        })
    }

    fn turned(&self, job: Arc<Job>, turn: Turn, end: End) -> Step<'_, Ended> {
        Box::pin(async move {
            let (shared, late) = (self.shared.clone(), Late::Turned(job.clone(), turn, end));
            let step = self.shared.see_through(late, async move { shared.turned(&job, turn, end).await });
            timeout(TURN_PATIENCE, step).await.unwrap_or(Err(LedgerError::Unavailable))
        })
    }

    fn watch_next(&self, quiet: Duration, most: usize) -> Step<'_, Vec<Arc<Job>>> {
        Box::pin(self.shared.watch_next(quiet, most))
    }

    fn polled(&self, job: &Job) -> Time {
        let now = self.shared.time();
        job.note_polled(now);
        self.shared.note_polled(job, now);
        now
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Step<'a, Page<JobLine, Cursor>> {
        Box::pin(self.shared.list_jobs(query))
    }

    fn entries<'a>(&'a self, query: &'a EntryQuery) -> Step<'a, Page<EntryLine, Fingerprint>> {
        Box::pin(self.shared.list_entries(query))
    }

    fn forget(&self, fingerprint: Fingerprint, force: bool) -> Step<'_, Forgotten> {
        Box::pin(self.shared.forget(fingerprint, force))
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.shared.lease)
    }

    fn renew(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        let length = self.shared.lease.length;
        Box::pin(self.shared.unit(Wanted::entry(fingerprint), PLAIN, move |book, now, bounds| {
            let renewed = book.renew(fingerprint, attempt, now + length, &bounds.windows);
            if renewed { Ok(()) } else { Err(LedgerError::Superseded) }
        }))
    }

    fn tell(&self, _: Fingerprint, attempt: AttemptId, progress: Progress) -> Step<'_, ()> {
        Box::pin(self.shared.tell(attempt, progress))
    }

    fn awaited(&self, attempt: AttemptId) -> Step<'_, bool> {
        Box::pin(self.shared.awaited(attempt))
    }

    fn follow(&self, fingerprint: Fingerprint, attempt: AttemptId, flight: Arc<Flight>) -> Step<'_, ()> {
        Box::pin(async move {
            self.shared.clone().follow(fingerprint, attempt, flight).await;
            Ok(())
        })
    }

    fn next_slot(&self, interval: Duration) -> Step<'_, Slot> {
        Box::pin(self.shared.next_slot(interval))
    }

    fn pause(&self, wait: Duration) -> Step<'_, ()> {
        Box::pin(self.shared.pause(wait))
    }

    fn now(&self) -> Time {
        self.shared.time()
    }

    fn sweep(&self) {
        self.shared.runtime.spawn(self.shared.clone().sweep());
    }

    fn is_well(&self) -> bool {
        self.shared.is_well()
    }

    fn flush(&self) -> Step<'_, ()> {
        Box::pin(async move {
            // What is under way may come to wait.
            while !self.shared.underway.is_empty() || !self.shared.pending.is_empty() {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            Ok(())
        })
    }

    fn counts(&self) -> (Counts, usize) {
        **self.shared.counts.load()
    }

    fn statement(&self, top: usize) -> Step<'_, Statement> {
        Box::pin(self.shared.statement(top))
    }

    fn totals(&self) -> Vec<(Arc<str>, Totals)> {
        let totals = self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.iter().map(|(team, totals)| (team.clone(), *totals)).collect()
    }

    fn ends(&self) -> Ends {
        *self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hot_entries(&self) -> u64 {
        self.shared.hot.count()
    }

    fn reload(&self, bounds: Bounds, terms: Arc<Terms>) {
        self.shared.terms.store(terms);
        self.shared.bounds.store(Arc::new(bounds));
    }
}

/// How long a poll's answer waits for its job's end to be written (M21).
const TURN_PATIENCE: Duration = Duration::from_millis(50);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
