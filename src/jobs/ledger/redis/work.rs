//! One unit of work: the few records that a step touches are read into a small [`Book`], the step is the book's own, and
//! what it has changed is written if nothing has changed meanwhile. So there is one state machine for all ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::error;

use super::script::{Command, Count, Join, Mark, Name, Seen, Write};
use crate::bill::account::{AccountKey, Holder, Period, Sums};
use crate::bill::form::{self, TabForm};
use crate::bill::tab::{Open, Standing};
use crate::clock::Time;
use crate::jobs::book::{Ask, Book};
use crate::jobs::entry::{AttemptId, Entry, Lapsed, State, Windows};
use crate::jobs::keys::{Fate, KeyDigest};
use crate::jobs::ledger::disk::form::{Checked, EntryForm, JobForm, KeyForm};
use crate::jobs::ledger::disk::store::nobody;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// What a step touches.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) entries: BTreeSet<Fingerprint>,
    pub(super) keys: BTreeSet<KeyDigest>,
    pub(super) jobs: BTreeSet<RequestId>,
    pub(super) tabs: BTreeSet<AttemptId>,
    /// The bodies under which keyless twins are found (M15).
    pub(super) bases: BTreeSet<Fingerprint>,
    /// The attempt whose keys are touched too (M16).
    pub(super) keys_of: Option<AttemptId>,
}

impl Wanted {
    /// What a submission may find, by each of the fingerprints' keys.
    pub(super) fn asked(ask: &Ask) -> Self {
        Self {
            entries: ask.by_all_keys().map(|ask| ask.fingerprint).collect(),
            keys: ask.by_all_keys().filter_map(|ask| ask.key).collect(),
            bases: ask.by_all_keys().filter_map(|ask| ask.base).collect(),
            ..Self::default()
        }
    }

    /// An entry.
    pub(super) fn entry(fingerprint: Fingerprint) -> Self {
        Self { entries: [fingerprint].into(), ..Self::default() }
    }

    /// An entry, and all that hangs on its attempt.
    pub(super) fn attempt(fingerprint: Fingerprint, attempt: AttemptId) -> Self {
        Self { tabs: [attempt].into(), keys_of: Some(attempt), ..Self::entry(fingerprint) }
    }

    fn names(&self) -> Vec<String> {
        let entries = self.entries.iter().map(entry_key);
        let keys = self.keys.iter().map(key_key);
        let jobs = self.jobs.iter().map(job_key);
        entries.chain(keys).chain(jobs).chain(self.tabs.iter().map(tab_key)).collect()
    }
}

/// What was seen of the ledger: values by key; `None`, there is none.
pub(super) type Values = BTreeMap<String, Option<String>>;

/// A unit of work.
pub(super) struct Work {
    pub(super) wanted: Wanted,
    pub(super) values: Values,
    /// Whether the sets have been read.
    members: bool,
    pub(super) book: Book,
    lapsed: Lapsed,
}

/// What goes with the values.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Seals and opens values.
    pub(super) seal: &'a Seal,
    pub(super) windows: &'a Windows,
    pub(super) now: Time,
}

impl Work {
    /// A unit that expects nothing to be there.
    pub(super) fn hopeful(wanted: Wanted) -> Self {
        let values = wanted.names().into_iter().map(|name| (name, None)).collect();
        let members = wanted.bases.is_empty() && wanted.keys_of.is_none();
        Self { wanted, values, members, book: Book::default(), lapsed: Lapsed::default() }
    }

    /// A unit that has seen nothing yet.
    pub(super) fn new(wanted: Wanted) -> Self {
        let members = wanted.bases.is_empty() && wanted.keys_of.is_none();
        Self { wanted, values: Values::new(), members, book: Book::default(), lapsed: Lapsed::default() }
    }

