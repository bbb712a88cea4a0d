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
    /// `read_timeout`: how long a body may pause, and take beyond what `min_rate` allows it.
    pub read_timeout: Duration,
    /// `min_rate`: the bytes of a body that buy it another second.
    pub min_rate: u64,
    /// `write_timeout`: how long a client may leave an answer unread without any progress.
    pub write_timeout: Duration,
    /// `connections`: open connections in all; more are closed at once.
    pub connections: usize,
    /// `connections_per_address`: open connections of one address.
    pub connections_per_address: usize,
    /// `requests_in_flight`: requests in work in all, answers about jobs until they are passed on; past it 503 `overloaded`.
    pub requests_in_flight: usize,
    /// `shutdown_grace`: how long paid calls in flight may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// `trusted_proxies`: whose `Forwarded` and `X-Forwarded-For` are believed; empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// `allowed_hosts`: our own names; with names here, another Host is 421.
    pub allowed_hosts: Vec<String>,
    /// `[server.headers]`.
    pub headers: Headers,
    /// `[server.http2]`.
    pub http2: Http2,
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
            min_rate: section.size("min_rate", base.min_rate, 1..=1 << 30),
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
            headers: Headers::read(&mut section.section("headers"), &base.headers),
            http2: Http2::read(&mut section.section("http2"), &base.http2),
            tls: Tls::read(&mut section.section("tls"), &base.tls),
            cors: Cors::read(&mut section.section("cors"), &base.cors),
        }
    }
}

/// `[server.headers]`: what a request's header may be; more is 431, and for the target 414.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headers {
    /// `count`: fields.
    pub count: usize,
    /// `bytes`: all of it.
    pub bytes: u64,
    /// `field`: one field, its name and its value.
    pub field: u64,
    /// `target`: what stands behind the method.
    pub target: u64,
}

impl Headers {
    fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            // hyper takes no more, and a table for more is not free.
            count: section.within("count", &base.count, 8..=100),
            bytes: section.size("bytes", base.bytes, 1024..=64 << 10),
            field: section.size("field", base.field, 256..=64 << 10),
            target: section.size("target", base.target, 256..=64 << 10),
        }
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self { count: 64, bytes: 32 << 10, field: 16 << 10, target: 8 << 10 }
    }
}

/// `[server.http2]`: what one HTTP/2 connection may take, and how long it may live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http2 {
    /// `streams`: requests at once.
    pub streams: u32,
    /// `stream_window`: bytes of a body that may come before they are read.
    pub stream_window: u32,
    /// `connection_window`: the same of all its bodies.
    pub connection_window: u32,
    /// `header_list`: bytes of a request's header.
    pub header_list: u32,
    /// `ping_interval`: how often a silent client is asked whether it is there.
    pub ping_interval: Duration,
    /// `ping_timeout`: how long it has to answer.
    pub ping_timeout: Duration,
    /// `idle_timeout`: how long there may be no progress at all.
    pub idle_timeout: Duration,
    /// `max_age`: how long it may live, less up to a sixth.
    pub max_age: Duration,
    /// `max_requests`: how many requests it may carry.
    pub max_requests: u32,
}

impl Http2 {
    fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        let mut size = |name: &str, base: u32, least: u64| {
            let read = section.size(name, u64::from(base), least..=64 << 20);
            u32::try_from(read).unwrap_or(base)
        };
        let stream_window = size("stream_window", base.stream_window, 16 << 10);
        let connection_window = size("connection_window", base.connection_window, 64 << 10);
        let header_list = size("header_list", base.header_list, 1 << 10);
        Self {
            streams: section.within("streams", &base.streams, 1..=10_000),
            stream_window,
            connection_window,
            header_list,
            ping_interval: section.within("ping_interval", &base.ping_interval, WAIT),
            ping_timeout: section.within("ping_timeout", &base.ping_timeout, WAIT),
            idle_timeout: section.within("idle_timeout", &base.idle_timeout, WAIT),
            max_age: section.within("max_age", &base.max_age, WAIT),
            max_requests: section.within("max_requests", &base.max_requests, 1..=1_000_000_000),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            header_list: 16 << 10,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            max_age: Duration::from_secs(3600),
            max_requests: 10_000,
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
            min_rate: 64 << 10,
            write_timeout: Duration::from_secs(30),
            connections: 16_384,
            connections_per_address: 1024,
            requests_in_flight: 16_384,
            shutdown_grace: Duration::from_secs(130),
            trusted_proxies: Vec::new(),
            allowed_hosts: Vec::new(),
            headers: Headers::default(),
            http2: Http2::default(),
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
