//! What of the ledger is shown to people: pages of jobs and of entries, as plain data, so that every ledger can give them
//! and the command line can print them. No prompt and no secret is in them.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Time;
use crate::clock::calendar::rfc3339;
use crate::jobs::entry::AttemptId;
use crate::jobs::records::Life;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// Which jobs are asked for. Those that nobody knows to exist, because their outcome is unknown, are listed among them.
#[derive(Clone, Debug, Default)]
pub struct JobQuery {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this team.
    pub team: Option<String>,
    /// With this id, or begun by a request of this id.
    pub request_id: Option<String>,
    /// Older than this one.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// A state that jobs can be asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Its life has come so far.
    Life(Life),
    /// Its attempt had been replaced when its id came (M12).
    Orphan,
    /// Nobody knows whether it was made.
    Unknown,
}

impl JobState {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("running", Self::Life(Life::Running)),
        ("done", Self::Life(Life::Done)),
        ("failed", Self::Life(Life::Failed)),
        ("expired", Self::Life(Life::Expired)),
        ("moderated", Self::Life(Life::Moderated)),
        ("orphan", Self::Orphan),
        ("unknown", Self::Unknown),
    ];

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(each, _)| *each == name).map(|(_, state)| state)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, state)| *state == self).map_or("unknown", |(name, _)| name)
    }
}

/// A place in the list of jobs, newest first: behind the job of this time and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// When it was made.
    pub at: Time,
    /// Its id, or what names an unknown outcome.
    pub name: String,
}

impl Cursor {
    /// The cursor of its text.
    pub fn parse(text: &str) -> Option<Self> {
        let (millis, name) = text.split_once('.')?;
        RequestId::parse(name)?;
        Some(Self { at: Time::from_millis(millis.parse().ok()?), name: name.to_owned() })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_millis(), self.name)
    }
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page<L, C> {
    /// Its lines.
    pub lines: Vec<L>,
    /// Where the next one begins, if there may be one.
    pub next: Option<C>,
}

/// A job, or what may be one.
#[derive(Clone, Debug)]
pub struct JobLine {
    /// Its id, if one is known.
    pub job: Option<RequestId>,
    /// Its state.
    pub state: JobState,
    /// Whether its attempt had been replaced when its id came.
    pub orphan: bool,
    /// The team.
    pub team: Arc<str>,
    /// The fingerprint it was made under.
    pub fingerprint: Fingerprint,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The id of the upstream key that paid; not known where the outcome is not.
    pub key: Option<Arc<str>>,
    /// When it was made, or when its outcome became unknown.
    pub created: Time,
    /// When its end was seen.
    pub ended: Option<Time>,
    /// When a client polled it last, as far as this process knows.
    pub polled: Option<Time>,
    /// The id of the client's request that began it; empty where that is not known.
    pub asked_as: Arc<str>,
    /// The state of the entry that gives it out, if one does.
    pub entry: Option<&'static str>,
}

impl JobLine {
    /// Its place in the list.
    pub fn cursor(&self) -> Cursor {
        let name = self.job.as_ref().map_or_else(|| unknown_name(self.attempt, self.fingerprint), ToString::to_string);
        Cursor { at: self.created, name }
    }

    /// As `/admin/jobs` and `reelgate ledger jobs` tell it.
    pub fn to_json(&self) -> Value {
        json!({
            "request_id": self.job.as_ref().map(RequestId::as_str),
            "state": self.state.name(),
            "orphan": self.orphan,
            "team": self.team,
            "fingerprint": self.fingerprint.to_string(),
            "attempt": format!("{:?}", self.attempt),
            "upstream_key": self.key,
            "created": rfc3339(self.created),
            "ended": self.ended.map(rfc3339),
            "last_poll": self.polled.map(rfc3339),
            "client_request_id": known(&self.asked_as),
            "entry": self.entry,
        })
    }
}

/// The name by which an unknown outcome is placed in the list.
pub fn unknown_name(attempt: AttemptId, fingerprint: Fingerprint) -> String {
    format!("{attempt:?}{fingerprint}")
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default)]
pub struct EntryQuery {
    /// Whose fingerprint begins with these hex digits.
    pub prefix: String,
    /// In this state.
    pub state: Option<String>,
    /// Of this team.
    pub team: Option<String>,
    /// Behind this one.
    pub after: Option<Fingerprint>,
    /// At most so many.
    pub limit: usize,
}

/// An entry.
#[derive(Clone, Debug)]
pub struct EntryLine {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// What stands there, and what lies beneath it.
    pub layers: Vec<Layer>,
}

/// What one attempt has left under a fingerprint.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its state.
    pub state: &'static str,
    /// The team.
    pub team: Arc<str>,
    /// The attempt.
    pub attempt: AttemptId,
    /// The job it gives out.
    pub job: Option<RequestId>,
    /// When that was made.
    pub created: Option<Time>,
    /// When time ends it.
    pub until: Option<Time>,
    /// Whether nobody took its answer (M15).
    pub undelivered: bool,
    /// The id of the client's request that began it; empty where that is not known.
    pub asked_as: Arc<str>,
}

impl EntryLine {
    /// As `/admin/entries` and `reelgate ledger entries` tell it.
    pub fn to_json(&self) -> Value {
        let mut layers = self.layers.iter().map(Layer::to_json);
        let mut line = layers.next().unwrap_or_else(|| json!({}));
        let beneath: Vec<Value> = layers.collect();
        if let Some(line) = line.as_object_mut() {
            line.insert("fingerprint".to_owned(), self.fingerprint.to_string().into());
            if !beneath.is_empty() {
                line.insert("beneath".to_owned(), beneath.into());
            }
        }
        line
    }
}

impl Layer {
    fn to_json(&self) -> Value {
        json!({
            "state": self.state,
            "team": self.team,
            "attempt": format!("{:?}", self.attempt),
            "request_id": self.job.as_ref().map(RequestId::as_str),
            "created": self.created.map(rfc3339),
            "until": self.until.map(rfc3339),
            "undelivered": self.undelivered,
            "client_request_id": known(&self.asked_as),
        })
    }
}

/// What became of the wish to forget an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone, and this was its state.
    Gone(&'static str),
    /// An attempt is on its way there; it was left alone.
    InFlight(&'static str),
    /// There was none.
    Nothing,
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written_and_nothing_else_is_one() {
        let cursor = Cursor { at: Time::from_millis(17), name: "a_b-1".to_owned() };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        for text in ["", "17", ".a", "17.", "x.a", "17.a.b", "17.a/b", "-1.a"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
