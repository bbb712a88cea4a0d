//! The tab of every attempt that may cost something: reserved before it is sent, settled once when its job ends, given
//! back if nothing was made, lost if nobody ever learns (`MONEY.md` M29). One step of the ledger's lock each.

mod posting;
mod written;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::account::{AccountKey, Holder, Period, Sums, UserId};
use super::money::Amount;
use super::terms::{Exhausted, Left, Terms};
use crate::clock::Time;
use crate::jobs::entry::AttemptId;

pub use self::written::Changed;
pub use super::charge::{Charge, accounts, holders};

/// How far an open tab has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not sent, or on its way.
    Reserved,
    /// The job exists.
    Created,
    /// Nobody knows; given up then.
    AtRisk(Time),
}

/// A tab that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What it may cost.
    pub charge: Charge,
    /// How far it has come.
    pub standing: Standing,
}

impl Open {
    /// When it is given up.
    pub fn due(&self) -> Option<Time> {
        match self.standing {
            Standing::Reserved => None,
            Standing::Created => Some(self.charge.at + LONGEST_JOB),
            Standing::AtRisk(until) => Some(until),
        }
    }
}

/// How a job ended, for its bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It made a video. What it cost if the upstream said so, and how long the video is if it told.
    Done {
        /// The upstream's own cost, as it counts here.
        cost: Option<Amount>,
        /// The video's length.
        length: Option<Duration>,
    },
    /// It failed or expired.
    Failed {
        /// As above.
        cost: Option<Amount>,
    },
    /// It was refused, by moderation or otherwise, as the same prompt would be again (M20); that is billed.
    Refused {
        /// As above.
        cost: Option<Amount>,
    },
}

/// What the process has seen of one team's money, for the metrics: it only grows, but for `at_risk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs that were made.
    pub spent: Amount,
    /// Of that, what did not have to be paid.
    pub returned: Amount,
    /// Failed, moderated, unknown.
    pub lost: [Amount; 3],
    /// Unknown outcomes that are still held.
    pub at_risk: Amount,
}

/// All tabs and accounts.
#[derive(Debug, Default)]
pub struct Tab {
    open: HashMap<AttemptId, Open>,
    /// When open tabs are given up.
    due: BTreeSet<(Time, AttemptId)>,
    accounts: HashMap<AccountKey, Sums>,
    names: HashMap<(Arc<str>, UserId), Arc<str>>,
    running: HashMap<Holder, i64>,
    /// Accounts of users, by period: bounded by `budgets.tracked`.
    users: HashMap<Period, usize>,
    /// Accounts of tokens, likewise.
    tokens: HashMap<Period, usize>,
    totals: HashMap<Arc<str>, Totals>,
    terms: Arc<Terms>,
    /// What is to be written down.
    changed: Option<Changed>,
}

impl Tab {
    /// Applies other budgets; what is used stays used.
    pub fn set_terms(&mut self, terms: Arc<Terms>) {
        self.terms = terms;
    }

    /// Whether a charge fits into every budget and every number of running jobs it counts in.
    ///
    /// # Errors
    /// The first that is full.
    pub fn fits(&self, charge: &Charge) -> Result<(), Exhausted> {
        let charge = &self.filed(charge.clone());
        let periods = Period::of(charge.at);
        for holder in holders(&charge.team, charge.user) {
            let running = self.running.get(&holder).copied().unwrap_or_default();
            self.terms.running(&holder, running)?;
            for period in periods {
                let key = AccountKey { period, holder: holder.clone() };
                let sums = self.accounts.get(&key).copied().unwrap_or_default();
                self.terms.fits(&key, &sums, charge)?;
            }
        }
        if let Some(key) = charge.purse.map(|purse| purse.account()) {
            let sums = self.accounts.get(&key).copied().unwrap_or_default();
            self.terms.fits(&key, &sums, charge)?;
        }
        Ok(())
    }

