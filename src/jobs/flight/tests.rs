use tokio::time::{sleep, timeout};

use super::*;
use crate::upstream::outcome::NotSent;

const QUEUE: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(35);

fn attempt() -> AttemptId {
    AttemptId::from_bytes([1; 16])
}

fn outcome() -> Arc<Outcome> {
    Arc::new(Outcome::NotSent(NotSent::Left))
}

async fn is_abandoned(flight: &Flight) -> bool {
    timeout(Duration::from_millis(1), flight.deserted()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn m6_an_attempt_that_all_have_left_before_the_send_is_not_sent() {
    let flights = Flights::default();
    let (flight, leader) = flights.open(attempt());
    let joiner = flights.join(attempt(), 10).unwrap().0;
    drop(leader);
    assert!(!is_abandoned(&flight).await, "one still waits");
    drop(joiner);
    assert!(is_abandoned(&flight).await);
    assert!(flight.abandon());
    let mut late = flights.join(attempt(), 10).unwrap().0;
    assert!(!flight.depart(false), "who comes too late does not revive it");
    flight.land(outcome(), Time::from_millis(0));
    assert!(late.outcome(QUEUE, PATIENCE, || ()).await.unwrap().is_void(), "but is told that it made nothing");
}

#[tokio::test(start_paused = true)]
async fn m6_the_departure_itself_notices_that_all_have_left() {
    let (flight, leader) = Flights::default().open(attempt());
    drop(leader);
    assert!(!flight.depart(false));
}

#[tokio::test(start_paused = true)]
async fn m6_who_waits_elsewhere_counts_and_who_comes_back_in_time_too() {
    let flights = Flights::default();
    let (flight, leader) = flights.open(attempt());
    drop(leader);
    assert!(flight.is_deserted() && is_abandoned(&flight).await);
    let back = flights.join(attempt(), 10).unwrap().0;
    assert!(!flight.abandon(), "somebody has come meanwhile");
    drop(back);
    assert!(flight.depart(true), "somebody waits in another replica");
    assert!(!flight.abandon(), "it is on its way");
}

#[test]
fn joiners_of_an_attempt_elsewhere_share_one_flight() {
    let flights = Flights::default();
    let (first, begun) = flights.join(attempt(), 2).unwrap();
    let begun = begun.expect("nobody follows it yet");
    let (second, again) = flights.join(attempt(), 2).unwrap();
    assert!(again.is_none() && first.is_elsewhere() && second.is_elsewhere());
    assert_eq!(flights.join(attempt(), 2).unwrap_err(), Full);
    flights.close(attempt(), &begun);
    let newer = flights.join(attempt(), 2).unwrap().1.unwrap();
    flights.close(attempt(), &begun);
    assert!(flights.join(attempt(), 2).unwrap().1.is_none(), "an older flight's end does not close a newer one");
    drop((first, second, newer));
}

#[tokio::test(start_paused = true)]
async fn m6_once_it_has_departed_leaving_ends_nothing() {
    let (flight, leader) = Flights::default().open(attempt());
    assert!(flight.depart(false));
    drop(leader);
    assert!(!is_abandoned(&flight).await);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_counted_from_the_send_or_the_arrival_whichever_is_later() {
    let flights = Flights::default();
    let (flight, mut leader) = flights.open(attempt());
    let begun = Instant::now();
    let waiting =
        tokio::spawn(async move { (leader.outcome(QUEUE, PATIENCE, || ()).await.is_none(), begun.elapsed()) });
    sleep(Duration::from_secs(5)).await;
    flight.sent(Instant::now());
    sleep(Duration::from_secs(10)).await;
    let mut joiner = flights.join(attempt(), 10).unwrap().0;
    assert!(joiner.outcome(QUEUE, PATIENCE, || ()).await.is_none());
    assert_eq!(begun.elapsed(), Duration::from_secs(50));
    assert_eq!(waiting.await.unwrap(), (true, Duration::from_secs(40)));
}

#[tokio::test(start_paused = true)]
async fn the_wait_before_the_send_is_bounded_too() {
    let (_flight, mut leader) = Flights::default().open(attempt());
    let begun = Instant::now();
    assert!(leader.outcome(QUEUE, PATIENCE, || ()).await.is_none());
    assert_eq!(begun.elapsed(), QUEUE);
}

#[tokio::test]
async fn m5_a_twin_that_comes_as_it_lands_shares_its_outcome_for_ten_seconds() {
    let flights = Flights::default();
    let (flight, _leader) = flights.open(attempt());
    flight.land(outcome(), Time::from_millis(1_000));
    flights.sweep(Time::from_millis(10_999));
    let mut twin = flights.join(attempt(), 10).unwrap().0;
    assert!(twin.outcome(QUEUE, PATIENCE, || ()).await.is_some());
    flights.sweep(Time::from_millis(11_000));
    assert!(flights.join(attempt(), 10).unwrap().1.is_some(), "it is no longer known");
}

#[tokio::test]
async fn lim9_the_places_beside_an_attempt_are_bounded_and_given_back() {
    let flights = Flights::default();
    let (_flight, _leader) = flights.open(attempt());
    let second = flights.join(attempt(), 2).unwrap().0;
    assert_eq!(flights.join(attempt(), 2).unwrap_err(), Full);
    drop(second);
    assert!(flights.join(attempt(), 2).is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waits_alone_is_not_woken_by_the_send_and_still_counts_from_it() {
    let (flight, mut leader) = Flights::default().open(attempt());
    let (begun, patience, woken) = (Instant::now(), Duration::from_secs(1), std::sync::atomic::AtomicBool::new(false));
    let wait = leader.outcome(QUEUE, patience, || woken.store(true, std::sync::atomic::Ordering::Relaxed));
    let mut wait = std::pin::pin!(wait);
    assert!(timeout(Duration::from_millis(5_200), &mut wait).await.is_err());
    flight.sent(Instant::now());
    assert!(timeout(Duration::from_millis(700), &mut wait).await.is_err());
    assert!(!woken.load(std::sync::atomic::Ordering::Relaxed));
    assert!(wait.await.is_none());
    assert_eq!(begun.elapsed(), Duration::from_millis(6_200));
}
