//! Where only keys share: whether an answer has reached its client, and who gets the job if not (M15).

use super::*;

/// A keyless submission.
fn alone(name: u8) -> Ask {
    Ask { fingerprint: Fingerprint::from_bytes([100 + name; 32]), base: Some(candle()), ..ask(candle(), attempt(name)) }
}

#[tokio::test]
async fn m15_a_keyless_twin_counts_under_the_entry_it_has_joined() {
    let go = Arc::new(Notify::new());
    let world = World::begin(vec![vec![Act::Wait(go.clone()), Act::Close]]).await;
    let one = world.replica(1);
    let first = alone(1);
    let leader = one.waits(first.clone()).await;
    eventually("it is on its way", || world.posts() == 1).await;
    // Its waiter leaves, and the next equal one adopts the attempt; that one leaves too.
    drop((one.dedup.delivery(&first, &leader), leader));
    let undelivered = || world.shared.lock().unwrap().book.entry(&first.fingerprint).unwrap().rest.undelivered;
    eventually("it is undelivered", undelivered).await;
    let second = alone(2);
    let adopter = one.waits(second.clone()).await;
    assert_eq!((adopter.fingerprint, adopter.attempt), (first.fingerprint, attempt(1)));
    assert!(!undelivered());
    drop((one.dedup.delivery(&second, &adopter), adopter));
    eventually("it is undelivered again", undelivered).await;
    let third = alone(3);
    let told = one.waits(third.clone()).await;
    go.notify_one();
    let (fingerprint, owed) = (told.fingerprint, one.dedup.delivery(&third, &told).unwrap());
    assert!(matches!(*told.told().await, Outcome::Unknown { .. }));
    owed.taken();
    // The refusal counts under the entry that is held (M14).
    world.passes(BOUNDS.windows.hold - Duration::from_secs(1));
    one.dedup.doubted(fingerprint, attempt(1), [9; 16]).await;
    world.passes(Duration::from_secs(2));
    let held = Ask { asker: crate::jobs::entry::Asker { caller: [9; 16], no_cache: false }, ..alone(4) };
    assert!(matches!(one.admit(held).await, Err(Error::OutcomeUnknown { .. })));
}

#[tokio::test]
async fn m15_a_job_that_was_adopted_and_not_told_is_adopted_again() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let admissions = Arc::new(Semaphore::new(1));
    let one = world.replica_with(1, |view| view.admissions = admissions.clone());
    let first = alone(1);
    let leader = one.waits(first.clone()).await;
    let owed = one.dedup.delivery(&first, &leader);
    assert!(is_created(&*leader.told().await));
    drop(owed);
    let undelivered = || world.shared.lock().unwrap().book.entry(&first.fingerprint).unwrap().rest.undelivered;
    eventually("it is undelivered", undelivered).await;
    // Its client leaves while the ledger decides.
    assert!(timeout(Duration::from_millis(20), one.admit(alone(2))).await.is_err());
    assert!(!undelivered(), "it was adopted");
    admissions.add_permits(1);
    eventually("it is undelivered again", undelivered).await;
    // The next one's leaves before it has the last byte.
    admissions.add_permits(2);
    let Ok(Place::Hit(created, _, owed)) = one.admit(alone(3)).await else { panic!("no hit") };
    assert!(!undelivered(), "it was adopted");
    drop(owed);
    eventually("it is undelivered again", undelivered).await;
    let Ok(Place::Hit(same, _, owed)) = one.admit(alone(4)).await else { panic!("no hit") };
    owed.unwrap().taken();
    assert_eq!((same.job, world.posts()), (created.job, 1));
    assert!(!undelivered());
}
