//! A budget that the longest job can never fit into would refuse it for ever (`MONEY.md` M24): everybody's, and those that
//! a team has of its own.

use super::Finding;
use crate::bill::money::Amount;
use crate::bill::settings::{Budget, Budgets};
use crate::bill::terms::Bound;
use crate::config::Config;

/// Every budget that keeps this configuration from being used.
pub(super) fn faults(config: &Config) -> Vec<Finding> {
    let cheapest = config.prices.rows.values().flat_map(|row| row.second.values()).min().copied().unwrap_or_default();
    let longest = cheapest.for_millis(1000 * u64::from(LONGEST_VIDEO));
    let Budgets { user, team, total, .. } = config.budgets;
    let everybody = [("user", user), ("team", team), ("total", total)];
    let everybody = everybody.into_iter().map(|(scope, budget)| (format!("budgets.{scope}"), budget));
    // What a team does not say itself is everybody's, and is told there.
    let own = config.teams.iter().enumerate().filter_map(|(place, team)| {
        let (each, all) = team.bill.over(Bound::default(), Bound::default())?;
        Some([("user", each), ("team", all)].map(|(scope, of)| (format!("teams[{place}].budgets.{scope}"), of.budget)))
    });
    everybody.chain(own.flatten()).flat_map(|(name, budget)| too_small(&name, budget, longest)).collect()
}

/// What of a budget is less than the longest job needs.
fn too_small(name: &str, budget: Budget, longest: Amount) -> Vec<Finding> {
    let Budget { per_day, per_month, seconds_per_day, seconds_per_month } = budget;
    let money = [("per_day", per_day), ("per_month", per_month)].into_iter().filter_map(|(key, most)| {
        let message = format!("less than {longest}, the price of the longest video at the lowest rate");
        most.is_some_and(|most| most < longest).then_some((key, message))
    });
    let seconds = [("seconds_per_day", seconds_per_day), ("seconds_per_month", seconds_per_month)];
    let seconds = seconds.into_iter().filter_map(|(key, most)| {
        let message = format!("less than {LONGEST_VIDEO}, the length of the longest video");
        most.is_some_and(|most| most < LONGEST_VIDEO).then_some((key, message))
    });
    let told = |(key, message)| Finding { keys: &[], at: Some(format!("{name}.{key}")), message };
    money.chain(seconds).map(told).collect()
}

/// `duration` goes up to this, in seconds.
const LONGEST_VIDEO: u32 = 15;

#[cfg(test)]
mod tests {
    use crate::config::tests::{read, refused};

    #[test]
    fn m24_a_budget_holds_the_longest_job_or_is_refused() {
        refused("[budgets.user]\nper_day = 0.5", "budgets.user.per_day: less than 0.75");
        refused("[budgets.total]\nseconds_per_month = 14", "budgets.total.seconds_per_month: less than 15");
        assert!(read("[budgets.user]\nper_day = 0.75\nseconds_per_day = 15").is_ok());
        assert!(read("[prices.cheap]\n\"480p\" = 0.01\n[budgets.user]\nper_day = 0.15").is_ok());
    }

    #[test]
    fn m24_a_teams_own_budget_holds_the_longest_job_or_is_refused() {
        let team = |own: &str| format!("[[teams]]\nname = \"lab\"\n[[teams]]\nname = \"studio\"\n{own}\n");
        for (own, told) in [
            ("budgets.team.per_day = 0.01", "team.per_day: less than 0.75, the price of the longest video"),
            ("budgets.user.per_month = 0.74", "user.per_month: less than 0.75"),
            ("budgets.user.seconds_per_day = 1", "user.seconds_per_day: less than 15"),
            ("[teams.budgets.team]\n\nseconds_per_month = 14", "team.seconds_per_month: less than 15"),
        ] {
            let line = 4 + own.lines().count();
            refused(&team(own), &format!("reelgate.toml:{line}: teams[1].budgets.{told}"));
        }
        for own in ["per_day = 0.75", "per_day = \"off\"", "per_day = \"inherit\"", "seconds_per_day = 15"] {
            assert!(read(&team(&format!("budgets.user.{own}\nbudgets.team.{own}"))).is_ok(), "{own}");
        }
        // What is everybody's is told once, and a team may have it larger.
        let everybody = "[budgets.team]\nper_day = 0.5\n";
        refused(&(everybody.to_owned() + &team("limits.user.running = 1")), "reelgate.toml:2: budgets.team.per_day");
        refused(&(everybody.to_owned() + &team("budgets.team.per_day = 5")), "reelgate.toml:2: budgets.team.per_day");
    }
}
