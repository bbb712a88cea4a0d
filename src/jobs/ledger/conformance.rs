//! What every ledger must do, whatever it keeps its entries in: the same suite over memory, a file and Redis.

mod adopted;
mod crowd;
mod distant;
mod full;
mod keys;
mod limits;
mod operating;
mod previews;
mod replicas;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};

use super::disk::journal::File;
use super::local::LocalLedger;
use super::redis::open::{Place, reach};
use super::{Closed, Lease, Ledger, LedgerError, Request, Verdict, disk};
use crate::access::teams::Pass;
use crate::admission::rate::Limits;
use crate::admission::settings::{self, Rate, Rates};
use crate::bill::charge::Purse;
use crate::bill::money::Amount;
use crate::bill::price::Price;
use crate::bill::settings::{Budget, Budgets, Running};
use crate::bill::tab::Charge;
use crate::bill::terms::Terms;
use crate::clock::Clock;
use crate::jobs::book::{Ask, Bounds, Found, Rank};
use crate::jobs::entry::{Asker, AttemptId, Created, Fate, Look, Turn, Windows};
use crate::jobs::records::{Job, Life};
use crate::request::client::{BucketKey, Clients, Counted};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

const BOUNDS: Bounds = Bounds {
    windows: Windows {
        delivery: Duration::from_secs(3600),
        hold: Duration::from_secs(600),
        refusal: Duration::from_secs(600),
    },
    max_entries: 1000,
    max_jobs: 1000,
};

/// One ledger under test, with numbers of its own for every rule, so that all rules meet one ledger.
struct Bench {
    ledger: Arc<dyn Ledger>,
    clients: Clients,
}

impl Bench {
    fn limits() -> Arc<Limits> {
        let off = Rates::default();
        let user = Rates { requests: None, generations: Some(Rate { count: 2, per: Duration::from_secs(86_400) }) };
        let limits = settings::Limits { user, team: off, address: off, total: off, tracked: 100 };
        Arc::new(Limits::new(&limits, Clock::system()))
    }

    fn over(ledger: impl Ledger + 'static) -> Self {
        let budget = Budget { per_day: Amount::parse("1"), ..Budget::default() };
        let running = Running { user: Some(2), ..Running::default() };
        let terms =
            Terms::new(&Budgets { user: budget, ..Budgets::default() }, running, std::collections::HashMap::new());
        ledger.reload(BOUNDS, Arc::new(terms));
        Self { ledger: Arc::new(ledger), clients: Clients::keyed([3; 32]) }
    }

    /// A submission of prompt `prompt` by the attempt `attempt`; each prompt has a user of its own.
    fn request(&self, prompt: u8, attempt: u8) -> Request {
        let fingerprint = Fingerprint::from_bytes([prompt; 32]);
        let mut client = self.clients.identify(IpAddr::V4(Ipv4Addr::LOCALHOST), std::rc::Rc::new(Pass::open()));
        client.name(Some(&self.clients.user(client.team(), &format!("user {prompt}"))));
        let ask = Ask {
            fingerprint,
            body: fingerprint,
            base: None,
            attempt: AttemptId::from_bytes([attempt; 16]),
            team: "open".into(),
            request_id: Arc::default(),
            asker: Asker { caller: [prompt; 16], no_cache: false },
            key: None,
            former: None,
        };
        let price = Price { second: Amount::parse("0.05").unwrap(), images: Amount::ZERO, millis: 1000 };
        let user = client.who().user.to_bytes();
        let charge = Charge { team: "open".into(), user, name: None, price, purse: None, at: self.ledger.now() };
        Request { ask, who: *client.who(), charge, charged: false, closed: None }
    }

    async fn admit(&self, request: &Request) -> Verdict {
        self.ledger.admit(request).await.unwrap().verdict
    }

    async fn send(&self, prompt: u8, attempt: u8) -> Request {
        let request = self.request(prompt, attempt);
        let verdict = self.admit(&request).await;
        assert!(matches!(verdict, Verdict::Claimed(_)), "{verdict:?}");
        self.ledger.sending(request.ask.fingerprint, request.ask.attempt).await.unwrap();
        request
    }

