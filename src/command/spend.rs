//! `reelgate spend`: what was spent this day and this month, as a table or as CSV. It asks a running gateway, or opens the
//! file where none runs.

use clap::Args;
use serde_json::Value;

use super::Failure;
use super::admin::printable;
use super::ledger::{Ledger, Place};
use super::table::{Output, Table};

/// What was spent.
#[derive(Args, Debug)]
#[command(after_help = COLUMNS_EXPLAINED)]
pub(super) struct SpendArguments {
    #[command(flatten)]
    place: Place,
    /// How many users are shown, those who spent most
    #[arg(long, value_name = "USERS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    top: u16,
    /// Comma-separated values instead of a table
    #[arg(long)]
    csv: bool,
}

pub(super) fn run(arguments: &SpendArguments) -> Result<(), Failure> {
    let statement = Ledger::open(&arguments.place)?.spend(arguments.top)?;
    let rows = rows(&statement);
    let mut output = Output::new();
    let lines: Vec<String> = if arguments.csv {
        let header = COLUMNS.iter().map(|name| name.to_ascii_lowercase()).collect();
        std::iter::once(header).chain(rows).map(|row| csv(&row)).collect()
    } else {
        let (mut table, header) = Table::new(&COLUMNS);
        let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        table.lines(&rows)
    };
    for line in lines {
        if !output.line(&line)? {
            return Ok(());
        }
    }
    output.end()
}

fn rows(statement: &Value) -> Vec<Vec<String>> {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for period in list(statement, "periods") {
        let total = period.get("total").cloned().into_iter().map(|line| ("total", line));
        let teams = list(&period, "teams").into_iter().map(|line| ("team", line));
        let users = list(&period, "users").into_iter().map(|line| ("user", line));
        for (holder, line) in total.chain(teams).chain(users) {
            let fields = FIELDS.iter().map(|name| cell(line.get(*name)));
            rows.push([cell(period.get("period")), holder.to_owned()].into_iter().chain(fields).collect());
        }
    }
    rows
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => printable(text),
        Some(other) => other.to_string(),
    }
}

/// A row as RFC 4180 has it. What a spreadsheet would compute is marked as text: names come from clients.
fn csv(row: &[String]) -> String {
    let cells = row.iter().map(|cell| {
        let is_formula =
            cell.starts_with(['=', '+', '@', '\t']) || cell.starts_with('-') && cell.parse::<f64>().is_err();
        let cell = if is_formula { format!("'{cell}") } else { cell.clone() };
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    });
    cells.collect::<Vec<_>>().join(",")
}

const COLUMNS: [&str; 12] = [
    "PERIOD",
    "HOLDER",
    "TEAM",
    "USER",
    "SPENT_USD",
    "RESERVED_USD",
    "LOST_USD",
    "SECONDS",
    "JOBS",
    "RUNNING",
    "BUDGET_USD",
    "BUDGET_SECONDS",
];
/// What does not follow from a column's name.
const COLUMNS_EXPLAINED: &str = "\
SPENT_USD is for jobs that have ended, RESERVED_USD for those that run and for outcomes still in doubt. LOST_USD is a part of
SPENT_USD: what brought no video, refused or failed and billed all the same, or of an outcome that nobody ever learned.
SECONDS are of videos that were made. JOBS are all that have ended, those that failed and those outcomes that nobody ever
learned too, whether there was a job or not.";
const FIELDS: [&str; 10] = [
    "team",
    "user",
    "spent_usd",
    "reserved_usd",
    "lost_usd",
    "seconds",
    "jobs",
    "running",
    "budget_usd",
    "budget_seconds",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_never_computed() {
        let row = ["plain", "a,b", "say \"x\"", "=1+1", "-0.5", "-cmd", "@x", "two\nlines"].map(str::to_owned);
        assert_eq!(csv(&row), "plain,\"a,b\",\"say \"\"x\"\"\",'=1+1,-0.5,'-cmd,'@x,\"two\nlines\"");
    }
}
