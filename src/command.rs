//! The command line (`DESIGN.md` §2): what each subcommand does, and how the program ends.

mod demo;
mod health;
mod ledger;
mod spend;
mod admin;
mod table;
mod key;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::watch::Watch;
use crate::config::{self, Config};
use crate::run::{self, Running, Source, StartError};
use crate::server::tls::Identity;
use crate::simulator::arguments::{self, SimulateArguments};
use crate::telemetry::Telemetry;
use crate::upstream::key::UpstreamKey;

/// A caching gateway for paid, asynchronous video generation
#[derive(Debug, Parser)]
#[command(name = "reelgate", version)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The gateway; without a file: the defaults, and the key from COMETAPI_KEY
    Serve {
        /// The configuration, a TOML file; REELGATE_SECTION__KEY in the environment overrides it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Gateway and simulated upstream together: nothing else is needed, and it costs nothing
    Demo(demo::DemoArguments),
    /// The simulated upstream alone
    Simulate(SimulateArguments),
    /// All faults of a configuration at once, of its secrets too where they are set; exit status 0 or 2
    Check {
        /// The configuration, a TOML file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Jobs and entries of a running gateway, or of its file
    #[command(subcommand)]
    Ledger(ledger::LedgerAction),
    /// What was spent this day and this month
    Spend(spend::SpendArguments),
    /// Gateway keys of teams
    #[command(subcommand)]
    Key(key::KeyAction),
    /// Whether the gateway is ready, for images without a shell; exit status 0 or 1
    Health(health::HealthArguments),
}

/// The configuration has faults, or the key is missing: starting again does not help.
const FAULTY: u8 = 2;
/// Something failed that may work another time.
const FAILED: u8 = 1;

impl Command {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let done = match self.action {
            Action::Serve { config } => serve(config),
            Action::Demo(arguments) => demo::run(arguments),
            Action::Simulate(arguments) => runtime()
                .and_then(|runtime| runtime.block_on(arguments::run(arguments)).map_err(|error| failed(&error))),
            Action::Check { config } => check(config),
            Action::Ledger(action) => ledger::run(action),
            Action::Spend(arguments) => spend::run(&arguments),
            Action::Key(action) => key::run(&action),
            Action::Health(arguments) => health::run(&arguments),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure { status, message }) => {
                tell(&message);
                ExitCode::from(status)
            }
        }
    }
}

/// Why the program ends, and with which status.
struct Failure {
    status: u8,
    message: String,
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure { status: FAILED, message: format!("reelgate: {error}") }
}

fn faulty(error: &dyn std::fmt::Display) -> Failure {
    Failure { status: FAULTY, message: error.to_string() }
}

fn serve(file: Option<PathBuf>) -> Result<(), Failure> {
    let runtime = runtime()?;
    // Before anything else: a signal that comes during the start is neither lost nor the process's end in disorder.
    let mut ends = Ends::listen(&runtime)?;
    let watch = runtime.block_on(Watch::new(file.iter().cloned().collect()));
    let mut watch = watch.map_err(|error| failed(&error))?;
    let source = Source { file, environment: config::environment().collect() };
    let config = source.load().map_err(|faults| faulty(&faults))?;
    runtime.block_on(watch.follow(source.files(&config)));
    let read = UpstreamKey::read(&config.upstream, |name| std::env::var(name).ok());
    let (key, doubt) = read.map_err(|fault| faulty(&fault))?;
    let telemetry = telemetry(&config)?;
    for warning in config.warnings() {
        warn!("{warning}");
    }
    if let Some(doubt) = doubt {
        warn!("{doubt}");
    }
    let start = Running::start(config, key, telemetry.clone(), Some((source, watch)));
    match runtime.block_on(ends.or(start)) {
        Some(Ok(running)) => runtime.block_on(until_ended(running, ends)),
        Some(Err(error @ StartError::Faulty(_))) => return Err(faulty(&error)),
        Some(Err(error @ (StartError::Listen(_) | StartError::Admin(..) | StartError::Part(_)))) => {
            return Err(failed(&error));
        }
        None => {
            info!("ended while it was starting");
            telemetry.flush(LAST_LINES);
            // The ledger may still be read on a thread of its own, and nothing waits for that.
            runtime.shutdown_background();
        }
    }
    Ok(())
}

/// Serves until a signal comes; a second one hurries the end.
async fn until_ended(running: Running, mut ends: Ends) {
    ends.told().await;
    running.stop(ends.told()).await;
}

/// The signals that end the program in order.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// Listens for them from now on: as a container's first process it would not even get them otherwise.
    fn listen(runtime: &Runtime) -> Result<Self, Failure> {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).map_err(|error| failed(&error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What comes of this, unless one of them comes first.
    async fn or<T>(&mut self, done: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = done => Some(done),
            () = self.told() => None,
        }
    }
}

/// How long the log has for its last lines where nothing was served.
const LAST_LINES: Duration = Duration::from_secs(2);

fn check(file: PathBuf) -> Result<(), Failure> {
    let shown = file.display().to_string();
    let source = Source { file: Some(file), environment: config::environment().collect() };
    let config = source.check().map_err(|faults| faulty(&faults))?;
    for warning in config.warnings() {
        tell(&format!("warning: {warning}"));
    }
    // Its faults were told with the rest.
    for warning in Identity::read(&config.server.tls).ok().flatten().iter().flat_map(Identity::warnings) {
        tell(&format!("warning: {warning}"));
    }
    match UpstreamKey::read(&config.upstream, |name| std::env::var(name).ok()) {
        Ok((_, None)) => {}
        Ok((_, Some(doubt))) => tell(&format!("warning: {doubt}")),
        // Any other fault of it was told with the rest.
        Err(fault) => tell(&format!("warning: {fault}: without it, serve refuses to start")),
    }
    for fault in run::missing(&config) {
        tell(&format!("warning: {fault}: without it, serve refuses to start"));
    }
    print(&format!("{shown}: ok"));
    Ok(())
}

/// The log and the metrics, the log also the place of every library's events.
fn telemetry(config: &Config) -> Result<Arc<Telemetry>, Failure> {
    let telemetry = Telemetry::start(&config.log).map_err(|error| failed(&error))?;
    telemetry.log.install().map_err(|error| failed(&error))?;
    Ok(telemetry)
}

/// The runtime of the leases and of the ledger's upkeep. Requests and their paid calls, the admin listener and the chores
/// have threads of their own, so that nothing slow in them can delay what must not be. One thread is enough for it.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("keeper")
        .enable_all()
        .build()
        .map_err(|error| failed(&error))
}

#[expect(clippy::print_stderr, reason = "a command's complaint to whoever called it")]
fn tell(message: &str) {
    eprintln!("{message}");
}

#[expect(clippy::print_stdout, reason = "a command's answer to whoever called it")]
fn print(message: &str) {
    println!("{message}");
}
