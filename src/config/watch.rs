//! Notices when the configuration should be read again: on SIGHUP, and when the content of a watched file changes.
//! The content is compared, not the directory's events: so a rename over the file, a swapped symlink and a network
//! file system are all the same to it. A change is told once the content rests, so that a file is rarely met
//! half-written; and what cannot be read is a content too, so that its return is noticed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use super::MAX_FILE;

/// Why the configuration should be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP came.
    Signal,
    /// These files changed.
    Content(Vec<PathBuf>),
}

/// Watches files and SIGHUP.
#[derive(Debug)]
pub struct Watch {
    files: Vec<(PathBuf, Content)>,
    ticks: Interval,
    rest: Duration,
    hangup: Signal,
    /// A signal that came and has not been told.
    signalled: bool,
}

impl Watch {
    /// Watches SIGHUP from now on, and `files` as they are now: make it before they are read, or a change in between is
    /// missed.
    ///
    /// # Errors
    /// If the system gives no handler for the signal.
    pub async fn new(files: Vec<PathBuf>) -> io::Result<Self> {
        Self::every(EVERY, REST, files).await
    }

    async fn every(period: Duration, rest: Duration, files: Vec<PathBuf>) -> io::Result<Self> {
        // First: without a handler the signal ends the process.
        let hangup = signal(SignalKind::hangup())?;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let files = contents(files).await.unwrap_or_default();
        Ok(Self { files, ticks, rest, hangup, signalled: false })
    }

    /// Watches other files from now on, because a reload named another `upstream.key_file`, say. Those that were
    /// watched before are still compared with what they were.
    pub async fn follow(&mut self, files: Vec<PathBuf>) {
        let (old, new): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|path| self.files.iter().any(|(known, _)| known == path));
        self.files.retain(|(known, _)| old.contains(known));
        self.files.extend(contents(new).await.unwrap_or_default());
    }

    /// Waits for the next cause. What changes after it has been told is told again. Dropping the wait loses nothing.
    pub async fn changed(&mut self) -> Cause {
        loop {
            if !self.signalled {
                self.signalled = tokio::select! {
                    received = self.hangup.recv() => received.is_some(),
                    _ = self.ticks.tick() => false,
                };
            }
            if self.signalled {
                self.look().await;
                self.signalled = false;
                return Cause::Signal;
            }
            let changed = self.look_until_it_rests().await;
            if !changed.is_empty() {
                return Cause::Content(changed);
            }
        }
    }

    /// Looks until two looks in a row agree, but not for ever: a file that never rests is told as it is.
    async fn look_until_it_rests(&mut self) -> Vec<PathBuf> {
        let Some(mut found) = contents(self.paths()).await else { return Vec::new() };
        if found == self.files {
            return Vec::new();
        }
        for _ in 0..MOST_LOOKS {
            sleep(self.rest).await;
            let Some(again) = contents(self.paths()).await else { return Vec::new() };
            if again == found {
                break;
            }
            found = again;
        }
        self.replace(found)
    }

    async fn look(&mut self) -> Vec<PathBuf> {
        match contents(self.paths()).await {
            Some(found) => self.replace(found),
            None => Vec::new(),
        }
    }

    fn replace(&mut self, found: Vec<(PathBuf, Content)>) -> Vec<PathBuf> {
        let changed = found.iter().zip(&self.files).filter(|(new, old)| new != old).map(|(new, _)| new.0.clone());
        let changed = changed.collect();
        self.files = found;
        changed
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }
}

/// What a path holds, so far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// The hash of the whole.
    Whole([u8; 32]),
    /// More than is ever read: the hash of its beginning.
    Long([u8; 32]),
    /// Not a regular file: reading it would take from it, or block.
    Special,
    /// Nothing that can be read.
    Unreadable(io::ErrorKind),
}

impl Content {
    fn of(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|cause| Self::Unreadable(cause.kind()))
    }

    fn read(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Ok(Self::Special);
        }
        let mut file = File::open(path)?.take(MAX_FILE);
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut file, &mut hasher)?;
        let hash = *hasher.finalize().as_bytes();
        let more = file.into_inner().read(&mut [0])? > 0;
        Ok(if more { Self::Long(hash) } else { Self::Whole(hash) })
    }
}

