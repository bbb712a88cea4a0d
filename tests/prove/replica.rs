//! One replica: the program itself, as a child process that can be killed, frozen, ended and started again.

use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::wire;

/// Lines of its log that are kept, to be shown if the proof fails.
const KEPT_LINES: usize = 40;
/// How long it may take to serve, or to end.
const SOON: Duration = Duration::from_secs(30);

/// A replica, which may be up or down.
pub struct Replica {
    number: usize,
    program: PathBuf,
    environment: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
    addresses: Arc<Mutex<Option<(SocketAddr, SocketAddr)>>>,
    log: Arc<Mutex<VecDeque<String>>>,
    journal: Arc<Mutex<HashSet<String>>>,
}

impl Replica {
    pub fn new(number: usize, program: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self {
            number,
            program,
            environment,
            child: Mutex::default(),
            addresses: Arc::default(),
            log: Arc::default(),
            journal: Arc::default(),
        }
    }

    /// The jobs that it could not write to its ledger in time, and wrote to its log instead (M8).
    pub fn journal(&self) -> HashSet<String> {
        self.journal.lock().unwrap().clone()
    }

    /// Where it serves, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.addresses.lock().unwrap().map(|(public, _)| public)
    }

    /// Starts it and waits until it serves.
    pub async fn start(&self) -> Result<(), String> {
        let mut child = Command::new(&self.program)
            .arg("serve")
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("replica {}: {error}", self.number))?;
        self.read(child.stdout.take().unwrap());
        self.read(child.stderr.take().unwrap());
        *self.child.lock().unwrap() = Some(child);
        let deadline = Instant::now() + SOON;
        while self.address().is_none() {
            let ended = self.child.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("replica {} does not serve:\n{}", self.number, self.log()));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn read(&self, output: impl Read + Send + 'static) {
        let (addresses, log, journal) = (self.addresses.clone(), self.log.clone(), self.journal.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains("\"serving\"")
                    && let Ok(line) = serde_json::from_str::<Value>(&line)
                {
                    let address = |field: &str| line[field].as_str().and_then(|text| text.parse().ok());
                    *addresses.lock().unwrap() = address("listen").zip(address("admin"));
                }
                if line.contains("a paid job could not be written to the ledger")
                    && let Ok(line) = serde_json::from_str::<Value>(&line)
                {
                    journal.lock().unwrap().extend(line["job"].as_str().map(str::to_owned));
                }
                // A line a request would leave no room for what matters.
                if line.contains("\"message\":\"request\"") {
                    continue;
                }
                let mut log = log.lock().unwrap();
                log.push_back(line);
                while log.len() > KEPT_LINES {
                    log.pop_front();
                }
            }
        });
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().iter().map(|line| format!("  {line}\n")).collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &*self.child.lock().unwrap() {
            _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Kills it: nothing that it had not written is written any more.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        *self.addresses.lock().unwrap() = None;
        if let Some(mut child) = self.child.lock().unwrap().take() {
            _ = child.wait();
        }
    }

    /// Ends it with SIGTERM, hurried by a second one after a while.
    pub async fn end(&self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        let mut hurried = false;
        loop {
            let ended = self.child.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended {
                break;
            }
            if !hurried && begun.elapsed() > SOON / 6 {
                self.signal(Signal::TERM);
                hurried = true;
            }
            if begun.elapsed() > SOON {
                return Err(format!("replica {} does not end:\n{}", self.number, self.log()));
            }
            sleep(Duration::from_millis(5)).await;
        }
        *self.addresses.lock().unwrap() = None;
        *self.child.lock().unwrap() = None;
        Ok(())
    }

    /// What it counts.
    pub async fn metrics(&self) -> Result<Metrics, String> {
        let admin = self.addresses.lock().unwrap().map(|(_, admin)| admin);
        let admin = admin.ok_or_else(|| format!("replica {} is down", self.number))?;
        let answer = wire::get(admin, "/metrics").await;
        answer.map(|answer| Metrics(answer.body)).ok_or_else(|| format!("replica {} shows no metrics", self.number))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A metrics page.
pub struct Metrics(String);

impl Metrics {
    /// The sum of a metric's series whose labels hold this.
    pub fn sum(&self, name: &str, labels: &str) -> u64 {
        let prefix = format!("reelgate_{name}");
        let series = self.0.lines().filter_map(|line| line.strip_prefix(&prefix)?.rsplit_once(' '));
        let wanted = series.filter(|(rest, _)| rest.is_empty() || rest.starts_with('{') && rest.contains(labels));
        wanted.map(|(_, value)| value.parse::<f64>().unwrap_or_default() as u64).sum()
    }
}
