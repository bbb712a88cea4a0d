//! The entries, and what is asked of all of them at once: whose time ends next, who may leave, what is unknown. The
//! indexes follow each change; one that no index cares about, which is nearly every look, touches none.

use std::collections::btree_map::{BTreeMap, Range};
use std::collections::{BTreeSet, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::HashMap;

use super::teams::Teams;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Entry, State, Windows};
use crate::request::fingerprint::Fingerprint;

/// An unknown outcome, by the end of its hold.
pub(super) type Unknown = (Time, AttemptId, Fingerprint);

/// All entries.
#[derive(Debug, Default)]
pub struct Entries {
    /// In order, so that a page of them, and the one that is named by its first digits, is found without a walk.
    by_name: BTreeMap<Fingerprint, Box<Entry>>,
    indexes: Indexes,
}

#[derive(Debug, Default)]
struct Indexes {
    /// Entries that time ends, the next first.
    due: BTreeSet<(Time, Fingerprint)>,
    /// Whose entries they are, and which may make room.
    teams: Teams,
    /// Where outcomes are unknown, also beneath another entry.
    unknowns: BTreeSet<Unknown>,
    /// Keyless entries of `dedup.by = "idempotency-key"` that are held or undelivered, by their body (M15).
    by_base: HashMap<Fingerprint, Vec<Fingerprint>>,
    counts: [usize; STATES.len()],
}

/// What the indexes know of an entry.
struct Marks {
    due: Option<Time>,
    team: Arc<str>,
    /// Until when a `done` one is a hit: it may make room.
    done: Option<Time>,
    unknowns: Vec<Unknown>,
    base: Option<Fingerprint>,
    state: usize,
}

impl Marks {
    fn of(name: Fingerprint, entry: &Entry, windows: &Windows) -> Self {
        Self {
            due: entry.due(windows),
            team: entry.team.clone(),
            done: done(entry),
            unknowns: unknowns(name, entry).collect(),
            base: entry.found_by_body(),
            state: index(&entry.state),
        }
    }
}

impl Entries {
    /// These entries, whose names differ: at once, which is several times as fast as one by one.
    pub fn of(entries: Vec<(Fingerprint, Box<Entry>)>, windows: &Windows) -> Self {
        let by_name: BTreeMap<_, _> = entries.into_iter().collect();
        let all = || by_name.iter().map(|(name, entry)| (*name, entry.as_ref()));
        let mut indexes = Indexes {
            due: all().filter_map(|(name, entry)| Some((entry.due(windows)?, name))).collect(),
            teams: all().map(|(name, entry)| (name, &entry.team, done(entry))).collect(),
            unknowns: all().flat_map(|(name, entry)| unknowns(name, entry)).collect(),
            ..Indexes::default()
        };
        for (name, entry) in all() {
            indexes.put_base(name, entry.found_by_body());
            indexes.count(index(&entry.state));
        }
        Self { by_name, indexes }
    }

    /// Puts one in under a name that none has.
    pub(super) fn put(&mut self, name: Fingerprint, entry: impl Into<Box<Entry>>, windows: &Windows) {
        let entry = entry.into();
        self.indexes.put(name, &Marks::of(name, &entry, windows));
        self.by_name.insert(name, entry);
    }

    /// Takes one out.
    pub(super) fn take(&mut self, name: Fingerprint, windows: &Windows) -> Option<Box<Entry>> {
        let entry = self.by_name.remove(&name)?;
        self.indexes.take(name, &Marks::of(name, &entry, windows));
        Some(entry)
    }

    /// Changes one where it stands.
    pub(super) fn change<T>(
        &mut self,
        name: Fingerprint,
        windows: &Windows,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        let entry = self.by_name.get_mut(&name)?;
        let before = Marks::of(name, entry, windows);
        let result = change(entry);
        self.indexes.turn(name, &before, &Marks::of(name, entry, windows));
        Some(result)
    }

