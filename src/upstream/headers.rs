//! Headers in both directions: what goes upstream is built new from an allow-list, and what of an answer's fields may come
//! back is said here (`HARDENING.md` ).

use bytes::BytesMut;
use hyper::Version;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VIA};

use crate::request::head::Header;
use crate::request::route::{Operation, RequestId};
use crate::request::trace::Trace;
use crate::upstream::key::UpstreamKey;
use crate::upstream::origin::Origin;

/// What the upstream calls its own request.
pub const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("reelgate-upstream-request-id");

/// Our name in `Via` (RFC 9110 §7.6.3), made once.
#[derive(Clone, Debug)]
pub struct Via {
    pseudonym: String,
    http_1_0: HeaderValue,
    http_1_1: HeaderValue,
    http_2: HeaderValue,
}

impl Via {
    /// For a deployment's pseudonym, `reelgate-` and eight hex digits. `None`: it is not a header's value.
    pub fn new(pseudonym: &str) -> Option<Self> {
        let value = |version: &str| HeaderValue::try_from(format!("{version} {pseudonym}")).ok();
        Some(Self {
            pseudonym: pseudonym.to_owned(),
            http_1_0: value("1.0")?,
            http_1_1: value("1.1")?,
            http_2: value("2")?,
        })
    }

    /// Our entry for a request that came by this version.
    pub fn of(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_10 | Version::HTTP_09 => &self.http_1_0,
            Version::HTTP_2 => &self.http_2,
            _ => &self.http_1_1,
        }
    }

    /// Whether the request has been here before.
    pub fn is_in(&self, header: &Header<'_>) -> bool {
        let entries = header.lines(&VIA).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        entries
            .filter_map(|entry| entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1))
            .any(|by| by.eq_ignore_ascii_case(self.pseudonym.as_bytes()))
    }
}

/// All that passes from a client's headers to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    accept: HeaderValue,
    via: HeaderValue,
    trace: Option<Trace>,
}

impl Passed {
    /// What passes of this header. Everything else stays here: the upstream would take it together with our key.
    pub fn of(header: &Header<'_>, version: Version, via: &Via) -> Self {
        let ours = via.of(version);
        let via = if header.has(&VIA) { extended(header, ours) } else { ours.clone() };
        Self { accept: accepted(header), via, trace: None }
    }

    /// The same, as a part of this trace.
    pub fn within(self, trace: Option<Trace>) -> Self {
        Self { trace, ..self }
    }
}

/// The client's `Accept`, its lines as one list (RFC 9110 §5.3); ours where there is none, or one that is too long to be
/// true.
fn accepted(header: &Header<'_>) -> HeaderValue {
    let mut lines = header.lines(&ACCEPT);
    let accepted = match (lines.next(), lines.next()) {
        (only, None) => only.cloned(),
        (_, Some(_)) => {
            let all: Vec<&[u8]> = header.lines(&ACCEPT).map(HeaderValue::as_bytes).collect();
            HeaderValue::try_from(all.join(&b", "[..])).ok()
        }
    };
    accepted.filter(|value| value.len() <= LONGEST_ACCEPT && value.to_str().is_ok()).unwrap_or(JSON)
}

/// The client's `Via` with ours behind it; ours alone if the whole would be too long to be true.
fn extended(header: &Header<'_>, ours: &HeaderValue) -> HeaderValue {
    let mut list = BytesMut::new();
    for value in header.lines(&VIA).filter(|value| value.to_str().is_ok()) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.len() > LONGEST_VIA {
        return ours.clone();
    }
    list.extend_from_slice(ours.as_bytes());
    HeaderValue::from_maybe_shared(list.freeze()).unwrap_or_else(|_| ours.clone())
}

/// The heads of requests with one key, but for what a client may change: written as they go out, because what they are
/// made of was checked where it came from.
pub(super) struct Heads {
    to_accept: Vec<u8>,
    behind_via: Vec<u8>,
}

impl Heads {
    /// For requests to this origin with this key.
    pub(super) fn new(origin: &Origin, key: &UpstreamKey) -> Self {
        let host = origin.header().as_bytes();
        Self {
            to_accept: [b" HTTP/1.1\r\nhost: ", host, b"\r\nuser-agent: ", PRODUCT.as_bytes(), b"\r\naccept: "]
                .concat(),
            behind_via: [b"\r\nauthorization: ", key.authorization().as_bytes(), b"\r\n"].concat(),
        }
    }

