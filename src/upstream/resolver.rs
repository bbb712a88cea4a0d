//! The upstream's addresses, as the system's resolver tells them. Such a look-up (`getaddrinfo`) blocks a thread and
//! cannot be given up, so there is one at a time in the whole process, on a thread of its own, and everybody who needs an
//! address waits for it: a resolver that hangs keeps one thread and nothing else. Each new connection asks anew; where
//! the answer fails or is late, the last good one serves for a while.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::error::Unreached;

/// Looks one name up.
pub(super) struct Resolver(Arc<Shared>);

/// What is known, and how more is learnt.
struct Shared {
    look_up: Box<LookUp>,
    state: Mutex<State>,
}

/// Blocks for as long as it likes.
type LookUp = dyn Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync;

#[derive(Default)]
struct State {
    /// The last look-up, over or not.
    flight: Option<Flight>,
    /// The last one that found something.
    good: Option<Good>,
    /// Whether it was logged that older addresses serve.
    is_told: bool,
}

/// A look-up that was begun.
#[derive(Clone)]
struct Flight {
    since: Instant,
    /// Carries nothing: its other end is dropped when the look-up is over, be it by a panic.
    over: watch::Receiver<()>,
}

/// What a look-up found.
struct Good {
    addresses: Arc<[SocketAddr]>,
    /// When it was begun.
    since: Instant,
}

impl Resolver {
    /// Asks the system for a host's addresses.
    pub(super) fn system(host: &str, port: u16) -> Self {
        let host = host.to_owned();
        Self::new(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
    }

    /// Asks `look_up`, on a thread where it may block.
    pub(super) fn new(look_up: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { look_up: Box::new(look_up), state: Mutex::default() }))
    }

    /// The addresses, in the order in which they are to be tried; there is at least one.
    ///
    /// # Errors
    /// If none was found, or none in time, and none is known from before.
    pub(super) async fn resolve(&self, deadline: Instant) -> Result<Arc<[SocketAddr]>, Unreached> {
        let now = Instant::now();
        let (mut flight, until) = {
            let mut state = self.0.state();
            let flight = self.0.flight(&mut state, now);
            // Who has something to fall back on leaves itself time to connect to it.
            let until = match state.good(now) {
                Some(_) => (flight.since + PATIENCE).min(now + deadline.saturating_duration_since(now) / 2),
                None => deadline,
            };
            (flight, until)
        };
        let is_late = timeout_at(until, flight.over.changed()).await.is_err();
        let mut state = self.0.state();
        let Some(good) = state.good(Instant::now()) else {
            return Err(if is_late { Unreached::Timeout } else { Unreached::Dns });
        };
        let (addresses, is_older) = (good.addresses.clone(), good.since < flight.since);
        if is_older && !std::mem::replace(&mut state.is_told, true) {
            warn!("the name of the upstream cannot be looked up: the last addresses serve, for an hour at most");
        }
        Ok(addresses)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The look-up that is going on, or a new one.
    fn flight(self: &Arc<Self>, state: &mut State, now: Instant) -> Flight {
        if let Some(flight) = state.flight.as_ref().filter(|flight| flight.over.has_changed().is_ok()) {
            return flight.clone();
        }
        let (ending, over) = watch::channel(());
        let shared = Arc::clone(self);
        // A runtime would wait for it when it ends; the process does not. If there can be no thread, it is over at once.
        let begun = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            shared.learn((shared.look_up)(), now);
            drop(ending);
        });
        if let Err(error) = begun {
            warn!(%error, "there is no thread to look up the name of the upstream");
        }
        state.flight.insert(Flight { since: now, over }).clone()
    }

    fn learn(&self, found: io::Result<Vec<SocketAddr>>, since: Instant) {
        // Whoever waits tells why there is no connection; that older addresses serve is logged.
        let mut addresses = found.unwrap_or_default();
        addresses.truncate(MOST_ADDRESSES);
        if !addresses.is_empty() {
            let mut state = self.state();
            (state.good, state.is_told) = (Some(Good { addresses: addresses.into(), since }), false);
        }
    }
}

impl State {
    /// What was found last, unless that is too long ago.
    fn good(&self, now: Instant) -> Option<&Good> {
        self.good.as_ref().filter(|good| now.saturating_duration_since(good.since) < LAST_GOOD)
    }
}

