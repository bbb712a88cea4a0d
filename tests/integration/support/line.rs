//! A connection of a client's own, whose answers are read piece by piece.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Answer, SOON};

/// A connection to the gateway. It ends with this value.
pub struct Line {
    address: SocketAddr,
    sender: Sender,
    driver: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Line {
    /// A connection that speaks HTTP/1.1.
    pub async fn http1(address: SocketAddr) -> Self {
        Self::http1_over(address, TcpStream::connect(address).await.unwrap()).await
    }

    /// The same, over a stream to that address.
    pub async fn http1_over<S>(address: SocketAddr, stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        // How it ends is told to whoever reads an answer.
        let driver = tokio::spawn(async move { _ = connection.await });
        Self { address, sender: Sender::Http1(sender), driver }
    }

    /// A connection that speaks HTTP/2 by prior knowledge.
    pub async fn http2(address: SocketAddr) -> Self {
        Self::http2_over(address, TcpStream::connect(address).await.unwrap()).await
    }

    /// The same, over a stream to that address.
    pub async fn http2_over<S>(address: SocketAddr, stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let driver = tokio::spawn(async move { _ = connection.await });
        Self { address, sender: Sender::Http2(sender), driver }
    }

    /// Sends a request and waits for the answer's header.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Open {
        self.try_ask(method, path, headers, body).await.expect("the connection broke before an answer")
    }

    /// The same, where the answer may break before its header is whole.
    pub async fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Open, hyper::Error> {
        let is_http2 = matches!(self.sender, Sender::Http2(_));
        let uri = if is_http2 { format!("http://{}{path}", self.address) } else { path.to_owned() };
        let mut request = Request::builder().method(method).uri(uri);
        if !is_http2 {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    let mut sender = sender.clone();
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                }
            }
        };
        tokio::time::timeout(SOON * 2, answer).await.expect("no answer in time").map(Open)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// An answer whose body is still to be read. Dropped, it leaves the rest unread.
pub struct Open(Response<Incoming>);

impl Open {
    /// The next piece of the body; `None` at a clean end.
    pub async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = tokio::time::timeout(SOON, self.0.body_mut().frame()).await.expect("no piece in time")?;
        Some(frame.map(|frame| frame.into_data().expect("trailers were not announced")))
    }

    /// The rest of it.
    pub async fn whole(self) -> Answer {
        let (parts, body) = self.0.into_parts();
        let body = tokio::time::timeout(SOON * 2, body.collect()).await.expect("no end in time");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.ok().map(|body| body.to_bytes()) }
    }
}
