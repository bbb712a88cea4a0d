//! By which key the prompts of the ledger have their names: the environment's, or the one that stands in Redis. All who
//! share a ledger must agree on it, else each would buy what the other has; so Redis knows the id of the key in use, and
//! who comes with another begins only if it also knows that one, and then looks both names up (`MONEY.md` M9).

use redis::cmd;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::failure::Failure;
use super::link::Link;
use super::names::hex;
use super::open::{BETWEEN_TRIES, FIRST_PATIENCE};
use crate::clock::Time;
use crate::jobs::ledger::KEYS_OVERLAP;
use crate::request::fingerprint::{FingerprintKey, FingerprintKeys};

/// The keys to begin with, and the one that stands in Redis if that is in use.
pub(super) struct Agreed {
    pub(super) keys: FingerprintKeys,
    pub(super) stored: Option<String>,
}

/// Where the key is, under a prefix.
pub(super) const KEY: &str = "fingerprint-key";
/// The id of the key in use.
pub(super) const ID: &str = "fingerprint-key-id";
/// Since when the key that stands there is no longer in use, in milliseconds.
const REPLACED: &str = "fingerprint-key-replaced";

/// What who comes with a strange key is told.
const STRANGE: &str = "dedup.key_env: the prompts of the ledger in redis have their names by another key, and would be \
    bought again: name a variable with that key in dedup.former_key_env, and leave it there for 48 h";
/// What who comes without the key is told.
const MISSING: &str = "dedup.key_env is not set, and the prompts of the ledger in redis have their names by a key from \
    the environment, so they would be bought again: set it to the variable with that key";

/// The environment's key, checked against what Redis says, if it answers: what has begun without it must be able to do so
/// again.
pub(super) async fn of_environment(
    link: &Link,
    prefix: &str,
    own: FingerprintKey,
    former: Option<FingerprintKey>,
) -> Result<Agreed, String> {
    let mut look = cmd("MGET");
    look.arg(format!("{prefix}{KEY}")).arg(format!("{prefix}{ID}"));
    let (stored, id) = match link.query::<(Option<String>, Option<String>)>(&look).await {
        Ok(told) => told,
        Err(failure) => {
            warn!(
                reason = failure.name(),
                "redis does not answer yet: whether dedup.key_env holds the key of its prompts cannot be told"
            );
            return Ok(Agreed { keys: FingerprintKeys { current: own, former }, stored: None });
        }
    };
    let stored = stored.and_then(|hex| FingerprintKey::from_hex(&hex).ok()).filter(|stored| *stored != own);
    let others = [former.as_ref(), stored.as_ref()];
    if !knows(id.as_deref(), &own, others) {
        return Err(STRANGE.to_owned());
    }
    let overlaps = stored.is_some() && link.now().since(replaced(link, prefix).await?) < KEYS_OVERLAP;
    say(link, prefix, &own).await?;
    let former = former.or(stored.filter(|_| overlaps));
    if former.is_some() {
        warn!("prompts are looked up by the former fingerprints' key too");
    }
    Ok(Agreed { keys: FingerprintKeys { current: own, former }, stored: None })
}

/// The key that stands in Redis, or a new one.
pub(super) async fn of_redis(link: &Link, prefix: &str, former: Option<FingerprintKey>) -> Result<Agreed, String> {
    let mut new = [0; 32];
    aws_lc_rs::rand::fill(&mut new).map_err(|_| "the system gives no randomness")?;
    let new = hex(&new);
    let mut put = cmd("SET");
    put.arg(format!("{prefix}{KEY}")).arg(&new).arg("NX").arg("GET");
    let begun = Instant::now();
    let mut reason = Failure::Unreachable;
    let stored = loop {
        match link.query::<Option<String>>(&put).await {
            Ok(standing) => break standing.unwrap_or(new),
            Err(failure) if begun.elapsed() < FIRST_PATIENCE && reason != Failure::Denied => {
                // That nobody has even asked is no reason.
                if failure != Failure::Open {
                    reason = failure;
                    warn!(reason = reason.name(), "redis does not answer yet");
                }
                sleep(BETWEEN_TRIES).await;
            }
            Err(_) => {
                return Err(format!(
                    "ledger.redis_url_env: redis cannot be used ({}), and the fingerprints' key is there: \
                     start it, or set dedup.key_env to begin without it",
                    reason.name()
                ));
            }
        }
    };
    let current = FingerprintKey::from_hex(&stored).map_err(|error| format!("the key in redis: {error}"))?;
    let mut look = cmd("GET");
    let id = link.query::<Option<String>>(look.arg(format!("{prefix}{ID}"))).await.map_err(untold)?;
    if !knows(id.as_deref(), &current, [former.as_ref(), None]) {
        return Err(MISSING.to_owned());
    }
    say(link, prefix, &current).await?;
    Ok(Agreed { keys: FingerprintKeys { current, former }, stored: Some(stored) })
}

/// Whether the key in use, if its id is known, is one of these.
fn knows(id: Option<&str>, own: &FingerprintKey, others: [Option<&FingerprintKey>; 2]) -> bool {
    let all = [Some(own)].into_iter().chain(others).flatten();
    id.is_none_or(|id| all.map(FingerprintKey::id).any(|own| own == id))
}

/// This key is in use from now on.
async fn say(link: &Link, prefix: &str, own: &FingerprintKey) -> Result<(), String> {
    link.query::<()>(cmd("SET").arg(format!("{prefix}{ID}")).arg(own.id())).await.map_err(untold)
}

/// Since when the key that stands in Redis is not in use: since now, if nobody has said so.
async fn replaced(link: &Link, prefix: &str) -> Result<Time, String> {
    let now = link.now();
    let mut put = cmd("SET");
    put.arg(format!("{prefix}{REPLACED}")).arg(now.as_millis()).arg("NX").arg("GET");
    let since: Option<u64> = link.query(&put).await.map_err(untold)?;
    Ok(since.map_or(now, Time::from_millis))
}

fn untold(failure: Failure) -> String {
    format!("ledger.redis_url_env: redis cannot be used ({})", failure.name())
}
