//! What would become of a submission; nothing is changed.

use redis::pipe;

use super::filing::Crowded;
use super::shared::{Shared, unavailable};
use super::statement::{Fields, standing};
use super::work::{Wanted, Work};
use crate::admission::quota::Kind;
use crate::bill::account::AccountKey;
use crate::bill::tab::{Charge, Tab, accounts, holders};
use crate::jobs::ledger::{LedgerError, Preview, Request};

impl Shared {
    /// What would become of a submission.
    pub(super) async fn preview(&self, request: &Request) -> Result<Preview, LedgerError> {
        let ask = &request.ask;
        let mut work = Work::new(Wanted::asked(ask));
        self.look(&mut work).await?;
        let bounds = **self.bounds.load();
        let found = work.book.find(ask, self.time(), &bounds);
        let charge = self.filed(&request.charge).await?;
        let tab = self.tab_of(&charge).await?;
        let limited = match self.limits.address_refused(&request.who) {
            Some(refusal) => Some(refusal),
            None => self.take_one(&request.who, Kind::Generations, true).await?.err(),
        };
        Ok(Preview { found, exhausted: tab.fits(&charge).err(), limited, left: tab.left(&charge) })
    }

    /// A charge, as it would count.
    async fn filed(&self, charge: &Charge) -> Result<Charge, LedgerError> {
        let mut crowded = Crowded::default();
        let crowds = crowded.crowds(charge, self.terms.load().tracked);
        let mut ask = pipe();
        for (crowd, _) in &crowds {
            ask.cmd("EXISTS").arg(self.key(&crowd.key)).cmd("SCARD").arg(self.key(&crowd.set));
        }
        let told: Vec<usize> = self.link.query_all(&ask).await.map_err(unavailable)?;
        for ((crowd, whose), told) in crowds.iter().zip(told.chunks(2)) {
            if matches!(told, [0, held] if *held >= crowd.most) {
                crowded.note(*whose);
            }
        }
        Ok(crowded.filed(charge))
    }

    /// A tab with all accounts that a charge counts in.
    async fn tab_of(&self, charge: &Charge) -> Result<Tab, LedgerError> {
        let mut tab = Tab::default();
        tab.set_terms(self.terms.load_full());
        let accounts: Vec<AccountKey> = accounts(charge).collect();
        let holders = holders(&charge.team, charge.user);
        let sums: Vec<Fields> = self.link.query_all(&self.accounts(&accounts)).await.map_err(unavailable)?;
        let running: Vec<Option<i64>> = self.link.query_all(&self.running(&holders)).await.map_err(unavailable)?;
        for (account, fields) in accounts.into_iter().zip(&sums) {
            let (sums, name) = standing(fields);
            tab.restore_account(account, sums, name);
        }
        for (holder, running) in holders.iter().zip(running) {
            tab.restore_running(holder, running.unwrap_or_default());
        }
        Ok(tab)
    }
}
