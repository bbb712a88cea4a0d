//! The clients: one thread, which sends on each connection, waits for the answers of all, and sends again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustls::ClientConnection;

use super::drive::{Drive, Made, Opener};
use super::poller::{Poller, Ready};
use super::requests::Requests;
use super::wire::{PATIENCE, Wire};

/// All of them, and what they made so far.
pub struct Clients {
    rate: Option<u32>,
    limit: u64,
    patience: Duration,
    requests: Requests,
    open: Opener,
    poller: Poller,
    clients: Vec<Client>,
    /// Who has nothing to do, in the order in which they ended.
    free: VecDeque<usize>,
    started: u64,
    seconds: f64,
    /// How long each request took from when it was due, in tenths of microseconds.
    took: Vec<u32>,
    failed: u64,
    first_failure: String,
}

/// One connection.
struct Client {
    wire: Wire<ClientConnection>,
    /// When what it asks should have been asked.
    due: Instant,
    /// Whether the other end has not taken all of it yet.
    sends: bool,
}

impl Clients {
    /// Connects.
    pub fn new(drive: &Drive, requests: Requests, open: Opener) -> io::Result<Self> {
        let patience = if drive.requests.is_some() { Duration::MAX } else { Duration::from_secs_f64(drive.seconds) };
        let mut these = Self {
            rate: drive.rate,
            limit: drive.requests.unwrap_or(u64::MAX),
            patience,
            requests,
            open,
            poller: Poller::new()?,
            clients: Vec::new(),
            free: (0..drive.connections).collect(),
            started: 0,
            seconds: 0.0,
            took: Vec::new(),
            failed: 0,
            first_failure: String::new(),
        };
        for number in 0..drive.connections {
            let client = these.connect(number)?;
            these.clients.push(client);
        }
        Ok(these)
    }

    fn connect(&self, number: usize) -> io::Result<Client> {
        let stream = self.open.open()?;
        stream.socket().set_nonblocking(true)?;
        let wire = Wire::new(stream);
        self.poller.add(&wire, number)?;
        Ok(Client { wire, due: Instant::now(), sends: false })
    }

    /// Asks until the time is over or all was asked, and waits for the last answers.
    pub fn run(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let until = begun.checked_add(self.patience);
        let timer = self.rate.map(ticking).transpose()?;
        if let Some(timer) = &timer {
            self.poller.add(timer, TIMER)?;
        }
        let mut ready = Vec::new();
        loop {
            while let Some(due) = self.due(begun)
                && until.is_none_or(|until| due < until)
                && let Some(number) = self.free.pop_front()
            {
                self.ask(number, due)?;
            }
            let is_over = self.started >= self.limit || until.is_some_and(|until| Instant::now() >= until);
            if is_over && self.free.len() == self.clients.len() {
                self.seconds = begun.elapsed().as_secs_f64();
                return Ok(());
            }
            self.poller.wait(PATIENCE, &mut ready)?;
            if ready.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for ready in &ready {
                match &timer {
                    Some(timer) if ready.number == TIMER => drop(rustix::io::read(timer, &mut [0; 8])?),
                    _ => self.go_on(*ready)?,
                }
            }
        }
    }

    /// When the next request is due, if it is.
    fn due(&self, begun: Instant) -> Option<Instant> {
        if self.started >= self.limit {
            return None;
        }
        let now = Instant::now();
        match self.rate {
            // Whoever is free asks at once.
            None => Some(now),
            Some(rate) => {
                let due = begun + Duration::from_secs_f64(self.started as f64 / f64::from(rate));
                (due <= now).then_some(due)
            }
        }
    }

    fn ask(&mut self, number: usize, due: Instant) -> io::Result<()> {
        let request = self.requests.get(self.started);
        self.started += 1;
        let client = &mut self.clients[number];
        client.due = due;
        match client.wire.send(&request) {
            Ok(true) => Ok(()),
            Ok(false) => {
                client.sends = true;
                self.poller.watch_writing(&client.wire, number, true)
            }
            Err(error) => self.fail(number, &error),
        }
    }

    /// Sends or reads on.
    fn go_on(&mut self, ready: Ready) -> io::Result<()> {
        let Ready { number, writable, readable } = ready;
        let client = &mut self.clients[number];
        if writable && client.sends {
            match client.wire.resume() {
                Ok(true) => {
                    client.sends = false;
                    self.poller.watch_writing(&client.wire, number, false)?;
                }
                Ok(false) => {}
                Err(error) => return self.fail(number, &error),
            }
        }
        if !readable {
            return Ok(());
        }
        match client.wire.receive().and_then(|message| message.map(|message| message.good()).transpose()) {
            Ok(None) => Ok(()),
            Ok(Some(())) => {
                self.end(number);
                Ok(())
            }
            Err(error) => self.fail(number, &error),
        }
    }

    /// Counts what failed, and connects anew.
    fn fail(&mut self, number: usize, error: &io::Error) -> io::Result<()> {
        self.failed += 1;
        if self.failed == 1 {
            self.first_failure = error.to_string();
        }
        let due = self.clients[number].due;
        self.clients[number] = Client { due, ..self.connect(number)? };
        self.end(number);
        Ok(())
    }

    fn end(&mut self, number: usize) {
        let took = self.clients[number].due.elapsed().as_nanos() / 100;
        self.took.push(u32::try_from(took).unwrap_or(u32::MAX));
        self.free.push_back(number);
    }

    /// What they made.
    pub fn made(mut self) -> Made {
        self.took.sort_unstable();
        let took = &self.took;
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |one| f64::from(*one) / 10.0);
        let (p50, p99, requests) = (at(0.5), at(0.99), took.len() as u64);
        Made { requests, seconds: self.seconds, failed: self.failed, first_failure: self.first_failure, p50, p99 }
    }
}

/// A timer that is ready so many times a second: an epoll's own patience is counted in milliseconds.
fn ticking(rate: u32) -> io::Result<OwnedFd> {
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let every = Timespec::try_from(Duration::from_secs(1) / rate).map_err(io::Error::other)?;
    let always = Itimerspec { it_interval: every, it_value: every };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &always)?;
    Ok(timer)
}

/// The timer's number, which no client has.
const TIMER: usize = usize::MAX;
