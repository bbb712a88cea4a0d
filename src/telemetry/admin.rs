//! The operators' listener: `/metrics`, `/livez` and `/readyz`, on an address of its own that the public never
//! reaches. It answers only to hosts that a foreign page cannot have rebound, and does no work that costs.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Telemetry;
use super::labels::Degraded;
use crate::error::Error;

/// What the operators' listener shows.
pub struct Admin {
    telemetry: Arc<Telemetry>,
    phase: AtomicU8,
    allowed_hosts: ArcSwap<Vec<String>>,
}

/// Where in its life the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not listen yet.
    Starting,
    /// It serves.
    Serving,
    /// It ends: what is in flight is finished, new submissions are refused.
    Draining,
}

impl Admin {
    /// The admin side of a gateway that is starting.
    pub fn new(telemetry: &Arc<Telemetry>, allowed_hosts: Vec<String>) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            phase: AtomicU8::new(Phase::Starting as u8),
            allowed_hosts: ArcSwap::from_pointee(allowed_hosts),
        }
    }

    /// Moves on to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Where in its life the gateway is.
    pub fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Relaxed);
        [Phase::Starting, Phase::Serving].into_iter().find(|each| *each as u8 == phase).unwrap_or(Phase::Draining)
    }

    /// Answers to these names from now on.
    pub fn set_allowed_hosts(&self, allowed_hosts: Vec<String>) {
        self.allowed_hosts.store(Arc::new(allowed_hosts));
    }

    fn answer<B>(&self, request: &Request<B>) -> Result<Response<Full<Bytes>>, Error> {
        if !self.is_ours(request) {
            return Err(Error::MisdirectedRequest);
        }
        let page = Page::find(request.uri().path()).ok_or(Error::NotFound)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Error::MethodNotAllowed { allow: "GET, HEAD" });
        }
        Ok(match page {
            Page::Metrics => respond(StatusCode::OK, METRICS_TYPE, self.telemetry.metrics.text()),
            Page::Live => respond(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ok\n")),
            Page::Ready => self.readiness(),
        })
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let gauges = &self.telemetry.metrics.degraded;
        let degraded = Degraded::ALL.iter().filter(|reason| gauges.value(**reason) != 0).map(|reason| reason.name());
        let degraded: Vec<_> = degraded.collect();
        let (status, body) = match self.phase() {
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, json!({"phase": "starting", "degraded": degraded})),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, json!({"phase": "draining", "degraded": degraded})),
            Phase::Serving => (StatusCode::OK, json!({"degraded": degraded})),
        };
        respond(status, JSON_TYPE, body.to_string().into())
    }

    /// Whether the request names a host that only we can be: an address, `localhost`, or a name of the configuration.
    fn is_ours<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let named = host.to_str().ok().and_then(host_name);
        // A target in absolute form speaks of a host too, and it may not be another one.
        let target = request.uri().authority().map(|authority| host_name(authority.as_str()));
        let names = [named].into_iter().chain(target);
        let allowed = self.allowed_hosts.load();
        names.into_iter().all(|name| {
            name.is_some_and(|name| {
                name.parse::<IpAddr>().is_ok()
                    || name.eq_ignore_ascii_case("localhost")
                    || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
            })
        })
    }
}

/// The pages.
enum Page {
    Metrics,
    Live,
    Ready,
}

