//! What the gateway costs, measured in separate processes on this machine. Only ratios of one run mean anything.
//!
//! ```sh
//! cargo test --test load                              # that all this works; part of `cargo test`
//! cargo test --profile gate --test load -- gate       # what hardly moves, against the record; part of tests/run
//! cargo test --release --test load -- compare         # CPU, latency and memory beside nginx and the bare pass-through
//! cargo test --test load -- train --program FILE      # what deploy/build optimises for
//! cargo test --release --test load -- parts           # the pure parts alone
//! cargo test --release --test load -- memory          # what a million entries take in memory
//! ```

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement that meets something unexpected is meant to stop, and nothing here is shipped"
)]

mod bare;
mod certificate;
mod clients;
mod compare;
mod contestants;
mod drive;
mod driver;
mod filled;
mod gate;
mod nginx;
mod parts;
mod poller;
mod process;
mod race;
mod requests;
mod restart;
mod single;
mod smoke;
mod table;
mod train;
mod upstream;
mod wire;
mod work;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Parser)]
#[command(name = "load", about = "What the gateway costs")]
struct Arguments {
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(Subcommand)]
enum Mode {
    /// What hardly moves: instructions, syscalls and memory, against the record.
    Gate(gate::Gate),
    /// CPU, latency and memory beside nginx and the bare pass-through.
    Compare(compare::Compare),
    /// The pure parts alone.
    Parts(parts::Parts),
    /// What a build is optimised for: all kinds of requests, for `deploy/build`.
    Train(train::Train),
    /// Memory of an entry, with many.
    Memory(filled::Filled),
    /// The floor of the stack, as a process.
    Bare(bare::Bare),
    /// A light upstream, as a process.
    Upstream(upstream::Upstream),
    /// Clients, as a process.
    Drive(drive::Drive),
}

fn main() -> ExitCode {
    // `cargo test` may pass what is meant for other tests: a filter, `--skip`, `--list`.
    let is_for_others = std::env::args().nth(1).is_some_and(|first| !Arguments::knows(&first));
    if is_for_others {
        return ExitCode::SUCCESS;
    }
    allow_many_files();
    let outcome = match Arguments::parse().mode {
        None => smoke::run(),
        Some(Mode::Gate(gate)) => gate.run(),
        Some(Mode::Compare(compare)) => compare.run().map(|()| true),
        Some(Mode::Parts(parts)) => {
            parts.run();
            Ok(true)
        }
        Some(Mode::Train(train)) => train.run().map(|()| true),
        Some(Mode::Memory(filled)) => filled.run().map(|()| true),
        Some(Mode::Bare(bare)) => bare.run().map(|()| true),
        Some(Mode::Upstream(upstream)) => upstream.run().map(|()| true),
        Some(Mode::Drive(drive)) => drive.run().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// As many open files as may be, for ten thousand connections; children inherit it.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not, the connections that are too many will tell.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

impl Arguments {
    fn knows(first: &str) -> bool {
        let command = Self::command();
        ["help", "--help", "-h"].contains(&first) || command.get_subcommands().any(|mode| mode.get_name() == first)
    }
}
