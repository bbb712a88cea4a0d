//! What of tabs and accounts is written down, and when; and how they come back, from a file or as they stand in Redis.

use std::sync::Arc;

use foldhash::HashSet;

use super::{Open, Standing, Tab};
use crate::bill::account::{AccountKey, Holder, Sums};
use crate::clock::Time;
use crate::jobs::entry::AttemptId;

/// Which tabs and accounts are to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Tabs, by their attempt.
    pub tabs: HashSet<AttemptId>,
    /// Accounts.
    pub accounts: HashSet<AccountKey>,
}

impl Changed {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.tabs.is_empty() && self.accounts.is_empty()
    }

    /// Both together.
    pub fn extend(&mut self, other: Self) {
        self.tabs.extend(other.tabs);
        self.accounts.extend(other.accounts);
    }
}

impl Tab {
    /// Notes from now on what is to be written down.
    pub fn keep_changed(&mut self) {
        self.changed = Some(Changed::default());
    }

    /// What has changed since this was asked last.
    pub fn take_changed(&mut self) -> Changed {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether anything has.
    pub fn has_changed(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// Puts a tab back that was written down; one that was on its way is at risk until `hold_until`, which is written down
    /// in its turn.
    pub fn restore(&mut self, attempt: AttemptId, mut open: Open, hold_until: Time) {
        if open.standing == Standing::Reserved {
            open.standing = Standing::AtRisk(hold_until);
            self.mark(attempt);
        }
        if matches!(open.standing, Standing::AtRisk(_)) {
            let totals = self.totals.entry(open.charge.team.clone()).or_default();
            totals.at_risk = totals.at_risk.plus(open.charge.price.amount());
        }
        self.put_back(attempt, open);
    }

    /// Puts a tab back as it was, and with it what it reserves.
    pub fn put_back(&mut self, attempt: AttemptId, open: Open) {
        self.hold(&open.charge, 1);
        self.load(attempt, open);
    }

    /// Takes in a tab as it stands elsewhere: what it reserves is counted there.
    pub fn load(&mut self, attempt: AttemptId, open: Open) {
        self.due.extend(open.due().map(|due| (due, attempt)));
        self.open.insert(attempt, open);
    }

    /// Takes in how many jobs of a holder run, as it stands elsewhere.
    pub fn restore_running(&mut self, holder: &Holder, jobs: i64) {
        if jobs != 0 {
            self.running.insert(holder.clone(), jobs);
        }
    }

    /// Everything that was posted: where tabs are only loaded, that is what has changed.
    pub fn posted(&self) -> impl Iterator<Item = (&AccountKey, &Sums)> {
        self.accounts.iter()
    }

    /// The same of jobs at once.
    pub fn started(&self) -> impl Iterator<Item = (&Holder, i64)> {
        self.running.iter().map(|(holder, jobs)| (holder, *jobs))
    }

    /// Puts an account back that was written down.
    pub fn restore_account(&mut self, key: AccountKey, sums: Sums, name: Option<Arc<str>>) {
        if let (Holder::User(team, user), Some(name)) = (&key.holder, name) {
            self.names.insert((team.clone(), *user), name);
        }
        self.post(key, &sums);
    }

    /// The tab of an attempt, to be written down.
    pub fn open(&self, attempt: &AttemptId) -> Option<&Open> {
        self.open.get(attempt)
    }

    /// An account, to be written down.
    pub fn account(&self, key: &AccountKey) -> Option<(&Sums, Option<Arc<str>>)> {
        self.accounts.get(key).map(|sums| (sums, self.name_of(&key.holder)))
    }

    /// A tab is to be written down.
    pub(super) fn mark(&mut self, attempt: AttemptId) {
        if let Some(changed) = &mut self.changed {
            changed.tabs.insert(attempt);
        }
    }
}
