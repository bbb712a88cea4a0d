//! The vocabulary of the tests: set a scene (simulated upstream and gateway, started as the program starts them), ask,
//! assert, and end it, which checks what must hold after every test (`HARDENING.md` §0).

mod answer;
mod browser;
mod door;
mod folder;
pub mod frames;
mod invariants;
mod line;
pub mod process;
pub mod redis;
mod sink;
mod tls_front;
mod wire;

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use reelgate::config::Config;
use reelgate::run::Running;
use reelgate::simulator::{Options, Simulator};
use reelgate::telemetry::Telemetry;
use reelgate::upstream::key::UpstreamKey;
use serde_json::{Value, json};
use tokio::net::TcpStream;

pub use answer::{Answer, code_of};
pub use browser::{Browser, REBOUND};
pub use door::Door;
pub use folder::Folder;
pub use invariants::key_is_absent;
pub use line::Line;
pub use sink::Sink;
pub use tls_front::{Authority, TlsFront};
pub use wire::answers;

/// Where submissions go.
pub const GENERATIONS: &str = "/grok/v1/videos/generations";
/// Where edits go.
pub const EDITS: &str = "/grok/v1/videos/edits";

/// How long anything that must happen may take in a test.
pub const SOON: Duration = Duration::from_secs(10);

/// A simulated upstream with a gateway in front of it.
pub struct Scene {
    /// The API behind, which remembers what it was sent.
    pub upstream: Simulator,
    /// The gateway, until the scene ends.
    gateway: Option<Running>,
    /// The upstream key, random for each scene.
    pub key: String,
    /// What was logged.
    pub log: Sink,
    /// Everything that clients were sent.
    seen: Mutex<Vec<u8>>,
    /// Requests that clients sent to the submission routes.
    submissions: Mutex<u64>,
    /// Whether a test bought one prompt more than once on purpose.
    bought_again: Mutex<bool>,
    ended: Mutex<bool>,
}

impl Scene {
    /// A scene with the defaults, quick jobs and no limits.
    pub async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    /// A scene with something else than the defaults.
    pub async fn with(change: impl FnOnce(&mut Config, &mut Options)) -> Self {
        let key = random_key();
        let mut options = Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: Some(key.clone()),
            job_duration: Duration::from_millis(300),
            ..Options::default()
        };
        let mut config = Config::default();
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.server.workers = 2;
        config.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.ledger.kind = reelgate::jobs::settings::Kind::Memory;
        config.limits.user = reelgate::admission::settings::Rates::default();
        config.limits.address = config.limits.user;
        config.limits.total = config.limits.user;
        change(&mut config, &mut options);
        let upstream = Simulator::start(options).await.unwrap();
        if config.upstream.url == Config::default().upstream.url {
            config.upstream.url = upstream.origin();
        }
        let log = Sink::default();
        let telemetry = Telemetry::with_output(&config.log, Box::new(log.clone())).unwrap();
        let gateway = Running::start(config, UpstreamKey::parse(&key).unwrap(), telemetry, None).await.unwrap();
        Self {
            upstream,
            gateway: Some(gateway),
            key,
            log,
            seen: Mutex::default(),
            submissions: Mutex::default(),
            bought_again: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// The gateway.
    pub fn gateway(&self) -> &Running {
        self.gateway.as_ref().unwrap()
    }

    /// Submits a prompt.
    pub async fn submit(&self, prompt: &str) -> Answer {
        self.submit_with(prompt, &[]).await
    }

    /// Submits a prompt with further headers.
    pub async fn submit_with(&self, prompt: &str, headers: &[(&str, &str)]) -> Answer {
        self.post(GENERATIONS, &json!({"prompt": prompt}), headers).await
    }

    /// Posts a body.
    pub async fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        self.post_text(path, &body.to_string(), headers).await
    }

    /// Posts a body as it is.
    pub async fn post_text(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let all = [&[("content-type", "application/json")], headers].concat();
        self.ask(Method::POST, path, &all, body).await
    }

    /// Polls a job.
    pub async fn poll(&self, id: &str) -> Answer {
        self.ask(Method::GET, &format!("/grok/v1/videos/{id}"), &[], "").await
    }

