//! Requests as bytes, so that a client can leave at any of them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client waits at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// When a client leaves.
#[derive(Clone, Copy, Debug)]
pub enum Leaves {
    /// When it has its answer.
    Answered,
    /// After so many bytes of its request.
    Sending(usize),
    /// That long after its request was sent.
    Waiting(Duration),
}

/// A complete answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// What a client was told of its submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The id of a job.
    Job { id: String, how: How },
    /// That nobody knows.
    Unknown,
    /// That there is no job, with the code of the error.
    Refused(u16, String),
    /// Nothing: the connection broke, or the client left.
    Nothing,
    /// The gateway took no connection: nothing was asked.
    Unreached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Hit,
    Joined,
    Made,
}

/// Submits a prompt.
pub async fn submit(address: SocketAddr, prompt: &str, headers: &str, leaves: Leaves) -> Told {
    let body = json!({"prompt": prompt}).to_string();
    let request = format!(
        "POST /grok/v1/videos/generations HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let Ok(stream) = TcpStream::connect(address).await else { return Told::Unreached };
    exchange(stream, &request, leaves).await.map_or(Told::Nothing, |answer| answer.told())
}

/// Asks for a page.
pub async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(stream, &request, Leaves::Answered).await
}

async fn exchange(mut stream: TcpStream, request: &str, leaves: Leaves) -> Option<Answer> {
    let bytes = request.as_bytes();
    let (sent, patience) = match leaves {
        Leaves::Answered => (bytes, PATIENCE),
        Leaves::Sending(count) => (&bytes[..count.min(bytes.len())], Duration::ZERO),
        Leaves::Waiting(time) => (bytes, time),
    };
    stream.write_all(sent).await.ok()?;
    let mut answer = String::new();
    timeout(patience, stream.read_to_string(&mut answer)).await.ok()?.ok()?;
    Answer::read(&answer)
}

impl Answer {
    /// Only what came whole is an answer.
    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let head = head.to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(length) = field("content-length:") {
            (length.parse() == Ok(body.len())).then_some(())?;
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, body: body.to_owned(), head })
    }

    fn told(&self) -> Told {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        if self.status == 200
            && let Some(id) = body["request_id"].as_str()
        {
            let how = match self.head.lines().find(|line| line.starts_with("cache-status:")) {
                Some(line) if line.contains("collapsed") => How::Joined,
                Some(line) if line.contains("; hit") => How::Hit,
                _ => How::Made,
            };
            return Told::Job { id: id.to_owned(), how };
        }
        if self.head.contains("\r\nx-should-retry: false") {
            return Told::Unknown;
        }
        let code = body["error"]["code"].as_str().unwrap_or("no code");
        Told::Refused(self.status, code.to_owned())
    }
}
