//! Which of our few paths a request is for. Paths are taken literally: nothing is decoded, nothing normalised,
//! and nothing unknown goes on (the upstream key would ride along).

use std::fmt;
use std::sync::Arc;

use hyper::Method;

use crate::error::{Error, READ_ONLY};

/// Where submissions go.
const GENERATIONS: &str = "/grok/v1/videos/generations";
/// Where edits go.
const EDITS: &str = "/grok/v1/videos/edits";
/// Where tokens for browsers are made.
const CLIENT_TOKENS: &str = "/grok/v1/client_tokens";
/// Before the id of a polled job.
const VIDEOS: &str = "/grok/v1/videos/";
/// The longest id of a job, in characters.
const MAX_ID: usize = 128;

/// The two routes that buy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A video from a prompt, or from a prompt and an image.
    Generations,
    /// A video from a video.
    Edits,
}

impl Operation {
    /// The path, here and upstream.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Generations => GENERATIONS,
            Self::Edits => EDITS,
        }
    }

    /// The name in metrics, logs and fingerprints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generations => "generations",
            Self::Edits => "edits",
        }
    }
}

/// The id of a job: `[A-Za-z0-9_-]{1,128}`, so that it can stand in a path and in a log as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        // All bytes are looked at, many at once, which is faster than to stop at the first that does not fit.
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'_') | (byte == b'-');
        let fits = (1..=MAX_ID).contains(&text.len()) && text.bytes().fold(true, |fits, byte| fits & is_part(byte));
        fits.then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path upstream in two parts: a constant and the checked id, nothing else.
    pub fn path(&self) -> [&str; 2] {
        [VIDEOS, &self.0]
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A submission.
    Submit(Operation),
    /// A poll; `head` asks for the header alone.
    Poll {
        /// The job.
        id: RequestId,
        /// Whether the method is HEAD.
        head: bool,
    },
    /// A token for a browser.
    ClientTokens,
    /// A CORS preflight, or a plain OPTIONS, of a path that takes these methods.
    Preflight {
        /// The `Allow` header's value.
        allow: &'static str,
    },
    /// The description of this API.
    OpenApi {
        /// Whether the method is HEAD.
        head: bool,
    },
}

/// Which path, before the method is looked at.
enum Place {
    Submit(Operation),
    Poll(RequestId),
    ClientTokens,
    OpenApi,
    Everything,
}

impl Place {
    fn find(path: &str) -> Result<Self, Error> {
        match path {
            GENERATIONS => return Ok(Self::Submit(Operation::Generations)),
            EDITS => return Ok(Self::Submit(Operation::Edits)),
            CLIENT_TOKENS => return Ok(Self::ClientTokens),
            "/openapi.json" => return Ok(Self::OpenApi),
            "/grok/v1/videos/extensions" => return Err(Error::NotOffered),
            "*" => return Ok(Self::Everything),
            _ => {}
        }
        path.strip_prefix(VIDEOS).and_then(RequestId::parse).map(Self::Poll).ok_or(Error::NotFound)
    }

    const fn allow(&self) -> &'static str {
        match self {
            Self::Submit(_) | Self::ClientTokens => "POST, OPTIONS",
            Self::Poll(_) | Self::OpenApi => READ_ONLY,
            Self::Everything => "GET, HEAD, POST, OPTIONS",
        }
    }
}

impl Route {
    /// The route of a method, a path and a query.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOffered`], [`Error::MethodNotAllowed`]; [`Error::BadRequest`] for a query on a
    /// known path, or for `*` with another method than OPTIONS.
    pub fn find(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Error> {
        let place = Place::find(path)?;
        let allow = place.allow();
        if query.is_some() {
            return Err(Error::BadRequest { param: "query", message: "this path takes no query string".into() });
        }
        let head = *method == Method::HEAD;
        match (place, method) {
            (_, &Method::OPTIONS) => Ok(Self::Preflight { allow }),
            (Place::Everything, _) => {
                Err(Error::BadRequest { param: "target", message: "the target * goes with OPTIONS only".into() })
            }
            (Place::Submit(operation), &Method::POST) => Ok(Self::Submit(operation)),
            (Place::ClientTokens, &Method::POST) => Ok(Self::ClientTokens),
            (Place::Poll(id), &Method::GET | &Method::HEAD) => Ok(Self::Poll { id, head }),
            (Place::OpenApi, &Method::GET | &Method::HEAD) => Ok(Self::OpenApi { head }),
            _ => Err(Error::MethodNotAllowed { allow }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t04_paths_are_taken_literally_and_nothing_else_is_a_job() {
        for path in [
            "/grok/v1/videos/",
            "/grok/v1/videos/a/b",
            "/grok/v1/videos/..",
            "/grok/v1/videos/%2e%2e",
            "/grok/v1/videos/a%2Fb",
            "/grok/v1/videos/a;b",
            "/grok/v1/videos/a.b",
            "/grok/v1//videos/a",
            "//grok/v1/videos/a",
            "/grok/v1/videos",
            "/grok/v1/videos/é",
            "/GROK/v1/videos/a",
            "",
            "/",
            "/metrics",
        ] {
            assert_eq!(Route::find(&Method::GET, path, None), Err(Error::NotFound), "{path}");
        }
        let long = format!("/grok/v1/videos/{}", "a".repeat(129));
        assert_eq!(Route::find(&Method::GET, &long, None), Err(Error::NotFound));
        let longest = format!("/grok/v1/videos/{}", "a".repeat(128));
        assert!(matches!(Route::find(&Method::GET, &longest, None), Ok(Route::Poll { head: false, .. })));
    }

    #[test]
    fn r14_a_known_path_with_another_method_names_the_allowed_ones() {
        let submit = Route::find(&Method::GET, GENERATIONS, None);
        assert_eq!(submit, Err(Error::MethodNotAllowed { allow: "POST, OPTIONS" }));
        for method in ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "post", "PROPFIND"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for path in [GENERATIONS, EDITS, "/grok/v1/videos/a", CLIENT_TOKENS, "/openapi.json"] {
                let found = Route::find(&method, path, None);
                assert!(matches!(found, Err(Error::MethodNotAllowed { .. })), "{method} {path}");
            }
        }
    }

    #[test]
    fn r15_r17_star_is_for_options_and_a_query_is_refused() {
        assert!(matches!(Route::find(&Method::OPTIONS, "*", None), Ok(Route::Preflight { .. })));
        assert!(matches!(Route::find(&Method::GET, "*", None), Err(Error::BadRequest { .. })));
        assert!(matches!(Route::find(&Method::POST, GENERATIONS, Some("a=1")), Err(Error::BadRequest { .. })));
        assert_eq!(Route::find(&Method::POST, "/grok/v1/videos/extensions", None), Err(Error::NotOffered));
    }
}
