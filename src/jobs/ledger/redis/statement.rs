//! What was spent, as the accounts in Redis have it. They may be many, so they are read some at a time, and only those that
//! are shown are kept; a submission beside it waits for one such question at most.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redis::{Pipeline, pipe};

use super::names::{account_key, accounts_key, holder_key, users_key};
use super::shared::{Shared, unavailable};
use crate::bill::account::{AccountKey, Holder, Period, Sums};
use crate::bill::form;
use crate::bill::statement::{Statement, keep_dearest};
use crate::bill::tab::Tab;
use crate::jobs::ledger::LedgerError;

/// What stands in an account, and what its user is called.
type Standing = (Sums, Option<Arc<str>>);

impl Shared {
    /// The accounts of the day and the month of now.
    pub(super) async fn statement(&self, top: usize) -> Result<Statement, LedgerError> {
        let now = self.time();
        let mut tab = Tab::default();
        tab.set_terms(self.terms.load_full());
        let mut shown = BTreeSet::new();
        for period in Period::of(now) {
            for (holder, (sums, name)) in self.dearest(period, top).await? {
                shown.insert(holder.clone());
                tab.restore_account(AccountKey { period, holder }, sums, name);
            }
        }
        let shown: Vec<Holder> = shown.into_iter().collect();
        for holders in shown.chunks(AT_ONCE) {
            let running: Vec<Option<i64>> = self.link.look_at(&self.running(holders)).await.map_err(unavailable)?;
            for (holder, running) in holders.iter().zip(running) {
                tab.restore_running(holder, running.unwrap_or_default());
            }
        }
        Ok(Statement::of(&tab, now, top))
    }

    /// The accounts of a period: of everybody, of all teams, and of the `top` users that used most, or some more.
    async fn dearest(&self, period: Period, top: usize) -> Result<HashMap<Holder, Standing>, LedgerError> {
        let mut held = HashMap::new();
        for set in [accounts_key(period), users_key(period)] {
            self.read_set(&self.key(&set), top, &mut held).await?;
        }
        Ok(held)
    }

    /// The same of one set of accounts.
    async fn read_set(&self, key: &str, top: usize, held: &mut HashMap<Holder, Standing>) -> Result<(), LedgerError> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = pipe();
            scan.cmd("SSCAN").arg(key).arg(cursor).arg("COUNT").arg(AT_ONCE);
            let ((next, members),): ((u64, Vec<String>),) = self.link.look_at(&scan).await.map_err(unavailable)?;
            let accounts: Vec<AccountKey> = members.iter().filter_map(|member| account(member)).collect();
            for accounts in accounts.chunks(AT_ONCE) {
                let sums: Vec<Fields> = self.link.look_at(&self.accounts(accounts)).await.map_err(unavailable)?;
                // A scan may give a member twice.
                held.extend(accounts.iter().map(|account| account.holder.clone()).zip(sums.iter().map(standing)));
            }
            if held.len() > 2 * (top + AT_ONCE) {
                drop_cheapest(held, top);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Asks what stands in some accounts.
    pub(super) fn accounts(&self, accounts: &[AccountKey]) -> Pipeline {
        let mut ask = pipe();
        accounts.iter().for_each(|account| _ = ask.cmd("HGETALL").arg(self.key(&account_key(account))));
        ask
    }

    /// Asks how many jobs of some holders run.
    pub(super) fn running(&self, holders: &[Holder]) -> Pipeline {
        let mut ask = pipe();
        holders.iter().for_each(|holder| _ = ask.cmd("HGET").arg(self.key(&holder_key(holder))).arg("running"));
        ask
    }
}

/// An account as it stands in Redis.
pub(super) type Fields = HashMap<String, String>;

/// What the fields of an account say.
pub(super) fn standing(fields: &Fields) -> Standing {
    let field = |name: &str| fields.get(name).and_then(|value| value.parse().ok()).unwrap_or_default();
    let sums = Sums {
        spent: field("spent"),
        reserved: field("reserved"),
        spent_millis: field("spent_millis"),
        reserved_millis: field("reserved_millis"),
        jobs: field("jobs"),
        lost: field("lost"),
    };
    (sums, fields.get("name").map(|name| Arc::from(name.as_str())))
}

/// Forgets all users but the `top` that used most.
fn drop_cheapest(held: &mut HashMap<Holder, Standing>, top: usize) {
    let is_user = |holder: &Holder| matches!(holder, Holder::User(..));
    let users = held.iter().filter(|(holder, _)| is_user(holder));
    let mut users: Vec<_> = users.map(|(holder, (sums, _))| (holder, sums)).collect();
    keep_dearest(&mut users, top);
    let kept: BTreeSet<Holder> = users.into_iter().map(|(holder, _)| holder.clone()).collect();
    held.retain(|holder, _| !is_user(holder) || kept.contains(holder));
}

/// The account of a member of the set of all accounts.
fn account(member: &str) -> Option<AccountKey> {
    form::parse_account_key(&hex::decode(member).ok()?)
}

/// How many accounts one question is about.
const AT_ONCE: usize = 250;
