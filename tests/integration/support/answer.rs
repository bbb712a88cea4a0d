//! An answer as a test sees it.

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::Value;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `None` if it broke off.
    pub body: Option<Bytes>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_deref().expect("the body broke off")).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The id of the job that a submission got.
    pub fn request_id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["request_id"].as_str().expect("a request_id").to_owned()
    }

    /// The only value of a header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name} stands more than once");
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `error.code` of an error of ours, whose form is checked.
    pub fn code(&self) -> String {
        let body = self.json();
        let error = body["error"].as_object().expect("an error");
        for field in ["message", "type", "code"] {
            assert!(error[field].is_string(), "{field}: {body}");
        }
        assert!(error.contains_key("param"), "{body}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(!self.header("x-request-id").is_empty());
        error["code"].as_str().unwrap().to_owned()
    }

    /// How a submission was served.
    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    /// Status and code, for errors.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.code())
    }

    /// Everything that was sent, to be searched.
    pub fn raw(&self) -> Vec<u8> {
        let mut raw = format!("{:?}", self.headers).into_bytes();
        raw.extend_from_slice(self.body.as_deref().unwrap_or_default());
        raw
    }
}

/// Status and `error.code` of an answer as it came over the wire.
pub fn code_of(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}"));
    let code = body["error"]["code"].as_str().map(str::to_owned);
    (status.expect("a status"), code.unwrap_or_else(|| panic!("no code: {answer}")))
}