    /// The question that is still to be asked, if any.
    pub(super) fn question(&self) -> Option<Command> {
        let unseen = self.wanted.names().into_iter().filter(|name| !self.values.contains_key(name));
        let expect: Vec<Seen> = unseen.map(|key| Seen { key, value: None }).collect();
        let sets = self.wanted.bases.iter().map(base_key).chain(self.wanted.keys_of.as_ref().map(keys_of_key));
        let members = if self.members { Vec::new() } else { sets.collect() };
        (!expect.is_empty() || !members.is_empty()).then(|| Command {
            read: true,
            expect,
            members,
            ..Command::default()
        })
    }

    /// Takes the answer to a question in. What is found may lead to further questions.
    pub(super) fn seen(
        &mut self,
        values: Vec<(String, Option<String>)>,
        members: &[Vec<String>],
        context: Context<'_>,
    ) {
        self.values.extend(values);
        if !self.members {
            self.members = true;
            let mut lists = members.iter();
            for _ in &self.wanted.bases {
                let twins = lists.next().into_iter().flatten().filter_map(|name| bytes(name));
                self.wanted.entries.extend(twins.map(Fingerprint::from_bytes));
            }
            if self.wanted.keys_of.is_some() {
                self.wanted.keys.extend(lists.next().into_iter().flatten().filter_map(|name| bytes(name)));
            }
        }
        self.read(context);
    }

    /// Reads what was seen into the book.
    fn read(&mut self, context: Context<'_>) {
        let Context { seal, windows, now } = context;
        self.book = Book::default();
        self.lapsed = Lapsed::default();
        for fingerprint in self.wanted.entries.clone() {
            let key = entry_key(&fingerprint);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            let entry = match seal.open::<EntryForm>(&key, text) {
                Checked::Sound(form) => form.into_entry(),
                Checked::Damaged => {
                    error!(%fingerprint, "an entry of the ledger is not as it was written: its prompt is held as unknown");
                    Entry { state: State::Unknown(now + windows.hold), ..Entry::claimed(nobody(), "".into()) }
                }
            };
            if let Some(entry) = entry.lapse(now, windows, &mut self.lapsed) {
                self.book.restore_entry(fingerprint, entry, windows);
            }
        }
        self.wanted.tabs.extend(self.lapsed.gone.iter().copied());
        self.wanted.tabs.extend(self.lapsed.doubtful.iter().map(|(attempt, _)| *attempt));
        for digest in self.wanted.keys.clone() {
            let key = key_key(&digest);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            if let Checked::Sound(form) = seal.open::<KeyForm>(&key, text) {
                let record = form.into_record();
                self.wanted.entries.insert(record.fingerprint);
                if let Fate::Created(created) = &record.fate {
                    self.wanted.jobs.insert(created.job.clone());
                }
                self.book.load_key(digest, record);
            }
        }
        for id in self.wanted.jobs.clone() {
            let key = job_key(&id);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            if let Checked::Sound(form) = seal.open::<JobForm>(&key, text)
                && let Some(record) = form.into_record()
            {
                self.book.restore_record(record);
            }
        }
        for attempt in self.wanted.tabs.clone() {
            let key = tab_key(&attempt);
            let Some(Some(text)) = self.values.get(&key) else { continue };
            if let Checked::Sound(form) = seal.open::<TabForm>(&key, text) {
                self.book.tab_mut().load(attempt, form.into_open());
            }
        }
        // What a lapsed claim had reserved is given back by whoever finds it; what was being sent is at risk.
        let Lapsed { gone, doubtful } = std::mem::take(&mut self.lapsed);
        gone.into_iter().for_each(|attempt| self.book.tab_mut().release(attempt));
        doubtful.into_iter().for_each(|(attempt, until)| self.book.tab_mut().doubt(attempt, until));
    }

    /// Begins again over what has changed meanwhile.
    pub(super) fn again(&mut self, values: Vec<(String, Option<String>)>, context: Context<'_>) {
        self.values.extend(values);
        self.read(context);
    }

