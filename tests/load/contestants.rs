//! Who is measured: the gateway with everything on, and what it is compared with.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde_json::Value;

use super::drive::{Drive, Made};
use super::driver::Driver;
use super::nginx::{self, Nginx};
use super::process::{Process, is_here};
use super::upstream;

/// A run: its folder, and the upstream that all share.
pub struct Bench {
    folder: PathBuf,
    /// Ends with this value.
    _upstream: Process,
    upstream_address: SocketAddr,
    started: AtomicU64,
    /// Whether everybody speaks TLS, with the certificate in the folder.
    tls: bool,
    /// Where processes run.
    places: Places,
    /// The gateway.
    program: PathBuf,
}

/// Which gateway is measured.
#[derive(Args, Clone)]
pub struct Program {
    /// Another build of the gateway than the one built with this.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_reelgate"))]
    program: PathBuf,
}

/// Which core serves, and which one asks and answers; nobody is placed by `None`.
#[derive(Clone, Copy, Default)]
pub struct Places {
    pub serving: Option<u32>,
    pub around: Option<u32>,
}

impl Default for Program {
    fn default() -> Self {
        Self { program: env!("CARGO_BIN_EXE_reelgate").into() }
    }
}

/// How somebody is started.
#[derive(Clone, Default)]
pub struct Launch {
    /// A program that runs it, with its arguments.
    pub wrap: Vec<String>,
    /// Threads that serve; 0 is one.
    pub workers: usize,
    /// What the gateway's configuration says differently.
    pub environment: Vec<(&'static str, String)>,
    /// Another build of the gateway.
    pub program: Option<PathBuf>,
}

/// Who is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Gateway,
    Bare,
    Nginx(Nginx),
    /// Nobody: clients ask the upstream itself.
    Direct,
}

/// Somebody who serves.
pub struct Contestant {
    pub process: Option<Process>,
    pub address: SocketAddr,
    /// What clients send.
    pub key: &'static str,
}

impl Bench {
    /// Starts the upstream.
    pub fn start(folder: &Path, program: &Program, tls: bool, places: Places) -> io::Result<Self> {
        let mut command = placed(places.around, &[]);
        command.arg(std::env::current_exe()?).arg("upstream");
        if tls {
            command.arg("--tls").arg(folder);
        }
        let mut upstream = Process::start(&mut command, folder.join("upstream.txt"))?;
        let upstream_address = upstream.serving(said)?;
        Ok(Self {
            folder: folder.to_owned(),
            _upstream: upstream,
            upstream_address,
            started: AtomicU64::new(0),
            tls,
            places,
            program: program.program.clone(),
        })
    }

