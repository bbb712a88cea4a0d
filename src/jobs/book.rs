//! Everything the ledger knows, in memory, behind one lock: entries, idempotency keys, job records. Each method is one
//! step of the protocol in `MONEY.md`; none waits, none reads a clock. The durable ledgers write down what it decides.

mod written;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::bill::tab::Tab;
use crate::clock::Time;
use crate::jobs::entry::{Asker, AttemptId, Caller, Created, Entry, Fate, Look, State, Turn, Windows};
use crate::jobs::keys::{self, KeyDigest, Keys, NewKey};
use crate::jobs::records::{End, Job, Life, Records};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

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
    entries: HashMap<Fingerprint, Entry>,
    /// Entries that time ends, the next first.
    due: BTreeSet<(Time, Fingerprint)>,
    /// Entries that may make room, the oldest first.
    done: BTreeSet<(Time, Fingerprint)>,
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
    /// What a submission finds. Refusals are remembered (M14), an idempotency key that joins or hits is attached (M16),
    /// an undelivered attempt is adopted (M15).
    pub fn find(&mut self, ask: &Ask, now: Time, bounds: &Bounds) -> Found {
        if let Some(found) = self.find_by_key(ask, now, bounds) {
            return found;
        }
        let twin = self.twin(ask, now, &bounds.windows);
        let fingerprint = twin.unwrap_or(ask.fingerprint);
        let look = self.look(fingerprint, ask, now, &bounds.windows);
        // A refusal adopts nothing: whoever is told the job, or waits for it, does.
        if twin.is_some() && matches!(look, Look::Hit(..) | Look::Join(_)) {
            self.change(fingerprint, &bounds.windows, |entry| entry.undelivered = false);
            self.mark(fingerprint);
        }
        if let Some(digest) = ask.key {
            let attach = match &look {
                Look::Join(attempt) => Some((*attempt, keys::Fate::InFlight)),
                Look::Hit(created, _) => {
                    let attempt = self.entries.get(&fingerprint).map_or(ask.attempt, |entry| entry.attempt);
                    Some((attempt, keys::Fate::Created(created.clone())))
                }
                Look::Held(_) | Look::Free => None,
            };
            if let Some((attempt, fate)) = attach {
                let new = NewKey { body: ask.body, fingerprint, attempt, fate };
                self.keys.attach(digest, new, now, bounds.max_entries);
            }
        }
        Found::Look(fingerprint, look)
    }

    fn look(&mut self, fingerprint: Fingerprint, ask: &Ask, now: Time, windows: &Windows) -> Look {
        self.change(fingerprint, windows, |entry| entry.look(ask.asker, now, windows)).unwrap_or(Look::Free)
    }

    /// A key already seen wins over everything else that is asked for.
    fn find_by_key(&mut self, ask: &Ask, now: Time, bounds: &Bounds) -> Option<Found> {
        let digest = ask.key?;
        let record = self.keys.get(&digest, now)?.clone();
        if record.body != ask.body {
            return Some(Found::KeyReused);
        }
        let look = match record.fate {
            keys::Fate::InFlight => Look::Join(record.attempt),
            keys::Fate::Unknown => {
                let asker = Asker { no_cache: false, ..ask.asker };
                let entry = self.change(record.fingerprint, &bounds.windows, |entry| {
                    (entry.attempt == record.attempt).then(|| entry.look(asker, now, &bounds.windows))
                });
                match entry.flatten() {
                    Some(Look::Held(wait)) => Look::Held(wait),
                    _ => Look::Held(crate::jobs::entry::RETRY_AFTER_DOUBT),
                }
            }
            keys::Fate::Created(created) => {
                let stands = self.entries.get_mut(&record.fingerprint).and_then(|entry| entry.of_job(&created.job));
                let until = stands.and_then(|entry| entry.due(&bounds.windows)).filter(|until| now < *until);
                // A job that was replaced by somebody's wish for another is still this key's job, until it fails.
                let lives = |life| matches!(life, Life::Running | Life::Done);
                let good = || self.records.get(&created.job).is_some_and(|record| lives(record.life));
                let replaced = || good().then(|| created.at + bounds.windows.delivery).filter(|until| now < *until);
                match until.or_else(replaced) {
                    Some(until) => Look::Hit(created, until),
                    None => {
                        self.keys.forget(&digest);
                        return None;
                    }
                }
            }
        };
        Some(Found::Look(record.fingerprint, look))
    }

    /// For a keyless submission where only keys share: an equal one that is held, or whose answer nobody took (M15).
    fn twin(&self, ask: &Ask, now: Time, windows: &Windows) -> Option<Fingerprint> {
        let lives = |entry: &Entry| entry.due(windows).is_none_or(|due| now < due);
        let twins = self.by_base.get(&ask.base?)?.iter();
        twins.copied().find(|twin| self.entries.get(twin).is_some_and(lives))
    }

    /// Whether one more entry and one more job fit; the oldest `done` make room, what may still be paid never (M28).
    pub fn make_room(&mut self, bounds: &Bounds) -> bool {
        while self.entries.len() >= bounds.max_entries {
            let Some((_, oldest)) = self.done.first().copied() else { return false };
            self.remove(oldest, &bounds.windows);
        }
        self.records.make_room(bounds.max_jobs)
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
        entry.wish = ask.asker.no_cache.then_some((ask.asker.caller, now));
        entry.base = ask.base;
        // What is certain of the older entry comes back if this attempt makes nothing.
        let old = self.take(ask.fingerprint, &bounds.windows);
        entry.beneath = old.and_then(|old| old.open(now, &bounds.windows));
        self.put(ask.fingerprint, entry, &bounds.windows);
        if let Some(digest) = ask.key {
            let fate = keys::Fate::InFlight;
            let new = NewKey { body: ask.body, fingerprint: ask.fingerprint, attempt: ask.attempt, fate };
            self.keys.attach(digest, new, now, bounds.max_entries);
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
        self.tab.created(job.attempt);
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
        self.records.insert(job.clone(), rank == Rank::Orphan);
        rank
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
                self.put(fingerprint, *beneath, windows);
            }
            return;
        }
        remove_beneath(&mut entry, attempt);
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
        self.change(fingerprint, windows, |entry| entry.undelivered |= entry.attempt == attempt);
        self.mark(fingerprint);
    }

    /// The job of an id.
    pub fn job(&self, id: &RequestId) -> Option<Arc<Job>> {
        self.records.get(id).map(|record| record.job.clone())
    }

    /// A poll has shown that a job's life came to a turn.
    pub fn turned(&mut self, job: &Job, turn: Turn, end: impl Into<End>, now: Time, windows: &Windows) -> Ended {
        let end = end.into();
        let shown = job.shown();
        let fate = self.change(job.fingerprint, windows, |entry| {
            entry.of_job(&job.id).map(|own| own.turn(turn, shown, now, windows))
        });
        let fate = fate.flatten().unwrap_or(Fate::Stays);
        if fate != Fate::Stays {
            self.mark(job.fingerprint);
        }
        if fate == Fate::Ends {
            self.end_entry(job, windows);
        }
        // A job that may just not be visible yet is not over (M19).
        let over = turn != Turn::Missing || fate == Fate::Ends;
        if over {
            self.tab.settle(job.attempt, end.verdict());
        }
        Ended { news: over && self.records.end(&job.id, end.life, now), fate }
    }

    /// Compare-and-delete on the job: a late end of an old job must not take its successor's entry (M1).
    fn end_entry(&mut self, job: &Job, windows: &Windows) {
        let Some(mut entry) = self.take(job.fingerprint, windows) else { return };
        if entry.created().is_some_and(|created| created.job == job.id) {
            return;
        }
        remove_beneath(&mut entry, job.attempt);
        self.put(job.fingerprint, entry, windows);
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
                        self.put(fingerprint, *open, &bounds.windows);
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
        self.entries.get(fingerprint)
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

    fn put(&mut self, fingerprint: Fingerprint, entry: Entry, windows: &Windows) {
        if let Some(due) = entry.due(windows) {
            self.due.insert((due, fingerprint));
            if matches!(entry.state, State::Done(..)) {
                self.done.insert((due, fingerprint));
            }
        }
        if let Some(base) = entry.found_by_body() {
            self.by_base.entry(base).or_default().push(fingerprint);
        }
        if let Some(count) = self.counts.get_mut(index(&entry.state)) {
            *count += 1;
        }
        self.entries.insert(fingerprint, entry);
    }

    fn take(&mut self, fingerprint: Fingerprint, windows: &Windows) -> Option<Entry> {
        let entry = self.entries.remove(&fingerprint)?;
        if let Some(due) = entry.due(windows) {
            self.due.remove(&(due, fingerprint));
            self.done.remove(&(due, fingerprint));
        }
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

/// Takes an attempt's entry out of the chain beneath `entry`.
fn remove_beneath(entry: &mut Entry, attempt: AttemptId) {
    match entry.beneath.take() {
        Some(beneath) if beneath.attempt == attempt => entry.beneath = beneath.beneath,
        Some(mut beneath) => {
            remove_beneath(&mut beneath, attempt);
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
