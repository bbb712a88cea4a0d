//! What a run of the proof is told.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Tries to make the gateway pay twice or lose what was paid: clients, replicas and faults at random, then the books
/// are compared with those of the simulated upstream.
#[derive(Clone, Debug, Parser)]
#[command(name = "prove")]
pub struct Arguments {
    /// Where the replicas keep their ledger; `disk` is for one replica
    #[arg(long, value_enum, default_value = "disk")]
    pub ledger: Kind,
    /// Processes of the gateway
    #[arg(long, default_value_t = 1)]
    pub replicas: usize,
    /// Clients that submit at the same time
    #[arg(long, default_value_t = 16)]
    pub clients: usize,
    /// How often a replica is killed with SIGKILL before the end
    #[arg(long, default_value_t = 12)]
    pub kills: usize,
    /// What all chance comes from; a run's result names it
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Only these faults beside the kills
    #[arg(long, value_enum, value_delimiter = ',')]
    pub faults: Vec<Fault>,

    /// The gateway to be tried
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_reelgate"))]
    pub program: PathBuf,

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Disk,
    Redis,
}

/// What happens beside SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// A replica stands still for a moment: SIGSTOP, SIGCONT
    Freeze,
    /// A replica is ended with SIGTERM and started again
    Term,
    /// The upstream cuts connections at any byte, of the request or of the answer, and answers late or not at all
    Cut,
    /// The upstream takes connections and drops them at once, for a moment
    Drop,
    /// Clients leave at any moment
    Leave,
    /// redis-server is killed and started again
    RedisKill,
    /// redis-server stands still for a moment
    RedisFreeze,
    /// redis-server forgets everything
    RedisFlush,
}

impl Arguments {
    /// Whether `cargo test` asks for other tests than this.
    pub fn is_for_others(&self) -> bool {
        self.list || !self.filters.is_empty() && !self.filters.iter().any(|filter| "prove".contains(filter.as_str()))
    }

    /// Why it cannot be run like this.
    pub fn fault(&self) -> Option<&'static str> {
        let redis = [Fault::RedisKill, Fault::RedisFreeze, Fault::RedisFlush];
        match self.ledger {
            Kind::Disk if self.replicas != 1 => Some("a ledger on disk is for one replica"),
            Kind::Disk if self.faults.iter().any(|fault| redis.contains(fault)) => Some("there is no Redis to fail"),
            _ if self.replicas == 0 || self.clients == 0 => Some("there must be somebody"),
            _ => None,
        }
    }

    /// Whether a fault may happen.
    pub fn may(&self, fault: Fault) -> bool {
        let is_redis = matches!(fault, Fault::RedisKill | Fault::RedisFreeze | Fault::RedisFlush);
        if self.faults.is_empty() { !is_redis || self.ledger == Kind::Redis } else { self.faults.contains(&fault) }
    }

    /// The command that runs the same again.
    pub fn again(&self) -> String {
        let name = |value: &dyn std::fmt::Debug| kebab(&format!("{value:?}"));
        let mut command = format!(
            "cargo test --test prove -- --ledger {} --replicas {} --clients {} --kills {} --seed {}",
            name(&self.ledger),
            self.replicas,
            self.clients,
            self.kills,
            self.seed
        );
        if !self.faults.is_empty() {
            let faults: Vec<_> = self.faults.iter().map(|fault| name(fault)).collect();
            command += &format!(" --faults {}", faults.join(","));
        }
        command
    }
}

fn kebab(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
