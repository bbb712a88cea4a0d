//! A Redis in which much stands already: what operators ask of it must not stand in the way of what is bought.

use super::*;
use crate::bill::account::{AccountKey, Holder, Period};
use crate::bill::form;

/// Writes as many users' accounts of a period, and everybody's, as an earlier replica did; the last user spent most.
fn fill(server: &Server, period: Period, users: u32) {
    let all = hex::encode(form::account_key(&AccountKey { period, holder: Holder::Total }));
    let script = "local set, account = 'test:as:' .. ARGV[1], 'test:a:' .. ARGV[1] \
         redis.call('SADD', set, ARGV[2]) \
         redis.call('HSET', account .. ':total', 'spent', '70000000000', 'jobs', ARGV[3]) \
         for number = 1, tonumber(ARGV[3]) do \
         local user = string.format('%032x', number) \
         redis.call('SADD', set, string.sub(ARGV[2], 1, 10) .. '75' .. user .. '6f70656e') \
         redis.call('HSET', account .. ':user:' .. user .. ':open', 'spent', string.format('%.0f', number * 1e6)) \
         redis.call('HSET', 'test:h:user:' .. user .. ':open', 'running', number) end";
    server.cli(&["EVAL", script, "0", &period.to_string(), &all, &users.to_string()]);
}

/// A replica whose questions have as long as they usually have.
async fn hasty(server: &Server) -> Bench {
    let place = Place { timeout: Duration::from_millis(250), ..place(server, Duration::from_secs(30)) };
    replica_at(&place, Clock::system()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f55_redis_what_very_many_users_spent_is_told_while_others_buy() {
    const USERS: [u32; 2] = [100_000, 5];
    let server = Server::start();
    let periods = Period::of(Clock::system().now());
    periods.iter().zip(USERS).for_each(|(period, users)| fill(&server, *period, users));
    let bench = hasty(&server).await;
    let buys = async {
        for number in 1..=20 {
            let made = bench.send(number, number).await;
            bench.ledger.free(made.ask.fingerprint, made.ask.attempt, None).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (statement, ()) = tokio::join!(bench.ledger.statement(3), buys);
    for ((page, period), last) in statement.unwrap().periods.iter().zip(periods).zip(USERS) {
        assert_eq!((&page.period, page.total.jobs), (&period.to_string(), i64::from(last)));
        assert!((page.total.spent_usd - 7.0).abs() < 1e-9);
        let users = page.users.iter().map(|line| (line.user.clone().unwrap(), line.running));
        let dearest = (last - 2..=last).rev().map(|user| (format!("{user:032x}"), i64::from(user)));
        assert_eq!(users.collect::<Vec<_>>(), dearest.collect::<Vec<_>>());
    }
    assert!(bench.ledger.is_well());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f55_redis_an_operators_question_that_fails_does_not_stop_buying() {
    let server = Server::start();
    let bench = hasty(&server).await;
    let made = bench.send(1, 1).await;
    server.signal(Signal::STOP);
    let ask = || bench.ledger.statement(3);
    let (one, two, three, four) = tokio::join!(ask(), ask(), ask(), ask());
    for statement in [one, two, three, four] {
        assert_eq!(statement.unwrap_err(), LedgerError::Unavailable);
    }
    server.signal(Signal::CONT);
    assert!(bench.ledger.is_well(), "nobody who buys was refused");
    bench.accept(&made, "bought").await;
}
