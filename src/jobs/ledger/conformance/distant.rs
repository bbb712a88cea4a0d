//! A Redis that is far away: whoever waits for a step leaves before it is written, and nothing is lost by that (`MONEY.md`
//! M8, M21, M26, M29).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::replicas::until;
use super::*;
use crate::bill::tab::Totals;
use crate::jobs::ledger::WRITE_PATIENCE;
use crate::telemetry::labels::JobOutcome;

/// The way to a server, on which all bytes take their time.
struct Distance {
    address: SocketAddr,
    /// In milliseconds, each way.
    takes: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Distance {
    /// A way without a length.
    async fn to(server: &Server) -> Self {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, port) = (listener.local_addr().unwrap(), server.port);
        let takes = Arc::new(AtomicU64::new(0));
        let towards = takes.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
                for socket in [&client, &server] {
                    socket.set_nodelay(true).unwrap();
                }
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, towards.clone()));
                tokio::spawn(carry(from_server, to_client, towards.clone()));
            }
        });
        Self { address, takes, serving }
    }

    /// From now on a question and its answer take this long together.
    fn round_trip(&self, millis: u64) {
        self.takes.store(millis / 2, Ordering::Relaxed);
    }

    /// A replica at its other end.
    async fn replica(&self, server: &Server) -> Bench {
        let url = format!("redis://{}", self.address);
        replica_at(&Place { url, ..place(server, Duration::from_secs(30)) }, Clock::system()).await
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// All bytes arrive in their order, each so much later.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, takes: Arc<AtomicU64>) {
    let (send, mut underway) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let arrives = async move {
        while let Some((at, bytes)) = underway.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let leaves = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let at = Instant::now() + Duration::from_millis(takes.load(Ordering::Relaxed));
            _ = send.send((at, buffer[..count].to_vec()));
        }
    };
    tokio::join!(arrives, leaves);
}

fn totals(bench: &Bench) -> Totals {
    bench.ledger.totals().into_iter().next().map(|(_, totals)| totals).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m19_m26_m29_redis_turns_that_take_longer_than_their_polls_wait_are_counted_and_put_back() {
    let server = Server::start();
    let distance = Distance::to(&server).await;
    let bench = distance.replica(&server).await;
    let mut jobs = Vec::new();
    for number in 1..=5 {
        let made = bench.send(number, number).await;
        jobs.push(bench.accept(&made, &format!("job-{number}")).await.1);
    }
    let spent = totals(&bench).spent;
    // A turn asks twice, and its poll waits for 50 ms.
    distance.round_trip(30);
    for (number, job) in jobs.iter().enumerate() {
        let (turn, life) = if number == 4 { (Turn::Refused, Life::Moderated) } else { (Turn::Over, Life::Failed) };
        let poll = || bench.ledger.turned(job.clone(), turn, life.into());
        let (one, other) = tokio::join!(poll(), poll());
        let both = [one, other].map(|turned| turned == Err(LedgerError::Unavailable));
        assert_eq!(both, [true; 2], "polls do not wait for so long");
    }
    bench.ledger.flush().await.unwrap();
    distance.round_trip(0);
    let cents = |count: u64| Amount::from_ticks(5 * count * 100_000_000);
    assert_eq!(spent, cents(5));
    let (returned, lost) = (cents(4), [Amount::ZERO, cents(1), Amount::ZERO]);
    assert_eq!(totals(&bench), Totals { spent, returned, lost, at_risk: Amount::ZERO });
    let ends = bench.ledger.ends();
    let seen = |wanted| ends.iter().find(|(outcome, _)| *outcome == wanted).map(|(_, count)| count);
    assert_eq!((seen(JobOutcome::Failed), seen(JobOutcome::Moderated)), (Some(4), Some(1)));

    let before = bench.spent().await;
    server.cli(&["FLUSHALL"]);
    until(&bench, "all is back", async || {
        server.cli(&["EXISTS", "test:epoch"]) == "1"
            && server.cli(&["ZCARD", "test:restoring"]) == "0"
            && bench.spent().await > 0.0
    })
    .await;
    assert_eq!(bench.spent().await, before);
    assert_eq!(server.cli(&["ZCARD", "test:running"]), "0");
    let told_again = bench.ledger.turned(jobs[0].clone(), Turn::Over, Life::Failed.into()).await.unwrap();
    assert!(!told_again.news);
    assert_eq!((totals(&bench).returned, bench.ledger.ends()), (returned, ends), "nothing counts twice");
    let verdict = bench.admit(&bench.request(1, 11)).await;
    assert!(matches!(verdict, Verdict::Claimed(_)), "its job has failed: {verdict:?}");
    let verdict = bench.admit(&bench.request(5, 15)).await;
    assert!(matches!(verdict, Verdict::Hit(..)), "it would be refused again: {verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_m26_m29_redis_a_job_whose_write_takes_longer_than_its_answer_waits_is_counted_and_put_back() {
    let server = Server::start();
    let distance = Distance::to(&server).await;
    let bench = distance.replica(&server).await;
    let made = bench.send(1, 1).await;
    let (job, created) = bench.job(&made, "job");
    distance.round_trip(600);
    let accepted = timeout(WRITE_PATIENCE, bench.ledger.accepted(job, created)).await;
    assert!(accepted.is_err(), "its answer does not wait for so long: {accepted:?}");
    bench.ledger.flush().await.unwrap();
    distance.round_trip(0);
    assert_eq!(totals(&bench).spent, Amount::parse("0.05").unwrap());
    server.cli(&["FLUSHALL"]);
    let verdict = bench.admit(&bench.request(1, 2)).await;
    assert!(matches!(&verdict, Verdict::Hit(created, _) if created.job.as_str() == "job"), "{verdict:?}");
}
