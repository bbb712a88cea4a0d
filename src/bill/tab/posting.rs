//! What a tab posts to the accounts that its charge counts in.

use super::Tab;
use crate::bill::account::{AccountKey, Holder, Period, Sums};
use crate::bill::charge::{Charge, accounts, holders};
use crate::bill::money::Amount;
use crate::clock::Time;

impl Tab {
    /// Reserves, or with -1 gives back.
    pub(super) fn hold(&mut self, charge: &Charge, sign: i64) {
        let change = Sums {
            reserved: sign * ticks(charge.price.amount()),
            reserved_millis: sign * millis(charge.price.millis),
            ..Sums::default()
        };
        self.post_all(charge, &change);
        for holder in holders(&charge.team, charge.user) {
            let running = self.running.entry(holder.clone()).or_default();
            *running += sign;
            if *running == 0 {
                self.running.remove(&holder);
            }
        }
    }

    pub(super) fn spend(&mut self, charge: &Charge, cost: Amount, video: u64, lost: Amount) {
        let change =
            Sums { spent: ticks(cost), spent_millis: millis(video), jobs: 1, lost: ticks(lost), ..Sums::default() };
        self.post_all(charge, &change);
        if let Some(changed) = &mut self.changed {
            changed.accounts.extend(accounts(charge));
        }
    }

    fn post_all(&mut self, charge: &Charge, change: &Sums) {
        if let Some(name) = &charge.name {
            self.names.entry((charge.team.clone(), charge.user)).or_insert_with(|| name.clone());
        }
        for key in accounts(charge) {
            self.post(key, change);
        }
    }

    pub(super) fn post(&mut self, key: AccountKey, change: &Sums) {
        let (period, is_user) = (key.period, matches!(key.holder, Holder::User(..)));
        let is_token = matches!(key.holder, Holder::Token(_));
        let known = self.accounts.len();
        self.accounts.entry(key).or_default().add(change);
        if self.accounts.len() > known {
            *self.users.entry(period).or_default() += usize::from(is_user);
            *self.tokens.entry(period).or_default() += usize::from(is_token);
        }
    }

    pub(super) fn forget(&mut self, now: Time) {
        for tracked in [&mut self.users, &mut self.tokens] {
            tracked.retain(|period, _| !period.is_over(now));
        }
        let changed = &mut self.changed;
        self.accounts.retain(|key, _| {
            let keeps = !key.period.is_over(now);
            if let (false, Some(changed)) = (keeps, &mut *changed) {
                changed.accounts.insert(key.clone());
            }
            keeps
        });
        let accounts = &self.accounts;
        self.names.retain(|(team, user), _| {
            let holder = Holder::User(team.clone(), *user);
            Period::of(now)
                .into_iter()
                .any(|period| accounts.contains_key(&AccountKey { period, holder: holder.clone() }))
        });
    }
}

fn ticks(amount: Amount) -> i64 {
    i64::try_from(amount.ticks()).unwrap_or(i64::MAX)
}

fn millis(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}
