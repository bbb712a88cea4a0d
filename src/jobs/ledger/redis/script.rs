//! What is asked of Redis in one step, and what it answers: the two sides of `commit.lua`.

use std::borrow::Cow;
use std::sync::Arc;

use redis::Script;
use serde::{Deserialize, Serialize};

use crate::admission::remote::RemoteToken;

/// The one script (M25), for the keys that begin with `prefix`: each prefix has a script of its own, because its absence
/// says that Redis was started anew (M26).
pub(super) fn commit(prefix: &str) -> Script {
    let prefix = hex::encode(prefix);
    Script::new(&format!("-- {prefix}\n{}", include_str!("commit.lua")))
}

/// One step. Keys are without the prefix.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Command {
    pub(super) prefix: String,
    /// The epoch that the caller lives in (M26).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<String>,
    /// Who calls, and the stamp of its last write that it was told of.
    pub(super) replica: String,
    pub(super) last: u64,
    /// Puts back what was forgotten, or looks where that goes.
    pub(super) restores: bool,
    /// Only looks: at the expected keys, and at the sets in `members`.
    pub(super) read: bool,
    pub(super) members: Vec<String>,
    /// One of each is taken first, and stays taken.
    pub(super) requests: Vec<Cell>,
    /// Or it is only looked whether it could be.
    pub(super) only_looks: bool,
    /// What the caller has seen.
    pub(super) expect: Vec<Seen>,
    /// A moment after which nothing is done (M2), in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<u64>,
    /// Whether this starts an attempt, and so asks generations and caps.
    pub(super) claim: bool,
    /// How long after an epoch's birth nothing is claimed, in milliseconds.
    pub(super) settle: u64,
    pub(super) most_entries: usize,
    pub(super) crowds: Vec<Crowd>,
    pub(super) generations: Vec<Cell>,
    pub(super) caps: Vec<Cap>,
    pub(super) back: Vec<RemoteToken>,
    pub(super) writes: Vec<Write>,
    pub(super) counts: Vec<Count>,
    pub(super) marks: Vec<Mark>,
    pub(super) joins: Vec<Join>,
    pub(super) names: Vec<Name>,
}

impl Command {
    /// Looks at nothing: only whether Redis still knows what this replica has written.
    pub(super) fn look() -> Self {
        Self { read: true, ..Self::default() }
    }

    /// Whether it would change nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.counts.is_empty() && self.back.is_empty() && self.requests.is_empty()
    }
}

/// A bucket of a limit, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cell {
    pub(super) key: String,
    pub(super) interval: u64,
    pub(super) window: u64,
}

/// The value of a key, as it was seen.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Seen {
    pub(super) key: String,
    pub(super) value: Option<String>,
}

/// An account that is there, or one of at most so many in its set.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Crowd {
    pub(super) key: String,
    pub(super) set: String,
    pub(super) most: usize,
}

/// The sum of some fields may not pass this.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cap {
    pub(super) key: String,
    pub(super) fields: Vec<&'static str>,
    pub(super) add: String,
    pub(super) most: String,
}

/// A key's new value, until then (in milliseconds); none: it goes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Write {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) expires: u64,
    /// The stamp that it had, if it is put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stamp: Option<String>,
}

/// A change of a counter.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Count {
    pub(super) key: String,
    pub(super) field: String,
    pub(super) by: String,
    pub(super) expires: Option<u64>,
    /// The set that an account is in, and as what: to be put back with it.
    #[serde(skip)]
    pub(super) listed: Option<Arc<(String, String)>>,
}

/// What an account's user is called.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Name {
    pub(super) key: String,
    pub(super) name: String,
}

/// A place in an index by time; none: it leaves.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mark {
    pub(super) key: Cow<'static, str>,
    pub(super) member: String,
    pub(super) score: Option<u64>,
}

/// A member of a set comes or leaves.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Join {
    pub(super) key: String,
    pub(super) member: String,
    pub(super) leaves: bool,
    pub(super) expires: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// It was done.
    Ok,
    /// Something is not as the caller has seen it.
    Changed,
    /// A limit refuses it.
    Limited,
    /// There is no room for an account.
    Crowded,
    /// A cap would be passed.
    Exhausted,
    /// It is too late for it.
    Late,
    /// As many entries stand as may.
    Full,
    /// The ledger has just begun anew.
    Wait,
    /// The ledger has forgotten.
    Epoch,
}

/// The answer.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    pub(super) status: Status,
    /// Redis' clock, in milliseconds.
    pub(super) now: u64,
    /// The same in microseconds, by which limits count.
    #[serde(default)]
    micros: Option<String>,
    #[serde(default)]
    pub(super) epoch: Option<String>,
    /// The present values of the expected keys.
    #[serde(default, deserialize_with = "pairs")]
    pub(super) values: Vec<(String, Option<String>)>,
    #[serde(default, deserialize_with = "lists")]
    pub(super) members: Vec<Vec<String>>,
    /// The stamps of the expected keys, where they are noted.
    #[serde(default, deserialize_with = "texts")]
    pub(super) stamps: Vec<String>,
    /// Whether stamps are noted.
    #[serde(default)]
    pub(super) stamped: bool,
    /// The stamp of what was written.
    #[serde(default)]
    pub(super) stamp: Option<String>,
    #[serde(default)]
    pub(super) requests: Vec<Level>,
    #[serde(default)]
    pub(super) generations: Vec<Level>,
    /// What the counters came to.
    #[serde(default, deserialize_with = "texts")]
    pub(super) sums: Vec<String>,
    /// Which account.
    #[serde(default)]
    pub(super) crowd: usize,
    /// Which cap.
    #[serde(default)]
    pub(super) cap: usize,
    /// Milliseconds to wait.
    #[serde(default)]
    pub(super) wait: u64,
}

impl Reply {
    /// Redis' clock, in microseconds.
    pub(super) fn micros(&self) -> u64 {
        let exact = self.micros.as_ref().and_then(|micros| micros.parse().ok());
        exact.unwrap_or_else(|| self.now.saturating_mul(1000))
    }

    /// The stamp of what was written, if anything was.
    pub(super) fn stamped_as(&self) -> Option<u64> {
        self.stamp.as_ref()?.parse().ok()
    }
}

/// How a bucket stands after it was asked.
#[derive(Debug, Deserialize)]
pub(super) struct Level {
    /// Until when it owes, in microseconds.
    pub(super) tat: String,
    pub(super) since: String,
    /// Whether it was this one that refused.
    pub(super) refused: bool,
}

fn texts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
}

fn pairs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Option<String>)>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let pair = |value: &serde_json::Value| {
        Some((value.get(0)?.as_str()?.to_owned(), value.get(1)?.as_str().map(str::to_owned)))
    };
    Ok(value.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(pair).collect())
}

/// Lua has one kind of table: an empty list comes back as an empty object.
fn lists<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<String>>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let list = |value: &serde_json::Value| {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    Ok(value.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(list).collect())
}
