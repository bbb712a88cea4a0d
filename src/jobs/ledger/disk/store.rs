//! The file: one redb database in a folder of ours, opened by one process at a time. Every call may block; none is made
//! on a thread that serves anybody.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    WriteTransaction,
};
use rustix::fs::FlockOperation;
use tracing::error;

use super::form::{Checked, EntryForm, JobForm, KeyForm, seal, seal_named, unseal, unseal_named};
use crate::bill::account::AccountKey;
use crate::bill::form::{self, AccountForm, TabForm};
use crate::clock::Time;
use crate::jobs::book::{Book, Dirty};
use crate::jobs::entry::AttemptId;
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::{Fingerprint, FingerprintKey};

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const ENTRIES: Table = TableDefinition::new("entries");
const JOBS: Table = TableDefinition::new("jobs");
const KEYS: Table = TableDefinition::new("keys");
const TABS: Table = TableDefinition::new("tabs");
const ACCOUNTS: Table = TableDefinition::new("accounts");
const META: Table = TableDefinition::new("meta");
/// The file in the ledger's folder.
pub(super) const FILE: &str = "ledger.redb";
/// The file whose lock is the process's that has the ledger, also while the ledger itself is closed after a failure.
pub(super) const LOCK: &str = "ledger.lock";
/// The version of the tables.
const FORMAT: u32 = 1;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{0}: another process uses this ledger")]
    InUse(PathBuf),
    /// The folder or file cannot be made or opened.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    /// It is no ledger, or a damaged one.
    #[error("{path}: the ledger cannot be read: {why}", path = .0.display(), why = .1)]
    Unreadable(PathBuf, String),
    /// It was written by another version of this program.
    #[error("{path}: the ledger has format {found}, this version reads {FORMAT}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Writing failed.
    #[error("{0}")]
    Write(String),
}

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
}

/// An open ledger file.
pub struct Store {
    database: Database,
    path: PathBuf,
    /// Held as long as the file is open.
    _lock: fs::File,
}

impl Store {
    /// Opens the file in `folder`; makes both if they are not there, for this user alone (M9).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let broken = |error| StoreError::Io(path.clone(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(broken)?;
        let lock = lock(folder).map_err(broken)?.ok_or_else(|| StoreError::InUse(path.clone()))?;
        match fs::metadata(&path) {
            Ok(file) if file.len() == 0 => return Err(StoreError::Unreadable(path, "it is empty".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => begin(folder, &path)?,
            Err(error) => return Err(StoreError::Io(path, error)),
        }
        // What the system says against it is clearer than what the store would make of it.
        let file = OpenOptions::new().read(true).write(true).open(&path);
        drop(file.map_err(broken)?);
        let store = Self { database: database(&path)?, path, _lock: lock };
        store.check_format()?;
        Ok(store)
    }

    /// Opens the file in `folder`, which must be there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_existing(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        fs::metadata(&path).map_err(|error| StoreError::Io(path.clone(), error))?;
        Self::open(folder)
    }

