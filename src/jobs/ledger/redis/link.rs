//! The connection to Redis: every question has a short deadline, and after a few failures in a row a breaker answers
//! in its place, so that a slow or frozen Redis never holds a request (`HARDENING.md` F-50, F-51, F-55).

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError,
    Script, ServerErrorKind, TlsCertificates, Value, cmd,
};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::failure::Failure;
use super::script::{self, Command, Reply};
use crate::clock::{Clock, Time};

/// What tells of each failure.
pub(super) type OnFailure = Box<dyn Fn(Failure) + Send + Sync>;

/// The way to one Redis.
pub(super) struct Link {
    client: Client,
    connection: ConnectionManager,
    pub(super) prefix: String,
    /// All steps.
    script: Script,
    timeout: Duration,
    breaker: Mutex<Breaker>,
    failures: AtomicU32,
    on_failure: OnFailure,
    /// Redis' clock less ours, in milliseconds (`HARDENING.md` F-58).
    offset: Arc<AtomicI64>,
    clock: Clock,
    jitter: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum Breaker {
    Closed,
    /// Nobody asks until then; then one does.
    Open(Instant),
    /// One asks.
    Probing(Instant),
}

impl Link {
    /// A link that connects when it is first used.
    ///
    /// # Errors
    /// What is wrong with the URL, without the URL.
    pub(super) fn new(
        url: &str,
        root: Option<Vec<u8>>,
        prefix: &str,
        patience: Duration,
        clock: Clock,
        on_failure: OnFailure,
    ) -> Result<Self, String> {
        // Without one of the process the library panics at the first TLS connection. A second one is refused, and ours
        // is the same.
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = client(url, root)?;
        let connection =
            ConnectionManager::new_lazy_with_config(client.clone(), config(patience)).map_err(|error| told(&error))?;
        Ok(Self {
            client,
            connection,
            prefix: prefix.to_owned(),
            script: script::commit(prefix),
            timeout: patience,
            breaker: Mutex::new(Breaker::Closed),
            failures: AtomicU32::new(0),
            on_failure,
            offset: Arc::new(AtomicI64::new(0)),
            clock,
            jitter: AtomicU64::new(0),
        })
    }

    /// The time, as Redis has it.
    pub(super) fn now(&self) -> Time {
        shifted(&self.clock, &self.offset)
    }

    /// What tells the time as Redis has it.
    pub(super) fn clock(&self) -> impl Fn() -> Time + Clone + Send + Sync + 'static {
        let (clock, offset) = (self.clock.clone(), self.offset.clone());
        move || shifted(&clock, &offset)
    }

    /// Whether it answered when it was asked last.
    pub(super) fn is_well(&self) -> bool {
        matches!(*self.breaker(), Breaker::Closed)
    }

    /// One step. `None`: Redis does not have the script, so it was started anew (M26).
    ///
    /// # Errors
    /// [`Failure`]; it may have happened all the same if there was no answer in time.
    pub(super) async fn run(&self, command: Command) -> Result<Option<Reply>, Failure> {
        self.run_within(self.timeout, command).await
    }

    /// One step over much at once, which may take as much longer.
    ///
    /// # Errors
    /// [`Failure`], as [`Self::run`].
    pub(super) async fn run_long(&self, command: Command) -> Result<Option<Reply>, Failure> {
        self.run_within(self.timeout * LONG_PATIENCE, command).await
    }

    async fn run_within(&self, patience: Duration, mut command: Command) -> Result<Option<Reply>, Failure> {
        command.prefix.clone_from(&self.prefix);
        let text = serde_json::to_string(&command).map_err(|_| Failure::Other)?;
        let mut step = cmd("EVALSHA");
        step.arg(self.script.get_hash()).arg(0).arg(text);
        let mut connection = self.connection.clone();
        let question = async {
            match step.query_async(&mut connection).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let Some(answer): Option<String> = self.ask_within(patience, question).await? else { return Ok(None) };
        let reply: Reply = serde_json::from_str(&answer).map_err(|error| {
            warn!(%error, "redis answered with something that is not ours");
            Failure::Other
        })?;
        let ours = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
        let theirs = i64::try_from(reply.now).unwrap_or(i64::MAX);
        self.offset.store(theirs.saturating_sub(ours), Ordering::Relaxed);
        Ok(Some(reply))
    }

    /// Whether Redis has the script of the steps.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn has_script(&self) -> Result<bool, Failure> {
        let known: Vec<bool> = self.query(cmd("SCRIPT").arg("EXISTS").arg(self.script.get_hash())).await?;
        Ok(known.first() == Some(&true))
    }

