//! One limit: its name, and the decision whether one more fits, made by governor's GCRA. A limiter is made for each
//! decision over the bucket at hand, so a reload changes quotas without touching what is stored, and every limit of
//! one request is judged at the same moment.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};

use super::settings::{self, Rate};

/// Whom a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One client token, by the limits that it brings along.
    Token,
    /// One `user` inside its team.
    User,
    /// One team.
    Team,
    /// One IPv4 address or one IPv6 /64.
    Address,
    /// Everybody together.
    Total,
}

impl Scope {
    /// Every scope, in the order in which their buckets are locked.
    pub const ALL: [Self; 5] = [Self::Token, Self::User, Self::Team, Self::Address, Self::Total];

    /// The metric label `limit`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Team => "team",
            Self::Address => "address",
            Self::Total => "total",
        }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Every submission.
    Requests,
    /// Only submissions that would go upstream.
    Generations,
}

impl Kind {
    /// The metric label `kind`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Generations => "generations",
        }
    }
}

/// One limit of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Whom it counts.
    pub scope: Scope,
    /// What it counts.
    pub kind: Kind,
}

impl Limit {
    /// Every limit, in the order of the headers.
    pub const ALL: [Self; 10] = [
        Self { scope: Scope::Token, kind: Kind::Requests },
        Self { scope: Scope::Token, kind: Kind::Generations },
        Self { scope: Scope::User, kind: Kind::Requests },
        Self { scope: Scope::User, kind: Kind::Generations },
        Self { scope: Scope::Team, kind: Kind::Requests },
        Self { scope: Scope::Team, kind: Kind::Generations },
        Self { scope: Scope::Address, kind: Kind::Requests },
        Self { scope: Scope::Address, kind: Kind::Generations },
        Self { scope: Scope::Total, kind: Kind::Requests },
        Self { scope: Scope::Total, kind: Kind::Generations },
    ];

    /// Its place in [`Limit::ALL`].
    pub(super) const fn place(self) -> usize {
        self.scope as usize * 2 + self.kind as usize
    }

    /// Its name in the configuration, in errors and in headers: `user.generations`.
    pub const fn name(self) -> &'static str {
        match (self.scope, self.kind) {
            (Scope::Token, Kind::Requests) => "token.requests",
            (Scope::Token, Kind::Generations) => "token.generations",
            (Scope::User, Kind::Requests) => "user.requests",
            (Scope::User, Kind::Generations) => "user.generations",
            (Scope::Team, Kind::Requests) => "team.requests",
            (Scope::Team, Kind::Generations) => "team.generations",
            (Scope::Address, Kind::Requests) => "address.requests",
            (Scope::Address, Kind::Generations) => "address.generations",
            (Scope::Total, Kind::Requests) => "total.requests",
            (Scope::Total, Kind::Generations) => "total.generations",
        }
    }

    /// Its rate; `None` where it is off, and for a token, which brings its own.
    pub fn rate(self, limits: &settings::Limits) -> Option<Rate> {
        let rates = match self.scope {
            Scope::Token => return None,
            Scope::User => &limits.user,
            Scope::Team => &limits.team,
            Scope::Address => &limits.address,
            Scope::Total => &limits.total,
        };
        rates.of(self.kind)
    }
}

/// A rate as GCRA counts it: each submission owes one `interval`, and a bucket may owe one `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) count: NonZeroU32,
    pub(super) interval: Nanos,
    pub(super) window: Nanos,
}

impl Quota {
    pub(super) fn of(rate: Rate) -> Self {
        let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
        let interval = Nanos::from((rate.per / count.get()).max(Duration::from_nanos(1)));
        Self { count, interval, window: interval * u64::from(count.get()) }
    }

    /// Asks for one more; `Err` is how long to wait until it would fit. The store decides what becomes of the new
    /// time.
    pub(super) fn take(&self, bucket: impl StateStore<Key = NotKeyed>, now: Nanos) -> Result<(), Nanos> {
        let interval = Duration::from(self.interval);
        // The interval is never zero, which is all that governor asks of it.
        let quota = governor::Quota::with_period(interval)
            .unwrap_or(governor::Quota::per_second(self.count))
            .allow_burst(self.count);
        let limiter: RateLimiter<_, _, _, NoOpMiddleware<Nanos>> = RateLimiter::new(quota, bucket, Readings::at(now));
        limiter.check().map_err(|refusal| refusal.wait_time_from(now).into())
    }

