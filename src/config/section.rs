//! The reader behind every `[section]`. A section is asked for its keys by name; the reader takes each value from
//! the environment, else from the file, else from a base, gathers what is wrong, and remembers the names: what was
//! not asked for is unknown, so that no name is written twice.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::fault::{Fault, MOST_FAULTS, Place, Source};
use super::nearest;
use super::value::{Raw, Size, Value};

/// A wait for somebody else: zero would never succeed, and past a day nobody waits.
pub(crate) const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// A wait that zero switches off.
pub(crate) const WAIT_OR_NONE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

/// How long something is remembered.
pub(crate) const WINDOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);

/// The same, where zero means not at all.
pub(crate) const WINDOW_OR_NONE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 24 * 3600);

/// A key that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its whole name, `server.listen`.
    pub(super) key: String,
    /// Its value, as it could be written.
    pub(super) shown: String,
    /// Where it was written; `None` where the base stands.
    pub(super) place: Option<Place>,
    /// Whether what was written is a value; if not, the base stands here.
    pub(super) readable: bool,
}

impl Known {
    /// Where a key was written, if it was.
    pub(super) fn place(all: &[Self], key: &str) -> Option<Place> {
        all.iter().find(|known| known.key == key).and_then(|known| known.place.clone())
    }
}

/// What was read, and what it is read from.
pub(crate) struct Reader<'a> {
    /// The file and its root table, if there is one.
    document: Option<(&'a Source, &'a DeTable<'a>)>,
    /// Overrides by the variable's name; what is left at the end matched no key.
    environment: BTreeMap<String, String>,
    known: Vec<Known>,
    sections: Vec<String>,
    /// Names of arrays of tables.
    lists: Vec<String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// A reader of a parsed file, if there is one, and of what overrides it.
    pub(super) fn new(document: Option<(&'a Source, &'a DeTable<'a>)>, environment: BTreeMap<String, String>) -> Self {
        Self { document, environment, known: Vec::new(), sections: Vec::new(), lists: Vec::new(), faults: Vec::new() }
    }

    /// The file, if nothing stands in it.
    pub(super) fn blank(&self) -> Option<Place> {
        self.document.and_then(|(source, _)| source.blank())
    }

    /// The table around all sections.
    pub(super) fn root(&mut self) -> Section<'_, 'a> {
        let table = self.document.map(|(_, root)| root);
        Section { reader: self, name: String::new(), table }
    }

    /// Ends the reading: the keys that were asked for, and everything that is wrong.
    pub(super) fn finish(mut self) -> (Vec<Known>, Vec<Fault>) {
        if let Some((source, root)) = self.document {
            self.refuse_unknown(source, "", root);
        }
        for variable in std::mem::take(&mut self.environment).into_keys() {
            if !variable.contains("__") {
                self.refuse_single_underscore(&variable);
                continue;
            }
            let key = variable.strip_prefix(PREFIX).unwrap_or(&variable).replace("__", ".").to_ascii_lowercase();
            let message = match nearest::secret_advice(&key) {
                Some(advice) => advice.to_owned(),
                None => match nearest::key(&key, &self.names()) {
                    Some(near) => format!("no such key: did you mean {}?", variable_of(near)),
                    None => "no such key".to_owned(),
                },
            };
            let place = Some(Place::Variable(nearest::printable(&variable)));
            self.faults.push(Fault { place, key: String::new(), message });
        }
        (self.known, self.faults)
    }

    /// `REELGATE_SERVER_LISTEN` was meant for a key. `REELGATE_SERVICE_HOST` is none of ours: orchestrators set such.
    fn refuse_single_underscore(&mut self, variable: &str) {
        let name = variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase();
        let Some(meant) = self.known.iter().find(|known| known.key.replace('.', "_") == name) else { return };
        let message = format!("no such key: did you mean {}?", variable_of(&meant.key));
        self.faults.push(Fault { place: Some(Place::Variable(variable.to_owned())), key: String::new(), message });
    }

    fn refuse_unknown(&mut self, source: &Source, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = joined(section, name.get_ref());
            if self.known.iter().any(|known| known.key == key) {
                continue;
            }
            if self.lists.contains(&key) {
                // What is no array of tables was refused when it was asked for.
                for (place, inner) in tables(value.get_ref()).into_iter().flatten().enumerate() {
                    self.refuse_unknown(source, &format!("{key}[{place}]"), inner);
                }
                continue;
            }
            let message = match (self.sections.contains(&key), value.get_ref().as_table()) {
                (true, Some(inner)) => {
                    self.refuse_unknown(source, &key, inner);
                    continue;
                }
                (true, None) => format!("expected a table: [{key}]"),
                (false, _) => self.unknown(section, &key),
            };
            let place = Some(source.line(name.span().start));
            self.faults.push(Fault { place, key: nearest::printable(&key), message });
        }
    }

    fn unknown(&self, section: &str, key: &str) -> String {
        if let Some(advice) = nearest::secret_advice(key) {
            return advice.to_owned();
        }
        let near = if self.faults.len() < MOST_FAULTS { nearest::key(key, &self.names()) } else { None };
        match near {
            None => "unknown key".to_owned(),
            Some(near) => {
                let beside = near.strip_prefix(section).map(|rest| rest.trim_start_matches('.'));
                let near = beside.filter(|rest| !rest.contains('.')).unwrap_or(near);
                format!("unknown key: did you mean {near}?")
            }
        }
    }

    /// Every name there is, keys and sections.
    fn names(&self) -> Vec<&str> {
        let keys = self.known.iter().map(|known| known.key.as_str());
        keys.chain(self.sections.iter().chain(&self.lists).map(String::as_str)).collect()
    }
}

