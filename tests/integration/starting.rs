//! A start that takes long, because of its ledger: operators see it, signals are heard, and ports are told to be in use
//! before (`DESIGN.md` §1, §2; F-40, F-46, F-70, T-73).

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{Options, Simulator};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use serde_json::json;

use super::support::process::Program;
use super::support::{Answer, Folder, GENERATIONS, ask, eventually, random_key, value};

const FILE: &str = "reelgate.toml";

/// A ledger with one job, whose log is a pipe instead of a file: who reads it waits for the test.
struct Ledger {
    upstream: Simulator,
    folder: Folder,
    key: String,
    made: String,
}

impl Ledger {
    async fn new() -> Self {
        let (key, folder) = (random_key(), Folder::new());
        let options = Options { key: Some(key.clone()), job_duration: Duration::from_millis(50), ..Options::default() };
        let upstream = Simulator::start(options).await.unwrap();
        folder.write(FILE, "");
        let mut ledger = Self { upstream, folder, key, made: String::new() };
        let mut program = ledger.program(&[]);
        let (address, _) = program.serving().await;
        ledger.made = submit(address, "a candle").await.request_id();
        program.signal(Signal::TERM);
        assert_eq!(program.ended().await.code(), Some(0));
        fs::rename(ledger.log(), ledger.folder.path("log")).unwrap();
        mknodat(CWD, ledger.log(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        ledger
    }

    fn log(&self) -> PathBuf {
        self.folder.path("data/ledger.wal")
    }

    /// The program on this ledger.
    fn program(&self, environment: &[(&str, &str)]) -> Program {
        let (origin, data, file) = (self.upstream.origin(), self.folder.path("data"), self.folder.path(FILE));
        let mut all = vec![
            ("COMETAPI_KEY", self.key.as_str()),
            ("REELGATE_UPSTREAM__URL", &origin),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            ("REELGATE_SERVER__WORKERS", "1"),
            ("REELGATE_LEDGER__PATH", data.to_str().unwrap()),
        ];
        all.retain(|(name, _)| !environment.iter().any(|(other, _)| other == name));
        all.extend(environment);
        Program::start(&["serve", "--config", file.to_str().unwrap()], &all)
    }

    /// A start that reads the log and comes to no end of it.
    async fn start(&self) -> Start<'_> {
        let mut program = self.program(&[]);
        let admin = program.starting().await;
        // There is nobody to write for until somebody reads. The first writer stays, and stays here alone: a reader that
        // sees one come and go, in another test's program too, has read to the end.
        let as_writer = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut pipe = None;
        let is_read = async || {
            pipe = rustix::fs::open(self.log(), as_writer, Mode::empty()).ok();
            pipe.is_some()
        };
        eventually("the log is read", is_read).await;
        let pipe = pipe.unwrap();
        rustix::fs::fcntl_setfl(&pipe, OFlags::empty()).unwrap();
        let pipe = File::from(pipe);
        Start { ledger: self, program, admin, pipe }
    }
}

/// A gateway that is starting until the test lets it go on.
struct Start<'a> {
    ledger: &'a Ledger,
    program: Program,
    admin: SocketAddr,
    pipe: File,
}

impl Start<'_> {
    /// Lets it read the log to its end: the program that serves now, and where.
    async fn go_on(mut self) -> (Program, SocketAddr, SocketAddr) {
        // Once it is read it is opened to be written, and that must be the file.
        fs::rename(self.ledger.folder.path("log"), self.ledger.log()).unwrap();
        self.pipe.write_all(&fs::read(self.ledger.log()).unwrap()).unwrap();
        drop(self.pipe);
        let (address, admin) = self.program.serving().await;
        assert_eq!(admin, self.admin);
        (self.program, address, admin)
    }
}

async fn submit(address: SocketAddr, prompt: &str) -> Answer {
    let body = json!({"prompt": prompt}).to_string();
    ask(address, Method::POST, GENERATIONS, &[("content-type", "application/json")], &body).await
}

async fn get(admin: SocketAddr, path: &str) -> Answer {
    ask(admin, Method::GET, path, &[], "").await
}

async fn end(mut program: Program) {
    program.signal(Signal::TERM);
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.output());
}

