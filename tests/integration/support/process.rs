//! The program as its users run it: a child process with an environment of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use hyper::Method;
use reelgate::simulator::{Options, Simulator};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Answer, GENERATIONS, SOON, ask, eventually, value};

/// A run of the program; killed with this value.
pub struct Program {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts the program with this environment and nothing else in it.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_reelgate")), arguments, environment)
    }

    /// Starts it so that a limit of its files' sizes is an error and not a signal that ends it.
    pub fn start_deaf_to_file_limits(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_reelgate")]);
        Self::spawn(command, arguments, environment)
    }

    /// The id of its process.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Starts it by this command, which may say where and as whom.
    pub fn spawn(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        command.args(arguments).env_clear();
        // A ledger on disk is only for tests that say where.
        if !environment.iter().any(|(name, _)| name.starts_with("REELGATE_LEDGER__")) {
            command.env("REELGATE_LEDGER__KIND", "memory");
        }
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let read = |stream| {
            let output = output.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    output.lock().unwrap().push_str(&(line + "\n"));
                }
            })
        };
        let readers = streams.map(read).into();
        Self { child, output, readers }
    }

    /// Runs it to its end: its exit status, and all that it wrote.
    pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
        let mut program = Self::start(arguments, environment);
        let status = program.ended().await;
        (status.code().expect("it was killed"), program.output())
    }

    /// All that it has written so far, on both streams.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until it has written this.
    pub async fn says(&self, text: &str) {
        let deadline = tokio::time::Instant::now() + SOON;
        while !self.output().contains(text) {
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "it did not say {text:?}: {}", self.output());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Waits until it serves: its public and its admin address.
    pub async fn serving(&mut self) -> (SocketAddr, SocketAddr) {
        let line = self.told("serving").await;
        (address(&line, "listen"), address(&line, "admin"))
    }

    /// Waits until its admin listener is there, which is before its ledger is open.
    pub async fn starting(&mut self) -> SocketAddr {
        address(&self.told("starting: the ledger is being opened").await, "admin")
    }

    /// Waits for a line of its log, by its message.
    async fn told(&mut self, message: &str) -> Value {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let output = self.output();
            let mut lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(line) = lines.find(|line| line["message"] == message) {
                return line;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && tokio::time::Instant::now() < deadline, "it did not say {message:?}: {output}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its command line, as everybody on the machine can read it.
    pub fn command_line(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/cmdline", self.child.id())).unwrap()
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status.unwrap()
    }
}

/// An address in a line of the log.
fn address(line: &Value, field: &str) -> SocketAddr {
    line[field].as_str().unwrap().parse().unwrap()
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The program serving in front of a simulated upstream.
pub struct Served {
    /// The API behind.
    pub upstream: Simulator,
    /// The gateway's process.
    pub program: Program,
    /// Where it serves.
    pub address: SocketAddr,
    /// Where its operators look.
    pub admin: SocketAddr,
}

impl Served {
    /// `reelgate serve` with these arguments, and this on top of an environment that finds the upstream and its key.
    pub async fn start(key: &str, options: Options, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let upstream = Simulator::start(options).await.unwrap();
        let origin = upstream.origin();
        let mut all = vec![
            ("COMETAPI_KEY", key),
            ("REELGATE_UPSTREAM__URL", origin.as_str()),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            ("REELGATE_SERVER__WORKERS", "2"),
        ];
        all.retain(|(name, _)| !environment.iter().any(|(other, _)| other == name));
        all.extend(environment.iter().filter(|(_, value)| !value.is_empty()));
        let mut program = Program::start(&[&["serve"], arguments].concat(), &all);
        let (address, admin) = program.serving().await;
        Self { upstream, program, address, admin }
    }

    /// Submits a prompt.
    pub async fn submit(&self, prompt: &str) -> Answer {
        let body = json!({"prompt": prompt}).to_string();
        ask(self.address, Method::POST, GENERATIONS, &[("content-type", "application/json")], &body).await
    }

    /// Polls a job.
    pub async fn poll(&self, id: &str) -> Answer {
        ask(self.address, Method::GET, &format!("/grok/v1/videos/{id}"), &[], "").await
    }

    /// A page of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        ask(self.admin, Method::GET, path, &[], "").await
    }

    /// The value of a series.
    pub async fn metric(&self, series: &str) -> f64 {
        value(&self.admin("/metrics").await.text(), series)
    }

    /// Ends it with SIGTERM, which must be clean.
    pub async fn end(mut self) -> String {
        self.program.signal(Signal::TERM);
        let status = self.program.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.program.output());
        self.program.output()
    }
}
