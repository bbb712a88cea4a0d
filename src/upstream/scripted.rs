//! An upstream for tests that speaks raw bytes by a script: what it says to each request, on whatever connection it
//! comes, and where it stops. It keeps what it received.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::upstream::client::Upstream;
use crate::upstream::key::UpstreamKey;
use crate::upstream::settings::Settings;

/// The key of all tests here.
pub(crate) const KEY: &str = "sk-Zx81kPq0LmN7vTrY2aBcD3eFgH4iJ5kL6mN7oP8q";
/// The pseudonym of all tests here.
pub(crate) const PSEUDONYM: &str = "reelgate-0a1b2c3d";

/// What is done about a request, in turn.
#[derive(Clone)]
pub(crate) enum Act {
    /// These bytes are written.
    Say(Vec<u8>),
    /// Nothing, until the test says so.
    Wait(Arc<Notify>),
    /// A space each second, for ever.
    Drip,
    /// The connection is closed by FIN.
    Close,
    /// The connection is closed by RST.
    Reset,
    /// Nothing more, until the other side closes.
    Hang,
}

/// A complete answer in JSON.
pub(crate) fn json(status: &str, body: &str) -> Act {
    let length = body.len();
    Act::Say(
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into(),
    )
}

/// Raw text.
pub(crate) fn say(text: &str) -> Act {
    Act::Say(text.as_bytes().to_vec())
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    /// Its head and body.
    pub(crate) text: String,
}

/// The upstream itself.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    /// A permit for each connection that has ended.
    ended: Arc<Semaphore>,
}

impl Scripted {
    /// Answers the requests by these acts, in the order in which they come, over plain TCP.
    pub(crate) async fn start(script: Vec<Vec<Act>>) -> Self {
        Self::start_with(script, None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_with(script: Vec<Vec<Act>>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(Semaphore::new(0));
        let script = Arc::new(Mutex::new(VecDeque::from(script)));
        let (seen, over) = (received.clone(), ended.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen, over, tls) = (script.clone(), seen.clone(), over.clone(), tls.clone());
                tokio::spawn(async move {
                    if let Some(tls) = tls {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, number, &script, &seen).await;
                        }
                    } else if let Some(stream) = serve(stream, number, &script, &seen).await {
                        stream.set_zero_linger().unwrap();
                    }
                    over.add_permits(1);
                });
            }
        });
        Self { address, received, ended }
    }

    /// What has been received.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn ended(&self, connections: u32) {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.ended.acquire_many(connections)).await;
        ended.expect("the connection ends").unwrap().forget();
    }

    /// The gateway's side of it, with these settings changed.
    pub(crate) fn upstream(&self, change: impl FnOnce(&mut Settings)) -> Arc<Upstream> {
        let mut settings = Settings { url: format!("http://{}", self.address), ..Settings::default() };
        change(&mut settings);
        Arc::new(Upstream::new(&settings, UpstreamKey::parse(KEY).unwrap(), PSEUDONYM).unwrap())
    }
}

/// Serves one connection; gives the stream back if it is to be reset.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    number: usize,
    script: &Mutex<VecDeque<Vec<Act>>>,
    received: &Mutex<Vec<Received>>,
) -> Option<S> {
    let mut buffer = Vec::new();
    while let Some(text) = request(&mut stream, &mut buffer).await {
        received.lock().unwrap().push(Received { connection: number, text });
        let acts = script.lock().unwrap().pop_front().unwrap_or_else(|| vec![Act::Close]);
        for act in acts {
            match act {
                Act::Say(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return None;
                    }
                    stream.flush().await.unwrap_or_default();
                }
                Act::Wait(notify) => notify.notified().await,
                Act::Drip => {
                    while stream.write_all(b" ").await.is_ok() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    return None;
                }
                Act::Close => {
                    stream.shutdown().await.unwrap_or_default();
                    return None;
                }
                Act::Reset => return Some(stream),
                Act::Hang => {
                    let mut rest = Vec::new();
                    stream.read_to_end(&mut rest).await.unwrap_or_default();
                    return None;
                }
            }
        }
    }
    None
}

/// Reads one request, framed by its `Content-Length`.
async fn request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            let lower = text[..head].to_ascii_lowercase();
            let length: usize =
                lower.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            let end = head + 4 + length;
            if buffer.len() >= end {
                let rest = buffer.split_off(end);
                let request = std::mem::replace(buffer, rest);
                return Some(String::from_utf8_lossy(&request).into_owned());
            }
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
