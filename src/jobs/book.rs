//! Everything the ledger knows, in memory, behind one lock: entries, idempotency keys, job records. Each method is one
//! step of the protocol in `MONEY.md`; none waits, none reads a clock. The durable ledgers write down what it decides.

mod find;
mod list;
mod teams;
mod twice;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bill::tab::Tab;
use crate::clock::Time;
use crate::jobs::entry::{Asker, AttemptId, Caller, Created, Entry, Fate, Look, Rare, State, Turn, Windows};
use crate::jobs::keys::{self, KeyDigest, Keys, NewKey};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job, Records};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use foldhash::{HashMap, HashSet};
use list::Unknowns;
use teams::Teams;
use twice::GivenTwice;

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

/// How a job ended, as `jobs_total` counts it, and what that did to its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The life it came to, if that was news.
    pub news: bool,
    /// What became of the entry.
    pub fate: Fate,
}

/// How many entries stand in each state.
pub type Counts = [(&'static str, usize); 6];

/// The whole memory.
#[derive(Debug, Default)]
pub struct Book {
    /// In order, so that a page of them, and the one that is named by its first digits, is found without a walk.
    entries: BTreeMap<Fingerprint, Box<Entry>>,
    /// Entries that time ends, the next first.
    due: BTreeSet<(Time, Fingerprint)>,
    /// Whose entries they are, and which may make room.
    teams: Teams,
    /// Where outcomes are unknown.
    unknowns: Unknowns,
    /// Which entries give out an id that another's record names.
    twice: GivenTwice,
    /// Keyless entries of `dedup.by = "idempotency-key"` that are held or undelivered, by their body (M15).
    by_base: HashMap<Fingerprint, Vec<Fingerprint>>,
    keys: Keys,
    records: Records,
    counts: [usize; 6],
    /// What has changed since it was last written down; nothing is noted where nothing is written.
    dirty: Option<Dirty>,
    /// Jobs that are being written down.
    writing: HashSet<RequestId>,
    /// What every attempt costs.
    tab: Tab,
}

impl Book {
    /// Whether one more job fits, and an entry under this fingerprint, which may replace one that is there. The oldest
    /// `done` of who has most make room, what may still be paid never (M28).
    pub fn make_room(&mut self, fingerprint: &Fingerprint, bounds: &Bounds) -> Room {
        let mut room = Room { fits: self.records.make_room(bounds.max_jobs), evicted: Vec::new() };
        while room.fits && self.entries.len() >= bounds.max_entries && !self.entries.contains_key(fingerprint) {
            match self.teams.next_to_leave() {
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
        if self.entries.get(fingerprint).is_some_and(|entry| matches!(entry.state, State::Done(..))) {
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
        let old = self.take(ask.fingerprint, &bounds.windows);
        entry.beneath = old.and_then(|old| old.open(now, &bounds.windows));
        self.put(ask.fingerprint, entry, &bounds.windows);
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
        let own = self.change(fingerprint, windows, |entry| {
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
            // The upstream gave an id twice: it is one job, and paid once.
            Some(known) if known.job.attempt != job.attempt => self.tab.release(job.attempt),
            _ => self.tab.created(job.attempt),
        }
        let rank = self.change(job.fingerprint, &bounds.windows, |entry| {
            let current = entry.attempt == job.attempt;
            if let Some(own) = entry.of_attempt(job.attempt) {
                own.state = State::Accepted(created);
                own.beneath = None;
            }
            if current { Rank::Current } else { Rank::Orphan }
        });
        self.mark(job.fingerprint);
        let rank = rank.unwrap_or(Rank::Orphan);
        self.records.make_room(bounds.max_jobs);
        if self.records.get(&job.id).is_some_and(|known| known.job.fingerprint != job.fingerprint) {
            self.twice.add(&job.id, job.fingerprint);
        }
        // If the upstream gave this id to another team before, it is both teams' now.
        self.records.own(&job.id, Owner { team: job.team.clone(), user: None }, usize::MAX);
        self.records.insert(job.clone(), rank == Rank::Orphan);
        rank
    }

    /// A team, or one of its users, has met a job (M31).
    pub fn own(&mut self, id: &RequestId, owner: Owner, most: usize) -> Owned {
        self.records.own(id, owner, most)
    }

    /// A job that nobody here made belongs to whoever asked for it first (M31). Gives the job as it stands.
    pub fn adopt(&mut self, job: &Arc<Job>, bounds: &Bounds) -> Arc<Job> {
        if let Some(known) = self.job(&job.id) {
            return known;
        }
        self.records.make_room(bounds.max_jobs);
        self.records.insert(job.clone(), false);
        job.clone()
    }

    /// Nobody knows whether the attempt was paid: its twins are held.
    pub fn unknown(&mut self, fingerprint: Fingerprint, attempt: AttemptId, now: Time, windows: &Windows) {
        self.keys.settle(attempt, &keys::Fate::Unknown);
        self.tab.doubt(attempt, now + windows.hold);
        self.change(fingerprint, windows, |entry| {
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
        let Some(mut entry) = self.take(fingerprint, windows) else { return };
        if entry.attempt == attempt {
            if let Some(beneath) = entry.beneath {
                self.put(fingerprint, beneath, windows);
            }
            return;
        }
        remove_beneath(&mut entry, &|beneath| beneath.attempt == attempt);
        self.put(fingerprint, entry, windows);
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
        self.change(fingerprint, windows, |entry| {
            if let Some(own) = entry.of_attempt(attempt) {
                own.doubt(caller, now);
            }
        });
        self.mark(fingerprint);
    }

    /// The only waiter of a keyless attempt left before the last byte of its answer was taken (M15).
    pub fn undelivered(&mut self, fingerprint: Fingerprint, attempt: AttemptId, windows: &Windows) {
        self.change(fingerprint, windows, |entry| {
            if entry.attempt == attempt {
                entry.rest.change().undelivered = true;
            }
        });
        self.mark(fingerprint);
    }

    /// The job of an id.
    pub fn job(&self, id: &RequestId) -> Option<Arc<Job>> {
        self.records.get(id).map(|record| record.job.clone())
    }

    /// A poll has shown that a job's life came to a turn.
    pub fn turned(&mut self, job: &Job, turn: Turn, end: impl Into<End>, now: Time, windows: &Windows) -> Ended {
        let end = end.into();
        let fate = self.turn_entry(job.fingerprint, job, turn, now, windows);
        for further in self.given_twice(&job.id) {
            self.turn_entry(further, job, turn, now, windows);
        }
        // A job that may just not be visible yet is not over (M19), and one without an entry must not run for ever.
        let mut stands = || self.entries.get_mut(&job.fingerprint).is_some_and(|entry| entry.of_job(&job.id).is_some());
        let is_missed = fate == Fate::Ends || !stands() && job.shown().is_missed(job.created, now);
        let over = turn != Turn::Missing || is_missed;
        if over {
            self.tab.settle(job.attempt, end.verdict());
        }
        Ended { news: over && self.records.end(&job.id, end.life, now), fate }
    }

    /// At most `most` running jobs that nobody has polled for `quiet` and that are due to be looked at (M23).
    pub fn watch_next(&mut self, now: Time, quiet: Duration, most: usize) -> Vec<Arc<Job>> {
        self.records.watch_next(now, quiet, most)
    }

    /// The further fingerprints under which the upstream gave this id.
    pub fn given_twice(&self, id: &RequestId) -> Vec<Fingerprint> {
        self.twice.of(id).to_vec()
    }

    fn turn_entry(&mut self, of: Fingerprint, job: &Job, turn: Turn, now: Time, windows: &Windows) -> Fate {
        let shown = job.shown();
        let fate =
            self.change(of, windows, |entry| entry.of_job(&job.id).map(|own| own.turn(turn, shown, now, windows)));
        let fate = fate.flatten().unwrap_or(Fate::Stays);
        if fate != Fate::Stays {
            self.mark(of);
        }
        if fate == Fate::Ends {
            self.end_entry(of, &job.id, windows);
        }
        fate
    }

    /// Compare-and-delete on the job: a late end of an old job must not take its successor's entry (M1).
    fn end_entry(&mut self, fingerprint: Fingerprint, job: &RequestId, windows: &Windows) {
        let is_own = |entry: &Entry| entry.created().is_some_and(|created| created.job == *job);
        let Some(mut entry) = self.take(fingerprint, windows).filter(|entry| !is_own(entry)) else { return };
        remove_beneath(&mut entry, &is_own);
        self.put(fingerprint, entry, windows);
    }

    /// Drops what time has ended, at most `most` of each kind, so that the lock is held briefly. Returns the
    /// fingerprints that are free now.
    pub fn sweep(&mut self, now: Time, bounds: &Bounds, most: usize) -> Vec<Fingerprint> {
        let mut freed = Vec::new();
        while freed.len() < most {
            let Some((due, fingerprint)) = self.due.first().filter(|(due, _)| *due <= now).copied() else { break };
            self.due.remove(&(due, fingerprint));
            // A reload may have moved the entry's end since it was put here.
            match self.entries.get(&fingerprint).and_then(|entry| entry.due(&bounds.windows)) {
                Some(later) if later > now => _ = self.due.insert((later, fingerprint)),
                Some(_) => {
                    let open = self.take(fingerprint, &bounds.windows).and_then(|old| old.open(now, &bounds.windows));
                    if let Some(open) = open {
                        self.put(fingerprint, open, &bounds.windows);
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
        let mut named = STATES.map(|name| (name, 0));
        for ((_, count), held) in named.iter_mut().zip(self.counts) {
            *count = held;
        }
        (named, self.records.running())
    }

    /// The entry of a fingerprint, to look at.
    pub fn entry(&self, fingerprint: &Fingerprint) -> Option<&Entry> {
        self.entries.get(fingerprint).map(AsRef::as_ref)
    }

    /// Changes an entry in place and keeps the indexes true to it.
    fn change<T>(
        &mut self,
        fingerprint: Fingerprint,
        windows: &Windows,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        let mut entry = self.take(fingerprint, windows)?;
        let result = change(&mut entry);
        self.put(fingerprint, entry, windows);
        Some(result)
    }

    fn remove(&mut self, fingerprint: Fingerprint, windows: &Windows) {
        self.take(fingerprint, windows);
        self.mark(fingerprint);
    }

    fn put(&mut self, fingerprint: Fingerprint, entry: impl Into<Box<Entry>>, windows: &Windows) {
        let entry = entry.into();
        if let Some(due) = entry.due(windows) {
            self.due.insert((due, fingerprint));
        }
        self.teams.put(fingerprint, &entry);
        self.unknowns.put(fingerprint, &entry);
        if let Some(base) = entry.found_by_body() {
            self.by_base.entry(base).or_default().push(fingerprint);
        }
        if let Some(count) = self.counts.get_mut(index(&entry.state)) {
            *count += 1;
        }
        self.entries.insert(fingerprint, entry);
    }

    fn take(&mut self, fingerprint: Fingerprint, windows: &Windows) -> Option<Box<Entry>> {
        let entry = self.entries.remove(&fingerprint)?;
        if let Some(due) = entry.due(windows) {
            self.due.remove(&(due, fingerprint));
        }
        self.teams.take(fingerprint, &entry);
        self.unknowns.take(fingerprint, &entry);
        if let Some(base) = entry.found_by_body() {
            let twins = self.by_base.entry(base).or_default();
            twins.retain(|twin| *twin != fingerprint);
            if twins.is_empty() {
                self.by_base.remove(&base);
            }
        }
        if let Some(count) = self.counts.get_mut(index(&entry.state)) {
            *count = count.saturating_sub(1);
        }
        Some(entry)
    }
}

/// Takes the first such entry out of the chain beneath `entry`.
fn remove_beneath(entry: &mut Entry, is_it: &impl Fn(&Entry) -> bool) {
    match entry.beneath.take() {
        Some(beneath) if is_it(&beneath) => entry.beneath = beneath.beneath,
        Some(mut beneath) => {
            remove_beneath(&mut beneath, is_it);
            entry.beneath = Some(beneath);
        }
        None => {}
    }
}

const STATES: [&str; 6] = ["claimed", "sending", "accepted", "done", "rejected", "unknown"];

const fn index(state: &State) -> usize {
    match state {
        State::Claimed => 0,
        State::Sending => 1,
        State::Accepted(_) => 2,
        State::Done(..) => 3,
        State::Rejected(..) => 4,
        State::Unknown(_) => 5,
    }
}

#[cfg(test)]
mod tests;
