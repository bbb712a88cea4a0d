use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::*;

fn retry_after(refused: NoSlot) -> Duration {
    match refused {
        NoSlot::TooLong { retry_after } => retry_after,
        NoSlot::Unavailable => panic!("slots are kept here"),
    }
}

const A_SECOND: Option<Rate> = Some(Rate { count: 1, per: Duration::from_secs(1) });

fn pace(rate: Option<Rate>, patience: u64) -> Arc<Pace> {
    Arc::new(Pace::new(rate, Duration::from_secs(patience), Handle::current()))
}

/// Asks for a slot in a task of its own, and waits until it stands in the queue.
async fn ask(pace: &Arc<Pace>, team: &str, user: u8) -> tokio::task::JoinHandle<Result<Duration, NoSlot>> {
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
    assert_eq!((retry_after(refused).as_secs(), begun.elapsed()), (4, Duration::ZERO));
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
    assert_eq!(retry_after(refused).as_secs(), 60);
}

/// Slots that some replicas share, as a ledger keeps them; how many were asked for.
#[derive(Default)]
struct Together {
    free: Mutex<Option<Instant>>,
    over: Mutex<Option<Instant>>,
    asked: AtomicUsize,
    away: AtomicBool,
}

impl Slots for Together {
    fn reserve(&self, interval: Duration) -> Pin<Box<dyn Future<Output = Option<Slot>> + Send + '_>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.asked.fetch_add(1, Relaxed);
            if self.away.load(Relaxed) {
                return None;
            }
            let now = Instant::now();
            let mut free = self.free.lock().unwrap();
            let over = self.over.lock().unwrap().unwrap_or(now).max(now);
            let slot = free.unwrap_or(now).max(over);
            *free = Some(slot + interval);
            Some(Slot { wait: slot - now, paused: over - now })
        })
    }

    fn pause(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut over = self.over.lock().unwrap();
        *over = (*over).max(Some(Instant::now() + wait));
        Box::pin(std::future::ready(()))
    }
}

fn replica(slots: &Arc<Together>, rate: Option<Rate>, patience: u64) -> Arc<Pace> {
    let pace = Pace::new(rate, Duration::from_secs(patience), Handle::current());
    Arc::new(pace.shared(slots.clone()))
}

#[tokio::test(start_paused = true)]
async fn m27_replicas_share_one_pace_and_take_turns() {
    let slots = Arc::new(Together::default());
    let replicas = [1, 2, 3].map(|_| replica(&slots, A_SECOND, 60));
    let mut asked = Vec::new();
    // The first has ten times as many, and the others still have every third slot.
    for (number, count) in [10, 1, 2].into_iter().enumerate() {
        for _ in 0..count {
            asked.push((number, ask(&replicas[number], "a", 1).await));
        }
    }
    let mut granted = Vec::new();
    for (number, asked) in asked {
        granted.push((asked.await.unwrap().unwrap(), number));
    }
    granted.sort_unstable();
    for (place, (wait, _)) in granted.iter().enumerate() {
        assert_eq!(wait.as_secs(), place as u64, "{granted:?}");
    }
    let others =
        granted.iter().position(|(_, number)| *number == 1).max(granted.iter().rposition(|(_, number)| *number == 2));
    assert!(others.unwrap() <= 6, "{granted:?}");
}

