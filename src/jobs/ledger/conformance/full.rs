//! A full ledger (`MONEY.md` M28): who makes room, and who is counted.

use super::*;
use crate::jobs::list::EntryQuery;

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

/// A job of a team that is done; later ones are hits for longer.
async fn done(bench: &Bench, team: &str, prompt: u8) {
    let (job, _) = accepted(bench, team, prompt).await;
    bench.ledger.turned(job, Turn::Done(None), Life::Done.into()).await.unwrap();
}

async fn accepted(bench: &Bench, team: &str, prompt: u8) -> (Arc<Job>, Rank) {
    tokio::time::sleep(Duration::from_millis(3)).await;
    let request = claimed(bench, team, prompt).await.unwrap();
    bench.ledger.sending(request.ask.fingerprint, request.ask.attempt).await.unwrap();
    let (rank, job) = bench.accept(&request, &format!("job-{prompt}")).await;
    (job, rank)
}

/// A claim of a team, if there is room.
async fn claimed(bench: &Bench, team: &str, prompt: u8) -> Option<Request> {
    let mut request = bench.request(prompt, prompt);
    request.ask.team = team.into();
    match bench.admit(&request).await {
        Verdict::Claimed(_) => Some(request),
        Verdict::Full => None,
        other => panic!("{other:?}"),
    }
}

/// The prompts that have entries.
async fn prompts(bench: &Bench) -> Vec<u8> {
    let all = bench.ledger.entries(&EntryQuery { limit: 100, ..EntryQuery::default() }).await.unwrap();
    all.lines.iter().map(|line| line.fingerprint.as_bytes()[0]).collect()
}

async fn who_has_most_makes_room(bench: &Bench) {
    bound(bench, 5);
    done(bench, "small", 1).await;
    for prompt in 2..=4 {
        done(bench, "large", prompt).await;
    }
    accepted(bench, "large", 5).await;
    let (one, two, three) = ([1, 3, 4, 5, 6], [1, 4, 5, 6, 7], [4, 5, 6, 7, 8]);
    // Twice its oldest, though the other team's is older; then that one has most, and then nothing that may leave.
    for (prompt, left) in [(6, one), (7, two), (8, three), (9, [5, 6, 7, 8, 9])] {
        assert!(claimed(bench, "small", prompt).await.is_some(), "{prompt}");
        assert_eq!(prompts(bench).await, left, "{prompt}");
    }
    assert!(claimed(bench, "small", 10).await.is_none(), "what may still be paid never leaves");
}

#[tokio::test]
async fn m28_t47_in_memory_the_oldest_of_who_has_most_makes_room() {
    who_has_most_makes_room(&Bench::over(LocalLedger::in_memory(Bench::limits(), BOUNDS, 100, Clock::system()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m28_t47_redis_the_oldest_of_who_has_most_makes_room() {
    let server = Server::start();
    who_has_most_makes_room(&replica(&server, Clock::system()).await).await;
}

async fn a_wish_needs_no_room(bench: &Bench) {
    bound(bench, 2);
    done(bench, "studio", 1).await;
    accepted(bench, "studio", 2).await;
    let mut wish = bench.request(2, 3);
    (wish.ask.team, wish.ask.asker.no_cache) = ("studio".into(), true);
    let verdict = bench.admit(&wish).await;
    assert!(matches!(verdict, Verdict::Claimed(_)), "{verdict:?}");
    assert_eq!(prompts(bench).await, [1, 2], "nobody had to leave for what lies over its former job");
    assert!(claimed(bench, "studio", 3).await.is_some());
    assert_eq!(prompts(bench).await, [2, 3]);
}

#[tokio::test]
async fn m13_m28_in_memory_a_wish_needs_no_room() {
    a_wish_needs_no_room(&Bench::over(LocalLedger::in_memory(Bench::limits(), BOUNDS, 100, Clock::system()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m13_m28_redis_a_wish_needs_no_room() {
    let server = Server::start();
    a_wish_needs_no_room(&replica(&server, Clock::system()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m28_t47_redis_what_earlier_versions_have_in_one_index_makes_room_too() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    bound(&bench, 3);
    for prompt in 1..=3 {
        done(&bench, "studio", prompt).await;
    }
    for prompt in 1..=2 {
        let name = hex::encode([prompt; 32]);
        server.cli(&["ZREM", "test:in:done:studio", &name]);
        server.cli(&["ZADD", "test:done", &prompt.to_string(), &name]);
    }
    for (prompt, left) in [(4, [2, 3, 4]), (5, [3, 4, 5]), (6, [4, 5, 6])] {
        assert!(claimed(&bench, "lab", prompt).await.is_some());
        assert_eq!(prompts(&bench).await, left);
    }
    assert_eq!(server.cli(&["EXISTS", "test:done", "test:in:done:studio"]), "0");
    assert!(claimed(&bench, "lab", 7).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m26_m28_redis_where_entries_stand_comes_back_with_them() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    done(&bench, "studio", 1).await;
    accepted(&bench, "studio", 2).await;
    done(&bench, "lab", 3).await;
    claimed(&bench, "lab", 4).await.unwrap();
    let script = "local all = {} for _, key in ipairs(redis.call('KEYS', 'test:in:*')) do \
         all[#all + 1] = key .. ' ' .. table.concat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), ' ') end \
         table.sort(all) return table.concat(all, '; ') .. table.concat(redis.call('ZRANGE', 'test:teams', 0, -1), ' ')";
    let places = || server.cli(&["EVAL", script, "0"]);
    let before = places();
    assert_eq!(before.matches("test:in:").count(), 4, "{before}");
    server.cli(&["FLUSHALL"]);
    let restored = async || places() == before && server.cli(&["ZCARD", "test:restoring"]) == "0";
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if restored().await {
            return;
        }
    }
    panic!("{} instead of {before}", places());
}
