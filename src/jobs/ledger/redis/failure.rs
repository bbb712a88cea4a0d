//! Why Redis gave no answer.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why Redis gave no answer; the label of `ledger_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Unreachable,
    /// Not in time.
    Timeout,
    /// The breaker has not even asked.
    Open,
    /// It refuses our password, or a command.
    Denied,
    /// It reads its data still.
    Loading,
    /// It is a replica.
    ReadOnly,
    /// Its memory is full.
    Full,
    /// It answered something else.
    Other,
}

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Denied,
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => Self::Loading,
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => Self::ReadOnly,
            (_, Some("OOM")) => Self::Full,
            _ if error.is_timeout() => Self::Timeout,
            (ErrorKind::Io, _) => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Open => "open",
            Self::Denied => "denied",
            Self::Loading => "loading",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Other => "other",
        }
    }
}
