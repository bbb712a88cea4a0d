//! One unit of work: the few records that a step touches are read into a small [`Book`], the step is the book's own, and
//! what it has changed is written if nothing has changed meanwhile. So there is one state machine for all ledgers.

use std::collections::{BTreeMap, BTreeSet};

use tracing::error;

use super::names::{base_key, bytes, entry_key, job_key, key_key, keys_of_key, tab_key};
use super::places::KEY_KEPT;
use super::script::{Command, Seen, Write};
use super::seal::Seal;
use crate::bill::form::TabForm;
use crate::bill::tab::Open;
use crate::clock::Time;
use crate::jobs::book::{Ask, Book};
use crate::jobs::entry::{AttemptId, Entry, Lapsed, State, Windows};
use crate::jobs::keys::{Fate, KeyDigest, KeyRecord};
use crate::jobs::ledger::disk::form::{EntryForm, JobForm, KeyForm};
use crate::jobs::ledger::disk::seal::Checked;
use crate::jobs::ledger::disk::store::nobody;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// What a step touches.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) entries: BTreeSet<Fingerprint>,
    pub(super) keys: BTreeSet<KeyDigest>,
    pub(super) jobs: BTreeSet<RequestId>,
    pub(super) tabs: BTreeSet<AttemptId>,
    /// The bodies under which keyless twins are found (M15).
    pub(super) bases: BTreeSet<Fingerprint>,
    /// The attempts whose keys are touched too (M16).
    pub(super) keys_of: BTreeSet<AttemptId>,
}

impl Wanted {
    /// What a submission may find, by each of the fingerprints' keys.
    pub(super) fn asked(ask: &Ask) -> Self {
        Self {
            entries: ask.by_all_keys().map(|ask| ask.fingerprint).collect(),
            keys: ask.by_all_keys().filter_map(|ask| ask.key).collect(),
            bases: ask.by_all_keys().filter_map(|ask| ask.base).collect(),
            ..Self::default()
        }
    }

    /// An entry.
    pub(super) fn entry(fingerprint: Fingerprint) -> Self {
        Self { entries: [fingerprint].into(), ..Self::default() }
    }

    /// An entry, and all that hangs on its attempt.
    pub(super) fn attempt(fingerprint: Fingerprint, attempt: AttemptId) -> Self {
        Self { tabs: [attempt].into(), keys_of: [attempt].into(), ..Self::entry(fingerprint) }
    }

    fn names(&self) -> Vec<String> {
        let entries = self.entries.iter().map(entry_key);
        let keys = self.keys.iter().map(key_key);
        let jobs = self.jobs.iter().map(job_key);
        entries.chain(keys).chain(jobs).chain(self.tabs.iter().map(tab_key)).collect()
    }
}

/// What was seen of the ledger: values by key; `None`, there is none.
pub(super) type Values = BTreeMap<String, Option<String>>;

/// A unit of work.
pub(super) struct Work {
    pub(super) wanted: Wanted,
    pub(super) values: Values,
    /// The sets that have been read, by their keys.
    read: BTreeSet<String>,
    pub(super) book: Book,
    lapsed: Lapsed,
}

/// What goes with the values.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Seals and opens values.
    pub(super) seal: &'a Seal,
    pub(super) windows: &'a Windows,
    pub(super) now: Time,
}

impl Work {
    /// A unit that expects nothing to be there.
    pub(super) fn hopeful(wanted: Wanted) -> Self {
        let values = wanted.names().into_iter().map(|name| (name, None)).collect();
        Self { values, ..Self::new(wanted) }
    }

    /// A unit that has seen nothing yet.
    pub(super) fn new(wanted: Wanted) -> Self {
        let (values, read, book, lapsed) = <_>::default();
        Self { wanted, values, read, book, lapsed }
    }

