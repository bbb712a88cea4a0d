//! What was spent, as the accounts in Redis have it, and what would become of a submission.

use std::collections::HashMap;
use std::sync::Arc;

use redis::cmd;

use super::names::{account_key, accounts_key, bytes, holder_key};
use super::shared::{Shared, unavailable};
use super::work::{Wanted, Work};
use crate::bill::account::{AccountKey, Period, Sums};
use crate::bill::form;
use crate::bill::statement::Statement;
use crate::bill::tab::{Tab, accounts};
use crate::jobs::ledger::{LedgerError, Preview, Request};

impl Shared {
    /// The accounts of the day and the month of now.
    pub(super) async fn statement(&self, top: usize) -> Result<Statement, LedgerError> {
        let now = self.time();
        let mut tab = Tab::default();
        tab.set_terms(self.terms.load_full());
        for period in Period::of(now) {
            let names: Vec<String> =
                self.link.query(cmd("SMEMBERS").arg(self.key(&accounts_key(period)))).await.map_err(unavailable)?;
            for name in names {
                if let Some(account) = unhex(&name).and_then(|bytes| form::parse_account_key(&bytes)) {
                    self.read_account(&mut tab, account).await?;
                }
            }
        }
        Ok(Statement::of(&tab, now, top))
    }

    /// What would become of a submission; nothing is changed.
    pub(super) async fn preview(&self, request: &Request) -> Result<Preview, LedgerError> {
        let ask = &request.ask;
        let mut work = Work::new(Wanted::asked(ask));
        self.look(&mut work).await?;
        let bounds = **self.bounds.load();
        let found = work.book.find(ask, self.time(), &bounds);
        let charge = &request.charge;
        let mut tab = Tab::default();
        tab.set_terms(self.terms.load_full());
        for account in accounts(charge) {
            self.read_account(&mut tab, account).await?;
        }
        Ok(Preview { found, exhausted: tab.fits(charge).err(), left: tab.left(charge) })
    }

    async fn read_account(&self, tab: &mut Tab, account: AccountKey) -> Result<(), LedgerError> {
        let fields: HashMap<String, String> =
            self.link.query(cmd("HGETALL").arg(self.key(&account_key(&account)))).await.map_err(unavailable)?;
        let field = |name: &str| fields.get(name).and_then(|value| value.parse().ok()).unwrap_or_default();
        let sums = Sums {
            spent: field("spent"),
            reserved: field("reserved"),
            spent_millis: field("spent_millis"),
            reserved_millis: field("reserved_millis"),
            jobs: field("jobs"),
            lost: field("lost"),
        };
        let running: Option<i64> = self
            .link
            .query(cmd("HGET").arg(self.key(&holder_key(&account.holder))).arg("running"))
            .await
            .map_err(unavailable)?;
        tab.restore_running(&account.holder, running.unwrap_or_default());
        tab.restore_account(account, sums, fields.get("name").map(|name| Arc::from(name.as_str())));
        Ok(())
    }
}

/// The bytes of hex digits.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = (0..digits.len() / 2).map(|place| digits.get(2 * place..2 * place + 2));
    pairs.map(|pair| bytes::<1>(pair?).map(|[byte]| byte)).collect()
}
