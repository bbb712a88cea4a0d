//! Everything the ledger knows, in memory, behind one lock: entries, idempotency keys, job records. Each method is one
//! step of the protocol in `MONEY.md`; none waits, none reads a clock. The durable ledgers write down what it decides.

mod entries;
mod find;
mod life;
mod list;
mod teams;
mod twice;
mod written;

use std::sync::Arc;

use crate::bill::tab::Tab;
use crate::clock::Time;
use crate::jobs::entry::{Asker, AttemptId, Caller, Created, Entry, Look, Rare, State, Turn, Windows};
use crate::jobs::keys::{self, KeyDigest, Keys, NewKey};
use crate::jobs::owners::Owner;
use crate::jobs::records::{Job, Records};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use foldhash::HashSet;
use twice::GivenTwice;

pub use entries::Entries;
pub use life::{Ended, Ends};
pub use written::Dirty;

/// A submission, as far as the ledger goes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Under which fingerprint it shares.
    pub fingerprint: Fingerprint,
    /// The fingerprint of its body alone: what an idempotency key is bound to.
    pub body: Fingerprint,
    /// With `dedup.by = "idempotency-key"`, for a submission without a key: the body's fingerprint, under which only
    /// holds and undelivered attempts are found (M15).
    pub base: Option<Fingerprint>,
    /// The id of the attempt, if this becomes one.
    pub attempt: AttemptId,
    /// The team.
    pub team: Arc<str>,
    /// The id of the request, as its client knows it.
    pub request_id: Arc<str>,
    /// Who asks, and what they wish.
    pub asker: Asker,
    /// The idempotency key.
    pub key: Option<KeyDigest>,
    /// The same under the fingerprints' key before the one in use: what stands there blocks too (M9).
    pub former: Option<Box<Ask>>,
}

impl Ask {
    /// It, and as it would have been asked under the key before.
    pub fn by_all_keys(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |ask| ask.former.as_deref())
    }
}

/// Bounds of the book, from `[dedup]` and `[ledger]`.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long things are remembered.
    pub windows: Windows,
    /// `dedup.max_entries`.
    pub max_entries: usize,
    /// `ledger.max_jobs`.
    pub max_jobs: usize,
}

/// What the look-up found, before any limit on generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What the entry under this fingerprint gives; for a keyless twin that is not the fingerprint it asked for (M15).
    Look(Fingerprint, Look),
    /// The idempotency key came with another body before.
    KeyReused,
}

/// Whether an outcome belongs to the entry that stands, or to an attempt that was replaced (M12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The entry's own.
    Current,
    /// A replaced attempt's: an orphan.
    Orphan,
}

/// Whether there is room for one more, and what had to leave for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Whether there is.
    pub fits: bool,
    /// Fingerprints that are free now.
    pub evicted: Vec<Fingerprint>,
}

/// The entry has gone on without this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded;

