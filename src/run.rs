//! The gateway as a running thing: built from a checked configuration, started, reloaded, ended. The program, the demo
//! and the tests start it here and nowhere else.

mod build;
mod chores;
mod ledger;
mod reload;
mod secrets;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::chores::Chores;
pub use self::secrets::{SecretFault, missing};
use crate::config::watch::Watch;
use crate::config::{Config, Draft, Faults};
use crate::gateway::watch::Watcher;
use crate::gateway::{Gateway, Worker};
use crate::jobs::attempt::Ending;
use crate::request::schema::Schema;
use crate::request::settings::SchemaSource;
use crate::server::drain::Drain;
use crate::server::tally::Tally;
use crate::server::tls::Identity;
use crate::server::{Servers, listen};
use crate::telemetry::Telemetry;
use crate::telemetry::admin::{self, Access, Admin, Phase};
use crate::telemetry::labels::Degraded;
use crate::upstream::key::{KeyFault, UpstreamKey};
use crate::upstream::settings::Roots;
use crate::upstream::tls::client_config;

/// Where the configuration came from, so that it can be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment, as it was at the start.
    pub environment: Vec<(String, String)>,
}

impl Source {
    /// Reads and checks the configuration, with what it names: schemas, the certificate and its key, authorities, and
    /// all secrets whose variables are set.
    ///
    /// # Errors
    /// All its faults, a line each.
    pub fn load(&self) -> Result<Config, String> {
        self.tried()?.finish().map_err(|faults| faults.to_string())
    }

    /// The same for a start that is yet to come: also whether the ledger could have its folder. A start takes it, and a
    /// reload keeps it.
    ///
    /// # Errors
    /// All its faults, a line each.
    pub fn check(&self) -> Result<Config, String> {
        let mut draft = self.tried()?;
        draft.try_out(&["ledger.path", "ledger.kind"], |config| ledger::look(&config.ledger));
        draft.finish().map_err(|faults| faults.to_string())
    }

    fn tried(&self) -> Result<Draft, String> {
        let mut draft = self.draft().map_err(|faults| faults.to_string())?;
        draft.try_out(&["server.tls.certificate", "server.tls.key"], |config| {
            Identity::read(&config.server.tls).map(|_| ())
        });
        draft.try_out(&["upstream.roots"], |config| client_config(&config.upstream.roots).map(|_| ()));
        draft.try_out(&["upstream.key_file", "upstream.key_env"], |config| {
            match UpstreamKey::read(&config.upstream, |name| std::env::var(name).ok()) {
                // A configuration is often checked where its secrets are not; what is there has to be usable.
                Ok(_) | Err(KeyFault::NoVariable(_)) => Ok(()),
                Err(fault) => Err(fault),
            }
        });
        for (keys, trial) in secrets::TRIALS {
            draft.try_out(keys, |config| trial(config).or_else(SecretFault::unless_missing));
        }
        Ok(draft)
    }

    fn draft(&self) -> Result<Draft, Faults> {
        let compile = |operation, text: &str| Schema::from_text(operation, text).map(|_| ());
        Config::draft(self.file.as_deref(), self.environment.iter().cloned(), &compile)
    }

    /// All files that the configuration of now names, as far as it can be read: it may be refused for any of them.
    fn named_files(&self) -> Vec<PathBuf> {
        let Ok(draft) = self.draft() else { return Vec::new() };
        let Config { upstream, ledger, .. } = draft.config();
        let roots = match &upstream.roots {
            Roots::File(path) => Some(path),
            Roots::Bundled | Roots::System => None,
        };
        let others = [roots, ledger.redis_roots.as_ref()].into_iter().flatten();
        self.files(draft.config()).into_iter().chain(others.cloned()).collect()
    }

