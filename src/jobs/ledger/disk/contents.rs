//! Everything that the tables hold, read once, at the start: entries and jobs side by side, each row handed on as it is
//! read, so that a million of them are in memory in one form only.

use std::collections::HashSet;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};
use tracing::error;

use super::form::{EntryForm, JobForm, KeyForm};
use super::places::{self, Places};
use super::seal::{Checked, unseal, unseal_named};
use super::store::KEY;
use super::tables::{ACCOUNTS, ENTRIES, JOBS, KEYS, TABS, Table, beside, corrupted, text};
use crate::bill::account::AccountKey;
use crate::bill::form::{self, AccountForm, TabForm};
use crate::jobs::entry::AttemptId;
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::{Fingerprint, FingerprintKey};

/// What a file held, with what was made of its entries and of its jobs.
pub struct Contents<E, J> {
    /// Of the entries.
    pub entries: E,
    /// Of the jobs.
    pub jobs: J,
    /// Idempotency keys.
    pub keys: Vec<(KeyDigest, KeyForm)>,
    /// Open tabs, by their attempt.
    pub tabs: Vec<(AttemptId, TabForm)>,
    /// Accounts.
    pub accounts: Vec<(AccountKey, AccountForm)>,
    /// The fingerprints' key.
    pub fingerprints: FingerprintKey,
    /// Records beside entries that are damaged.
    pub damaged: usize,
}

/// Rows as they are read. All of them must be taken.
pub type Rows<'a, T> = &'a mut dyn Iterator<Item = T>;
/// An entry's row.
pub type EntryRow = (Fingerprint, Checked<EntryForm>);

impl<E: Send, J> Contents<E, J> {
    /// Reads everything; `None` if the fingerprints' key is damaged. `places` are those of the same tables.
    pub(super) fn read(
        database: &Database,
        places: &Places,
        take_entries: impl FnOnce(Rows<'_, EntryRow>) -> E + Send,
        take_jobs: impl FnOnce(Rows<'_, JobForm>) -> J,
    ) -> Result<Option<Self>, redb::Error> {
        let transaction = &database.begin_read()?;
        let (entries, (jobs, mut damaged)) =
            beside(|| entries(&database.begin_read()?, places, take_entries), || jobs(transaction, take_jobs))?;
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
        let fingerprints = text(transaction, KEY)?.and_then(|hex| FingerprintKey::from_hex(&hex).ok());
        Ok(fingerprints.map(|fingerprints| Self { entries, jobs, keys, tabs, accounts, fingerprints, damaged }))
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
fn entries<E>(
    transaction: &ReadTransaction,
    places: &Places,
    take: impl FnOnce(Rows<'_, EntryRow>) -> E,
) -> Result<E, redb::Error> {
    // The rows' keys differ, as their places say; a row whose key is damaged has its name from its value.
    let mut renamed = HashSet::new();
    let row = |key: &[u8], value: &[u8]| {
        let key = places::name(key)?.try_into().map_err(|_| corrupted("an entry has lost its fingerprint"))?;
        let (name, form) = unseal_named(&key, value);
        if name != key && (places.has_entry(&name) || !renamed.insert(name)) {
            return Err(corrupted("an entry stands there twice"));
        }
        Ok(Some((Fingerprint::from_bytes(name), form)))
    };
    each(transaction, ENTRIES, row, take)
}

/// All jobs, and how many are damaged.
fn jobs<J>(
    transaction: &ReadTransaction,
    take: impl FnOnce(Rows<'_, JobForm>) -> J,
) -> Result<(J, usize), redb::Error> {
    let mut damaged = 0;
    let row = |key: &[u8], value: &[u8]| {
        let id = places::name(key)?;
        match unseal(id, value) {
            Checked::Sound(form) => Ok(Some(form)),
            Checked::Damaged => {
                damaged += 1;
                error!(job = %String::from_utf8_lossy(id), "a job's record is damaged and is skipped");
                Ok(None)
            }
        }
    };
    let jobs = each(transaction, JOBS, row, take)?;
    Ok((jobs, damaged))
}

/// What `take` makes of the rows of a table, each as `row` reads it, if that could be done with all.
fn each<T, R>(
    transaction: &ReadTransaction,
    table: Table,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, redb::Error>,
    take: impl FnOnce(Rows<'_, T>) -> R,
) -> Result<R, redb::Error> {
    let table = transaction.open_table(table)?;
    let (mut read, mut failed) = (0, None);
    let mut rows = table.iter()?.map_while(|pair| {
        read += 1;
        let taken = pair.map_err(redb::Error::from).and_then(|(key, value)| row(key.value(), value.value()));
        taken.map_err(|error| failed = Some(error)).ok()
    });
    let result = take(&mut rows.by_ref().flatten());
    drop(rows);
    match failed {
        Some(error) => Err(error),
        None if table.len()? != read => Err(corrupted("rows are missing")),
        None => Ok(result),
    }
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
