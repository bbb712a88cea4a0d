//! `reelgate ledger`: finds the job of a client who lost its answer, shows and forgets entries, exports everything, and
//! copies what can be read of a damaged file. It asks a running gateway, or opens the file where none runs.

mod offline;
mod recover;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin::{AdminArguments, AdminClient, encoded, printable};
use super::table::{Output, Table};
use super::{Failure, faulty};
use crate::jobs::list::{JobQuery, JobState};
use offline::Offline;

/// What is done with the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum LedgerAction {
    /// Jobs, and outcomes that nobody knows, newest first
    Jobs {
        #[command(flatten)]
        place: Place,
        /// Only running, done, failed, expired, moderated, orphan or unknown ones
        #[arg(long, value_parser = state)]
        state: Option<JobState>,
        /// Only those of a team
        #[arg(long)]
        team: Option<String>,
        /// Only the job with this id, or those begun by requests with this X-Request-Id
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
        /// JSON lines instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Entries: what identical prompts would get
    Entries {
        #[command(flatten)]
        place: Place,
        /// Only the one whose fingerprint begins with these 12 to 64 hex digits
        #[arg(value_name = "FINGERPRINT")]
        prefix: Option<String>,
        /// JSON lines instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Forgets an entry: the next identical prompt makes, and pays, a new job
    Forget {
        #[command(flatten)]
        place: Place,
        /// The first 12 to 64 hex digits of its fingerprint
        #[arg(value_name = "FINGERPRINT")]
        prefix: String,
        /// Also while an attempt is on its way, though the prompt may then be paid twice
        #[arg(long)]
        force: bool,
    },
    /// Everything, as JSON lines
    Export {
        #[command(flatten)]
        place: Place,
    },
    /// Copies all readable records of a damaged ledger into a new one
    Recover {
        /// The folder of the damaged ledger (ledger.path)
        #[arg(long, value_name = "PATH")]
        offline: PathBuf,
        /// The folder of the new one; else PATH.recovered
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
    },
}

/// Where the ledger is.
#[derive(Args, Debug)]
pub(super) struct Place {
    #[command(flatten)]
    admin: AdminArguments,
    /// The folder of a ledger on disk (ledger.path) that no gateway uses now, instead of asking one
    #[arg(long, value_name = "PATH")]
    offline: Option<PathBuf>,
    /// The configuration of that gateway, of which only the section dedup is read: by its windows are UNTIL of what was
    /// accepted and CREATED of what is unknown. Without it the defaults stand; REELGATE_DEDUP__… overrides both
    #[arg(long, value_name = "FILE", requires = "offline")]
    config: Option<PathBuf>,
}

pub(super) fn run(action: LedgerAction) -> Result<(), Failure> {
    match action {
        LedgerAction::Jobs { place, state, team, request_id, json } => {
            let query = JobQuery { state, team, request_id, ..JobQuery::default() };
            let ledger = Ledger::open(&place)?;
            show(&JOBS, json, |after| ledger.jobs(&query, after))
        }
        LedgerAction::Entries { place, prefix: None, json } => {
            let ledger = Ledger::open(&place)?;
            show(&ENTRIES, json, |after| ledger.entries(after))
        }
        LedgerAction::Entries { place, prefix: Some(prefix), json } => {
            let entry = Ledger::open(&place)?.entry(&hex(&prefix)?)?;
            show(&ENTRIES, json, |_| Ok((vec![entry.clone()], None)))
        }
        LedgerAction::Forget { place, prefix, force } => forget(&place, &hex(&prefix)?, force),
        LedgerAction::Export { place } => export(&place),
        LedgerAction::Recover { offline, to } => recover::run(&offline, to),
    }
}

/// Lines, and where the next ones begin.
type Lines = (Vec<Value>, Option<String>);

/// A ledger, wherever it is.
pub(super) enum Ledger {
    Online(AdminClient),
    Offline(Box<Offline>),
}

impl Ledger {
    /// Finds the gateway's admin listener, or opens the file.
    pub(super) fn open(place: &Place) -> Result<Self, Failure> {
        Ok(match &place.offline {
            None => Self::Online(AdminClient::new(&place.admin)?),
            Some(path) => Self::Offline(Box::new(Offline::open(path, place.config.as_deref())?)),
        })
    }

    fn jobs(&self, query: &JobQuery, after: Option<&str>) -> Result<Lines, Failure> {
        let admin = match self {
            Self::Online(admin) => admin,
            Self::Offline(offline) => return Ok((offline.jobs(query), None)),
        };
        let mut path = format!("/admin/jobs?limit={PAGE}");
        let state = query.state.map(|state| state.name().to_owned());
        for (name, value) in [
            ("state", state.as_ref()),
            ("team", query.team.as_ref()),
            ("request_id", query.request_id.as_ref()),
            ("after", after.map(str::to_owned).as_ref()),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        Ok(lines(&admin.get(&path)?, "jobs"))
    }

    fn entries(&self, after: Option<&str>) -> Result<Lines, Failure> {
        match self {
            Self::Online(admin) => {
                let after = after.map(|after| format!("&after={}", encoded(after))).unwrap_or_default();
                Ok(lines(&admin.get(&format!("/admin/entries?limit={PAGE}{after}"))?, "entries"))
            }
            Self::Offline(offline) => Ok((offline.entries(), None)),
        }
    }

    fn entry(&self, prefix: &str) -> Result<Value, Failure> {
        match self {
            Self::Online(admin) => admin.get(&format!("/admin/entries/{prefix}")),
            Self::Offline(offline) => Ok(offline.entry(prefix)?.to_json()),
        }
    }

    /// What was spent this day and this month, with the `top` users who spent most.
    pub(super) fn spend(&self, top: u16) -> Result<Value, Failure> {
        match self {
            Self::Online(admin) => admin.get(&format!("/admin/spend?top={top}")),
            Self::Offline(offline) => Ok(offline.spend(top.into())),
        }
    }
}

fn lines(page: &Value, name: &str) -> Lines {
    let lines = page.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    (lines, page.get("next").and_then(Value::as_str).map(str::to_owned))
}

/// Shows all pages, as a table or as JSON lines.
fn show(
    columns: &[Column],
    as_json: bool,
    page: impl Fn(Option<&str>) -> Result<Lines, Failure>,
) -> Result<(), Failure> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let (mut table, header) = Table::new(&names);
    let (mut output, mut after, mut header) = (Output::new(), None, Some(header));
    loop {
        let (lines, next) = page(after.as_deref())?;
        let texts = if as_json {
            lines.iter().map(Value::to_string).collect()
        } else {
            let row = |line: &Value| columns.iter().map(|(_, cell)| printable(&cell(line))).collect();
            let rows: Vec<Vec<String>> = header.take().into_iter().chain(lines.iter().map(row)).collect();
            table.lines(&rows)
        };
        for text in texts {
            if !output.line(&text)? {
                return Ok(());
            }
        }
        match next {
            None => return output.end(),
            next => after = next,
        }
    }
}

fn forget(place: &Place, prefix: &str, force: bool) -> Result<(), Failure> {
    let forgotten = match Ledger::open(place)? {
        Ledger::Online(admin) => {
            let answer = admin.delete(&format!("/admin/entries/{prefix}?force={force}"))?;
            answer.get("forgotten").cloned().unwrap_or_default()
        }
        Ledger::Offline(offline) => offline.forget(prefix)?,
    };
    let (fingerprint, state) = (text(&forgotten, "fingerprint"), text(&forgotten, "state"));
    super::print(&format!("{fingerprint}: forgotten, it was {state}; the next identical prompt makes a new job"));
    Ok(())
}

/// Everything, one kind after the other.
fn export(place: &Place) -> Result<(), Failure> {
    let ledger = Ledger::open(place)?;
    let mut output = Output::new();
    let query = JobQuery::default();
    for kind in ["job", "entry", "spend"] {
        let mut after = None;
        loop {
            let (lines, next) = match kind {
                "job" => ledger.jobs(&query, after.as_deref())?,
                "entry" => ledger.entries(after.as_deref())?,
                _ => (vec![ledger.spend(MOST_USERS)?], None),
            };
            for mut line in lines {
                if let Some(line) = line.as_object_mut() {
                    line.insert("kind".to_owned(), json!(kind));
                }
                if !output.line(&line.to_string())? {
                    return Ok(());
                }
            }
            match next {
                None => break,
                next => after = next,
            }
        }
    }
    output.end()
}

fn state(name: &str) -> Result<JobState, String> {
    let names = JobState::ALL.map(|(name, _)| name).join(", ");
    JobState::named(name).ok_or_else(|| format!("expected one of {names}"))
}

fn hex(digits: &str) -> Result<String, Failure> {
    let digits = digits.to_ascii_lowercase();
    let fits = (12..=64).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(digits) } else { Err(faulty(&"expected the first 12 to 64 hex digits of a fingerprint")) }
}

