//! A configuration that was read and is not yet known to be sound. Whoever knows more of a value than this module tries
//! it here, so that all faults are told at once.

use super::Config;
use super::fault::{Fault, Faults, Place};
use super::reload::Reload;
use super::section::Known;

/// A configuration as it was read, and what is wrong with it so far.
#[derive(Debug)]
pub struct Draft {
    config: Config,
    known: Vec<Known>,
    faults: Vec<Fault>,
    /// The file, if nothing stands in it.
    blank: Option<Place>,
}

impl Draft {
    pub(super) fn new(config: Config, known: Vec<Known>, faults: Vec<Fault>, blank: Option<Place>) -> Self {
        Self { config, known, faults, blank }
    }

    /// What was read so far; where a value could not be, its default stands.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Tries the values of `keys`. The fault, if there is one, says itself what it is about; it is told where the first of
    /// the keys stands. What is known to be wrong is not tried: it could only bring a second complaint.
    pub fn try_out<E: ToString>(&mut self, keys: &[&str], trial: impl FnOnce(&Config) -> Result<(), E>) {
        if self.faults.iter().any(|fault| keys.contains(&fault.key.as_str())) {
            return;
        }
        if let Err(fault) = trial(&self.config) {
            let place = keys.first().and_then(|key| Known::place(&self.known, key));
            self.faults.push(Fault { place, key: String::new(), message: fault.to_string() });
        }
    }

    /// What becomes of it in a process that runs with `running`. A file in which nothing stands may be one that is just
    /// being written: it takes nothing away, and least of all the teams and their keys.
    ///
    /// # Errors
    /// All its faults.
    pub fn reload(self, running: &Config) -> Result<Reload, Faults> {
        let blank = self.blank.clone();
        let reload = self.finish().and_then(|new| running.reload(new));
        let changes_nothing =
            reload.as_ref().is_ok_and(|reload| reload.changed.is_empty() && reload.restart.is_empty());
        match blank.filter(|_| !changes_nothing) {
            Some(place) => Err(Fault::of_file(place, EMPTY.to_owned()).into()),
            None => reload,
        }
    }

    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// All its faults.
    pub fn finish(self) -> Result<Config, Faults> {
        Faults::none(self.faults).map(|()| self.config)
    }
}

const EMPTY: &str =
    "it is empty, which would put every key back to its default: if that is meant, write a comment into it";
