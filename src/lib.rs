//! Reelgate.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::disallowed_methods,
        clippy::string_slice,
        clippy::unreachable,
        reason = "a test that meets something unexpected is meant to stop"
    )
)]

pub mod admission;
pub mod clock;
pub mod config;
pub mod error;
pub mod gateway;
pub mod run;
pub mod command;
pub mod jobs;
pub mod request;
pub mod server;
pub mod simulator;
pub mod telemetry;
pub mod upstream;
