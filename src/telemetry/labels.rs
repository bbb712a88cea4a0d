//! The closed lists that labels come from. A value of these types is the only way to name a series, so nothing a
//! client sends can make one (`HARDENING.md` T-32).

use hyper::Method;

use super::family::Series;
use crate::error::{Doubt, Error};
use crate::request::route::Operation;

/// Declares a label: an enum, the label's key, and the text of each value.
macro_rules! labels {
    ($(
        $(#[$about:meta])*
        $label:ident ($key:literal) { $( $(#[$note:meta])* $value:ident = $text:literal, )+ }
    )+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $label { $( $(#[$note])* $value, )+ }

        impl $label {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The value as text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            /// The value with this text.
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == text)
            }
        }

        impl Series for $label {
            const COUNT: usize = Self::ALL.len();

            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn index(self) -> usize {
                self as usize
            }

            fn keys() -> Vec<&'static str> {
                $key.split('.').collect()
            }

            fn values(self) -> Vec<&'static str> {
                // A dot parts the labels of a list whose values are not every pair of two lists.
                self.name().split('.').collect()
            }
        }
    )+};
}

labels! {
    /// `route`: what a request is for.
    RouteLabel ("route") {
        /// A submission of a prompt.
        Generations = "generations",
        /// A submission of an edit.
        Edits = "edits",
        /// A poll.
        Poll = "poll",
        /// OPTIONS on a known path.
        Preflight = "preflight",
        /// The built-in page.
        Page = "page",
        /// Everything else, refused paths included.
        Other = "other",
    }

    /// `outcome` of a submission: each counts exactly once.
    SubmissionOutcome ("outcome") {
        /// Answered from a live entry.
        Hit = "hit",
        /// Answered together with a twin in flight.
        Join = "join",
        /// The upstream made a job.
        Created = "created",
        /// An earlier outcome is in doubt (409).
        Held = "held",
        /// The request itself is wrong.
        Invalid = "invalid",
        /// It only asked what would happen.
        DryRun = "dry_run",
        /// A limit or a budget is reached.
        Limited = "limited",
        /// The upstream refused it.
        RefusedUpstream = "refused_upstream",
        /// Certainly not sent.
        NotSent = "not_sent",
        /// Nobody knows whether a job was made.
        Unknown = "unknown",
        /// Not for this caller, or not on this path.
        Denied = "denied",
        /// The gateway cannot, for now.
        Unavailable = "unavailable",
        /// The client went.
        Aborted = "aborted",
    }

    /// `operation` of a call to the upstream.
    UpstreamOperation ("operation") {
        /// A POST that may make a job.
        Submit = "submit",
        /// A GET of a job, for a client.
        Poll = "poll",
        /// A GET of a job that no client polls.
        Watch = "watch",
    }

    /// `outcome` of a call to the upstream.
    UpstreamOutcome ("outcome") {
        /// A job was made, or a poll was answered.
        Ok = "ok",
        /// A complete refusal.
        Refused = "refused",
        /// Nothing was sent.
        NotSent = "not_sent",
        /// Sent, and in doubt.
        Unknown = "unknown",
        /// A poll that was not answered properly.
        Error = "error",
    }

    /// `reason` why a poll's answer was not read.
    Unread ("reason") {
        /// It came encoded though it was asked for as it is.
        Encoded = "encoded",
        /// It is longer than any answer about a job.
        Long = "long",
    }

    /// `reason` why Redis gave no answer.
    LedgerFailure ("reason") {
        /// No connection, or it broke.
        Unreachable = "unreachable",
        /// Not in time.
        Timeout = "timeout",
        /// The breaker has not even asked.
        Open = "open",
        /// It refuses our password, or a command.
        Denied = "denied",
        /// It reads its data still.
        Loading = "loading",
        /// It is a replica.
        ReadOnly = "read_only",
        /// Its memory is full.
        Full = "full",
        /// It answered something else.
        Other = "other",
    }

    /// `limit` and `kind` of a refusal by a limit.
    Limit ("limit.kind") {
        /// One client token's submissions.
        TokenRequests = "token.requests",
        /// One client token's new jobs.
        TokenGenerations = "token.generations",
        /// One client token's money.
        TokenBudget = "token.budget",
        /// One user's submissions.
        UserRequests = "user.requests",
        /// One user's new jobs.
        UserGenerations = "user.generations",
        /// One team's submissions.
        TeamRequests = "team.requests",
        /// One team's new jobs.
        TeamGenerations = "team.generations",
        /// One address's submissions.
        AddressRequests = "address.requests",
        /// One address's wrong keys.
        AddressKeys = "address.keys",
        /// One address's new jobs.
        AddressGenerations = "address.generations",
        /// Everybody's submissions.
        TotalRequests = "total.requests",
        /// Everybody's new jobs.
        TotalGenerations = "total.generations",
        /// One user's jobs at once.
        UserRunning = "user.running",
        /// One team's jobs at once.
        TeamRunning = "team.running",
        /// Everybody's jobs at once.
        TotalRunning = "total.running",
        /// The upstream's own pace.
        UpstreamPace = "upstream.pace",
        /// One user's money.
        UserBudget = "user.budget",
        /// One team's money.
        TeamBudget = "team.budget",
        /// Everybody's money.
        TotalBudget = "total.budget",
    }

    /// `reason` of money that was not spent.
    Saved ("reason") {
        /// The job was there.
        Hit = "hit",
        /// A twin's job was on its way.
        Join = "join",
        /// It was the same client's own job, asked for again.
        Retry = "retry",
    }

    /// `outcome` of a job, as a poll showed it.
    JobOutcome ("outcome") {
        /// The video exists.
        Done = "done",
        /// It failed.
        Failed = "failed",
        /// It was not finished, or not fetched, in time.
        Expired = "expired",
        /// It was refused by moderation, and billed.
        Moderated = "moderated",
    }

    /// `state` of an entry.
    EntryState ("state") {
        /// Taken, nothing sent.
        Claimed = "claimed",
        /// Bytes may have left.
        Sending = "sending",
        /// The job exists.
        Accepted = "accepted",
        /// A poll showed its video.
        Done = "done",
        /// A poll showed a refusal that the same prompt would meet again.
        Rejected = "rejected",
        /// In doubt.
        Unknown = "unknown",
    }

    /// `operation` of the ledger.
    LedgerOperation ("operation") {
        /// Look-up, limits and claim in one step.
        Admit = "admit",
        /// Bytes may leave from now on.
        Sending = "sending",
        /// The upstream gave an id.
        Accepted = "accepted",
        /// Nobody knows whether an attempt was paid.
        Unknown = "unknown",
        /// An attempt made nothing.
        Free = "free",
        /// A caller was told of a doubt.
        Doubted = "doubted",
        /// A waiter left before its answer was taken.
        Undelivered = "undelivered",
        /// A page was shown to an operator.
        List = "list",
        /// An operator had an entry forgotten.
        Forget = "forget",
        /// The job of an id.
        Job = "job",
        /// Somebody met a job.
        Own = "own",
        /// Somebody asked for a job that nobody here made.
        Adopt = "adopt",
        /// A poll showed a turn in a job's life.
        Turned = "turned",
        /// A slot of the pace that replicas share.
        Slot = "slot",
    }

    /// `result` of an operation of the ledger.
    LedgerResult ("result") {
        /// Done.
        Ok = "ok",
        /// Somebody else was first.
        Conflict = "conflict",
        /// The ledger failed.
        Error = "error",
    }

    /// `reason` for which the gateway, and not the client, ended a connection.
    CloseReason ("reason") {
        /// Too many connections in all.
        Full = "full",
        /// Too many connections of this address.
        AddressFull = "address_full",
        /// No first byte in time.
        FirstByte = "first_byte_timeout",
        /// No TLS handshake, or none in time.
        Tls = "tls",
        /// No complete header in time; also an idle connection.
        Header = "header_timeout",
        /// The client did not read.
        Write = "write_timeout",
        /// An HTTP/2 connection did nothing for long, or did not answer a ping.
        Idle = "idle",
        /// It was old, or had carried many requests.
        Age = "age",
        /// What came is not HTTP.
        Protocol = "protocol",
        /// The process ends.
        Drain = "drain",
        /// A bug of ours.
        Panic = "panic",
    }

    /// `result` of a reload of the configuration.
    ReloadResult ("result") {
        /// The new configuration is in force.
        Ok = "ok",
        /// It has faults and changed nothing.
        Error = "error",
    }

    /// `section` of the configuration that a reload has changed.
    ConfigSection ("section") {
        /// The public listener.
        Server = "server",
        /// The operators' listener.
        Admin = "admin",
        /// The API behind.
        Upstream = "upstream",
        /// Who may call.
        Access = "access",
        /// The teams and their keys.
        Teams = "teams",
        /// How often.
        Limits = "limits",
        /// How much may be spent.
        Budgets = "budgets",
        /// What a job costs.
        Prices = "prices",
        /// What a body must look like.
        Validation = "validation",
        /// What counts as the same prompt.
        Dedup = "dedup",
        /// Where entries are kept.
        Ledger = "ledger",
        /// How polls are answered.
        Polls = "polls",
        /// What is written.
        Log = "log",
        /// Any other.
        Other = "other",
    }

    /// `reason` for which the gateway is degraded: hits go on, submissions do not.
    Degraded ("reason") {
        /// The ledger cannot be written.
        Ledger = "ledger",
        /// The upstream refuses our key.
        UpstreamKey = "upstream_key",
        /// The upstream says that our account is empty.
        UpstreamCredit = "upstream_credit",
    }
}

impl RouteLabel {
    /// The label of a request, by the shape of its method and path alone, so that refusals before routing have it too.
    pub fn of(method: &Method, path: &str) -> Self {
        let label = if path == Operation::Generations.path() {
            Self::Generations
        } else if path == Operation::Edits.path() {
            Self::Edits
        } else {
            match path.strip_prefix("/grok/v1/videos/") {
                Some(id) if !id.is_empty() && !id.contains('/') && id != "extensions" => Self::Poll,
                _ if path == "/" => Self::Page,
                _ => Self::Other,
            }
        };
        let known = label != Self::Other || matches!(path, "*" | "/openapi.json" | "/grok/v1/client_tokens");
        if *method == Method::OPTIONS && known { Self::Preflight } else { label }
    }

    /// Whether its requests count as submissions.
    pub const fn is_submission(self) -> bool {
        match self {
            Self::Generations | Self::Edits => true,
            Self::Poll | Self::Preflight | Self::Page | Self::Other => false,
        }
    }
}

impl SubmissionOutcome {
    /// The outcome of a submission that is refused with `error` (`DESIGN.md` §5).
    pub const fn of_refusal(error: &Error) -> Self {
        match error {
            Error::InvalidJson { .. }
            | Error::BadRequest { .. }
            | Error::RequestTimeout
            | Error::BodyTooLarge { .. }
            | Error::UnsupportedMediaType { .. }
            | Error::InvalidRequest(_)
            | Error::IdempotencyKeyReused
            | Error::UriTooLong
            | Error::HeaderTooLarge => Self::Invalid,
            Error::MissingKey
            | Error::InvalidKey
            | Error::OriginRefused
            | Error::UserMismatch
            | Error::ModelNotAllowed { .. }
            | Error::RouteNotAllowed { .. }
            | Error::NotFound
            | Error::NotOffered
            | Error::NoTokens
            | Error::UnknownJob
            | Error::MethodNotAllowed { .. }
            | Error::MisdirectedRequest
            | Error::LoopDetected => Self::Denied,
            Error::RateLimited { .. } | Error::BudgetExhausted { .. } => Self::Limited,
            Error::OutcomeUnknown { doubt: Doubt::Held, .. } => Self::Held,
            Error::OutcomeUnknown { doubt: Doubt::Broken | Doubt::Silent, .. } => Self::Unknown,
            Error::Internal | Error::Overloaded { .. } | Error::LedgerUnavailable | Error::Draining => {
                Self::Unavailable
            }
            Error::UpstreamUnreachable(_) | Error::PollTimeout => Self::NotSent,
            // The upstream saw the submission and made nothing of it.
            Error::UpstreamInvalidAnswer | Error::PollUnreadable | Error::UpstreamKeyRefused => Self::RefusedUpstream,
            Error::Aborted => Self::Aborted,
        }
    }
}

impl From<Operation> for RouteLabel {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Generations => Self::Generations,
            Operation::Edits => Self::Edits,
        }
    }
}

#[cfg(test)]
mod tests;