    /// The head of one poll.
    pub(super) fn poll(&self, id: &RequestId, passed: &Passed) -> Vec<u8> {
        let [before_id, id] = id.path();
        self.head(["GET ", before_id, id], passed, &[])
    }

    /// The head of a submission with a body of this length. It is its connection's only one, and whoever closes first keeps
    /// the remains for a minute.
    pub(super) fn submission(&self, operation: Operation, length: usize, passed: &Passed) -> Vec<u8> {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(length).as_bytes();
        let own = [b"content-type: application/json\r\nconnection: close\r\ncontent-length: ", length, b"\r\n"];
        self.head(["POST ", operation.path(), ""], passed, &own)
    }

    fn head(&self, line: [&str; 3], passed: &Passed, own: &[&[u8]]) -> Vec<u8> {
        let mut head = Vec::with_capacity(USUAL_HEAD);
        line.iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
        for part in [
            &self.to_accept,
            passed.accept.as_bytes(),
            // What is encoded could not be read on the way (M21), nor searched for the key (M32).
            b"\r\naccept-encoding: identity\r\nvia: ",
            passed.via.as_bytes(),
            &self.behind_via,
        ] {
            head.extend_from_slice(part);
        }
        own.iter().for_each(|part| head.extend_from_slice(part));
        if let Some(trace) = &passed.trace {
            let mut fields = HeaderMap::new();
            trace.write(&mut fields);
            for (name, value) in &fields {
                head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// Whether the body came in a content coding, though none was asked for.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| is_coding(value.as_bytes()))
}

/// Whether a `Content-Encoding` names a coding.
pub(super) fn is_coding(value: &[u8]) -> bool {
    !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
}

/// Whether a `Transfer-Encoding` is `chunked` and nothing else, the one coding that we read (RFC 9112 §6.1).
pub(super) fn is_chunked(codings: &[u8]) -> bool {
    codings.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Whether a field may pass to clients by its name: no hop-by-hop field, and none of an origin that this gateway is not.
pub(super) fn is_passed(name: &str) -> bool {
    let is = |stopped: &str| name.eq_ignore_ascii_case(stopped);
    let begins = |stopped: &str| name.get(..stopped.len()).is_some_and(|start| start.eq_ignore_ascii_case(stopped));
    // Most names pass at their first letter.
    let is_stopped = match name.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'a') => is("alt-svc") || is("accept-ch") || begins("access-control-"),
        Some(b'c') => is("connection") || is("clear-site-data") || is("critical-ch"),
        Some(b'e') => is("expect-ct"),
        Some(b'k') => is("keep-alive"),
        Some(b'n') => is("nel"),
        // `Proxy-Status` stays: it is for whoever looks for a fault on the whole way (RFC 9209 §2).
        Some(b'p') => {
            is("public-key-pins")
                || is("public-key-pins-report-only")
                || is("proxy-connection")
                || is("proxy-authenticate")
                || is("proxy-authentication-info")
                || is("proxy-authorization")
        }
        Some(b'r') => is("refresh") || is("report-to") || is("reporting-endpoints"),
        Some(b's') => {
            is("server")
                || is("service-worker-allowed")
                || is("set-cookie")
                || is("set-cookie2")
                || is("strict-transport-security")
        }
        Some(b't') => is("te") || is("trailer") || is("transfer-encoding"),
        Some(b'u') => is("upgrade"),
        _ => false,
    };
    !is_stopped
}

/// What frames a body or tells what it is stays, whatever `Connection` lists.
pub(super) const STAY: [HeaderName; 3] = [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING];
/// The upstream's own request id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("reelgate/", env!("CARGO_PKG_VERSION")));
/// Room for what a poll usually says.
const USUAL_HEAD: usize = 512;
/// A longer `Accept` is not passed.
const LONGEST_ACCEPT: usize = 256;
/// A longer `Via` is not extended.
const LONGEST_VIA: usize = 4096;

#[cfg(test)]
mod tests;
