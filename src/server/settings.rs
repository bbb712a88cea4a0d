//! `[server]`, `[server.cors]` and `[admin]`: the two listeners and what they take.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Section, WAIT, WAIT_OR_NONE};

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
    /// `read_timeout`: how long a body may take; a second more for each 64 KiB that came, but no longer at a standstill.
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
    /// `trusted_proxies`: whose `Forwarded` and `X-Forwarded-For` are believed; empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// `allowed_hosts`: our own names; with names here, another Host is 421.
    pub allowed_hosts: Vec<String>,
    /// `[server.tls]`.
    pub tls: Tls,
    /// `[server.cors]`.
    pub cors: Cors,
}

impl Settings {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            workers: section.within("workers", &base.workers, 0..=1024),
            listen: section.value("listen", &base.listen),
            max_body: section.size("max_body", base.max_body, 1024..=1 << 30),
            body_memory: section.size("body_memory", base.body_memory, 1024..=1 << 40),
            first_byte_timeout: section.within("first_byte_timeout", &base.first_byte_timeout, WAIT),
            header_timeout: section.within("header_timeout", &base.header_timeout, WAIT),
            read_timeout: section.within("read_timeout", &base.read_timeout, WAIT),
            write_timeout: section.within("write_timeout", &base.write_timeout, WAIT),
            connections: section.within("connections", &base.connections, 1..=1_000_000),
            connections_per_address: section.within(
                "connections_per_address",
                &base.connections_per_address,
                1..=1_000_000,
            ),
            requests_in_flight: section.within("requests_in_flight", &base.requests_in_flight, 1..=1_000_000),
            shutdown_grace: section.within("shutdown_grace", &base.shutdown_grace, WAIT_OR_NONE),
            trusted_proxies: section.value("trusted_proxies", &base.trusted_proxies),
            allowed_hosts: section.value("allowed_hosts", &base.allowed_hosts),
            tls: Tls::read(&mut section.section("tls"), &base.tls),
            cors: Cors::read(&mut section.section("cors"), &base.cors),
        }
    }
}

/// `[server.tls]`: with both files the public listener speaks TLS, and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `certificate`: a file with our certificate and those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// `key`: a file with its key.
    pub key: Option<PathBuf>,
    /// `handshake_timeout`: from accept to the end of the handshake.
    pub handshake_timeout: Duration,
}

impl Tls {
    fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            certificate: section.value("certificate", &base.certificate),
            key: section.value("key", &base.key),
            handshake_timeout: section.within("handshake_timeout", &base.handshake_timeout, WAIT),
        }
    }

    /// Whether it is spoken.
    pub const fn is_on(&self) -> bool {
        self.certificate.is_some() && self.key.is_some()
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: None, key: None, handshake_timeout: Duration::from_secs(5) }
    }
}

/// `[server.cors]`: which web pages may spend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cors {
    /// `allowed_origins`: exact origins of pages that may call.
    pub allowed_origins: Vec<String>,
    /// `public_origin`: our own origin as browsers see it; empty where it is our address.
    pub public_origin: String,
}

impl Cors {
    fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            allowed_origins: section.value("allowed_origins", &base.allowed_origins),
            public_origin: section.value("public_origin", &base.public_origin),
        }
    }
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
            trusted_proxies: Vec::new(),
            allowed_hosts: Vec::new(),
            tls: Tls::default(),
            cors: Cors::default(),
        }
    }
}

/// `[admin]`: the operators' listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `listen`: the admin address, never the public one.
    pub listen: SocketAddr,
    /// `key_env`: the environment variable with the operators' key; empty: none.
    pub key_env: String,
}

impl Admin {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self { listen: section.value("listen", &base.listen), key_env: section.value("key_env", &base.key_env) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)), key_env: String::new() }
    }
}
