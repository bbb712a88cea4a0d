//! `[server]`, `[server.cors]` and `[admin]`: the two listeners and what they take.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// `[server]`: the public listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `workers`: threads that serve requests, each with sockets of its own; 0 means one per core.
    pub workers: usize,
    /// `listen`: the public address.
    pub listen: SocketAddr,
    /// `max_body`: the longest body, in bytes; more is 413.
    pub max_body: u64,
    /// `body_memory`: the bytes of all bodies in memory together; past it 503 `overloaded`.
    pub body_memory: u64,
    /// `first_byte_timeout`: from accept to the first byte of a connection.
    pub first_byte_timeout: Duration,
    /// `header_timeout`: how long a request's header may take; it is also how long an idle connection is kept
    /// (hyper has one timer for both).
    pub header_timeout: Duration,
    /// `read_timeout`: how long a body may take; a second more for each 64 KiB announced.
    pub read_timeout: Duration,
    /// `write_timeout`: how long a client may leave an answer unread without any progress.
    pub write_timeout: Duration,
    /// `connections`: open connections in all; more are closed at once.
    pub connections: usize,
    /// `connections_per_address`: open connections of one address.
    pub connections_per_address: usize,
    /// `requests_in_flight`: requests in work in all; past it 503 `overloaded`.
    pub requests_in_flight: usize,
    /// `shutdown_grace`: how long paid calls in flight may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// `allowed_hosts`: our own names; with names here, another Host is 421.
    pub allowed_hosts: Vec<String>,
    /// `[server.cors]`.
    pub cors: Cors,
}

/// `[server.cors]`: which web pages may spend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cors {
    /// `allowed_origins`: exact origins of pages that may call.
    pub allowed_origins: Vec<String>,
    /// `public_origin`: our own origin as browsers see it; empty where it is our address.
    pub public_origin: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 0,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            max_body: 32 << 20,
            body_memory: 256 << 20,
            first_byte_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(75),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            connections: 16_384,
            connections_per_address: 1024,
            requests_in_flight: 16_384,
            shutdown_grace: Duration::from_secs(130),
            allowed_hosts: Vec::new(),
            cors: Cors::default(),
        }
    }
}

/// `[admin]`: the operators' listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `listen`: the admin address, never the public one.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)) }
    }
}