#[tokio::test]
async fn t73_a_gateway_that_still_reads_its_ledger_is_alive_and_not_ready() {
    let ledger = Ledger::new().await;
    let start = ledger.start().await;
    let alive = get(start.admin, "/livez").await;
    assert_eq!((alive.status, alive.text()), (200, "ok\n".to_owned()));
    let ready = get(start.admin, "/readyz").await;
    assert_eq!((ready.status, ready.json()), (503, json!({"phase": "starting", "degraded": []})));
    for path in ["/metrics", "/admin/jobs", "/admin/entries", "/admin/spend"] {
        let answer = get(start.admin, path).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (503, Some("ledger_unavailable")),
            "{path}"
        );
    }
    let admin = start.admin.to_string();
    let (status, output) = Program::run(&["health", "--admin", &admin], &[]).await;
    assert!(status == 1 && output.contains("503"), "{output}");

    let (program, address, admin) = start.go_on().await;
    eventually("it is ready", async || get(admin, "/readyz").await.status == 200).await;
    assert_eq!(get(admin, "/admin/jobs").await.json()["jobs"][0]["request_id"], ledger.made);
    let metrics = get(admin, "/metrics").await.text();
    assert_eq!(value(&metrics, "entries{state=\"accepted\"}"), 1.0, "no scrape has seen less");
    assert_eq!(submit(address, "a candle").await.request_id(), ledger.made);
    assert_eq!(ledger.upstream.posts(), 1);
    end(program).await;
}

#[tokio::test]
async fn f46_a_port_in_use_is_told_before_the_ledger_is_read() {
    let ledger = Ledger::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // Nobody writes the log, so a start that read it first would never end.
    for (name, key) in [("REELGATE_SERVER__LISTEN", "server.listen"), ("REELGATE_ADMIN__LISTEN", "admin.listen")] {
        let mut program = ledger.program(&[(name, &address)]);
        assert_eq!(program.ended().await.code(), Some(1), "{}", program.output());
        let output = program.output();
        let line = output.lines().last().unwrap();
        assert!(line.contains(key) && line.contains(&address), "{output}");
    }
}

#[tokio::test]
async fn f40_a_signal_ends_a_start_at_once() {
    let ledger = Ledger::new().await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut start = ledger.start().await;
        start.program.signal(signal);
        assert_eq!(start.program.ended().await.code(), Some(0), "{}", start.program.output());
        assert!(start.program.output().contains("ended while it was starting"), "{}", start.program.output());
    }
    let (program, address, _) = ledger.start().await.go_on().await;
    assert_eq!(submit(address, "a candle").await.request_id(), ledger.made);
    end(program).await;
}

/// Waits until one reload has succeeded.
async fn reloaded(admin: SocketAddr) {
    let count = async || value(&get(admin, "/metrics").await.text(), "config_reloads_total{result=\"ok\"}");
    eventually("it was reloaded", async || count().await >= 1.0).await;
}

#[tokio::test]
async fn f70_a_hangup_during_the_start_is_one_reload_after_it() {
    let ledger = Ledger::new().await;
    let start = ledger.start().await;
    for _ in 0..3 {
        start.program.signal(Signal::HUP);
    }
    assert_eq!(get(start.admin, "/livez").await.status, 200);
    let (program, _, admin) = start.go_on().await;
    reloaded(admin).await;
    // One by itself comes after those of the start, if there were more of them.
    ledger.folder.write(FILE, "[limits.user]\ngenerations = \"1/day\"\n");
    program.says("limits.user.generations").await;
    let series = "config_reloads_total{result=\"ok\"}";
    assert_eq!(value(&get(admin, "/metrics").await.text(), series), 2.0);
    end(program).await;
}

#[tokio::test]
async fn f70_a_change_of_the_file_during_the_start_is_noticed() {
    let ledger = Ledger::new().await;
    let start = ledger.start().await;
    ledger.folder.write(FILE, "[limits.user]\ngenerations = \"1/day\"\n");
    let (program, address, admin) = start.go_on().await;
    reloaded(admin).await;
    assert_eq!(submit(address, "a torch").await.status, 200);
    assert_eq!(submit(address, "a lamp").await.refusal(), (429, "rate_limited".to_owned()));
    end(program).await;
}
