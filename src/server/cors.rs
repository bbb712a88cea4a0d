//! Which web pages may call. A page of a foreign origin is refused before anything is spent, because a browser sends
//! plain POSTs anywhere; a page whose name was pointed at us by its own DNS is foreign too.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Response, StatusCode};

use super::hosts::{Authority, Hosts};
use super::settings::Settings;
use crate::error::Error;
use crate::request::head::Header;

/// The origins that may call.
#[derive(Clone, Debug)]
pub struct Cors {
    allowed: Vec<String>,
    ours: Hosts,
    /// What we speak, and its usual port.
    scheme: (&'static str, u16),
}

impl Cors {
    /// The origins of the configuration.
    pub fn new(settings: &Settings) -> Self {
        let origins = settings.cors.allowed_origins.iter().chain([&settings.cors.public_origin]);
        let allowed = origins.filter(|origin| !origin.is_empty()).map(|origin| serialized(origin)).collect();
        let scheme = if settings.tls.is_on() { ("https://", 443) } else { ("http://", 80) };
        Self { allowed, ours: Hosts::new(settings), scheme }
    }

    /// Who calls. `authority` is where the request was sent to.
    ///
    /// # Errors
    /// [`Error::OriginRefused`] for a page of a foreign origin.
    pub fn check(
        &self,
        method: &Method,
        header: &Header<'_>,
        authority: Option<Authority<'_>>,
    ) -> Result<Caller, Error> {
        let mut origins = header.lines(&ORIGIN);
        let Some(origin) = origins.next() else {
            let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
            let is_foreign = || header.lines(&SEC_FETCH_SITE).any(|site| site == "cross-site");
            return if !is_safe && is_foreign() { Err(Error::OriginRefused) } else { Ok(self.caller(None)) };
        };
        let is_allowed = origins.next().is_none()
            && origin.to_str().is_ok_and(|origin| {
                self.allowed.iter().any(|allowed| allowed == origin) || self.is_our_own(origin, authority)
            });
        if is_allowed { Ok(self.caller(Some(origin.clone()))) } else { Err(Error::OriginRefused) }
    }

    fn caller(&self, origin: Option<HeaderValue>) -> Caller {
        Caller { varies: origin.is_some() || !self.allowed.is_empty(), origin }
    }

    /// Whether the page came from the very address that it calls, under a name that can only be ours.
    fn is_our_own(&self, origin: &str, authority: Option<Authority<'_>>) -> bool {
        // Where TLS ends in front of us, `public_origin` names the origin.
        let (scheme, port) = self.scheme;
        let origin = origin.strip_prefix(scheme).and_then(Authority::parse);
        match (origin, authority) {
            (Some(origin), Some(authority)) => origin.is_same(authority, port) && self.ours.are_ours(authority),
            _ => false,
        }
    }
}

/// A caller that may call: a page with its origin, or no page at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    origin: Option<HeaderValue>,
    /// Whether another caller may be told the same with another grant.
    varies: bool,
}

