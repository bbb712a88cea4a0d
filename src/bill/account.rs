//! The accounts of a day and of a month: what was spent and what is reserved, for everybody, for each team and for each
//! user. Days and months are UTC's.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::money::Amount;
use crate::clock::{Time, calendar};

/// A user inside its team, as a keyed hash: a name is shown only where `budgets.users` says so.
pub type UserId = [u8; 16];

/// Whose account it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Everybody together.
    Total,
    /// A team.
    Team(Arc<str>),
    /// A user of a team.
    User(Arc<str>, UserId),
    /// A client token with a budget of its own.
    Token(TokenId),
}

/// A client token, as a keyed hash.
pub type TokenId = [u8; 16];

impl Holder {
    /// The word of its limit in the configuration.
    pub const fn scope(&self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Team(_) => "team",
            Self::User(..) => "user",
            Self::Token(_) => "token",
        }
    }
}

/// A day or a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// Days since 1970-01-01.
    Day(u32),
    /// Months since 1970-01.
    Month(u32),
}

impl Period {
    /// The day and the month of a moment.
    pub fn of(time: Time) -> [Self; 2] {
        [Self::Day(calendar::day(time)), Self::Month(calendar::month(time))]
    }

    /// Its first moment.
    pub fn begins(self) -> Time {
        match self {
            Self::Day(day) => Time::from_millis(u64::from(day) * MILLIS_A_DAY),
            Self::Month(month) => calendar::month_begins(month),
        }
    }

    /// The one that follows.
    pub const fn next(self) -> Self {
        match self {
            Self::Day(day) => Self::Day(day.saturating_add(1)),
            Self::Month(month) => Self::Month(month.saturating_add(1)),
        }
    }

    /// Whether an account of it may be dropped at `now`: the one before the present is still settled.
    pub fn is_over(self, now: Time) -> bool {
        self.next().next().begins() <= now
    }
}

impl fmt::Display for Period {
    /// As ISO 8601 has it: `2026-11-26`, `2026-11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = calendar::date(self.begins());
        match self {
            Self::Day(_) => f.write_str(&date),
            Self::Month(_) => f.write_str(date.rsplit_once('-').map_or("", |(month, _)| month)),
        }
    }
}

const MILLIS_A_DAY: u64 = 24 * 3600 * 1000;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// The day or the month.
    pub period: Period,
    /// Whose it is.
    pub holder: Holder,
}

/// What stands in an account. Signed, so that a change is written in the same form as a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Ticks of settled jobs, and of unknown outcomes that were given up.
    pub spent: i64,
    /// Ticks of jobs that are not settled yet.
    #[serde(default, skip)]
    pub reserved: i64,
    /// Milliseconds of video that was settled.
    pub spent_millis: i64,
    /// Milliseconds of video that is not settled yet.
    #[serde(default, skip)]
    pub reserved_millis: i64,
    /// Settled jobs.
    pub jobs: i64,
    /// Of `spent`: ticks that brought no video.
    pub lost: i64,
}

impl Sums {
    /// Adds a change.
    pub fn add(&mut self, change: &Self) {
        let add = |sum: &mut i64, change: i64| *sum = sum.saturating_add(change);
        add(&mut self.spent, change.spent);
        add(&mut self.reserved, change.reserved);
        add(&mut self.spent_millis, change.spent_millis);
        add(&mut self.reserved_millis, change.reserved_millis);
        add(&mut self.jobs, change.jobs);
        add(&mut self.lost, change.lost);
    }

    /// Money that is gone or spoken for.
    pub fn used(&self) -> Amount {
        Amount::from_ticks(u64::try_from(self.spent.saturating_add(self.reserved)).unwrap_or_default())
    }

    /// Video that is made or spoken for, in milliseconds.
    pub fn used_millis(&self) -> u64 {
        u64::try_from(self.spent_millis.saturating_add(self.reserved_millis)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m29_days_and_months_are_those_of_the_calendar() {
        for (seconds, day, month) in [
            (0, "1970-01-01", "1970-01"),
            (951_782_399, "2000-02-28", "2000-02"),
            (951_782_400, "2000-02-29", "2000-02"),
            (951_868_800, "2000-03-01", "2000-03"),
            (1_798_761_599, "2026-12-31", "2026-12"),
            (1_798_761_600, "2027-01-01", "2027-01"),
            (4_107_542_399, "2100-02-28", "2100-02"),
            (4_107_542_400, "2100-03-01", "2100-03"),
        ] {
            let time = Time::from_millis(seconds * 1000);
            let shown = Period::of(time).map(|period| period.to_string());
            assert_eq!(shown, [day.to_owned(), month.to_owned()]);
            for period in Period::of(time) {
                assert!(period.begins() <= time && time < period.next().begins(), "{period}");
            }
        }
        // No clock, however wrong, makes it stop.
        assert_eq!(Period::of(Time::from_millis(u64::MAX))[0].to_string(), "9999-12-31");
    }

    #[test]
    fn an_account_is_kept_for_its_own_period_and_the_next() {
        let day = Period::Day(100);
        assert!(!day.is_over(Period::Day(101).begins()));
        assert!(day.is_over(Period::Day(102).begins()));
    }
}
