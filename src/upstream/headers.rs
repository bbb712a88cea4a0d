//! Headers in both directions. What goes upstream is built new from an allow-list; what comes back is cleaned in place
//! (`HARDENING.md` ). Our own fields are set last, so that no `Connection` list can take them.

use bytes::BytesMut;
use hyper::Version;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT, VIA,
};

use crate::request::head::Header;
use crate::request::route::RequestId;
use crate::request::trace::Trace;
use crate::upstream::key::UpstreamKey;
use crate::upstream::mask::KeyPattern;
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

/// The headers of a submission. hyper frames it by one `Content-Length`, from the body in hand.
pub(super) fn submit(origin: &Origin, passed: &Passed, key: &UpstreamKey) -> HeaderMap {
    let mut headers = common(origin, passed);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(AUTHORIZATION, key.authorization().clone());
    headers
}

/// The heads of polls with one key, but for the job and what a client may change: written as they go out, because what
/// they are made of was checked where it came from.
pub(super) struct PollHead {
    to_accept: Vec<u8>,
    behind_via: Vec<u8>,
}

impl PollHead {
    /// For polls of this origin with this key.
    pub(super) fn new(origin: &Origin, key: &UpstreamKey) -> Self {
        let host = origin.header().as_bytes();
        Self {
            to_accept: [b" HTTP/1.1\r\nhost: ", host, b"\r\nuser-agent: ", PRODUCT.as_bytes(), b"\r\naccept: "]
                .concat(),
            behind_via: [b"\r\nauthorization: ", key.authorization().as_bytes(), b"\r\n"].concat(),
        }
    }

    /// The head of one poll.
    pub(super) fn of(&self, id: &RequestId, passed: &Passed) -> Vec<u8> {
        let mut head = Vec::with_capacity(USUAL_HEAD);
        let [before_id, id] = id.path();
        for part in [
            b"GET ",
            before_id.as_bytes(),
            id.as_bytes(),
            &self.to_accept,
            passed.accept.as_bytes(),
            // What is encoded could not be read on the way (M21), nor searched for the key (M32).
            b"\r\naccept-encoding: identity\r\nvia: ",
            passed.via.as_bytes(),
            &self.behind_via,
        ] {
            head.extend_from_slice(part);
        }
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

fn common(origin: &Origin, passed: &Passed) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(HOST, origin.header().clone());
    headers.insert(USER_AGENT, PRODUCT);
    headers.insert(ACCEPT, passed.accept.clone());
    // What is encoded could not be read on the way (M21), nor searched for the key (M32).
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    headers.insert(VIA, passed.via.clone());
    if let Some(trace) = &passed.trace {
        trace.write(&mut headers);
    }
    headers
}

/// Whether the body came in a content coding, though none was asked for.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| is_coding(value.as_bytes()))
}

/// Whether a `Content-Encoding` names a coding.
pub(super) fn is_coding(value: &[u8]) -> bool {
    !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
}

/// Whether the framing can mean two things: then somebody in between may have read another message than we did.
/// A transfer coding that was not asked for is such a thing too, and could hide the key (M32).
pub(super) fn is_ambiguous(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths, codings.next(), codings.next()) {
        (0 | 1, None, _) => false,
        (0, Some(coding), None) => !is_chunked(coding.as_bytes()),
        _ => true,
    }
}

/// Whether a `Transfer-Encoding` is `chunked` and nothing else, the one coding that we read (RFC 9112 §6.1).
pub(super) fn is_chunked(codings: &[u8]) -> bool {
    codings.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Cleans an upstream's answer in place: what is for one connection only, what speaks for another origin, and whatever
/// holds the key. Its request id gets a name of its own.
pub fn answer(headers: &mut HeaderMap, key: &KeyPattern) {
    if headers.contains_key(CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    let doomed: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| !is_passed(name.as_str()) || key.is_in(value.as_bytes()))
        .map(|(name, _)| name.clone())
        .collect();
    for name in doomed {
        headers.remove(name);
    }
    if let Some(id) = headers.remove(REQUEST_ID) {
        headers.insert(UPSTREAM_REQUEST_ID, id);
    }
}

/// The fields that a `Connection` header lists, but for those that frame the body or tell what it is.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(CONNECTION).iter();
    lists
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !STAY.contains(name))
        .collect()
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
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("reelgate/", env!("CARGO_PKG_VERSION")));
/// Room for what a poll usually says.
const USUAL_HEAD: usize = 512;
/// A longer `Accept` is not passed.
const LONGEST_ACCEPT: usize = 256;
/// A longer `Via` is not extended.
const LONGEST_VIA: usize = 4096;

#[cfg(test)]
mod tests;
