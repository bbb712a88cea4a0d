//! The disk's faults, as the program meets them on a real file system (`MONEY.md` M8; F-43, F-44, F-63): it is full for
//! a while, the folder cannot be written, the file is none.

use std::time::Duration;

use hyper::Method;
use reelgate::jobs::ledger::disk::seal::seal;
use reelgate::simulator::{Fault, Options, Simulator};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::json;

use super::support::process::Program;
use super::support::{Answer, Folder, GENERATIONS, SOON, ask, eventually, random_key, value};

/// A gateway whose files may be forbidden to grow; then writes fail as on a full disk.
struct Gateway {
    upstream: Simulator,
    folder: Folder,
    key: String,
    program: Program,
    address: std::net::SocketAddr,
    admin: std::net::SocketAddr,
}

impl Gateway {
    async fn start() -> Self {
        let (key, folder) = (random_key(), Folder::new());
        let options = Options { key: Some(key.clone()), job_duration: Duration::from_millis(50), ..Options::default() };
        let upstream = Simulator::start(options).await.unwrap();
        let (program, address, admin) = serve(&upstream, &folder, &key).await;
        Self { upstream, folder, key, program, address, admin }
    }

    /// Kills it and starts it anew.
    async fn kill(&mut self) {
        self.program.signal(Signal::KILL);
        self.program.ended().await;
        (self.program, self.address, self.admin) = serve(&self.upstream, &self.folder, &self.key).await;
    }

    /// From now on no file may be written past its first page.
    fn fill_disk(&self) {
        self.limit(Some(0));
    }

    fn free_disk(&self) {
        self.limit(None);
    }

    fn limit(&self, current: Option<u64>) {
        let pid = Pid::from_raw(self.program.id()).unwrap();
        prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    }

    async fn submit(&self, prompt: &str) -> Answer {
        submit(self.address, prompt).await
    }

    async fn poll(&self, id: &str) -> Answer {
        ask(self.address, Method::GET, &format!("/grok/v1/videos/{id}"), &[], "").await
    }

    async fn ready(&self) -> String {
        ask(self.admin, Method::GET, "/readyz", &[], "").await.text()
    }
}

async fn submit(address: std::net::SocketAddr, prompt: &str) -> Answer {
    let body = json!({"prompt": prompt}).to_string();
    ask(address, Method::POST, GENERATIONS, &[("content-type", "application/json")], &body).await
}

async fn serve(
    upstream: &Simulator,
    folder: &Folder,
    key: &str,
) -> (Program, std::net::SocketAddr, std::net::SocketAddr) {
    let (origin, path) = (upstream.origin(), folder.path("data"));
    let environment = [
        ("COMETAPI_KEY", key),
        ("REELGATE_UPSTREAM__URL", origin.as_str()),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_SERVER__WORKERS", "2"),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ("REELGATE_LIMITS__TOTAL__GENERATIONS", "off"),
        ("REELGATE_LEDGER__PATH", path.to_str().unwrap()),
    ];
    let mut program = Program::start_deaf_to_file_limits(&["serve"], &environment);
    let (address, admin) = program.serving().await;
    (program, address, admin)
}

#[tokio::test]
async fn m8_f63_while_the_disk_is_full_nothing_is_bought_all_else_goes_on_and_nothing_is_lost() {
    let mut gateway = Gateway::start().await;
    let known = gateway.submit("a candle").await.request_id();
    gateway.upstream.next_submission(Fault::Delay(Duration::from_millis(700)));
    let address = gateway.address;
    let in_hand = tokio::spawn(async move { submit(address, "a lamp").await });
    assert!(gateway.upstream.wait_until(|counts| counts.posts == 2, SOON).await);
    gateway.fill_disk();
    let in_hand = in_hand.await.unwrap().request_id();
    let refused = gateway.submit("a new one").await;
    assert_eq!(refused.refusal(), (503, "ledger_unavailable".to_owned()));
    assert_eq!(gateway.submit("a candle").await.request_id(), known, "hits go on");
    assert_eq!(gateway.submit("a lamp").await.request_id(), in_hand, "also of what only this process knows");
    assert_eq!(gateway.poll(&known).await.status, 200, "polls go on");
    eventually("it is shown", async || gateway.ready().await.contains("ledger")).await;
    let output = gateway.program.output();
    let told =
        output.lines().any(|line| line.contains("could not be written to the ledger") && line.contains(&in_hand));
    assert!(told, "the log is the last journal");
    assert_eq!(gateway.upstream.posts(), 2);
    gateway.free_disk();
    eventually("it heals", async || gateway.submit("a new one").await.status == 200).await;
    eventually("and shown", async || !gateway.ready().await.contains("ledger")).await;
    gateway.kill().await;
    for (prompt, id) in [("a candle", &known), ("a lamp", &in_hand)] {
        assert_eq!(gateway.submit(prompt).await.request_id(), *id, "{prompt} is kept");
    }
    assert_eq!(gateway.upstream.posts(), 3);
}