    /// The question that is still to be asked, if any.
    pub(super) fn question(&self) -> Option<Command> {
        let unseen = self.wanted.names().into_iter().filter(|name| !self.values.contains_key(name));
        let expect: Vec<Seen> = unseen.map(|key| Seen { key, value: None }).collect();
        let (twins, keys) = self.unread();
        let members: Vec<String> = twins.into_iter().chain(keys).collect();
        (!expect.is_empty() || !members.is_empty()).then(|| Command {
            read: true,
            expect,
            members,
            ..Command::default()
        })
    }

    /// Takes the answer to a question in. What is found may lead to further questions.
    pub(super) fn seen(
        &mut self,
        values: Vec<(String, Option<String>)>,
        members: &[Vec<String>],
        context: Context<'_>,
    ) {
        self.values.extend(values);
        let (twins, keys) = self.unread();
        let mut lists = members.iter();
        for set in twins {
            let names = lists.next().into_iter().flatten().filter_map(|name| bytes(name));
            self.wanted.entries.extend(names.map(Fingerprint::from_bytes));
            self.read.insert(set);
        }
        for set in keys {
            self.wanted.keys.extend(lists.next().into_iter().flatten().filter_map(|name| bytes(name)));
            self.read.insert(set);
        }
        self.read(context);
    }

    /// The sets that are still to be read: of twins by their body, and of the keys of attempts.
    fn unread(&self) -> (Vec<String>, Vec<String>) {
        let is_unread = |set: &String| !self.read.contains(set);
        let twins = self.wanted.bases.iter().map(base_key).filter(is_unread).collect();
        (twins, self.wanted.keys_of.iter().map(keys_of_key).filter(is_unread).collect())
    }

    /// Reads what was seen into the book.
    fn read(&mut self, context: Context<'_>) {
        let Context { seal, windows, now } = context;
        self.book = Book::default();
        self.lapsed = Lapsed::default();
        for fingerprint in self.wanted.entries.clone() {
            let key = entry_key(&fingerprint);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            let entry = match seal.open::<EntryForm>(&key, text) {
                Checked::Sound(form) => form.into_entry(),
                Checked::Damaged => {
                    error!(%fingerprint, "an entry of the ledger is not as it was written: its prompt is held as unknown");
                    Entry { state: State::Unknown(now + windows.hold), ..Entry::claimed(nobody(), "".into()) }
                }
            };
            if let Some(entry) = entry.lapse(now, windows, &mut self.lapsed) {
                self.book.restore_entry(fingerprint, entry, windows);
            }
        }
        self.wanted.tabs.extend(self.lapsed.gone.iter().copied());
        let doubtful = || self.lapsed.doubtful.iter().map(|(attempt, _)| *attempt);
        self.wanted.tabs.extend(doubtful());
        // Their keys are settled with them: they stay refused beyond the hold, when the entry is gone (M16).
        self.wanted.keys_of.extend(doubtful());
        for digest in self.wanted.keys.clone() {
            let key = key_key(&digest);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            if let Checked::Sound(form) = seal.open::<KeyForm>(&key, text) {
                let record = form.into_record();
                self.wanted.entries.insert(record.fingerprint);
                // How the job stands is asked only where its entry no longer says so.
                if let Fate::Created(created) = &record.fate
                    && self.book.stands_until(&record.fingerprint, &created.job, now, windows).is_none()
                {
                    self.wanted.jobs.insert(created.job.clone());
                }
                self.book.load_key(digest, record);
            }
        }
        for id in self.wanted.jobs.clone() {
            let key = job_key(&id);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            if let Checked::Sound(form) = seal.open::<JobForm>(&key, text)
                && let Some(record) = form.into_record()
            {
                self.book.restore_record(record);
            }
        }
        for attempt in self.wanted.tabs.clone() {
            let key = tab_key(&attempt);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            if let Checked::Sound(form) = seal.open::<TabForm>(&key, text) {
                self.book.tab_mut().load(attempt, form.into_open());
            }
        }
        // What a lapsed claim had reserved is given back by whoever finds it; what was being sent is at risk.
        let Lapsed { gone, doubtful } = std::mem::take(&mut self.lapsed);
        gone.into_iter().for_each(|attempt| self.book.tab_mut().release(attempt));
        doubtful.into_iter().for_each(|(attempt, until)| self.book.tab_mut().doubt(attempt, until));
    }

