//! The way to the upstream, closed or blocked until a test opens it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::SOON;

/// An address in front of the upstream. Its port is taken from the start, so that nobody else can get it.
pub struct Door {
    address: SocketAddr,
    state: Option<State>,
}

enum State {
    /// Connections are refused.
    Closed(TcpSocket),
    /// Connections hang: the queue of those not yet accepted is full.
    Blocked(TcpListener, Vec<TcpStream>),
    /// Connections go on to the upstream.
    Open(JoinHandle<()>),
}

impl Door {
    /// A door that refuses.
    pub fn closed() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self { address: socket.local_addr().unwrap(), state: Some(State::Closed(socket)) }
    }

    /// A door before which connections wait.
    pub async fn blocked() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // The queue is full when a connection is not made at once.
        while let Ok(stream) = tokio::time::timeout(SOON / 50, TcpStream::connect(address)).await {
            waiting.push(stream.unwrap());
            assert!(waiting.len() < 100, "the queue is never full");
        }
        Self { address, state: Some(State::Blocked(listener, waiting)) }
    }

    /// Its address as an origin.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets connections through to `upstream` from now on.
    pub fn open(&mut self, upstream: SocketAddr) {
        let listener = match self.state.take() {
            Some(State::Closed(socket)) => socket.listen(1024).unwrap(),
            Some(State::Blocked(listener, waiting)) => {
                drop(waiting);
                listener
            }
            Some(State::Open(_)) | None => panic!("it is open already"),
        };
        self.state = Some(State::Open(tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { return };
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        })));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(State::Open(task)) = &self.state {
            task.abort();
        }
    }
}
