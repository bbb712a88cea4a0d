//! The API behind, reduced to what costs least: a poll is always the same 288 bytes with 11 headers, a submission is
//! a fresh id. Threads wait in `accept` and serve one connection after the other.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::certificate;
use super::wire::{Stream, Wire};

/// `load upstream`.
#[derive(Args)]
pub struct Upstream {
    /// The folder of the certificate, to speak TLS.
    #[arg(long)]
    tls: Option<PathBuf>,
    /// How many connections are served at once.
    #[arg(long, default_value_t = 2_400)]
    threads: usize,
}

/// The key that it asks for: a proxy that does not put it in fails every request.
pub const KEY: &str = "upstream-secret";

/// What it has seen.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    submissions: AtomicU64,
    connections: AtomicU64,
    full_handshakes: AtomicU64,
    resumed_handshakes: AtomicU64,
}

impl Upstream {
    /// Serves until the process is killed, after telling where.
    pub fn run(&self) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        rustix::net::listen(&listener, 4096)?;
        let tls = self.tls.as_deref().map(certificate::server).transpose()?;
        let shared = Arc::new((listener, tls, Counts::default()));
        let address: SocketAddr = shared.0.local_addr()?;
        for _ in 0..self.threads {
            let shared = shared.clone();
            let serve = move || serve(&shared.0, shared.1.as_ref(), &shared.2);
            std::thread::Builder::new().stack_size(128 << 10).spawn(serve)?;
        }
        println!("serving {address}");
        loop {
            std::thread::park();
        }
    }
}

fn serve(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, counts: &Counts) {
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
        _ = stream.set_nodelay(true);
        counts.connections.fetch_add(1, Ordering::Relaxed);
        // Whoever closes in the middle is of no interest here: the driver counts what failed.
        _ = match tls {
            Some(config) => secure(stream, config, counts),
            None => answer_all(stream, counts),
        };
    }
}

fn secure(mut stream: TcpStream, config: &Arc<ServerConfig>, counts: &Counts) -> io::Result<()> {
    let mut session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    session.complete_io(&mut stream)?;
    let count = match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => &counts.resumed_handshakes,
        _ => &counts.full_handshakes,
    };
    count.fetch_add(1, Ordering::Relaxed);
    answer_all(StreamOwned::new(session, stream), counts)
}

fn answer_all(stream: impl Stream, counts: &Counts) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    let mut id = Id::new(counts.connections.load(Ordering::Relaxed));
    while let Some(head) = wire.head()? {
        if head.body > 64 << 10 {
            wire.widen();
        }
        wire.body(&head)?;
        if head.text.starts_with(b"GET /counts ") {
            wire.send(answer("200 OK", "", &counts.json()).as_bytes())?;
            continue;
        }
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let key = head.value("authorization:").and_then(|value| value.strip_prefix(b"Bearer "));
        if key != Some(KEY.as_bytes()) {
            wire.send(answer("401 Unauthorized", "", r#"{"error":{"message":"wrong key"}}"#).as_bytes())?;
        } else if head.text.starts_with(b"POST ") {
            let number = counts.submissions.fetch_add(1, Ordering::Relaxed);
            wire.send(answer("200 OK", "", &format!(r#"{{"request_id":"{}"}}"#, id.next(number))).as_bytes())?;
        } else {
            wire.send(POLL.as_bytes())?;
        }
        if head.value("connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close")) {
            break;
        }
    }
    Ok(())
}

fn answer(status: &str, more: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{HEADERS}{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

impl Counts {
    fn json(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        serde_json::json!({
            "requests": of(&self.requests),
            "submissions": of(&self.submissions),
            "connections": of(&self.connections),
            "full_handshakes": of(&self.full_handshakes),
            "resumed_handshakes": of(&self.resumed_handshakes),
        })
        .to_string()
    }
}

/// Ids in the form of a UUID, no two alike.
struct Id(u64);

impl Id {
    fn new(connection: u64) -> Self {
        Self(connection.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
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
