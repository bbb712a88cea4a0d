//! Reelgate.
pub mod admission;
pub mod clock;
pub mod config;
pub mod error;
pub mod jobs;
pub mod request;
pub mod server;
pub mod telemetry;
pub mod upstream;