impl Caller {
    /// Lets the page read an answer, and keeps caches from giving one page what was granted to another, or to nobody.
    pub fn grant(&self, answer: &mut HeaderMap) {
        // A preflight's answer has all it needs.
        if !self.varies || answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        if let Some(origin) = &self.origin {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }

    /// The answer to an OPTIONS request for a path that takes the methods `allow`. To a preflight, [`Caller::grant`] has
    /// nothing to add.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the headers asked for are no list of names.
    pub fn options(&self, request: &HeaderMap, allow: &'static str) -> Result<Response<()>, Error> {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        let Some(origin) = self.origin.as_ref().filter(|_| request.contains_key(ACCESS_CONTROL_REQUEST_METHOD)) else {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
            return Ok(answer);
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
        for asked in request.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
            if !is_list_of_names(asked) || headers.contains_key(ACCESS_CONTROL_ALLOW_HEADERS) {
                return Err(Error::BadRequest {
                    param: "Access-Control-Request-Headers",
                    message: "send one short list of header names".into(),
                });
            }
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        headers.insert(VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers"));
        Ok(answer)
    }
}

/// An origin as browsers write it (RFC 6454 §6.2): lower case, no path, no default port.
fn serialized(origin: &str) -> String {
    let origin = origin.trim().trim_end_matches('/').to_ascii_lowercase();
    let default_port = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(default_port).map_or(origin.clone(), str::to_owned)
}

/// Whether a header holds names and commas only, and not too many. `*` could be a name, and would grant all of them.
fn is_list_of_names(list: &HeaderValue) -> bool {
    let is_name = |name: &[u8]| name.trim_ascii() != b"*" && HeaderName::from_bytes(name.trim_ascii()).is_ok();
    list.len() <= MAX_LIST && list.as_bytes().split(|byte| *byte == b',').all(is_name)
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Our headers, which a page may read beside the few that every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-Id, Cache-Status, RateLimit-Policy, RateLimit, Retry-After, X-Should-Retry, Reelgate-Warning, \
     Reelgate-Upstream-Request-Id",
);
/// How many seconds a browser may remember a preflight's answer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// The longest list of header names.
const MAX_LIST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::settings;

    fn cors(allowed_hosts: &[&str]) -> Cors {
        Cors::new(&Settings {
            allowed_hosts: allowed_hosts.iter().map(|&host| host.to_owned()).collect(),
            cors: settings::Cors {
                allowed_origins: vec!["https://App.example:443/".to_owned(), "http://app.example:3000".to_owned()],
                public_origin: "https://videos.example".to_owned(),
            },
            ..Settings::default()
        })
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn is_allowed(cors: &Cors, origin: &str, host: &str) -> bool {
        cors.check(&Method::POST, &Header::of(&headers(&[("origin", origin)])), Authority::parse(host)).is_ok()
    }

    #[test]
    fn r73_r74_a_request_with_several_origins_is_a_foreign_pages() {
        let cors = cors(&[]);
        let (ours, foreign) = ("https://app.example", "https://evil.example");
        for several in [[ours, foreign], [foreign, ours], [ours, ours]] {
            let mut headers = HeaderMap::new();
            for origin in several {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            for method in [Method::POST, Method::GET] {
                let refused = cors.check(&method, &Header::of(&headers), Authority::parse("gateway.example"));
                assert_eq!(refused, Err(Error::OriginRefused), "{several:?}");
            }
        }
    }

    #[test]
    fn r73_only_exact_origins_may_call() {
        let cors = cors(&[]);
        for good in ["https://app.example", "http://app.example:3000", "https://videos.example"] {
            assert!(is_allowed(&cors, good, "gateway.example"), "{good}");
        }
        for bad in [
            "null",
            "",
            "*",
            "https://evil.example",
            "https://app.example.evil.example",
            "https://evil-app.example",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example:443",
            "https://APP.example",
            "https://app.example/",
            "https://app.example https://evil.example",
            "app.example",
            "http://app.example:30000",
            "file://",
        ] {
            assert!(!is_allowed(&cors, bad, "gateway.example"), "{bad}");
        }
    }

    #[test]
    fn r73_without_configuration_no_other_origin_may_call() {
        let cors = Cors::new(&Settings::default());
        assert!(!is_allowed(&cors, "https://app.example", "127.0.0.1:8080"));
        assert!(!is_allowed(&cors, "", "127.0.0.1:8080"));
    }

    #[test]
    fn r74_our_own_origin_counts_only_under_a_name_that_nobody_else_can_point_here() {
        let (named, unnamed) = (cors(&["videos.lan"]), cors(&[]));
        for (origin, host, good) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://localhost:8080", "LOCALHOST:8080", true),
            ("http://192.0.2.1", "192.0.2.1:80", true),
            ("http://videos.lan", "videos.lan", true),
            ("http://rebound.evil.example", "rebound.evil.example", false),
            ("http://127.0.0.1:9090", "127.0.0.1:8080", false),
            ("https://127.0.0.1:8080", "127.0.0.1:8080", false),
            ("http://localhost:8080", "127.0.0.1:8080", false),
            ("http://localhost:8080/", "localhost:8080", false),
            ("http://user@localhost:8080", "localhost:8080", false),
        ] {
            assert_eq!(is_allowed(&named, origin, host), good, "{origin} to {host}");
        }
        assert!(!is_allowed(&unnamed, "http://videos.lan", "videos.lan"));
        assert!(unnamed.check(&Method::POST, &Header::of(&headers(&[("origin", "http://a")])), None).is_err());
    }

    #[test]
    fn r74_a_cross_site_request_without_an_origin_may_read_and_not_spend() {
        let cross = headers(&[("sec-fetch-site", "cross-site")]);
        for (method, good) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::OPTIONS, true),
            (Method::POST, false),
            (Method::PUT, false),
        ] {
            assert_eq!(cors(&[]).check(&method, &Header::of(&cross), None).is_ok(), good, "{method}");
        }
        let no_page = headers(&[("sec-fetch-site", "none")]);
        assert_eq!(
            cors(&[]).check(&Method::POST, &Header::of(&no_page), None),
            Ok(Caller { origin: None, varies: true })
        );
        let allowed = headers(&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")]);
        assert!(cors(&[]).check(&Method::POST, &Header::of(&allowed), None).is_ok());
        let twice = headers(&[("origin", "https://app.example"), ("origin", "https://app.example")]);
        assert!(cors(&[]).check(&Method::GET, &Header::of(&twice), None).is_err());
    }

    fn caller() -> Caller {
        cors(&[]).check(&Method::OPTIONS, &Header::of(&headers(&[("origin", "https://app.example")])), None).unwrap()
    }

    #[test]
    fn r73_a_preflight_is_granted_what_it_asks_for() {
        let request = headers(&[
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, content-type,Idempotency-Key"),
        ]);
        let answer = caller().options(&request, "POST, OPTIONS").unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let want = headers(&[
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-methods", "POST, OPTIONS"),
            ("access-control-allow-headers", "authorization, content-type,Idempotency-Key"),
            ("access-control-max-age", "600"),
            ("vary", "Origin, Access-Control-Request-Headers"),
        ]);
        assert_eq!(*answer.headers(), want);

        let asks_nothing = headers(&[("access-control-request-method", "GET")]);
        let answer = caller().options(&asks_nothing, "GET, HEAD, OPTIONS").unwrap();
        assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
    }

    #[test]
    fn r73_a_preflight_that_asks_for_no_names_is_refused() {
        let long = "a".repeat(MAX_LIST + 1);
        for list in ["*", "a, *", "a b", "a,,b", "", "a\tb", "a;b", "(a)", &long] {
            let Ok(value) = HeaderValue::from_str(list) else { continue };
            let mut request = headers(&[("access-control-request-method", "POST")]);
            request.insert(ACCESS_CONTROL_REQUEST_HEADERS, value);
            let refused = caller().options(&request, "POST, OPTIONS");
            assert!(matches!(refused, Err(Error::BadRequest { .. })), "{list}");
        }
    }

    #[test]
    fn r15_a_plain_options_request_gets_the_methods() {
        let answer = Caller::default().options(&HeaderMap::new(), "POST, OPTIONS").unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(*answer.headers(), headers(&[("allow", "POST, OPTIONS")]));
    }

    #[test]
    fn r73_answers_are_readable_for_allowed_origins_only() {
        let mut answer = headers(&[("vary", "Accept")]);
        Caller::default().grant(&mut answer);
        assert_eq!(answer, headers(&[("vary", "Accept")]));
        caller().grant(&mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert!(answer[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().contains("Cache-Status"));
        assert_eq!(answer.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept", "Origin"]);
        assert!(!answer.contains_key("access-control-allow-credentials"));
    }
}
