//! What can be seen of an HTTP/1 connection from outside of hyper, and what it means: whether it works, whether a client
//! takes too long over a header, whether it is idle and may be parked. It is looked at now and then, so that a request
//! costs no timer of its own; what is too long is therefore found late by one look.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// The signs of life of one connection: told by its stream and its requests.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Bytes came, and nobody has said that they were the last of a request.
    is_sending: Cell<bool>,
    /// A request has begun, and its answer's body is not at its end.
    is_in_work: Cell<bool>,
    /// The socket takes no bytes, or the connection is being closed: that has a timer of its own.
    is_busy: Cell<bool>,
    requests: Cell<u64>,
    moves: Cell<u64>,
}

impl Pulse {
    /// Bytes of HTTP were read or written: within TLS those that it carries.
    pub(super) fn moved(&self) {
        self.moves.set(self.moves.get().wrapping_add(1));
    }

    /// How often bytes of HTTP were read or written; it counts on from 0 past its end.
    pub(super) fn moves(&self) -> u64 {
        self.moves.get()
    }

    /// Whether the client may be in the middle of sending.
    pub(super) fn is_sending(&self) -> bool {
        self.is_sending.get()
    }

    /// Where whoever understands the bytes says whether the client may still be sending.
    pub(super) fn set_sending(&self, is_sending: bool) {
        self.is_sending.set(is_sending);
    }

    /// Whether something else bounds the time of this connection now.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.is_busy.set(is_busy);
    }

    /// A header was read whole.
    pub(super) fn begin_request(&self) {
        self.requests.set(self.requests.get().wrapping_add(1));
        self.is_in_work.set(true);
    }

    /// The answer's body has come to its end.
    pub(super) fn end_request(&self) {
        self.is_in_work.set(false);
    }

    /// Whether there has been a request.
    pub(super) fn has_begun(&self) -> bool {
        self.requests.get() > 0
    }
}

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing yet: look again then.
    Again(Instant),
    /// The client takes too long over a header.
    TooLong,
    /// Nothing is in work, nothing half read, nothing half written.
    Idle,
}

/// Looks at one connection's pulse from time to time.
#[derive(Debug)]
pub(super) struct Watch {
    /// When the header began that is now on its way.
    header_since: Option<Instant>,
    first_header_timeout: Duration,
    header_timeout: Duration,
    requests: u64,
    moves: u64,
    pause: Duration,
}

impl Watch {
    /// A connection on which the first bytes have come. The first header of this watch may take `first_header_timeout`.
    pub(super) fn begin(now: Instant, first_header_timeout: Duration, header_timeout: Duration) -> Self {
        Self {
            header_since: Some(now),
            first_header_timeout,
            header_timeout,
            requests: 0,
            moves: 0,
            pause: SHORTEST_PAUSE,
        }
    }

    /// How long to wait for the next look.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Looks.
    pub(super) fn look(&mut self, pulse: &Pulse, now: Instant) -> Look {
        let has_moved = std::mem::replace(&mut self.moves, pulse.moves()) != pulse.moves();
        if std::mem::replace(&mut self.requests, pulse.requests.get()) != pulse.requests.get() {
            self.header_since = None;
            self.first_header_timeout = self.header_timeout;
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let next = now + self.pause;
        if pulse.is_in_work.get() || pulse.is_busy.get() {
            self.header_since = None;
            return Look::Again(next);
        }
        if pulse.is_sending.get() {
            let end = *self.header_since.get_or_insert(now) + self.first_header_timeout;
            return if now >= end { Look::TooLong } else { Look::Again(next.min(end)) };
        }
        self.header_since = None;
        // What has just moved may be half written by a hyper that lets others go first.
        if has_moved { Look::Again(next) } else { Look::Idle }
    }
}

/// Short, so that many connections that ask once are not all awake together.
const SHORTEST_PAUSE: Duration = Duration::from_millis(40);
/// Long, so that a connection that is never idle costs a look now and then.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(15);
    const LATER: Duration = Duration::from_secs(75);

    /// Looks until something else than waiting comes of it, and tells when that was.
    fn end(watch: &mut Watch, pulse: &Pulse, mut now: Instant) -> (Look, Instant) {
        loop {
            match watch.look(pulse, now) {
                Look::Again(next) => {
                    assert!(next > now && next <= now + LONGEST_PAUSE);
                    now = next;
                }
                look => return (look, now),
            }
        }
    }

    #[tokio::test]
    async fn lim2_h21_a_header_has_its_time_from_its_first_byte_whatever_drips_in() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        pulse.set_sending(true);
        let mut watch = Watch::begin(start, FIRST, LATER);
        assert_eq!(end(&mut watch, &pulse, start), (Look::TooLong, start + FIRST));

        // The next header of the same connection has the longer time.
        pulse.begin_request();
        pulse.end_request();
        pulse.set_sending(true);
        let mut watch = Watch::begin(start, FIRST, LATER);
        let (look, when) = end(&mut watch, &pulse, start);
        assert_eq!((look, when), (Look::TooLong, start + LATER));
    }

    #[tokio::test]
    async fn h24_a_connection_is_idle_only_after_a_look_without_a_move() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        pulse.begin_request();
        pulse.moved();
        let mut watch = Watch::begin(start, FIRST, LATER);
        for _ in 0..100 {
            assert!(matches!(watch.look(&pulse, start), Look::Again(_)), "it is in work");
        }
        pulse.end_request();
        pulse.moved();
        assert!(matches!(watch.look(&pulse, start), Look::Again(_)), "its answer was just written");
        pulse.set_busy(true);
        assert!(matches!(watch.look(&pulse, start), Look::Again(_)), "its answer is half written");
        pulse.set_busy(false);
        assert_eq!(watch.look(&pulse, start), Look::Idle);
    }
}
