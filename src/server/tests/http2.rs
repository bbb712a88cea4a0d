//! How long HTTP/2 connections live, under a paused clock and over pipes in memory.

use std::task::ready;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, Sleep, sleep};

use super::connections::{http2_client, http2_get};
use super::*;
use crate::server::connection::Connections;
use crate::server::http2::WIND_DOWN;
use crate::server::socket::Socket;

const MAX_IDLE: Duration = Duration::from_secs(300);
const MAX_AGE: Duration = Duration::from_secs(3600);
const MAX_REQUESTS: u32 = 10_000;
use crate::server::tally::Closed;

const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection that is served, and the other end of it.
fn serve() -> (DuplexStream, JoinHandle<Result<(), Closed>>) {
    let (sender, events) = mpsc::unbounded_channel();
    // The events are of no interest here, but must have somewhere to go.
    std::mem::forget(events);
    let settings = Settings::default();
    let known = Known {
        limits: Limits::new(&settings),
        memory: BodyMemory::new(settings.body_memory),
        gate: Arc::new(Semaphore::new(0)),
        events: sender,
    };
    let connections = Connections::new(Trivial(known), &settings, Drain::new(), Arc::new(Tally::default()), None);
    let (client, socket) = duplex(64 << 10);
    let peer = Peer { address: "192.0.2.1:600".parse().unwrap() };
    let socket = Socket::new(socket, settings.write_timeout);
    (client, spawn_local(connections.serve_http2(socket, peer)))
}

async fn client<B>(socket: DuplexStream) -> http2::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await.unwrap();
    spawn_local(connection);
    sender
}

/// Whether a request was answered; if not, the client was told to go before it was sent.
async fn get(sender: &mut http2::SendRequest<Empty<Bytes>>) -> bool {
    match sender.send_request(http2_get("/")).await {
        Ok(answer) => answer.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn h20_lim6_a_client_that_is_silent_after_its_preface_is_closed() {
    let check = async {
        let (mut socket, served) = serve();
        socket.write_all(PREFACE_AND_SETTINGS).await.unwrap();
        let start = Instant::now();
        assert_eq!(served.await.unwrap(), Err(Closed::Idle));
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test(start_paused = true)]
async fn lim6_a_client_that_only_answers_pings_is_closed_when_it_was_idle_for_long() {
    let check = async {
        let (socket, served) = serve();
        let mut sender = client(socket).await;
        sleep(MAX_IDLE - Duration::from_secs(10)).await;
        assert!(get(&mut sender).await);
        let start = Instant::now();
        assert_eq!(served.await.unwrap(), Err(Closed::Idle));
        let lived = start.elapsed();
        assert!(lived >= MAX_IDLE && lived < MAX_IDLE + Duration::from_secs(5), "{lived:?}");
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test(start_paused = true)]
async fn lim15_a_stream_that_is_not_read_does_not_keep_its_connection() {
    let check = async {
        let (socket, served) = serve();
        let mut sender = client(socket).await;
        let unread = sender.send_request(http2_get("/endless")).await.unwrap();
        let start = Instant::now();
        assert_eq!(served.await.unwrap(), Err(Closed::Idle));
        let lived = start.elapsed();
        assert!(lived >= MAX_IDLE && lived <= MAX_IDLE + WIND_DOWN + Duration::from_secs(5), "{lived:?}");
        drop(unread);
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test(start_paused = true)]
async fn lim4_lim6_a_long_body_that_keeps_its_rate_is_a_sign_of_life() {
    let check = async {
        let (socket, served) = serve();
        let mut sender = client(socket).await;
        let start = Instant::now();
        let upload = Request::post("http://a/read").body(Slow::begin()).unwrap();
        let answer = sender.send_request(upload).await.expect("its connection was ended");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), format!("{} bytes", 30 << 20));
        assert!(start.elapsed() > MAX_IDLE + WIND_DOWN);
        drop(sender);
        served.await.unwrap().unwrap();
    };
    LocalSet::new().run_until(check).await;
}

/// A body that is sent a little faster than `server.min_rate` wants: 30 MiB, one each 15 s.
struct Slow {
    left: u32,
    pause: Pin<Box<Sleep>>,
}

impl Slow {
    const PAUSE: Duration = Duration::from_secs(15);

    fn begin() -> Self {
        Self { left: 30, pause: Box::pin(sleep(Self::PAUSE)) }
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pause.as_mut().poll(cx));
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        self.pause.as_mut().reset(Instant::now() + Self::PAUSE);
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; 1 << 20].into()))))
    }
}

#[tokio::test(start_paused = true)]
async fn lim6_a_busy_connection_ends_with_its_age() {
    let check = async {
        let (socket, served) = serve();
        let mut sender = client(socket).await;
        let start = Instant::now();
        while get(&mut sender).await {
            sleep(Duration::from_secs(20)).await;
        }
        assert_eq!(served.await.unwrap(), Err(Closed::Age));
        let lived = start.elapsed();
        assert!(lived >= MAX_AGE - Duration::from_secs(600) && lived <= MAX_AGE + WIND_DOWN, "{lived:?}");
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test(start_paused = true)]
async fn lim6_a_connection_carries_so_many_requests_and_loses_none() {
    let check = async {
        let (socket, served) = serve();
        let mut sender = client(socket).await;
        let mut answered = 0;
        while get(&mut sender).await {
            answered += 1;
        }
        assert_eq!(served.await.unwrap(), Err(Closed::Age));
        assert!(answered >= MAX_REQUESTS, "{answered}");
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test]
async fn f40_r51_a_drain_sends_http_2_clients_away_after_what_they_have_in_work() {
    let mut server = Running::start(settings());
    let mut sender = http2_client(&server).await;
    let waiting = tokio::spawn(sender.send_request(http2_get("/wait")));
    assert_eq!(server.event().await, Event::Began("/wait".to_owned()));
    server.drain.begin();
    let gone = async { while get(&mut sender).await {} };
    timeout(BOUND, gone).await.expect("the client was not told to go");
    server.known.gate.add_permits(1);
    let answer = timeout(BOUND, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "waited");
    assert!(server.serves().await, "new connections are still served");
}
