//! The API behind: its key, what goes to it and what comes back.

pub mod settings;
