//! A worker: its thread, its runtime, and the loop that accepts. Failing to accept is waited out, never the end: it
//! mostly means that no descriptor is left.

use std::io;
use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::connection::Connections;
use super::drain::{Drain, Phase};
use super::listen::BACKLOG;
use super::seats::Seats;
use super::settings::Settings;
use super::tally::{Closed, Tally};
use super::tls::Certificates;
use super::{Handler, Peer};
use crate::panics::caught;

/// What a worker takes to its thread.
pub(super) struct Worker {
    listener: StdListener,
    settings: Settings,
    drain: Drain,
    tally: Arc<Tally>,
    seats: Arc<Seats>,
    certificates: Option<Arc<Certificates>>,
}

impl Worker {
    pub(super) fn new(
        listener: StdListener,
        settings: &Settings,
        drain: &Drain,
        tally: &Arc<Tally>,
        seats: &Arc<Seats>,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        let (tally, seats) = (Arc::clone(tally), Arc::clone(seats));
        Self { listener, settings: settings.clone(), drain: drain.clone(), tally, seats, certificates }
    }

    /// Serves on the calling thread until the drain ends it. Says on `started` whether it listens.
    pub(super) fn run<H: Handler>(self, make: impl FnOnce() -> H, started: &SyncSender<io::Result<()>>) {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        runtime.block_on(async {
            let Self { listener, settings, drain, tally, seats, certificates } = self;
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return drop(started.send(Err(error))),
            };
            let connections = Connections::new(make(), &settings, drain, tally, certificates);
            let door = Rc::new(Door { connections, seats, tracker: TaskTracker::new() });
            // `start` waits for this word; if it is gone, the drain says so too.
            let _ = started.send(Ok(()));
            door.accept(listener).await;
            door.wait().await;
        });
        // Dropping the runtime drops what is still in it: connections that are open, and what their requests have begun.
    }
}

/// Where the connections of one worker come in.
struct Door<H: Handler> {
    connections: Rc<Connections<H>>,
    seats: Arc<Seats>,
    tracker: TaskTracker,
}

impl<H: Handler> Door<H> {
    /// Lets connections in until the drain closes; then those that already stand in the queue, and no more.
    async fn accept(&self, listener: TcpListener) {
        let closing = self.connections.drain.reached(Phase::Closing);
        tokio::pin!(closing);
        let mut has_failed = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut closing => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, address)) => {
                    has_failed = false;
                    self.admit(socket, Peer { address });
                }
                Err(error) => {
                    self.connections.tally.add_accept_error();
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!(%error, "a connection could not be accepted: trying again, and not saying so");
                    }
                    if needs_room(&error) {
                        tokio::select! {
                            () = &mut closing => break,
                            () = sleep(BACK_OFF) => {}
                        }
                    }
                }
            }
        }
        // Closing the listener would reset what the kernel has already greeted in our name.
        for _ in 0..BACKLOG {
            let Ok(Ok((socket, address))) = timeout(Duration::ZERO, listener.accept()).await else { break };
            self.admit(socket, Peer { address });
        }
    }

    /// Serves a connection in a task of its own, if there is a seat for it; else it is closed at once.
    fn admit(&self, socket: TcpStream, peer: Peer) {
        let seat = match self.seats.take(peer.address.ip()) {
            Ok(seat) => seat,
            Err(reason) => return self.connections.tally.add_closed(reason),
        };
        let connections = Rc::clone(&self.connections);
        let serving = self.tracker.track_future(async move {
            let _seat = seat;
            let tally = Arc::clone(&connections.tally);
            if let Err(reason) = caught(pin!(connections.serve(socket, peer))).await.unwrap_or_else(|_| {
                tally.add_panic();
                tracing::error!("a connection panicked: it was closed");
                Err(Closed::Panic)
            }) {
                tally.add_closed(reason);
            }
        });
        tokio::task::spawn_local(serving);
    }

    /// Waits for the connections that are still open, unless they are to be cut off.
    async fn wait(&self) {
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = self.connections.drain.aborted() => {
                for _ in 0..self.tracker.len() {
                    self.connections.tally.add_closed(Closed::Drain);
                }
            }
        }
    }
}

/// Whether accepting failed for want of descriptors or memory, so that trying again at once would only spin.
fn needs_room(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// How long to wait when no connection can be accepted.
const BACK_OFF: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f64_a_lack_of_descriptors_is_waited_out_and_a_client_that_left_is_not() {
        for errno in
            [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS, rustix::io::Errno::NOMEM]
        {
            assert!(needs_room(&errno.into()), "{errno}");
        }
        for errno in [rustix::io::Errno::CONNABORTED, rustix::io::Errno::CONNRESET, rustix::io::Errno::INTR] {
            assert!(!needs_room(&errno.into()), "{errno}");
        }
    }
}
