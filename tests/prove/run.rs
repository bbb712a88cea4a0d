//! One run: rounds of a calm, after which the counters must agree with the upstream, and a storm; then the books.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reelgate::simulator::{Counts, Options, Simulator};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::arguments::{Arguments, Fault, Kind};
use super::books::Books;
use super::dice::Dice;
use super::redis::Redis;
use super::replica::Replica;
use super::report::Report;
use super::storm::{self, Damage};
use super::wire::{self, Leaves, Told};

/// Kills between two calms.
const KILLS_A_ROUND: usize = 20;
/// What the upstream has ready for the submissions of a round.
const FAULTS_A_ROUND: usize = 20_000;
/// Faults in a calm.
const FAULTS_A_CALM: usize = 6;
/// Clients that ask for everything once more at the end.
const LAST_CLIENTS: usize = 16;
/// How long things that must happen may take.
const SOON: Duration = Duration::from_secs(30);
/// The upstream's key; nothing real.
const KEY: &str = "the-key-of-a-proof";

/// Everything that takes part.
pub struct World {
    pub arguments: Arguments,
    pub upstream: Simulator,
    pub redis: Option<Redis>,
    pub replicas: Vec<Arc<Replica>>,
    pub books: Arc<Books>,
    pub damage: Damage,
    deaths: Arc<AtomicUsize>,
    next_prompt: Arc<AtomicUsize>,
    folder: PathBuf,
}

pub async fn run(arguments: &Arguments) -> Result<Report, String> {
    let begun = Instant::now();
    let mut dice = Dice::new(arguments.seed);
    let mut world = World::start(arguments).await?;
    let mut rounds = 0;
    while world.damage.kills < arguments.kills {
        rounds += 1;
        world.round(&mut dice).await?;
        let (kills, tally) = (world.damage.kills, world.books.tally());
        eprintln!("round {rounds}: {kills} kills, {} submissions so far", tally.submissions);
    }
    let findings = world.last().await?;
    let logs = world.replicas.iter().map(|replica| replica.log()).collect();
    Ok(Report {
        arguments: arguments.clone(),
        rounds,
        damage: world.damage,
        cuts: world.upstream.counts().cut,
        tally: world.books.tally(),
        findings,
        took: begun.elapsed(),
        logs,
    })
}

