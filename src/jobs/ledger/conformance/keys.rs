//! Idempotency keys that merely hit (`MONEY.md` M16): for as long as they are remembered they are what the keys of attempts
//! are.

use super::replicas::until;
use super::*;

pub(super) async fn conforms(bench: &Bench) {
    m16_a_key_that_merely_hit_is_bound_to_its_body_and_wins_over_a_wish(bench).await;
}

fn keyed(bench: &Bench, prompt: u8, attempt: u8, key: u8) -> Request {
    let mut request = bench.request(prompt, attempt);
    request.ask.key = Some([key; 16]);
    request
}

/// The same, and it asks for another job.
fn wish(bench: &Bench, prompt: u8, attempt: u8, key: u8) -> Request {
    let mut request = keyed(bench, prompt, attempt, key);
    request.ask.asker.no_cache = true;
    request
}

async fn m16_a_key_that_merely_hit_is_bound_to_its_body_and_wins_over_a_wish(bench: &Bench) {
    let made = bench.send(230, 230).await;
    let (_, job) = bench.accept(&made, "job-230").await;
    let is_hit = |verdict: &Verdict| matches!(verdict, Verdict::Hit(created, _) if created.job.as_str() == "job-230");
    assert!(is_hit(&bench.admit(&keyed(bench, 230, 231, 230)).await));
    let other_body = keyed(bench, 231, 232, 230);
    assert!(matches!(bench.admit(&other_body).await, Verdict::KeyReused));
    let verdict = bench.admit(&wish(bench, 230, 233, 230)).await;
    assert!(is_hit(&verdict), "a key already seen wins over a wish: {verdict:?}");
    // Who only asks leaves nothing.
    let preview = bench.ledger.preview(&keyed(bench, 230, 234, 231)).await.unwrap();
    assert!(matches!(preview.found, Found::Look(_, Look::Hit(..))), "{:?}", preview.found);
    let unknown = keyed(bench, 232, 235, 231);
    assert!(matches!(bench.admit(&unknown).await, Verdict::Claimed(_)));
    bench.ledger.free(unknown.ask.fingerprint, unknown.ask.attempt, None).await.unwrap();
    // Its job is over: now it is the key of the attempt that it begins.
    bench.ledger.turned(job, Turn::Over, Life::Failed.into()).await.unwrap();
    let again = keyed(bench, 230, 236, 230);
    assert!(matches!(bench.admit(&again).await, Verdict::Claimed(_)));
    bench.ledger.sending(again.ask.fingerprint, again.ask.attempt).await.unwrap();
    assert!(matches!(bench.admit(&other_body).await, Verdict::KeyReused));
    bench.ledger.free(again.ask.fingerprint, again.ask.attempt, None).await.unwrap();
    let verdict = bench.admit(&other_body).await;
    assert!(matches!(verdict, Verdict::Claimed(_)), "it made nothing, so its key is free: {verdict:?}");
    bench.ledger.free(other_body.ask.fingerprint, other_body.ask.attempt, None).await.unwrap();
}

fn is_kept(server: &Server, key: u8) -> bool {
    server.cli(&["EXISTS", &format!("test:k:{}", hex::encode([key; 16]))]) == "1"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m16_redis_a_key_that_merely_hit_is_known_to_all_replicas() {
    let server = Server::start();
    let (one, other) = (replica(&server, Clock::system()).await, replica(&server, Clock::system()).await);
    let made = one.send(1, 1).await;
    one.accept(&made, "job").await;
    assert!(matches!(one.admit(&keyed(&one, 1, 2, 7)).await, Verdict::Hit(..)));
    until(&one, "it is kept", async || is_kept(&server, 7)).await;
    assert!(matches!(other.admit(&keyed(&other, 2, 3, 7)).await, Verdict::KeyReused));
    let verdict = other.admit(&wish(&other, 1, 4, 7)).await;
    assert!(matches!(verdict, Verdict::Hit(..)), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m16_redis_of_keys_that_merely_hit_the_oldest_leave_and_those_of_attempts_stay() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    bench.ledger.reload(Bounds { max_entries: 5, ..BOUNDS }, Arc::default());
    let made = bench.send(1, 1).await;
    let (_, job) = bench.accept(&made, "job").await;
    let hits = async |keys: std::ops::RangeInclusive<u8>| {
        for key in keys {
            let verdict = bench.admit(&keyed(&bench, 1, key, key)).await;
            assert!(matches!(verdict, Verdict::Hit(..)), "{key}: {verdict:?}");
            until(&bench, "it is kept", async || is_kept(&server, key)).await;
        }
    };
    hits(10..=20).await;
    for key in 10..=20 {
        assert_eq!(is_kept(&server, key), key > 15, "{key}");
    }
    assert_eq!(server.cli(&["ZCARD", "test:hits"]), "5");
    let kept: i64 = server.cli(&["TTL", &format!("test:k:{}", hex::encode([20; 16]))]).parse().unwrap();
    assert!((1..=24 * 3600).contains(&kept), "{kept}");
    // A key that hit, and then began an attempt, is no longer one of them.
    bench.ledger.turned(job, Turn::Over, Life::Failed.into()).await.unwrap();
    let begun = keyed(&bench, 1, 30, 20);
    assert!(matches!(bench.admit(&begun).await, Verdict::Claimed(_)));
    bench.ledger.sending(begun.ask.fingerprint, begun.ask.attempt).await.unwrap();
    bench.accept(&begun, "next").await;
    hits(40..=46).await;
    assert!(is_kept(&server, 20) && !is_kept(&server, 41));
    assert!(matches!(bench.admit(&keyed(&bench, 2, 50, 20)).await, Verdict::KeyReused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m16_redis_a_hit_asks_once_whether_its_key_is_new_known_or_none() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    let made = bench.send(1, 1).await;
    bench.accept(&made, "job").await;
    let steps = || {
        let stats = server.cli(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
        calls.unwrap().parse::<u32>().unwrap()
    };
    let requests = [keyed(&bench, 1, 2, 7), keyed(&bench, 1, 3, 7), bench.request(1, 4)];
    for (number, request) in requests.iter().enumerate() {
        let before = steps();
        assert!(matches!(bench.admit(request).await, Verdict::Hit(..)));
        assert_eq!(steps() - before, 1, "{number}");
        until(&bench, "it is kept", async || is_kept(&server, 7)).await;
    }
}
