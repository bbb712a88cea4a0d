//! The limits that a client token brings along: beside all others, and in the same decision.

use super::*;
use crate::request::client::Counted;

fn with_token(user: u64, token: u64, requests: Option<Rate>, generations: Option<Rate>) -> Who {
    let token = Counted { key: bucket_key(token), rates: Rates { requests, generations } };
    Who { token: Some(token), ..who(user) }
}

#[test]
fn m24_a_tokens_refusal_takes_nothing_from_its_user_nor_its_users_from_it() {
    let bench = Bench::new(&generations(rate(4, DAY)));
    let (one, other) = (with_token(7, 1, None, rate(2, DAY)), with_token(7, 2, None, rate(9, DAY)));
    let take = |who: &Who| bench.limits.generations(who).map(|(taken, _)| taken);
    for _ in 0..2 {
        _ = take(&one).unwrap();
    }
    for _ in 0..10 {
        assert_eq!(take(&one).unwrap_err().limit.name(), "token.generations");
    }
    let kept = take(&other).unwrap();
    _ = take(&other).unwrap();
    // Four are gone, so the token that would allow nine widens nothing, and pays nothing either.
    for _ in 0..10 {
        assert_eq!(take(&other).unwrap_err().limit.name(), "user.generations");
    }
    bench.limits.give_back(kept);
    let (_, standing) = bench.limits.generations(&other).unwrap();
    let left: Vec<_> = standing.levels().map(|(limit, level)| (limit.name(), level.remaining)).collect();
    assert_eq!(left, [("token.generations", 7), ("user.generations", 0)]);
    // Who comes without a token is not asked for one.
    bench.pass(DAY);
    assert_eq!(bench.drain(7), 4);
}

#[test]
fn a_tokens_requests_are_counted_with_hits_and_told_in_the_headers() {
    let bench = Bench::new(&generations(rate(4, MINUTE)));
    let who = with_token(7, 1, rate(2, MINUTE), None);
    let mut standing = bench.limits.requests(&who).unwrap();
    let (_, stands) = bench.limits.generations(&who).unwrap();
    standing = standing.then(stands);
    let mut headers = HeaderMap::new();
    bench.limits.write_headers(&who, &standing, &mut headers);
    assert_eq!(headers["ratelimit-policy"], "\"token.requests\";q=2;w=60, \"user.generations\";q=4;w=60");
    assert_eq!(headers["ratelimit"], "\"token.requests\";r=1;t=30, \"user.generations\";r=3;t=15");
    _ = bench.limits.requests(&who).unwrap();
    let refused = bench.limits.requests(&who).unwrap_err();
    assert_eq!((refused.limit.name(), refused.retry_after), ("token.requests", Duration::from_secs(30)));
    // Where nothing else is limited, its own limits are told all the same.
    let (open, mut headers) = (Bench::new(&off()), HeaderMap::new());
    let standing = open.limits.requests(&who).unwrap();
    open.limits.write_headers(&who, &standing, &mut headers);
    assert_eq!(headers["ratelimit-policy"], "\"token.requests\";q=2;w=60");
}

#[test]
fn lim13_tokens_are_bounded_and_those_beyond_it_share_a_bucket() {
    let bench = Bench::new(&settings::Limits { tracked: 10, ..off() });
    let take = |token| bench.limits.generations(&with_token(1, token, None, rate(3, DAY))).map(drop);
    for token in 0..10 {
        take(token).unwrap();
    }
    assert_eq!((10..100).filter(|token| take(*token).is_ok()).count(), 3, "they share one");
    assert_eq!(bench.limits.tracked(Scope::Token), 10);
    bench.pass(DAY);
    bench.limits.sweep();
    assert_eq!(bench.limits.tracked(Scope::Token), 0);
}

#[test]
fn m24_a_reload_leaves_what_tokens_have_used() {
    let bench = Bench::new(&off());
    let who = with_token(7, 1, None, rate(2, DAY));
    _ = bench.limits.generations(&who).unwrap();
    bench.limits.reload(&generations(rate(1, MINUTE)), &[]);
    _ = bench.limits.generations(&who).unwrap();
    bench.pass(MINUTE);
    assert_eq!(bench.limits.generations(&who).unwrap_err().limit.name(), "token.generations");
}
