//! The upstream's origin: scheme, host and port, from the configuration alone. No request has a say in it.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;

/// Where the key may go, and nothing else may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    tls: bool,
    /// A name in lower case, or an address without brackets.
    host: String,
    port: u16,
    header: HeaderValue,
}

impl Origin {
    /// The origin of a URL that is no more than an origin.
    ///
    /// # Errors
    /// What else the text is.
    pub fn parse(url: &str) -> Result<Self, OriginFault> {
        let uri: Uri = url.parse().map_err(|_| OriginFault::NoUrl)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(OriginFault::Scheme),
        };
        let authority = uri.authority().ok_or(OriginFault::NoUrl)?;
        if authority.as_str().contains('@') {
            return Err(OriginFault::Credentials);
        }
        if uri.path() != "/" || uri.query().is_some() || url.contains('#') {
            return Err(OriginFault::Path);
        }
        let bracketed = authority.host().to_ascii_lowercase();
        let standard = if tls { 443 } else { 80 };
        let written = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        let port = match written.strip_prefix(':') {
            None | Some("") => standard,
            Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(OriginFault::Port)?,
        };
        let header = if port == standard { bracketed.clone() } else { format!("{bracketed}:{port}") };
        let header = HeaderValue::try_from(header).map_err(|_| OriginFault::NoUrl)?;
        let host = bracketed.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(OriginFault::NoUrl);
        }
        Ok(Self { tls, host, port, header })
    }

    /// Whether it is `https`.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` header.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The host as an address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.header.to_str().unwrap_or_default())
    }
}

/// Why a text is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// It is no URL.
    #[error("it is not a URL like https://api.cometapi.com")]
    NoUrl,
    /// It begins with something else.
    #[error("it must begin with https:// or http://")]
    Scheme,
    /// A user or password stands in it.
    #[error("it must not hold a user or password: the key has its own place")]
    Credentials,
    /// It goes on behind the host.
    #[error("it must end after host and port: the paths are fixed")]
    Path,
    /// The port is no port.
    #[error("its port is not between 1 and 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (url, shown, host, port) in [
            ("https://api.cometapi.com", "https://api.cometapi.com", "api.cometapi.com", 443),
            ("https://API.CometAPI.com/", "https://api.cometapi.com", "api.cometapi.com", 443),
            ("https://api.cometapi.com:443", "https://api.cometapi.com", "api.cometapi.com", 443),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1", 8000),
            ("http://[::1]:8000/", "http://[::1]:8000", "::1", 8000),
            ("http://localhost", "http://localhost", "localhost", 80),
        ] {
            let origin = Origin::parse(url).unwrap();
            assert_eq!((origin.to_string().as_str(), origin.host(), origin.port()), (shown, host, port), "{url}");
        }
    }

    #[test]
    fn t03_what_is_more_or_less_than_an_origin_is_refused() {
        for (url, fault) in [
            ("", OriginFault::NoUrl),
            ("api.cometapi.com", OriginFault::Scheme),
            ("/x", OriginFault::Scheme),
            ("ftp://api.cometapi.com", OriginFault::Scheme),
            ("https://", OriginFault::NoUrl),
            ("https://key@api.cometapi.com", OriginFault::Credentials),
            ("https://api.cometapi.com/grok", OriginFault::Path),
            ("https://api.cometapi.com?a", OriginFault::Path),
            ("https://api.cometapi.com/#a", OriginFault::Path),
            ("https://api.cometapi.com:0", OriginFault::Port),
            ("https://api.cometapi.com:99999", OriginFault::Port),
        ] {
            assert_eq!(Origin::parse(url), Err(fault), "{url}");
        }
        assert!(Origin::parse("http://127.1.2.3").unwrap().is_loopback());
        assert!(!Origin::parse("http://127.evil.example").unwrap().is_loopback());
    }
}
