//! The upstream key: read once, shown to nobody. It leaves this module as a sensitive header value, as a short id for
//! logs and records, and as a pattern to be masked in answers.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::HeaderValue;
use secrecy::zeroize::Zeroizing;

use crate::exposure::{self, Exposure};
use crate::upstream::mask::KeyPattern;
use crate::upstream::settings::Settings;

/// The key that pays.
pub struct UpstreamKey {
    authorization: HeaderValue,
    id: Arc<str>,
    pattern: KeyPattern,
}

impl UpstreamKey {
    /// The key that the settings name: the file's content if there is a file, else what `environment` says. With it what is
    /// doubtful about it; that is told by whoever uses the key, once.
    ///
    /// # Errors
    /// Where the key was looked for and what is wrong with it; never a byte of it.
    pub fn read(
        settings: &Settings,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Option<KeyDoubt>), KeyFault> {
        match &settings.key_file {
            Some(path) => Self::from_file(path, environment(exposure::CREDENTIALS).as_deref().map(Path::new)),
            None => {
                let variable = &settings.key_env;
                let missing = || KeyFault::NoVariable(variable.clone());
                let text = Zeroizing::new(environment(variable).ok_or_else(missing)?);
                if text.is_empty() {
                    return Err(missing());
                }
                let key = Self::parse(&text).map_err(|flaw| KeyFault::Variable(variable.clone(), flaw))?;
                Ok((key, None))
            }
        }
    }

    /// The key in a file of its own, which may be one of the supervisor's credentials.
    fn from_file(path: &Path, credentials: Option<&Path>) -> Result<(Self, Option<KeyDoubt>), KeyFault> {
        let unreadable = |error: std::io::Error| KeyFault::Unreadable(path.to_owned(), error.kind());
        let file = File::open(path).map_err(unreadable)?;
        let doubt = match Exposure::of(&file, path, credentials) {
            Some(Exposure::Ours) => return Err(KeyFault::OpenToOthers(path.to_owned())),
            Some(Exposure::Mounted) => Some(KeyDoubt::OpenToOthers(path.to_owned())),
            None => None,
        };
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
        let limit = u64::try_from(MAX_FILE_BYTES + 1).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut text).map_err(unreadable)?;
        let flawed = |flaw| KeyFault::File(path.to_owned(), flaw);
        if text.len() > MAX_FILE_BYTES {
            return Err(flawed(Flaw::TooLong));
        }
        let text = std::str::from_utf8(&text).map_err(|_| flawed(Flaw::NotVisibleAscii))?;
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Self::parse(line).map(|key| (key, doubt)).map_err(flawed)
    }

    /// A key from its text, as it stands after `Bearer`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        if text.is_empty() {
            return Err(Flaw::Empty);
        }
        if text.len() > MAX_FILE_BYTES {
            return Err(Flaw::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(if text.contains(' ') { Flaw::Spaced } else { Flaw::NotVisibleAscii });
        }
        let bearer = Zeroizing::new(format!("Bearer {text}"));
        let mut authorization = HeaderValue::from_str(&bearer).map_err(|_| Flaw::NotVisibleAscii)?;
        authorization.set_sensitive(true);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let id = hex::encode(digest.as_ref().get(..4).unwrap_or_default()).into();
        Ok(Self { authorization, id, pattern: KeyPattern::new(text) })
    }

    /// The first 8 hex digits of the key's SHA-256: which key, without telling it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same, shared with all that it makes.
    pub fn shared_id(&self) -> Arc<str> {
        self.id.clone()
    }

    /// The `Authorization` header, marked sensitive.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// What finds the key in answers.
    pub fn pattern(&self) -> &KeyPattern {
        &self.pattern
    }
}

impl fmt::Debug for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamKey({})", self.id)
    }
}

/// What is wrong with a key's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// No key is that long.
    #[error("it is longer than {MAX_FILE_BYTES} bytes")]
    TooLong,
    /// Often a scheme before it.
    #[error("it holds a space: give the key alone, for Bearer is added here")]
    Spaced,
    /// A quote from a copied page, a second line.
    #[error("it holds something else than visible ASCII characters")]
    NotVisibleAscii,
}

/// Why there is no key. It names where the key was looked for, never what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The variable is absent or empty.
    #[error("no upstream key: set the environment variable {0}, or upstream.key_file")]
    NoVariable(String),
    /// The variable holds no key.
    #[error("the upstream key in the environment variable {0} cannot be used: {1}")]
    Variable(String, Flaw),
    /// The file cannot be read.
    #[error("the upstream key file {0} cannot be read: {1}")]
    Unreadable(PathBuf, std::io::ErrorKind),
    /// Others than its owner can read the file.
    #[error("the upstream key file {0} can be read by others: chmod 600 it")]
    OpenToOthers(PathBuf),
    /// The file holds no key.
    #[error("the upstream key in the file {0} cannot be used: {1}")]
    File(PathBuf, Flaw),
}