    /// What is to be written, over what was seen.
    pub(super) fn command(&self, context: Context<'_>) -> Command {
        let mut command = Command::default();
        let seen = |key: &String| self.values.get(key).cloned().flatten();
        command.expect =
            self.values.iter().map(|(key, value)| Seen { key: key.clone(), value: value.clone() }).collect();
        for fingerprint in &self.wanted.entries {
            self.write_entry(fingerprint, context, &mut command);
        }
        for digest in &self.wanted.keys {
            let key = key_key(digest);
            let record = self.book.key(digest);
            // A key that merely hit is not kept (M16).
            let merely_hit =
                record.is_some_and(|record| matches!(record.fate, Fate::Created(_))) && seen(&key).is_none();
            let value = record.filter(|_| !merely_hit).and_then(|record| context.seal.seal(&key, &KeyForm::of(record)));
            if value != seen(&key) {
                let since = record.map_or(context.now, |record| record.since);
                if let Some(record) = record {
                    let expires = (since + KEY_KEPT).as_millis();
                    let member = hex(digest);
                    command.joins.push(Join { key: keys_of_key(&record.attempt), member, leaves: false, expires });
                }
                command.writes.push(Write { key, value, expires: (since + KEY_KEPT).as_millis() });
            }
        }
        for id in &self.wanted.jobs {
            let key = job_key(id);
            let record = self.book.record(id);
            let value = record.and_then(|record| context.seal.seal(&key, &JobForm::of(record)));
            if value != seen(&key) && value.is_some() {
                let created = record.map_or(context.now, |record| record.job.created);
                let running = record.filter(|record| record.ended.is_none()).map(|_| context.now.as_millis());
                command.marks.push(Mark { key: "jobs", member: id.to_string(), score: Some(created.as_millis()) });
                command.marks.push(Mark { key: "running", member: id.to_string(), score: running });
                command.writes.push(Write { key, value, expires: (created + JOB_KEPT).as_millis() });
            }
        }
        for attempt in &self.wanted.tabs {
            let key = tab_key(attempt);
            let open = self.book.tab().open(attempt);
            let value = open.and_then(|open| context.seal.seal(&key, &TabForm::of(open)));
            if value != seen(&key) {
                let due = open.and_then(|open| open.due()).map(Time::as_millis);
                command.marks.push(Mark { key: "tabs", member: hex(&attempt.into_bytes()), score: due });
                command.writes.push(Write { key, value, expires: (context.now + JOB_KEPT + A_DAY).as_millis() });
            }
        }
        self.post(context.seal, context.now, &mut command);
        command
    }

    fn write_entry(&self, fingerprint: &Fingerprint, context: Context<'_>, command: &mut Command) {
        let Context { seal, windows, now } = context;
        let key = entry_key(fingerprint);
        let before = self.values.get(&key).cloned().flatten();
        let entry = self.book.entry(fingerprint);
        let value = entry.and_then(|entry| seal.seal(&key, &EntryForm::whole(entry)));
        if value == before {
            return;
        }
        let old = before.as_deref().and_then(|text| match seal.open::<EntryForm>(&key, text) {
            Checked::Sound(form) => Some(form.into_entry()),
            Checked::Damaged => None,
        });
        let was = old.as_ref().map(|old| old.state.name());
        let is = entry.map(|entry| entry.state.name());
        if was != is {
            let change = |state: &str, by: &str| Count {
                key: "states".to_owned(),
                field: state.to_owned(),
                by: by.to_owned(),
                expires: None,
            };
            command.counts.extend(was.map(|state| change(state, "-1")));
            command.counts.extend(is.map(|state| change(state, "1")));
        }
        let due = entry.map(|entry| {
            let leased = entry.rest.lease.filter(|_| matches!(entry.state, State::Claimed | State::Sending));
            leased.or_else(|| entry.due(windows)).unwrap_or(now)
        });
        let member = hex(fingerprint.as_bytes());
        let done = entry.filter(|entry| matches!(entry.state, State::Done(..))).and(due);
        command.marks.push(Mark { key: "due", member: member.clone(), score: due.map(Time::as_millis) });
        command.marks.push(Mark { key: "done", member: member.clone(), score: done.map(Time::as_millis) });
        // In order of their names, so that one is found by its first digits.
        command.marks.push(Mark { key: "names", member: member.clone(), score: entry.map(|_| 0) });
        let unknown = unknowns(fingerprint, entry);
        let over = unknowns(fingerprint, old.as_ref()).into_iter().filter(|old| !unknown.contains(old));
        let marks = over.map(|(member, _)| (member, None));
        let marks = marks.chain(unknown.iter().map(|(member, until)| (member.clone(), Some(*until))));
        command.marks.extend(marks.map(|(member, score)| Mark { key: "unknown", member, score }));
        let expires = (due.unwrap_or(now).max(now) + windows.hold + windows.hold + A_DAY).as_millis();
        // Where only keys share, an equal keyless body finds it while it is held or undelivered.
        if let Some(base) = entry.and_then(|entry| entry.rest.base) {
            let leaves = entry.is_none_or(|entry| entry.found_by_body().is_none());
            command.joins.push(Join { key: base_key(&base), member, leaves, expires });
        }
        command.writes.push(Write { key, value, expires });
    }

