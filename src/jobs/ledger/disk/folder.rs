//! The ledger's folder: one process has it at a time, and it must have room for what is still to be written.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::store::{FILE, StoreError};

/// The file whose lock is the process's that has the folder.
pub(super) const LOCK: &str = "ledger.lock";
/// The bytes that must be free for what goes from the log into the tables. Where fewer are, nothing new is bought, and
/// what is in flight has its room in the log, which was reserved beforehand (M8).
const ROOM: u64 = 16 << 20;

/// A folder that is this process's until the last copy of this value goes: also while the ledger in it is closed after a
/// failure.
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    lock: Arc<fs::File>,
    /// How many bytes must be free.
    pub(super) least: u64,
}

impl Folder {
    /// Takes the folder for this process alone; makes it if it is not there, for this user alone (M9).
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it, [`StoreError::Io`] if it cannot be had.
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        let file = path.join(FILE);
        let taken = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
            let lock = options.open(path.join(LOCK))?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            io::Result::Ok(lock)
        };
        match taken() {
            Ok(lock) => Ok(Self { path: path.to_owned(), lock: Arc::new(lock), least: ROOM }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::InUse(file)),
            Err(error) => Err(StoreError::Io(file, error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is room; also where nobody can tell.
    pub fn has_room(&self) -> bool {
        let free = rustix::fs::fstatvfs(&*self.lock).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        free.map_or(true, |free| free >= self.least)
    }
}
