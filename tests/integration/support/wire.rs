//! Answers as they came over the wire, read strictly, and the requests behind them, written by hand.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, Scene, sum};

/// All answers in these bytes, interim ones too. Panics at what is no HTTP/1.1, and at bytes that belong to no answer.
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let parsed = head.parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()));
        let httparse::Status::Complete(length) = parsed else { panic!("cut: {}", bytes.escape_ascii()) };
        let mut headers = HeaderMap::new();
        for field in head.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(field.value).unwrap());
        }
        let status = head.code.unwrap();
        assert!(!headers.contains_key("transfer-encoding"), "read by a client that does not know it: {headers:?}");
        let of = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let end = if matches!(status, 100..200 | 204 | 304) { length } else { length + of };
        let body = bytes.get(length..end).unwrap_or_else(|| panic!("cut: {}", bytes.escape_ascii()));
        all.push(Answer { status, headers, body: Some(Bytes::copy_from_slice(body)) });
        bytes = &bytes[end..];
    }
    all
}

impl Scene {
    /// Sends these bytes on a connection of their own, and reads until the gateway closes it. Whatever the gateway took
    /// for a request to a submission route is noted as one.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
        let answered = self.raw(bytes.as_ref()).await;
        let all = answers(&answered);
        // A request that was refused before it was one has no id.
        let requests = all.iter().filter(|answer| answer.headers.contains_key("x-request-id")).count();
        let submissions = ["/videos/generations", "/videos/edits"].map(str::as_bytes);
        let first = bytes.as_ref().split(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_submission = submissions.iter().any(|path| memchr::memmem::find(first, path).is_some());
        let is_preflight = first.starts_with(b"OPTIONS ");
        if is_submission && !is_preflight {
            self.note_submissions(requests as u64);
        }
        all
    }

    /// The statuses of what [`Self::exchange`] gives.
    pub async fn statuses(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        self.exchange(bytes).await.iter().map(|answer| answer.status).collect()
    }

    /// A connection of a client that has asked once and will ask again: whatever others do meanwhile, it is served.
    pub async fn good_client(&self) -> GoodClient {
        let mut client = GoodClient(TcpStream::connect(self.gateway().address()).await.unwrap());
        client.is_served().await;
        client
    }

    /// How many requests to the submission routes have been counted so far.
    pub async fn counted(&self) -> u64 {
        sum(&self.admin("/metrics").await.text(), "submissions_total") as u64
    }
}

/// A well-behaved client on a connection that it keeps.
pub struct GoodClient(TcpStream);

impl GoodClient {
    /// Asks for something that costs nothing.
    pub async fn is_served(&mut self) {
        self.0.write_all(b"HEAD /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(self.0.read_u8().await.unwrap());
            }
        };
        tokio::time::timeout(super::SOON, read).await.expect("a good client waits");
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
    }
}
