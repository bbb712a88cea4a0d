//! The ledger of a configuration, opened: in memory, on disk or in Redis.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{StartError, secrets};
use crate::admission::rate::Limits;
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::rules;
use crate::jobs::book::{Book, Bounds};
use crate::jobs::ledger::Ledger;
use crate::jobs::ledger::disk::journal::File;
use crate::jobs::ledger::disk::store::{Store, StoreError};
use crate::jobs::ledger::disk::{self, folder};
use crate::jobs::ledger::local::LocalLedger;
use crate::jobs::ledger::observed::ObservedLedger;
use crate::jobs::ledger::redis::open::{self, Reached};
use crate::jobs::settings::{self, Kind};
use crate::request::fingerprint::{FingerprintKey, FingerprintKeys};
use crate::telemetry::labels::LedgerFailure;
use crate::telemetry::metrics::Metrics;

/// An opened ledger, before its limits are made.
pub(super) enum Opened {
    Memory,
    Disk(Box<(Store, Book)>),
    Redis(Box<Reached>),
}

/// Opens the ledger, and gives with it the fingerprints' keys (`MONEY.md` M9) and the clock that goes by it (M10). A file is
/// read on a thread of its own, so that the start can be given up meanwhile.
pub(super) async fn open(
    config: &Config,
    bounds: &Bounds,
    metrics: &Arc<Metrics>,
) -> Result<(Opened, FingerprintKeys, Clock), StartError> {
    let (own, former) = (secrets::fingerprint_key(config)?, secrets::former_key(config)?);
    match config.ledger.kind {
        Kind::Memory => {
            let current = own.map_or_else(random, Ok)?;
            Ok((Opened::Memory, FingerprintKeys { current, former }, Clock::system()))
        }
        Kind::Disk => {
            let (path, windows) = (config.ledger.path.clone(), bounds.windows);
            let opened = spawn_blocking(move || disk::open(&path, &windows, Clock::system())).await;
            let opened = opened.map_err(|_| StartError::Part("the ledger: reading it failed".to_owned()))?;
            let disk::Opened { mut store, book, fingerprints, clock } = opened.map_err(|error| unopened(&error))?;
            let (current, known) = match own {
                Some(own) if own != fingerprints => {
                    // In a new file nothing has its name by the key that was made with it.
                    let known = Some(fingerprints).filter(|_| !book.is_empty());
                    store.change_key(known.as_ref(), &own, clock.now()).map_err(|error| unopened(&error))?;
                    if known.is_some() {
                        warn!(
                            "the fingerprints' key has changed: for 48 h prompts are looked up by the former one too"
                        );
                    }
                    (own, known)
                }
                _ => (fingerprints, store.former_key(clock.now()).map_err(|error| unopened(&error))?),
            };
            let keys = FingerprintKeys { current, former: former.or(known) };
            Ok((Opened::Disk(Box::new((store, book))), keys, clock))
        }
        Kind::Redis => {
            let (clock, metrics) = (Clock::system(), metrics.clone());
            let on_failure = move |failure: open::Failure| {
                if let Some(label) = LedgerFailure::named(failure.name()) {
                    metrics.ledger_failures.inc(label);
                }
            };
            let reached = open::reach(&secrets::redis(config)?, own, former, clock.clone(), on_failure).await;
            let (reached, keys) = reached.map_err(StartError::Part)?;
            Ok((Opened::Redis(Box::new(reached)), keys, clock))
        }
    }
}

/// Whether the folder of a ledger on disk could be had by a start, as far as that is seen without making anything.
pub(super) fn look(ledger: &settings::Ledger) -> Result<(), String> {
    match ledger.kind {
        Kind::Disk => folder::look(&ledger.path).map_err(|error| format!("ledger.path: {error}")),
        Kind::Memory | Kind::Redis => Ok(()),
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
                let (store, book) = *opened;
                let ledger = LocalLedger::on_disk(File::from(store), book, limits, bounds, hot, clock);
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
    StartError::Part(error.with_advice())
}

fn random() -> Result<FingerprintKey, StartError> {
    FingerprintKey::random().map_err(|error| StartError::Part(error.to_owned()))
}
