//! The server over real sockets, with a trivial handler behind it and short deadlines.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::body::{self, BodyMemory, Limits, Upload};
use super::drain::Drain;
use super::listen::Listeners;
use super::settings::Settings;
use super::tally::Tally;
use super::tls::Certificates;
use super::{Handler, Peer, Servers, listen};
use crate::error::Error;

mod bodies;
mod connections;
mod descriptors;
mod draining;
mod http2;
mod tls;

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(20);

/// The bytes of a large answer's body: less than the TLS layer holds, and more than a small socket does.
const LARGE: usize = 60_000;

/// A running server and what its handler knows.
struct Running {
    servers: Servers,
    drain: Drain,
    tally: Arc<Tally>,
    known: Known,
    events: mpsc::UnboundedReceiver<Event>,
}

/// What the handlers of all workers share.
#[derive(Clone)]
struct Known {
    limits: Limits,
    memory: BodyMemory,
    /// Requests for `/wait` are answered by permits.
    gate: Arc<Semaphore>,
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Began(String),
    Dropped(String),
}

impl Running {
    fn start(settings: Settings) -> Self {
        let listeners = listen::bind("127.0.0.1:0".parse().unwrap(), settings.workers).unwrap();
        Self::start_on(listeners, settings, None)
    }

    /// On listeners of the test's own; with certificates it speaks TLS.
    fn start_on(listeners: Listeners, settings: Settings, certificates: Option<Arc<Certificates>>) -> Self {
        let (drain, tally) = (Drain::new(), Arc::new(Tally::default()));
        let (sender, events) = mpsc::unbounded_channel();
        let known = Known {
            limits: Limits::new(&settings),
            memory: BodyMemory::new(settings.body_memory),
            gate: Arc::new(Semaphore::new(0)),
            events: sender,
        };
        let make = {
            let known = known.clone();
            move || Trivial(known.clone())
        };
        let servers = Servers::start(listeners, &settings, &drain, &tally, certificates.as_ref(), make).unwrap();
        Self { servers, drain, tally, known, events }
    }

    async fn connect(&self) -> Client {
        Client::connect(self.servers.address()).await
    }

    /// The next thing that happened in the handler.
    async fn event(&mut self) -> Event {
        timeout(BOUND, self.events.recv()).await.expect("nothing happened").unwrap()
    }

    /// Whether a new connection is served.
    async fn serves(&self) -> bool {
        self.connect().await.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.contains("200 OK")
    }
}

/// One worker and deadlines as short as tests like them.
fn settings() -> Settings {
    Settings {
        workers: 1,
        first_byte_timeout: Duration::from_millis(300),
        header_timeout: Duration::from_millis(600),
        read_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        ..Settings::default()
    }
}

struct Trivial(Known);

type Answered = Either<Full<Bytes>, Endless>;

impl Handler for Trivial {
    type Body = Answered;

    async fn handle(self: Rc<Self>, head: Parts, upload: Upload, _: Peer) -> Response<Answered> {
        let path = head.uri.path().to_owned();
        self.0.events.send(Event::Began(path.clone())).unwrap();
        match path.as_str() {
            "/read" => match body::read(upload, &self.0.limits, &self.0.memory).await {
                Ok(body) => text(StatusCode::OK, format!("{} bytes", body.len())),
                Err(error) => text(error.status(), format!("{error:?}")),
            },
            "/refuse" => text(StatusCode::FORBIDDEN, "refused".to_owned()),
            "/wait" => {
                let told = Told(self.0.clone(), path);
                drop(self.0.gate.acquire().await.unwrap());
                std::mem::forget(told);
                text(StatusCode::OK, "waited".to_owned())
            }
            _ if head.method == Method::CONNECT => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
            "/panic" => panic!("as the test wants it"),
            "/thread" => text(StatusCode::OK, std::thread::current().name().unwrap_or_default().to_owned()),
            "/large" => text(StatusCode::OK, "x".repeat(LARGE)),
            "/endless" => Response::new(Either::Right(Endless)),
            _ => text(StatusCode::OK, "hello".to_owned()),
        }
    }

    fn broken(&self) -> Response<Answered> {
        text(Error::Internal.status(), Error::Internal.code().to_owned())
    }
}

fn text(status: StatusCode, text: String) -> Response<Answered> {
    let mut answer = Response::new(Either::Left(Full::from(text)));
    *answer.status_mut() = status;
    answer
}

/// Tells that a request's future was dropped.
struct Told(Known, String);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.events.send(Event::Dropped(self.1.clone()));
    }
}

/// A body without an end.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096])))))
    }
}

/// A client that writes and reads bytes as they are.
struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        self.answer().await
    }

    /// One answer, read by its `content-length`; what came if the connection ends before.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        let read = async {
            while !is_complete(&answer) {
                let Ok(byte) = self.0.read_u8().await else { break };
                answer.push(byte);
            }
        };
        assert!(timeout(BOUND, read).await.is_ok(), "no answer");
        String::from_utf8(answer).unwrap()
    }

    /// All that comes until the server closes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset ends it as well.
        let _ = timeout(BOUND, self.0.read_to_end(&mut rest)).await.expect("the connection stays open");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

fn is_complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
