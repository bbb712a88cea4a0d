//! Everything that the tables hold, read once, at the start.

use std::collections::HashSet;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableError};
use tracing::error;

use super::form::{Checked, EntryForm, JobForm, KeyForm, unseal, unseal_named};
use super::places;
use super::tables::{ACCOUNTS, ENTRIES, JOBS, KEYS, TABS, Table, corrupted, text};
use crate::bill::account::AccountKey;
use crate::bill::form::{self, AccountForm, TabForm};
use crate::clock::Time;
use crate::jobs::entry::AttemptId;
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::{Fingerprint, FingerprintKey};

/// What a file held.
pub struct Contents {
    /// Entries.
    pub entries: Vec<(Fingerprint, Checked<EntryForm>)>,
    /// Jobs.
    pub jobs: Vec<JobForm>,
    /// Idempotency keys.
    pub keys: Vec<(KeyDigest, KeyForm)>,
    /// Open tabs, by their attempt.
    pub tabs: Vec<(AttemptId, TabForm)>,
    /// Accounts.
    pub accounts: Vec<(AccountKey, AccountForm)>,
    /// The fingerprints' key.
    pub fingerprints: FingerprintKey,
    /// The last time that was written down.
    pub heartbeat: Time,
    /// Records beside entries that are damaged.
    pub damaged: usize,
}

impl Contents {
    /// Reads everything; `None` if the fingerprints' key is damaged.
    pub(super) fn read(transaction: &ReadTransaction) -> Result<Option<Self>, redb::Error> {
        let entries = entries(transaction)?;
        let (mut jobs, mut damaged) = (Vec::new(), 0);
        for row in transaction.open_table(JOBS)?.iter()? {
            let (key, value) = row?;
            let id = places::name(key.value())?;
            match unseal(id, value.value()) {
                Checked::Sound(form) => jobs.push(form),
                Checked::Damaged => {
                    damaged += 1;
                    error!(job = %String::from_utf8_lossy(id), "a job's record is damaged and is skipped")
                }
            }
        }
        let mut keys = Vec::new();
        for row in transaction.open_table(KEYS)?.iter()? {
            let (key, value) = row?;
            match (key.value().try_into(), unseal(key.value(), value.value())) {
                (Ok(digest), Checked::Sound(form)) => keys.push((digest, form)),
                _ => {
                    damaged += 1;
                    error!("an idempotency key's record is damaged and is skipped");
                }
            }
        }
        let (tabs, accounts) = read_bill(transaction, &mut damaged)?;
        let heartbeat = text(transaction, b"heartbeat")?.and_then(|millis| millis.parse().ok()).unwrap_or_default();
        let fingerprints = text(transaction, b"fingerprint key")?.and_then(|hex| FingerprintKey::from_hex(&hex).ok());
        let heartbeat = Time::from_millis(heartbeat);
        Ok(fingerprints.map(|fingerprints| Self {
            entries,
            jobs,
            keys,
            tabs,
            accounts,
            fingerprints,
            heartbeat,
            damaged,
        }))
    }
}

/// What attempts cost, by attempt, and what was spent, by account.
type Bill = (Vec<(AttemptId, TabForm)>, Vec<(AccountKey, AccountForm)>);

fn read_bill(transaction: &ReadTransaction, damaged: &mut usize) -> Result<Bill, redb::Error> {
    let (mut tabs, mut accounts) = (Vec::new(), Vec::new());
    for (key, value) in optional(transaction, TABS)? {
        match (<[u8; 16]>::try_from(key.as_slice()), unseal(&key, &value)) {
            (Ok(attempt), Checked::Sound(form)) => tabs.push((AttemptId::from_bytes(attempt), form)),
            _ => {
                *damaged += 1;
                error!("a tab of the ledger is damaged and is skipped");
            }
        }
    }
    for (key, value) in optional(transaction, ACCOUNTS)? {
        match (form::parse_account_key(&key), unseal(&key, &value)) {
            (Some(account), Checked::Sound(form)) => accounts.push((account, form)),
            _ => {
                *damaged += 1;
                error!("an account of the ledger is damaged and is skipped: what was spent in it is not known");
            }
        }
    }
    Ok((tabs, accounts))
}

/// All entries, under the names that they were written under. An entry that is missing would free its prompt, so the
/// store must give as many as it says it has, and each once.
fn entries(transaction: &ReadTransaction) -> Result<Vec<(Fingerprint, Checked<EntryForm>)>, redb::Error> {
    let table = transaction.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let key = places::name(key.value())?.try_into().map_err(|_| corrupted("an entry has lost its fingerprint"))?;
        let (name, form) = unseal_named(&key, value.value());
        if !names.insert(name) {
            return Err(corrupted("an entry stands there twice"));
        }
        entries.push((Fingerprint::from_bytes(name), form));
    }
    if table.len()? != entries.len() as u64 {
        return Err(corrupted("entries are missing"));
    }
    Ok(entries)
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// The rows of a table that files of the first version do not have.
fn optional(transaction: &ReadTransaction, table: Table) -> Result<Vec<Pair>, redb::Error> {
    let table = match transaction.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let rows = table.iter()?.map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())));
    rows.collect::<Result<_, _>>().map_err(redb::Error::from)
}
