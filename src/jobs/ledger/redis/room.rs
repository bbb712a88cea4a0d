//! How many entries there are, and how there is room for one more (`MONEY.md` M28). A value may leave by itself, when nobody
//! has swept for days or Redis evicts; then its places in the indexes are dropped, so that nothing is counted that is not
//! there.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use redis::cmd;

use super::names::bytes;
use super::shared::{PLAIN, Shared, unavailable};
use super::upkeep::AT_ONCE;
use super::work::Wanted;
use crate::bill::money::Amount;
use crate::jobs::book::Book;
use crate::jobs::entry::State;
use crate::jobs::ledger::LedgerError;
use crate::request::fingerprint::Fingerprint;

impl Shared {
    /// The numbers for the metrics.
    pub(super) async fn count(&self) -> Result<(), LedgerError> {
        let mut ask = cmd("EVAL");
        ask.arg(include_str!("count.lua")).arg(0).arg(&self.link.prefix).arg(AT_ONCE);
        let mut counts = self.counts.load().0;
        counts.iter().for_each(|(state, _)| _ = ask.arg(*state));
        let held: Vec<usize> = self.link.query(&ask).await.map_err(unavailable)?;
        let running: usize = self.link.query(cmd("ZCARD").arg(self.key("running"))).await.map_err(unavailable)?;
        let risks: HashMap<String, i64> =
            self.link.query(cmd("HGETALL").arg(self.key("risk"))).await.map_err(unavailable)?;
        counts.iter_mut().zip(held).for_each(|((_, count), held)| *count = held);
        self.counts.store(Arc::new((counts, running)));
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        for (team, ticks) in risks {
            let at_risk = Amount::from_ticks(u64::try_from(ticks).unwrap_or_default());
            totals.entry(team.into()).or_default().at_risk = at_risk;
        }
        Ok(())
    }

    /// The oldest `done` of the team that has most makes room for one more entry. Whether one did, or something else has
    /// left.
    pub(super) async fn make_room(&self) -> Result<bool, LedgerError> {
        let mut ask = cmd("EVAL");
        ask.arg(include_str!("oldest.lua")).arg(0).arg(&self.link.prefix);
        self.counts.load().0.iter().for_each(|(state, _)| _ = ask.arg(*state));
        for _ in 0..AT_ONCE {
            let oldest: Vec<String> = self.link.query(&ask).await.map_err(unavailable)?;
            let [index, member] = oldest.as_slice() else {
                let due = self.due("due", self.link.now().as_millis()).await?;
                let standing = self.drop_vanished(&due).await?;
                return Ok(standing.len() < due.len() || self.drop_vanished_by_chance().await?);
            };
            if self.evict(member).await? || self.drop_vanished(std::slice::from_ref(member)).await?.is_empty() {
                return Ok(true);
            }
            // It is not what the index says, as a replica of an earlier version may have left it.
            self.leave(index, member).await?;
        }
        Ok(false)
    }

    /// Evicts an entry if it is `done`. Whether it was.
    async fn evict(&self, member: &str) -> Result<bool, LedgerError> {
        let Some(fingerprint) = bytes(member).map(Fingerprint::from_bytes) else { return Ok(false) };
        self.hot.remove(&fingerprint);
        self.unit(Wanted::entry(fingerprint), PLAIN, |book: &mut Book, _, bounds| {
            let done = book.entry(&fingerprint).is_some_and(|entry| matches!(entry.state, State::Done(..)));
            book.evict_done(&fingerprint, &bounds.windows);
            Ok(done)
        })
        .await
    }

    /// Some entries, wherever they are: what Redis has evicted is found in time. Whether any had left.
    pub(super) async fn drop_vanished_by_chance(&self) -> Result<bool, LedgerError> {
        let mut some = cmd("ZRANDMEMBER");
        some.arg(self.key("names")).arg(AT_ONCE);
        let some: Vec<String> = self.link.query(&some).await.map_err(unavailable)?;
        Ok(self.drop_vanished(&some).await?.len() < some.len())
    }

    /// Drops those entries from the indexes whose values have left by themselves; gives those which stand.
    pub(super) async fn drop_vanished(&self, members: &[String]) -> Result<Vec<String>, LedgerError> {
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let states = self.counts.load().0;
        let mut ask = cmd("EVAL");
        ask.arg(include_str!("vanished.lua")).arg(0).arg(&self.link.prefix).arg(states.len());
        states.iter().for_each(|(state, _)| _ = ask.arg(*state));
        self.link.query(ask.arg(members)).await.map_err(unavailable)
    }
}
