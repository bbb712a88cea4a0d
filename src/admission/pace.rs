//! The upstream's own pace: so many submissions a second, dealt out fairly, one team after the other and within a team
//! one user after the other (`MONEY.md` M27). All slots cost the same, so a deficit round robin is a round robin.
//! Where replicas share the upstream, the slots themselves are kept elsewhere ([`Slots`]): a replica then reserves one
//! at a time, and only while somebody waits here; who is sent in it is decided when it comes.

mod queue;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::queue::Queue;
use super::settings::Rate;

/// A user within its team.
pub type User = [u8; 16];

/// A slot that is kept elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// How far away it is.
    pub wait: Duration,
    /// Of that, what is left of a pause, before which there is none for anybody.
    pub paused: Duration,
}

/// Slots that replicas share.
pub trait Slots: Send + Sync {
    /// Reserves the next slot, `interval` of which nobody else is given; nothing if that cannot be known. Without an
    /// interval it is the end of a pause.
    fn reserve(&self, interval: Duration) -> Pin<Box<dyn Future<Output = Option<Slot>> + Send + '_>>;

    /// No slot for anybody for so long.
    fn pause(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Deals out the slots.
pub struct Pace {
    state: Arc<Mutex<State>>,
    /// Where the slots are kept, if not here.
    slots: Option<Arc<dyn Slots>>,
    /// Where the slots are dealt out from.
    runtime: Handle,
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// None in time.
    TooLong {
        /// When there would have been one.
        retry_after: Duration,
    },
    /// Whoever keeps them does not answer.
    Unavailable,
}

#[derive(Debug)]
struct State {
    /// Between two slots; nothing: no pace of our own.
    interval: Duration,
    /// How long a submission waits for its slot.
    patience: Duration,
    /// When the next slot is, as far as it is known.
    next: Instant,
    /// Until when the slot that is reserved elsewhere is still good.
    reserved: Option<Instant>,
    /// Between two slots of this replica, as it was seen last.
    stride: Duration,
    queue: Queue,
    /// Whether slots are being dealt out.
    dealing: bool,
}

impl Pace {
    /// A pace at which nobody waits yet. Its slots are dealt out on `runtime`.
    pub fn new(rate: Option<Rate>, patience: Duration, runtime: Handle) -> Self {
        let interval = interval(rate);
        let state = State {
            interval,
            patience,
            next: Instant::now(),
            reserved: None,
            stride: interval,
            queue: Queue::default(),
            dealing: false,
        };
        Self { state: Arc::new(Mutex::new(state)), slots: None, runtime }
    }

    /// The same, of slots that are kept elsewhere.
    pub fn shared(mut self, slots: Arc<dyn Slots>) -> Self {
        self.slots = Some(slots);
        self
    }

    /// Another pace from the next slot on.
    pub fn reload(&self, rate: Option<Rate>, patience: Duration) {
        let mut state = lock(&self.state);
        state.interval = interval(rate);
        state.stride = state.interval;
        state.patience = patience;
    }

    /// The upstream said that it is too much: nobody is sent for so long, a minute at most. Other replicas hear of it
    /// when they next want a slot; each may still send in the one that it has.
    pub fn slow_down(&self, wait: Duration) {
        let wait = wait.min(LONGEST_PAUSE);
        {
            let mut state = lock(&self.state);
            state.next = state.next.max(Instant::now() + wait);
            state.reserved = None;
        }
        if let Some(slots) = self.slots.clone() {
            self.runtime.spawn(async move { slots.pause(wait).await });
        }
    }

    /// Between two slots, if there is a pace of our own.
    pub fn interval(&self) -> Option<Duration> {
        Some(lock(&self.state).interval).filter(|interval| !interval.is_zero())
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        lock(&self.state).queue.len
    }

    /// Waits for a slot. Dropped, it leaves its place.
    ///
    /// # Errors
    /// [`NoSlot`]: at once if it can be foreseen.
    pub async fn slot(&self, team: &Arc<str>, user: User) -> Result<(), NoSlot> {
        let (place, granted, deadline) = {
            let mut state = lock(&self.state);
            let now = Instant::now();
            if self.slots.is_none() && state.queue.len == 0 && state.next <= now {
                state.next = now + state.interval;
                return Ok(());
            }
            let wait = state.wait(team, user, now);
            if wait > state.patience {
                return Err(NoSlot::TooLong { retry_after: wait });
            }
            let (grant, granted) = oneshot::channel();
            let number = state.queue.push(team, user, grant);
            if !state.dealing {
                state.dealing = true;
                self.runtime.spawn(deal(self.state.clone(), self.slots.clone()));
            }
            let place = Place { state: self.state.clone(), team: team.clone(), user, number };
            (place, granted, now + state.patience)
        };
        match timeout_at(deadline, granted).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) | Err(_) => {
                // Its own place is not before it when it comes again.
                drop(place);
                let retry_after = lock(&self.state).wait(team, user, Instant::now());
                Err(NoSlot::TooLong { retry_after })
            }
        }
    }
}

