//! What of the book is written down, and when: which entries, jobs and keys have changed, and how they come back.

use foldhash::HashSet;

use super::entries::Entries;
use super::{Ask, Book};
use crate::bill::tab::Changed;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Entry, State, Windows};
use crate::jobs::keys::{self, KeyDigest, KeyRecord};
use crate::jobs::records::{Record, Records};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// What is to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Entries by their fingerprint.
    pub entries: HashSet<Fingerprint>,
    /// Jobs by their id.
    pub jobs: HashSet<RequestId>,
    /// Idempotency keys.
    pub keys: HashSet<KeyDigest>,
    /// Tabs and accounts.
    pub bill: Changed,
}

impl Dirty {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.jobs.is_empty() && self.keys.is_empty() && self.bill.is_empty()
    }
}

impl Book {
    /// Notes from now on what is to be written down.
    pub fn keep_dirty(&mut self) {
        self.dirty = Some(Dirty::default());
        self.keys.keep_changed();
        self.records.keep_changed();
        self.tab.keep_changed();
    }

    /// What has changed since this was asked last, to be written down now.
    pub fn take_dirty(&mut self) -> Dirty {
        let Some(dirty) = &mut self.dirty else { return Dirty::default() };
        dirty.keys.extend(self.keys.take_changed());
        dirty.jobs.extend(self.records.take_changed());
        dirty.bill.extend(self.tab.take_changed());
        self.writing.clone_from(&dirty.jobs);
        std::mem::take(dirty)
    }

    /// What was taken is written down.
    pub fn settle_dirty(&mut self) {
        self.writing.clear();
    }

    /// Whether a job's record is not yet written down: until then nobody may be told its id (M7).
    pub fn is_unwritten(&self, job: &RequestId) -> bool {
        let waits = self.dirty.as_ref().is_some_and(|dirty| dirty.jobs.contains(job)) || self.records.is_changed(job);
        waits || self.writing.contains(job)
    }

    /// What could not be written down is still to be.
    pub fn put_back_dirty(&mut self, unwritten: Dirty) {
        self.writing.clear();
        if let Some(dirty) = &mut self.dirty {
            dirty.entries.extend(unwritten.entries);
            dirty.jobs.extend(unwritten.jobs);
            dirty.keys.extend(unwritten.keys);
            dirty.bill.extend(unwritten.bill);
        }
    }

    /// Whether anything is to be written down.
    pub fn is_dirty(&self) -> bool {
        self.dirty.as_ref().is_some_and(|dirty| !dirty.is_empty())
            || self.keys.has_changed()
            || self.records.has_changed()
            || self.tab.has_changed()
    }

