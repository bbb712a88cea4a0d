//! The listeners and everything that happens to a connection before a request is understood: caps, deadlines, the
//! protocol, the body, the Host, the Origin. Each worker is one thread with its own socket and its own runtime; a
//! connection stays on the thread that accepted it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Body;
use hyper::http::request::Parts;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

mod accept;
pub mod body;
mod connection;
pub mod cors;
pub mod drain;
mod exchange;
mod http1;
mod http2;
pub mod hosts;
pub mod in_flight;
pub mod listen;
pub mod proxies;
mod pulse;
mod seats;
mod sending;
pub mod settings;
mod socket;
mod stream;
pub mod tally;
pub mod tls;

#[cfg(test)]
mod tests;

use self::accept::Worker;
use self::body::Upload;
use self::drain::Drain;
use self::listen::Listeners;
use self::seats::Seats;
use self::settings::Settings;
use self::tally::Tally;
use self::tls::Certificates;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address the connection came from.
    pub address: SocketAddr,
}

/// What answers the requests of one worker. It never leaves the worker's thread, so it need not be `Send`.
pub trait Handler: 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static;

    /// Answers one request. The future is dropped when the client leaves: what must go on is a task of its own.
    fn handle(
        self: Rc<Self>,
        head: Parts,
        upload: Upload,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;

    /// Fetches more of an answer that the client has no room for, as long as fewer than `most` bytes of it wait, and says
    /// how many wait then: its next frame has all of them.
    fn fetch(_body: &mut Self::Body, _context: &mut Context<'_>, _most: usize) -> usize {
        0
    }

    /// The answer of a request whose handling panicked: our `internal_error`.
    fn broken(&self) -> Response<Self::Body>;
}

/// The running workers of one address.
#[derive(Debug)]
pub struct Servers {
    address: SocketAddr,
    drain: Drain,
    workers: Vec<Thread>,
}

/// A worker's thread, and the word that it has ended.
#[derive(Debug)]
struct Thread {
    ended: oneshot::Receiver<()>,
    handle: JoinHandle<()>,
}

impl Servers {
    /// Starts one worker for each socket of `listeners`; with `certificates` it speaks TLS. `make` is called once in each worker's thread, inside its
    /// runtime, and makes what answers there.
    ///
    /// # Errors
    /// If a thread or its runtime cannot be made; the workers that were already started end.
    pub fn start<H: Handler>(
        listeners: Listeners,
        settings: &Settings,
        drain: &Drain,
        tally: &Arc<Tally>,
        certificates: Option<&Arc<Certificates>>,
        make: impl Fn() -> H + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let address = listeners.address();
        let seats = Seats::new(settings, Arc::clone(tally));
        let mut servers = Self { address, drain: drain.clone(), workers: Vec::new() };
        for (number, listener) in listeners.into_sockets().into_iter().enumerate() {
            let worker = Worker::new(listener, settings, drain, tally, &seats, certificates.cloned());
            match servers.spawn(number, worker, make.clone()) {
                Ok(thread) => servers.workers.push(thread),
                Err(error) => {
                    drain.abort();
                    return Err(error);
                }
            }
        }
        Ok(servers)
    }

    /// Starts a worker's thread and waits for the word that it listens.
    fn spawn<H: Handler>(
        &self,
        number: usize,
        worker: Worker,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> io::Result<Thread> {
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let (ending, ended) = oneshot::channel();
        let handle = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            worker.run(make, &started);
            // Nobody listens if `close` gave up before.
            let _ = ending.send(());
        })?;
        start.recv().unwrap_or_else(|_| Err(io::Error::other("a worker ended before it listened")))?;
        Ok(Thread { ended, handle })
    }

    /// The address that is listened on, with the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops to accept, lets the requests in work finish, and cuts off what is still open after `grace`, or at once
    /// when [`Drain::abort`] is called. Returns whether every worker has ended by itself or by the cut; a worker that
    /// is stuck is left behind.
    pub async fn close(self, grace: Duration) -> bool {
        self.drain.close();
        let deadline = Instant::now() + grace;
        let (last, mut all_ended) = (deadline + LAST_WAIT, true);
        for mut thread in self.workers {
            let mut has_ended = tokio::select! {
                ended = timeout_at(deadline, &mut thread.ended) => ended.is_ok(),
                () = self.drain.aborted() => false,
            };
            if !has_ended {
                self.drain.abort();
                let last = last.min(Instant::now() + LAST_WAIT);
                has_ended = timeout_at(last, &mut thread.ended).await.is_ok();
            }
            if has_ended {
                // Its last word was said, so this does not block; a panic has spoken for itself.
                let _ = thread.handle.join();
            }
            all_ended &= has_ended;
        }
        all_ended
    }
}

/// How long a worker whose connections are cut off may take to end.
const LAST_WAIT: Duration = Duration::from_secs(2);
