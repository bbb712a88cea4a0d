//! `[limits.*]`: how often each may call.

use std::time::Duration;

use super::quota::Kind;
use crate::config::Section;

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

impl Rates {
    /// One of them.
    pub const fn of(&self, kind: Kind) -> Option<Rate> {
        match kind {
            Kind::Requests => self.requests,
            Kind::Generations => self.generations,
        }
    }

    fn read(mut section: Section<'_, '_>, base: &Self) -> Self {
        Self {
            requests: section.value("requests", &base.requests),
            generations: section.value("generations", &base.generations),
        }
    }
}

/// `[limits.*]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `[limits.user]`: one `user` inside its team; without a `user`, the gateway key, or in mode `open` the client's
    /// address.
    pub user: Rates,
    /// `[limits.team]`.
    pub team: Rates,
    /// `[limits.address]`: one IPv4 address or one IPv6 /64.
    pub address: Rates,
    /// `[limits.total]`: everybody together, the wallet's fuse.
    pub total: Rates,
    /// `limits.tracked`: how many users, addresses and tokens have a bucket of their own at a time; beyond it,
    /// newcomers share one.
    pub tracked: usize,
}

impl Limits {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            user: Rates::read(section.section("user"), &base.user),
            team: Rates::read(section.section("team"), &base.team),
            address: Rates::read(section.section("address"), &base.address),
            total: Rates::read(section.section("total"), &base.total),
            tracked: section.within("tracked", &base.tracked, 1..=100_000_000),
        }
    }
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