    /// The files that such a configuration comes from: its own, and those that it names and that are read again.
    pub fn files(&self, config: &Config) -> Vec<PathBuf> {
        let Config { upstream, server, validation, .. } = config;
        let schemas = [&validation.generations, &validation.edits].map(|source| match source {
            SchemaSource::File(path) => Some(path),
            SchemaSource::Builtin => None,
        });
        let secrets = [&upstream.key_file, &server.tls.certificate, &server.tls.key].map(Option::as_ref);
        let named = secrets.into_iter().chain(schemas).flatten();
        self.file.iter().chain(named).cloned().collect()
    }
}

/// Why the gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The public listener.
    #[error("server.listen: {0}")]
    Listen(io::Error),
    /// The admin listener.
    #[error("admin.listen: {0}: {1}")]
    Admin(SocketAddr, io::Error),
    /// Something that the configuration names is wrong: starting again does not help.
    #[error("{0}")]
    Faulty(String),
    /// A part that could not be made, and that may be made another time.
    #[error("{0}")]
    Part(String),
}

impl From<SecretFault> for StartError {
    /// What is wrong here stays wrong until somebody changes it.
    fn from(fault: SecretFault) -> Self {
        Self::Faulty(fault.to_string())
    }
}

/// A gateway that serves.
pub struct Running {
    gateway: Arc<Gateway>,
    admin: Arc<Admin>,
    servers: Servers,
    admin_address: SocketAddr,
    drain: Drain,
    ending: Ending,
    /// Ends the tasks that only accompany it.
    over: CancellationToken,
    tasks: TaskTracker,
    chores: Chores,
    config: Arc<Mutex<Config>>,
}

impl Running {
    /// Starts a gateway: first its admin listener, which says that it is starting, then its ledger, which may take long to
    /// be read, then what serves. The current runtime becomes the one of the leases and the ledger's upkeep; the requests
    /// are served on threads of their own, their paid calls with them, and so are the admin listener and the chores. With
    /// a source it is reloaded when its watch says so.
    ///
    /// Dropping it gives up: what of the ledger is being read is read to its end, on a thread that nobody waits for.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(
        config: Config,
        key: UpstreamKey,
        telemetry: Arc<Telemetry>,
        source: Option<(Source, Watch)>,
    ) -> Result<Self, StartError> {
        let (ending, drain, tally) = (Ending::default(), Drain::new(), Arc::new(Tally::default()));
        let early = Early::start(&config, &telemetry).await?;
        // The address is told to be in use before a long ledger is read; it is listened on after that, so that a client
        // is refused at once and not left waiting.
        listen::probe(config.server.listen).map_err(StartError::Listen)?;
        info!(admin = %early.address, "starting: the ledger is being opened");
        let gateway = build::gateway(&config, key, telemetry, ending.clone()).await?;
        let workers = workers(&config);
        let listeners = listen::bind(config.server.listen, workers).map_err(StartError::Listen)?;
        let shared = gateway.clone();
        let make = move || Worker::new(shared.clone());
        let servers = {
            let certificates = gateway.certificates.as_ref();
            Servers::start(listeners, &config.server, &drain, &tally, certificates, make).map_err(StartError::Listen)?
        };
        build::show(&gateway, tally);
        early.admin.show(gateway.dedup.ledger().clone());
        let Early { admin, address: admin_address, over, tasks, chores } = early;
        let running = Self {
            gateway,
            admin,
            servers,
            admin_address,
            drain,
            ending,
            over: over.disarm(),
            tasks,
            chores,
            config: Arc::new(Mutex::new(config)),
        };
        running.accompany(source);
        running.admin.enter(Phase::Serving);
        info!(listen = %running.address(), admin = %admin_address, "serving");
        Ok(running)
    }

    /// The public address, with the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.servers.address()
    }

    /// The admin address.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What all requests share.
    pub const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Ends it: what was not sent is given back, what was is waited for within `server.shutdown_grace`, then the
    /// connections close (`MONEY.md` M11). When `hurry` resolves, nothing is waited for any more, but what is known is
    /// still written. Returns whether everything ended by itself.
    pub async fn stop(self, hurry: impl Future<Output = ()>) -> bool {
        let grace = self.config.lock().await.server.shutdown_grace;
        // First, so that whoever is told of the end meets nothing that we begin after it.
        self.ending.draining.cancel();
        info!("draining: paid calls in flight are waited for");
        self.admin.enter(Phase::Draining);
        self.drain.begin();
        let (ending, drain, dedup) = (self.ending.clone(), self.drain.clone(), self.gateway.dedup.clone());
        let drained = CancellationToken::new();
        let ended = async {
            dedup.drain(grace).await;
            drained.cancel();
            self.servers.close(CLOSE_WITHIN).await
        };
        let hurried = async {
            hurry.await;
            warn!("ending at once: what is in flight is written down as unknown");
            ending.hurry.cancel();
            // Whoever waits is told so, and that takes a moment; the paid calls are in the workers until they are written
            // down. Then nobody is waited for.
            tokio::join!(tokio::time::sleep(LAST_ANSWERS), drained.cancelled());
            drain.abort();
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = ended => ended,
            never = hurried => never,
        };
        self.over.cancel();
        self.tasks.close();
        _ = tokio::time::timeout(LAST_CHORES, self.tasks.wait()).await;
        info!("ended");
        self.gateway.telemetry.flush(LAST_CHORES);
        ended
    }

    /// Starts what goes on beside the requests.
    fn accompany(&self, source: Option<(Source, Watch)>) {
        let chores = self.chores.handle();
        let (gateway, over) = (self.gateway.clone(), self.over.clone());
        self.tasks.spawn(async move { over.run_until_cancelled(sweep(&gateway)).await });
        // It ends with the first word of the end: what it sees then is seen again after the start.
        let (watcher, draining) = (Watcher::new(self.gateway.clone()), self.ending.draining.clone());
        self.tasks.spawn_on(async move { draining.run_until_cancelled(watcher.run()).await }, chores);
        if let Some((source, watch)) = source {
            let reloader = reload::Reloader::new(&self.gateway, &self.admin, &self.config, source);
            let over = self.over.clone();
            self.tasks.spawn_on(async move { over.run_until_cancelled(reloader.follow(watch)).await }, chores);
        }
    }
}