    /// Begins a new file in `folder`, with this fingerprint key or a new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(folder: &Path, fingerprints: Option<&str>) -> Result<Self, StoreError> {
        let store = Self::open(folder)?;
        if let Some(hex) = fingerprints {
            let written = guarded(&store.path, || -> Result<(), redb::Error> {
                let transaction = store.database.begin_write()?;
                put_text(&transaction, b"fingerprint key", hex)?;
                transaction.commit()?;
                Ok(())
            })?;
            written.map_err(|error| StoreError::Write(error.to_string()))?;
        }
        Ok(store)
    }

    /// Where it is, to be opened again.
    pub fn folder(&self) -> PathBuf {
        self.path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
    }

    /// Everything in it.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`], where the file itself is damaged; damaged values are told one by one.
    pub fn read(&self) -> Result<Contents, StoreError> {
        guarded(&self.path, || self.read_unguarded())?
            .map_err(|error| StoreError::Unreadable(self.path.clone(), error.to_string()))
            .and_then(|contents| contents.ok_or_else(|| self.unreadable("its fingerprint key is damaged")))
    }

    fn read_unguarded(&self) -> Result<Option<Contents>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let entries = entries(&transaction)?;
        let (mut jobs, mut damaged) = (Vec::new(), 0);
        for row in transaction.open_table(JOBS)?.iter()? {
            let (key, value) = row?;
            match unseal(key.value(), value.value()) {
                Checked::Sound(form) => jobs.push(form),
                Checked::Damaged => {
                    damaged += 1;
                    error!(job = %String::from_utf8_lossy(key.value()), "a job's record is damaged and is skipped")
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
        let (tabs, accounts) = read_bill(&transaction, &mut damaged)?;
        let meta = transaction.open_table(META)?;
        let text = |name: &[u8]| -> Result<Option<String>, redb::Error> {
            let value = meta.get(name)?;
            Ok(value.and_then(|value| match unseal(name, value.value()) {
                Checked::Sound(text) => Some(text),
                Checked::Damaged => None,
            }))
        };
        let heartbeat = text(b"heartbeat")?.and_then(|millis| millis.parse().ok()).unwrap_or_default();
        let fingerprints = text(b"fingerprint key")?.and_then(|hex| FingerprintKey::from_hex(&hex).ok());
        let heartbeat = Time::from_millis(heartbeat);
        Ok(fingerprints.map(|fingerprints| Contents {
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

    /// Writes a batch; when this returns it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Write`]; nothing may be said of what is on the disk then.
    pub fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let written = guarded(&self.path, || self.write_unguarded(batch))?;
        written.map_err(|error| StoreError::Write(error.to_string()))
    }

    fn write_unguarded(&self, batch: &Batch) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for (fingerprint, form) in &batch.entries {
                let key = fingerprint.as_bytes();
                put(&mut table, key, form.as_ref().and_then(|form| seal_named(key, form)))?;
            }
            if !batch.jobs.is_empty() {
                let mut table = transaction.open_table(JOBS)?;
                for (id, form) in &batch.jobs {
                    put(&mut table, id.as_bytes(), form.as_ref().and_then(|form| seal(id.as_bytes(), form)))?;
                }
            }
            if !batch.keys.is_empty() {
                let mut table = transaction.open_table(KEYS)?;
                for (digest, form) in &batch.keys {
                    put(&mut table, digest, form.as_ref().and_then(|form| seal(digest, form)))?;
                }
            }
            if !batch.tabs.is_empty() {
                let mut table = transaction.open_table(TABS)?;
                for (attempt, form) in &batch.tabs {
                    let key = attempt.into_bytes();
                    put(&mut table, &key, form.as_ref().and_then(|form| seal(&key, form)))?;
                }
            }
            if !batch.accounts.is_empty() {
                let mut table = transaction.open_table(ACCOUNTS)?;
                for (account, form) in &batch.accounts {
                    let key = form::account_key(account);
                    put(&mut table, &key, form.as_ref().and_then(|form| seal(&key, form)))?;
                }
            }
            put_text(&transaction, b"heartbeat", &batch.heartbeat.as_millis().to_string())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// It must have the format that is read here.
    fn check_format(&self) -> Result<(), StoreError> {
        let found = guarded(&self.path, || self.format())?;
        match found.map_err(|error| self.unreadable(&error.to_string()))? {
            Some(FORMAT) => Ok(()),
            Some(found) => Err(StoreError::Format { path: self.path.clone(), found }),
            None => Err(self.unreadable("it is no ledger of ours")),
        }
    }

    fn format(&self) -> Result<Option<u32>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let Ok(meta) = transaction.open_table(META) else { return Ok(None) };
        let value = meta.get(b"format".as_slice())?;
        Ok(value.and_then(|value| match unseal::<String>(b"format", value.value()) {
            Checked::Sound(text) => text.parse().ok(),
            Checked::Damaged => None,
        }))
    }

    fn unreadable(&self, why: &str) -> StoreError {
        StoreError::Unreadable(self.path.clone(), why.to_owned())
    }
}

/// Takes the folder for this process alone; `None` if another one has it.
fn lock(folder: &Path) -> io::Result<Option<fs::File>> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    let file = options.open(folder.join(LOCK))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a new file under another name and gives it its own only when it is whole: a file that is empty or half made is
/// therefore never ours, and never taken for a new ledger (F-43).
fn begin(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let broken = |error| StoreError::Io(path.to_path_buf(), error);
    let new = folder.join("ledger.redb.new");
    // Of a start that was cut off; nobody else is here now.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(error)),
        Ok(()) | Err(_) => {}
    }
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(broken)?);
    let database = database(&new)?;
    let begun = guarded(&new, || write_first(&database))?;
    begun.map_err(|error| StoreError::Unreadable(new.clone(), error.to_string()))?;
    drop(database);
    fs::rename(&new, path).map_err(broken)?;
    // The name lasts only when its folder is written.
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(broken)
}

/// The tables of a new file, its format and its fingerprint key.
fn write_first(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in [ENTRIES, JOBS, KEYS] {
        transaction.open_table(table)?;
    }
    put_text(&transaction, b"format", &FORMAT.to_string())?;
    let key = new_key().map_err(|error| redb::Error::Io(io::Error::other(error)))?;
    put_text(&transaction, b"fingerprint key", &key)?;
    transaction.commit()?;
    Ok(())
}

fn database(path: &Path) -> Result<Database, StoreError> {
    let path = path.to_path_buf();
    match guarded(&path, || Database::create(&path))? {
        Ok(database) => Ok(database),
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse(path)),
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(error)))
            if error.kind() != io::ErrorKind::InvalidData =>
        {
            Err(StoreError::Io(path, error))
        }
        Err(error) => Err(StoreError::Unreadable(path, error.to_string())),
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

/// The attempt of an entry whose own is lost: none has this id.
pub const fn nobody() -> AttemptId {
    AttemptId::from_bytes([0; 16])
}

/// All entries, under the names that they were written under. An entry that is missing would free its prompt, so the
/// store must give as many as it says it has, and each once.
fn entries(transaction: &ReadTransaction) -> Result<Vec<(Fingerprint, Checked<EntryForm>)>, redb::Error> {
    let table = transaction.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let key = key.value().try_into().map_err(|_| corrupted("an entry has lost its fingerprint"))?;
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

fn corrupted(why: &str) -> redb::Error {
    redb::Error::Corrupted(why.to_owned())
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

/// The rows of a table that files of the first version do not have.
fn optional(transaction: &ReadTransaction, table: Table) -> Result<Vec<Row>, redb::Error> {
    let table = match transaction.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let rows = table.iter()?.map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())));
    rows.collect::<Result<_, _>>().map_err(redb::Error::from)
}

fn put(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: Option<Vec<u8>>,
) -> Result<(), redb::Error> {
    match value {
        Some(value) => drop(table.insert(key, value.as_slice())?),
        None => drop(table.remove(key)?),
    }
    Ok(())
}

fn put_text(transaction: &WriteTransaction, name: &[u8], text: &str) -> Result<(), redb::Error> {
    put(&mut transaction.open_table(META)?, name, seal(name, &text))
}

/// 64 random hex digits.
fn new_key() -> Result<String, &'static str> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system gives no randomness")?;
    Ok(hex::encode(key))
}

/// A damaged file may make the store panic: that is an answer like another (F-43).
fn guarded<T>(path: &Path, call: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|_| StoreError::Unreadable(path.to_path_buf(), "the store gave up on it".to_owned()))
}
