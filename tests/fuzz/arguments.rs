//! What a run is told.

use std::time::Duration;

use clap::Parser;

/// Feeds everything that reads bytes of strangers with bytes of chance.
#[derive(Clone, Debug, Parser)]
#[command(name = "fuzz")]
pub struct Arguments {
    /// How many inputs each target gets beside its corpus
    #[arg(long, default_value_t = 2_000, conflicts_with = "seconds")]
    count: u64,
    /// How long each target runs, instead of a count
    #[arg(long)]
    seconds: Option<u64>,
    /// What all chance comes from
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Only these targets
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,

    /// What `cargo test` passes to every test: names, and how to run them
    #[arg(hide = true)]
    filters: Vec<String>,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Arguments {
    /// Whether `cargo test` asks for other tests than this.
    pub fn is_for_others(&self) -> bool {
        self.list || !self.filters.is_empty() && !self.filters.iter().any(|filter| "fuzz".contains(filter.as_str()))
    }

    /// Whether a target is to run.
    pub fn wants(&self, name: &str) -> bool {
        self.target.is_empty() || self.target.iter().any(|wanted| wanted == name)
    }

    /// Whether a target that has run so often and so long goes on.
    pub fn goes_on(&self, executions: u64, elapsed: Duration) -> bool {
        match self.seconds {
            Some(seconds) => elapsed < Duration::from_secs(seconds),
            None => executions < self.count,
        }
    }
}