    /// Begins again over what has changed meanwhile.
    pub(super) fn again(&mut self, values: Vec<(String, Option<String>)>, context: Context<'_>) {
        self.values.extend(values);
        self.read(context);
    }

    /// What is to be written, over what was seen.
    pub(super) fn command(&self, context: Context<'_>) -> Command {
        let mut command = Command::default();
        let seen = |key: &String| self.values.get(key).cloned().flatten();
        command.expect =
            self.values.iter().map(|(key, value)| Seen { key: key.clone(), value: value.clone() }).collect();
        for fingerprint in &self.wanted.entries {
            self.write_entry(fingerprint, context, &mut command);
        }
        for digest in &self.wanted.keys {
            let key = key_key(digest);
            // A key that merely hit is no part of a step (M16).
            let record = self.book.key(digest).filter(|record| !self.is_mere_hit(&key, record));
            let value = record.and_then(|record| context.seal.seal(&key, &KeyForm::of(record)));
            if value != seen(&key) {
                let gone = || (context.now + KEY_KEPT).as_millis();
                let expires = record.map_or_else(gone, |record| command.place_key(digest, record));
                command.writes.push(Write { key, value, expires, stamp: None });
            }
        }
        for id in &self.wanted.jobs {
            let key = job_key(id);
            let Some(record) = self.book.record(id) else { continue };
            let value = context.seal.seal(&key, &JobForm::of(record));
            if value != seen(&key) && value.is_some() {
                let expires = command.place_job(record, context.now);
                command.writes.push(Write { key, value, expires, stamp: None });
            }
        }
        for attempt in &self.wanted.tabs {
            let key = tab_key(attempt);
            let (before, after) = (self.tab_before(attempt, context.seal), self.book.tab().open(attempt));
            let value = after.and_then(|open| context.seal.seal(&key, &TabForm::of(open)));
            if value != seen(&key) {
                let expires = command.place_tab(attempt, before.as_ref(), after, context.now);
                command.writes.push(Write { key, value, expires, stamp: None });
            }
        }
        command.post(self.book.tab(), context.now);
        command
    }

    /// The keys that merely hit just now, and were not known before.
    pub(super) fn merely_hit(&self) -> impl Iterator<Item = (&KeyDigest, &KeyRecord)> {
        let keys = self.wanted.keys.iter().filter_map(|digest| Some((digest, self.book.key(digest)?)));
        keys.filter(|(digest, record)| self.is_mere_hit(&key_key(digest), record))
    }

    fn is_mere_hit(&self, key: &str, record: &KeyRecord) -> bool {
        matches!(record.fate, Fate::Created(_)) && !matches!(self.values.get(key), Some(Some(_)))
    }

    fn write_entry(&self, fingerprint: &Fingerprint, context: Context<'_>, command: &mut Command) {
        let Context { seal, windows, now } = context;
        let key = entry_key(fingerprint);
        let before = self.values.get(&key).cloned().flatten();
        let entry = self.book.entry(fingerprint);
        let value = entry.and_then(|entry| seal.seal(&key, &EntryForm::whole(entry)));
        if value == before {
            return;
        }
        let old = before.and_then(|text| seal.read::<EntryForm>(&key, &text)).map(EntryForm::into_entry);
        let expires = command.place_entry(fingerprint, old.as_ref(), entry, now, windows);
        command.writes.push(Write { key, value, expires, stamp: None });
    }

    /// A tab as it was seen.
    fn tab_before(&self, attempt: &AttemptId, seal: &Seal) -> Option<Open> {
        let key = tab_key(attempt);
        let text = self.values.get(&key)?.as_deref()?;
        seal.read::<TabForm>(&key, text).map(TabForm::into_open)
    }
}