impl Page {
    fn find(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

/// Answers one request. Its body, if it has one, is not read.
pub fn handle<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    admin.answer(request).unwrap_or_else(|error| {
        let mut body = error.body();
        if error == Error::NotFound
            && let Some(message) = body.pointer_mut("/error/message")
        {
            *message = "no such path: there are /metrics, /livez and /readyz".into();
        }
        let mut answer = respond(error.status(), JSON_TYPE, body.to_string().into());
        if let Error::MethodNotAllowed { allow } = error {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        answer
    })
}

/// Serves the admin listener until `shutdown`; then waits a moment for the answers in flight.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let (ending, ended) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                // Past the bound a connection is closed: a probe that is told no asks again.
                Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(connection(stream, Arc::clone(&admin), ended.clone()));
                }
                Ok(_) => {}
                // Out of file descriptors, say: accepting again at once would only spin.
                Err(error) => {
                    tracing::warn!(error = %error, "the admin listener cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop((listener, ending));
    let _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one connection. It ends when the listener does, when it is old, or when its client breaks it.
async fn connection(stream: TcpStream, admin: Arc<Admin>, mut ended: watch::Receiver<()>) {
    let service = service_fn(|request| {
        let answer = handle(&admin, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = ended.changed() => {}
        () = sleep(MAX_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWERS, connection).await;
}

/// The host of a `Host` header or an authority, without its port and without an IPv6 address's brackets.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (is_port && !name.is_empty()).then_some(name)
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The text format that Prometheus asks for.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON_TYPE: &str = "application/json";
/// Open connections: a few scrapers and probes.
const MAX_CONNECTIONS: usize = 64;
/// For a request's header, and for a connection without a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
const MAX_HEADER_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The oldest a connection gets; it also bounds how long one that does not read holds its place.
const MAX_AGE: Duration = Duration::from_secs(300);
/// For the answers in flight when a connection is to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Between two attempts to accept, after one that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;
    use crate::telemetry::settings::Settings;

    /// An admin listener on a port of its own.
    struct Listener {
        admin: Arc<Admin>,
        address: std::net::SocketAddr,
        end: oneshot::Sender<()>,
        served: tokio::task::JoinHandle<()>,
    }

    impl Listener {
        async fn start() -> Self {
            let telemetry = Telemetry::with_output(&Settings::default(), Box::new(std::io::sink())).unwrap();
            let admin = Arc::new(Admin::new(&telemetry, vec!["Gate.example".to_owned()]));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (end, ended) = oneshot::channel::<()>();
            let shutdown = async { ended.await.unwrap_or_default() };
            let served = tokio::spawn(serve(listener, Arc::clone(&admin), shutdown));
            Self { admin, address, end, served }
        }

        /// Sends a request's lines and reads the answer until the connection closes.
        async fn send(&self, head: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            answer.to_ascii_lowercase()
        }

        async fn ask(&self, method: &str, path: &str) -> String {
            self.send(&format!("{method} {path} HTTP/1.1\r\nHost: {}", self.address)).await
        }
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").unwrap().1
    }

    #[tokio::test]
    async fn t72_only_three_pages_exist_and_only_for_reading() {
        let listener = Listener::start().await;
        for (method, path, status, text) in [
            ("GET", "/livez", "200", "ok\n"),
            ("GET", "/metrics", "200", "\nreelgate_build_info{version="),
            ("GET", "/metrics?name=x", "200", "\nprocess_open_fds "),
            ("GET", "/", "404", "/livez"),
            ("GET", "/metrics/", "404", "not_found"),
            ("POST", "/nothing", "404", "not_found"),
            ("POST", "/metrics", "405", "\r\nallow: get, head\r\n"),
            ("DELETE", "/readyz", "405", "method_not_allowed"),
            ("OPTIONS", "/livez", "405", "\r\nallow: get, head\r\n"),
        ] {
            let answer = listener.ask(method, path).await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{method} {path}: {answer}");
            assert!(answer.contains(text), "{method} {path}: {answer}");
            assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{method} {path}: {answer}");
            assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{method} {path}: {answer}");
        }
        let metrics = listener.ask("GET", "/metrics").await;
        assert!(metrics.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{metrics}");
    }

    #[tokio::test]
    async fn a_head_has_the_length_and_no_body() {
        let listener = Listener::start().await;
        let answer = listener.ask("HEAD", "/livez").await;
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("\r\ncontent-length: 3\r\n"), "{answer}");
        assert_eq!(body(&answer), "");
    }

    #[tokio::test]
    async fn t73_ready_is_503_only_while_starting_or_draining() {
        let listener = Listener::start().await;
        let degraded = &listener.admin.telemetry.metrics.degraded;
        for (phase, ledger, status, want) in [
            (Phase::Starting, 0, "503", r#"{"degraded":[],"phase":"starting"}"#),
            (Phase::Serving, 0, "200", r#"{"degraded":[]}"#),
            (Phase::Serving, 1, "200", r#"{"degraded":["ledger"]}"#),
            (Phase::Draining, 0, "503", r#"{"degraded":[],"phase":"draining"}"#),
        ] {
            listener.admin.enter(phase);
            assert_eq!(listener.admin.phase(), phase);
            degraded.set(Degraded::Ledger, ledger);
            let answer = listener.ask("GET", "/readyz").await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{phase:?}: {answer}");
            assert_eq!(body(&answer), want);
            assert!(listener.ask("GET", "/livez").await.starts_with("http/1.1 200 "));
        }
    }

    #[tokio::test]
    async fn t72_a_host_that_a_page_could_rebind_is_misdirected() {
        let listener = Listener::start().await;
        for (head, status) in [
            ("GET /livez HTTP/1.1\r\nHost: 127.0.0.1", "200"),
            ("GET /livez HTTP/1.1\r\nHost: 10.1.2.3:9000", "200"),
            ("GET /livez HTTP/1.1\r\nHost: [::1]:8081", "200"),
            ("GET /livez HTTP/1.1\r\nHost: LocalHost:8081", "200"),
            ("GET /livez HTTP/1.1\r\nHost: gate.example", "200"),
            ("GET http://localhost/livez HTTP/1.1\r\nHost: localhost", "200"),
            ("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost", "421"),
            ("GET /livez HTTP/1.1\r\nHost: evil.example", "421"),
            ("GET /livez HTTP/1.1\r\nHost: localhost.evil.example", "421"),
            ("GET /livez HTTP/1.1\r\nHost: localhost:evil", "421"),
            ("GET /livez HTTP/1.1\r\nHost: ", "421"),
            ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", "421"),
            ("GET /livez HTTP/1.1", "421"),
        ] {
            let answer = listener.send(head).await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{head:?}: {answer}");
            assert_eq!(answer.contains("misdirected_request"), status == "421", "{head:?}: {answer}");
        }
        listener.admin.set_allowed_hosts(Vec::new());
        let answer = listener.send("GET /livez HTTP/1.1\r\nHost: gate.example").await;
        assert!(answer.starts_with("http/1.1 421 "), "{answer}");
    }

    #[tokio::test]
    async fn the_listener_ends_though_a_connection_is_idle() {
        let listener = Listener::start().await;
        let mut idle = TcpStream::connect(listener.address).await.unwrap();
        let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", listener.address);
        idle.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 8];
        idle.read_exact(&mut first).await.unwrap();
        listener.end.send(()).unwrap();
        timeout(Duration::from_secs(10), listener.served).await.unwrap().unwrap();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(10), idle.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.ends_with(b"ok\n"));
    }
}
