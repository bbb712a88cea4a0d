//! What operators see and may do, and which jobs are watched: the same on every ledger.

use super::*;
use crate::jobs::list::{Cursor, EntryQuery, Forgotten, JobLine, JobQuery, JobState};

pub(super) async fn conforms(bench: &Bench) {
    m23_each_quiet_job_is_given_out_once_until_its_next_look(bench).await;
    jobs_and_unknown_outcomes_are_listed_newest_first_in_pages(bench).await;
    what_may_have_been_paid_is_listed_though_another_attempt_lies_over_it(bench).await;
    entries_are_listed_by_name_and_found_by_their_first_digits(bench).await;
    what_is_forgotten_is_free_and_what_is_on_its_way_only_by_force(bench).await;
    m27_slots_that_replicas_share_lie_an_interval_apart(bench).await;
}

async fn m23_each_quiet_job_is_given_out_once_until_its_next_look(bench: &Bench) {
    let quiet = Duration::from_millis(40);
    let (left, ended) = (bench.send(60, 160).await, bench.send(61, 161).await);
    bench.accept(&left, "watched").await;
    let (_, over) = bench.accept(&ended, "over").await;
    bench.ledger.turned(over, Turn::Done(None), Life::Done.into()).await.unwrap();
    let mut seen = 0;
    let look = async || -> Vec<String> {
        let due = bench.ledger.watch_next(quiet, 1000).await.unwrap();
        due.iter().map(|job| job.id.to_string()).collect()
    };
    assert!(
        !bench
            .ledger
            .watch_next(Duration::from_secs(60), 9)
            .await
            .unwrap()
            .iter()
            .any(|job| &*job.id.to_string() == "watched")
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while seen < 2 {
        let due = look().await;
        assert!(!due.contains(&"over".to_owned()));
        // Nobody else is given it now.
        if due.contains(&"watched".to_owned()) {
            seen += 1;
        }
        assert!(tokio::time::Instant::now() < deadline, "it was given out {seen} times");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A client polls it, so it is left alone.
    let job = bench.ledger.job(&RequestId::parse("watched").unwrap()).await.unwrap().unwrap();
    bench.ledger.polled(&job);
    assert!(job.polled().is_some());
    let again = bench.ledger.watch_next(Duration::from_secs(60), 1000).await.unwrap();
    assert!(!again.iter().any(|other| other.id == job.id));
}

/// All pages of a query.
async fn listed(bench: &Bench, query: JobQuery) -> Vec<JobLine> {
    let (mut lines, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        let page = bench.ledger.jobs(&JobQuery { limit: 2, after, ..query.clone() }).await.unwrap();
        assert!(page.lines.len() <= 2);
        lines.extend(page.lines);
        match page.next {
            None => return lines,
            next => after = next,
        }
    }
}

fn names(lines: &[JobLine]) -> Vec<String> {
    lines.iter().map(|line| line.job.as_ref().map_or_else(|| line.asked_as.to_string(), ToString::to_string)).collect()
}

async fn jobs_and_unknown_outcomes_are_listed_newest_first_in_pages(bench: &Bench) {
    for (number, id) in [(62, Some("listed-1")), (63, None), (64, Some("listed-2")), (65, Some("listed-3"))] {
        let mut request = bench.request(number, 100 + number);
        request.ask.team = "listed".into();
        request.ask.request_id = format!("asked-{number}").into();
        assert!(matches!(bench.admit(&request).await, Verdict::Claimed(_)));
        let ask = &request.ask;
        bench.ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
        match id {
            Some(id) => _ = bench.accept(&request, id).await,
            None => bench.ledger.unknown(ask.fingerprint, ask.attempt).await.unwrap(),
        }
        // So that their times differ.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let of_team = JobQuery { team: Some("listed".to_owned()), ..JobQuery::default() };
    let all = listed(bench, of_team.clone()).await;
    assert_eq!(names(&all), ["listed-3", "listed-2", "asked-63", "listed-1"]);
    let unknown = all.iter().find(|line| line.job.is_none()).unwrap();
    assert_eq!((unknown.state, unknown.entry), (JobState::Unknown, Some("unknown")));
    let state = |name: &str| JobQuery { state: JobState::named(name), ..of_team.clone() };
    assert_eq!(names(&listed(bench, state("running")).await), ["listed-3", "listed-2", "listed-1"]);
    assert_eq!(names(&listed(bench, state("unknown")).await), ["asked-63"]);
    assert!(listed(bench, state("failed")).await.is_empty());
    let one = JobQuery { request_id: Some("listed-2".to_owned()), ..JobQuery::default() };
    assert_eq!(listed(bench, one).await[0].entry, Some("accepted"));
    let asked = JobQuery { request_id: Some("asked-63".to_owned()), ..JobQuery::default() };
    assert_eq!(names(&listed(bench, asked).await), ["asked-63"]);
}

async fn what_may_have_been_paid_is_listed_though_another_attempt_lies_over_it(bench: &Bench) {
    let unknown =
        JobQuery { state: JobState::named("unknown"), team: Some("layers".to_owned()), ..JobQuery::default() };
    let attempts = async || listed(bench, unknown.clone()).await.iter().map(|line| line.attempt).collect::<Vec<_>>();
    let mut all = Vec::new();
    for attempt in [170, 171] {
        let mut request = bench.request(67, attempt);
        (request.ask.team, request.ask.asker.no_cache) = ("layers".into(), attempt > 170);
        request.ask.asker.caller = [attempt; 16];
        assert!(matches!(bench.admit(&request).await, Verdict::Claimed(_)));
        let ask = &request.ask;
        bench.ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
        assert_eq!(attempts().await, all, "what is on its way hides nothing");
        bench.ledger.unknown(ask.fingerprint, ask.attempt).await.unwrap();
        all.insert(0, ask.attempt);
        assert_eq!(attempts().await, all);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    bench.ledger.forget(Fingerprint::from_bytes([67; 32]), false).await.unwrap();
    assert!(attempts().await.is_empty());
}

async fn entries_are_listed_by_name_and_found_by_their_first_digits(bench: &Bench) {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = bench.ledger.entries(&EntryQuery { limit: 3, after, ..EntryQuery::default() }).await.unwrap();
        all.extend(page.lines.iter().map(|line| line.fingerprint));
        match page.next {
            None => break,
            next => after = next,
        }
    }
    assert!(all.is_sorted() && all.contains(&Fingerprint::from_bytes([62; 32])), "{all:?}");
    let found = async |prefix: &str| {
        let query = EntryQuery { prefix: prefix.to_owned(), limit: 2, ..EntryQuery::default() };
        bench.ledger.entries(&query).await.unwrap().lines
    };
    let [line] = &found(&"3f".repeat(6)).await[..] else { panic!("one entry begins so") };
    assert_eq!((line.fingerprint, line.layers[0].state), (Fingerprint::from_bytes([63; 32]), "unknown"));
    assert!(found("3f3f3f3f3f3e").await.is_empty());
}

async fn what_is_forgotten_is_free_and_what_is_on_its_way_only_by_force(bench: &Bench) {
    let keyed = |attempt: u8| {
        let mut request = bench.request(66, attempt);
        request.ask.key = Some([66; 16]);
        request
    };
    let first = keyed(166);
    let fingerprint = first.ask.fingerprint;
    assert_eq!(bench.ledger.forget(fingerprint, false).await.unwrap(), Forgotten::Nothing);
    assert!(matches!(bench.admit(&first).await, Verdict::Claimed(_)));
    assert_eq!(bench.ledger.forget(fingerprint, false).await.unwrap(), Forgotten::InFlight("claimed"));
    bench.ledger.sending(fingerprint, first.ask.attempt).await.unwrap();
    assert_eq!(bench.ledger.forget(fingerprint, false).await.unwrap(), Forgotten::InFlight("sending"));
    bench.accept(&first, "forgotten").await;
    assert!(matches!(bench.admit(&keyed(167)).await, Verdict::Hit(..)));
    assert_eq!(bench.ledger.forget(fingerprint, false).await.unwrap(), Forgotten::Gone("accepted"));
    assert!(bench.ledger.hot(&fingerprint).is_none());
    let second = keyed(168);
    assert!(matches!(bench.admit(&second).await, Verdict::Claimed(_)), "also by its own key");
    bench.ledger.sending(fingerprint, second.ask.attempt).await.unwrap();
    assert_eq!(bench.ledger.forget(fingerprint, true).await.unwrap(), Forgotten::Gone("sending"));
    assert_eq!(bench.accept(&second, "kept-all-the-same").await.0, Rank::Orphan);
}

async fn m27_slots_that_replicas_share_lie_an_interval_apart(bench: &Bench) {
    let interval = Duration::from_secs(10);
    let is_shared = bench.ledger.lease().is_some();
    let (mut slots, begun) = (Vec::new(), tokio::time::Instant::now());
    for _ in 0..3 {
        slots.push(bench.ledger.next_slot(interval).await.unwrap());
    }
    // A pause that ends before the next free slot changes nothing.
    bench.ledger.pause(interval / 2).await.unwrap();
    slots.push(bench.ledger.next_slot(interval).await.unwrap());
    bench.ledger.pause(interval * 5).await.unwrap();
    for _ in 0..2 {
        slots.push(bench.ledger.next_slot(interval).await.unwrap());
    }
    // As far as the time between the questions has brought them nearer.
    let late = begun.elapsed();
    for (slot, (intervals, halves)) in slots.into_iter().zip([(0, 0), (1, 0), (2, 0), (3, 1), (5, 10), (6, 10)]) {
        let exact = |span: Duration| if is_shared { span } else { Duration::ZERO };
        for (told, exact) in [(slot.wait, exact(interval * intervals)), (slot.paused, exact(interval / 2 * halves))] {
            assert!(told <= exact && told + late >= exact, "{slot:?}: {told:?} is not {exact:?}");
        }
    }
}
