//! `[log]`.

use crate::config::{Choice, Section};

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `format`: how a line looks.
    pub format: Format,
    /// `level`: the least severe event that is written.
    pub level: Level,
}

impl Settings {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self { format: section.value("format", &base.format), level: section.value("level", &base.level) }
    }
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, else JSON lines.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Choice for Format {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only failures that need somebody.
    Error,
    /// And what may need somebody.
    Warn,
    /// And a line a request.
    Info,
    /// And what a developer of the gateway wants to see.
    Debug,
}

impl Choice for Level {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("error", Self::Error), ("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug)];
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Auto, level: Level::Info }
    }
}
