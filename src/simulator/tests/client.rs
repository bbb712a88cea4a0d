//! A client that speaks raw HTTP over one connection, and what it reads.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::BOUND;
use crate::simulator::Simulator;

/// A client that speaks raw HTTP over one connection.
pub(super) struct Client(TcpStream);

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Seen {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(simulator: &Simulator) -> Client {
        Client(TcpStream::connect(simulator.address()).await.unwrap())
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Asks and reads an answer that has a length.
    pub(super) async fn ask(&mut self, text: &str) -> Seen {
        self.send(text).await;
        self.answer(text.starts_with("HEAD")).await
    }

    pub(super) async fn answer(&mut self, to_head: bool) -> Seen {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(BOUND, self.0.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if to_head { 0 } else { length }];
        timeout(BOUND, self.0.read_exact(&mut body)).await.unwrap().unwrap();
        Seen { status, head, body }
    }

    /// All bytes up to the end of the connection, and whether that end was orderly.
    pub(super) async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let end = timeout(BOUND, self.0.read_to_end(&mut bytes)).await.expect("the connection did not end");
        (bytes, end.is_ok())
    }
}

impl Seen {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(super) fn id(&self) -> String {
        self.json()["request_id"].as_str().unwrap().to_owned()
    }
}

/// The value of a header field.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
