//! Whether a request is meant for us, by its head alone: the authority it names, once and well-formed, and none of a
//! stranger's. The authority is compared and shown; it never chooses where anything goes.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::{Method, Uri, Version};

use super::settings::{Headers, Settings};
use crate::error::Error;
use crate::request::head::{Head, Header};

/// The names under which we are called.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Lower case, without port. Empty: every well-formed Host is served.
    allowed: Vec<String>,
    bounds: Headers,
}

impl Hosts {
    /// The names of the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self { bounds: settings.headers, ..Self::allowing(&settings.allowed_hosts) }
    }

    pub(super) fn allowing(names: &[String]) -> Self {
        let bare = |name: &String| {
            let name = name.trim().to_ascii_lowercase();
            Authority::parse(&name).map_or(name.clone(), |authority| authority.host.to_owned())
        };
        Self { allowed: names.iter().map(bare).collect(), bounds: Headers::default() }
    }

    /// Checks the head of a request and gives the authority it was sent to; none where HTTP/1.0 named none.
    ///
    /// # Errors
    /// [`Error::MethodNotAllowed`] for CONNECT, before anything else; [`Error::BadRequest`] for an authority that is
    /// missing, doubled, malformed or contradicted; [`Error::MisdirectedRequest`] for a name that is not ours;
    /// [`Error::UriTooLong`] and [`Error::HeaderTooLarge`] past the bounds of a single part.
    pub fn check<'a>(&self, head: &Head<'a>) -> Result<Option<Authority<'a>>, Error> {
        if head.method == Method::CONNECT {
            return Err(Error::MethodNotAllowed { allow: "GET, HEAD, POST, OPTIONS" });
        }
        check_fields(head, &self.bounds)?;
        check_coding(&head.header)?;
        let authority = authority(head)?;
        match authority {
            Some(authority) if !self.allowed.is_empty() && !self.are_ours(authority) => Err(Error::MisdirectedRequest),
            authority => Ok(authority),
        }
    }

    /// Whether a name can only be ours: an IP address, localhost, or one of the configuration's. Any other may be a
    /// stranger's, whose DNS points here.
    pub fn are_ours(&self, authority: Authority<'_>) -> bool {
        let host = authority.host;
        authority.is_ip()
            || host.eq_ignore_ascii_case("localhost")
            || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// A host with an optional port, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The name or address, an IPv6 address in its brackets; a final dot is cut off.
    pub host: &'a str,
    /// The port, where one was sent.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `host`, `host:` or `host:port` (RFC 9110 §7.2, RFC 3986 §3.2), with hosts as they exist: addresses, and
    /// names of letters, digits, `-`, `_` and dots.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                let (address, port) = rest.split_at_checked(end)?;
                address.parse::<Ipv6Addr>().ok()?;
                (text.get(..end + 2)?, port.strip_prefix(']')?)
            }
            None => {
                let end = text.bytes().position(|byte| byte == b':').unwrap_or(text.len());
                let (name, port) = text.split_at_checked(end)?;
                let name = name.strip_suffix('.').unwrap_or(name);
                (is_name(name).then_some(name)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    fn is_ip(&self) -> bool {
        self.host.starts_with('[') || self.host.parse::<IpAddr>().is_ok()
    }

    /// Whether both are the same place, if a missing port means `default_port`.
    pub fn is_same(&self, other: Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// Whether `name` is a name with labels that are not empty.
fn is_name(name: &str) -> bool {
    // A dot must stand between two letters; every request passes here.
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_apart = |pair: &[u8]| pair != b"..";
    let bytes = name.as_bytes();
    // All are looked at, whatever one says: then several are looked at at once.
    bytes.iter().fold(true, |all, byte| all & fits(byte))
        && bytes.windows(2).all(is_apart)
        && !matches!(bytes, [] | [b'.', ..] | [.., b'.'])
        && name.len() <= MAX_NAME
}

/// The authority a request was sent to: that of the target where it has one, else that of its Host.
fn authority<'a>(head: &Head<'a>) -> Result<Option<Authority<'a>>, Error> {
    let mut hosts = head.header.lines(&HOST);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad_host("send the Host header once"));
    }
    let host = match host {
        Some(value) => {
            let text = value.to_str().ok();
            Some(text.and_then(Authority::parse).ok_or_else(|| bad_host("the Host is no host with a port"))?)
        }
        None => None,
    };
    let target = target_authority(&head.parts().uri)?;
    match (head.version, host, target) {
        (Version::HTTP_11, None, _) => Err(bad_host("HTTP/1.1 needs a Host header")),
        (Version::HTTP_2, None, None) => Err(bad_host("the request names no authority")),
        (Version::HTTP_2, Some(host), Some(target)) if !host.is_same(target, 0) => {
            Err(bad_host("the Host header and :authority differ"))
        }
        (_, host, target) => Ok(target.or(host)),
    }
}

/// The authority of an absolute target, or of HTTP/2's `:authority`.
fn target_authority(uri: &Uri) -> Result<Option<Authority<'_>>, Error> {
    let bad_target = |message: &'static str| Error::BadRequest { param: "target", message: message.into() };
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(bad_target("the target's scheme is neither http nor https"));
    }
    let Some(authority) = uri.authority() else { return Ok(None) };
    if authority.as_str().contains('@') {
        return Err(bad_target("the target must not name a user"));
    }
    Authority::parse(authority.as_str()).map(Some).ok_or_else(|| bad_target("the target's authority is malformed"))
}

fn bad_host(message: &'static str) -> Error {
    Error::BadRequest { param: "Host", message: message.into() }
}

/// Bounds on single parts of the head; hyper bounds the whole. HTTP/2 also lets values begin or end with white space,
/// which another reader would cut off (RFC 9113 §8.2.1).
fn check_fields(head: &Head<'_>, bounds: &Headers) -> Result<(), Error> {
    let within = |length: usize, bound: u64| u64::try_from(length).is_ok_and(|length| length <= bound);
    let uri = head.uri.path_and_query().map_or(0, |target| target.as_str().len())
        + head.uri.authority().map_or(0, |authority| authority.as_str().len());
    if !within(uri, bounds.target) {
        return Err(Error::UriTooLong);
    }
    if head.header.len() > bounds.count || !within(head.header.longest(), bounds.field) {
        return Err(Error::HeaderTooLarge);
    }
    // HTTP/1's parser cuts it off, as it must (RFC 9112 §5.1).
    if head.version == Version::HTTP_2 && head.header.is_padded() {
        let message = "a value begins or ends with white space".into();
        return Err(Error::BadRequest { param: "header", message });
    }
    Ok(())
}

/// `chunked`, once and alone, is the one transfer coding we read; hyper would also take it behind others.
fn check_coding(header: &Header<'_>) -> Result<(), Error> {
    let mut codings = header.lines(&TRANSFER_ENCODING);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Error::BadRequest {
            param: "Transfer-Encoding",
            message: "send the body with a Content-Length, or plainly chunked".into(),
        }),
    }
}

/// The longest name of a host (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
#[cfg(test)]
mod tests;