    /// Starts somebody, who then serves.
    pub fn launch(&self, who: Who, launch: &Launch) -> io::Result<Contestant> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("{number}"));
        std::fs::create_dir(&folder)?;
        let output = folder.join("output.txt");
        let mut command = placed(self.places.serving, &launch.wrap);
        let workers = launch.workers.max(1);
        let (process, address) = match who {
            Who::Direct => {
                return Ok(Contestant { process: None, address: self.upstream_address, key: upstream::KEY });
            }
            Who::Gateway => {
                self.gateway(&mut command, &folder, workers, launch.program.as_deref().unwrap_or(&self.program))?;
                command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
                let mut process = Process::start(&mut command, output)?;
                let address = process.serving(logged)?;
                (process, address)
            }
            Who::Bare => {
                command.arg(std::env::current_exe()?).arg("bare");
                command.args(["--upstream", &self.upstream_address.to_string(), "--workers", &workers.to_string()]);
                let mut process = Process::start(&mut command, output)?;
                let address = process.serving(said)?;
                (process, address)
            }
            Who::Nginx(nginx) => {
                let tls = self.tls.then_some(self.folder.as_path());
                let address = nginx.prepare(&mut command, &folder, self.upstream_address, workers, tls)?;
                (Process::start(&mut command, output)?, nginx::listens(address)?)
            }
        };
        Ok(Contestant { process: Some(process), address, key: CLIENT_KEY })
    }

    fn gateway(&self, command: &mut Command, folder: &Path, workers: usize, program: &Path) -> io::Result<()> {
        let file = folder.join("reelgate.toml");
        let mut text = CONFIGURATION.to_owned();
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.tls { "localhost" } else { "127.0.0.1" };
        text += &format!("[upstream]\nurl = \"{scheme}://{host}:{}\"\n", self.upstream_address.port());
        if self.tls {
            let path = |name| self.folder.join(name).display().to_string();
            text += &format!("roots = {:?}\n", path(super::certificate::CERTIFICATE));
            text += &format!(
                "[server.tls]\ncertificate = {:?}\nkey = {:?}\n",
                path(super::certificate::CERTIFICATE),
                path(super::certificate::KEY)
            );
        }
        text += &format!("[ledger]\npath = {:?}\n", folder.join("ledger").display().to_string());
        std::fs::write(&file, text)?;
        command.arg(program).arg("serve").arg("--config").arg(file);
        command.env("COMETAPI_KEY", upstream::KEY).env("REELGATE_SERVER__WORKERS", workers.to_string());
        Ok(())
    }

    /// The clients of a contestant, connected and waiting for the word.
    pub fn driver(&self, contestant: &Contestant, drive: Drive) -> io::Result<Driver> {
        let tls = self.tls.then(|| self.folder.clone());
        let drive = Drive { address: contestant.address, key: contestant.key.to_owned(), tls, ..drive };
        Driver::start(placed(self.places.around, &[]), &drive)
    }

    /// Drives once; every request must have been answered well.
    pub fn drive(&self, contestant: &Contestant, drive: Drive) -> io::Result<Made> {
        self.driver(contestant, drive)?.go()
    }

    /// What the upstream has seen.
    pub fn counts(&self) -> io::Result<Value> {
        let tls = self.tls.then_some(self.folder.as_path());
        let body = super::drive::get(self.upstream_address, tls, "/counts")?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Numbers of submissions that nobody else uses, a thousand million of them.
    pub fn fresh_numbers(&self) -> u64 {
        (self.started.fetch_add(1, Ordering::Relaxed) + 1) * 1_000_000_000
    }

    /// Where files may be written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The gateway that is measured.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Contestant {
    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        self.process.as_ref().map_or(0.0, Process::cpu)
    }

    /// Ends it.
    pub fn end(self) -> io::Result<()> {
        self.process.map_or(Ok(()), Process::end)
    }
}

/// A command that will run on this core, under this wrapper; its program is its next argument. It ends with us, however
/// we end.
pub fn placed(core: Option<u32>, wrap: &[String]) -> Command {
    let mut command = Command::new("env");
    if is_here("setpriv") {
        command.args(["setpriv", "--pdeathsig", "TERM"]);
    }
    if let Some(core) = core {
        command.args(["taskset", "--cpu-list", &core.to_string()]);
    }
    command.args(wrap);
    command
}

/// The address in the line of one of our own.
fn said(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("serving ")?.parse().ok()
}

/// The address in the gateway's log.
fn logged(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "serving").then(|| line["listen"].as_str()?.parse().ok())?
}

/// The gateway key of the clients.
const CLIENT_KEY: &str = "load-key-of-a-team";

/// Everything on that costs something: keys of a team, every limit (so high that nobody meets it), budgets, strict
/// validation, entries and owners, a log line for each request, observation of polls, the ledger on disk.
const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
connections_per_address = 16384
[admin]
listen = "127.0.0.1:0"
[access]
mode = "keys"
[[teams]]
name = "studio"
keys = [{ id = "web-1", sha256 = "ace653d1f7366917bef96ed0aab8c061900157d8dc6a9e2e5d8822b7c0385329" }]
[limits]
user.requests = "1000000/second"
user.generations = "1000000/second"
user.running = 1000000000
team.requests = "1000000/second"
team.generations = "1000000/second"
address.requests = "1000000/second"
address.generations = "1000000/second"
total.requests = "1000000/second"
total.generations = "1000000/second"
[budgets]
user.per_day = 1000000000
team.per_month = 1000000000
total.per_month = 1000000000
[log]
format = "json"
"#;