    /// What is left of every budget that a charge would count in.
    pub fn left(&self, charge: &Charge) -> Vec<Left> {
        let charge = &self.filed(charge.clone());
        let left = |key| {
            let sums = self.accounts.get(&key).copied().unwrap_or_default();
            self.terms.left(&key, &sums, charge)
        };
        accounts(charge).flat_map(left).collect()
    }

    /// Reserves what an attempt may cost.
    pub fn reserve(&mut self, attempt: AttemptId, charge: Charge) {
        let charge = self.filed(charge);
        self.hold(&charge, 1);
        self.open.insert(attempt, Open { charge, standing: Standing::Reserved });
    }

    /// It is about to be sent: from here on the reservation is durable (M7).
    pub fn sending(&mut self, attempt: AttemptId) {
        self.mark(attempt);
    }

    /// Nothing was made: everything is given back.
    pub fn release(&mut self, attempt: AttemptId) {
        let Some(open) = self.close(attempt) else { return };
        if let Standing::AtRisk(_) = open.standing {
            let totals = self.totals.entry(open.charge.team.clone()).or_default();
            totals.at_risk = totals.at_risk.minus(open.charge.price.amount());
        }
        self.hold(&open.charge, -1);
    }

    /// The job exists: its price counts as spent, once.
    pub fn created(&mut self, attempt: AttemptId) {
        if self.is_created(attempt) {
            return;
        }
        let Some(open) = self.stand(attempt, Standing::Created) else { return };
        let amount = open.charge.price.amount();
        let was_at_risk = matches!(open.standing, Standing::AtRisk(_));
        let totals = self.totals.entry(open.charge.team.clone()).or_default();
        totals.spent = totals.spent.plus(amount);
        if was_at_risk {
            totals.at_risk = totals.at_risk.minus(amount);
        }
    }

    /// Nobody knows whether it was paid. It stays reserved until then. A job that exists is not doubted any more.
    pub fn doubt(&mut self, attempt: AttemptId, until: Time) {
        if self.is_created(attempt) {
            return;
        }
        let Some(before) = self.stand(attempt, Standing::AtRisk(until)) else { return };
        if before.standing == Standing::Reserved {
            let totals = self.totals.entry(before.charge.team).or_default();
            totals.at_risk = totals.at_risk.plus(before.charge.price.amount());
        }
    }

    /// A job has ended: it is settled, once.
    pub fn settle(&mut self, attempt: AttemptId, verdict: Verdict) {
        let Some(open) = self.close(attempt) else { return };
        let (charge, amount) = (&open.charge, open.charge.price.amount());
        let (cost, millis, lost) = match verdict {
            Verdict::Done { cost, length } => {
                let price = length.map_or(charge.price, |length| charge.price.of_length(length));
                (cost.unwrap_or_else(|| price.amount()), price.millis, None)
            }
            Verdict::Failed { cost } => (self.terms.kept(self.terms.failed, cost.unwrap_or(amount)), 0, Some(FAILED)),
            Verdict::Refused { cost } => {
                (self.terms.kept(self.terms.moderated, cost.unwrap_or(amount)), 0, Some(MODERATED))
            }
        };
        let totals = self.totals.entry(charge.team.clone()).or_default();
        totals.spent = totals.spent.plus(cost.minus(amount));
        totals.returned = totals.returned.plus(amount.minus(cost));
        if let Some(sum) = lost.and_then(|reason| totals.lost.get_mut(reason)) {
            *sum = sum.plus(cost);
        }
        let lost = if lost.is_some() { cost } else { Amount::ZERO };
        self.hold(charge, -1);
        self.spend(charge, cost, millis, lost);
    }

