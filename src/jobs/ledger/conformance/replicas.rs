//! What replicas over one Redis owe each other beyond what every ledger does.

use super::*;
use crate::admission::rate::Taken;

/// Waits until something holds, with upkeep going on.
pub(super) async fn until(bench: &Bench, what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        bench.ledger.sweep();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if holds().await {
            return;
        }
    }
    panic!("it never came to this: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m16_redis_the_key_of_a_sender_that_died_is_refused_beyond_the_hold() {
    let server = Server::start();
    let lease = Duration::from_millis(300);
    let dies = replica_with(&server, Clock::system(), lease).await;
    let stays = replica_with(&server, Clock::system(), lease).await;
    let windows = Windows { hold: Duration::from_secs(1), ..BOUNDS.windows };
    for bench in [&dies, &stays] {
        bench.ledger.reload(Bounds { windows, ..BOUNDS }, Arc::default());
    }
    let keyed = |attempt| {
        let mut request = stays.request(1, attempt);
        request.ask.key = Some([9; 16]);
        request
    };
    let first = keyed(1);
    assert!(matches!(dies.admit(&first).await, Verdict::Claimed(_)));
    dies.ledger.sending(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    drop(dies);
    // Nobody asks in the hold: only upkeep sees that it was sent, and that the hold ends.
    let unknown = async || stays.ledger.counts().0.iter().any(|(state, count)| (*state, *count) == ("unknown", 1));
    until(&stays, "held", unknown).await;
    until(&stays, "over", async || !unknown().await).await;
    let verdict = stays.admit(&keyed(2)).await;
    assert!(matches!(verdict, Verdict::Held(_)), "{verdict:?}");
    let plain = stays.admit(&stays.request(1, 3)).await;
    assert!(matches!(plain, Verdict::Claimed(_)), "to all others the entry is free: {plain:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m24_redis_what_was_not_sent_is_given_back_once_though_the_answer_was_lost() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    // Another prompt each, of one user.
    let request = |number| {
        let mut request = bench.request(1, number);
        request.ask.fingerprint = Fingerprint::from_bytes([number; 32]);
        request
    };
    let one = request(1);
    let Verdict::Claimed(taken) = bench.admit(&one).await else { panic!("it is free") };
    let mut again = Taken::default();
    again.remote.clone_from(&taken.remote);
    assert!(matches!(bench.admit(&request(2)).await, Verdict::Claimed(_)));
    for taken in [taken, again] {
        bench.ledger.free(one.ask.fingerprint, one.ask.attempt, Some(taken)).await.unwrap();
    }
    // Two a day: one is taken, one came back.
    let three = request(3);
    let verdict = bench.admit(&three).await;
    assert!(matches!(verdict, Verdict::Claimed(_)), "{verdict:?}");
    bench.ledger.sending(three.ask.fingerprint, three.ask.attempt).await.unwrap();
    bench.accept(&three, "three").await;
    bench.ledger.turned(bench.job(&three, "three").0, Turn::Done(None), Life::Done.into()).await.unwrap();
    let verdict = bench.admit(&request(4)).await;
    assert!(matches!(verdict, Verdict::Limited(_)), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m29_redis_a_job_that_another_replica_settled_is_settled_once_though_redis_forgets() {
    let server = Server::start();
    let (makes, settles) = (replica(&server, Clock::system()).await, replica(&server, Clock::system()).await);
    let mut jobs = Vec::new();
    for number in 1..=3 {
        let made = makes.send(number, number).await;
        jobs.push(makes.accept(&made, &format!("job-{number}")).await.1);
    }
    for job in &jobs[1..] {
        settles.ledger.turned(job.clone(), Turn::Done(None), Life::Done.into()).await.unwrap();
    }
    let running = || server.cli(&["HGET", "test:h:total", "running"]);
    let (spent, epoch) = (makes.spent().await, server.cli(&["GET", "test:epoch"]));
    assert_eq!(running(), "1");
    for round in 0..3 {
        server.cli(&["FLUSHALL"]);
        // Either may be the first to put back what it knows.
        let looks = if round % 2 == 0 { [&makes, &settles] } else { [&settles, &makes] };
        for bench in looks {
            bench.ledger.job_anew(&jobs[0].id).await.unwrap();
        }
        until(&makes, "all is back", async || {
            server.cli(&["GET", "test:epoch"]) != epoch && server.cli(&["ZCARD", "test:restoring"]) == "0"
        })
        .await;
        for job in &jobs[1..] {
            let ended = makes.ledger.turned(job.clone(), Turn::Done(None), Life::Done.into()).await.unwrap();
            assert!(!ended.news, "it had ended");
        }
        assert_eq!((makes.spent().await, running()), (spent, "1".to_owned()), "{round}");
    }
    makes.ledger.turned(jobs[0].clone(), Turn::Done(None), Life::Done.into()).await.unwrap();
    assert_eq!(running(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m26_m29_redis_what_was_settled_is_told_though_redis_forgets() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    let made = bench.send(1, 1).await;
    let (_, job) = bench.accept(&made, "job").await;
    bench.ledger.turned(job, Turn::Done(None), Life::Done.into()).await.unwrap();
    let before = bench.ledger.statement(10).await.unwrap();
    assert_eq!((before.periods[0].total.jobs, before.periods[0].users.len()), (1, 1));
    server.cli(&["FLUSHALL"]);
    until(&bench, "it is told again", async || bench.ledger.statement(10).await.unwrap() == before).await;
}
