//! What may be spent, and by whom: the budgets and the numbers of jobs at once, ready for use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::account::{AccountKey, Holder, Period, Sums};
use super::money::Amount;
use super::settings::{Budget, Budgets, Ending, Running};
use super::tab::Charge;
use crate::error::Error;

/// The bounds of one kind of holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// What may be spent.
    pub budget: Budget,
    /// Jobs at once.
    pub running: Option<u32>,
}

/// All bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Of a user.
    pub user: Bound,
    /// Of a team.
    pub team: Bound,
    /// Of everybody together.
    pub total: Bound,
    /// Teams with bounds of their own: for each of their users, and for the team.
    pub teams: HashMap<Arc<str>, (Bound, Bound)>,
    /// What becomes of the money of failed jobs.
    pub failed: Ending,
    /// What becomes of the money of refused jobs.
    pub moderated: Ending,
    /// Users with an account of their own.
    pub tracked: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self::new(&Budgets::default(), Running::default(), HashMap::new())
    }
}

impl Terms {
    /// The terms of a configuration; `running` bounds the jobs of a user, of a team and of all.
    pub fn new(budgets: &Budgets, running: Running, teams: HashMap<Arc<str>, (Bound, Bound)>) -> Self {
        let Running { user, team, total } = running;
        Self {
            user: Bound { budget: budgets.user, running: user },
            team: Bound { budget: budgets.team, running: team },
            total: Bound { budget: budgets.total, running: total },
            teams,
            failed: budgets.failed,
            moderated: budgets.moderated,
            tracked: budgets.tracked,
        }
    }

    /// The bounds of a holder.
    pub fn bound(&self, holder: &Holder) -> Bound {
        match holder {
            Holder::Total => self.total,
            Holder::Team(team) => self.teams.get(team).map_or(self.team, |(_, own)| *own),
            // What a token may spend comes with each charge.
            Holder::Token(_) => Bound::default(),
            Holder::User(team, _) => self.teams.get(team).map_or(self.user, |(user, _)| *user),
        }
    }