    /// The next one whose time has come, as far as the index knows: a reload may have moved its end.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Fingerprint> {
        self.indexes.due.first().filter(|(due, _)| *due <= now)?;
        self.indexes.due.pop_first().map(|(_, name)| name)
    }

    /// Its time has not come yet.
    pub(super) fn put_off(&mut self, name: Fingerprint, due: Time) {
        self.indexes.due.insert((due, name));
    }

    /// One of them.
    pub(super) fn get(&self, name: &Fingerprint) -> Option<&Entry> {
        self.by_name.get(name).map(AsRef::as_ref)
    }

    /// One of them, for what no index knows.
    pub(super) fn get_mut(&mut self, name: &Fingerprint) -> Option<&mut Entry> {
        self.by_name.get_mut(name).map(AsMut::as_mut)
    }

    /// All of them, for what no index knows.
    pub(super) fn iter_mut(&mut self) -> btree_map::IterMut<'_, Fingerprint, Box<Entry>> {
        self.by_name.iter_mut()
    }

    /// In order, from one on.
    pub(super) fn from(&self, first: Bound<Fingerprint>) -> Range<'_, Fingerprint, Box<Entry>> {
        self.by_name.range((first, Bound::Unbounded))
    }

    /// The held or undelivered ones of a body.
    pub(super) fn of_base(&self, base: &Fingerprint) -> &[Fingerprint] {
        self.indexes.by_base.get(base).map_or(&[], Vec::as_slice)
    }

    /// All unknown outcomes.
    pub(super) const fn unknowns(&self) -> &BTreeSet<Unknown> {
        &self.indexes.unknowns
    }

    /// The next to make room.
    pub(super) fn next_to_leave(&self) -> Option<Fingerprint> {
        self.indexes.teams.next_to_leave()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many stand in each state.
    pub(super) fn counts(&self) -> [(&'static str, usize); STATES.len()] {
        let mut named = STATES.map(|name| (name, 0));
        for ((_, count), held) in named.iter_mut().zip(self.indexes.counts) {
            *count = held;
        }
        named
    }
}

impl Indexes {
    fn put(&mut self, name: Fingerprint, marks: &Marks) {
        self.due.extend(marks.due.map(|due| (due, name)));
        self.teams.put(name, &marks.team, marks.done);
        self.unknowns.extend(&marks.unknowns);
        self.put_base(name, marks.base);
        self.count(marks.state);
    }

    fn take(&mut self, name: Fingerprint, marks: &Marks) {
        self.take_due(name, marks.due);
        self.teams.take(name, &marks.team, marks.done);
        self.take_unknowns(&marks.unknowns);
        self.take_base(name, marks.base);
        self.discount(marks.state);
    }

    /// The entry was one thing and is another now; whose it is does not change.
    fn turn(&mut self, name: Fingerprint, before: &Marks, now: &Marks) {
        if before.due != now.due {
            self.take_due(name, before.due);
            self.due.extend(now.due.map(|due| (due, name)));
        }
        if before.done != now.done {
            self.teams.turn(name, &now.team, before.done, now.done);
        }
        if before.unknowns != now.unknowns {
            self.take_unknowns(&before.unknowns);
            self.unknowns.extend(&now.unknowns);
        }
        if before.base != now.base {
            self.take_base(name, before.base);
            self.put_base(name, now.base);
        }
        if before.state != now.state {
            self.discount(before.state);
            self.count(now.state);
        }
    }

    fn take_due(&mut self, name: Fingerprint, due: Option<Time>) {
        if let Some(due) = due {
            self.due.remove(&(due, name));
        }
    }

    fn take_unknowns(&mut self, unknowns: &[Unknown]) {
        for unknown in unknowns {
            self.unknowns.remove(unknown);
        }
    }

    fn put_base(&mut self, name: Fingerprint, base: Option<Fingerprint>) {
        if let Some(base) = base {
            self.by_base.entry(base).or_default().push(name);
        }
    }

    fn take_base(&mut self, name: Fingerprint, base: Option<Fingerprint>) {
        let Some(base) = base else { return };
        let Some(twins) = self.by_base.get_mut(&base) else { return };
        twins.retain(|twin| *twin != name);
        if twins.is_empty() {
            self.by_base.remove(&base);
        }
    }

    fn count(&mut self, state: usize) {
        if let Some(count) = self.counts.get_mut(state) {
            *count += 1;
        }
    }

    fn discount(&mut self, state: usize) {
        if let Some(count) = self.counts.get_mut(state) {
            *count = count.saturating_sub(1);
        }
    }
}

fn unknowns(name: Fingerprint, entry: &Entry) -> impl Iterator<Item = Unknown> {
    entry.layers().filter_map(move |entry| match entry.state {
        State::Unknown(until) => Some((until, entry.attempt, name)),
        _ => None,
    })
}

const fn done(entry: &Entry) -> Option<Time> {
    match entry.state {
        State::Done(_, until) => Some(until),
        _ => None,
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
impl Entries {
    /// The indexes say what the entries say.
    pub(super) fn check(&self, windows: &Windows) {
        let entries = self.by_name.iter().map(|(name, entry)| (*name, entry.clone())).collect();
        let anew = Self::of(entries, windows).indexes;
        let sorted = |by_base: &HashMap<Fingerprint, Vec<Fingerprint>>| -> BTreeMap<_, BTreeSet<_>> {
            by_base.iter().map(|(base, twins)| (*base, twins.iter().copied().collect())).collect()
        };
        let Indexes { due, teams, unknowns, by_base, counts } = &self.indexes;
        assert_eq!((due, teams, unknowns), (&anew.due, &anew.teams, &anew.unknowns));
        assert_eq!((sorted(by_base), *counts), (sorted(&anew.by_base), anew.counts));
    }
}
