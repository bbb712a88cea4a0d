//! Opening the ledger in Redis: the fingerprints' key is there before anything else, and what goes on beside the requests
//! is started (`MONEY.md` M9, M26).

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RedisLedger;
pub use super::failure::Failure;
use super::late::Pending;
use super::link::{self, Link};
use super::mirror::Mirror;
use super::names::hex;
use super::naming::{self, Agreed};
use super::news::Listeners;
use super::seal::Seal;
use super::shared::Shared;
use super::watch::BETWEEN_TELLINGS;
use crate::admission::rate::Limits;
use crate::bill::terms::Terms;
use crate::clock::Clock;
use crate::jobs::book::{Book, Bounds};
use crate::jobs::ledger::Lease;
use crate::jobs::ledger::hot::Hot;
use crate::request::fingerprint::{FingerprintKey, FingerprintKeys};

/// Where the ledger is, and how it is asked.
#[derive(Clone)]
pub struct Place {
    /// The URL; it may hold a password.
    pub url: String,
    /// A certificate authority, PEM; none: Mozilla's list.
    pub root: Option<Vec<u8>>,
    /// What all keys begin with.
    pub prefix: String,
    /// How long one question may take.
    pub timeout: Duration,
    /// Under which attempts may send.
    pub lease: Lease,
}

/// Whether a connection to this URL, with this authority, could be tried at all; nothing is asked.
///
/// # Errors
/// What is wrong, without the URL.
pub fn check(url: &str, root: Option<Vec<u8>>) -> Result<(), String> {
    link::client(url, root).map(drop)
}

/// A Redis that has been reached.
pub struct Reached {
    link: Link,
    lease: Lease,
    /// The fingerprints' key, if it stands there.
    key: Option<String>,
    /// What tells the key in use from others.
    key_id: String,
    seal: Seal,
}

/// Reaches a Redis, and agrees with it on the fingerprints' key: `own`, where the environment gives one; else the one that
/// stands there, or a new one. By `former` prompts are looked up too.
///
/// # Errors
/// What is wrong, without the URL; without a key of its own it cannot begin before Redis answers.
pub async fn reach(
    place: &Place,
    own: Option<FingerprintKey>,
    former: Option<FingerprintKey>,
    clock: Clock,
    on_failure: impl Fn(Failure) + Send + Sync + 'static,
) -> Result<(Reached, FingerprintKeys), String> {
    let Place { url, root, prefix, timeout, lease } = place;
    let link = Link::new(url, root.clone(), prefix, *timeout, clock, Box::new(on_failure))
        .map_err(|error| format!("ledger.redis_url_env: {error}"))?;
    let Agreed { keys, stored } = match own {
        Some(own) => naming::of_environment(&link, prefix, own, former).await?,
        None => naming::of_redis(&link, prefix, former).await?,
    };
    // What values are sealed with follows from the key, so that all replicas can read them.
    let seal_key = |key: &FingerprintKey| *key.of_bytes(&[b"ledger values"]).as_bytes();
    let seal = Seal::new(seal_key(&keys.current), keys.former.as_ref().map(seal_key));
    Ok((Reached { link, lease: *lease, key: stored, key_id: keys.current.id(), seal }, keys))
}

impl Reached {
    /// The ledger there, whose claims are admitted by `limits`. What goes on beside the requests runs on `runtime`.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn ledger(
        self,
        limits: Arc<Limits>,
        bounds: Bounds,
        hot_entries: u64,
        runtime: Handle,
    ) -> Result<RedisLedger, String> {
        let Self { link, lease, key, key_id, seal } = self;
        let mut replica = [0; 8];
        aws_lc_rs::rand::fill(&mut replica).map_err(|_| "the system gives no randomness")?;
        let most = u64::try_from(bounds.max_entries.saturating_mul(4)).unwrap_or(u64::MAX);
        let clock = link.clock();
        let mirror = Mirror::new(most, key, key_id, move || clock().as_millis());
        let shared = Arc::new(Shared {
            link,
            seal,
            limits,
            bounds: ArcSwap::from_pointee(bounds),
            terms: ArcSwap::from_pointee(Terms::default()),
            lease,
            hot: Hot::new(hot_entries),
            jobs: Cache::builder().max_capacity(hot_entries).eviction_policy(EvictionPolicy::lru()).build(),
            told_of_polls: Cache::builder().max_capacity(hot_entries).time_to_live(BETWEEN_TELLINGS).build(),
            mirror,
            pending: Pending::default(),
            underway: TaskTracker::new(),
            listeners: Listeners::default(),
            replica: hex(&replica),
            totals: Mutex::default(),
            ends: Mutex::default(),
            counts: ArcSwap::from_pointee(Book::default().counts()),
            sweeping: AtomicBool::new(false),
            estranged: AtomicBool::new(false),
            runtime: runtime.clone(),
        });
        let over = CancellationToken::new();
        let accompany = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let over = over.clone();
            runtime.spawn(async move { over.run_until_cancelled(task).await });
        };
        accompany(Box::pin(shared.clone().listen()));
        accompany(Box::pin(shared.clone().catch_up()));
        let examined = shared.clone();
        accompany(Box::pin(async move { examined.examine().await }));
        Ok(RedisLedger { shared, over })
    }
}

/// How long Redis may take to answer at the start.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_secs(5);
pub(super) const BETWEEN_TRIES: Duration = Duration::from_millis(250);
