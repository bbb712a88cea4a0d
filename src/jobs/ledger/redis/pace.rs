//! The upstream's pace, one for all replicas: Redis knows when the next slot is, and by its own clock (`MONEY.md` M27).

use std::time::Duration;

use redis::cmd;

use super::shared::{Shared, unavailable};
use crate::admission::pace::{LONGEST_PAUSE, Slot};
use crate::jobs::ledger::LedgerError;

impl Shared {
    /// Reserves the next slot.
    pub(super) async fn next_slot(&self, interval: Duration) -> Result<Slot, LedgerError> {
        self.pace(interval, Duration::ZERO).await
    }

    /// No slot before that.
    pub(super) async fn pause(&self, wait: Duration) -> Result<(), LedgerError> {
        self.pace(Duration::ZERO, wait).await.map(drop)
    }

    async fn pace(&self, interval: Duration, pause: Duration) -> Result<Slot, LedgerError> {
        let longest = interval.max(Duration::from_secs(1)).saturating_mul(MOST_REPLICAS);
        let mut ask = cmd("EVAL");
        ask.arg(include_str!("pace.lua")).arg(0).arg(&self.link.prefix);
        [interval, pause, longest, LONGEST_PAUSE].map(micros).iter().for_each(|span| _ = ask.arg(span));
        let (wait, paused) = self.link.query(&ask).await.map_err(unavailable)?;
        Ok(Slot { wait: Duration::from_micros(wait), paused: Duration::from_micros(paused) })
    }
}

/// Rounded up: a slot may come late, not early.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Each has one slot reserved at most; so far ahead is believed.
const MOST_REPLICAS: u32 = 1000;
