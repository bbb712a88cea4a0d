//! What happens to connections, counted: the server adds, telemetry reads. Plain atomic numbers, because the server
//! knows nothing of metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why the gateway, and not the client, ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// `server.connections` is reached.
    Full,
    /// `server.connections_per_address` is reached.
    AddressFull,
    /// No protocol could be told from what came within `server.first_byte_timeout`.
    FirstByte,
    /// There was no TLS handshake, or none within `server.tls.handshake_timeout`.
    Tls,
    /// No complete request header came in time; an idle connection ends so too.
    Header,
    /// The client did not read for `server.write_timeout`.
    Write,
    /// An HTTP/2 connection did nothing for long, or did not answer a ping.
    Idle,
    /// An HTTP/2 connection was old, or had carried many requests.
    Age,
    /// What the client sent is not HTTP.
    Protocol,
    /// The process ends.
    Drain,
    /// A bug of ours.
    Panic,
}

impl Closed {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Full,
        Self::AddressFull,
        Self::FirstByte,
        Self::Tls,
        Self::Header,
        Self::Write,
        Self::Idle,
        Self::Age,
        Self::Protocol,
        Self::Drain,
        Self::Panic,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::AddressFull => "address_full",
            Self::FirstByte => "first_byte_timeout",
            Self::Tls => "tls",
            Self::Header => "header_timeout",
            Self::Write => "write_timeout",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Protocol => "protocol",
            Self::Drain => "drain",
            Self::Panic => "panic",
        }
    }
}

/// The counts of one listener.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: AtomicU64,
    open: AtomicU64,
    accept_errors: AtomicU64,
    panics: AtomicU64,
    full: AtomicU64,
    address_full: AtomicU64,
    first_byte: AtomicU64,
    tls: AtomicU64,
    header: AtomicU64,
    write: AtomicU64,
    idle: AtomicU64,
    age: AtomicU64,
    protocol: AtomicU64,
    drain: AtomicU64,
    panic: AtomicU64,
}

impl Tally {
    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How often accepting failed, mostly for want of descriptors.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Panics caught in requests and connections.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Connections that were ended for `reason`.
    pub fn closed(&self, reason: Closed) -> u64 {
        self.count(reason).load(Ordering::Relaxed)
    }

    pub(super) fn add_closed(&self, reason: Closed) {
        self.count(reason).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_ended(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    const fn count(&self, reason: Closed) -> &AtomicU64 {
        match reason {
            Closed::Full => &self.full,
            Closed::AddressFull => &self.address_full,
            Closed::FirstByte => &self.first_byte,
            Closed::Tls => &self.tls,
            Closed::Header => &self.header,
            Closed::Write => &self.write,
            Closed::Idle => &self.idle,
            Closed::Age => &self.age,
            Closed::Protocol => &self.protocol,
            Closed::Drain => &self.drain,
            Closed::Panic => &self.panic,
        }
    }
}
