//! One of the targets of `tests/fuzz`, by the name of this binary, under libFuzzer.

#![no_main]
#![allow(dead_code, reason = "the other targets, and what they share with the other harness")]

#[path = "../targets/mod.rs"]
mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    TARGETS.iter().find(|target| target.name == name).expect("a target has this binary's name")
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));