    /// Whether one more job may run.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn running(&self, holder: &Holder, running: i64) -> Result<(), Exhausted> {
        match self.bound(holder).running {
            Some(most) if running >= i64::from(most) => {
                Err(Exhausted { limit: limit(holder, "running"), retry_after: Some(BETWEEN_JOBS), kind: What::Running })
            }
            _ => Ok(()),
        }
    }

    /// Whether a charge fits into an account.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn fits(&self, key: &AccountKey, sums: &Sums, charge: &Charge) -> Result<(), Exhausted> {
        let caps = self.caps(key, charge);
        if caps.money.is_some_and(|most| sums.used().plus(charge.price.amount()) > most) {
            return Err(caps.exhausted(Unit::Money));
        }
        let used = sums.used_millis().saturating_add(charge.price.millis);
        if caps.seconds.is_some_and(|most| used > u64::from(most) * 1000) {
            return Err(caps.exhausted(Unit::Seconds));
        }
        Ok(())
    }

    /// The bounds of an account that a charge counts in: the most, which of [`Sums`]' fields count, what the charge adds,
    /// and what is said when that is too much.
    pub fn bounds_of(
        &self,
        key: &AccountKey,
        charge: &Charge,
    ) -> impl Iterator<Item = (u64, [&'static str; 2], u64, Exhausted)> + use<> {
        let caps = self.caps(key, charge);
        let (amount, millis) = (charge.price.amount().ticks(), charge.price.millis);
        let money = caps.money.map(|most| (most.ticks(), ["spent", "reserved"], amount, caps.exhausted(Unit::Money)));
        let fields = ["spent_millis", "reserved_millis"];
        let seconds = caps.seconds.map(|most| (u64::from(most) * 1000, fields, millis, caps.exhausted(Unit::Seconds)));
        money.into_iter().chain(seconds)
    }

    /// What an account that a charge counts in still holds, if it is bounded: dollars and seconds of video.
    pub fn left(&self, key: &AccountKey, sums: &Sums, charge: &Charge) -> impl Iterator<Item = Left> + use<> {
        let Caps { money, seconds, names: [money_name, seconds_name], .. } = self.caps(key, charge);
        let used_seconds = u32::try_from(sums.used_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let money = money.map(|most| Left { limit: money_name, left: most.minus(sums.used()).dollars() });
        let left_seconds = |most: u32| Left { limit: seconds_name, left: most.saturating_sub(used_seconds).into() };
        money.into_iter().chain(seconds.map(left_seconds))
    }

    fn caps(&self, key: &AccountKey, charge: &Charge) -> Caps {
        if let (Holder::Token(_), Some(purse)) = (&key.holder, charge.purse) {
            let names = ["token.budget_usd", "token.budget_seconds"];
            // With this token never, and with another at once: whoever waits comes back with a token that has ended.
            return Caps { money: purse.usd, seconds: purse.seconds, names, retry_after: None };
        }
        let budget = self.bound(&key.holder).budget;
        let (money, seconds, names) = named(&budget, key.period);
        let names = names.map(|name| limit(&key.holder, name));
        Caps { money, seconds, names, retry_after: Some(key.period.next().begins().since(charge.at)) }
    }

    /// What of a reserved amount stays spent.
    pub const fn kept(&self, ending: Ending, amount: Amount) -> Amount {
        match ending {
            Ending::Return => Amount::ZERO,
            Ending::Keep => amount,
        }
    }
}

/// What an account may hold, and what is said when it is full.
struct Caps {
    money: Option<Amount>,
    seconds: Option<u32>,
    names: [&'static str; 2],
    retry_after: Option<Duration>,
}

/// What a budget counts.
enum Unit {
    Money,
    Seconds,
}

impl Caps {
    fn exhausted(&self, of: Unit) -> Exhausted {
        let [money, seconds] = self.names;
        let limit = match of {
            Unit::Money => money,
            Unit::Seconds => seconds,
        };
        Exhausted { limit, retry_after: self.retry_after, kind: What::Budget }
    }
}

/// The parts of a budget that count in a period, with their names.
const fn named(budget: &Budget, period: Period) -> (Option<Amount>, Option<u32>, [&'static str; 2]) {
    match period {
        Period::Day(_) => (budget.per_day, budget.seconds_per_day, ["per_day", "seconds_per_day"]),
        Period::Month(_) => (budget.per_month, budget.seconds_per_month, ["per_month", "seconds_per_month"]),
    }
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    /// The budget's name: `user.per_day`.
    pub limit: &'static str,
    /// Dollars, or seconds of video.
    pub left: f64,
}

/// A budget that is used up, or a number of jobs that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Its name: `user.per_day`, `team.running`.
    pub limit: &'static str,
    /// When it is worth asking again, if ever.
    pub retry_after: Option<Duration>,
    /// What it is.
    pub kind: What,
}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        let Exhausted { limit, retry_after, kind } = exhausted;
        match kind {
            What::Budget => Self::BudgetExhausted { limit, retry_after },
            What::Running => Self::RateLimited { limit, retry_after: retry_after.unwrap_or(BETWEEN_JOBS) },
        }
    }
}

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Money, or seconds of video.
    Budget,
    /// Jobs at once.
    Running,
}

fn limit(holder: &Holder, what: &str) -> &'static str {
    let place = |[user, team, total]: [&'static str; 3]| match holder {
        Holder::User(..) => user,
        Holder::Team(_) => team,
        Holder::Total | Holder::Token(_) => total,
    };
    match what {
        "per_day" => place(["user.per_day", "team.per_day", "total.per_day"]),
        "per_month" => place(["user.per_month", "team.per_month", "total.per_month"]),
        "seconds_per_day" => place(["user.seconds_per_day", "team.seconds_per_day", "total.seconds_per_day"]),
        "seconds_per_month" => place(["user.seconds_per_month", "team.seconds_per_month", "total.seconds_per_month"]),
        _ => place(["user.running", "team.running", "total.running"]),
    }
}

/// A job takes minutes: when one of several ends cannot be known.
const BETWEEN_JOBS: Duration = Duration::from_secs(10);
