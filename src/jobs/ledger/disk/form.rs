//! How entries, jobs and idempotency keys are written down, as JSON. No prompt, no image and no key of the upstream is in
//! it.

mod hex;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashSet;
use serde::{Deserialize, Serialize};

use self::hex::Hex;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Created, Entry, Rare, State};
use crate::jobs::keys::{Fate, KeyRecord};
use crate::jobs::owners::{Owner, Owners};
use crate::jobs::records::{Job, Life, Record};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// How long the upstream keeps a video.
const VIDEO_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The texts that a file says again and again, such as the names of teams.
#[derive(Debug, Default)]
pub struct Texts(HashSet<Arc<str>>);

impl Texts {
    fn share(&mut self, text: &mut Arc<str>) {
        match self.0.get(text) {
            Some(known) => *text = known.clone(),
            None => _ = self.0.insert(text.clone()),
        }
    }
}

/// An entry as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntryForm {
    attempt: Hex<16>,
    team: Arc<str>,
    state: StateForm,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    request_id: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wish: Option<(Hex<16>, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<(Hex<16>, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Hex<32>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    undelivered: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beneath: Option<Box<EntryForm>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateForm {
    Claimed,
    Sending,
    Accepted(CreatedForm),
    Done(CreatedForm, u64),
    Rejected(CreatedForm, u64),
    Unknown(u64),
}

#[derive(Debug, Serialize, Deserialize)]
struct CreatedForm {
    job: String,
    answer: String,
    at: u64,
    /// Files of the first version do not say it.
    #[serde(default = "nobody")]
    by: Hex<16>,
}

const fn nobody() -> Hex<16> {
    Hex([0; 16])
}

impl EntryForm {
    /// What of an entry is durable: a claim is not, so what it replaced stands for it (M7).
    pub fn of(entry: &Entry) -> Option<Self> {
        match &entry.state {
            State::Claimed => entry.beneath.as_deref().and_then(Self::of),
            _ => Some(Self { beneath: entry.beneath.as_deref().and_then(Self::of).map(Box::new), ..Self::top(entry) }),
        }
    }

    /// All of an entry, claims too: where replicas share a ledger, a claim is seen by the others.
    pub fn whole(entry: &Entry) -> Self {
        Self { beneath: entry.beneath.as_deref().map(Self::whole).map(Box::new), ..Self::top(entry) }
    }

    /// An entry without what lies beneath it.
    fn top(entry: &Entry) -> Self {
        let state = match &entry.state {
            State::Claimed => StateForm::Claimed,
            State::Sending => StateForm::Sending,
            State::Accepted(created) => StateForm::Accepted(CreatedForm::of(created)),
            State::Done(created, until) => StateForm::Done(CreatedForm::of(created), until.as_millis()),
            State::Rejected(created, until) => StateForm::Rejected(CreatedForm::of(created), until.as_millis()),
            State::Unknown(until) => StateForm::Unknown(until.as_millis()),
        };
        Self {
            attempt: Hex(entry.attempt.into_bytes()),
            team: entry.team.clone(),
            state,
            request_id: entry.request_id.clone(),
            wish: entry.rest.wish.map(|(caller, at)| (Hex(caller), at.as_millis())),
            refused: entry.rest.refused.iter().map(|(caller, at)| (Hex(*caller), at.as_millis())).collect(),
            base: entry.rest.base.map(|base| Hex(*base.as_bytes())),
            undelivered: entry.rest.undelivered,
            beneath: None,
            lease: entry.rest.lease.map(Time::as_millis),
        }
    }

    /// What many entries say is kept once.
    pub fn share(&mut self, texts: &mut Texts) {
        texts.share(&mut self.team);
    }

    /// The entry again.
    pub fn into_entry(self) -> Entry {
        let state = match self.state {
            StateForm::Claimed => State::Claimed,
            StateForm::Sending => State::Sending,
            StateForm::Accepted(form) => form.into_state(State::Accepted),
            StateForm::Done(form, until) => form.into_state(|created| State::Done(created, Time::from_millis(until))),
            StateForm::Rejected(form, until) => {
                form.into_state(|created| State::Rejected(created, Time::from_millis(until)))
            }
            StateForm::Unknown(until) => State::Unknown(Time::from_millis(until)),
        };
        let rare = Rare {
            wish: self.wish.map(|(caller, at)| (caller.0, Time::from_millis(at))),
            refused: self.refused.into_iter().map(|(caller, at)| (caller.0, Time::from_millis(at))).collect(),
            base: self.base.map(|base| Fingerprint::from_bytes(base.0)),
            undelivered: self.undelivered,
            lease: self.lease.map(Time::from_millis),
        };
        Entry {
            state,
            request_id: self.request_id,
            rest: rare.into(),
            beneath: self.beneath.map(|beneath| Box::new(beneath.into_entry())),
            ..Entry::claimed(AttemptId::from_bytes(self.attempt.0), self.team)
        }
    }
}

impl CreatedForm {
    fn of(created: &Created) -> Self {
        // Only an answer that was read as JSON makes a job, so its bytes are text.
        let answer = String::from_utf8_lossy(&created.answer).into_owned();
        Self { job: created.job.to_string(), answer, at: created.at.as_millis(), by: Hex(created.by) }
    }

    fn into_created(self) -> Option<Created> {
        let job = RequestId::parse(&self.job)?;
        Some(Created { job, answer: Bytes::from(self.answer), at: Time::from_millis(self.at), by: self.by.0 })
    }

    /// An id that has lost its form cannot be given out: its prompt is held instead, while its video may be there.
    fn into_state(self, state: impl FnOnce(Created) -> State) -> State {
        let held = State::Unknown(Time::from_millis(self.at) + VIDEO_LIFE);
        self.into_created().map_or(held, state)
    }
}

/// A job as it is written down; its id is the key.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobForm {
    job: String,
    attempt: Hex<16>,
    fingerprint: Hex<32>,
    team: Arc<str>,
    key: Arc<str>,
    created: u64,
    life: LifeForm,
    ended: Option<u64>,
    orphan: bool,
    /// The client's; files of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    request_id: Arc<str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forgotten: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owners: Vec<OwnerForm>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OwnerForm {
    team: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Hex<16>>,
}

impl From<Owner> for OwnerForm {
    fn from(owner: Owner) -> Self {
        Self { team: owner.team, user: owner.user.map(Hex) }
    }
}

impl From<OwnerForm> for Owner {
    fn from(form: OwnerForm) -> Self {
        Self { team: form.team, user: form.user.map(|user| user.0) }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LifeForm {
    Running,
    Done,
    Failed,
    Expired,
    Moderated,
}

impl JobForm {
    /// A record's form.
    pub fn of(record: &Record) -> Self {
        let job = &record.job;
        let life = match record.life {
            Life::Running => LifeForm::Running,
            Life::Done => LifeForm::Done,
            Life::Failed => LifeForm::Failed,
            Life::Expired => LifeForm::Expired,
            Life::Moderated => LifeForm::Moderated,
        };
        Self {
            job: job.id.to_string(),
            attempt: Hex(job.attempt.into_bytes()),
            fingerprint: Hex(*job.fingerprint.as_bytes()),
            team: job.team.clone(),
            key: job.key.clone(),
            created: job.created.as_millis(),
            life,
            ended: record.ended.map(Time::as_millis),
            orphan: record.orphan,
            request_id: job.request_id.clone(),
            forgotten: record.forgotten,
            owners: job.owners.all().into_iter().map(OwnerForm::from).collect(),
        }
    }

    /// What many records say is kept once.
    pub fn share(&mut self, texts: &mut Texts) {
        texts.share(&mut self.team);
        texts.share(&mut self.key);
    }

    /// The record again, if its id has the form of one.
    pub fn into_record(self) -> Option<Record> {
        let id = RequestId::parse(&self.job)?;
        let fingerprint = Fingerprint::from_bytes(self.fingerprint.0);
        let attempt = AttemptId::from_bytes(self.attempt.0);
        let life = match self.life {
            LifeForm::Running => Life::Running,
            LifeForm::Done => Life::Done,
            LifeForm::Failed => Life::Failed,
            LifeForm::Expired => Life::Expired,
            LifeForm::Moderated => Life::Moderated,
        };
        let created = Time::from_millis(self.created);
        let mut job = Job::new(id, attempt, fingerprint, self.team, self.key, created).asked_as(self.request_id);
        job.owners = Owners::of(self.owners.into_iter().map(Owner::from).collect());
        Some(Record {
            job: Arc::new(job),
            life,
            ended: self.ended.map(Time::from_millis),
            orphan: self.orphan,
            forgotten: self.forgotten,
        })
    }
}

/// An idempotency key as it is written down; its digest is the key.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyForm {
    body: Hex<32>,
    fingerprint: Hex<32>,
    attempt: Hex<16>,
    since: u64,
    fate: FateForm,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FateForm {
    InFlight,
    Created(CreatedForm),
    Unknown,
}

impl KeyForm {
    /// A record's form.
    pub fn of(record: &KeyRecord) -> Self {
        let fate = match &record.fate {
            Fate::InFlight => FateForm::InFlight,
            Fate::Created(created) => FateForm::Created(CreatedForm::of(created)),
            Fate::Unknown => FateForm::Unknown,
        };
        Self {
            body: Hex(*record.body.as_bytes()),
            fingerprint: Hex(*record.fingerprint.as_bytes()),
            attempt: Hex(record.attempt.into_bytes()),
            since: record.since.as_millis(),
            fate,
        }
    }

    /// The record again.
    pub fn into_record(self) -> KeyRecord {
        let fate = match self.fate {
            FateForm::InFlight => Fate::InFlight,
            FateForm::Created(form) => form.into_created().map_or(Fate::Unknown, Fate::Created),
            FateForm::Unknown => Fate::Unknown,
        };
        KeyRecord {
            body: Fingerprint::from_bytes(self.body.0),
            fingerprint: Fingerprint::from_bytes(self.fingerprint.0),
            attempt: AttemptId::from_bytes(self.attempt.0),
            fate,
            since: Time::from_millis(self.since),
        }
    }
}
