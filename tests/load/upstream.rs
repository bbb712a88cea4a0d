//! The API behind, reduced to what costs least: a poll is always the same 288 bytes with 11 headers, a submission is
//! a fresh id. One thread serves all connections.

use std::borrow::Cow;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::certificate;
use super::poller::{Poller, Ready};
use super::wire::{PATIENCE, Stream, Wire};

/// `load upstream`.
#[derive(Args)]
pub struct Upstream {
    /// The folder of the certificate, to speak TLS.
    #[arg(long)]
    tls: Option<PathBuf>,
}

/// The key that it asks for: a proxy that does not put it in fails every request.
pub const KEY: &str = "upstream-secret";

/// What it has seen.
#[derive(Default)]
struct Counts {
    requests: u64,
    submissions: u64,
    connections: u64,
    full_handshakes: u64,
    resumed_handshakes: u64,
}

/// All that it serves.
struct Serving {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    poller: Poller,
    /// By their numbers, which are used again.
    connections: Vec<Option<Connection>>,
    unused: Vec<usize>,
    counts: Counts,
    ids: Id,
}

struct Connection {
    wire: Wire<ServerConnection>,
    /// Whether its handshake was counted.
    counted: bool,
}

impl Upstream {
    /// Serves until the process is killed, after telling where.
    pub fn run(&self) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        rustix::net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)?;
        let tls = self.tls.as_deref().map(certificate::server).transpose()?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER)?;
        println!("serving {}", listener.local_addr()?);
        let counts = Counts::default();
        let ids = Id::new();
        Serving { listener, tls, poller, connections: Vec::new(), unused: Vec::new(), counts, ids }.run()
    }
}

impl Serving {
    fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(PATIENCE, &mut ready)?;
            for Ready { number, .. } in ready.iter().copied() {
                if number == LISTENER {
                    self.accept()?;
                } else if self.serve(number).is_err() {
                    // Whoever closes in the middle is of no interest here: the clients count what failed.
                    self.connections[number] = None;
                    self.unused.push(number);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            self.counts.connections += 1;
            let number = self.unused.pop().unwrap_or(self.connections.len());
            self.poller.add(&socket, number)?;
            let stream = match &self.tls {
                None => Stream::Plain(socket),
                Some(config) => {
                    let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                    Stream::Secure(Box::new(StreamOwned::new(session, socket)))
                }
            };
            let connection = Some(Connection { wire: Wire::new(stream), counted: false });
            match self.connections.get_mut(number) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
        Ok(())
    }

    /// Answers what has come on a connection; an error ends it.
    fn serve(&mut self, number: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[number] else { return Ok(()) };
        let mut is_last = false;
        while let Some(message) = connection.wire.receive()? {
            let text = if message.header.starts_with(b"GET /counts ") {
                // The question's own connection is none of the gateway's.
                connection.counted = true;
                answer("200 OK", &self.counts.json())
            } else {
                self.counts.requests += 1;
                is_last = message.value("connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
                let key = message.value("authorization:").and_then(|value| value.strip_prefix(b"Bearer "));
                if key != Some(KEY.as_bytes()) {
                    answer("401 Unauthorized", r#"{"error":{"message":"wrong key"}}"#)
                } else if message.header.starts_with(b"POST ") {
                    self.counts.submissions += 1;
                    let id = self.ids.next(self.counts.submissions);
                    answer("200 OK", &format!(r#"{{"request_id":"{id}"}}"#))
                } else {
                    Cow::Borrowed(POLL)
                }
            };
            // An answer is smaller than what a socket takes at once from whoever has read the one before.
            if !connection.wire.send(text.as_bytes())? || is_last {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        if !connection.counted
            && let Stream::Secure(stream) = connection.wire.stream()
            && let Some(kind) = stream.conn.handshake_kind()
        {
            connection.counted = true;
            match kind {
                HandshakeKind::Resumed => self.counts.resumed_handshakes += 1,
                _ => self.counts.full_handshakes += 1,
            }
        }
        Ok(())
    }
}

fn answer(status: &str, body: &str) -> Cow<'static, str> {
    Cow::Owned(format!("HTTP/1.1 {status}\r\n{HEADERS}Content-Length: {}\r\n\r\n{body}", body.len()))
}

impl Counts {
    fn json(&self) -> String {
        serde_json::json!({
            "requests": self.requests,
            "submissions": self.submissions,
            "connections": self.connections,
            "full_handshakes": self.full_handshakes,
            "resumed_handshakes": self.resumed_handshakes,
        })
        .to_string()
    }
}

/// Ids in the form of a UUID, no two alike.
struct Id(u64);

impl Id {
    fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    fn next(&mut self, number: u64) -> String {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number | 1);
        let (high, low) = ((self.0 >> 32) as u32, self.0 as u32);
        let (a, b) = (low >> 20, low & 0xfff);
        format!("{high:08x}-{:04x}-4{a:03x}-a{b:03x}-{:012x}", number >> 48, number & 0xffff_ffff_ffff)
    }
}

/// Ten headers of an answer; the length is the eleventh.
const HEADERS: &str = "Content-Type: application/json\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nServer: fixed\r\n\
    x-request-id: 0d5b1c2e-7a41-4c57-9a5e-0b8f3c6d2e10\r\nx-ratelimit-limit-requests: 600\r\n\
    x-ratelimit-remaining-requests: 599\r\nStrict-Transport-Security: max-age=31536000\r\n\
    Vary: accept-encoding\r\nCF-RAY: 8f1d2c3b4a596877-FRA\r\nCache-Control: no-store\r\n";

/// A poll's answer.
pub const POLL: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\n\
    Server: fixed\r\nx-request-id: 0d5b1c2e-7a41-4c57-9a5e-0b8f3c6d2e10\r\nx-ratelimit-limit-requests: 600\r\n\
    x-ratelimit-remaining-requests: 599\r\nStrict-Transport-Security: max-age=31536000\r\n\
    Vary: accept-encoding\r\nCF-RAY: 8f1d2c3b4a596877-FRA\r\nCache-Control: no-store\r\nContent-Length: 288\r\n\r\n\
    {\"status\":\"pending\",\"progress\":41,\"model\":\"grok-imagine-video\",\"created_at\":1830297600,\
    \"updated_at\":1830297612,\"request_id\":\"0d5b1c2e-7a41-4c57-9a5e-0b8f3c6d2e10\",\"video\":null,\
    \"usage\":{\"seconds\":0,\"cost_in_usd_ticks\":0},\"metadata\":{\"resolution\":\"720p\",\"aspect_ratio\":\"16:9\",\"duration\":5}}";

/// The listener's number, which no connection has.
const LISTENER: usize = usize::MAX;