    /// What the step has posted to accounts, and the jobs it started or ended.
    fn post(&self, seal: &Seal, now: Time, command: &mut Command) {
        for (account, sums) in self.book.tab().posted() {
            let Sums { spent, reserved, spent_millis, reserved_millis, jobs, lost } = *sums;
            let fields = [
                ("spent", spent),
                ("reserved", reserved),
                ("spent_millis", spent_millis),
                ("reserved_millis", reserved_millis),
                ("jobs", jobs),
                ("lost", lost),
            ];
            let until = account.period.next().next().begins().as_millis();
            let expires = Some(until);
            for (field, by) in fields.into_iter().filter(|(_, by)| *by != 0) {
                let (key, field) = (account_key(account), field.to_owned());
                command.counts.push(Count { key, field, by: by.to_string(), expires });
            }
            if matches!(account.holder, Holder::Token(_)) {
                // No statement lists it.
                continue;
            }
            let key = accounts_key(account.period);
            let (member, expires) = (hex(&form::account_key(account)), until);
            command.joins.push(Join { key, member, leaves: false, expires });
            if let Some(name) = self.book.tab().name_of(&account.holder) {
                command.names.push(Name { key: account_key(account), name: name.to_string() });
            }
        }
        for (holder, jobs) in self.book.tab().started().filter(|(_, jobs)| *jobs != 0) {
            let (key, by) = (holder_key(holder), jobs.to_string());
            // No job runs longer than its record is kept.
            let expires = Some((now + JOB_KEPT + A_DAY + A_DAY).as_millis());
            command.counts.push(Count { key, field: "running".to_owned(), by, expires });
        }
        for attempt in &self.wanted.tabs {
            let key = tab_key(attempt);
            let before = self.values.get(&key).and_then(Option::as_deref).and_then(|text| {
                match seal.open::<TabForm>(&key, text) {
                    Checked::Sound(form) => Some(form.into_open()),
                    Checked::Damaged => None,
                }
            });
            let after = self.book.tab().open(attempt);
            let team = after.or(before.as_ref()).map(|open| open.charge.team.clone());
            let change = risk(after) - risk(before.as_ref());
            if let Some(team) = team.filter(|_| change != 0) {
                let (field, by) = (team.to_string(), change.to_string());
                command.counts.push(Count { key: "risk".to_owned(), field, by, expires: None });
            }
        }
    }
}

/// The ticks that a tab has at risk.
fn risk(open: Option<&Open>) -> i64 {
    open.filter(|open| matches!(open.standing, Standing::AtRisk(_)))
        .map_or(0, |open| i64::try_from(open.charge.price.amount().ticks()).unwrap_or(i64::MAX))
}

/// Seals values with a keyed checksum: what others write into the same Redis is told from what we wrote (F-56).
pub(super) struct Seal {
    key: [u8; 32],
    /// By which others may have sealed (M9).
    former: Option<[u8; 32]>,
}

impl Seal {
    /// Under a key; what was sealed under the one before it is read too.
    pub(super) const fn new(key: [u8; 32], former: Option<[u8; 32]>) -> Self {
        Self { key, former }
    }

