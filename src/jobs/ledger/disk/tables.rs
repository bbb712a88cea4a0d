//! The tables: one redb database. A damaged file may make it panic wherever it is asked, and where it is closed: that is
//! an answer like another (F-43).

use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use super::batch::{KINDS, Kind, Row};
use super::seal::{Checked, unseal};
use super::store::StoreError;
use crate::panics::quietly;

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Entries and jobs, each at its place.
pub(super) const ENTRIES: Table = TableDefinition::new("placed entries");
pub(super) const JOBS: Table = TableDefinition::new("placed jobs");
pub(super) const KEYS: Table = TableDefinition::new("keys");
pub(super) const TABS: Table = TableDefinition::new("tabs");
pub(super) const ACCOUNTS: Table = TableDefinition::new("accounts");
pub(super) const META: Table = TableDefinition::new("meta");
/// The bytes of pages that are kept in memory. What is asked for is in the book; only the writer reads them, and by
/// itself redb would keep a GiB.
const CACHE: usize = 32 << 20;

/// An open database.
pub(super) struct Tables {
    /// `None` once it is closed.
    database: Option<Database>,
    path: PathBuf,
}

impl Tables {
    /// Opens the file, which may be empty.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = guarded(path, || Database::builder().set_cache_size(CACHE).create(path))?;
        match database {
            Ok(database) => Ok(Self { database: Some(database), path: path.to_owned() }),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse(path.to_owned())),
            Err(error) => Err(told(path, error.into())),
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    ///
    /// # Errors
    /// Once it is closed.
    pub(super) fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    /// Asks something of it.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk fails, [`StoreError::Unreadable`] where the file is damaged.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        guarded(&self.path, || ask(self.database()?))?.map_err(|error| told(&self.path, error))
    }

    /// Writes rows, all of them or none.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(super) fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        self.ask(|database| {
            let transaction = database.begin_write()?;
            put(&transaction, rows)?;
            Ok(transaction.commit()?)
        })
    }

    /// Reads all of it and compares each page with its checksum, which is done at no other time.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(super) fn check_all(&mut self) -> Result<(), StoreError> {
        let Some(database) = &mut self.database else { return Err(told(&self.path, redb::Error::DatabaseClosed)) };
        let mut check =
            || guarded(&self.path, || database.check_integrity())?.map_err(|error| told(&self.path, error.into()));
        // What it repairs at first is the store's own account of its pages. That must be right then.
        if check()? || check()? { Ok(()) } else { Err(self.unreadable("it cannot be repaired")) }
    }

    /// A text about the file itself, if it is there and sound.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(super) fn text(&self, name: &[u8]) -> Result<Option<String>, StoreError> {
        self.ask(|database| text(&database.begin_read()?, name))
    }

    pub(super) fn unreadable(&self, why: &str) -> StoreError {
        StoreError::Unreadable(self.path.clone(), why.to_owned())
    }
}

impl Drop for Tables {
    /// It writes once more when it is closed, and may meet damage there.
    fn drop(&mut self) {
        let database = self.database.take();
        _ = guarded(&self.path, || drop(database));
    }
}

/// See [`Tables::text`].
pub(super) fn text(transaction: &ReadTransaction, name: &[u8]) -> Result<Option<String>, redb::Error> {
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        meta => meta?,
    };
    let value = meta.get(name)?;
    Ok(value.and_then(|value| match unseal(name, value.value()) {
        Checked::Sound(text) => Some(text),
        Checked::Damaged => None,
    }))
}

/// What an error of the store says about the file.
fn told(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) if error.kind() != ErrorKind::InvalidData => StoreError::Io(path.to_owned(), error),
        error => StoreError::Unreadable(path.to_owned(), error.to_string()),
    }
}

/// Damage that the store itself does not see.
pub(super) fn corrupted(why: &str) -> redb::Error {
    redb::Error::Corrupted(why.to_owned())
}

/// Rows into their tables.
pub(super) fn put<'a>(
    transaction: &WriteTransaction,
    rows: impl IntoIterator<Item = &'a Row> + Clone,
) -> Result<(), redb::Error> {
    for kind in KINDS {
        let mut own = rows.clone().into_iter().filter(|row| row.kind == kind).peekable();
        if own.peek().is_none() {
            continue;
        }
        let mut table = transaction.open_table(table(kind))?;
        for row in own {
            match &row.value {
                Some(value) => drop(table.insert(row.key.as_slice(), value.as_slice())?),
                None => drop(table.remove(row.key.as_slice())?),
            }
        }
    }
    Ok(())
}

/// The table of a kind of rows.
pub(super) const fn table(kind: Kind) -> Table {
    match kind {
        Kind::Entries => ENTRIES,
        Kind::Jobs => JOBS,
        Kind::Keys => KEYS,
        Kind::Tabs => TABS,
        Kind::Accounts => ACCOUNTS,
        Kind::Meta => META,
    }
}

/// The answer of a call that may panic.
pub(super) fn guarded<T>(path: &Path, call: impl FnOnce() -> T) -> Result<T, StoreError> {
    quietly(call).map_err(|_| StoreError::Unreadable(path.to_path_buf(), "the store gave up on it".to_owned()))
}

/// Does both at a time. A panic of either is this one's, which is [`guarded`].
pub(super) fn beside<A: Send, B>(
    first: impl FnOnce() -> Result<A, redb::Error> + Send,
    second: impl FnOnce() -> Result<B, redb::Error>,
) -> Result<(A, B), redb::Error> {
    thread::scope(|scope| {
        let first = thread::Builder::new().name("ledger-read".to_owned()).spawn_scoped(scope, || quietly(first));
        let first = first.map_err(redb::Error::Io)?;
        let second = second();
        let first = first.join().flatten().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((first?, second?))
    })
}
