//! The clients: a thread for each connection, which sends, waits and sends again. A process of its own, so that a
//! measurement can place it and read the other processes' clocks while it runs.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use super::certificate;
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

/// What the threads share.
struct Shared {
    requests: Requests,
    next: AtomicU64,
    limit: u64,
    rate: Option<u32>,
    seconds: f64,
    start: Barrier,
    failures: Mutex<(u64, String)>,
    open: Opener,
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
        let shared = Arc::new(Shared {
            requests,
            next: AtomicU64::new(0),
            limit: self.requests.unwrap_or(u64::MAX),
            rate: self.rate,
            seconds: if self.requests.is_some() { f64::MAX } else { self.seconds },
            start: Barrier::new(self.connections + 1),
            failures: Mutex::default(),
            open,
        });
        let mut threads = Vec::new();
        for index in 0..self.connections {
            let shared = shared.clone();
            let wire = Wire::new(shared.open.open()?);
            let ask = move || shared.ask(wire, index as u64);
            threads.push(std::thread::Builder::new().stack_size(256 << 10).spawn(ask)?);
        }
        wait_for_the_word()?;
        shared.start.wait();
        let begun = Instant::now();
        let mut latencies: Vec<u32> = Vec::new();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| io::Error::other("a client panicked"))?);
        }
        let seconds = begun.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at =
            |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0.0, |one| f64::from(*one));
        let (failed, first_failure) = shared.failures.lock().unwrap().clone();
        let requests = latencies.len() as u64;
        tell(&Made { requests, seconds, failed, first_failure, p50: at(0.5) / 10.0, p99: at(0.99) / 10.0 })
    }

    /// Opens connections, polls once on each, and keeps them until the parent has had enough.
    fn idle(&self, open: &Opener, requests: &Requests) -> io::Result<()> {
        let mut wires = Vec::new();
        for index in 0..self.connections {
            let mut wire = Wire::new(open.open()?);
            ask_once(&mut wire, &requests.get(index as u64))?;
            wires.push(wire);
        }
        wait_for_the_word()
    }
}

impl Shared {
    /// One connection's work: how long each of its requests took, in tenths of microseconds.
    fn ask(&self, mut wire: Wire<Box<dyn Stream>>, index: u64) -> Vec<u32> {
        let mut took = Vec::new();
        self.start.wait();
        let begun = Instant::now();
        let until = begun + Duration::from_secs_f64(self.seconds.min(3600.0));
        let mut turn = index;
        loop {
            let mut due = Instant::now();
            if let Some(rate) = self.rate {
                let when = begun + Duration::from_secs_f64(turn as f64 / f64::from(rate));
                turn += self.requests.connections;
                if when > due {
                    std::thread::sleep(when - due);
                    due = Instant::now();
                } else {
                    // The answer before this one came late, and this one's client has waited since.
                    due = when;
                }
            }
            if due >= until {
                return took;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.limit {
                return took;
            }
            if let Err(error) = ask_once(&mut wire, &self.requests.get(number)) {
                let mut failures = self.failures.lock().unwrap();
                failures.0 += 1;
                if failures.0 == 1 {
                    failures.1 = error.to_string();
                }
                match self.open.open() {
                    Ok(stream) => wire = Wire::new(stream),
                    Err(_) => return took,
                }
            }
            took.push(u32::try_from(due.elapsed().as_nanos() / 100).unwrap_or(u32::MAX));
        }
    }
}

/// One request and its whole answer, which must be a good one.
pub fn ask_once(wire: &mut Wire<impl Stream>, request: &[u8]) -> io::Result<()> {
    answer(wire, request).map(drop)
}

/// The same; its body.
pub fn answer(wire: &mut Wire<impl Stream>, request: &[u8]) -> io::Result<Vec<u8>> {
    wire.send(request)?;
    let head = wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = wire.body(&head)?;
    if head.status() == 200 {
        return Ok(body);
    }
    let text = [String::from_utf8_lossy(&head.text), String::from_utf8_lossy(&body)].concat();
    Err(io::Error::other(text))
}

/// One request on a connection of its own; the body of its answer.
pub fn get(address: SocketAddr, tls: Option<&Path>, path: &str) -> io::Result<Vec<u8>> {
    let mut wire = Wire::new(Opener::new(address, tls)?.open()?);
    answer(&mut wire, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

/// What opens connections.
struct Opener {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Opener {
    fn new(address: SocketAddr, folder: Option<&Path>) -> io::Result<Self> {
        Ok(Self { address, tls: folder.map(certificate::client).transpose()? })
    }

    fn open(&self) -> io::Result<Box<dyn Stream>> {
        let mut stream = connect(self.address)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        session.complete_io(&mut stream)?;
        Ok(Box::new(StreamOwned::new(session, stream)))
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
