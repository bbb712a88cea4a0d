//! The API behind: its key, what goes to it and what comes back.

pub mod settings;

pub mod client;
pub mod dial;
pub mod headers;
pub mod key;
pub mod mask;
pub mod origin;
pub mod outcome;
pub mod outgoing;
pub mod paid;
pub mod pressure;
pub mod poll_key;
pub mod polls;
pub mod relay;
mod resolver;
pub mod tls;
pub mod wire;

/// Interim answers before an answer: a few are normal, without end they are an attack on our patience (F-19).
const MOST_INTERIM: usize = 10;

#[cfg(test)]
pub(crate) mod scripted;
