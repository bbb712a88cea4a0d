//! `[upstream]`: the API behind, its key, and how long we wait for it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::admission::settings::Rate;
use crate::config::{Raw, Section, Value, WAIT};

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `url`: the upstream's origin: scheme, host and optional port, no path.
    pub url: String,
    /// `allow_http`: plain `http://` to an address that is not loopback (warned at each start).
    pub allow_http: bool,
    /// `roots`: which certificate authorities are trusted.
    pub roots: Roots,
    /// `key_env`: the environment variable that holds the upstream key.
    pub key_env: String,
    /// `key_file`: a file that holds it instead; empty: none. Read again when it changes.
    pub key_file: Option<PathBuf>,
    /// `pace`: how many submissions the upstream takes in how long; they are dealt out one at a time.
    pub pace: Option<Rate>,
    /// `queue_wait`: how long a submission waits for its slot.
    pub queue_wait: Duration,
    /// `connect_timeout`: for the name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// `submit_timeout`: how long a client waits, counted from the send; the request itself goes on.
    pub submit_timeout: Duration,
    /// `late_answer`: how long an answer may still come before its outcome is unknown, counted from the send.
    pub late_answer: Duration,
    /// `poll_timeout`: from a poll's send to its answer's head, or to the end of one that is read whole before any of it is
    /// passed on, and between two pieces of its body.
    pub poll_timeout: Duration,
    /// `submissions`: submissions on their way upstream at once; past it 503 `overloaded`. As many again whose outcome is
    /// unknown are still read for a late answer.
    pub submissions: usize,
    /// `idle_connections`: idle connections for polls that each worker keeps.
    pub idle_connections: usize,
    /// `retired_keys`: keys that were replaced and stay known, for the polls of the jobs they made.
    pub retired_keys: usize,
    /// `idle_timeout`: how long such a connection is kept; below the upstream's own keep-alive.
    pub idle_timeout: Duration,
}

impl Settings {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        let url = section.value("url", &base.url);
        Self {
            // One form of the same origin, because it is a part of every fingerprint.
            url: url.strip_suffix('/').unwrap_or(&url).to_ascii_lowercase(),
            allow_http: section.value("allow_http", &base.allow_http),
            roots: section.value("roots", &base.roots),
            key_env: section.value("key_env", &base.key_env),
            key_file: section.value("key_file", &base.key_file),
            pace: section.value("pace", &base.pace),
            queue_wait: section.within("queue_wait", &base.queue_wait, WAIT),
            connect_timeout: section.within("connect_timeout", &base.connect_timeout, WAIT),
            submit_timeout: section.within("submit_timeout", &base.submit_timeout, WAIT),
            late_answer: section.within("late_answer", &base.late_answer, WAIT),
            poll_timeout: section.within("poll_timeout", &base.poll_timeout, WAIT),
            submissions: section.within("submissions", &base.submissions, 1..=100_000),
            idle_connections: section.within("idle_connections", &base.idle_connections, 0..=100_000),
            retired_keys: section.within("retired_keys", &base.retired_keys, 0..=64),
            idle_timeout: section.within("idle_timeout", &base.idle_timeout, WAIT),
        }
    }
}

/// `upstream.roots`: the trusted certificate authorities.
#[derive(Clone, Debug, PartialEq)]
pub enum Roots {
    /// `"bundled"`: Mozilla's list, compiled in.
    Bundled,
    /// `"system"`: the machine's own store.
    System,
    /// A PEM file.
    File(PathBuf),
}

impl Value for Roots {
    fn expected() -> Cow<'static, str> {
        "\"bundled\", \"system\" or the path of a PEM file".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw.text()?.as_ref() {
            "bundled" => Some(Self::Bundled),
            "system" => Some(Self::System),
            path => raw.path().filter(|_| !path.is_empty()).map(Self::File),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Bundled => "bundled".to_owned(),
            Self::System => "system".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "https://api.cometapi.com".to_owned(),
            allow_http: false,
            roots: Roots::Bundled,
            key_env: "COMETAPI_KEY".to_owned(),
            key_file: None,
            pace: None,
            queue_wait: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(3),
            submit_timeout: Duration::from_secs(35),
            late_answer: Duration::from_secs(120),
            poll_timeout: Duration::from_secs(30),
            submissions: 256,
            idle_connections: 1024,
            retired_keys: 4,
            idle_timeout: Duration::from_secs(15),
        }
    }
}
