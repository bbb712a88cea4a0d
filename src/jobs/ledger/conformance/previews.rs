//! What would become of a submission, told without changing anything.

use super::*;

pub(super) async fn conforms(bench: &Bench) {
    a_preview_changes_nothing(bench).await;
    a_preview_tells_the_limit_that_a_new_job_would_meet(bench).await;
}

async fn a_preview_changes_nothing(bench: &Bench) {
    let request = bench.request(40, 140);
    for _ in 0..3 {
        let preview = bench.ledger.preview(&request).await.unwrap();
        assert!(matches!(preview.found, Found::Look(_, Look::Free)) && preview.exhausted.is_none());
        assert_eq!(
            preview.left.iter().map(|left| (left.limit, left.left)).collect::<Vec<_>>(),
            [("user.per_day", 1.0)]
        );
    }
    let known = bench.request(1, 141);
    assert!(matches!(bench.ledger.preview(&known).await.unwrap().found, Found::Look(_, Look::Free | Look::Hit(..))));
}

async fn a_preview_tells_the_limit_that_a_new_job_would_meet(bench: &Bench) {
    for number in 0..2 {
        let request = Request { who: bench.request(42, 0).who, ..bench.request(43 + number, 143 + number) };
        assert!(bench.ledger.preview(&request).await.unwrap().limited.is_none(), "{number}");
        assert!(matches!(bench.admit(&request).await, Verdict::Claimed(_)));
    }
    let third = Request { who: bench.request(42, 0).who, ..bench.request(45, 145) };
    let limited = bench.ledger.preview(&third).await.unwrap().limited.map(|refusal| refusal.limit.name());
    assert_eq!(limited, Some("user.generations"));
}
