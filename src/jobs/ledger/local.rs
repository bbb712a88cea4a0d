//! The ledger of one process: every step is one short hold of one lock. In memory alone a restart forgets it; with a
//! journal what must last is on the disk before the next step (`MONEY.md` M7).

use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::disk::journal::{Journal, Keeper};
use super::hot::Hot;
use super::{Admission, Closed, Ledger, LedgerError, Preview, Request, Step, Verdict, WRITE_PATIENCE};
use crate::admission::headers::Standing;
use crate::admission::rate::{Limits, Refusal, Taken};
use crate::bill::statement::Statement;
use crate::bill::tab::Totals;
use crate::bill::terms::Terms;
use crate::clock::{Clock, Time};
use crate::jobs::book::{Book, Bounds, Counts, Ended, Ends, Found, Rank, Superseded};
use crate::jobs::entry::{AttemptId, Caller, Created, Fate, Look, Turn, Windows};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, Page};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job};
use crate::request::client::Who;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// How many things of each kind one hold of the lock sweeps.
const SWEPT_AT_ONCE: usize = 1000;
/// How many things one hold of the lock looks at for a page.
const SHOWN_AT_ONCE: usize = 500;

/// See the module's page.
pub struct LocalLedger {
    book: Arc<Mutex<Book>>,
    journal: Option<Journal>,
    hot: Hot,
    limits: Arc<Limits>,
    bounds: ArcSwap<Bounds>,
    clock: Clock,
}

impl LocalLedger {
    /// An empty ledger in memory, whose claims are admitted by `limits`.
    pub fn in_memory(limits: Arc<Limits>, bounds: Bounds, hot_entries: u64, clock: Clock) -> Self {
        Self::over(Arc::default(), None, limits, bounds, hot_entries, clock)
    }

    /// The ledger of what `keeper` keeps, which `book` was read from.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn on_disk(
        keeper: impl Keeper + 'static,
        book: Book,
        limits: Arc<Limits>,
        bounds: Bounds,
        hot_entries: u64,
        clock: Clock,
    ) -> io::Result<Self> {
        let book = Arc::new(Mutex::new(book));
        let journal = Journal::start(keeper, book.clone(), clock.clone())?;
        Ok(Self::over(book, Some(journal), limits, bounds, hot_entries, clock))
    }

    fn over(
        book: Arc<Mutex<Book>>,
        journal: Option<Journal>,
        limits: Arc<Limits>,
        bounds: Bounds,
        hot_entries: u64,
        clock: Clock,
    ) -> Self {
        let (hot, bounds) = (Hot::new(hot_entries), ArcSwap::from_pointee(bounds));
        Self { book, journal, hot, limits, bounds, clock }
    }

    /// The book. A panic while it was held cannot leave it half-changed in a way that buys anything twice: entries are
    /// put back whole.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of the book; what it changed is written down with the next batch.
    fn step<'a, T: Send + 'a>(&'a self, step: impl FnOnce(&mut Book, Time, &Bounds) -> T) -> Step<'a, T> {
        let (result, _) = self.numbered(step);
        Box::pin(ready(Ok(result)))
    }

    /// One step of the book that has happened only when it is written down.
    fn durable<'a, T: Send + 'a>(
        &'a self,
        step: impl FnOnce(&mut Book, Time, &Bounds) -> Result<T, LedgerError>,
    ) -> Step<'a, T> {
        let (result, change) = self.numbered(step);
        let Some(journal) = &self.journal else { return Box::pin(ready(result)) };
        Box::pin(async move {
            let result = result?;
            journal.written(change).await.map(|()| result)
        })
    }

    fn numbered<T>(&self, step: impl FnOnce(&mut Book, Time, &Bounds) -> T) -> (T, Option<u64>) {
        let bounds = self.bounds.load();
        let mut book = self.book();
        let result = step(&mut book, self.clock.now(), &bounds);
        let change = self.journal.as_ref().and_then(|journal| journal.note(book));
        (result, change)
    }

    /// A page that is put together from short looks at the book.
    fn gather<'a, L: Send + 'a, C: Clone + Send + 'a>(
        &'a self,
        limit: usize,
        mut after: Option<C>,
        look: impl Fn(&Book, Option<&C>, usize, &Windows) -> Page<L, C> + Send + 'a,
    ) -> Step<'a, Page<L, C>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            loop {
                let wanted = limit.saturating_sub(lines.len());
                let page = look(&self.book(), after.as_ref(), wanted, &self.bounds.load().windows);
                lines.extend(page.lines);
                if lines.len() >= limit || page.next.is_none() {
                    return Ok(Page { lines, next: page.next });
                }
                after = page.next;
                tokio::task::yield_now().await;
            }
        })
    }

    fn decide(&self, book: &mut Book, request: &Request, standing: &mut Standing) -> Verdict {
        let (now, bounds) = (self.clock.now(), **self.bounds.load());
        if !request.charged {
            match self.limits.requests(&request.who) {
                Ok(stands) => *standing = standing.then(stands),
                Err(refusal) => return Verdict::Limited(refusal),
            }
        }
        let ask = &request.ask;
        match book.find(ask, now, &bounds) {
            Found::KeyReused => return Verdict::KeyReused,
            Found::Look(fingerprint, Look::Join(attempt)) => return Verdict::Join { fingerprint, attempt },
            Found::Look(_, Look::Held(wait)) => return Verdict::Held(wait),
            Found::Look(_, Look::Hit(created, until)) => {
                if book.entry(&ask.fingerprint).and_then(|entry| entry.created()).is_some_and(|own| *own == created)
                    && !book.is_unwritten(&created.job)
                {
                    self.hot.insert(ask.fingerprint, created.clone(), until);
                }
                return Verdict::Hit(created, until);
            }
            Found::Look(_, Look::Free) => {}
        }
        if let Some(closed) = request.closed {
            return Verdict::Closed(closed);
        }
        if !self.is_well() {
            return Verdict::Closed(Closed::Ledger);
        }
        let room = book.make_room(&ask.fingerprint, &bounds);
        room.evicted.iter().for_each(|fingerprint| self.hot.remove(fingerprint));
        if !room.fits {
            return Verdict::Full;
        }
        if let Err(exhausted) = book.tab().fits(&request.charge) {
            return Verdict::Exhausted(exhausted);
        }
        match self.limits.generations(&request.who) {
            Err(refusal) => Verdict::Limited(refusal),
            Ok((taken, stands)) => {
                *standing = standing.then(stands);
                self.hot.remove(&ask.fingerprint);
                book.tab_mut().reserve(ask.attempt, request.charge.clone());
                book.claim(ask, now, &bounds);
                Verdict::Claimed(taken)
            }
        }
    }
}