    /// Whether it remembers nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.records.is_empty() && self.keys.is_empty()
    }

    /// The record of a job, to be written down.
    pub fn record(&self, id: &RequestId) -> Option<&Record> {
        self.records.get(id)
    }

    /// The record of an idempotency key, to be written down.
    pub fn key(&self, digest: &KeyDigest) -> Option<&KeyRecord> {
        self.keys.record(digest)
    }

    /// The book of everything that was written down but keys and tabs: at once, which is several times as fast as one by
    /// one.
    pub fn restored(entries: Entries, records: Records) -> Self {
        let mut book = Self { entries, records, ..Self::default() };
        for (fingerprint, entry) in book.entries.iter_mut() {
            let mut next = Some(entry.as_mut());
            while let Some(layer) = next {
                if let Some(created) = layer.created() {
                    match book.records.get(&created.job).map(|record| &record.job) {
                        Some(job) if job.fingerprint == *fingerprint => layer.share(job),
                        _ => book.twice.add(&created.job, *fingerprint),
                    }
                }
                next = layer.beneath.as_deref_mut();
            }
        }
        book
    }

    /// Puts an entry back that was written down.
    pub fn restore_entry(&mut self, fingerprint: Fingerprint, entry: Entry, windows: &Windows) {
        // Which of them a record names is known when the records come back.
        for created in entry.layers().filter_map(Entry::created) {
            self.twice.add(&created.job, fingerprint);
        }
        self.entries.put(fingerprint, entry, windows);
    }

    /// Puts a job back that was written down.
    pub fn restore_record(&mut self, record: Record) {
        let job = &record.job;
        if let Some(own) = self.entries.get_mut(&job.fingerprint).and_then(|entry| entry.of_job(&job.id)) {
            own.share(job);
        }
        self.twice.remove(&job.id, job.fingerprint);
        self.records.restore(record);
    }

    /// Puts an idempotency key back that was written down, if its attempt still means something. What it has come to is
    /// written down in its turn: its entry will be gone before it is.
    pub fn restore_key(&mut self, digest: KeyDigest, record: KeyRecord) {
        let entry = self.entries.get_mut(&record.fingerprint).and_then(|entry| entry.of_attempt(record.attempt));
        let fate = match (record.fate, entry) {
            // What was in flight when the process ended is unknown if it was sent, and nothing if it was not.
            (keys::Fate::InFlight, None) => return self.keys.mark(digest),
            (keys::Fate::InFlight, Some(_)) => {
                self.keys.mark(digest);
                keys::Fate::Unknown
            }
            (fate, _) => fate,
        };
        self.keys.restore(digest, KeyRecord { fate, ..record });
    }

    /// Takes in an idempotency key as it stands elsewhere. What its entry has come to since counts.
    pub fn load_key(&mut self, digest: KeyDigest, mut record: KeyRecord) {
        if record.fate == keys::Fate::InFlight {
            let entry = self.entries.get_mut(&record.fingerprint).and_then(|entry| entry.of_attempt(record.attempt));
            match entry.map(|entry| (entry.created().cloned(), &entry.state)) {
                Some((Some(created), _)) => record.fate = keys::Fate::Created(created),
                Some((None, State::Unknown(_))) => record.fate = keys::Fate::Unknown,
                Some((None, _)) => {}
                // Its attempt made nothing, or was replaced before anything came of it.
                None => return,
            }
        }
        self.keys.load(digest, record);
    }

    /// Until when an attempt's claim stands, on a ledger that replicas share (M4). Whether there is such an attempt.
    pub fn lease(
        &mut self,
        fingerprint: Fingerprint,
        attempt: AttemptId,
        lease: Option<Time>,
        windows: &Windows,
    ) -> bool {
        let leased = self.entries.change(fingerprint, windows, |entry| match entry.of_attempt(attempt) {
            Some(own) => {
                own.rest.change().lease = lease;
                true
            }
            None => false,
        });
        leased == Some(true)
    }

    /// An attempt that goes on though its lease had lapsed and it read as unknown (M4). Whether there is such an attempt.
    pub fn renew(&mut self, fingerprint: Fingerprint, attempt: AttemptId, lease: Time, windows: &Windows) -> bool {
        let renewed = self.entries.change(fingerprint, windows, |entry| match entry.of_attempt(attempt) {
            Some(own) if own.rest.lease.is_some() => {
                own.rest.change().lease = Some(lease);
                if let State::Unknown(_) = own.state {
                    own.state = State::Sending;
                }
                true
            }
            _ => false,
        });
        renewed == Some(true)
    }

    /// The entry of an attempt, or one beneath it.
    pub fn entry_of(&mut self, fingerprint: Fingerprint, attempt: AttemptId) -> Option<&mut Entry> {
        self.entries.get_mut(&fingerprint)?.of_attempt(attempt)
    }

    /// A small book of what one submission touches: what is done there leaves this one as it is.
    pub fn excerpt(&self, ask: &Ask, windows: &Windows) -> Self {
        let mut excerpt = Self::default();
        let copy_job = |excerpt: &mut Self, id: &RequestId| {
            if let Some(job) = self.records.get(id).filter(|_| excerpt.job(id).is_none()) {
                excerpt.records.restore(job.clone());
            }
        };
        let mut named = HashSet::default();
        for ask in ask.by_all_keys() {
            named.insert(ask.fingerprint);
            named.extend(ask.base.iter().flat_map(|base| self.entries.of_base(base)).copied());
            let Some((digest, record)) = ask.key.and_then(|digest| Some((digest, self.keys.record(&digest)?))) else {
                continue;
            };
            named.insert(record.fingerprint);
            if let keys::Fate::Created(created) = &record.fate {
                copy_job(&mut excerpt, &created.job);
            }
            excerpt.keys.restore(digest, record.clone());
        }
        for fingerprint in named {
            let Some(entry) = self.entry(&fingerprint) else { continue };
            if let Some(created) = entry.created() {
                copy_job(&mut excerpt, &created.job);
            }
            excerpt.entries.put(fingerprint, entry.clone(), windows);
        }
        excerpt
    }

    /// An entry is to be written down.
    pub fn mark(&mut self, fingerprint: Fingerprint) {
        if let Some(dirty) = &mut self.dirty {
            dirty.entries.insert(fingerprint);
        }
    }
}