    /// Polls a job until its answer holds `text`.
    pub async fn poll_until(&self, id: &str, text: &str) -> Answer {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let answer = self.poll(id).await;
            if answer.text().contains(text) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "{text} never came: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends any request on a connection of its own and reads the whole answer.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.note_submission(&method, path);
        let answer = ask(self.gateway().address(), method, path, headers, body).await;
        self.see(&answer.raw());
        answer
    }

    /// Sends bytes as they are and reads until the gateway closes.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(self.gateway().address()).await.unwrap();
        // The gateway may close before it has read all of it.
        _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the gateway did not close");
        self.see(&answer);
        answer
    }

    /// Sends a submission with these header lines (each with its line end) and this text behind the header, as they
    /// are, and reads until the gateway closes.
    pub async fn raw_submission(&self, lines: &str, rest: &str) -> String {
        self.note_submissions(1);
        let head = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lines}\r\n");
        String::from_utf8(self.raw(format!("{head}{rest}").as_bytes()).await).expect("the answer is text")
    }

    /// What a page of the admin listener says.
    pub async fn admin(&self, path: &str) -> Answer {
        let answer = ask(self.gateway().admin_address(), Method::GET, path, &[], "").await;
        self.see(&answer.raw());
        answer
    }

    /// The value of one series, `submissions_total{outcome="hit"}`; the prefix is left out.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        value(&text, series)
    }

    /// Waits until a series has a value.
    pub async fn metric_becomes(&self, series: &str, want: f64) {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let value = self.metric(series).await;
            if (value - want).abs() < f64::EPSILON {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{series} is {value}, not {want}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// This test buys a prompt more than once on purpose.
    pub fn allow_buying_again(&self) {
        *self.bought_again.lock().unwrap() = true;
    }

    /// A client that resets its connection takes back what was not read of it: at most `most` submissions were never seen.
    pub async fn forgive_unread(&self, most: u64) {
        let text = self.admin("/metrics").await.text();
        let counted: f64 = invariants::series(&text, "submissions_total").values().sum();
        let mut sent = self.submissions.lock().unwrap();
        *sent = (*sent - most..=*sent).find(|sent| *sent as f64 >= counted).unwrap_or(*sent);
    }

    /// Counts requests to a submission route that a test sends by other means than this scene's.
    pub fn note_submissions(&self, count: u64) {
        *self.submissions.lock().unwrap() += count;
    }

    fn note_submission(&self, method: &Method, path: &str) {
        let path = path.split('?').next().unwrap_or_default();
        if *method != Method::OPTIONS && [GENERATIONS, EDITS].contains(&path) {
            self.note_submissions(1);
        }
    }

    /// Keeps what a client was sent, to be searched for the key at the end.
    pub fn see(&self, bytes: &[u8]) {
        self.seen.lock().unwrap().extend_from_slice(bytes);
    }

    /// Ends the scene and checks what must hold after every test.
    pub async fn end(self) {
        invariants::check(self).await;
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let ended = *self.ended.lock().unwrap();
        assert!(ended || std::thread::panicking(), "a scene is ended by its test: scene.end().await");
    }
}

/// Sends one request on a connection of its own.
pub async fn ask(address: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<bytes::Bytes>::from(body.to_owned())).unwrap();
    let response =
        tokio::time::timeout(SOON * 2, sender.send_request(request)).await.expect("no answer in time").unwrap();
    let (parts, body) = response.into_parts();
    let collected = body.collect().await;
    driver.abort();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: collected.ok().map(|body| body.to_bytes()) }
}

/// The value of a series in a metrics text.
pub fn value(text: &str, series: &str) -> f64 {
    let name = format!("reelgate_{series} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no series {series}")).trim().parse().unwrap()
}

/// The sum of all series of one metric.
pub fn sum(text: &str, name: &str) -> f64 {
    let prefix = format!("reelgate_{name}{{");
    let values = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("} "));
    values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

/// An upstream key that nobody else has.
pub fn random_key() -> String {
    random().iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

/// 40 random bytes.
fn random() -> [u8; 40] {
    let mut bytes = [0; 40];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// Runs all of them at once and gives what each gives, in their order.
pub async fn together<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = all.into_iter().map(|each| (Box::pin(each), None)).collect();
    poll_fn(|context| {
        let mut are_done = true;
        for (each, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match each.as_mut().poll(context) {
                Poll::Ready(ready) => *output = Some(ready),
                Poll::Pending => are_done = false,
            }
        }
        if are_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

/// Waits for something that is only seen by looking.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