impl Ledger for LocalLedger {
    fn hot(&self, fingerprint: &Fingerprint) -> Option<(Created, Duration)> {
        self.hot.lasting(fingerprint, self.clock.now())
    }

    fn admit<'a>(&'a self, request: &'a Request) -> Step<'a, Admission> {
        let (admission, change) = self.numbered(|book, _, _| {
            let mut standing = Standing::default();
            let verdict = self.decide(book, request, &mut standing);
            let untold = matches!(&verdict, Verdict::Hit(created, _) if book.is_unwritten(&created.job));
            (Admission { verdict, standing }, untold)
        });
        let (admission, untold) = admission;
        let Some(journal) = self.journal.as_ref().filter(|_| untold) else { return Box::pin(ready(Ok(admission))) };
        let change = change.unwrap_or_else(|| journal.last());
        Box::pin(async move {
            // A twin may be told an id only when it is kept (M7); but an id in hand is never withheld for long (M8).
            _ = tokio::time::timeout(WRITE_PATIENCE, journal.written(Some(change))).await;
            Ok(admission)
        })
    }

    fn take_request<'a>(&'a self, who: &'a Who) -> Step<'a, Result<Standing, Refusal>> {
        Box::pin(ready(Ok(self.limits.requests(who))))
    }

    fn preview<'a>(&'a self, request: &'a Request) -> Step<'a, Preview> {
        let (now, bounds) = (self.clock.now(), self.bounds.load());
        let book = self.book();
        let tab = book.tab();
        let found = book.excerpt(&request.ask, &bounds.windows).find(&request.ask, now, &bounds);
        let (exhausted, left) = (tab.fits(&request.charge).err(), tab.left(&request.charge));
        // Nobody is admitted while the book is held.
        let limited = self.limits.refused(&request.who);
        Box::pin(ready(Ok(Preview { found, exhausted, limited, left })))
    }

    fn sending(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.durable(|book, _, bounds| {
            let sending = book.sending(fingerprint, attempt, &bounds.windows);
            sending.map_err(|Superseded| LedgerError::Superseded)
        })
    }