    /// Gives up what is overdue, at most `most` tabs: unknown outcomes are lost, jobs whose end nobody saw cost their
    /// price. Forgets accounts that are over.
    pub fn sweep(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            let Some((_, attempt)) = self.due.first().filter(|(due, _)| *due <= now).copied() else { break };
            match self.open.get(&attempt).map(|open| open.standing) {
                Some(Standing::AtRisk(_)) => self.give_up(attempt),
                _ => self.settle(attempt, Verdict::Done { cost: None, length: None }),
            }
        }
        if self.users.keys().any(|period| period.is_over(now)) {
            self.forget(now);
        }
    }

    /// All accounts of a period.
    pub fn accounts(&self, period: Period) -> impl Iterator<Item = (&Holder, &Sums)> {
        self.accounts.iter().filter(move |(key, _)| key.period == period).map(|(key, sums)| (&key.holder, sums))
    }

    /// What a user is called.
    pub fn name_of(&self, holder: &Holder) -> Option<Arc<str>> {
        match holder {
            Holder::User(team, user) => self.names.get(&(team.clone(), *user)).cloned(),
            Holder::Total | Holder::Team(_) | Holder::Token(_) => None,
        }
    }

    /// Jobs that count as running.
    pub fn running(&self, holder: &Holder) -> i64 {
        self.running.get(holder).copied().unwrap_or_default()
    }

    /// What was seen of each team's money.
    pub fn totals(&self) -> impl Iterator<Item = (&Arc<str>, &Totals)> {
        self.totals.iter()
    }

    /// The budgets.
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The charge, as it counts: of a user and a token with an account of their own, while there is room.
    fn filed(&self, mut charge: Charge) -> Charge {
        let has_room = |tracked: &HashMap<Period, usize>, key: &AccountKey| {
            let tracked = tracked.get(&key.period).copied().unwrap_or_default();
            tracked < self.terms.tracked || self.accounts.contains_key(key)
        };
        let user = Holder::User(charge.team.clone(), charge.user);
        let of_user = Period::of(charge.at).map(|period| AccountKey { period, holder: user.clone() });
        if !of_user.iter().all(|key| has_room(&self.users, key)) {
            charge.share_user();
        }
        if charge.purse.is_some_and(|purse| !has_room(&self.tokens, &purse.account())) {
            charge.share_token();
        }
        charge
    }

    fn is_created(&self, attempt: AttemptId) -> bool {
        self.open.get(&attempt).is_some_and(|open| open.standing == Standing::Created)
    }

    fn give_up(&mut self, attempt: AttemptId) {
        let Some(open) = self.close(attempt) else { return };
        let amount = open.charge.price.amount();
        let totals = self.totals.entry(open.charge.team.clone()).or_default();
        totals.at_risk = totals.at_risk.minus(amount);
        if let Some(sum) = totals.lost.get_mut(UNKNOWN) {
            *sum = sum.plus(amount);
        }
        self.hold(&open.charge, -1);
        self.spend(&open.charge, amount, 0, amount);
    }

    fn close(&mut self, attempt: AttemptId) -> Option<Open> {
        let open = self.open.remove(&attempt)?;
        self.undue(attempt, &open);
        self.mark(attempt);
        Some(open)
    }

    /// Moves a tab on; returns it as it was.
    fn stand(&mut self, attempt: AttemptId, standing: Standing) -> Option<Open> {
        let open = self.open.get_mut(&attempt)?;
        let before = open.clone();
        open.standing = standing;
        let due = open.due();
        self.undue(attempt, &before);
        self.due.extend(due.map(|due| (due, attempt)));
        self.mark(attempt);
        Some(before)
    }

    fn undue(&mut self, attempt: AttemptId, open: &Open) {
        if let Some(due) = open.due() {
            self.due.remove(&(due, attempt));
        }
    }
}

/// A job whose end nobody saw is settled then: its record goes at the same time.
const LONGEST_JOB: Duration = Duration::from_secs(7 * 24 * 3600);
const FAILED: usize = 0;
const MODERATED: usize = 1;
const UNKNOWN: usize = 2;

#[cfg(test)]
mod tests;
