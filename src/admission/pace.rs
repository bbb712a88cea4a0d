//! The upstream's own pace: so many submissions a second, dealt out fairly, one team after the other and within a team
//! one user after the other (`MONEY.md` M27). All slots cost the same, so a deficit round robin is a round robin.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::settings::Rate;

/// A user within its team.
pub type User = [u8; 16];

/// Deals out the slots.
pub struct Pace {
    state: Arc<Mutex<State>>,
    /// Where the slots are dealt out from.
    runtime: Handle,
}

/// No slot in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// When there would have been one.
    pub retry_after: Duration,
}

#[derive(Debug)]
struct State {
    /// Between two slots; nothing: no pace of our own.
    interval: Duration,
    /// How long a submission waits for its slot.
    patience: Duration,
    /// When the next slot is.
    next: Instant,
    queue: Queue,
    /// Whether slots are being dealt out.
    dealing: bool,
}

impl Pace {
    /// A pace at which nobody waits yet. Its slots are dealt out on `runtime`.
    pub fn new(rate: Option<Rate>, patience: Duration, runtime: Handle) -> Self {
        let queue = Queue::default();
        let state = State { interval: interval(rate), patience, next: Instant::now(), queue, dealing: false };
        Self { state: Arc::new(Mutex::new(state)), runtime }
    }

    /// Another pace from the next slot on.
    pub fn reload(&self, rate: Option<Rate>, patience: Duration) {
        let mut state = lock(&self.state);
        state.interval = interval(rate);
        state.patience = patience;
    }

    /// The upstream said that it is too much: nobody is sent for so long, a minute at most.
    pub fn slow_down(&self, wait: Duration) {
        let mut state = lock(&self.state);
        state.next = state.next.max(Instant::now() + wait.min(LONGEST_PAUSE));
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        lock(&self.state).queue.len
    }

    /// Waits for a slot. Dropped, it leaves its place.
    ///
    /// # Errors
    /// [`TooLong`]: at once if it can be foreseen.
    pub async fn slot(&self, team: &Arc<str>, user: User) -> Result<(), TooLong> {
        let (place, granted, deadline) = {
            let mut state = lock(&self.state);
            let now = Instant::now();
            if state.queue.len == 0 && state.next <= now {
                state.next = now + state.interval;
                return Ok(());
            }
            let wait = state.wait(team, user, now);
            if wait > state.patience {
                return Err(TooLong { retry_after: wait });
            }
            let (grant, granted) = oneshot::channel();
            let number = state.queue.push(team, user, grant);
            if !state.dealing {
                state.dealing = true;
                self.runtime.spawn(deal(self.state.clone()));
            }
            let place = Place { state: self.state.clone(), team: team.clone(), user, number };
            (place, granted, now + state.patience)
        };
        match timeout_at(deadline, granted).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let now = Instant::now();
                let retry_after = lock(&self.state).wait(&place.team, user, now);
                Err(TooLong { retry_after })
            }
        }
    }
}

impl State {
    /// How long one more submission of this user would wait, if nobody else came.
    fn wait(&self, team: &Arc<str>, user: User, now: Instant) -> Duration {
        let turns = u32::try_from(self.queue.turns(team, user)).unwrap_or(u32::MAX);
        self.next.saturating_duration_since(now) + self.interval.saturating_mul(turns)
    }
}

