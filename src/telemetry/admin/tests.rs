//! The admin listener over sockets, without a gateway behind it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

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
        let admin = Arc::new(Admin::new(&telemetry, vec!["Gate.example".to_owned()], Access::Local));
        admin.enter(Phase::Serving);
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
async fn what_needs_the_ledger_waits_for_it_and_says_so() {
    let listener = Listener::start().await;
    listener.admin.enter(Phase::Starting);
    for path in ["/metrics", "/admin/jobs", "/admin/entries", "/admin/entries/0123456789ab", "/admin/spend"] {
        let answer = listener.ask("GET", path).await;
        assert!(answer.starts_with("http/1.1 503 "), "{path}: {answer}");
        assert!(answer.contains("ledger_unavailable") && answer.contains("starting"), "{path}: {answer}");
        assert!(answer.contains("\"api_error\"") && answer.contains("\r\nretry-after: 1\r\n"), "{path}: {answer}");
    }
    // Neither the path nor who may see it waits.
    assert!(listener.ask("GET", "/admin/nothing").await.starts_with("http/1.1 404 "));
    assert!(listener.ask("DELETE", "/admin/jobs").await.starts_with("http/1.1 405 "));
    let from_a_page = format!("GET /admin/jobs HTTP/1.1\r\nHost: {}\r\nOrigin: https://a", listener.address);
    assert!(listener.send(&from_a_page).await.starts_with("http/1.1 403 "));
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
