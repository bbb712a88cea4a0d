//! What a restart remembers, however the process ended (`MONEY.md` M7–M10; F-41 to F-44): the program itself, killed.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{Fault, Options, Simulator};
use rustix::process::Signal;
use serde_json::json;

use super::support::process::Program;
use super::support::{Answer, Folder, GENERATIONS, SOON, ask, eventually, key_is_absent, random_key, together, value};

/// An upstream, and a gateway whose ledger outlives its process.
struct Durable {
    upstream: Simulator,
    folder: Folder,
    key: String,
    environment: Vec<(&'static str, &'static str)>,
    program: Program,
    address: std::net::SocketAddr,
    admin: std::net::SocketAddr,
}

impl Durable {
    async fn start(environment: &[(&'static str, &'static str)]) -> Self {
        let key = random_key();
        let options = Options { key: Some(key.clone()), job_duration: Duration::from_millis(50), ..Options::default() };
        let upstream = Simulator::start(options).await.unwrap();
        let folder = Folder::new();
        let (program, address, admin) = serve(&upstream, &folder, &key, environment).await;
        Self { upstream, folder, key, environment: environment.to_vec(), program, address, admin }
    }

    /// Starts it anew after it has ended.
    async fn again(&mut self) {
        self.program.ended().await;
        let (program, address, admin) = serve(&self.upstream, &self.folder, &self.key, &self.environment).await;
        (self.program, self.address, self.admin) = (program, address, admin);
    }

    /// Kills it at once and starts it anew.
    async fn kill(&mut self) {
        self.program.signal(Signal::KILL);
        self.again().await;
    }

    async fn submit(&self, prompt: &str) -> Answer {
        self.submit_with(prompt, &[]).await
    }

    async fn submit_with(&self, prompt: &str, headers: &[(&str, &str)]) -> Answer {
        let body = json!({"prompt": prompt}).to_string();
        let all = [&[("content-type", "application/json")], headers].concat();
        ask(self.address, Method::POST, GENERATIONS, &all, &body).await
    }

    async fn poll(&self, id: &str) -> Answer {
        ask(self.address, Method::GET, &format!("/grok/v1/videos/{id}"), &[], "").await
    }

    async fn metric(&self, series: &str) -> f64 {
        value(&ask(self.admin, Method::GET, "/metrics", &[], "").await.text(), series)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path("data/ledger.redb")
    }
}

async fn serve(
    upstream: &Simulator,
    folder: &Folder,
    key: &str,
    environment: &[(&str, &str)],
) -> (Program, std::net::SocketAddr, std::net::SocketAddr) {
    let (origin, path) = (upstream.origin(), folder.path("data"));
    let mut all = vec![
        ("COMETAPI_KEY", key),
        ("REELGATE_UPSTREAM__URL", origin.as_str()),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_SERVER__WORKERS", "2"),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ("REELGATE_LIMITS__USER__REQUESTS", "off"),
        ("REELGATE_LIMITS__ADDRESS__REQUESTS", "off"),
        ("REELGATE_LIMITS__TOTAL__GENERATIONS", "off"),
        ("REELGATE_LEDGER__PATH", path.to_str().unwrap()),
    ];
    all.extend(environment);
    let mut program = Program::start(&["serve"], &all);
    let (address, admin) = program.serving().await;
    (program, address, admin)
}

#[tokio::test]
async fn m7_f42_t48_a_job_is_a_hit_after_a_restart_with_its_remaining_life() {
    let mut gateway = Durable::start(&[]).await;
    let made = gateway.submit_with("a candle", &[("idempotency-key", "one")]).await.request_id();
    gateway.program.signal(Signal::TERM);
    gateway.again().await;
    let hit = gateway.submit("a candle").await;
    assert_eq!(hit.request_id(), made);
    let ttl: u64 = hit.cache_status().rsplit('=').next().unwrap().parse().unwrap();
    assert!((82_000..82_800).contains(&ttl), "the restart has not renewed it: {ttl}");
    let keyed = gateway.submit_with("another", &[("idempotency-key", "one")]).await;
    assert_eq!(keyed.refusal(), (422, "idempotency_key_reused".to_owned()));
    eventually("the job is done", async || gateway.poll(&made).await.text().contains("\"done\"")).await;
    assert_eq!(gateway.metric("jobs_total{outcome=\"done\"}").await, 1.0, "its record came back");
    assert_eq!(gateway.upstream.posts(), 1);
}