/// Deals out slots until nobody waits.
async fn deal(state: Arc<Mutex<State>>) {
    loop {
        let next = {
            let mut state = lock(&state);
            let now = Instant::now();
            while state.next <= now {
                let Some(grant) = state.queue.pop() else { break };
                // Whoever has left in this moment does not use up the slot.
                if grant.send(()).is_ok() {
                    state.next = now + state.interval;
                }
            }
            if state.queue.len == 0 {
                state.dealing = false;
                return;
            }
            state.next
        };
        sleep_until(next).await;
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

type Grant = oneshot::Sender<()>;

/// Who waits, by team and user.
#[derive(Debug, Default)]
struct Queue {
    /// Whose turn it is, the next first.
    teams: VecDeque<Arc<str>>,
    by_team: HashMap<Arc<str>, Team>,
    len: usize,
    numbered: u64,
}

#[derive(Debug, Default)]
struct Team {
    users: VecDeque<User>,
    by_user: HashMap<User, VecDeque<(u64, Grant)>>,
}

impl Queue {
    fn push(&mut self, team: &Arc<str>, user: User, grant: Grant) -> u64 {
        self.numbered += 1;
        self.len += 1;
        if !self.by_team.contains_key(team) {
            self.teams.push_back(team.clone());
        }
        let team = self.by_team.entry(team.clone()).or_default();
        if !team.by_user.contains_key(&user) {
            team.users.push_back(user);
        }
        team.by_user.entry(user).or_default().push_back((self.numbered, grant));
        self.numbered
    }

    /// The next one: of the team whose turn it is, the user whose turn it is.
    fn pop(&mut self) -> Option<Grant> {
        let name = self.teams.pop_front()?;
        let team = self.by_team.get_mut(&name)?;
        let user = team.users.pop_front()?;
        let (_, grant) = team.by_user.get_mut(&user)?.pop_front()?;
        self.len -= 1;
        // Who has more to send comes again when all others had a turn.
        match team.by_user.get(&user).is_some_and(VecDeque::is_empty) {
            true => _ = team.by_user.remove(&user),
            false => team.users.push_back(user),
        }
        match team.users.is_empty() {
            true => _ = self.by_team.remove(&name),
            false => self.teams.push_back(name),
        }
        Some(grant)
    }

    fn leave(&mut self, name: &Arc<str>, user: User, number: u64) {
        let Some(team) = self.by_team.get_mut(name) else { return };
        let Some(grants) = team.by_user.get_mut(&user) else { return };
        let before = grants.len();
        grants.retain(|(other, _)| *other != number);
        self.len -= before - grants.len();
        if grants.is_empty() {
            team.by_user.remove(&user);
            team.users.retain(|other| *other != user);
        }
        if team.users.is_empty() {
            self.by_team.remove(name);
            self.teams.retain(|other| other != name);
        }
    }

    /// How many slots at most come before one more of this user: its own turns, times those who take turns with it.
    fn turns(&self, name: &Arc<str>, user: User) -> usize {
        let team = self.by_team.get(name);
        let own = team.and_then(|team| team.by_user.get(&user)).map_or(0, VecDeque::len);
        let users = team.map_or(0, |team| team.users.len() - usize::from(own > 0));
        let teams = self.by_team.len() - usize::from(team.is_some());
        let rounds = (own + 1).saturating_mul(users + 1);
        rounds.saturating_mul(teams + 1).saturating_sub(1).min(self.len)
    }
}

fn interval(rate: Option<Rate>) -> Duration {
    rate.map_or(Duration::ZERO, |rate| rate.per / rate.count.max(1))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A `Retry-After` of the upstream is believed up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const A_SECOND: Option<Rate> = Some(Rate { count: 1, per: Duration::from_secs(1) });

    fn pace(rate: Option<Rate>, patience: u64) -> Arc<Pace> {
        Arc::new(Pace::new(rate, Duration::from_secs(patience), Handle::current()))
    }

    /// Asks for a slot in a task of its own, and waits until it stands in the queue.
    async fn ask(pace: &Arc<Pace>, team: &str, user: u8) -> tokio::task::JoinHandle<Result<Duration, TooLong>> {
        let (own, team, begun) = (pace.clone(), Arc::<str>::from(team), Instant::now());
        let asked = tokio::spawn(async move { own.slot(&team, [user; 16]).await.map(|()| begun.elapsed()) });
        tokio::task::yield_now().await;
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn m27_slots_come_one_at_a_time_and_none_is_saved_up() {
        let pace = pace(A_SECOND, 20);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(ask(&pace, "a", 1).await);
        }
        for (number, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.await.unwrap().unwrap().as_secs(), number as u64);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn m27_teams_take_turns_and_within_a_team_its_users_do() {
        let pace = pace(A_SECOND, 60);
        let mut asked = Vec::new();
        for (name, team, user) in [
            ("a1 first", "a", 1),
            ("a1 second", "a", 1),
            ("a1 third", "a", 1),
            ("a2 first", "a", 2),
            ("b1 first", "b", 1),
            ("b1 second", "b", 1),
        ] {
            asked.push((name, ask(&pace, team, user).await));
        }
        let mut order = Vec::new();
        for (name, asked) in asked {
            order.push((asked.await.unwrap().unwrap().as_secs(), name));
        }
        order.sort_unstable();
        let order: Vec<_> = order.into_iter().map(|(_, name)| name).collect();
        assert_eq!(order, ["a1 first", "a1 second", "b1 first", "a2 first", "b1 second", "a1 third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn m27_who_cannot_be_in_time_is_told_at_once_and_when() {
        let pace = pace(A_SECOND, 3);
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(ask(&pace, "a", 1).await);
        }
        let begun = Instant::now();
        let refused = pace.slot(&"a".into(), [1; 16]).await.unwrap_err();
        assert_eq!((refused.retry_after.as_secs(), begun.elapsed()), (4, Duration::ZERO));
        // Another team's turn comes between.
        assert_eq!(pace.slot(&"b".into(), [1; 16]).await, Ok(()));
        assert!(begun.elapsed() <= Duration::from_secs(2));
        for asked in asked {
            _ = asked.await.unwrap();
        }
        assert_eq!(pace.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn m27_who_leaves_leaves_its_place() {
        let pace = pace(A_SECOND, 60);
        _ = ask(&pace, "a", 1).await;
        let (left, stays) = (ask(&pace, "a", 1).await, ask(&pace, "b", 1).await);
        assert_eq!(pace.waiting(), 2);
        left.abort();
        assert!(left.await.is_err());
        assert_eq!(pace.waiting(), 1);
        assert_eq!(stays.await.unwrap().unwrap().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn m27_a_pause_of_the_upstream_holds_everyone_for_a_minute_at_most() {
        let pace = pace(None, 90);
        assert_eq!(pace.slot(&"a".into(), [1; 16]).await, Ok(()), "without a pace nobody waits");
        pace.slow_down(Duration::from_secs(7));
        let (one, other) = (ask(&pace, "a", 1).await, ask(&pace, "b", 2).await);
        assert_eq!((one.await.unwrap().unwrap().as_secs(), other.await.unwrap().unwrap().as_secs()), (7, 7));
        pace.slow_down(Duration::from_secs(3600));
        pace.reload(None, Duration::from_secs(20));
        let refused = pace.slot(&"a".into(), [1; 16]).await.unwrap_err();
        assert_eq!(refused.retry_after.as_secs(), 60);
    }
}
