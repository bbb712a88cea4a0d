//! HTTP/2 by hand: frames as a test wants them, whether they keep to the rules or not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SOON;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// On DATA and HEADERS; on SETTINGS and PING it is ACK.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The 32-bit number that ends a RST_STREAM, or stands behind the last stream of a GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered with this status.
    Answered(u16),
    /// Its stream was reset with this code.
    Reset(u32),
    /// The connection was ended; with this code, where it was told.
    Gone(Option<u32>),
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: each field literally, neither indexed nor compressed (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            push_length(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A length in a prefix of seven bits (RFC 7541 §5.1).
fn push_length(bytes: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else { return bytes.push(length as u8) };
    bytes.push(127);
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The status in the header block of an answer of hyper's, which puts it first.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may stand before it.
    let start = block.iter().position(|byte| byte >> 5 != 1).unwrap();
    match block[start] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // Literal, its name the one of :status.
        0x08 | 0x48 | 0x18 => {
            let length = usize::from(block[start + 1] & 127);
            let text = &block[start + 2..start + 2 + length];
            if block[start + 1] & 128 == 0 { digits(text.iter().map(|byte| byte - b'0')) } else { huffman(text) }
        }
        // From the table of what was sent before, which this reader does not keep.
        other => panic!("no status that can be read: {other:#x}"),
    }
}

fn digits(all: impl Iterator<Item = u8>) -> u16 {
    all.fold(0, |number, digit| number * 10 + u16::from(digit))
}

/// Three digits in the code of RFC 7541 appendix B: 0 to 2 in five bits, 3 to 9 in six.
fn huffman(bytes: &[u8]) -> u16 {
    let bits = bytes.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * bytes.len());
    let mut at = 0;
    digits(
        std::iter::from_fn(|| {
            let (five, six) = ((bits << at) >> 27, (bits << at) >> 26);
            let (digit, length) = if five <= 2 { (five, 5) } else { (six - 25 + 3, 6) };
            at += length;
            Some(digit as u8)
        })
        .take(3),
    )
}

/// A connection whose frames are written and read by hand.
pub struct Frames(TcpStream);

impl Frames {
    /// A connection that has said hello with these settings, and read the gateway's.
    pub async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let mut this = Self(TcpStream::connect(address).await.unwrap());
        this.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        this.send(&frame(SETTINGS, 0, 0, settings)).await;
        this
    }

    /// Sends bytes. Whether the other end still takes them.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// Sends a frame.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.send(&frame(kind, flags, stream, payload)).await
    }

    /// Sends a request's header, which ends here if there is no body.
    pub async fn headers(&mut self, stream: u32, fields: &[(&str, &str)], is_end: bool) -> bool {
        self.frame(HEADERS, END_HEADERS | u8::from(is_end), stream, &block(fields)).await
    }

    /// The next frame; `None` when the connection has ended.
    pub async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = async {
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(SOON * 2, read).await.expect("no frame in time")
    }

    /// Reads until it is known what has become of the request on a stream.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        let mut code = None;
        loop {
            let Some(frame) = self.read().await else { return Fate::Gone(code) };
            match frame.kind {
                SETTINGS if frame.flags == 0 => _ = self.frame(SETTINGS, 1, 0, &[]).await,
                HEADERS if frame.stream == stream => {
                    assert_ne!(frame.flags & END_HEADERS, 0, "a long answer's header");
                    return Fate::Answered(status(&frame.payload));
                }
                RST_STREAM if frame.stream == stream => return Fate::Reset(frame.code()),
                GOAWAY => code = Some(frame.code()),
                _ => {}
            }
        }
    }
}
