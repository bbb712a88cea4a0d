//! The clients' process: one of its own, so that a measurement can place it and read the other processes' clocks while it
//! runs.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use super::certificate;
use super::clients::Clients;
use super::requests::{Kind, Requests};
use super::wire::{Stream, Wire, connect};

/// `load drive`.
#[derive(Args, Clone)]
pub struct Drive {
    /// Whom to ask.
    #[arg(long)]
    pub address: SocketAddr,
    /// What to ask.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// How many connections ask.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// How many requests in all; else `seconds` ends it.
    #[arg(long)]
    pub requests: Option<u64>,
    /// How long.
    #[arg(long, default_value_t = 1.5)]
    pub seconds: f64,
    /// Requests a second, by the clock; without it each connection asks as soon as it was answered.
    #[arg(long)]
    pub rate: Option<u32>,
    /// The gateway key that clients send.
    #[arg(long, default_value = "")]
    pub key: String,
    /// Submissions differ from those of other numbers.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How many users submit, one after the other.
    #[arg(long, default_value_t = 16)]
    pub users: u64,
    /// The folder of the certificate, to speak TLS.
    #[arg(long)]
    pub tls: Option<PathBuf>,
}

/// What it made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Made {
    pub requests: u64,
    pub seconds: f64,
    pub failed: u64,
    pub first_failure: String,
    /// From when a request was due, in microseconds.
    pub p50: f64,
    pub p99: f64,
}

impl Drive {
    /// One of a kind; who asks whom is said by the bench.
    pub fn new(kind: Kind) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            kind,
            connections: 64,
            requests: None,
            seconds: 1.5,
            rate: None,
            key: String::new(),
            seed: 0,
            users: 16,
            tls: None,
        }
    }

    /// Connects, says `ready`, waits for a line, asks, and tells what it made.
    pub fn run(&self) -> io::Result<()> {
        let open = Opener::new(self.address, self.tls.as_deref())?;
        let requests = Requests::prepare(self, &mut Wire::new(open.open()?))?;
        if self.kind == Kind::Idle {
            return self.idle(&open, &requests);
        }
        let mut clients = Clients::new(self, requests, open)?;
        wait_for_the_word()?;
        clients.run()?;
        tell(&clients.made())
    }

    /// Opens connections, polls once on each, and keeps them until the parent has had enough.
    fn idle(&self, open: &Opener, requests: &Requests) -> io::Result<()> {
        let mut wires = Vec::new();
        for index in 0..self.connections {
            let mut wire = Wire::new(open.open()?);
            answer(&mut wire, &requests.get(index as u64))?;
            wires.push(wire);
        }
        wait_for_the_word()
    }
}

/// One request and its whole answer, waited for; its body.
pub fn answer(wire: &mut Wire<ClientConnection>, request: &[u8]) -> io::Result<Vec<u8>> {
    wire.send(request)?;
    let message = wire.receive()?.ok_or(io::ErrorKind::TimedOut)?;
    message.good()?;
    Ok(message.body.to_vec())
}

/// One request on a connection of its own; the body of its answer.
pub fn get(address: SocketAddr, tls: Option<&Path>, path: &str) -> io::Result<Vec<u8>> {
    let mut wire = Wire::new(Opener::new(address, tls)?.open()?);
    answer(&mut wire, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

/// What opens connections.
pub struct Opener {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Opener {
    fn new(address: SocketAddr, folder: Option<&Path>) -> io::Result<Self> {
        Ok(Self { address, tls: folder.map(certificate::client).transpose()? })
    }

    /// One that waits for whatever is asked of it.
    pub fn open(&self) -> io::Result<Stream<ClientConnection>> {
        let mut stream = connect(self.address)?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        session.complete_io(&mut stream)?;
        Ok(Stream::Secure(Box::new(StreamOwned::new(session, stream))))
    }
}

fn wait_for_the_word() -> io::Result<()> {
    println!("ready");
    io::stdin().read_line(&mut String::new()).map(drop)
}

fn tell(made: &Made) -> io::Result<()> {
    let line = serde_json::to_string(made).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{line}")
}
