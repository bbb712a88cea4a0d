//! Many users: what operators ask about them must not stand in the way of what is bought, and only so many have an account
//! of their own.

use super::*;
use crate::bill::account::{AccountKey, Holder, Period};
use crate::bill::form;

/// Writes as many users' accounts of a period, and everybody's, as an earlier replica did; the last user spent most.
fn fill(server: &Server, period: Period, users: u32) {
    let all = hex::encode(form::account_key(&AccountKey { period, holder: Holder::Total }));
    let script = "local set, account = 'test:us:' .. ARGV[1], 'test:a:' .. ARGV[1] \
         redis.call('SADD', 'test:as:' .. ARGV[1], ARGV[2]) \
         redis.call('HSET', account .. ':total', 'spent', '70000000000', 'jobs', ARGV[3]) \
         for number = 1, tonumber(ARGV[3]) do \
         local user = string.format('%032x', number) \
         redis.call('SADD', set, string.sub(ARGV[2], 1, 10) .. '75' .. user .. '6f70656e') \
         redis.call('HSET', account .. ':user:' .. user .. ':open', 'spent', string.format('%.0f', number * 1e12)) \
         redis.call('HSET', 'test:h:user:' .. user .. ':open', 'running', number) end";
    server.cli(&["EVAL", script, "0", &period.to_string(), &all, &users.to_string()]);
}

/// A replica whose questions have less time than all accounts would take in one go.
async fn hasty(server: &Server) -> Bench {
    let place = Place { timeout: Duration::from_secs(1), ..place(server, Duration::from_secs(30)) };
    replica_at(&place, Clock::system()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f55_redis_what_very_many_users_spent_is_told_while_others_buy() {
    const USERS: [u32; 2] = [400_000, 5];
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

/// Four users buy for five cents each, with a token of their own, at one replica or another.
async fn only_tracked_users_have_an_account([one, other]: [&Bench; 2]) {
    let budget = Budget { per_day: Amount::parse("1"), ..Budget::default() };
    let budgets = Budgets { user: budget, tracked: 2, ..Budgets::default() };
    let terms = Arc::new(Terms::new(&budgets, Running::default(), std::collections::HashMap::new()));
    [one, other].iter().for_each(|bench| bench.ledger.reload(BOUNDS, terms.clone()));
    let until = one.ledger.now() + Duration::from_secs(3600);
    let of_user = |bench: &Bench, user: u8, number: u8| {
        let mut request = bench.request(number, number);
        (request.charge.user, request.charge.name) = ([user; 16], (user < 3).then(|| format!("user {user}").into()));
        request.charge.purse = Some(Purse { id: [user; 16], usd: Amount::parse("0.12"), seconds: None, until });
        request
    };
    for user in 1..=4 {
        let bench = if user % 2 == 0 { other } else { one };
        let request = of_user(bench, user, user);
        assert!(matches!(bench.admit(&request).await, Verdict::Claimed(_)), "{user}");
    }
    // Who has an account keeps it, though there is no room for another.
    assert!(matches!(other.admit(&of_user(other, 1, 7)).await, Verdict::Claimed(_)));
    for page in one.ledger.statement(10).await.unwrap().periods {
        let users = page.users.iter().map(|line| (line.user.clone().unwrap(), line.reserved_usd, line.running));
        let others = hex::encode([0; 16]);
        assert_eq!(
            users.collect::<Vec<_>>(),
            [(others, 0.1, 2), ("user 1".to_owned(), 0.1, 2), ("user 2".to_owned(), 0.05, 1)]
        );
    }
    let left = async |user| {
        let preview = one.ledger.preview(&of_user(one, user, 8)).await.unwrap();
        preview.left.iter().map(|left| (left.limit, (left.left * 100.0).round())).collect::<Vec<_>>()
    };
    assert_eq!(left(1).await, [("user.per_day", 90.0), ("token.budget_usd", 2.0)]);
    assert_eq!(left(3).await, [("user.per_day", 90.0), ("token.budget_usd", 2.0)]);
    assert_eq!(left(9).await, left(3).await, "they share it");
    // Theirs is one budget.
    let verdict = other.admit(&of_user(other, 4, 9)).await;
    assert!(matches!(verdict, Verdict::Exhausted(exhausted) if exhausted.limit == "token.budget_usd"), "{verdict:?}");
}

#[tokio::test]
async fn inv7_m29_in_memory_only_as_many_users_as_are_tracked_have_an_account() {
    let bench = Bench::over(LocalLedger::in_memory(Bench::limits(), BOUNDS, 100, Clock::system()));
    only_tracked_users_have_an_account([&bench, &bench]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv7_m29_redis_only_as_many_users_as_are_tracked_have_an_account() {
    let server = Server::start();
    let (one, other) = (replica(&server, Clock::system()).await, replica(&server, Clock::system()).await);
    only_tracked_users_have_an_account([&one, &other]).await;
    let day = Period::of(one.ledger.now())[0];
    assert_eq!(server.cli(&["SCARD", &format!("test:us:{day}")]), "3", "two, and that of the others");
}