    fn job(&self, request: &Request, id: &str) -> (Arc<Job>, Created) {
        let (id, now, ask) = (RequestId::parse(id).unwrap(), self.ledger.now(), &request.ask);
        let job = Job::new(id.clone(), ask.attempt, ask.fingerprint, ask.team.clone(), "key", now);
        let created = Created { job: id, answer: Bytes::from_static(b"{}"), at: now, by: ask.asker.caller };
        (Arc::new(job), created)
    }

    async fn accept(&self, request: &Request, id: &str) -> (Rank, Arc<Job>) {
        let (job, created) = self.job(request, id);
        (self.ledger.accepted(job.clone(), created).await.unwrap(), job)
    }

    async fn spent(&self) -> f64 {
        let statement = self.ledger.statement(10).await.unwrap();
        statement.periods[0].total.spent_usd + statement.periods[0].total.reserved_usd
    }
}

async fn conforms(bench: &Bench) {
    a_claim_is_joined_then_hit_and_ends_with_its_job(bench).await;
    m1_only_its_own_attempt_moves_an_entry(bench).await;
    what_made_nothing_is_free_and_gives_everything_back(bench).await;
    r62_what_is_left_of_a_limit_is_told_exactly(bench).await;
    an_unknown_outcome_holds_until_a_late_answer(bench).await;
    m12_the_answer_of_a_replaced_attempt_is_an_orphan(bench).await;
    m16_a_key_goes_with_its_attempt(bench).await;
    m15_an_undelivered_attempt_is_adopted_once(bench).await;
    m24_limits_budgets_and_places_are_one_decision(bench).await;
    m24_a_tokens_own_limits_are_in_the_same_decision(bench).await;
    previews::conforms(bench).await;
    operating::conforms(bench).await;
    adopted::conforms(bench).await;
    keys::conforms(bench).await;
    bench.ledger.flush().await.unwrap();
    assert!(bench.ledger.is_well());
}

async fn a_claim_is_joined_then_hit_and_ends_with_its_job(bench: &Bench) {
    let before = bench.spent().await;
    let first = bench.send(1, 11).await;
    let twin = bench.request(1, 12);
    let joins = |verdict| matches!(verdict, Verdict::Join { fingerprint, attempt } if fingerprint == twin.ask.fingerprint && attempt == first.ask.attempt);
    assert!(joins(bench.admit(&twin).await));
    let (rank, job) = bench.accept(&first, "job-1").await;
    assert_eq!(rank, Rank::Current);
    assert!(matches!(bench.admit(&twin).await, Verdict::Hit(created, _) if created.job == job.id));
    assert_eq!(bench.ledger.job(&job.id).await.unwrap().unwrap().attempt, first.ask.attempt);
    assert!((bench.spent().await - before - 0.05).abs() < 1e-9);
    let done = bench.ledger.turned(job.clone(), Turn::Done(None), Life::Done.into()).await.unwrap();
    assert_eq!((done.news, done.fate), (true, Fate::Turned));
    let late = bench.ledger.turned(job.clone(), Turn::Over, Life::Failed.into()).await.unwrap();
    assert_eq!((late.news, late.fate), (false, Fate::Ends));
    assert!(matches!(bench.admit(&twin).await, Verdict::Claimed(_)));
    bench.ledger.free(twin.ask.fingerprint, twin.ask.attempt, None).await.unwrap();
}