#[tokio::test(start_paused = true)]
async fn m27_a_replica_reserves_only_while_somebody_waits_and_one_slot_at_a_time() {
    let slots = Arc::new(Together::default());
    let pace = replica(&slots, A_SECOND, 60);
    assert_eq!(pace.slot(&"a".into(), [1; 16]).await, Ok(()));
    let asked = || slots.asked.load(Relaxed);
    assert_eq!(asked(), 1);
    let (left, stays) = (ask(&pace, "a", 1).await, ask(&pace, "b", 1).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(asked(), 2, "two wait, and one slot is reserved");
    // Whoever leaves takes no slot along: the next in turn is sent in it.
    left.abort();
    assert!(left.await.is_err());
    assert_eq!(stays.await.unwrap().unwrap().as_secs(), 1);
    assert_eq!(asked(), 2);
    // All have left; the slot that was reserved for them is not used late.
    let left = ask(&pace, "a", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    left.abort();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((asked(), pace.waiting()), (3, 0));
    assert_eq!(pace.slot(&"a".into(), [1; 16]).await, Ok(()));
    assert_eq!(asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn m27_who_cannot_be_in_time_beside_other_replicas_is_told_when() {
    let slots = Arc::new(Together::default());
    let (one, other) = (replica(&slots, A_SECOND, 3), replica(&slots, A_SECOND, 60));
    let mut busy = Vec::new();
    for _ in 0..10 {
        busy.push(ask(&other, "a", 1).await);
    }
    for _ in 0..3 {
        busy.push(ask(&one, "a", 1).await);
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // Each second slot is another replica's.
    let refused = one.slot(&"a".into(), [1; 16]).await.unwrap_err();
    assert!((4..=6).contains(&retry_after(refused).as_secs()), "{refused:?}");
    for asked in busy {
        _ = asked.await.unwrap();
    }
    assert_eq!((one.waiting(), other.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn m27_a_pause_that_one_replica_was_told_holds_the_others_with_a_pace_or_without() {
    for rate in [A_SECOND, None] {
        let slots = Arc::new(Together::default());
        let (one, other) = (replica(&slots, rate, 60), replica(&slots, rate, 60));
        assert_eq!(one.slot(&"a".into(), [1; 16]).await, Ok(()));
        one.slow_down(Duration::from_secs(20));
        tokio::task::yield_now().await;
        let (first, second) = (ask(&one, "a", 1).await, ask(&other, "a", 1).await);
        for asked in [first, second] {
            assert!((20..=21).contains(&asked.await.unwrap().unwrap().as_secs()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn m27_behind_a_pause_of_another_replica_slots_come_as_closely_as_ever() {
    let slots = Arc::new(Together::default());
    let (one, other) = (replica(&slots, A_SECOND, 20), replica(&slots, A_SECOND, 20));
    one.slow_down(Duration::from_secs(15));
    tokio::task::yield_now().await;
    let mut asked = Vec::new();
    for _ in 0..6 {
        asked.push(ask(&other, "a", 1).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = other.slot(&"a".into(), [1; 16]).await.unwrap_err();
    assert!((20..=21).contains(&retry_after(refused).as_secs()), "{refused:?}");
    for (number, asked) in asked.into_iter().enumerate() {
        assert!((14..=15).contains(&(asked.await.unwrap().unwrap().as_secs() - number as u64)), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn m27_who_has_waited_in_vain_is_told_of_no_place_of_its_own() {
    let slots = Arc::new(Together::default());
    let pace = replica(&slots, A_SECOND, 5);
    assert_eq!(pace.slot(&"a".into(), [1; 16]).await, Ok(()));
    // The slot that it waits for moves away: the upstream wants a pause.
    let waits = ask(&pace, "a", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    pace.slow_down(Duration::from_secs(10));
    let refused = waits.await.unwrap().unwrap_err();
    assert_eq!(retry_after(refused).as_millis().div_ceil(1000), 6, "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn m27_without_a_pace_of_ours_one_question_is_enough_for_all_who_wait() {
    let slots = Arc::new(Together::default());
    let pace = replica(&slots, None, 60);
    let mut asked = Vec::new();
    for _ in 0..100 {
        asked.push(ask(&pace, "a", 1).await);
    }
    for asked in asked {
        assert!(asked.await.unwrap().unwrap() < Duration::from_millis(10));
    }
    assert_eq!(slots.asked.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn m27_who_waits_while_the_slots_cannot_be_had_is_told_so() {
    let slots = Arc::new(Together::default());
    slots.away.store(true, Relaxed);
    let pace = replica(&slots, A_SECOND, 60);
    let asked = [ask(&pace, "a", 1).await, ask(&pace, "b", 1).await];
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Err(NoSlot::Unavailable));
    }
    slots.away.store(false, Relaxed);
    assert_eq!(pace.slot(&"a".into(), [1; 16]).await, Ok(()));
}
