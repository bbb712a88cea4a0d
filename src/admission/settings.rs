//! `[access]` and `[limits.*]`: who may call, and how often.

use std::time::Duration;

/// `[access]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// `mode`: who may call.
    pub mode: Mode,
    /// `allow_public`: mode `open` on an address that is not loopback refuses to start without it.
    pub allow_public: bool,
}

/// `access.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everyone is the team `open`; what a client sends as Authorization is dropped.
    Open,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: Mode::Open, allow_public: false }
    }
}

/// How many, in how long: `"6/minute"`. The count is also the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long: a second, a minute, an hour or a day.
    pub per: Duration,
}

/// The two meters of one limit; `None` (written `"off"`, or absent) is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// `requests`: every submission, hits included.
    pub requests: Option<Rate>,
    /// `generations`: only submissions that would go upstream.
    pub generations: Option<Rate>,
}

/// `[limits.*]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `[limits.user]`: one `user` inside its team; without a `user`, the client's address.
    pub user: Rates,
    /// `[limits.team]`.
    pub team: Rates,
    /// `[limits.address]`: one IPv4 address or one IPv6 /64.
    pub address: Rates,
    /// `[limits.total]`: everybody together, the wallet's fuse.
    pub total: Rates,
    /// `limits.tracked`: how many users and how many addresses have a bucket of their own at a time; beyond it,
    /// newcomers share one.
    pub tracked: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        let rate = |count| Some(Rate { count, per: minute });
        Self {
            user: Rates { requests: rate(60), generations: rate(6) },
            team: Rates::default(),
            address: Rates { requests: rate(600), generations: None },
            total: Rates { requests: None, generations: rate(60) },
            tracked: 1_000_000,
        }
    }
}