/// What an operator should know of a key that can be used all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyDoubt {
    /// Others can read the file, and it may be that its mode cannot be another.
    #[error(
        "upstream.key_file: {0} can be read by others than its owner: give it the mode 0600 where that can be done"
    )]
    OpenToOthers(PathBuf),
}

/// The longest key, and the most that is read of a file.
const MAX_FILE_BYTES: usize = 8192;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::exposure::{CREDENTIALS, TMPFS};

    const TEXT: &str = "sk-Zx81kPq0LmN7vTrY2aBcD3eFgH4iJ5kL6mN7oP8q";

    fn settings(file: Option<PathBuf>) -> Settings {
        Settings { key_file: file, ..Settings::default() }
    }

    /// A directory of this test's own, on the disk that the build uses.
    fn directory(name: &str) -> PathBuf {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp").join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Where there is a file system in memory, a file that others can read is only warned about.
    fn write_in_memory(text: &str) {
        let path = Path::new("/dev/shm").join(format!("reelgate-key-{}", std::process::id()));
        if !Path::new("/dev/shm").is_dir() || fs::write(&path, text).is_err() {
            return;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let in_memory = File::open(&path).ok().and_then(|file| rustix::fs::fstatfs(file).ok());
        let read = |folder: Option<&str>| {
            let named = |name: &str| folder.filter(|_| name == CREDENTIALS).map(str::to_owned);
            UpstreamKey::read(&settings(Some(path.clone())), named).map(|(_, doubt)| doubt)
        };
        let told = [None, Some("/dev/shm"), Some("/dev/shm/elsewhere"), Some("/tmp"), Some("")].map(read);
        fs::remove_file(&path).unwrap();
        if in_memory.is_some_and(|system| u32::try_from(system.f_type).is_ok_and(|kind| kind == TMPFS)) {
            let doubt = || Ok(Some(KeyDoubt::OpenToOthers(path.clone())));
            assert_eq!(told, [doubt(), Ok(None), doubt(), doubt(), doubt()]);
        }
    }

    fn write(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_key_comes_from_the_variable_and_shows_nothing_but_its_id() {
        let read = UpstreamKey::read(&settings(None), |name| (name == "COMETAPI_KEY").then(|| TEXT.to_owned()));
        let (key, doubt) = read.unwrap();
        assert_eq!(doubt, None);
        assert_eq!(key.authorization(), &format!("Bearer {TEXT}"));
        assert!(key.authorization().is_sensitive());
        assert_eq!(key.id().len(), 8);
        assert!(key.id().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(format!("{key:?}"), format!("UpstreamKey({})", key.id()));
    }

    #[test]
    fn t09_a_key_that_cannot_be_used_is_refused_without_being_printed() {
        let secrets = ["", "with space-Zx81k", "zwei\nZx81k", "schlüssel-Zx81k", "\u{201c}Zx81k\u{201d}"];
        for secret in secrets {
            let fault = UpstreamKey::read(&settings(None), |_| Some(secret.to_owned())).unwrap_err();
            let shown = format!("{fault} {fault:?}");
            assert!(shown.contains("COMETAPI_KEY") && !shown.contains("Zx81k"), "{shown}");
        }
        assert_eq!(UpstreamKey::parse(&"k".repeat(8193)).unwrap_err(), Flaw::TooLong);
    }

    #[test]
    fn t09_a_file_gives_its_one_line_and_others_must_not_read_it() {
        let directory = directory("key");
        let path = directory.join("key");
        // A folder of credentials excuses no key that is ours to close.
        let credentials = |name: &str| (name == CREDENTIALS).then(|| directory.display().to_string());
        let read = || UpstreamKey::read(&settings(Some(path.clone())), credentials).map(|(key, _)| key);
        for end in ["", "\n", "\r\n"] {
            write(&path, format!("{TEXT}{end}").as_bytes(), 0o600);
            assert_eq!(read().unwrap().authorization(), &format!("Bearer {TEXT}"));
        }
        write(&path, format!("{TEXT}\n\n").as_bytes(), 0o600);
        assert_eq!(read().unwrap_err(), KeyFault::File(path.clone(), Flaw::NotVisibleAscii));
        write(&path, b"\n", 0o600);
        assert_eq!(read().unwrap_err(), KeyFault::File(path.clone(), Flaw::Empty));
        write(&path, &[b'k'; 9000], 0o600);
        assert_eq!(read().unwrap_err(), KeyFault::File(path.clone(), Flaw::TooLong));
        write(&path, TEXT.as_bytes(), 0o644);
        assert_eq!(read().unwrap_err(), KeyFault::OpenToOthers(path.clone()));
        // Another user's may be one that a supervisor made for our group.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(read().is_ok());
        }
        write_in_memory(TEXT);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(read().unwrap_err(), KeyFault::Unreadable(path.clone(), std::io::ErrorKind::NotFound));
    }
}