/// What is there before the ledger is open; it ends when it is dropped.
struct Early {
    admin: Arc<Admin>,
    /// Where the admin listener is.
    address: SocketAddr,
    over: DropGuard,
    tasks: TaskTracker,
    chores: Chores,
}

impl Early {
    async fn start(config: &Config, telemetry: &Arc<Telemetry>) -> Result<Self, StartError> {
        let key = secrets::admin_key(config)?;
        let unusable = |error| StartError::Admin(config.admin.listen, error);
        let chores = Chores::start().map_err(|error| StartError::Part(error.to_string()))?;
        let bound = chores.handle().spawn(TcpListener::bind(config.admin.listen)).await;
        let listener = bound.map_err(io::Error::from).flatten().map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let access = Access::of(key, address.ip().to_canonical().is_loopback());
        let admin = Arc::new(Admin::new(telemetry, config.server.allowed_hosts.clone(), access));
        let (over, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shutdown = over.clone().cancelled_owned();
        tasks.spawn_on(admin::serve(listener, admin.clone(), shutdown), chores.handle());
        Ok(Self { admin, address, over: over.drop_guard(), tasks, chores })
    }
}

/// Drops what time has ended, once a second.
async fn sweep(gateway: &Gateway) {
    loop {
        tokio::time::sleep(BETWEEN_SWEEPS).await;
        gateway.dedup.sweep();
        let failing = !gateway.dedup.ledger().is_well();
        gateway.telemetry.metrics.degraded.set(Degraded::Ledger, i64::from(failing));
        gateway.limits.sweep();
        gateway.attempts.sweep();
    }
}

/// Threads that serve requests.
fn workers(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

/// How long the connections have to end what they have in work.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// How long a hurried end has for the answers of those who wait.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the admin listener and the log have at the very end.
const LAST_CHORES: Duration = Duration::from_secs(2);
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);
