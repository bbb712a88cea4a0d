//! The API behind, simulated: for the demo, for `reelgate simulate`, and for every test over sockets. It speaks
//! CometAPI's Grok surface over a raw socket, keeps the bytes that it received, and goes wrong in every way a test
//! asks for. Open `fault.rs` to see how, `routes.rs` to see what it answers.

mod answer;
pub mod arguments;
mod connection;
mod control;
mod fault;
mod gzip;
mod job;
mod plan;
mod reader;
mod routes;
mod state;
#[cfg(test)]
mod tests;
mod video;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

pub use fault::{CutAt, Fault, Form, How, Malformed, Odd};
pub use job::{End, Job, Pending, Shape};
pub use state::{Counts, Received};

use state::State;

/// The most connections at a time; more wait.
const MAX_CONNECTIONS: usize = 20_000;

/// How the simulated upstream behaves when nothing is said about a single request.
#[derive(Clone)]
pub struct Options {
    /// Where it listens; port 0 finds a free one.
    pub listen: SocketAddr,
    /// The key that requests must hold; without one, any will do.
    pub key: Option<String>,
    /// How long a job takes.
    pub job_duration: Duration,
    /// How long each answer takes. A fault's own delay stands instead.
    pub answer_delay: Duration,
    /// How polls look.
    pub shape: Shape,
    /// How jobs end.
    pub default_end: End,
    /// How unfinished jobs show.
    pub default_pending: Pending,
    /// Header fields on each answer of the API.
    pub headers: Vec<(String, String)>,
    /// Where clients find the videos, if not at the address it listens on.
    pub public_origin: Option<String>,
    /// Faults of submissions and how often they come, 0 to 1.
    pub submission_chances: Vec<(Fault, f64)>,
    /// Faults of polls and how often they come, 0 to 1.
    pub poll_chances: Vec<(Fault, f64)>,
    /// What the chances are drawn from.
    pub seed: u64,
    /// How many requests are remembered.
    pub keep_requests: usize,
    /// How many bytes of requests are remembered.
    pub keep_bytes: usize,
    /// How many jobs are remembered; a forgotten one is unknown.
    pub keep_jobs: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: None,
            job_duration: Duration::from_secs(8),
            answer_delay: Duration::ZERO,
            shape: Shape::default(),
            default_end: End::default(),
            default_pending: Pending::default(),
            headers: Vec::new(),
            public_origin: None,
            submission_chances: Vec::new(),
            poll_chances: Vec::new(),
            seed: 0,
            keep_requests: 100_000,
            keep_bytes: 64 * 1024 * 1024,
            keep_jobs: 100_000,
        }
    }
}

/// A running simulated upstream. It ends when this is dropped.
pub struct Simulator {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Simulator {
    /// Starts it on the current runtime.
    pub async fn start(options: Options) -> io::Result<Simulator> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let origin = options.public_origin.clone().unwrap_or_else(|| origin(address));
        let state = Arc::new(State::new(options, origin));
        #[expect(clippy::disallowed_methods, reason = "its handle is kept, and aborted at the end")]
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Simulator { address, state, accepting })
    }

    /// Ends it: the listener and all connections are closed when this returns.
    pub async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        let _ = self.wait_until(|counts| counts.open == 0, Duration::from_secs(5)).await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL without a path.
    pub fn origin(&self) -> String {
        origin(self.address)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.state.counts()
    }

    /// POSTs to a submission route so far, those that were cut inside included.
    pub fn posts(&self) -> u64 {
        self.counts().posts
    }

    /// Polls so far.
    pub fn polls(&self) -> u64 {
        self.counts().polls
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.counts().connections
    }

    /// Waits until the counts are as `wanted`, for at most `bound`. Whether they were.
    pub async fn wait_until(&self, wanted: impl FnMut(&Counts) -> bool, bound: Duration) -> bool {
        let mut watch = self.state.watch();
        matches!(timeout(bound, watch.wait_for(wanted)).await, Ok(Ok(_)))
    }

    /// The requests that it remembers, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.state.memory().received.iter().cloned().collect()
    }

    /// The jobs that it remembers, oldest first.
    pub fn accepted(&self) -> Vec<Job> {
        let memory = self.state.memory();
        memory.order.iter().filter_map(|id| memory.jobs.get(id)).cloned().collect()
    }

    /// What to do with the next submission that has no fault yet.
    pub fn next_submission(&self, fault: Fault) {
        self.state.memory().submissions.next.push_back(fault);
    }

    /// What to do with the next poll that has no fault yet.
    pub fn next_poll(&self, fault: Fault) {
        self.state.memory().polls.next.push_back(fault);
    }

    /// Cuts the next connection as soon as it is accepted, before anything is read.
    pub fn next_connection(&self, how: How) {
        self.state.memory().connections.push_back(how);
    }

    /// What to do with all submissions for which nothing is queued.
    pub fn always_submission(&self, fault: Option<Fault>) {
        self.state.memory().submissions.always = fault;
    }

    /// What to do with all polls for which nothing is queued.
    pub fn always_poll(&self, fault: Option<Fault>) {
        self.state.memory().polls.always = fault;
    }

    /// Nothing that was queued goes wrong any more.
    pub fn clear_queues(&self) {
        let mut memory = self.state.memory();
        memory.submissions.next.clear();
        memory.polls.next.clear();
        memory.connections.clear();
    }

    /// Ends a job now, in that way. Whether the job is known.
    pub fn finish(&self, request_id: &str, end: End) -> bool {
        let mut memory = self.state.memory();
        let job = memory.jobs.get_mut(request_id);
        job.map(|job| (job.end, job.takes) = (end, Duration::ZERO)).is_some()
    }

    /// Forgets the jobs, so that polls of them are answered as unknown.
    pub fn forget_jobs(&self) {
        let mut memory = self.state.memory();
        memory.jobs.clear();
        memory.order.clear();
    }

    /// Forgets all: requests, jobs, faults; the counts begin again.
    pub fn forget(&self) {
        self.state.forget();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts connections for ever. When this task is dropped, so are they.
async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    connections.spawn(connection::serve(stream, number, Arc::clone(&state)));
                }
                // Out of descriptors, most likely: they come back as connections end.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn origin(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
        _ => format!("http://{address}"),
    }
}
