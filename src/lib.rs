//! Reelgate: a caching gateway for paid, asynchronous video generation. One package: this library, and a thin binary.
//!
//! Read the parts in the order of the declarations below; [`gateway`] first, for it tells the way of a request. A
//! submission goes through them like this:
//!
//! 1. [`server`] accepts the connection on the thread that will serve it, and hands over a request.
//! 2. [`gateway`] begins its record, checks Host, loops and Origin, and finds the [`request::route`].
//! 3. [`admission`] takes a request of the client's address; [`server::body`] reads the body within its bounds.
//! 4. [`request::submission`] parses it strictly and checks it against its JSON Schema.
//! 5. [`request::fingerprint`] names it. A hot entry with that name answers at once: a *hit*.
//! 6. [`jobs::dedup`] asks the [`jobs::ledger`] to admit it: look-up, limits, budgets ([`bill`]) and claim in one step.
//! 7. A twin in flight is *joined*; a held outcome refuses it; else it becomes an [`jobs::attempt`] of its own.
//! 8. The attempt, a task that no client's leaving ends, gets a connection of its own from [`upstream`], writes
//!    `sending` to the ledger, and sends the body once, byte for byte.
//! 9. [`upstream::outcome`] reads what came back: not sent, refused, created or unknown; the ledger is told first.
//! 10. [`gateway::answer`] tells everybody who waits, and [`telemetry`] writes one line and counts.
//!
//! A poll takes steps 1 and 2, then [`upstream::polls`] asks on a kept connection of the same thread, and
//! [`upstream::relay`] passes the bytes on while [`jobs::observe`] reads along.
//!
//! Dependencies point downward: `server → gateway → request, admission, jobs, upstream → error`; [`telemetry`] is told,
//! and asks nobody. [`run`] puts the parts together, for the program, the demo and the tests alike.

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

pub mod gateway;
pub mod error;
pub mod clock;
mod panics;
mod exposure;
pub mod server;
pub mod request;
pub mod access;
pub mod admission;
pub mod bill;
pub mod jobs;
pub mod upstream;
pub mod telemetry;
pub mod config;
pub mod run;
pub mod command;
pub mod simulator;
