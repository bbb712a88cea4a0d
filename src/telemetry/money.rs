//! The metrics of money, by team. Teams come from the configuration, so their number is the operator's.

use prometheus::{CounterVec, GaugeVec};

use super::family::Builder;
use super::labels::Saved;
use crate::bill::money::Amount;
use crate::bill::tab::Totals;

/// What was spent, saved and lost.
pub struct Money {
    spent: CounterVec,
    returned: CounterVec,
    saved: CounterVec,
    lost: CounterVec,
    at_risk: GaugeVec,
}

impl Money {
    pub(super) fn new(make: &Builder<'_>) -> prometheus::Result<Self> {
        let money = Self {
            spent: make.amounts("spend_usd_total", "Dollars of the jobs that were made.", &["team"])?,
            returned: make.amounts(
                "spend_returned_usd_total",
                "Of the dollars in spend_usd_total: what did not have to be paid in the end.",
                &["team"],
            )?,
            saved: make.amounts(
                "spend_saved_usd_total",
                "Dollars that were not spent because a job existed already.",
                &["team", "reason"],
            )?,
            lost: make.amounts("spend_lost_usd_total", "Dollars that brought no video.", &["team", "reason"])?,
            at_risk: make.amounts_now(
                "spend_at_risk_usd",
                "Dollars of submissions whose outcome is unknown and still held.",
                &["team"],
            )?,
        };
        Ok(money)
    }

    /// Makes a team's series, so that a dashboard sees zeros instead of gaps.
    pub fn know(&self, team: &str) {
        self.show(team, &Totals::default());
        Saved::ALL.iter().for_each(|reason| self.saved(team, *reason, Amount::ZERO));
    }

    /// A submission cost nothing.
    pub fn saved(&self, team: &str, reason: Saved, amount: Amount) {
        self.saved.with_label_values(&[team, reason.name()]).inc_by(amount.dollars());
    }

    /// Brings a team's metrics up to what the ledger has seen. Only at a scrape, where one does it at a time.
    pub fn show(&self, team: &str, totals: &Totals) {
        raise(&self.spent, &[team], totals.spent);
        raise(&self.returned, &[team], totals.returned);
        for (reason, amount) in ["failed", "moderated", "unknown"].into_iter().zip(totals.lost) {
            raise(&self.lost, &[team, reason], amount);
        }
        self.at_risk.with_label_values(&[team]).set(totals.at_risk.dollars());
    }
}

fn raise(counters: &CounterVec, labels: &[&str], total: Amount) {
    let counter = counters.with_label_values(labels);
    // A counter takes nothing negative; rounding may make a difference of nothing so.
    counter.inc_by((total.dollars() - counter.get()).max(0.0));
}