#[tokio::test]
async fn m7_f41_an_answered_id_survives_a_kill() {
    let mut gateway = Durable::start(&[]).await;
    for round in 0..5 {
        let prompt = format!("prompt {round}");
        let made = gateway.submit(&prompt).await.request_id();
        gateway.kill().await;
        assert_eq!(gateway.submit(&prompt).await.request_id(), made);
    }
    assert_eq!(gateway.upstream.posts(), 5);
}

#[tokio::test]
async fn m7_f41_what_was_being_sent_when_the_process_died_is_held_and_not_sent_again() {
    let mut gateway = Durable::start(&[]).await;
    gateway.upstream.next_submission(Fault::Stall);
    let body = json!({"prompt": "a candle"}).to_string();
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // It stays open: a client that leaves before the send ends the attempt (M6).
    let mut client = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, (head + &body).as_bytes()).await.unwrap();
    assert!(gateway.upstream.wait_until(|counts| counts.posts == 1, SOON).await);
    gateway.kill().await;
    let held = gateway.submit("a candle").await;
    assert_eq!(held.refusal(), (409, "outcome_unknown".to_owned()));
    assert_eq!(gateway.metric("entries{state=\"unknown\"}").await, 1.0);
    gateway.kill().await;
    assert_eq!(gateway.submit("a candle").await.status, 409, "later restarts do not forget it");
    assert_eq!(gateway.upstream.posts(), 1);
    assert_eq!(gateway.submit_with("a candle", &[("cache-control", "no-cache")]).await.status, 200);
    assert_eq!(gateway.upstream.posts(), 2);
}

#[tokio::test]
async fn f44_a_second_process_on_one_ledger_is_refused() {
    let gateway = Durable::start(&[]).await;
    let path = gateway.folder.path("data");
    let environment = [
        ("COMETAPI_KEY", "k"),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LEDGER__PATH", path.to_str().unwrap()),
    ];
    let (status, output) = Program::run(&["serve"], &environment).await;
    assert_eq!(status, 1, "{output}");
    assert!(output.contains("another process uses this ledger"), "{output}");
    assert_eq!(gateway.submit("a candle").await.status, 200);
}

#[tokio::test]
async fn f43_a_file_that_is_no_ledger_is_not_replaced_by_an_empty_one() {
    let mut gateway = Durable::start(&[]).await;
    gateway.submit("a candle").await.request_id();
    gateway.program.signal(Signal::TERM);
    gateway.program.ended().await;
    let whole = std::fs::read(gateway.file()).unwrap();
    let path = gateway.folder.path("data");
    let environment = [
        ("COMETAPI_KEY", "k"),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LEDGER__PATH", path.to_str().unwrap()),
    ];
    let garbage = vec![7; whole.len()];
    for damaged in [b"not a ledger".as_slice(), &garbage, &whole[..whole.len() / 3]] {
        std::fs::write(gateway.file(), damaged).unwrap();
        let (status, output) = Program::run(&["serve"], &environment).await;
        assert_eq!(status, 1, "{output}");
        assert!(output.contains("ledger.redb"), "it names the file: {output}");
        assert_eq!(std::fs::read(gateway.file()).unwrap().len(), damaged.len(), "it is left as it was");
    }
}

#[tokio::test]
async fn f43_a_flipped_bit_in_an_entry_holds_its_prompt_and_no_other() {
    let mut gateway = Durable::start(&[]).await;
    let damaged = gateway.submit("a candle").await.request_id();
    let sound = gateway.submit("a lamp").await.request_id();
    gateway.program.signal(Signal::TERM);
    gateway.program.ended().await;
    let mut file = std::fs::read(gateway.file()).unwrap();
    // In the entry's own answer, and wherever else older pages still show it.
    let places: Vec<_> = memchr::memmem::find_iter(&file, &format!("{{\\\"request_id\\\":\\\"{damaged}")).collect();
    assert!(!places.is_empty());
    for place in places {
        file[place + 20] ^= 1;
    }
    std::fs::write(gateway.file(), file).unwrap();
    gateway.again().await;
    assert_eq!(gateway.submit("a candle").await.refusal(), (409, "outcome_unknown".to_owned()));
    assert_eq!(gateway.submit("a lamp").await.request_id(), sound);
    assert!(gateway.program.output().contains("is damaged"), "it is told");
    assert_eq!(gateway.upstream.posts(), 2);
}