/// What the dealer does next.
enum Next {
    /// Waits.
    Sleep(Instant),
    /// Asks for a slot of this length.
    Reserve(Duration),
    /// Ends: nobody waits.
    Rest,
}

impl State {
    /// How long one more submission of this user would wait, if nobody else came.
    fn wait(&self, team: &Arc<str>, user: User, now: Instant) -> Duration {
        let turns = u32::try_from(self.queue.turns(team, user)).unwrap_or(u32::MAX);
        self.next.saturating_duration_since(now) + self.stride.saturating_mul(turns)
    }

    /// Deals out what can be dealt out now.
    fn deal(&mut self, is_shared: bool) -> Next {
        loop {
            let now = Instant::now();
            if self.queue.len == 0 {
                self.dealing = false;
                self.stride = self.interval;
                return Next::Rest;
            }
            if self.next > now {
                return Next::Sleep(self.next);
            }
            if is_shared && self.reserved.is_none_or(|until| until < now) {
                return Next::Reserve(self.interval);
            }
            let Some(grant) = self.queue.pop() else {
                self.dealing = false;
                return Next::Rest;
            };
            // Whoever has left in this moment does not use up the slot.
            if grant.send(Ok(())).is_ok() && !self.interval.is_zero() {
                self.reserved = None;
                // Of slots that are kept elsewhere it is not known before the next is asked for.
                self.next = if is_shared { now } else { now + self.interval };
            }
        }
    }

    /// A slot is reserved; or nobody knows.
    fn reserve(&mut self, slot: Option<Slot>) {
        let Some(Slot { wait, paused }) = slot else {
            // The next in turn is told; whoever comes behind it asks anew.
            _ = self.queue.pop().map(|grant| grant.send(Err(NoSlot::Unavailable)));
            return;
        };
        let slot = Instant::now() + wait;
        self.reserved = Some(slot + GOOD_FOR);
        // Never before the end of a pause that came meanwhile.
        self.next = self.next.max(slot);
        // Behind a pause the next slots come as closely as ever.
        self.stride = self.interval.max(wait.saturating_sub(paused).min(LONGEST_PAUSE));
    }
}

/// Deals out slots until nobody waits.
async fn deal(state: Arc<Mutex<State>>, slots: Option<Arc<dyn Slots>>) {
    loop {
        let next = lock(&state).deal(slots.is_some());
        match (next, &slots) {
            (Next::Sleep(until), _) => sleep_until(until).await,
            (Next::Reserve(interval), Some(slots)) => {
                let slot = slots.reserve(interval).await;
                lock(&state).reserve(slot);
            }
            (Next::Rest, _) | (Next::Reserve(_), None) => return,
        }
    }
}

/// A place in the queue; left on drop.
struct Place {
    state: Arc<Mutex<State>>,
    team: Arc<str>,
    user: User,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.state).queue.leave(&self.team, self.user, self.number);
    }
}

fn interval(rate: Option<Rate>) -> Duration {
    rate.map_or(Duration::ZERO, |rate| rate.per / rate.count.max(1))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A `Retry-After` of the upstream is believed up to this.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A slot that is reserved elsewhere is good for so long: enough for a busy machine, and a replica that was frozen, or
/// whose clients have left, does not come late with it beside the others.
const GOOD_FOR: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