    /// Gives Redis the script of the steps.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn load_script(&self) -> Result<(), Failure> {
        let mut connection = self.connection.clone();
        self.ask(async { self.script.load_async(&mut connection).await.map(drop) }).await
    }

    /// One plain command.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        self.ask(async { command.query_async(&mut connection).await }).await
    }

    /// Some plain commands at once.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn query_all<T: redis::FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        self.ask(async { commands.query_async(&mut connection).await }).await
    }

    /// Some plain commands at once, for an operator who looks at much. They may take long, and that they fail is no reason
    /// to stop buying, so the breaker does not hear of it; it only spares a Redis that is away the question.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn look_at<T: redis::FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        let question = async {
            if !self.is_well() {
                return Err(Failure::Open);
            }
            match timeout(self.timeout * LONG_PATIENCE, commands.query_async(&mut connection)).await {
                Ok(answer) => answer.map_err(|error| Failure::of(&error)),
                Err(_) => Err(Failure::Timeout),
            }
        };
        question.await.inspect_err(|failure| (self.on_failure)(*failure))
    }

    /// One plain command, whether the breaker is open or not: a background look that holds nobody.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn probe<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        let answer = match timeout(self.timeout, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::Timeout),
        };
        if answer.is_ok() {
            self.succeed();
        }
        answer
    }

    /// Calls `heard` for each message of a channel, for as long as the answer is kept.
    ///
    /// # Errors
    /// [`Failure`]; subscribing again is the caller's.
    pub(super) async fn listen(
        &self,
        channel: &str,
        heard: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Result<ConnectionManager, Failure> {
        let told = move |push: PushInfo| {
            if push.kind == PushKind::Message
                && let Some(Value::BulkString(payload)) = push.data.last()
            {
                heard(payload);
            }
            Ok::<_, std::convert::Infallible>(())
        };
        let config = config(self.timeout.max(SLOWEST_GREETING)).set_push_sender(told).set_automatic_resubscription();
        let connected = ConnectionManager::new_with_config(self.client.clone(), config).await;
        let mut connection = connected.map_err(|error| Failure::of(&error))?;
        connection.subscribe(channel).await.map_err(|error| Failure::of(&error))?;
        Ok(connection)
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, RedisError>>) -> Result<T, Failure> {
        self.ask_within(self.timeout, question).await
    }

    async fn ask_within<T>(
        &self,
        patience: Duration,
        question: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Failure> {
        self.enter().inspect_err(|failure| (self.on_failure)(*failure))?;
        let answer = match timeout(patience, question).await {
            Ok(answer) => answer.map_err(|error| {
                debug!(code = error.code(), detail = error.detail(), "redis refuses, or cannot be reached");
                Failure::of(&error)
            }),
            Err(_) => Err(Failure::Timeout),
        };
        match &answer {
            Ok(_) => self.succeed(),
            Err(failure) => self.fail(*failure),
        }
        answer
    }

    fn enter(&self) -> Result<(), Failure> {
        let mut breaker = self.breaker();
        let now = Instant::now();
        match *breaker {
            Breaker::Closed => Ok(()),
            // A probe that never came back is no reason to ask never again.
            Breaker::Open(until) | Breaker::Probing(until) if until <= now => {
                *breaker = Breaker::Probing(now + self.timeout * 4);
                Ok(())
            }
            Breaker::Open(_) | Breaker::Probing(_) => Err(Failure::Open),
        }
    }

    fn succeed(&self) {
        self.failures.store(0, Ordering::Relaxed);
        let was_open = !matches!(std::mem::replace(&mut *self.breaker(), Breaker::Closed), Breaker::Closed);
        if was_open {
            info!("redis answers again");
        }
    }

    fn fail(&self, failure: Failure) {
        (self.on_failure)(failure);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut breaker = self.breaker();
        let is_first = matches!(*breaker, Breaker::Closed);
        if !is_first || failures >= FAILURES || !matches!(failure, Failure::Timeout | Failure::Unreachable) {
            if is_first {
                warn!(reason = failure.name(), "redis cannot be used: nothing new is bought until it answers");
            }
            // Replicas do not come back all in the same moment.
            let jitter = self.jitter.fetch_add(0x9e37_79b9, Ordering::Relaxed) % JITTER_MILLIS;
            *breaker = Breaker::Open(Instant::now() + PAUSE + Duration::from_millis(jitter));
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shifted(clock: &Clock, offset: &AtomicI64) -> Time {
    let millis = i64::try_from(clock.now().as_millis()).unwrap_or(i64::MAX);
    let now = millis.saturating_add(offset.load(Ordering::Relaxed));
    Time::from_millis(u64::try_from(now).unwrap_or_default())
}

/// Whoever asks at an address, with a certificate authority of its own if there is one.
pub(super) fn client(url: &str, root: Option<Vec<u8>>) -> Result<Client, String> {
    let info = url.into_connection_info().map_err(|error| told(&error))?;
    // Messages come on the connection itself (RESP3).
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info: ConnectionInfo = info.set_redis_settings(settings);
    let client = match root {
        Some(root) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(root) };
            Client::build_with_tls(info, certificates)
        }
        None => Client::open(info),
    };
    client.map_err(|error| told(&error))
}

/// What is wrong, in words that hold nothing of the URL.
fn told(error: &RedisError) -> String {
    format!("not a usable redis URL ({})", error.category())
}

fn config(patience: Duration) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(patience.max(SLOWEST_GREETING)))
        // Ours is the deadline of each question.
        .set_response_timeout(Some(patience * LONG_PATIENCE))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(200))
}

/// A handshake may take longer than a question; nobody waits for it longer than for that.
const SLOWEST_GREETING: Duration = Duration::from_millis(500);
/// How much longer a step over much at once may take.
const LONG_PATIENCE: u32 = 20;
/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// How long it stays open before the next question.
const PAUSE: Duration = Duration::from_millis(500);
const JITTER_MILLIS: u64 = 250;
