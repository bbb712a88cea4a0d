//! What the simulated upstream can be told to do wrong. A [`Fault`] is a value: tests queue it, people post it as
//! JSON to the control route, and a prompt can name one ("[simulate: fail]"). Several at once stand in [`Fault::All`].

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::job::{End, Pending};

/// One thing that goes wrong, or just otherwise, with one submission or one poll.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// All of these together; where two say the same thing, the later one counts.
    All(Vec<Fault>),
    /// The answer comes so much later (in JSON: milliseconds). The job is made when the request arrives.
    Delay(#[serde(with = "milliseconds")] Duration),
    /// A complete answer with this status. Makes no job, unless [`Fault::Accepted`] stands beside it.
    Status {
        /// The status code.
        status: u16,
        /// What the body looks like.
        #[serde(default)]
        form: Form,
        /// Header fields beside `Content-Type`.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// 429 in CometAPI's form, with `Retry-After` if seconds are given.
    RateLimited {
        /// Whole seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// A redirect with an HTML body.
    Redirect {
        /// 301, 302, 307 or 308.
        status: u16,
        /// The `Location`.
        location: String,
    },
    /// The connection ends, or falls silent, at a place.
    Cut {
        /// Where.
        at: CutAt,
        /// How.
        #[serde(default)]
        how: How,
        /// Whether the job is made all the same. Only what was read whole can be accepted.
        #[serde(default)]
        accepted: bool,
    },
    /// The request is read whole and never answered; no job, unless [`Fault::Accepted`] stands beside it.
    Stall,
    /// The request's head is read, its body is not, and nothing is answered.
    StallAfterHeader,
    /// The answer comes in small steps.
    Trickle {
        /// Bytes a step.
        bytes: usize,
        /// The time between two steps, in JSON as `every` milliseconds.
        #[serde(with = "milliseconds")]
        every: Duration,
    },
    /// The answer's body is chunked, each chunk written alone.
    Chunked {
        /// Bytes a chunk.
        bytes: usize,
    },
    /// The answer has no length and ends with the connection.
    UntilClose,
    /// These bytes, verbatim, are the answer. The connection stays open.
    Garbage(#[serde(with = "text")] Vec<u8>),
    /// The usual answer, but in broken HTTP.
    Malformed(Malformed),
    /// Interim answers with these statuses come first, each in a packet of its own.
    Interim(Vec<u16>),
    /// The body goes on with spaces up to so many bytes (at most 64 MiB).
    Padded(usize),
    /// The body is gzip, whatever the request accepts.
    Encoded,
    /// 2xx with a body that is not what it should be.
    Odd(Odd),
    /// The key that came with the request stands in the body (cut in two by chunks) and in two header fields.
    KeyEcho {
        /// The status code.
        status: u16,
    },
    /// More header fields on the answer.
    Headers(Vec<(String, String)>),
    /// For a submission: how its job ends. For a poll: what it shows, once.
    End(End),
    /// How the job shows while it is not finished.
    Pending(Pending),
    /// The job is made although the answer does not say so.
    Accepted,
}

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutAt {
    /// Before anything counts as read: the request is neither recorded nor counted.
    BeforeRead,
    /// After so many bytes of the request.
    Request(usize),
    /// After the request's head.
    AfterHeader,
    /// After the whole request.
    BeforeAnswer,
    /// After so many bytes of the answer.
    Within(usize),
    /// Before the last byte of the answer.
    BeforeEnd,
    /// After the answer, which had promised to keep the connection.
    AfterAnswer,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// An orderly end.
    #[default]
    Fin,
    /// A reset.
    Reset,
    /// Not at all: it stays open and silent until the peer leaves.
    Stall,
}

/// What the body of an error looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `{"error":{"message","type","param","code"}}`, with this code.
    Comet(String),
    /// `{"code","error"}`, with this code.
    Xai(String),
    /// `{"code","message","data":null}`, with this code.
    Flat(String),
    /// A page.
    Html,
    /// Nothing.
    #[default]
    Empty,
    /// Anything.
    Text {
        /// The `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// Broken HTTP around an answer that would have been fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// Two different Content-Length fields.
    TwoLengths,
    /// Content-Length and Transfer-Encoding.
    LengthAndChunked,
    /// A header field folded over two lines.
    FoldedHeader,
    /// `HTTP/2.0` in the status line.
    WrongVersion,
    /// The body alone, without status line or header.
    NoStatusLine,
    /// A header field of a megabyte.
    HugeHeader,
    /// A chunk size that is no number.
    BadChunk,
    /// Chunks without the last one, then the end of the connection.
    MissingLastChunk,
    /// A body longer than it says.
    BytesAfterEnd,
    /// A control byte in a header value.
    ControlByte,
}

/// A 2xx body that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Odd {
    /// `{}`
    Object,
    /// No body at all.
    NoBody,
    /// `request_id` is null.
    NullId,
    /// `request_id` is a number.
    NumberId,
    /// `request_id` is empty.
    EmptyId,
    /// `request_id` has 10 KB.
    LongId,
    /// `request_id` holds a line break, a quote and markup.
    BadId,
    /// The job's id stands in the wrapper, as `data.task_id`: usable.
    Wrapped,
    /// The job's id, with status 202: usable.
    Accepted,
    /// An error object with a code of the quota list.
    Error,
    /// An error object and the job's id beside it.
    ErrorWithId,
    /// The wrapper with this code, which is not success.
    Code(String),
    /// A page.
    Html,
    /// JSON that ends too early.
    HalfJson,
    /// The job's id with a byte order mark before it.
    Marked,
}

impl Fault {
    /// The fault of that name: what a prompt, a switch or the control route may call it.
    pub fn named(name: &str) -> Option<Fault> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, make)| make())
    }

    /// All names that [`Fault::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// This fault, and the job is made all the same.
    pub fn and_accepted(self) -> Fault {
        Fault::All(vec![self, Fault::Accepted])
    }

    /// A complete error answer.
    pub fn status(status: u16, form: Form) -> Fault {
        Fault::Status { status, form, headers: Vec::new() }
    }

    /// The connection is cut there, and no job is made.
    pub fn cut(at: CutAt, how: How) -> Fault {
        Fault::Cut { at, how, accepted: false }
    }
}

