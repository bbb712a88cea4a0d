//! What can be read of a damaged ledger, in a new one (`HARDENING.md` F-43). A copy is opened as usual, if that works;
//! else its pages are gone through one by one, for each value proves by its checksum that it is whole and whose it is.
//! Pages may hold older versions of a value beside its last one: of those the one that blocks most is kept, so that what
//! was paid is rather held once too often than bought again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use secrecy::zeroize::Zeroizing;

use super::batch::{Batch, Row};
use super::contents::{EntryRow, Rows};
use super::folder;
use super::form::{EntryForm, JobForm, KeyForm};
use super::places;
use super::seal::{CHECKSUM, Checked, NAME, unseal, unseal_named};
use super::store::{self, Store, StoreError};
use super::wal;
use crate::bill::account::AccountKey;
use crate::bill::form::{self, AccountForm, TabForm};
use crate::clock::{Clock, Time};
use crate::jobs::entry::AttemptId;
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::Fingerprint;

/// What was found, and written into the new ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries.
    pub entries: usize,
    /// Jobs.
    pub jobs: usize,
    /// Idempotency keys.
    pub keys: usize,
    /// Open tabs.
    pub tabs: usize,
    /// Accounts.
    pub accounts: usize,
    /// Records that were found and cannot be read.
    pub damaged: usize,
    /// Whether the fingerprints' key was among them.
    pub has_key: bool,
    /// Whether the file could be opened as usual.
    pub was_sound: bool,
}

/// Copies what can be read of the ledger in `from` into a new one in `to`. The old one is left as it is.
///
/// # Errors
/// [`StoreError`]; a process uses it, there is nothing, or the new place is taken.
pub fn recover(from: &Path, to: &Path) -> Result<Recovered, StoreError> {
    let old = from.join(store::FILE);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| StoreError::Io(path, error)
    };
    let file = File::open(&old).map_err(io(&old))?;
    // Nothing is made in the old place, which may be a disk that cannot be written.
    let lock = File::open(from.join(folder::LOCK)).ok();
    for file in lock.iter().chain([&file]) {
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock_shared() {
            return Err(StoreError::InUse(old));
        }
    }
    DirBuilder::new().mode(0o700).create(to).map_err(io(to))?;
    let scratch = to.join("scratch");
    DirBuilder::new().mode(0o700).create(&scratch).map_err(io(&scratch))?;
    let bytes = fs::read(&old).map_err(io(&old))?;
    let log = from.join(wal::FILE);
    // Where there is none, nothing was in it, or it is lost: then the tables name it, and are not opened.
    let log = match fs::read(&log) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::Io(log, error)),
        log => log.ok(),
    };
    let found = opened(&scratch, &bytes, log.as_deref());
    fs::remove_dir_all(&scratch).map_err(io(&scratch))?;
    // What another version has sealed looks damaged here, its fingerprints' key too: nothing of it could be found.
    if let Err(StoreError::Format { found, .. }) = found {
        fs::remove_dir(to).map_err(io(to))?;
        return Err(StoreError::Format { path: old, found });
    }
    let found = found.ok().flatten();
    let found = found.unwrap_or_else(|| Found::carved(&bytes, log.as_deref().unwrap_or_default()));
    found.write(to)
}

/// The contents of a copy, if it can be opened as usual.
fn opened(scratch: &Path, bytes: &[u8], log: Option<&[u8]>) -> Result<Option<Found>, StoreError> {
    let copied = [(store::FILE, Some(bytes)), (wal::FILE, log)];
    for (name, bytes) in copied.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
        let copy = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(scratch.join(name));
        if copy.and_then(|mut copy| std::io::Write::write_all(&mut copy, bytes)).is_err() {
            return Ok(None);
        }
    }
    let mut store = Store::open_existing(scratch)?;
    Found::whole(&mut store).map(Some)
}

/// Records, each in its best version.
#[derive(Default)]
struct Found {
    entries: HashMap<Fingerprint, EntryForm>,
    jobs: HashMap<String, JobForm>,
    keys: HashMap<KeyDigest, KeyForm>,
    tabs: HashMap<AttemptId, TabForm>,
    accounts: HashMap<AccountKey, AccountForm>,
    fingerprints: Option<Zeroizing<String>>,
    heartbeat: Time,
    damaged: usize,
    was_sound: bool,
}