/// One table of the configuration, while it is read.
pub(crate) struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    name: String,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'_, 'a> {
    /// The section of that name inside this one.
    pub(crate) fn section(&mut self, name: &str) -> Section<'_, 'a> {
        let key = joined(&self.name, name);
        self.reader.sections.push(key.clone());
        let table = self.table.and_then(|table| table.get(name)).and_then(|value| value.get_ref().as_table());
        Section { reader: self.reader, name: key, table }
    }

    /// Each table of an array of tables, over `empty`; where none is written, those of `base`. They stand in the file
    /// only: a variable of the environment could not name them.
    pub(crate) fn each<T: Clone>(
        &mut self,
        name: &str,
        base: &[T],
        empty: &T,
        mut read: impl FnMut(&mut Section<'_, 'a>, &T) -> T,
    ) -> Vec<T> {
        let key = joined(&self.name, name);
        self.reader.lists.push(key.clone());
        let mut one = |place: usize, table, base: &T| {
            read(&mut Section { reader: self.reader, name: format!("{key}[{place}]"), table }, base)
        };
        let Some((at, value)) = self.table.and_then(|table| table.get_key_value(name)) else {
            return base.iter().enumerate().map(|(place, base)| one(place, None, base)).collect();
        };
        match tables(value.get_ref()) {
            Some(tables) => {
                tables.into_iter().enumerate().map(|(place, table)| one(place, Some(table), empty)).collect()
            }
            None => {
                let place = self.reader.document.map(|(source, _)| source.line(at.span().start));
                let message = format!("expected tables: [[{key}]]");
                self.reader.faults.push(Fault { place: place.clone(), key: key.clone(), message });
                self.reader.known.push(Known { key, shown: String::new(), place, readable: false });
                base.to_vec()
            }
        }
    }

    /// The names of all tables that are written in this section: where operators name them.
    pub(crate) fn tables(&self) -> impl Iterator<Item = String> + use<'a> {
        let written = self.table.into_iter().flat_map(|table| table.iter());
        let tables = written.filter(|(_, value)| value.get_ref().as_table().is_some());
        tables.map(|(name, _)| name.get_ref().to_string())
    }

    /// The names of all keys that are written in this section: where operators name them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> + use<'a> {
        self.table.into_iter().flat_map(|table| table.iter()).map(|(name, _)| name.get_ref().to_string())
    }

    /// The value of a key; `base` where nothing, or nothing usable, is written.
    pub(crate) fn value<T: Value>(&mut self, name: &str, base: &T) -> T {
        self.read(name, base, |_| true, T::refusal)
    }

    /// The same, within limits.
    pub(crate) fn within<T: Value + PartialOrd>(&mut self, name: &str, base: &T, allowed: RangeInclusive<T>) -> T {
        let refusal = |_: &Raw<'_>| {
            format!("expected {}, from {} to {}", T::expected(), allowed.start().show(), allowed.end().show())
        };
        self.read(name, base, |value| allowed.contains(value), refusal)
    }

    /// A number of bytes within limits.
    pub(crate) fn size(&mut self, name: &str, base: u64, allowed: RangeInclusive<u64>) -> u64 {
        self.within(name, &Size(base), Size(*allowed.start())..=Size(*allowed.end())).0
    }

    fn read<T: Value>(
        &mut self,
        name: &str,
        base: &T,
        accepted: impl Fn(&T) -> bool,
        refusal: impl Fn(&Raw<'_>) -> String,
    ) -> T {
        let key = joined(&self.name, name);
        let variable = variable_of(&key);
        let written = self.table.and_then(|table| table.get_key_value(name));
        let in_list = key.contains('[');
        let text = if in_list { None } else { self.reader.environment.remove(&variable) };
        let (raw, place) = match (&text, written) {
            (Some(text), _) => (Some(Raw::Text(text)), Some(Place::Variable(variable))),
            (None, Some((name, value))) => {
                let source = self.reader.document.map(|(source, _)| source);
                (Some(Raw::Toml(value.get_ref())), source.map(|source| source.line(name.span().start)))
            }
            (None, None) => (None, None),
        };
        let found = raw.as_ref().map(|raw| T::read(raw).filter(accepted).ok_or_else(|| refusal(raw)));
        let (value, readable) = match found {
            None => (base.clone(), true),
            Some(Ok(value)) => (value, true),
            Some(Err(message)) => {
                self.reader.faults.push(Fault { place: place.clone(), key: key.clone(), message });
                (base.clone(), false)
            }
        };
        self.reader.known.push(Known { key, shown: value.show(), place, readable });
        value
    }
}

/// The tables of an array of tables.
fn tables<'v, 'a>(value: &'v DeValue<'a>) -> Option<Vec<&'v DeTable<'a>>> {
    value.as_array()?.iter().map(|item| item.get_ref().as_table()).collect()
}

/// Whether a variable of the environment may be meant to override a key: `REELGATE_SERVER__LISTEN`.
pub(super) fn is_override(variable: &str) -> bool {
    variable.starts_with(PREFIX)
}

/// The environment variable that overrides a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn joined(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// What an override's name begins with.
const PREFIX: &str = "REELGATE_";