impl Form {
    /// CometAPI's error form.
    pub fn comet(code: &str) -> Form {
        Form::Comet(code.to_owned())
    }

    /// xAI's error form.
    pub fn xai(code: &str) -> Form {
        Form::Xai(code.to_owned())
    }

    /// The flat form of task routes.
    pub fn flat(code: &str) -> Form {
        Form::Flat(code.to_owned())
    }
}

/// A duration as a number of milliseconds.
mod milliseconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Bytes as a string.
mod text {
    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}

/// A name and what it stands for.
type Name = (&'static str, fn() -> Fault);

/// The names, for prompts, switches and the control route.
const NAMES: &[Name] = &[
    ("fail", || Fault::End(End::failed("internal_error", "the simulated render crashed"))),
    ("invalid", || Fault::End(End::failed("invalid_argument", "the simulated prompt cannot be rendered"))),
    ("moderated", || Fault::End(End::Moderated)),
    ("disrespectful", || Fault::End(End::Disrespectful)),
    ("expired", || Fault::End(End::Expired)),
    ("not-found", || Fault::End(End::NotFound)),
    ("no-task", || Fault::End(End::NoTask)),
    ("no-url", || Fault::End(End::DoneWithoutUrl)),
    ("never", || Fault::End(End::Never)),
    ("empty-202", || Fault::Pending(Pending::Empty)),
    ("json-202", || Fault::Pending(Pending::Accepted)),
    ("id-only", || Fault::Pending(Pending::IdOnly)),
    ("slow", || Fault::Delay(Duration::from_secs(5))),
    ("late", || Fault::Delay(Duration::from_secs(45))),
    ("stall", || Fault::Stall),
    ("lost", || Fault::Cut { at: CutAt::BeforeAnswer, how: How::Fin, accepted: true }),
    ("reset", || Fault::Cut { at: CutAt::BeforeAnswer, how: How::Reset, accepted: true }),
    ("cut", || Fault::Cut { at: CutAt::BeforeEnd, how: How::Fin, accepted: true }),
    ("garbage", || Fault::Garbage(b"\x16\x03\x01 this is not HTTP\r\n\r\n".to_vec())),
    ("trickle", || Fault::Trickle { bytes: 8, every: Duration::from_millis(100) }),
    ("chunked", || Fault::Chunked { bytes: 16 }),
    ("gzip", || Fault::Encoded),
    ("html", || Fault::Odd(Odd::Html)),
    ("empty", || Fault::Odd(Odd::Object)),
    ("wrapped", || Fault::Odd(Odd::Wrapped)),
    ("redirect", || Fault::Redirect { status: 301, location: "https://simulated.invalid/".to_owned() }),
    ("key-echo", || Fault::KeyEcho { status: 401 }),
    ("400", || Fault::status(400, Form::comet("invalid_request"))),
    ("401", || Fault::status(401, Form::comet("invalid_api_key"))),
    ("403", || Fault::status(403, Form::xai("permission-denied"))),
    ("422", || Fault::status(422, Form::xai("invalid-argument"))),
    ("429", || Fault::RateLimited { retry_after: Some(2) }),
    ("500", || Fault::status(500, Form::comet("internal_error"))),
    ("502", || Fault::status(502, Form::Html)),
    ("503", || Fault::status(503, Form::flat("get_channel_failed"))),
    ("524", || Fault::status(524, Form::Html).and_accepted()),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_as_it_was_written() {
        let mut faults: Vec<Fault> = Fault::names().filter_map(Fault::named).collect();
        faults.push(Fault::Interim(vec![100, 103]));
        faults.push(Fault::Malformed(Malformed::TwoLengths));
        faults.push(Fault::cut(CutAt::Within(20), How::Reset));
        for fault in faults {
            let written = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&written).unwrap(), fault, "{written}");
        }
    }

    #[test]
    fn json_faults_may_leave_out_what_has_a_default() {
        for (text, want) in [
            (r#"{"status":{"status":503}}"#, Fault::status(503, Form::Empty)),
            (r#"{"cut":{"at":{"within":3}}}"#, Fault::cut(CutAt::Within(3), How::Fin)),
            (r#"{"delay":250}"#, Fault::Delay(Duration::from_millis(250))),
            (r#"{"rate_limited":{}}"#, Fault::RateLimited { retry_after: None }),
            (r#""stall""#, Fault::Stall),
        ] {
            assert_eq!(serde_json::from_str::<Fault>(text).unwrap(), want, "{text}");
        }
        assert!(serde_json::from_str::<Fault>(r#""unheard_of""#).is_err());
    }
}
