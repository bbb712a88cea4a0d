//! `[upstream]`: the API behind, its key, and how long we wait for it.

use std::path::PathBuf;
use std::time::Duration;

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
    /// `connect_timeout`: for TCP and TLS together.
    pub connect_timeout: Duration,
    /// `submit_timeout`: how long a client waits, counted from the send; the request itself goes on.
    pub submit_timeout: Duration,
    /// `late_answer`: how long an answer may still come before its outcome is unknown, counted from the send.
    pub late_answer: Duration,
    /// `poll_timeout`: from a poll's send to its answer's head, and between two pieces of its body.
    pub poll_timeout: Duration,
    /// `submissions`: submissions on their way upstream at once; past it 503 `overloaded`.
    pub submissions: usize,
    /// `idle_connections`: idle connections for polls that each worker keeps.
    pub idle_connections: usize,
    /// `idle_timeout`: how long such a connection is kept; below the upstream's own keep-alive.
    pub idle_timeout: Duration,
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

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "https://api.cometapi.com".to_owned(),
            allow_http: false,
            roots: Roots::Bundled,
            key_env: "COMETAPI_KEY".to_owned(),
            key_file: None,
            connect_timeout: Duration::from_secs(3),
            submit_timeout: Duration::from_secs(35),
            late_answer: Duration::from_secs(120),
            poll_timeout: Duration::from_secs(30),
            submissions: 256,
            idle_connections: 256,
            idle_timeout: Duration::from_secs(15),
        }
    }
}