impl Found {
    fn whole(store: &mut Store) -> Result<Self, StoreError> {
        let heartbeat = store.heartbeat()?;
        let contents = store.read(entries, |jobs| jobs.map(|form| (form.id().to_owned(), form)).collect())?;
        let (entries, lost) = contents.entries;
        Ok(Self {
            entries,
            jobs: contents.jobs,
            keys: contents.keys.into_iter().collect(),
            tabs: contents.tabs.into_iter().collect(),
            accounts: contents.accounts.into_iter().collect(),
            fingerprints: Some(contents.fingerprints.to_hex()),
            heartbeat,
            damaged: contents.damaged + lost,
            was_sound: true,
        })
    }

    /// Goes through the pages, and through the log.
    fn carved(bytes: &[u8], log: &[u8]) -> Self {
        let mut found = Self::default();
        for start in (0..bytes.len()).step_by(PAGE) {
            let Some(page) = bytes.get(start..) else { break };
            for (key, value) in leaf(page) {
                // A row of the large tables has its place before its name, and in files of before its name alone.
                let named = places::parts(key).map(|(_, name)| name);
                let is_taken = found.take(key, value) || named.is_some_and(|name| found.take(name, value));
                if !is_taken {
                    found.miss(named.filter(|name| name.len() == NAME).unwrap_or(key), value);
                }
            }
        }
        for Row { key, value, .. } in wal::carve(log) {
            if let Some(value) = value
                && !found.take(&key, &value)
            {
                found.miss(&key, &value);
            }
        }
        found.weed();
        found
    }

    /// Takes a value, if it is whole and one of ours that was written under this name.
    fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        if let (store::KEY, Checked::Sound(hex)) = (key, unseal::<String>(key, value)) {
            self.fingerprints = Some(Zeroizing::new(hex));
        } else if let (b"heartbeat", Checked::Sound(millis)) = (key, unseal::<String>(key, value)) {
            self.heartbeat = self.heartbeat.max(Time::from_millis(millis.parse().unwrap_or_default()));
        } else if let Some((name, form)) = entry(key, value) {
            keep(&mut self.entries, Fingerprint::from_bytes(name), form, EntryForm::weight);
        } else if let (Ok(digest), Checked::Sound(form)) = (<[u8; 16]>::try_from(key), unseal::<KeyForm>(key, value)) {
            keep(&mut self.keys, digest, form, KeyForm::weight);
        } else if let (Ok(attempt), Checked::Sound(form)) = (<[u8; 16]>::try_from(key), unseal::<TabForm>(key, value)) {
            keep(&mut self.tabs, AttemptId::from_bytes(attempt), form, |_| 0);
        } else if let (Some(account), Checked::Sound(form)) =
            (form::parse_account_key(key), unseal::<AccountForm>(key, value))
        {
            keep(&mut self.accounts, account, form, AccountForm::weight);
        } else if let Checked::Sound(form) = unseal::<JobForm>(key, value)
            && form.id().as_bytes() == key
        {
            keep(&mut self.jobs, form.id().to_owned(), form, JobForm::weight);
        } else {
            return false;
        }
        true
    }

    /// What looks like one of ours and cannot be read: if it may have been an entry, its prompt is held.
    fn miss(&mut self, key: &[u8], value: &[u8]) {
        if !is_sealed(value) {
            return;
        }
        self.damaged += 1;
        if let Ok(name) = <[u8; NAME]>::try_from(key) {
            keep(&mut self.entries, Fingerprint::from_bytes(name), EntryForm::lost(), EntryForm::weight);
        }
    }

    /// Drops older versions of what is known to have ended since: entries of jobs that have failed or that were
    /// forgotten, and tabs that were settled.
    fn weed(&mut self) {
        let jobs = &self.jobs;
        self.entries.retain(|_, form| form.job().and_then(|id| jobs.get(id)).is_none_or(|job| job.may_have(form)));
        let open: HashSet<AttemptId> = {
            let running = jobs.values().filter(|job| job.is_running()).map(JobForm::attempt);
            let doubtful = self.entries.values().filter(|entry| entry.job().is_none()).map(EntryForm::attempt);
            running.chain(doubtful).collect()
        };
        self.tabs.retain(|attempt, _| open.contains(attempt));
    }

    fn write(self, to: &Path) -> Result<Recovered, StoreError> {
        let has_key = self.fingerprints.is_some();
        let mut store = Store::begin(to, self.fingerprints.as_ref().map(|hex| hex.as_str()))?;
        let counts = Recovered {
            entries: self.entries.len(),
            jobs: self.jobs.len(),
            keys: self.keys.len(),
            tabs: self.tabs.len(),
            accounts: self.accounts.len(),
            damaged: self.damaged,
            has_key,
            was_sound: self.was_sound,
        };
        store.write(&Batch {
            entries: self.entries.into_iter().map(|(name, form)| (name, Some(form))).collect(),
            jobs: self.jobs.into_iter().map(|(id, form)| (id, Some(form))).collect(),
            keys: self.keys.into_iter().map(|(digest, form)| (digest, Some(form))).collect(),
            tabs: self.tabs.into_iter().map(|(attempt, form)| (attempt, Some(form))).collect(),
            accounts: self.accounts.into_iter().map(|(key, form)| (key, Some(form))).collect(),
            heartbeat: self.heartbeat.max(Clock::system().now()),
        })?;
        Ok(counts)
    }
}

