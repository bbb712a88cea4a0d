//! The proof that nothing is paid twice and nothing paid is lost, as far as it can be tried: real processes of the
//! gateway, killed and frozen at random, in front of a simulated upstream that cuts its connections at any byte and
//! remembers what it accepted. `cargo test` runs a short one; a long one is
//!
//! ```sh
//! cargo test --release --test prove -- --kills 200 --clients 16 --seed 7
//! ```

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a proof that meets something unexpected is meant to stop, and nothing here is shipped"
)]

mod arguments;
mod books;
mod dice;
mod redis;
mod replica;
mod report;
mod run;
mod storm;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.is_for_others() {
        return ExitCode::SUCCESS;
    }
    if let Some(fault) = arguments.fault() {
        eprintln!("{fault}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(run::run(&arguments)) {
        Ok(report) => {
            println!("{report}");
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("the proof could not be completed: {error}\nto repeat it: {}", arguments.again());
            ExitCode::FAILURE
        }
    }
}