    fn accepted(&self, job: Arc<Job>, created: Created) -> Step<'_, Rank> {
        self.durable(|book, _, bounds| {
            let rank = book.accepted(&job, created.clone(), bounds);
            if book.gives_out(&job.fingerprint, &created) && !book.is_unwritten(&created.job) {
                let until = created.at + bounds.windows.delivery;
                self.hot.insert(job.fingerprint, created, until);
            }
            Ok(rank)
        })
    }

    fn unknown(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.step(|book, now, bounds| book.unknown(fingerprint, attempt, now, &bounds.windows))
    }

    fn free(&self, fingerprint: Fingerprint, attempt: AttemptId, back: Option<Taken>) -> Step<'_, ()> {
        self.step(|book, _, bounds| {
            book.free(fingerprint, attempt, &bounds.windows);
            if let Some(taken) = back {
                self.limits.give_back(taken);
            }
        })
    }

    fn doubted(&self, fingerprint: Fingerprint, attempt: AttemptId, caller: Caller) -> Step<'_, ()> {
        self.step(|book, now, bounds| book.doubted(fingerprint, attempt, caller, now, &bounds.windows))
    }

    fn undelivered(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.step(|book, _, bounds| book.undelivered(fingerprint, attempt, &bounds.windows))
    }

    fn job<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        // One for each poll: it changes nothing, so there is nothing to be noted, and no time by which.
        let job = self.book().job(id);
        Box::pin(ready(Ok(job)))
    }

    fn own<'a>(&'a self, id: &'a RequestId, owner: Owner, most: usize) -> Step<'a, Owned> {
        let ((owned, waits), change) = self.numbered(|book, _, _| {
            let owned = book.own(id, owner, most);
            // It may be on its way to the disk for another answer.
            (owned, book.is_unwritten(id))
        });
        let Some(journal) = self.journal.as_ref().filter(|_| waits) else {
            return Box::pin(ready(Ok(owned)));
        };
        let change = change.unwrap_or_else(|| journal.last());
        Box::pin(async move { journal.written(Some(change)).await.map(|()| owned) })
    }

    fn adopt(&self, job: Arc<Job>) -> Step<'_, Arc<Job>> {
        self.durable(move |book, _, bounds| Ok(book.adopt(&job, bounds)))
    }

    fn turned(&self, job: Arc<Job>, turn: Turn, end: End) -> Step<'_, Ended> {
        self.step(|book, now, bounds| {
            let ended = book.turned(&job, turn, end, now, &bounds.windows);
            if ended.fate != Fate::Stays {
                // Who knows it as adopted does not know under which it stands.
                let own = book.job(&job.id).map(|own| own.fingerprint);
                own.iter().chain([&job.fingerprint]).for_each(|fingerprint| self.hot.remove(fingerprint));
            }
            book.given_twice(&job.id).iter().for_each(|fingerprint| self.hot.remove(fingerprint));
            ended
        })
    }

    fn watch_next(&self, quiet: Duration, most: usize) -> Step<'_, Vec<Arc<Job>>> {
        self.step(|book, now, _| book.watch_next(now, quiet, most))
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Step<'a, Page<JobLine, Cursor>> {
        self.gather(query.limit, query.after.clone(), |book, after, wanted, windows| {
            book.list_jobs(query, after, wanted, SHOWN_AT_ONCE, windows)
        })
    }

    fn entries<'a>(&'a self, query: &'a EntryQuery) -> Step<'a, Page<EntryLine, Fingerprint>> {
        self.gather(query.limit, query.after, |book, after, wanted, windows| {
            book.list_entries(query, after, wanted, SHOWN_AT_ONCE, windows)
        })
    }

    fn forget(&self, fingerprint: Fingerprint, force: bool) -> Step<'_, Forgotten> {
        self.durable(|book, _, bounds| {
            let forgotten = book.forget(fingerprint, force, &bounds.windows);
            if matches!(forgotten, Forgotten::Gone(_)) {
                self.hot.remove(&fingerprint);
            }
            Ok(forgotten)
        })
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn sweep(&self) {
        loop {
            let (freed, _) = self.numbered(|book, now, bounds| book.sweep(now, bounds, SWEPT_AT_ONCE));
            freed.iter().for_each(|fingerprint| self.hot.remove(fingerprint));
            if freed.len() < SWEPT_AT_ONCE {
                return;
            }
        }
    }

    fn is_well(&self) -> bool {
        self.journal.as_ref().is_none_or(Journal::is_well)
    }

    fn flush(&self) -> Step<'_, ()> {
        Box::pin(async move {
            match &self.journal {
                None => Ok(()),
                Some(journal) => journal.written(Some(journal.last())).await,
            }
        })
    }

    fn counts(&self) -> (Counts, usize) {
        self.book().counts()
    }

    fn statement(&self, top: usize) -> Step<'_, Statement> {
        let statement = Statement::of(self.book().tab(), self.clock.now(), top);
        Box::pin(ready(Ok(statement)))
    }

    fn totals(&self) -> Vec<(Arc<str>, Totals)> {
        self.book().tab().totals().map(|(team, totals)| (team.clone(), *totals)).collect()
    }

    fn ends(&self) -> Ends {
        *self.book().ends()
    }

    fn hot_entries(&self) -> u64 {
        self.hot.count()
    }

    fn reload(&self, bounds: Bounds, terms: Arc<Terms>) {
        self.book().tab_mut().set_terms(terms);
        self.bounds.store(Arc::new(bounds));
    }
}

#[cfg(test)]
mod tests;