#[tokio::test]
async fn m8_f63_what_could_not_be_written_before_a_kill_is_held_and_not_bought_again() {
    let mut gateway = Gateway::start().await;
    gateway.upstream.next_submission(Fault::Delay(Duration::from_millis(700)));
    let address = gateway.address;
    let in_hand = tokio::spawn(async move { submit(address, "a lamp").await });
    assert!(gateway.upstream.wait_until(|counts| counts.posts == 1, SOON).await);
    gateway.fill_disk();
    in_hand.await.unwrap().request_id();
    gateway.kill().await;
    assert_eq!(gateway.submit("a lamp").await.refusal(), (409, "outcome_unknown".to_owned()));
    assert_eq!(gateway.upstream.posts(), 1);
}

/// How a start on these files ends: its exit status, and what it says.
async fn start_on(folder: &std::path::Path) -> (i32, String) {
    let environment = [
        ("COMETAPI_KEY", "k"),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LEDGER__PATH", folder.to_str().unwrap()),
    ];
    Program::run(&["serve"], &environment).await
}

#[tokio::test]
async fn f43_f63_a_folder_that_cannot_be_written_and_a_file_that_is_none_are_named() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("data/ledger.redb")).unwrap();
    let (status, output) = start_on(&folder.path("data")).await;
    assert!(status == 1 && output.contains("ledger.redb"), "{status}: {output}");
    assert!(folder.path("data/ledger.redb").is_dir(), "it is left as it was");
    folder.write("file", "no folder");
    // Nobody may make anything in these, root included.
    for nowhere in [folder.path("file"), "/proc/self/reelgate-data".into()] {
        let (status, output) = start_on(&nowhere).await;
        assert!(status == 1 && output.contains(nowhere.to_str().unwrap()), "{status}: {output}");
    }
}

#[tokio::test]
async fn f43_a_file_of_another_version_is_named_and_left_alone() {
    let folder = Folder::new();
    for (name, format) in [("older", "0"), ("newer", "5")] {
        let data = folder.path(name);
        drop(reelgate::jobs::ledger::disk::store::Store::open(&data).unwrap());
        let database = redb::Database::open(data.join("ledger.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let meta = redb::TableDefinition::<&[u8], &[u8]>::new("meta");
            let mut meta = transaction.open_table(meta).unwrap();
            meta.insert(b"format".as_slice(), seal(b"format", &format).unwrap().as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        // Also the second time: it is left as it was.
        for _ in 0..2 {
            let (status, output) = start_on(&data).await;
            assert!(status == 1 && output.contains(&format!("has format {format}")), "{status}: {output}");
        }
    }
}

/// Entries that expire leave the file, and it stops growing: short windows, and a steady load through many of them.
#[tokio::test]
async fn the_file_levels_off_under_a_steady_load() {
    let (key, folder) = (random_key(), Folder::new());
    let options = Options { key: Some(key.clone()), job_duration: Duration::from_secs(60), ..Options::default() };
    let upstream = Simulator::start(options).await.unwrap();
    let (origin, path) = (upstream.origin(), folder.path("data"));
    let environment = [
        ("COMETAPI_KEY", key.as_str()),
        ("REELGATE_UPSTREAM__URL", origin.as_str()),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ("REELGATE_LIMITS__TOTAL__GENERATIONS", "off"),
        ("REELGATE_LIMITS__USER__REQUESTS", "off"),
        ("REELGATE_LIMITS__ADDRESS__REQUESTS", "off"),
        ("REELGATE_LEDGER__PATH", path.to_str().unwrap()),
        ("REELGATE_LEDGER__MAX_JOBS", "200"),
        ("REELGATE_DEDUP__DELIVERY_WINDOW", "1s"),
    ];
    let mut program = Program::start(&["serve"], &environment);
    let (address, admin) = program.serving().await;
    let mut sizes = Vec::new();
    for round in 0..8 {
        for number in 0..150 {
            let answer = submit(address, &format!("round {round} prompt {number}")).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
        }
        eventually("what has expired leaves", async || {
            let page = ask(admin, Method::GET, "/metrics", &[], "").await.text();
            value(&page, "entries{state=\"accepted\"}") < 50.0
        })
        .await;
        sizes.push(std::fs::metadata(path.join("ledger.redb")).unwrap().len());
    }
    assert_eq!(sizes[3..].iter().max(), Some(&sizes[3]), "it goes on growing: {sizes:?}");
}
