//! What is written together: what has changed in the book, as rows of the file's tables.

use crate::bill::account::AccountKey;
use crate::bill::form::{self, AccountForm, TabForm};
use crate::clock::Time;
use crate::jobs::book::{Book, Dirty};
use crate::jobs::entry::AttemptId;
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::Fingerprint;

use super::form::{EntryForm, JobForm, KeyForm};
use super::seal::{seal, seal_named};

/// What is to be written together; `None` deletes.
#[derive(Debug, Default)]
pub struct Batch {
    /// Entries.
    pub entries: Vec<(Fingerprint, Option<EntryForm>)>,
    /// Jobs, by their id.
    pub jobs: Vec<(String, Option<JobForm>)>,
    /// Idempotency keys.
    pub keys: Vec<(KeyDigest, Option<KeyForm>)>,
    /// Open tabs, by their attempt.
    pub tabs: Vec<(AttemptId, Option<TabForm>)>,
    /// Accounts.
    pub accounts: Vec<(AccountKey, Option<AccountForm>)>,
    /// Now.
    pub heartbeat: Time,
}

impl Batch {
    /// What has changed in a book.
    pub fn of(book: &Book, dirty: &Dirty, heartbeat: Time) -> Self {
        let tab = book.tab();
        let accounts = dirty.bill.accounts.iter();
        Self {
            entries: dirty.entries.iter().map(|name| (*name, book.entry(name).and_then(EntryForm::of))).collect(),
            jobs: dirty.jobs.iter().map(|id| (id.to_string(), book.record(id).map(JobForm::of))).collect(),
            keys: dirty.keys.iter().map(|digest| (*digest, book.key(digest).map(KeyForm::of))).collect(),
            tabs: dirty.bill.tabs.iter().map(|attempt| (*attempt, tab.open(attempt).map(TabForm::of))).collect(),
            accounts: accounts.map(|key| (key.clone(), tab.account(key).map(AccountForm::of))).collect(),
            heartbeat,
        }
    }

    /// Its rows, sealed; the last one is the heartbeat.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (fingerprint, form) in &self.entries {
            let key = fingerprint.as_bytes();
            rows.push(Row::new(Kind::Entries, key, form.as_ref().and_then(|form| seal_named(key, form))));
        }
        for (id, form) in &self.jobs {
            let key = id.as_bytes();
            rows.push(Row::new(Kind::Jobs, key, form.as_ref().and_then(|form| seal(key, form))));
        }
        for (digest, form) in &self.keys {
            rows.push(Row::new(Kind::Keys, digest, form.as_ref().and_then(|form| seal(digest, form))));
        }
        for (attempt, form) in &self.tabs {
            let key = attempt.into_bytes();
            rows.push(Row::new(Kind::Tabs, &key, form.as_ref().and_then(|form| seal(&key, form))));
        }
        for (account, form) in &self.accounts {
            let key = form::account_key(account);
            rows.push(Row::new(Kind::Accounts, &key, form.as_ref().and_then(|form| seal(&key, form))));
        }
        rows.push(Row::text(b"heartbeat", &self.heartbeat.as_millis().to_string()));
        rows
    }
}

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Entries,
    Jobs,
    Keys,
    Tabs,
    Accounts,
    Meta,
}

/// All tables; a table's number in the log is its place here.
pub(super) const KINDS: [Kind; 6] = [Kind::Entries, Kind::Jobs, Kind::Keys, Kind::Tabs, Kind::Accounts, Kind::Meta];

/// A value of a table, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) key: Vec<u8>,
    /// `None` deletes.
    pub(super) value: Option<Vec<u8>>,
}

impl Row {
    pub(super) fn new(kind: Kind, key: &[u8], value: Option<Vec<u8>>) -> Self {
        Self { kind, key: key.to_vec(), value }
    }

    /// A text about the file itself.
    pub(super) fn text(name: &[u8], text: &str) -> Self {
        Self::new(Kind::Meta, name, seal(name, &text))
    }
}