#[tokio::test]
async fn m9_t10_the_ledger_is_for_its_user_alone_and_holds_no_prompt_and_no_key() {
    let mut gateway = Durable::start(&[]).await;
    gateway.submit_with("a marker nobody else would write", &[("idempotency-key", "marked-key")]).await.request_id();
    gateway.program.signal(Signal::TERM);
    gateway.program.ended().await;
    let mode = std::fs::metadata(gateway.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = std::fs::read(gateway.file()).unwrap();
    for secret in ["a marker nobody", "marked-key"] {
        assert!(memchr::memmem::find(&file, secret.as_bytes()).is_none(), "{secret} is in the file");
    }
    key_is_absent(&gateway.key, "the ledger", &file);
}

#[tokio::test]
async fn inv2_inv3_f41_random_kills_under_load_pay_nothing_twice_and_lose_nothing() {
    let mut gateway = Durable::start(&[]).await;
    let mut answered = HashMap::<String, String>::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..10 {
        let prompts: Vec<_> = (0..12).map(|number| format!("round {round} prompt {}", number % 6)).collect();
        let clients = prompts.iter().map(|prompt| {
            let (address, prompt) = (gateway.address, prompt.clone());
            tokio::spawn(async move {
                let body = json!({"prompt": prompt}).to_string();
                let answer = try_ask(address, &body).await;
                answer.map(|id| (prompt, id))
            })
        });
        let clients: Vec<_> = clients.collect();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_micros(random % 20_000)).await;
        gateway.program.signal(Signal::KILL);
        for client in clients {
            if let Some((prompt, id)) = client.await.unwrap() {
                answered.insert(prompt, id);
            }
        }
        gateway.again().await;
    }
    let mut jobs = HashMap::<String, Vec<String>>::new();
    for job in gateway.upstream.accepted() {
        jobs.entry(job.prompt.clone()).or_default().push(job.request_id.clone());
    }
    for (prompt, ids) in &jobs {
        assert_eq!(ids.len(), 1, "INV-2: {prompt} was paid {} times", ids.len());
    }
    for (prompt, id) in &answered {
        assert_eq!(gateway.submit(prompt).await.request_id(), *id, "INV-3: {prompt} was answered and is lost");
    }
    let posts = gateway.upstream.posts();
    for (prompt, ids) in &jobs {
        let again = gateway.submit(prompt).await;
        let found = again.status == 409 || again.request_id() == ids[0];
        assert!(found, "INV-3: {prompt} was paid and is neither a hit nor held: {}", again.status);
    }
    assert_eq!(gateway.upstream.posts(), posts, "asking again buys nothing");
}

/// The id that a submission gets, if the gateway lives long enough to tell it.
async fn try_ask(address: std::net::SocketAddr, body: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let body = answer.split_once("\r\n\r\n")?.1;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(body["request_id"].as_str()?.to_owned())
}

#[tokio::test]
async fn submissions_at_the_same_time_share_a_write_and_a_hit_needs_none() {
    let gateway = Durable::start(&[]).await;
    let answers = together((0..50).map(|number| {
        let gateway = &gateway;
        async move { gateway.submit(&format!("prompt {number}")).await.request_id() }
    }));
    assert_eq!(answers.await.len(), 50);
    let before = std::fs::metadata(gateway.file()).unwrap().modified().unwrap();
    let written = gateway.metric("ledger_operations_total{operation=\"sending\",result=\"ok\"}").await;
    for _ in 0..20 {
        assert!(gateway.submit("prompt 7").await.cache_status().starts_with("reelgate; hit"));
    }
    assert_eq!(gateway.metric("ledger_operations_total{operation=\"sending\",result=\"ok\"}").await, written);
    assert_eq!(std::fs::metadata(gateway.file()).unwrap().modified().unwrap(), before, "a hit does not touch the disk");
}

#[tokio::test]
async fn m23_a_job_of_before_the_restart_is_watched_to_its_end() {
    let mut gateway = Durable::start(&[("REELGATE_POLLS__WATCH", "100ms")]).await;
    gateway.upstream.always_poll(Some(Fault::Pending(reelgate::simulator::Pending::Progress)));
    gateway.submit("a candle").await.request_id();
    gateway.kill().await;
    assert_eq!(gateway.metric("jobs_running").await, 1.0);
    gateway.upstream.always_poll(None);
    eventually("we see its end", async || gateway.metric("jobs_total{outcome=\"done\"}").await == 1.0).await;
    assert_eq!(gateway.metric("jobs_running").await, 0.0);
}
