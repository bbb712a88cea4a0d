//! The configuration: read from a TOML file, overlaid by the environment, checked whole, then compiled by its
//! users. A section's struct and its `read` stand beside what it sets; the keys' names stand there and nowhere
//! else. `config/reelgate.toml` explains every key, and a test holds it equal to [`Config::default`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, Error as SyntaxError};

use crate::access::settings::{Access, Team};
use crate::admission::settings::Limits;
use crate::bill::settings::{Budgets, Prices, Running};
use crate::jobs::settings::{Dedup, Kind, Ledger, Polls};
use crate::server::settings::Admin;
use crate::{request, server, telemetry, upstream};

mod check;
mod draft;
mod fault;
mod names;
mod nearest;
mod reload;
mod section;
mod value;
pub mod watch;

pub use check::SchemaCheck;
pub use draft::Draft;
pub use fault::{Fault, Faults, Place};
pub(crate) use names::is_origin;
pub use reload::Reload;
pub(crate) use section::{Section, WAIT, WAIT_OR_NONE, WINDOW, WINDOW_OR_NONE};
pub(crate) use value::{Choice, Raw, Value};

use fault::Source;
use section::{Known, Reader};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`: the public listener.
    pub server: server::settings::Settings,
    /// `[admin]`: the operators' listener.
    pub admin: Admin,
    /// `[upstream]`: the API behind.
    pub upstream: upstream::settings::Settings,
    /// `[access]`: who may call.
    pub access: Access,
    /// `[[teams]]`: who they are, and their keys.
    pub teams: Vec<Team>,
    /// `[limits]`: how often.
    pub limits: Limits,
    /// `[limits]`: how many jobs at once.
    pub running: Running,
    /// `[budgets]`: how much may be spent.
    pub budgets: Budgets,
    /// `[prices]`: what a job costs.
    pub prices: Prices,
    /// `[validation]`: what a body must look like.
    pub validation: request::settings::Settings,
    /// `[dedup]`: what counts as the same prompt.
    pub dedup: Dedup,
    /// `[ledger]`: where entries are kept.
    pub ledger: Ledger,
    /// `[polls]`: how polls are answered.
    pub polls: Polls,
    /// `[log]`: what is written.
    pub log: telemetry::settings::Settings,
}

impl Config {
    /// Reads the file, if there is one, lets the environment override it, and checks the whole. Schema files are
    /// tried by `schema`.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        schema: SchemaCheck<'_>,
    ) -> Result<Self, Faults> {
        Self::draft(file, environment, schema)?.finish()
    }

    /// The same, to be tried further. A file that cannot be read at all is no draft.
    pub fn draft(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        schema: SchemaCheck<'_>,
    ) -> Result<Draft, Faults> {
        reading(file, environment, |reader| Ok(Self::from_reader(reader, schema)))
    }

    /// Where the admin listener is, told as [`Config::load`] is told it. What is wrong with other keys does not matter.
    pub fn admin_listen(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<SocketAddr, Faults> {
        let is_its = |fault: &Fault| fault.key == "admin.listen";
        let read = |root: &mut Section<'_, '_>| Admin::read(&mut root.section("admin"), &Admin::default());
        part(file, environment, read, is_its).map(|admin| admin.listen)
    }

    /// `[dedup]` alone, told in the same way.
    pub fn dedup(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Dedup, Faults> {
        let is_its = |fault: &Fault| fault.key.starts_with("dedup.");
        let read = |root: &mut Section<'_, '_>| Dedup::read(&mut root.section("dedup"), &Dedup::default());
        part(file, environment, read, is_its)
    }

    fn from_reader(mut reader: Reader<'_>, schema: SchemaCheck<'_>) -> Draft {
        let blank = reader.blank();
        let config = Self::read(&mut reader.root(), &Self::default());
        let (known, mut faults) = reader.finish();
        for finding in check::faults(&config, schema) {
            // A key that could not be read shows its default here: what follows from that would mislead.
            let unread = |key: &&str| known.iter().any(|known| known.key == **key && !known.readable);
            let key = finding.key();
            if finding.keys.iter().chain([&key]).any(unread) {
                continue;
            }
            let place = Known::place(&known, key);
            faults.push(Fault { place, key: key.to_owned(), message: finding.message });
        }
        Draft::new(config, known, faults, blank)
    }

    /// Reads every section; what is not written stays as in `base`.
    fn read(root: &mut Section<'_, '_>, base: &Self) -> Self {
        let mut config = Self {
            server: server::settings::Settings::read(&mut root.section("server"), &base.server),
            admin: Admin::read(&mut root.section("admin"), &base.admin),
            upstream: upstream::settings::Settings::read(&mut root.section("upstream"), &base.upstream),
            access: Access::read(&mut root.section("access"), &base.access),
            teams: root.each("teams", &base.teams, &Team::default(), Team::read),
            limits: Limits::read(&mut root.section("limits"), &base.limits),
            running: Running::read(&mut root.section("limits"), &base.running),
            budgets: Budgets::read(&mut root.section("budgets"), &base.budgets),
            prices: Prices::read(&mut root.section("prices"), &base.prices),
            validation: request::settings::Settings::read(&mut root.section("validation"), &base.validation),
            dedup: Dedup::read(&mut root.section("dedup"), &base.dedup),
            ledger: Ledger::read(&mut root.section("ledger"), &base.ledger),
            polls: Polls::read(&mut root.section("polls"), &base.polls),
            log: telemetry::settings::Settings::read(&mut root.section("log"), &base.log),
        };
        if config.ledger.kind == Kind::Redis {
            // Here, so that a reload compares the lease that counts.
            config.ledger.lease = config.ledger.lease_within(config.dedup.unknown_hold);
        }
        config
    }

    /// What may be meant so, and that an operator should know at each start. Never a reason to stop.
    pub fn warnings(&self) -> Vec<Fault> {
        let told = check::warnings(self).into_iter();
        told.map(|finding| Fault { place: None, key: finding.key().to_owned(), message: finding.message }).collect()
    }

    /// Every key with its value as it could be written, in reading order. No value is a secret.
    pub fn values(&self) -> Vec<(String, String)> {
        self.known().into_iter().map(|known| (known.key, known.shown)).collect()
    }

    /// The keys, as the reader meets them when nothing is written.
    fn known(&self) -> Vec<Known> {
        let mut reader = Reader::new(None, BTreeMap::new());
        Self::read(&mut reader.root(), self);
        reader.finish().0
    }
}

/// Reads a part of the configuration, of whose faults only its own count.
fn part<T>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    read: impl FnOnce(&mut Section<'_, '_>) -> T,
    is_its: impl Fn(&Fault) -> bool,
) -> Result<T, Faults> {
    reading(file, environment, |mut reader| {
        let part = read(&mut reader.root());
        let mut faults = reader.finish().1;
        faults.retain(is_its);
        Faults::none(faults).map(|()| part)
    })
}

/// Reads the file, if there is one, under what overrides it in the environment.
fn reading<T>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    read: impl FnOnce(Reader<'_>) -> Result<T, Faults>,
) -> Result<T, Faults> {
    let overrides = environment.into_iter().filter(|(name, _)| section::is_override(name)).collect();
    let Some(path) = file else { return read(Reader::new(None, overrides)) };
    let shown: Arc<str> = path.display().to_string().into();
    let text = read_text(path).map_err(|message| Fault::of_file(Place::File(Arc::clone(&shown)), message))?;
    reading_text(&shown, &text, overrides, read)
}

fn reading_text<T>(
    file: &Arc<str>,
    text: &str,
    overrides: BTreeMap<String, String>,
    read: impl FnOnce(Reader<'_>) -> Result<T, Faults>,
) -> Result<T, Faults> {
    let source = Source::new(Arc::clone(file), text);
    let (root, errors) = DeTable::parse_recoverable(text);
    Faults::none(errors.iter().map(|error| syntax_fault(&source, error)).collect())?;
    read(Reader::new(Some((&source, root.get_ref())), overrides))
}

/// The variables of this process that override a key. A value that is not UTF-8 is read as far as it is.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// What TOML found wrong. Its own message would show the source line, and a secret with it.
fn syntax_fault(source: &Source, error: &SyntaxError) -> Fault {
    let place = error.span().map_or_else(|| source.whole(), |span| source.line(span.start));
    let message = error.message();
    // The parser takes `127.0.0.1` or `10m` for a number that goes wrong.
    let hint = if message.ends_with("expected nothing") { ": text stands in quotes" } else { "" };
    Fault::of_file(place, format!("{message}{hint}"))
}

/// The text of a file of at most [`MAX_FILE`] bytes.
fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes));
    opened.map_err(|cause| format!("cannot be read: {cause}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err("longer than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|cause| {
        let sound = cause.as_bytes().get(..cause.utf8_error().valid_up_to()).unwrap_or_default();
        let line = sound.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        format!("line {line} is not UTF-8")
    })
}

/// A configuration is written by hand; more than this is a mistaken path, and would only fill memory.
const MAX_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests;