/// Reads off the runtime's threads; `None` if the runtime is ending.
async fn contents(paths: Vec<PathBuf>) -> Option<Vec<(PathBuf, Content)>> {
    let read = move || paths.into_iter().map(|path| (Content::of(&path), path)).map(|(content, path)| (path, content));
    spawn_blocking(|| read().collect()).await.ok()
}

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// How long a content must stay the same to be read.
const REST: Duration = Duration::from_millis(250);

/// After that many looks a file that is written all the time is read as it is.
const MOST_LOOKS: usize = 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::tests::Folder;

    const BRIEF: Duration = Duration::from_millis(5);

    async fn watch(files: &[PathBuf]) -> Watch {
        Watch::every(BRIEF, BRIEF, files.to_vec()).await.unwrap()
    }

    /// A hangup reaches the whole process, and a look on its account would take a change that a test beside it waits for:
    /// so these tests run one after the other.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// The next cause, within a bound.
    async fn next(watch: &mut Watch) -> Cause {
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("no cause was noticed")
    }

    /// The next files that changed.
    async fn next_files(watch: &mut Watch) -> Vec<PathBuf> {
        loop {
            if let Cause::Content(files) = next(watch).await {
                return files;
            }
        }
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_removal_are_noticed_and_named() {
        let _alone = ALONE.lock().await;
        let folder = Folder::new("watch-writes");
        let (file, other) = (folder.write("reelgate.toml", "a"), folder.write("key", "k"));
        let mut watch = watch(&[file.clone(), other.clone()]).await;
        folder.write("reelgate.toml", "b");
        assert_eq!(next_files(&mut watch).await, vec![file.clone()]);
        fs::rename(folder.write("new", "c"), &file).unwrap();
        assert_eq!(next_files(&mut watch).await, vec![file.clone()]);
        fs::remove_file(&other).unwrap();
        assert_eq!(next_files(&mut watch).await, vec![other]);
    }

    #[tokio::test]
    async fn a_swapped_symlink_is_a_change_and_an_equal_content_is_none() {
        let _alone = ALONE.lock().await;
        let folder = Folder::new("watch-links");
        let (one, same, other) = (folder.write("one", "a"), folder.write("same", "a"), folder.write("other", "b"));
        let link = folder.path("reelgate.toml");
        let point_to = |target: &Path| {
            symlink(target, folder.path("next")).unwrap();
            fs::rename(folder.path("next"), &link).unwrap();
        };
        point_to(&one);
        let mut watch = watch(std::slice::from_ref(&link)).await;
        point_to(&same);
        assert_eq!(watch.look_until_it_rests().await, Vec::<PathBuf>::new());
        point_to(&other);
        assert_eq!(next_files(&mut watch).await, vec![link]);
    }

    #[tokio::test]
    async fn followed_files_keep_what_was_seen_of_them() {
        let _alone = ALONE.lock().await;
        let folder = Folder::new("watch-follow");
        let (file, key) = (folder.write("reelgate.toml", "a"), folder.write("key", "k"));
        let mut watch = watch(std::slice::from_ref(&file)).await;
        folder.write("reelgate.toml", "b");
        watch.follow(vec![file.clone(), key.clone()]).await;
        assert_eq!(next_files(&mut watch).await, vec![file]);
        folder.write("key", "l");
        assert_eq!(next_files(&mut watch).await, vec![key]);
    }

    #[tokio::test]
    async fn a_hangup_is_told_at_once() {
        let _alone = ALONE.lock().await;
        let mut watch = Watch::every(Duration::from_secs(3600), BRIEF, Vec::new()).await.unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
        assert_eq!(next(&mut watch).await, Cause::Signal);
    }

    #[test]
    fn content_is_read_within_bounds_and_never_from_a_device() {
        let folder = Folder::new("watch-content");
        let long = "#".repeat(10 << 20);
        assert!(matches!(Content::of(&folder.write("long", &long)), Content::Long(_)));
        assert_eq!(Content::of(Path::new("/dev/zero")), Content::Special);
        assert_eq!(Content::of(&folder.path("missing")), Content::Unreadable(io::ErrorKind::NotFound));
    }
}
