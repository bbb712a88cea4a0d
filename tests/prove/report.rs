//! The result of a run, as it is printed.

use std::fmt;
use std::time::Duration;

use super::arguments::Arguments;
use super::books::{Findings, Tally};
use super::storm::Damage;

/// See the module's page.
pub struct Report {
    pub arguments: Arguments,
    pub rounds: usize,
    pub damage: Damage,
    pub cuts: u64,
    pub tally: Tally,
    pub findings: Findings,
    pub took: Duration,
    /// The last lines of the replicas' logs.
    pub logs: String,
}

impl Report {
    /// Whether the promise held.
    pub fn holds(&self) -> bool {
        let Findings { duplicates, lost, wrong, .. } = &self.findings;
        duplicates.is_empty() && lost.is_empty() && wrong.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arguments, damage, tally, findings, .. } = self;
        let (replicas, clients) = (arguments.replicas, arguments.clients);
        writeln!(to, "{}", arguments.again())?;
        writeln!(to, "  ledger        {:?}, {replicas} replicas, {clients} clients", arguments.ledger)?;
        writeln!(to, "  rounds        {}, in {} s", self.rounds, self.took.as_secs())?;
        let Damage { kills, freezes, terms, drops, .. } = damage;
        writeln!(to, "  replicas      {kills} kills, {freezes} freezes, {terms} ends and starts")?;
        writeln!(to, "  upstream      {} connections cut or left silent, {drops} times away", self.cuts)?;
        if damage.redis_kills + damage.redis_freezes + damage.redis_flushes > 0 {
            let Damage { redis_kills, redis_freezes, redis_flushes, .. } = damage;
            writeln!(
                to,
                "  Redis         {redis_kills} kills, {redis_freezes} freezes, {redis_flushes} times emptied"
            )?;
        }
        let Tally { submissions, hits, joins, made, unknown, refused, unavailable, unanswered } = tally;
        writeln!(to, "  submissions   {submissions} of {} prompts", findings.prompts)?;
        writeln!(to, "    answered    {hits} hits, {joins} joins, {made} new jobs, {unknown} unknown")?;
        writeln!(to, "    else        {refused} refused, {unavailable} unavailable, {unanswered} without an answer")?;
        let Findings { accepted, found, held, logged, replaced, forgotten, duplicates, lost, wrong, .. } = findings;
        writeln!(
            to,
            "  accepted      {accepted}: {found} found again, {held} held as unknown, {replaced} replaced on wish"
        )?;
        if *logged > 0 {
            writeln!(
                to,
                "  told only     {logged} held, whose id a client and the log were told before the replica died"
            )?;
        }
        if *forgotten > 0 {
            writeln!(
                to,
                "  forgotten     {forgotten} by an emptied Redis after a replica that may have known them had ended"
            )?;
        }
        writeln!(to, "  duplicates    {}", duplicates.len())?;
        writeln!(to, "  lost          {}", lost.len())?;
        write!(
            to,
            "  otherwise     {}",
            if wrong.is_empty() { "all counters agree".to_owned() } else { wrong.len().to_string() }
        )?;
        for (kind, all) in [("duplicate", duplicates), ("lost", lost), ("wrong", wrong)] {
            all.iter().try_for_each(|what| write!(to, "\n{kind}: {what}"))?;
        }
        if !self.holds() {
            write!(to, "\nlogs:\n{}to repeat it: {}", self.logs, arguments.again())?;
        }
        Ok(())
    }
}
