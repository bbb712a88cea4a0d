//! Redis is slow for a while: a poll's answer does not wait for what it showed to be written, which is written later
//! (`MONEY.md` M19, M21).

use reelgate::simulator::End;
use rustix::process::Signal;

use super::{Fleet, quick};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m19_m21_redis_an_end_that_is_written_later_counts_once() {
    // Redis is slow, and never so slow that a question to it fails; or it is as if it were away.
    for patience in ["30s", "200ms"] {
        let fleet = Fleet::start(1, quick(), &[("REELGATE_LEDGER__TIMEOUT", patience)]).await;
        let replica = &fleet.replicas[0];
        let id = replica.submit("one").await.request_id();
        let failed = End::Failed { code: "internal_error".to_owned(), message: "no".to_owned() };
        assert!(fleet.upstream.finish(&id, failed));
        fleet.redis.signal(Signal::STOP);
        assert!(replica.poll(&id).await.text().contains("failed"));
        assert_eq!(replica.metric("jobs_total{outcome=\"failed\"}").await, 0.0, "nobody has written it yet");
        if patience == "200ms" {
            replica.metric_becomes("degraded{reason=\"ledger\"}", 1.0).await;
        }
        fleet.redis.signal(Signal::CONT);
        replica.metric_becomes("jobs_total{outcome=\"failed\"}", 1.0).await;
        assert!(replica.poll(&id).await.text().contains("failed"));
        assert_eq!(replica.metric("jobs_total{outcome=\"failed\"}").await, 1.0);
        fleet.end().await;
    }
}
