//! What was spent, for people and scripts: `/admin/spend` as JSON, which `reelgate spend` prints.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::account::{Holder, Period, Sums};
use super::money::Amount;
use super::settings::Budget;
use super::tab::Tab;
use crate::clock::Time;

/// What was spent in a day and in its month.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The day, then the month; both UTC's.
    pub periods: Vec<Page>,
}

/// What was spent in one period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// `2026-11-26` or `2026-11`.
    pub period: String,
    /// Everybody together.
    pub total: Line,
    /// Each team, the dearest first.
    pub teams: Vec<Line>,
    /// The users that spent most, the dearest first.
    pub users: Vec<Line>,
}

/// One account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The user: a keyed hash, or its name where `budgets.users = "clear"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Dollars of settled jobs.
    pub spent_usd: f64,
    /// Dollars of jobs that run, and of unknown outcomes.
    pub reserved_usd: f64,
    /// Of the spent dollars: what brought no video.
    pub lost_usd: f64,
    /// Seconds of video that were settled.
    pub seconds: f64,
    /// Settled jobs.
    pub jobs: i64,
    /// Jobs that run now.
    pub running: i64,
    /// What may be spent, if that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// Seconds of video that may be made, if that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_seconds: Option<u32>,
}

impl Statement {
    /// The accounts of the day and the month of `now`, with the `top` users that spent most.
    pub fn of(tab: &Tab, now: Time, top: usize) -> Self {
        Self { periods: Period::of(now).into_iter().map(|period| Page::of(tab, period, top)).collect() }
    }
}

impl Page {
    fn of(tab: &Tab, period: Period, top: usize) -> Self {
        let (mut total, mut teams, mut users) = (Sums::default(), Vec::new(), Vec::new());
        for (holder, sums) in tab.accounts(period) {
            match holder {
                Holder::Total => total = *sums,
                Holder::Team(_) => teams.push((holder, sums)),
                Holder::User(..) => users.push((holder, sums)),
                // What it spends is its user's.
                Holder::Token(_) => {}
            }
        }
        keep_dearest(&mut users, top);
        users.sort_unstable_by(dearest);
        teams.sort_unstable_by(dearest);
        let lines = |accounts: Vec<(&Holder, &Sums)>| {
            accounts.into_iter().map(|(holder, sums)| Line::of(tab, period, holder, sums)).collect()
        };
        Self {
            period: period.to_string(),
            total: Line::of(tab, period, &Holder::Total, &total),
            teams: lines(teams),
            users: lines(users),
        }
    }
}

/// Keeps the `top` accounts that used most, in no order.
pub fn keep_dearest(accounts: &mut Vec<(&Holder, &Sums)>, top: usize) {
    if accounts.len() > top {
        accounts.select_nth_unstable_by(top, dearest);
        accounts.truncate(top);
    }
}

fn dearest(one: &(&Holder, &Sums), other: &(&Holder, &Sums)) -> Ordering {
    other.1.used().cmp(&one.1.used()).then_with(|| one.0.cmp(other.0))
}

impl Line {
    fn of(tab: &Tab, period: Period, holder: &Holder, sums: &Sums) -> Self {
        let (team, user) = match holder {
            Holder::Total | Holder::Token(_) => (None, None),
            Holder::Team(team) => (Some(team.to_string()), None),
            Holder::User(team, id) => {
                let hashed = || hex::encode(id);
                (Some(team.to_string()), Some(tab.name_of(holder).map_or_else(hashed, |name| name.to_string())))
            }
        };
        let Budget { per_day, per_month, seconds_per_day, seconds_per_month } = tab.terms().bound(holder).budget;
        let (money, video) = match period {
            Period::Day(_) => (per_day, seconds_per_day),
            Period::Month(_) => (per_month, seconds_per_month),
        };
        Self {
            team,
            user,
            spent_usd: dollars(sums.spent),
            reserved_usd: dollars(sums.reserved),
            lost_usd: dollars(sums.lost),
            seconds: seconds(sums.spent_millis),
            jobs: sums.jobs,
            running: tab.running(holder),
            budget_usd: money.map(Amount::dollars),
            budget_seconds: video,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "so much video nobody makes")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

fn dollars(ticks: i64) -> f64 {
    Amount::from_ticks(u64::try_from(ticks).unwrap_or_default()).dollars()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::bill::price::Price;
    use crate::bill::settings::{Budgets, Running};
    use crate::bill::tab::{Charge, Verdict};
    use crate::bill::terms::Terms;
    use crate::jobs::entry::AttemptId;

    #[test]
    fn the_dearest_users_come_first_and_only_as_many_as_were_asked_for() {
        let mut tab = Tab::default();
        let budget = Budget { per_day: Amount::parse("5"), ..Budget::default() };
        let budgets = Budgets { team: budget, ..Budgets::default() };
        tab.set_terms(Arc::new(Terms::new(&budgets, Running::default(), HashMap::new())));
        let now = Time::from_millis(1_795_694_400_000);
        for number in 1..=5 {
            let price =
                Price { second: Amount::parse("0.1").unwrap(), millis: 1000 * u64::from(number), ..Price::default() };
            let name = (number == 5).then(|| "alice".into());
            let attempt = AttemptId::from_bytes([number; 16]);
            tab.reserve(attempt, Charge { team: "a".into(), user: [number; 16], name, price, purse: None, at: now });
        }
        tab.settle(AttemptId::from_bytes([4; 16]), Verdict::Done { cost: None, length: None });
        let statement = Statement::of(&tab, now, 2);
        let [day, month] = &statement.periods[..] else { panic!("{statement:?}") };
        assert_eq!((day.period.as_str(), month.period.as_str()), ("2026-11-26", "2026-11"));
        let users: Vec<_> = day.users.iter().map(|line| line.user.clone().unwrap()).collect();
        assert_eq!(users, ["alice".to_owned(), "04".repeat(16)]);
        assert_eq!((day.total.spent_usd, day.total.reserved_usd, day.total.jobs), (0.4, 1.1, 1));
        assert_eq!((day.teams[0].budget_usd, day.teams[0].running, month.teams[0].budget_usd), (Some(5.0), 4, None));
    }
}
