//! The API behind: its key, the connections to it, what goes there and what comes back.

pub mod outcome;
pub mod settings;
