//! What the ledger holds, for operators and support: jobs, entries and what was spent; and forgetting an entry.

use hyper::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::query::Query;
use super::refusal::Refusal;
use super::{JSON_TYPE, Shown, respond};
use crate::error::Error;
use crate::jobs::ledger::{Ledger, LedgerError};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, JobState, Page};
use crate::request::fingerprint::Fingerprint;

/// The pages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LedgerPage<'a> {
    /// Jobs and unknown outcomes.
    Jobs,
    /// Entries.
    Entries,
    /// The entry whose fingerprint begins so.
    Entry(&'a str),
    /// What was spent.
    Spend,
}

impl<'a> LedgerPage<'a> {
    /// The page of a path.
    pub(super) fn find(path: &'a str) -> Option<Self> {
        match path.strip_prefix("/admin/")? {
            "jobs" => Some(Self::Jobs),
            "entries" => Some(Self::Entries),
            "spend" => Some(Self::Spend),
            other => other.strip_prefix("entries/").filter(|rest| !rest.contains('/')).map(Self::Entry),
        }
    }

    /// What may be done with it.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Entry(_) => "GET, HEAD, DELETE",
            Self::Jobs | Self::Entries | Self::Spend => "GET, HEAD",
        }
    }

    /// Serves it.
    pub(super) async fn serve(
        &self,
        method: &Method,
        query: Option<&str>,
        ledger: &dyn Ledger,
    ) -> Result<Response<Shown>, Refusal> {
        let query = Query::parse(query)?;
        let body = match self {
            Self::Jobs => jobs(query, ledger).await?,
            Self::Entries => entries(query, ledger).await?,
            Self::Entry(prefix) if *method == Method::DELETE => forget(prefix, query, ledger).await?,
            Self::Entry(prefix) => {
                query.end("")?;
                find(prefix, ledger).await?.to_json()
            }
            Self::Spend => spend(query, ledger).await?,
        };
        Ok(respond(StatusCode::OK, JSON_TYPE, body.to_string().into()))
    }
}

async fn jobs(mut query: Query, ledger: &dyn Ledger) -> Result<Value, Refusal> {
    let asked = JobQuery {
        state: query.read("state", "running, done, failed, expired, moderated, orphan or unknown", JobState::named)?,
        team: query.take("team"),
        request_id: query.take("request_id"),
        after: query.read("after", "the `next` of the page before", Cursor::parse)?,
        limit: query.limit("limit", USUAL_LINES, MOST_LINES)?,
    };
    query.end("state, team, request_id, after and limit")?;
    let Page { lines, next } = ledger.jobs(&asked).await.map_err(unavailable)?;
    let lines: Vec<Value> = lines.iter().map(JobLine::to_json).collect();
    Ok(json!({"jobs": lines, "next": next.map(|next| next.to_string())}))
}

async fn entries(mut query: Query, ledger: &dyn Ledger) -> Result<Value, Refusal> {
    let known = |state: &str| ENTRY_STATES.contains(&state).then(|| state.to_owned());
    let asked = EntryQuery {
        prefix: String::new(),
        state: query.read("state", "claimed, sending, accepted, done, rejected or unknown", known)?,
        team: query.take("team"),
        after: query.read("after", "the `next` of the page before", Fingerprint::from_hex)?,
        limit: query.limit("limit", USUAL_LINES, MOST_LINES)?,
    };
    query.end("state, team, after and limit")?;
    let Page { lines, next } = ledger.entries(&asked).await.map_err(unavailable)?;
    let lines: Vec<Value> = lines.iter().map(EntryLine::to_json).collect();
    Ok(json!({"entries": lines, "next": next.map(|next| next.to_string())}))
}

/// The one entry whose fingerprint begins so.
async fn find(prefix: &str, ledger: &dyn Ledger) -> Result<EntryLine, Refusal> {
    let prefix = prefix.to_ascii_lowercase();
    let is_prefix =
        (SHORTEST_PREFIX..=64).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_prefix {
        return Err(Refusal::bad("fingerprint", "expected the first 12 to 64 hex digits of a fingerprint"));
    }
    let asked = EntryQuery { prefix, limit: 2, ..EntryQuery::default() };
    let mut lines = ledger.entries(&asked).await.map_err(unavailable)?.lines.into_iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line),
        (Some(_), Some(_)) => Err(Refusal::conflict("ambiguous", "several fingerprints begin so: give more digits")),
        (None, _) => Err(Refusal::missing("no entry has such a fingerprint: its prompt is free")),
    }
}

async fn forget(prefix: &str, mut query: Query, ledger: &dyn Ledger) -> Result<Value, Refusal> {
    let force = query.read("force", "true or false", |text| text.parse().ok())?.unwrap_or_default();
    query.end("force")?;
    let line = find(prefix, ledger).await?;
    let fingerprint = line.fingerprint;
    match ledger.forget(fingerprint, force).await.map_err(unavailable)? {
        Forgotten::Gone(state) => {
            if matches!(state, "claimed" | "sending") {
                warn!(%fingerprint, state, "an operator had an entry forgotten while its attempt was on its way");
            } else {
                info!(%fingerprint, state, "an operator had an entry forgotten");
            }
            Ok(json!({"forgotten": line.to_json()}))
        }
        Forgotten::InFlight(state) => Err(Refusal::conflict(
            "in_flight",
            format!(
                "an attempt is on its way here ({state}): wait for its outcome, or say force=true and risk that the \
                 prompt is bought twice"
            ),
        )),
        Forgotten::Nothing => Err(Refusal::missing("it has just ended by itself: its prompt is free")),
    }
}

async fn spend(mut query: Query, ledger: &dyn Ledger) -> Result<Value, Refusal> {
    let top = query.limit("top", USUAL_TOP, MOST_TOP)?;
    query.end("top")?;
    let statement = ledger.statement(top).await.map_err(unavailable)?;
    serde_json::to_value(statement).map_err(|_| Error::Internal.into())
}

fn unavailable(_: LedgerError) -> Refusal {
    Error::LedgerUnavailable.into()
}

/// Whether a page that is not ours asks: browsers say where from, and operators' tools do not.
pub(super) fn is_from_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(hyper::header::ORIGIN)
}

const ENTRY_STATES: [&str; 6] = ["claimed", "sending", "accepted", "done", "rejected", "unknown"];
/// Lines of a page.
const USUAL_LINES: usize = 100;
const MOST_LINES: usize = 1000;
/// Users of a statement.
const USUAL_TOP: usize = 20;
const MOST_TOP: usize = 10_000;
/// As many digits as logs show.
const SHORTEST_PREFIX: usize = 12;
