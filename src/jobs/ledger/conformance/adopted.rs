//! A job that was adopted, because its maker's word was late: with that word it is the maker's, its end and its bill too
//! (`MONEY.md` M8, M12, M29, M31).

use super::*;
use crate::jobs::owners::Owner;

pub(super) async fn conforms(bench: &Bench) {
    m31_its_end_counts_though_it_is_still_known_as_adopted(bench).await;
    m31_the_end_that_came_before_its_makers_word_counts(bench).await;
}

fn press() -> Owner {
    Owner { team: "press".into(), user: None }
}

/// It was sent, and somebody polls the id before its maker has told it.
async fn adopted(bench: &Bench, prompt: u8, attempt: u8, id: &str) -> (Request, Arc<Job>) {
    let first = bench.send(prompt, attempt).await;
    let id = RequestId::parse(id).unwrap();
    let job = bench.ledger.adopt(Arc::new(Job::adopted(id, press(), "key", bench.ledger.now()))).await.unwrap();
    assert!(job.is_adopted() && job.is_of(&press()));
    (first, job)
}

async fn m31_its_end_counts_though_it_is_still_known_as_adopted(bench: &Bench) {
    let before = bench.spent().await;
    let (first, job) = adopted(bench, 220, 220, "job-220").await;
    assert_eq!(bench.accept(&first, "job-220").await.0, Rank::Current);
    assert!((bench.spent().await - before - 0.05).abs() < 1e-9, "it is paid");
    let twin = bench.request(220, 221);
    assert!(matches!(bench.admit(&twin).await, Verdict::Hit(created, _) if created.job == job.id));
    let known = bench.ledger.job_anew(&job.id).await.unwrap().unwrap();
    assert_eq!(known.attempt, first.ask.attempt);
    assert!(known.is_of(&press()) && known.is_of(&Owner { team: "open".into(), user: None }));
    let ended = bench.ledger.turned(job, Turn::Over, Life::Failed.into()).await.unwrap();
    assert_eq!((ended.news, ended.fate), (true, Fate::Ends));
    assert!((bench.spent().await - before).abs() < 1e-9, "what failed goes back");
    assert!(matches!(bench.admit(&twin).await, Verdict::Claimed(_)));
    bench.ledger.free(twin.ask.fingerprint, twin.ask.attempt, None).await.unwrap();
}

async fn m31_the_end_that_came_before_its_makers_word_counts(bench: &Bench) {
    for (prompt, turn, life, hits, cost) in [
        (222, Turn::Done(None), Life::Done, true, 0.05),
        (224, Turn::Over, Life::Failed, false, 0.0),
        (226, Turn::Refused, Life::Moderated, true, 0.05),
    ] {
        let before = bench.spent().await;
        let id = format!("job-{prompt}");
        let (first, job) = adopted(bench, prompt, prompt, &id).await;
        assert!(bench.ledger.turned(job.clone(), turn, life.into()).await.unwrap().news);
        bench.accept(&first, &id).await;
        assert!((bench.spent().await - before - cost).abs() < 1e-9, "{life:?}");
        assert!(!bench.ledger.turned(job, turn, life.into()).await.unwrap().news, "{life:?}: it had ended");
        assert!((bench.spent().await - before - cost).abs() < 1e-9, "{life:?}: it is settled once");
        assert!(bench.ledger.hot(&first.ask.fingerprint).is_none(), "{life:?}: nobody may be given it without a look");
        let twin = bench.request(prompt, prompt + 1);
        let verdict = bench.admit(&twin).await;
        assert_eq!(matches!(&verdict, Verdict::Hit(..)), hits, "{life:?}: {verdict:?}");
        if !hits {
            bench.ledger.free(twin.ask.fingerprint, twin.ask.attempt, None).await.unwrap();
        }
    }
}
