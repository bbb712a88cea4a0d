//! The ledger of a configuration, opened: in memory, on disk or in Redis.

use std::fs;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::StartError;
use crate::admission::rate::Limits;
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::rules;
use crate::jobs::book::Bounds;
use crate::jobs::ledger::disk;
use crate::jobs::ledger::disk::journal::File;
use crate::jobs::ledger::disk::store::StoreError;
use crate::jobs::ledger::local::LocalLedger;
use crate::jobs::ledger::observed::ObservedLedger;
use crate::jobs::ledger::redis::open::{self, Place, Reached};
use crate::jobs::ledger::{Lease, Ledger};
use crate::jobs::settings::Kind;
use crate::request::fingerprint::FingerprintKey;
use crate::telemetry::labels::LedgerFailure;
use crate::telemetry::metrics::Metrics;

/// An opened ledger, before its limits are made.
pub(super) enum Opened {
    Memory,
    Disk(Box<disk::Opened>),
    Redis(Box<Reached>),
}

/// Opens the ledger, and gives with it the fingerprints' key (`MONEY.md` M9) and the clock that goes by it (M10).
pub(super) async fn open(
    config: &Config,
    bounds: &Bounds,
    metrics: &Arc<Metrics>,
) -> Result<(Opened, FingerprintKey, Clock), StartError> {
    let variable = &config.dedup.key_env;
    let own = if variable.is_empty() { None } else { Some(key_of(variable)?) };
    match config.ledger.kind {
        Kind::Memory => {
            let key = own.map_or_else(random, Ok)?;
            Ok((Opened::Memory, key, Clock::system()))
        }
        Kind::Disk => {
            let opened = disk::open(&config.ledger.path, &bounds.windows, Clock::system());
            let mut opened = opened.map_err(|error| unopened(&error))?;
            let clock = opened.clock.clone();
            let key = match own {
                Some(own) => own,
                None => std::mem::replace(&mut opened.fingerprints, random()?),
            };
            Ok((Opened::Disk(Box::new(opened)), key, clock))
        }
        Kind::Redis => {
            let clock = Clock::system();
            let (own_again, metrics) =
                (if variable.is_empty() { None } else { Some(key_of(variable)?) }, metrics.clone());
            let on_failure = move |failure: open::Failure| {
                if let Some(label) = LedgerFailure::named(failure.name()) {
                    metrics.ledger_failures.inc(label);
                }
            };
            let reached =
                open::reach(&place(config)?, own, clock.clone(), on_failure).await.map_err(StartError::Part)?;
            let key = match own_again {
                Some(own) => own,
                None => reached.key().map_err(|error| StartError::Part(error.to_string()))?,
            };
            Ok((Opened::Redis(Box::new(reached)), key, clock))
        }
    }
}

impl Opened {
    /// The ledger, whose claims are admitted by `limits`. What it needs beside goes on in the current runtime.
    pub(super) fn ledger(
        self,
        config: &Config,
        bounds: Bounds,
        limits: &Arc<Limits>,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<dyn Ledger>, StartError> {
        let (limits, hot, metrics) = (limits.clone(), config.dedup.hot_entries, metrics.clone());
        let ledger: Arc<dyn Ledger> = match self {
            Self::Memory => Arc::new(ObservedLedger::new(LocalLedger::in_memory(limits, bounds, hot, clock), metrics)),
            Self::Disk(opened) => {
                let file = File::from(opened.store);
                let ledger = LocalLedger::on_disk(file, opened.book, limits, bounds, hot, clock);
                Arc::new(ObservedLedger::new(ledger.map_err(|error| StartError::Part(error.to_string()))?, metrics))
            }
            Self::Redis(reached) => {
                let ledger = reached
                    .ledger(limits, bounds, hot, Handle::current())
                    .map_err(|error| StartError::Part(error.to_string()))?;
                Arc::new(ObservedLedger::new(ledger, metrics))
            }
        };
        ledger.reload(bounds, rules::bill(config));
        Ok(ledger)
    }
}

/// Why the file could not be opened, and what helps against it.
fn unopened(error: &StoreError) -> StartError {
    let advice = match error {
        StoreError::Unreadable(path, _) => {
            let folder = path.parent().unwrap_or(path);
            format!(": `reelgate ledger recover --offline {}` copies what can be read of it", folder.display())
        }
        StoreError::InUse(_) | StoreError::Io(..) | StoreError::Format { .. } | StoreError::Write(_) => String::new(),
    };
    StartError::Part(format!("{error}{advice}"))
}

fn random() -> Result<FingerprintKey, StartError> {
    FingerprintKey::random().map_err(|error| StartError::Part(error.to_owned()))
}

/// What is wrong here stays wrong until somebody changes it.
fn place(config: &Config) -> Result<Place, StartError> {
    let ledger = &config.ledger;
    let url = std::env::var(&ledger.redis_url_env)
        .map_err(|_| format!("ledger.redis_url_env: {} is not set, or not text", ledger.redis_url_env))
        .map_err(StartError::Faulty)?;
    let read = |path| fs::read(path).map_err(|error| StartError::Faulty(format!("ledger.redis_roots: {error}")));
    Ok(Place {
        url,
        root: ledger.redis_roots.as_ref().map(read).transpose()?,
        prefix: ledger.prefix.clone(),
        timeout: ledger.timeout,
        lease: Lease { length: ledger.lease_within(config.dedup.unknown_hold), send_by: ledger.send_by },
    })
}

fn key_of(variable: &str) -> Result<FingerprintKey, StartError> {
    let text = std::env::var(variable)
        .map_err(|_| StartError::Faulty("dedup.key_env: the variable it names is not set, or not text".to_owned()))?;
    FingerprintKey::from_hex(&text).map_err(|error| StartError::Faulty(format!("dedup.key_env: {error}")))
}
