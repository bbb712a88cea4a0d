//! What waits until sockets can be read or written. One thread for all connections at each end of a measurement: with a
//! thread for each, whoever is measured would have to wake another one with every answer, and would be charged for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// An epoll.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// A socket that is ready, by the number that it was added with.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub number: usize,
    pub writable: bool,
    /// Also if it was closed, which is found by reading.
    pub readable: bool,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(512) })
    }

    /// From now on it is told when there is something to read. A socket that is closed is forgotten.
    pub fn add(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?)
    }

    /// Whether it is told as well when more can be written.
    pub fn watch_writing(&self, socket: impl AsFd, number: usize, watched: bool) -> io::Result<()> {
        let flags = match watched {
            true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            false => epoll::EventFlags::IN,
        };
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(number as u64), flags)?)
    }

    /// Waits until some are ready, and tells which; nothing is when the time is over.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.drain(..).map(|event| {
            let flags = event.flags;
            let readable = flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Ready { number: event.data.u64() as usize, writable: flags.contains(epoll::EventFlags::OUT), readable }
        }));
        Ok(())
    }
}
