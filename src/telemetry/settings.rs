//! `[log]`.

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `format`: how a line looks.
    pub format: Format,
    /// `level`: the least severe event that is written.
    pub level: Level,
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

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Auto, level: Level::Info }
    }
}
