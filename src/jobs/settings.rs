//! `[dedup]`, `[ledger]` and `[polls]`: what counts as the same prompt, and how long it is remembered.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Choice, Raw, Section, Value, WAIT, WINDOW, WINDOW_OR_NONE};

/// `[dedup]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dedup {
    /// `by`: what makes two submissions one.
    pub by: By,
    /// `scope`: among whom.
    pub scope: Scope,
    /// `delivery_window`: how long after `done` an id is still worth giving out.
    pub delivery_window: Duration,
    /// `unknown_hold`: how long an unknown outcome blocks its twins.
    pub unknown_hold: Duration,
    /// `refusal_window`: how long a billed refusal stays a hit; zero ends it at once.
    pub refusal_window: Duration,
    /// `url_ignore`: query parameters of media URLs that do not count.
    pub url_ignore: Vec<String>,
    /// `hold_statuses`: upstream statuses whose outcome is unknown even if the answer is complete.
    pub hold_statuses: Vec<u16>,
    /// `lost_call_codes`: error codes by which a relay says that it lost its own call (M17).
    pub lost_call_codes: Vec<String>,
    /// `key_env`: an environment variable with 64 hex digits, the fingerprints' key; empty: made here (M9).
    pub key_env: String,
    /// `former_key_env`: the same of the key before that one, by which prompts are looked up too; empty: the one that the
    /// ledger knows (M9).
    pub former_key_env: String,
    /// `hot_entries`: entries in the hot cache.
    pub hot_entries: u64,
    /// `max_entries`: entries in all.
    pub max_entries: usize,
    /// `max_waiters`: submissions that may wait for one attempt; past it 503 `overloaded`.
    pub max_waiters: usize,
}

impl Dedup {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            by: section.value("by", &base.by),
            scope: section.value("scope", &base.scope),
            delivery_window: section.within("delivery_window", &base.delivery_window, WINDOW),
            unknown_hold: section.within("unknown_hold", &base.unknown_hold, WINDOW),
            refusal_window: section.within("refusal_window", &base.refusal_window, WINDOW_OR_NONE),
            url_ignore: section.value("url_ignore", &base.url_ignore),
            hold_statuses: section.value("hold_statuses", &base.hold_statuses),
            lost_call_codes: section.value("lost_call_codes", &base.lost_call_codes),
            key_env: section.value("key_env", &base.key_env),
            former_key_env: section.value("former_key_env", &base.former_key_env),
            hot_entries: section.within("hot_entries", &base.hot_entries, 1..=100_000_000),
            max_entries: section.within("max_entries", &base.max_entries, 1..=100_000_000),
            max_waiters: section.within("max_waiters", &base.max_waiters, 1..=1_000_000),
        }
    }
}

/// `dedup.by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Equal prompts share one job.
    Prompt,
    /// Only equal idempotency keys share.
    IdempotencyKey,
    /// Nothing is shared.
    Off,
}

impl Choice for By {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("prompt", Self::Prompt), ("idempotency-key", Self::IdempotencyKey), ("off", Self::Off)];
}

/// `dedup.scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One team.
    Team,
    /// One user of one team.
    User,
    /// Everybody.
    Global,
}

impl Choice for Scope {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("team", Self::Team), ("user", Self::User), ("global", Self::Global)];
}

impl Default for Dedup {
    fn default() -> Self {
        Self {
            by: By::Prompt,
            scope: Scope::Team,
            delivery_window: Duration::from_secs(23 * 3600),
            unknown_hold: Duration::from_secs(600),
            refusal_window: Duration::from_secs(600),
            url_ignore: Vec::new(),
            hold_statuses: vec![502, 504, 520, 521, 522, 523, 524],
            lost_call_codes: [
                "do_request_failed",
                "fail_to_fetch_task",
                "bad_response_status_code",
                "bad_response",
                "bad_response_body",
                "read_response_body_failed",
            ]
            .map(str::to_owned)
            .to_vec(),
            key_env: String::new(),
            former_key_env: String::new(),
            hot_entries: 100_000,
            max_entries: 1_000_000,
            max_waiters: 1000,
        }
    }
}

/// `[ledger]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// `kind`: where entries are kept.
    pub kind: Kind,
    /// `path`: the folder of the ledger on disk.
    pub path: PathBuf,
    /// `max_jobs`: job records in all; the oldest ended make room.
    pub max_jobs: usize,
    /// `redis_url_env`: the environment variable that holds the URL of Redis, with its password.
    pub redis_url_env: String,
    /// `redis_roots`: a PEM file of the authority that signs Redis' certificate; empty: Mozilla's list.
    pub redis_roots: Option<PathBuf>,
    /// `prefix`: what all keys in Redis begin with; a deployment of its own has one of its own.
    pub prefix: String,
    /// `timeout`: how long one question to Redis may take.
    pub timeout: Duration,
    /// `lease`: how long a claim in Redis stands without being renewed (M4).
    pub lease: Duration,
    /// `send_by`: how long after its claim a replica may still begin to send (M3).
    pub send_by: Duration,
}

