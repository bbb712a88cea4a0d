//! A network that fails at a chosen byte: between clients and the gateway, or between the gateway and its upstream.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// Those of requests.
    Server,
    /// Those of answers.
    Client,
}

/// What happens in front of the chosen byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Both connections are reset.
    Reset,
    /// Both connections end in an orderly way.
    Close,
    /// Nothing passes any more, and nothing is closed.
    Stall,
    /// From there on the bytes pass one by one.
    Trickle,
}

/// One failure of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub towards: Towards,
    pub at: usize,
    pub how: Failure,
}

/// Passes connections on to a server.
pub struct FaultProxy {
    pub address: SocketAddr,
    next: Arc<Mutex<Option<Fault>>>,
    server: Arc<Mutex<Option<SocketAddr>>>,
    serving: JoinHandle<()>,
    /// Everything that passes ends with it.
    _alive: watch::Sender<()>,
}

impl FaultProxy {
    /// In front of this server.
    pub async fn start(server: SocketAddr) -> Self {
        let proxy = Self::begin().await;
        proxy.lead_to(server);
        proxy
    }

    /// In front of a server that is not there yet.
    pub async fn begin() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let next: Arc<Mutex<Option<Fault>>> = Arc::default();
        let server: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (faults, towards) = (next.clone(), server.clone());
        let (alive, ended) = watch::channel(());
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let fault = faults.lock().unwrap().take();
                let server = towards.lock().unwrap().expect("it leads nowhere yet");
                let mut ended = ended.clone();
                tokio::spawn(async move {
                    let Ok(upstream) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        () = pass(client, upstream, fault) => {}
                        _ = ended.changed() => {}
                    }
                });
            }
        });
        Self { address, next, server, serving, _alive: alive }
    }

    /// From now on it leads to this server.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = Some(server);
    }

    /// The next connection fails like this; those behind it pass.
    pub fn next(&self, fault: Fault) {
        *self.next.lock().unwrap() = Some(fault);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, fault: Option<Fault>) {
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
        if fault.is_some_and(|fault| fault.how == Failure::Reset) {
            // What closes it then resets it.
            socket.set_zero_linger().unwrap();
        }
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let of = |towards| fault.filter(|fault| fault.towards == towards);
    let up = copy(from_client, to_server, of(Towards::Server));
    let down = copy(from_server, to_client, of(Towards::Client));
    tokio::pin!(up, down);
    // A fault ends both ways; an end of one way leaves the other open.
    let (is_cut, rest): (bool, std::pin::Pin<&mut (dyn Future<Output = bool> + Send)>) = tokio::select! {
        cut = &mut up => (cut, down),
        cut = &mut down => (cut, up),
    };
    if !is_cut {
        _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
    }
}

/// Copies until the end or the fault; whether it was the fault.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: Option<Fault>) -> bool {
    let (mut passed, mut buffer) = (0, vec![0; 16 << 10]);
    loop {
        let left = fault.filter(|fault| fault.how != Failure::Trickle).map(|fault| fault.at - passed);
        if left == Some(0) {
            // In front of a byte, so when there is one.
            _ = from.readable().await;
            if fault.is_some_and(|fault| fault.how == Failure::Stall) {
                std::future::pending::<()>().await;
            }
            return true;
        }
        let most = left.map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => {
                _ = to.shutdown().await;
                return false;
            }
            Ok(count) => count,
        };
        let slow_from = fault.filter(|fault| fault.how == Failure::Trickle).map_or(usize::MAX, |fault| fault.at);
        let (quick, slow) = buffer[..count].split_at(slow_from.saturating_sub(passed).min(count));
        if to.write_all(quick).await.is_err() {
            return false;
        }
        for byte in slow {
            tokio::time::sleep(Duration::from_micros(200)).await;
            if to.write_all(&[*byte]).await.is_err() {
                return false;
            }
        }
        passed += count;
    }
}
