//! May it go on: who may submit how often.

pub mod settings;
