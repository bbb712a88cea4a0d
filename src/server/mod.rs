//! Bytes in, requests out, and back: the listeners and what they take.

pub mod settings;