/// How long a look-up may take before the addresses found last serve instead, if there are any.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long addresses serve that cannot be looked up again: longer than a resolver should be away. That it is still the
/// upstream who is reached there says its certificate.
const LAST_GOOD: Duration = Duration::from_secs(3600);
/// More addresses of one name are not tried.
const MOST_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Longer than anything here takes.
    const BOUND: Duration = Duration::from_secs(20);

    /// An outcome of a look-up: the last octets of what it finds, or nothing.
    type Outcome = Option<Vec<u8>>;

    /// A resolver whose look-ups end when the test says how, and how many have begun.
    fn scripted() -> (Resolver, mpsc::Sender<Outcome>, Arc<AtomicUsize>) {
        let (say, said) = mpsc::channel::<Outcome>();
        let (said, begun) = (Mutex::new(said), Arc::new(AtomicUsize::new(0)));
        let count = begun.clone();
        let look_up = move || {
            count.fetch_add(1, Ordering::SeqCst);
            // It hangs until then; when the test is over it fails.
            let outcome = said.lock().unwrap().recv().ok().flatten();
            outcome.map(|octets| octets.into_iter().map(address).collect()).ok_or(io::ErrorKind::NotFound.into())
        };
        (Resolver::new(look_up), say, begun)
    }

    fn address(octet: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, octet], 443))
    }

    /// A thread may begin after the one who waits for it has given up.
    fn assert_begun(begun: &AtomicUsize, want: usize) {
        let start = Instant::now();
        while begun.load(Ordering::SeqCst) < want && start.elapsed() < BOUND {
            thread::yield_now();
        }
        assert_eq!(begun.load(Ordering::SeqCst), want);
    }

    async fn resolve(resolver: &Resolver, wait: Duration) -> Result<Vec<SocketAddr>, Unreached> {
        resolver.resolve(Instant::now() + wait).await.map(|found| found.to_vec())
    }

    #[tokio::test]
    async fn f03_one_look_up_is_shared_by_all_who_wait_and_the_next_follows_a_changed_address() {
        let (resolver, say, begun) = scripted();
        let resolver = Arc::new(resolver);
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let resolver = resolver.clone();
                tokio::spawn(async move { resolve(&resolver, BOUND).await })
            })
            .collect();
        tokio::task::yield_now().await;
        say.send(Some(vec![1, 2])).unwrap();
        for each in waiting {
            assert_eq!(each.await.unwrap(), Ok(vec![address(1), address(2)]));
        }
        assert_begun(&begun, 1);

        say.send(Some((3..20).collect())).unwrap();
        assert_eq!(resolve(&resolver, BOUND).await, Ok((3..11).map(address).collect()));
        assert_begun(&begun, 2);
    }

    #[tokio::test]
    async fn f03_inv7_a_look_up_that_hangs_is_the_only_one_and_the_last_addresses_serve_for_a_bounded_time() {
        let (resolver, say, begun) = scripted();
        say.send(Some(vec![1])).unwrap();
        assert_eq!(resolve(&resolver, BOUND).await, Ok(vec![address(1)]));
        tokio::time::pause();

        let wait = Duration::from_secs(3);
        let start = Instant::now();
        assert_eq!(resolve(&resolver, wait).await, Ok(vec![address(1)]));
        assert!(start.elapsed() >= PATIENCE, "fresh ones might have come");
        for _ in 0..20 {
            assert_eq!(resolve(&resolver, wait).await, Ok(vec![address(1)]));
        }
        tokio::time::advance(LAST_GOOD).await;
        for _ in 0..20 {
            assert_eq!(resolve(&resolver, wait).await, Err(Unreached::Timeout));
        }
        tokio::time::resume();
        assert_begun(&begun, 2);
    }

    #[tokio::test]
    async fn f03_where_a_look_up_fails_the_last_addresses_serve_for_a_bounded_time() {
        let (resolver, say, begun) = scripted();
        let failures = || say.send(None).and(say.send(Some(Vec::new()))).unwrap();
        failures();
        for _ in 0..2 {
            assert_eq!(resolve(&resolver, BOUND).await, Err(Unreached::Dns));
        }
        say.send(Some(vec![1])).unwrap();
        assert_eq!(resolve(&resolver, BOUND).await, Ok(vec![address(1)]));
        failures();
        for _ in 0..2 {
            assert_eq!(resolve(&resolver, BOUND).await, Ok(vec![address(1)]));
        }
        tokio::time::pause();
        tokio::time::advance(LAST_GOOD).await;
        tokio::time::resume();
        failures();
        for _ in 0..2 {
            assert_eq!(resolve(&resolver, BOUND).await, Err(Unreached::Dns));
        }
        say.send(Some(vec![2])).unwrap();
        assert_eq!(resolve(&resolver, BOUND).await, Ok(vec![address(2)]), "it is asked again each time");
        assert_begun(&begun, 8);
    }

    #[tokio::test]
    async fn f03_a_look_up_that_panics_is_over() {
        let resolver = Resolver::new(|| panic!("as the test wants it"));
        for _ in 0..2 {
            assert_eq!(resolve(&resolver, BOUND).await, Err(Unreached::Dns));
        }
    }

    #[test]
    fn inv8_a_look_up_that_hangs_keeps_no_blocking_thread_from_others_and_no_runtime_from_its_end() {
        let (resolver, _say, begun) = scripted();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            assert_eq!(resolve(&resolver, Duration::from_millis(10)).await, Err(Unreached::Timeout));
            let long = tokio::task::spawn_blocking(|| "understood");
            assert_eq!(tokio::time::timeout(BOUND, long).await.unwrap().unwrap(), "understood");
        });
        drop(runtime);
        assert_begun(&begun, 1);
    }
}
