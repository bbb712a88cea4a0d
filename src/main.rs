//! The program: the command line, then what it asks for.

use std::process::ExitCode;

use clap::Parser;
use reelgate::command::Command;

fn main() -> ExitCode {
    Command::parse().run()
}
