//! A full ledger (`MONEY.md` M28): who makes room, and who is counted.

use super::*;

/// Room for so many entries, for as many jobs as one likes.
fn bound(bench: &Bench, max_entries: usize) {
    bench.ledger.reload(Bounds { max_entries, ..BOUNDS }, Arc::default());
}

/// Waits until so many entries stand in each of these states, and none in another, with upkeep going on.
async fn counts(bench: &Bench, want: &[(&str, usize)]) {
    let held = || bench.ledger.counts().0.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    for _ in 0..500 {
        bench.ledger.sweep();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if held() == want {
            return;
        }
    }
    panic!("{:?} instead of {want:?}", held());
}

/// Redis lets the values of these prompts' entries go, as if their time had come.
fn expire(server: &Server, prompts: &[u8]) {
    for prompt in prompts {
        assert_eq!(server.cli(&["DEL", &format!("test:e:{}", hex::encode([*prompt; 32]))]), "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m28_redis_entries_that_left_by_themselves_are_not_counted_and_take_no_room() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    bound(&bench, 3);
    for number in 1..=3 {
        let made = bench.send(number, number).await;
        bench.accept(&made, &format!("job-{number}")).await;
    }
    counts(&bench, &[("accepted", 3)]).await;
    let next = bench.request(4, 4);
    let verdict = bench.admit(&next).await;
    assert!(matches!(verdict, Verdict::Full), "{verdict:?}");
    expire(&server, &[1, 2]);
    counts(&bench, &[("accepted", 1)]).await;
    // Whoever comes before upkeep finds the room too.
    expire(&server, &[3]);
    bound(&bench, 1);
    assert!(matches!(bench.admit(&next).await, Verdict::Claimed(_)));
    counts(&bench, &[("claimed", 1)]).await;
    bench.ledger.free(next.ask.fingerprint, next.ask.attempt, None).await.unwrap();
    counts(&bench, &[]).await;
    assert_eq!(server.cli(&["KEYS", "test:in:*"]), "", "nothing is left of them");
}