async fn m1_only_its_own_attempt_moves_an_entry(bench: &Bench) {
    let first = bench.request(2, 21);
    assert!(matches!(bench.admit(&first).await, Verdict::Claimed(_)));
    let stranger = AttemptId::from_bytes([99; 16]);
    let moved = bench.ledger.sending(first.ask.fingerprint, stranger).await;
    assert_eq!(moved, Err(LedgerError::Superseded));
    bench.ledger.free(first.ask.fingerprint, stranger, None).await.unwrap();
    bench.ledger.sending(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    let twice = bench.ledger.sending(first.ask.fingerprint, first.ask.attempt).await;
    assert_eq!(twice, Err(LedgerError::Superseded), "it is on its way already");
    bench.accept(&first, "job-2").await;
}

async fn what_made_nothing_is_free_and_gives_everything_back(bench: &Bench) {
    let before = bench.spent().await;
    for round in 0..5 {
        let request = bench.request(3, 30 + round);
        let Verdict::Claimed(taken) = bench.admit(&request).await else { panic!("a generation was not given back") };
        bench.ledger.free(request.ask.fingerprint, request.ask.attempt, Some(taken)).await.unwrap();
    }
    assert!((bench.spent().await - before).abs() < 1e-9);
}

async fn r62_what_is_left_of_a_limit_is_told_exactly(bench: &Bench) {
    let mut request = bench.request(90, 190);
    for (number, wanted) in [(0, (1, 43_200)), (1, (0, 43_200))] {
        request.ask.fingerprint = Fingerprint::from_bytes([90 + number; 32]);
        request.ask.attempt = AttemptId::from_bytes([190 + number; 16]);
        let admission = bench.ledger.admit(&request).await.unwrap();
        assert!(matches!(admission.verdict, Verdict::Claimed(_)));
        // Two a day.
        let levels: Vec<_> = admission.standing.levels().map(|(_, level)| (level.remaining, level.seconds)).collect();
        assert_eq!(levels, [wanted]);
    }
}

async fn an_unknown_outcome_holds_until_a_late_answer(bench: &Bench) {
    let first = bench.send(4, 41).await;
    bench.ledger.doubted(first.ask.fingerprint, first.ask.attempt, first.ask.asker.caller).await.unwrap();
    bench.ledger.unknown(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    let twin = bench.request(4, 42);
    assert!(matches!(bench.admit(&twin).await, Verdict::Held(wait) if wait >= Duration::from_secs(61)));
    bench.accept(&first, "job-4").await;
    assert!(matches!(bench.admit(&twin).await, Verdict::Hit(..)));
}

async fn m12_the_answer_of_a_replaced_attempt_is_an_orphan(bench: &Bench) {
    let first = bench.send(5, 51).await;
    bench.ledger.unknown(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    let mut wish = bench.request(5, 52);
    wish.ask.asker.no_cache = true;
    assert!(matches!(bench.admit(&wish).await, Verdict::Claimed(_)));
    bench.ledger.sending(wish.ask.fingerprint, wish.ask.attempt).await.unwrap();
    assert_eq!(bench.accept(&wish, "job-5b").await.0, Rank::Current);
    assert_eq!(bench.accept(&first, "job-5a").await.0, Rank::Orphan);
    let asks = bench.request(5, 53);
    assert!(matches!(bench.admit(&asks).await, Verdict::Hit(created, _) if created.job.as_str() == "job-5b"));
}

async fn m16_a_key_goes_with_its_attempt(bench: &Bench) {
    let mut first = bench.request(6, 61);
    first.ask.key = Some([6; 16]);
    assert!(matches!(bench.admit(&first).await, Verdict::Claimed(_)));
    bench.ledger.sending(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    let mut other = bench.request(7, 62);
    other.ask.key = Some([6; 16]);
    assert!(matches!(bench.admit(&other).await, Verdict::KeyReused));
    let mut again = bench.request(6, 63);
    again.ask.key = Some([6; 16]);
    again.ask.asker.no_cache = true;
    assert!(matches!(bench.admit(&again).await, Verdict::Join { .. }), "a key already seen wins over a wish");
    bench.accept(&first, "job-6").await;
    assert!(matches!(bench.admit(&again).await, Verdict::Hit(..)));
    let mut freed = bench.request(8, 64);
    freed.ask.key = Some([8; 16]);
    assert!(matches!(bench.admit(&freed).await, Verdict::Claimed(_)));
    bench.ledger.free(freed.ask.fingerprint, freed.ask.attempt, None).await.unwrap();
    let mut other = bench.request(9, 65);
    other.ask.key = Some([8; 16]);
    assert!(matches!(bench.admit(&other).await, Verdict::Claimed(_)), "what made nothing frees its key");
    bench.ledger.free(other.ask.fingerprint, other.ask.attempt, None).await.unwrap();
}

async fn m15_an_undelivered_attempt_is_adopted_once(bench: &Bench) {
    let base = Some(Fingerprint::from_bytes([200; 32]));
    let mut first = bench.request(10, 101);
    first.ask.base = base;
    assert!(matches!(bench.admit(&first).await, Verdict::Claimed(_)));
    bench.ledger.sending(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    bench.accept(&first, "job-10").await;
    let mut equal = bench.request(11, 102);
    equal.ask.base = base;
    let mut third = bench.request(12, 103);
    third.ask.base = base;
    bench.ledger.undelivered(first.ask.fingerprint, first.ask.attempt).await.unwrap();
    assert!(matches!(bench.admit(&equal).await, Verdict::Hit(created, _) if created.job.as_str() == "job-10"));
    assert!(matches!(bench.admit(&third).await, Verdict::Claimed(_)), "it is adopted once");
    bench.ledger.free(third.ask.fingerprint, third.ask.attempt, None).await.unwrap();
}

async fn m24_limits_budgets_and_places_are_one_decision(bench: &Bench) {
    let of_one = |prompt, attempt| Request { who: bench.request(20, 0).who, ..bench.request(prompt, attempt) };
    let mut kept = Vec::new();
    for number in 0..2 {
        let request = of_one(21 + number, 121 + number);
        let Verdict::Claimed(taken) = bench.admit(&request).await else { panic!("two a day") };
        kept.push((request, taken));
    }
    let third = of_one(24, 124);
    assert!(
        matches!(bench.admit(&third).await, Verdict::Limited(refusal) if refusal.limit.name() == "user.generations")
    );
    let (request, taken) = kept.pop().unwrap();
    bench.ledger.free(request.ask.fingerprint, request.ask.attempt, Some(taken)).await.unwrap();
    let mut dear = third;
    dear.charge.price.millis = 21_000;
    assert!(matches!(bench.admit(&dear).await, Verdict::Exhausted(exhausted) if exhausted.limit == "user.per_day"));
    dear.charge.price.millis = 1_000;
    let Verdict::Claimed(taken) = bench.admit(&dear).await else { panic!("the budget's refusal took a generation") };
    bench.ledger.free(dear.ask.fingerprint, dear.ask.attempt, Some(taken)).await.unwrap();
    // A place of this user is taken by each job that has not ended.
    let charge = bench.request(30, 0).charge;
    for number in 0..2 {
        let request = Request { charge: charge.clone(), ..bench.request(31 + number, 131 + number) };
        assert!(matches!(bench.admit(&request).await, Verdict::Claimed(_)));
    }
    let request = Request { charge, ..bench.request(33, 133) };
    assert!(matches!(bench.admit(&request).await, Verdict::Exhausted(exhausted) if exhausted.limit == "user.running"));
    let mut closed = bench.request(34, 134);
    closed.closed = Some(Closed::Draining);
    assert!(matches!(bench.admit(&closed).await, Verdict::Closed(Closed::Draining)));
}

async fn m24_a_tokens_own_limits_are_in_the_same_decision(bench: &Bench) {
    let until = bench.ledger.now() + Duration::from_secs(3600);
    let of_token = |token: u8, rate: Option<u32>, prompt, attempt| {
        let mut request = bench.request(prompt, attempt);
        let generations = rate.map(|count| Rate { count, per: Duration::from_secs(86_400) });
        let (key, rates) = (BucketKey::new([token; 16]), Rates { requests: None, generations });
        request.who.token = Some(Counted { key, rates });
        request.charge.purse = Some(Purse { id: [token; 16], usd: Amount::parse("0.12"), seconds: None, until });
        request
    };
    let mut kept = Vec::new();
    for number in 0..2 {
        let request = of_token(1, None, 80 + number, 180 + number);
        let Verdict::Claimed(taken) = bench.admit(&request).await else { panic!("two of five cents fit") };
        kept.push((request, taken));
    }
    let third = of_token(1, None, 82, 182);
    assert!(
        matches!(bench.admit(&third).await, Verdict::Exhausted(exhausted) if exhausted.limit == "token.budget_usd")
    );
    let preview = bench.ledger.preview(&third).await.unwrap();
    assert_eq!(preview.exhausted.map(|exhausted| exhausted.limit), Some("token.budget_usd"));
    let (request, taken) = kept.pop().unwrap();
    bench.ledger.free(request.ask.fingerprint, request.ask.attempt, Some(taken)).await.unwrap();
    assert!(matches!(bench.admit(&third).await, Verdict::Claimed(_)), "what was not sent is given back");
    let of_rate = |number: u8| of_token(2, Some(1), 84 + number, 184 + number);
    let Verdict::Claimed(taken) = bench.admit(&of_rate(0)).await else { panic!("one a day") };
    assert!(
        matches!(bench.admit(&of_rate(1)).await, Verdict::Limited(refusal) if refusal.limit.name() == "token.generations")
    );
    let first = of_rate(0).ask;
    bench.ledger.free(first.fingerprint, first.attempt, Some(taken)).await.unwrap();
    assert!(matches!(bench.admit(&of_rate(1)).await, Verdict::Claimed(_)));
}

#[tokio::test]
async fn memory_conforms() {
    let ledger = LocalLedger::in_memory(Bench::limits(), BOUNDS, 100, Clock::system());
    conforms(&Bench::over(ledger)).await;
}

#[tokio::test]
async fn disk_conforms() {
    let folder = Folder::new();
    let opened = disk::open(&folder.0, &BOUNDS.windows, Clock::system()).unwrap();
    let (file, clock) = (File::from(opened.store), opened.clock);
    let ledger = LocalLedger::on_disk(file, opened.book, Bench::limits(), BOUNDS, 100, clock).unwrap();
    conforms(&Bench::over(ledger)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_redis_conforms() {
    let server = Server::start();
    conforms(&replica(&server, Clock::system()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_replicas_whose_clocks_differ_by_a_day_count_by_the_clock_of_redis() {
    let server = Server::start();
    let clock = Clock::system();
    let tomorrow = clock.clone().not_before(clock.now() + Duration::from_secs(24 * 3600));
    let (right, ahead) = (replica(&server, clock.clone()).await, replica(&server, tomorrow).await);
    for (number, (one, other)) in [(1, (&right, &ahead)), (2, (&ahead, &right))] {
        let made = one.send(number, number).await;
        one.accept(&made, &format!("job-{number}")).await;
        let (mine, twin) = (one.admit(&made).await, other.admit(&other.request(number, 10 + number)).await);
        let (Verdict::Hit(_, until), Verdict::Hit(created, same)) = (mine, twin) else {
            panic!("{number} is bought again")
        };
        assert_eq!((created.job.as_str(), same), (&*format!("job-{number}"), until));
        let life = until.since(clock.now());
        assert!(life <= BOUNDS.windows.delivery && life > BOUNDS.windows.delivery / 2, "{number}: {life:?}");

        let doubtful = one.send(20 + number, 20 + number).await;
        one.ledger.unknown(doubtful.ask.fingerprint, doubtful.ask.attempt).await.unwrap();
        let twin = other.admit(&other.request(20 + number, 30 + number)).await;
        let hold = BOUNDS.windows.hold;
        assert!(matches!(twin, Verdict::Held(wait) if wait <= hold && wait > hold / 2), "{number}: {twin:?}");
    }
}

/// A ledger over this Redis, as a replica with this clock has it.
async fn replica(server: &Server, clock: Clock) -> Bench {
    replica_with(server, clock, Duration::from_secs(30)).await
}

async fn replica_with(server: &Server, clock: Clock, lease: Duration) -> Bench {
    replica_at(&place(server, lease), clock).await
}

async fn replica_at(place: &Place, clock: Clock) -> Bench {
    limited(place, clock, Bench::limits()).await
}

async fn limited(place: &Place, clock: Clock, limits: Arc<Limits>) -> Bench {
    let (reached, _) = reach(place, None, None, clock, |_| {}).await.unwrap();
    Bench::over(reached.ledger(limits, BOUNDS, 100, tokio::runtime::Handle::current()).unwrap())
}

fn place(server: &Server, lease: Duration) -> Place {
    Place {
        url: format!("redis://127.0.0.1:{}", server.port),
        root: None,
        prefix: "test:".to_owned(),
        timeout: Duration::from_secs(2),
        lease: Lease { length: lease, send_by: Duration::from_secs(1) },
    }
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let mut name = [0; 8];
        aws_lc_rs::rand::fill(&mut name).unwrap();
        let path = std::env::temp_dir().join(format!("reelgate-conformance-{:x}", u64::from_le_bytes(name)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A redis-server that ends with this value.
struct Server {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = Folder::new();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]).arg("--dir").arg(&folder.0);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("redis-server is there: tests/run installs it");
        let server = Self { child, port, _folder: folder };
        let answers = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            server.cli(&["PING"]) == "PONG"
        });
        assert!(answers, "redis does not answer");
        server
    }

    /// Sends it a signal.
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it one thing by its own client.
    fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output();
        String::from_utf8_lossy(&output.expect("redis-cli is there").stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