/// A field as it stands in a table.
fn text(line: &Value, name: &str) -> String {
    line.get(name).and_then(Value::as_str).unwrap_or("-").to_owned()
}

/// The digits that logs show.
fn short(line: &Value) -> String {
    text(line, "fingerprint").chars().take(12).collect()
}

/// To the second.
fn moment(line: &Value, name: &str) -> String {
    let whole = text(line, name);
    whole.split_once('.').map_or_else(|| whole.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// Its name, and what stands there of a line.
type Column = (&'static str, fn(&Value) -> String);

const JOBS: [Column; 8] = [
    ("CREATED", |line| moment(line, "created")),
    ("STATE", |line| {
        let is_orphan = line.get("orphan").and_then(Value::as_bool).unwrap_or_default();
        let state = text(line, "state");
        if is_orphan { format!("{state} (orphan)") } else { state }
    }),
    ("TEAM", |line| text(line, "team")),
    ("REQUEST_ID", |line| text(line, "request_id")),
    ("ENTRY", |line| text(line, "entry")),
    ("LAST_POLL", |line| moment(line, "last_poll")),
    ("CLIENT_REQUEST_ID", |line| text(line, "client_request_id")),
    ("FINGERPRINT", short),
];

const ENTRIES: [Column; 6] = [
    ("FINGERPRINT", short),
    ("STATE", |line| text(line, "state")),
    ("TEAM", |line| text(line, "team")),
    ("REQUEST_ID", |line| text(line, "request_id")),
    ("CREATED", |line| moment(line, "created")),
    ("UNTIL", |line| moment(line, "until")),
];

/// Lines of a page.
const PAGE: usize = 1000;
/// The most users that a gateway tells of.
const MOST_USERS: u16 = 10_000;
