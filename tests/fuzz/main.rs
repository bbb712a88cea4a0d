//! Everything that reads bytes of strangers, fed with bytes of chance. Each target says what must hold for any input;
//! inputs come from a corpus, changed by seeded chance. `cargo test` runs a bounded number; more is
//!
//! ```sh
//! cargo test --release --test fuzz -- --seconds 600 --seed 7 --target submission
//! ```
//!
//! The same targets run under libFuzzer, which looks at what the code does with them: `tests/fuzz/libfuzzer`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a target that meets something unexpected is meant to stop, and nothing here is shipped"
)]

mod arguments;
mod corpus;
#[path = "../prove/dice.rs"]
#[expect(dead_code, reason = "the proof throws them in more ways")]
mod dice;
mod failure;
mod mutate;
mod targets;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use arguments::Arguments;
use corpus::Corpus;
use dice::Dice;
use failure::Failure;
use targets::{TARGETS, Target};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.is_for_others() {
        return ExitCode::SUCCESS;
    }
    let mut has_failed = false;
    let mut ran = 0;
    for target in TARGETS.iter().filter(|target| arguments.wants(target.name)) {
        ran += 1;
        match fuzz(target, &arguments) {
            Ok(executions) => println!("fuzz {}: {executions} inputs, none failed", target.name),
            Err(failure) => {
                println!("{failure}");
                has_failed = true;
            }
        }
    }
    println!("\ntest result: {}. {ran} targets", if has_failed { "FAILED" } else { "ok" });
    if has_failed || ran == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a target: its corpus as it is, then changed. How many inputs there were.
fn fuzz(target: &Target, arguments: &Arguments) -> Result<u64, Box<Failure>> {
    let corpus = Corpus::read(target.name);
    for input in corpus.inputs() {
        failure::watch(target, input)?;
    }
    let mut dice = Dice::new(arguments.seed);
    let begun = Instant::now();
    let mut executions = 0;
    while arguments.goes_on(executions, begun.elapsed()) {
        let input = mutate::mutated(&corpus, target.words, &mut dice);
        failure::watch(target, &input)?;
        executions += 1;
    }
    Ok(executions + corpus.inputs().len() as u64)
}