    /// What as many submissions owe here as owed `debt` by the old quota; a window at most.
    pub(super) fn of_same_count(&self, debt: Nanos, old: &Self) -> Nanos {
        let product = u128::from(debt.as_u64()) * u128::from(self.interval.as_u64());
        let debt = product.div_ceil(u128::from(old.interval.as_u64().max(1)));
        Nanos::new(u64::try_from(debt).unwrap_or(u64::MAX)).min(self.window)
    }

    /// How a bucket stands that owes until `time`.
    pub(super) fn level(&self, time: Nanos, now: Nanos) -> Level {
        let free = self.window.saturating_sub(time.saturating_sub(now));
        let remaining = free / self.interval;
        let wait = match remaining < u64::from(self.count.get()) {
            true => (self.interval * (remaining + 1)).saturating_sub(free),
            false => Nanos::default(),
        };
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        Level { remaining, seconds: u32::try_from(whole_millis(wait).div_ceil(1000)).unwrap_or(u32::MAX) }
    }
}

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// How many more fit now.
    pub remaining: u32,
    /// In how many seconds, rounded up, one more than that; 0 if the bucket is full.
    pub seconds: u32,
}

/// Rounded up, because [`crate::error::Error::retry_after`] drops what is less than a millisecond.
pub(super) fn whole_millis(span: Nanos) -> u64 {
    span.as_u64().div_ceil(NANOS_A_MILLISECOND)
}

/// The times of one decision, as governor reads them: a limiter takes its first reading as the origin of all stored
/// times, so that one is always zero, whenever the limiter is made.
struct Readings {
    next: Cell<Nanos>,
    now: Nanos,
}

impl Readings {
    fn at(now: Nanos) -> Self {
        Self { next: Cell::new(Nanos::default()), now }
    }
}

impl Clock for Readings {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.next.replace(self.now)
    }
}

pub(super) const NANOS_A_MILLISECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(count: u32, seconds: u64) -> Quota {
        Quota::of(Rate { count, per: Duration::from_secs(seconds) })
    }

    fn seconds(seconds: u64) -> Nanos {
        Duration::from_secs(seconds).into()
    }

    #[test]
    fn a_level_says_how_many_fit_and_when_one_more_does() {
        let now = seconds(1_000);
        for (owes, remaining, wait) in
            [(0, 6, 0), (1, 5, 1), (10, 5, 10), (11, 4, 1), (50, 1, 10), (51, 0, 1), (60, 0, 10), (75, 0, 10)]
        {
            let level = quota(6, 60).level(now + seconds(owes), now);
            assert_eq!(level, Level { remaining, seconds: wait }, "owes {owes}");
        }
        assert_eq!(quota(6, 60).level(seconds(3), now), Level { remaining: 6, seconds: 0 });
    }

    #[test]
    fn limits_and_scopes_stand_in_their_places() {
        assert!(Limit::ALL.into_iter().map(Limit::place).eq(0..Limit::ALL.len()));
        assert!(Scope::ALL.into_iter().map(|scope| scope as usize).eq(0..Scope::ALL.len()));
    }

    #[test]
    fn r61_waits_round_up_to_whole_seconds() {
        let now = seconds(1_000);
        let owes = |nanos| quota(1, 10).level(now + Nanos::new(nanos), now).seconds;
        assert_eq!((owes(1), owes(1_000_000_000), owes(1_000_000_001)), (1, 1, 2));
    }

    #[test]
    fn extreme_rates_are_quotas_too() {
        assert_eq!(quota(u32::MAX, 1).interval, Nanos::new(1));
        assert_eq!(quota(0, 1).count.get(), 1);
        assert_eq!(quota(1, 86_400).window, seconds(86_400));
    }
}