/// How many entries stand in each state.
pub type Counts = [(&'static str, usize); 6];

/// The whole memory.
#[derive(Debug, Default)]
pub struct Book {
    entries: Entries,
    /// Which entries give out an id that another's record names.
    twice: GivenTwice,
    keys: Keys,
    records: Records,
    /// What has changed since it was last written down; nothing is noted where nothing is written.
    dirty: Option<Dirty>,
    /// Jobs that are being written down.
    writing: HashSet<RequestId>,
    /// What every attempt costs.
    tab: Tab,
    /// How many jobs were seen to end since this book was opened.
    ends: Ends,
}

impl Book {
    /// Whether one more job fits, and an entry under this fingerprint, which may replace one that is there. The oldest
    /// `done` of who has most make room, what may still be paid never (M28).
    pub fn make_room(&mut self, fingerprint: &Fingerprint, bounds: &Bounds) -> Room {
        let mut room = Room { fits: self.records.make_room(bounds.max_jobs), evicted: Vec::new() };
        while room.fits && self.entries.len() >= bounds.max_entries && self.entry(fingerprint).is_none() {
            match self.entries.next_to_leave() {
                Some(oldest) => {
                    self.remove(oldest, &bounds.windows);
                    room.evicted.push(oldest);
                }
                None => room.fits = false,
            }
        }
        room
    }

    /// Makes room by this entry, if it is `done`.
    pub fn evict_done(&mut self, fingerprint: &Fingerprint, windows: &Windows) {
        if self.entry(fingerprint).is_some_and(|entry| matches!(entry.state, State::Done(..))) {
            self.remove(*fingerprint, windows);
        }
    }

    /// What every attempt costs.
    pub const fn tab(&self) -> &Tab {
        &self.tab
    }

    /// The same, to be changed.
    pub const fn tab_mut(&mut self) -> &mut Tab {
        &mut self.tab
    }

    /// Takes the fingerprint for an attempt, over what stood there. What it may cost is reserved in the [`Tab`].
    pub fn claim(&mut self, ask: &Ask, now: Time, bounds: &Bounds) {
        let mut entry = Entry::claimed(ask.attempt, ask.team.clone());
        let wish = ask.asker.no_cache.then_some((ask.asker.caller, now));
        entry.rest = Rare { wish, base: ask.base, ..Rare::default() }.into();
        entry.request_id = ask.request_id.clone();
        // What is certain of the older entry comes back if this attempt makes nothing.
        let old = self.entries.take(ask.fingerprint, &bounds.windows);
        entry.beneath = old.and_then(|old| old.open(now, &bounds.windows));
        self.entries.put(ask.fingerprint, entry, &bounds.windows);
        if let Some(digest) = ask.key {
            let fate = keys::Fate::InFlight;
            let new = NewKey { body: ask.body, fingerprint: ask.fingerprint, attempt: ask.attempt, fate };
            self.keys.attach(digest, new, now, bounds.max_entries);
            // A claim is in memory only; its key becomes durable with `sending` (M7).
            self.keys.unmark(&digest);
        }
    }

    /// `claimed → sending`, by the claim's own attempt only (M1, M2).
    ///
    /// # Errors
    /// [`Superseded`] if the entry is another attempt's by now, or gone.
    pub fn sending(
        &mut self,
        fingerprint: Fingerprint,
        attempt: AttemptId,
        windows: &Windows,
    ) -> Result<(), Superseded> {
        let own = self.entries.change(fingerprint, windows, |entry| {
            let own = entry.attempt == attempt && entry.state == State::Claimed;
            if own {
                entry.state = State::Sending;
            }
            own
        });
        if own == Some(true) {
            self.mark(fingerprint);
            self.keys.mark_attempt(attempt);
            self.tab.sending(attempt);
            Ok(())
        } else {
            Err(Superseded)
        }
    }

    /// The upstream gave an id. The job is recorded whatever became of the entry (M12).
    pub fn accepted(&mut self, job: &Arc<Job>, created: Created, bounds: &Bounds) -> Rank {
        self.keys.settle(job.attempt, &keys::Fate::Created(created.clone()));
        match self.records.get(&job.id) {
            // The upstream gave an id twice: it is one job, and paid once. One that was only adopted nobody has paid yet.
            Some(known) if known.job.attempt != job.attempt && !known.job.is_adopted() => self.tab.release(job.attempt),
            _ => self.tab.created(job.attempt),
        }
        let rank = self.entries.change(job.fingerprint, &bounds.windows, |entry| {
            let current = entry.attempt == job.attempt;
            if let Some(own) = entry.of_attempt(job.attempt) {
                // Told again, it is no younger than its polls have shown it (M19).
                if own.created().is_none_or(|known| known.job != created.job) {
                    own.state = State::Accepted(created);
                }
                own.beneath = None;
            }
            if current { Rank::Current } else { Rank::Orphan }
        });
        self.mark(job.fingerprint);
        let rank = rank.unwrap_or(Rank::Orphan);
        self.records.make_room(bounds.max_jobs);
        let ended = self.records.found(job, rank == Rank::Orphan);
        if self.records.get(&job.id).is_some_and(|known| known.job.fingerprint != job.fingerprint) {
            self.twice.add(&job.id, job.fingerprint);
        }
        // If the upstream gave this id to another team before, it is both teams' now.
        self.records.own(&job.id, Owner { team: job.team.clone(), user: None }, usize::MAX);
        self.records.insert(job.clone(), rank == Rank::Orphan);
        if let Some((life, at)) = ended {
            self.turned(job, Turn::of(life), life, at, &bounds.windows);
        }
        rank
    }

    /// Nobody knows whether the attempt was paid: its twins are held.
    pub fn unknown(&mut self, fingerprint: Fingerprint, attempt: AttemptId, now: Time, windows: &Windows) {
        self.keys.settle(attempt, &keys::Fate::Unknown);
        self.tab.doubt(attempt, now + windows.hold);
        self.entries.change(fingerprint, windows, |entry| {
            if let Some(own) = entry.of_attempt(attempt).filter(|own| own.created().is_none()) {
                own.state = State::Unknown(now + windows.hold);
            }
        });
        self.mark(fingerprint);
    }

    /// The attempt made nothing: what it replaced stands again.
    pub fn free(&mut self, fingerprint: Fingerprint, attempt: AttemptId, windows: &Windows) {
        self.keys.release(attempt);
        self.tab.release(attempt);
        self.mark(fingerprint);
        let Some(mut entry) = self.entries.take(fingerprint, windows) else { return };
        if entry.attempt == attempt {
            if let Some(beneath) = entry.beneath {
                self.entries.put(fingerprint, beneath, windows);
            }
            return;
        }
        entry.remove_beneath(&|beneath| beneath.attempt == attempt);
        self.entries.put(fingerprint, entry, windows);
    }

    /// A caller was told that the attempt's outcome is unknown (M13, M14).
    pub fn doubted(
        &mut self,
        fingerprint: Fingerprint,
        attempt: AttemptId,
        caller: Caller,
        now: Time,
        windows: &Windows,
    ) {
        self.entries.change(fingerprint, windows, |entry| {
            if let Some(own) = entry.of_attempt(attempt) {
                own.doubt(caller, now);
            }
        });
        self.mark(fingerprint);
    }

    /// The only waiter of a keyless attempt left before the last byte of its answer was taken (M15).
    pub fn undelivered(&mut self, fingerprint: Fingerprint, attempt: AttemptId, windows: &Windows) {
        self.entries.change(fingerprint, windows, |entry| {
            if entry.attempt == attempt {
                entry.rest.change().undelivered = true;
            }
        });
        self.mark(fingerprint);
    }

    /// Drops what time has ended, at most `most` of each kind, so that the lock is held briefly. Returns the
    /// fingerprints that are free now.
    pub fn sweep(&mut self, now: Time, bounds: &Bounds, most: usize) -> Vec<Fingerprint> {
        let mut freed = Vec::new();
        while freed.len() < most {
            let Some(fingerprint) = self.entries.pop_due(now) else { break };
            // A reload may have moved the entry's end since it was put there.
            match self.entry(&fingerprint).and_then(|entry| entry.due(&bounds.windows)) {
                Some(later) if later > now => self.entries.put_off(fingerprint, later),
                Some(_) => {
                    let open =
                        self.entries.take(fingerprint, &bounds.windows).and_then(|old| old.open(now, &bounds.windows));
                    if let Some(open) = open {
                        self.entries.put(fingerprint, open, &bounds.windows);
                    }
                    self.mark(fingerprint);
                }
                None => {}
            }
            freed.push(fingerprint);
        }
        self.keys.sweep(now, most);
        self.records.sweep(now, most);
        self.tab.sweep(now, most);
        self.twice.retain(|id| self.records.get(id).is_some());
        freed
    }

    /// How many entries stand in each state, and how many jobs are running.
    pub fn counts(&self) -> (Counts, usize) {
        (self.entries.counts(), self.records.running())
    }

    /// The entry of a fingerprint, to look at.
    pub fn entry(&self, fingerprint: &Fingerprint) -> Option<&Entry> {
        self.entries.get(fingerprint)
    }

    /// Whether the entry of a fingerprint gives out this job, whose end nobody has seen.
    pub fn gives_out(&self, fingerprint: &Fingerprint, created: &Created) -> bool {
        self.entry(fingerprint)
            .is_some_and(|entry| matches!(&entry.state, State::Accepted(own) if own.job == created.job))
    }

    fn remove(&mut self, fingerprint: Fingerprint, windows: &Windows) {
        self.entries.take(fingerprint, windows);
        self.mark(fingerprint);
    }
}

#[cfg(test)]
mod tests;