impl World {
    async fn start(arguments: &Arguments) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("reelgate-proof-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let options =
            Options { key: Some(KEY.to_owned()), job_duration: Duration::from_millis(200), ..Options::default() };
        let upstream = Simulator::start(options).await.map_err(|error| error.to_string())?;
        let redis = match arguments.ledger {
            Kind::Disk => None,
            Kind::Redis => Some(Redis::start(&folder).await?),
        };
        let environment = |number: usize| {
            let mut all = vec![
                ("COMETAPI_KEY", KEY.to_owned()),
                ("REELGATE_UPSTREAM__URL", upstream.origin()),
                // Some answers come after their clients were told that nobody knows, and some after that.
                ("REELGATE_UPSTREAM__LATE_ANSWER", "2s".to_owned()),
                ("REELGATE_UPSTREAM__SUBMIT_TIMEOUT", "1s".to_owned()),
                // No hold ends within a run, so that nothing may be bought again.
                ("REELGATE_DEDUP__UNKNOWN_HOLD", "24h".to_owned()),
                ("REELGATE_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
                ("REELGATE_SERVER__WORKERS", "2".to_owned()),
                ("REELGATE_SERVER__SHUTDOWN_GRACE", "3s".to_owned()),
                ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
                ("REELGATE_LIMITS__USER__GENERATIONS", "off".to_owned()),
                ("REELGATE_LIMITS__USER__REQUESTS", "off".to_owned()),
                ("REELGATE_LIMITS__ADDRESS__REQUESTS", "off".to_owned()),
                ("REELGATE_LIMITS__TOTAL__GENERATIONS", "off".to_owned()),
            ];
            match &redis {
                Some(redis) => {
                    all.extend([("REELGATE_LEDGER__KIND", "redis".to_owned()), ("REELGATE_REDIS_URL", redis.url())])
                }
                None => {
                    all.push(("REELGATE_LEDGER__PATH", folder.join(format!("ledger-{number}")).display().to_string()))
                }
            }
            all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let replicas = (0..arguments.replicas)
            .map(|number| Arc::new(Replica::new(number, arguments.program.clone(), environment(number))));
        let world = Self {
            arguments: arguments.clone(),
            replicas: replicas.collect(),
            upstream,
            redis,
            books: Arc::default(),
            damage: Damage::default(),
            deaths: Arc::default(),
            next_prompt: Arc::default(),
            folder,
        };
        world.start_all().await?;
        Ok(world)
    }

    /// A replica has ended, and with it what only it knew.
    pub fn died(&self) {
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }

    /// How often a replica has ended.
    pub fn deaths(&self) -> usize {
        self.deaths.load(Ordering::SeqCst)
    }

    async fn start_all(&self) -> Result<(), String> {
        for replica in &self.replicas {
            replica.start().await?;
        }
        Ok(())
    }

    /// New processes, of which nothing is on its way: a calm, in which none dies, and then a storm.
    async fn round(&mut self, dice: &mut Dice) -> Result<(), String> {
        for replica in &self.replicas {
            replica.end().await?;
            self.died();
        }
        self.upstream.wait_until(|counts| counts.open == 0, SOON).await;
        let before = self.upstream.counts();
        // More than a round will ask for.
        self.upstream.clear_queues();
        for _ in 0..FAULTS_A_ROUND {
            self.upstream.next_submission(storm::upstream_fault(&self.arguments, dice));
        }
        self.start_all().await?;
        let clients = self.clients(dice);
        for _ in 0..FAULTS_A_CALM {
            storm::ruffle(self, dice).await?;
        }
        clients.end().await;
        self.check_counters(before).await?;
        let clients = self.clients(dice);
        let wanted = (self.damage.kills + KILLS_A_ROUND).min(self.arguments.kills);
        while self.damage.kills < wanted {
            storm::strike(self, dice).await?;
        }
        clients.end().await;
        Ok(())
    }

    fn clients(&self, dice: &mut Dice) -> Clients {
        let over = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let client = Client {
                dice: dice.split(),
                replicas: self.replicas.clone(),
                books: self.books.clone(),
                deaths: self.deaths.clone(),
                next_prompt: self.next_prompt.clone(),
                over: over.clone(),
                leaves: self.arguments.may(Fault::Leave),
            };
            tokio::spawn(client.run())
        };
        let all = (0..self.arguments.clients).map(client).collect();
        Clients { over, all }
    }

    /// While the processes live, what they count agrees with what the upstream saw (INV-10).
    async fn check_counters(&self, before: Counts) -> Result<(), String> {
        let deadline = Instant::now() + SOON;
        loop {
            let (mut created, mut unknown, mut sent, mut in_flight, mut panics) = (0, 0, 0, 0, 0);
            for replica in &self.replicas {
                let metrics = replica.metrics().await?;
                created += metrics.sum("submissions_total", "outcome=\"created\"");
                unknown += metrics.sum("submissions_total", "outcome=\"unknown\"");
                let calls = |labels: &str| metrics.sum("upstream_requests_total", labels);
                sent += ["ok", "refused", "unknown", "error"]
                    .map(|outcome| calls(&format!("operation=\"submit\",outcome=\"{outcome}\"")))
                    .iter()
                    .sum::<u64>();
                in_flight += metrics.sum("requests_in_flight", "");
                panics += metrics.sum("panics_total", "");
            }
            let after = self.upstream.counts();
            let (posts, accepted) = (after.posts - before.posts, after.accepted - before.accepted);
            let agree = created <= accepted && accepted <= created + unknown && posts <= sent;
            if agree && in_flight == 0 && panics == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.books.wrong(format!(
                    "the counters do not agree: the upstream saw {posts} POSTs and accepted {accepted}; the replicas \
                     count {sent} sent, {created} created, {unknown} unknown, {in_flight} in flight, {panics} panics"
                ));
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The upstream is well again, and every prompt is asked for once more.
    async fn last(&mut self) -> Result<super::books::Findings, String> {
        self.upstream.clear_queues();
        for replica in &self.replicas {
            replica.end().await?;
        }
        self.start_all().await?;
        let prompts = self.books.prompts();
        prompts.iter().for_each(|prompt| self.books.begin(prompt, false, self.deaths()));
        let submit =
            |address, prompt: String| async move { wire::submit(address, &prompt, "", Leaves::Answered).await };
        let mut last = self.of_each(prompts, submit).await?;
        last.iter().for_each(|(prompt, told)| self.books.end(prompt, told));
        // Once more where it was refused for a moment, or where the answer was late.
        let unsettled = last.iter().filter(|(_, told)| !matches!(told, Told::Job { .. }));
        let unsettled = unsettled.map(|(prompt, _)| prompt.clone()).collect();
        sleep(Duration::from_secs(3)).await;
        last.extend(self.of_each(unsettled, submit).await?);
        let ids = self.upstream.accepted().into_iter().map(|job| job.request_id).collect();
        let polls = self.of_each(ids, |address, id| async move {
            let answer = wire::get(address, &format!("/grok/v1/videos/{id}")).await;
            answer.is_some_and(|answer| answer.status == 200)
        });
        let polls = polls.await?;
        let journal = self.replicas.iter().flat_map(|replica| replica.journal()).collect();
        Ok(self.books.reconcile(&self.upstream, &last, &polls, &journal))
    }
}

impl World {
    /// Asks about each name, some at a time, on the replicas in turn.
    async fn of_each<T: Send + 'static, F: Future<Output = T> + Send>(
        &self,
        names: Vec<String>,
        ask: impl Fn(SocketAddr, String) -> F + Clone + Send + 'static,
    ) -> Result<HashMap<String, T>, String> {
        let addresses: Option<Vec<_>> = self.replicas.iter().map(|replica| replica.address()).collect();
        let addresses = addresses.ok_or("a replica is down")?;
        let parts = names.chunks(names.len().div_ceil(LAST_CLIENTS).max(1)).map(<[String]>::to_vec);
        let asking: Vec<_> = parts
            .zip(addresses.into_iter().cycle())
            .map(|(part, address)| {
                let ask = ask.clone();
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    for name in part {
                        told.push((name.clone(), ask(address, name).await));
                    }
                    told
                })
            })
            .collect();
        let mut all = HashMap::new();
        for part in asking {
            all.extend(part.await.map_err(|error| error.to_string())?);
        }
        Ok(all)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.replicas.iter().for_each(|replica| replica.kill());
        self.redis = None;
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The clients of a while.
struct Clients {
    over: Arc<AtomicBool>,
    all: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Lets each finish what it waits for.
    async fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        for client in self.all {
            client.await.unwrap();
        }
    }
}

/// One client.
struct Client {
    dice: Dice,
    replicas: Vec<Arc<Replica>>,
    books: Arc<Books>,
    deaths: Arc<AtomicUsize>,
    next_prompt: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    leaves: bool,
}

/// So many of the latest prompts are asked for again and again.
const ALIVE: usize = 24;

impl Client {
    async fn run(mut self) {
        while !self.over.load(Ordering::SeqCst) {
            let Some(address) = self.dice.pick(&self.replicas).address() else {
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            let prompt = self.prompt();
            // A tenth of the prompts is for those who wish for another job now and then.
            let is_wish = prompt.is_multiple_of(10) && self.dice.happens(20);
            let mut headers = String::new();
            if is_wish {
                headers.push_str("cache-control: no-cache\r\n");
            }
            if self.dice.happens(20) {
                headers.push_str(&format!("idempotency-key: key-{prompt}\r\n"));
            }
            let prompt = format!("prompt {prompt}");
            let leaves = match self.dice.below(40) {
                0 if self.leaves => Leaves::Sending(self.dice.below(300)),
                1 | 2 if self.leaves => Leaves::Waiting(self.dice.millis(0, 200)),
                _ => Leaves::Answered,
            };
            self.books.begin(&prompt, is_wish, self.deaths.load(Ordering::SeqCst));
            let told = wire::submit(address, &prompt, &headers, leaves).await;
            self.books.end(&prompt, &told);
            // Who is refused comes back, but not at once.
            let is_refused = matches!(told, Told::Refused(503, _) | Told::Unreached);
            sleep(self.dice.millis(0, if is_refused { 100 } else { 20 })).await;
        }
    }

    fn prompt(&mut self) -> usize {
        let next = self.next_prompt.load(Ordering::SeqCst);
        if self.dice.happens(30) || next == 0 {
            return self.next_prompt.fetch_add(1, Ordering::SeqCst);
        }
        // Now and then one from long ago.
        if self.dice.happens(10) { self.dice.below(next) } else { next - 1 - self.dice.below(ALIVE.min(next)) }
    }
}