/// All entries, and how many of them are damaged: their prompts are held, as a start would hold them.
fn entries(rows: Rows<'_, EntryRow>) -> (HashMap<Fingerprint, EntryForm>, usize) {
    let mut lost = 0;
    let mut form = |form| match form {
        Checked::Sound(form) => form,
        Checked::Damaged => {
            lost += 1;
            EntryForm::lost()
        }
    };
    let entries = rows.map(|(name, row)| (name, form(row))).collect();
    (entries, lost)
}

/// Keeps the heavier of two versions.
fn keep<K: Eq + std::hash::Hash, V>(all: &mut HashMap<K, V>, key: K, new: V, weight: impl Fn(&V) -> u64) {
    match all.get(&key) {
        Some(old) if weight(old) >= weight(&new) => {}
        _ => _ = all.insert(key, new),
    }
}

/// The pairs of a leaf page of the store (redb's file format, "Leaf page"), as far as it is one. Whether they are ours is
/// not said here.
fn leaf(page: &[u8]) -> Vec<(&[u8], &[u8])> {
    let number = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = page.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let pairs = match page {
        [LEAF, _, low, high, ..] => usize::from(u16::from_le_bytes([*low, *high])),
        _ => return Vec::new(),
    };
    let first_key = 4 + 8 * pairs;
    let end_of = |index: usize, ends: usize, first: usize| match index.checked_sub(1) {
        None => Some(first),
        Some(before) => number(ends + 4 * before),
    };
    let pair = |index: usize| {
        let values = 4 + 4 * pairs;
        let first_value = number(4 + 4 * pairs.checked_sub(1)?)?;
        let key = page.get(end_of(index, 4, first_key)?..number(4 + 4 * index)?)?;
        let value = page.get(end_of(index, values, first_value)?..number(values + 4 * index)?)?;
        Some((key, value))
    };
    (0..pairs).filter_map(pair).collect()
}

/// Whether these bytes look like a value of ours, whole or not.
fn is_sealed(value: &[u8]) -> bool {
    let is_json = |start: usize| value.get(start..).is_some_and(|rest| rest.starts_with(b"{") && rest.ends_with(b"}"));
    // The values of entries have their names before them.
    is_json(form_start()) || is_json(form_start() + NAME)
}

/// Where the JSON of a value begins.
const fn form_start() -> usize {
    CHECKSUM + 1
}

/// The store's pages begin at multiples of this.
const PAGE: usize = 4096;
/// The first byte of a leaf page.
const LEAF: u8 = 1;

/// An entry, if it is whole; its value names its fingerprint too.
fn entry(key: &[u8], value: &[u8]) -> Option<([u8; 32], EntryForm)> {
    match unseal_named(&<[u8; 32]>::try_from(key).ok()?, value) {
        (name, Checked::Sound(form)) => Some((name, form)),
        (_, Checked::Damaged) => None,
    }
}