    /// A value as text.
    pub(super) fn seal(&self, key: &str, value: &impl serde::Serialize) -> Option<String> {
        let json = serde_json::to_string(value).ok()?;
        Some(format!("{VERSION}{}{json}", sum(&self.key, key, &json)))
    }

    /// The value of a text.
    pub(super) fn open<T: serde::de::DeserializeOwned>(&self, key: &str, text: &str) -> Checked<T> {
        let json = text.strip_prefix(VERSION).and_then(|rest| rest.split_at_checked(SUM));
        let sealed = |(told, json): &(&str, &str)| {
            [Some(&self.key), self.former.as_ref()].into_iter().flatten().any(|own| *told == sum(own, key, json))
        };
        let sound = json.filter(sealed);
        sound.and_then(|(_, json)| serde_json::from_str(json).ok()).map_or(Checked::Damaged, Checked::Sound)
    }
}

fn sum(own: &[u8; 32], key: &str, json: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(own);
    hasher.update(&key.len().to_le_bytes()).update(key.as_bytes()).update(json.as_bytes());
    let mut sum = [0; SUM / 2];
    hasher.finalize_xof().fill(&mut sum);
    hex(&sum)
}

/// The version of what is written.
const VERSION: &str = "1 ";
/// The digits of a checksum.
const SUM: usize = 32;

/// The unknown outcomes of an entry and of those beneath it, as the index has them: each attempt by the end of its hold.
pub(super) fn unknowns(fingerprint: &Fingerprint, entry: Option<&Entry>) -> Vec<(String, u64)> {
    let layers = std::iter::successors(entry, |entry| entry.beneath.as_deref());
    let unknown = layers.filter_map(|entry| match entry.state {
        State::Unknown(until) => Some((unknown_member(fingerprint, &entry.attempt), until.as_millis())),
        _ => None,
    });
    unknown.collect()
}

fn unknown_member(fingerprint: &Fingerprint, attempt: &AttemptId) -> String {
    format!("{}.{}", hex(fingerprint.as_bytes()), hex(&attempt.into_bytes()))
}

/// The fingerprint of a member of that index.
pub(super) fn of_unknown(member: &str) -> Option<Fingerprint> {
    bytes(member.split('.').next()?).map(Fingerprint::from_bytes)
}

pub(super) fn entry_key(fingerprint: &Fingerprint) -> String {
    format!("e:{}", hex(fingerprint.as_bytes()))
}

fn key_key(digest: &KeyDigest) -> String {
    format!("k:{}", hex(digest))
}

pub(super) fn job_key(id: &RequestId) -> String {
    format!("j:{}", id.as_str())
}

pub(super) fn tab_key(attempt: &AttemptId) -> String {
    format!("t:{}", hex(&attempt.into_bytes()))
}

fn base_key(base: &Fingerprint) -> String {
    format!("b:{}", hex(base.as_bytes()))
}

pub(super) fn keys_of_key(attempt: &AttemptId) -> String {
    format!("ak:{}", hex(&attempt.into_bytes()))
}

pub(super) fn account_key(account: &AccountKey) -> String {
    format!("a:{}:{}", account.period, holder_name(&account.holder))
}

/// The set of all accounts of a period.
pub(super) fn accounts_key(period: Period) -> String {
    format!("as:{period}")
}

pub(super) fn holder_key(holder: &Holder) -> String {
    format!("h:{}", holder_name(holder))
}

fn holder_name(holder: &Holder) -> String {
    match holder {
        Holder::Total => "total".to_owned(),
        Holder::Team(team) => format!("team:{team}"),
        Holder::User(team, user) => format!("user:{}:{team}", hex(user)),
        Holder::Token(id) => format!("token:{}", hex(id)),
    }
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// The bytes of hex digits, if there are exactly so many.
pub(super) fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an idempotency key is kept.
const KEY_KEPT: Duration = A_DAY;
/// How long a job's record is kept.
const JOB_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
