//! A Redis of a test's own, and replicas of the gateway over it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::Simulator;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::process::Program;
use super::{Answer, Folder, GENERATIONS, ask, eventually, value};

/// A running redis-server; killed with this value.
pub struct RedisServer {
    child: Child,
    port: u16,
    folder: Folder,
    arguments: Vec<String>,
}

impl RedisServer {
    /// One that keeps its data as Redis does by default, nothing else set.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with further arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = Folder::new();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(port, &folder, &arguments);
        let server = Self { child, port, folder, arguments };
        server.answers().await;
        server
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same, behind the colon.
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }

    /// Asks it one thing by its own client.
    pub fn cli(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().expect("redis-cli is there");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew, after it was killed.
    pub async fn again(&mut self) {
        self.child = spawn(self.port, &self.folder, &self.arguments);
        self.answers().await;
    }

    async fn answers(&self) {
        eventually("redis answers", async || {
            let said = self.cli(&["PING"]);
            said.contains("PONG") || said.contains("NOAUTH")
        })
        .await;
    }

    /// Every value that it keeps, as text.
    pub fn contents(&self) -> String {
        let script = "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do all[#all + 1] = key \
             local kind = redis.call('TYPE', key).ok \
             if kind == 'string' then all[#all + 1] = redis.call('GET', key) end \
             if kind == 'hash' then for _, v in ipairs(redis.call('HGETALL', key)) do all[#all + 1] = v end end \
             if kind == 'set' then for _, v in ipairs(redis.call('SMEMBERS', key)) do all[#all + 1] = v end end \
             end return table.concat(all, '\\n')";
        self.cli(&["EVAL", script, "0"])
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &Folder, arguments: &[String]) -> Child {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]);
    command.arg("--dir").arg(folder.as_ref()).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is there: tests/run installs it")
}

/// One replica of a gateway.
pub struct Replica {
    /// Its process.
    pub program: Program,
    /// Where it serves.
    pub address: SocketAddr,
    /// Where its operators look.
    pub admin: SocketAddr,
}

impl Replica {
    /// A replica over this Redis, in front of this upstream.
    pub async fn start(upstream: &Simulator, key: &str, url: &str, more: &[(&str, &str)]) -> Self {
        let origin = upstream.origin();
        let mut all = vec![
            ("COMETAPI_KEY", key),
            ("REELGATE_UPSTREAM__URL", origin.as_str()),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            ("REELGATE_SERVER__WORKERS", "1"),
            ("REELGATE_LEDGER__KIND", "redis"),
            ("REELGATE_REDIS_URL", url),
            ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
            ("REELGATE_LIMITS__USER__REQUESTS", "off"),
            ("REELGATE_LIMITS__ADDRESS__REQUESTS", "off"),
            ("REELGATE_LIMITS__TOTAL__GENERATIONS", "off"),
            // A loaded machine may be slow; what is measured is not the time.
            ("REELGATE_LEDGER__TIMEOUT", "1s"),
        ];
        all.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        all.extend(more);
        let mut program = Program::start(&["serve"], &all);
        let (address, admin) = program.serving().await;
        Self { program, address, admin }
    }

    /// Submits a prompt.
    pub async fn submit(&self, prompt: &str) -> Answer {
        self.submit_with(&json!({"prompt": prompt}), &[]).await
    }

    /// Submits a body with further headers.
    pub async fn submit_with(&self, body: &serde_json::Value, headers: &[(&str, &str)]) -> Answer {
        let all = [&[("content-type", "application/json")], headers].concat();
        ask(self.address, Method::POST, GENERATIONS, &all, &body.to_string()).await
    }

    /// Polls a job.
    pub async fn poll(&self, id: &str) -> Answer {
        ask(self.address, Method::GET, &format!("/grok/v1/videos/{id}"), &[], "").await
    }

    /// The value of a series.
    pub async fn metric(&self, series: &str) -> f64 {
        value(&ask(self.admin, Method::GET, "/metrics", &[], "").await.text(), series)
    }

    /// Waits until a series has a value.
    pub async fn metric_becomes(&self, series: &str, want: f64) {
        eventually(series, async || (self.metric(series).await - want).abs() < f64::EPSILON).await;
    }

    /// Ends it with SIGTERM, which must be clean.
    pub async fn end(mut self) -> String {
        self.program.signal(Signal::TERM);
        let status = tokio::time::timeout(Duration::from_secs(60), self.program.ended()).await.expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.program.output());
        self.program.output()
    }
}
