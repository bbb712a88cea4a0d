//! Behaviour over real sockets, and the rules of the house: one binary, a module a behaviour.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test that meets something unexpected is meant to stop, and nothing here is shipped"
)]

mod support;
mod submissions;
mod money;
mod outcomes;
mod leaving;
mod refusals;
mod order;
mod edge;
mod polls;
mod key;
mod video;
mod validation;
mod browsers;
mod limits;
mod teams;
mod threats;
mod bounds;
mod bill;
mod pace;
mod watch;
mod operators;
mod process;
mod checking;
mod starting;
mod proxies;
mod reload;
mod restart;
mod fingerprints;
mod tls;
mod disk;
mod redis;
mod seen;
mod description;
mod dependencies;
mod faults;
mod hardening;
mod examples;
mod promtool;