impl Ledger {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            kind: section.value("kind", &base.kind),
            path: section.value("path", &base.path),
            max_jobs: section.within("max_jobs", &base.max_jobs, 1..=100_000_000),
            redis_url_env: section.value("redis_url_env", &base.redis_url_env),
            redis_roots: section.value("redis_roots", &base.redis_roots),
            prefix: section.value("prefix", &base.prefix),
            timeout: section.within("timeout", &base.timeout, WAIT),
            lease: section.within("lease", &base.lease, WAIT),
            send_by: section.within("send_by", &base.send_by, WAIT),
        }
    }

    /// The lease that counts: as it stands here, but if that is the default no more than half of `hold` (M4).
    pub fn lease_within(&self, hold: Duration) -> Duration {
        if self.lease == DEFAULT_LEASE { self.lease.min(hold / 2) } else { self.lease }
    }
}

/// `ledger.lease`, if nothing else is written.
const DEFAULT_LEASE: Duration = Duration::from_secs(30);

/// `ledger.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In a file of this process's own: a restart remembers.
    Disk,
    /// In this process: a restart forgets.
    Memory,
    /// In one Redis for many processes.
    Redis,
}

impl Choice for Kind {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("disk", Self::Disk), ("memory", Self::Memory), ("redis", Self::Redis)];
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            kind: Kind::Disk,
            path: PathBuf::from("reelgate-data"),
            max_jobs: 1_000_000,
            redis_url_env: "REELGATE_REDIS_URL".to_owned(),
            redis_roots: None,
            prefix: "reelgate:".to_owned(),
            timeout: Duration::from_millis(100),
            lease: DEFAULT_LEASE,
            send_by: Duration::from_secs(1),
        }
    }
}

/// `[polls]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Polls {
    /// `shape`: the form in which a poll's answer reaches the client.
    pub shape: Shape,
    /// `watch`: how long nobody polls a job before we do (M23).
    pub watch: Option<Duration>,
    /// `watch_concurrency`: how many jobs we look at at once.
    pub watch_concurrency: usize,
    /// `ownership`: who may poll a job (M31).
    pub ownership: Ownership,
    /// `adopt_unknown`: whether an id that nobody here knows belongs to whoever polls it first.
    pub adopt_unknown: Adopt,
    /// `max_owners`: owners of one job beside the team it was made for.
    pub max_owners: usize,
}

impl Polls {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            shape: section.value("shape", &base.shape),
            watch: section.within("watch", &base.watch, None..=Some(Duration::from_secs(3600))),
            watch_concurrency: section.within("watch_concurrency", &base.watch_concurrency, 1..=256),
            ownership: section.value("ownership", &base.ownership),
            adopt_unknown: section.value("adopt_unknown", &base.adopt_unknown),
            max_owners: section.within("max_owners", &base.max_owners, 1..=1_000_000),
        }
    }
}

/// `polls.ownership`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The teams that made or met a job.
    Team,
    /// The same; with a client token, only the user that made or met it.
    User,
    /// Everybody.
    Off,
}

impl Choice for Ownership {
    const CHOICES: &'static [(&'static str, Self)] = &[("team", Self::Team), ("user", Self::User), ("off", Self::Off)];
}

/// `polls.adopt_unknown`: true, false, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// With one team yes, with more no.
    Auto,
    /// Yes.
    Yes,
    /// No.
    No,
}

impl Value for Adopt {
    fn expected() -> Cow<'static, str> {
        "true, false or \"auto\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        if raw.text().is_some_and(|text| text == "auto") {
            return Some(Self::Auto);
        }
        bool::read(raw).map(|yes| if yes { Self::Yes } else { Self::No })
    }

    fn show(&self) -> String {
        let word = match self {
            Self::Auto => "auto",
            Self::Yes => "true",
            Self::No => "false",
        };
        word.to_owned()
    }
}

/// `polls.shape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every byte as the upstream sent it.
    Unchanged,
    /// CometAPI's wrapper is taken off, for clients that only know xAI's form.
    Flat,
}

impl Choice for Shape {
    const CHOICES: &'static [(&'static str, Self)] = &[("unchanged", Self::Unchanged), ("flat", Self::Flat)];
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            shape: Shape::Unchanged,
            ownership: Ownership::Team,
            adopt_unknown: Adopt::Auto,
            max_owners: 1000,
            watch: Some(Duration::from_secs(60)),
            watch_concurrency: 4,
        }
    }
}
