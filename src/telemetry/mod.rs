//! What is seen: told by all other parts, asks nobody.

pub mod settings;
