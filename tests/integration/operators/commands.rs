//! `reelgate ledger …` and `reelgate spend`, as people run them.

use std::path::{Path, PathBuf};

use hyper::Method;
use reelgate::simulator::{CutAt, Fault, How, Options};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::process::{Program, Served};
use crate::support::{Folder, GENERATIONS, SOON, ask, eventually, key_is_absent, random_key};

const ADMIN_KEY: &str = "an-admin-key-0123456789";

/// A gateway with a ledger on disk, and the commands that look at it.
struct Office {
    served: Served,
    folder: Folder,
    key: String,
    /// Everything that commands have said.
    said: String,
}

impl Office {
    async fn open() -> Self {
        let (folder, key) = (Folder::new(), random_key());
        let data = folder.path("data");
        let environment = [
            ("REELGATE_LEDGER__PATH", data.to_str().unwrap()),
            ("REELGATE_ADMIN__KEY_ENV", "OPERATORS"),
            ("OPERATORS", ADMIN_KEY),
            ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ];
        let options = Options { key: Some(key.clone()), ..Options::default() };
        let served = Served::start(&key, options, &[], &environment).await;
        Self { served, folder, key, said: String::new() }
    }

    /// Asks the running gateway.
    async fn ask(&mut self, arguments: &[&str]) -> (i32, String) {
        let url = format!("http://{}", self.served.admin);
        let arguments = [arguments, &["--admin", &url]].concat();
        let (status, output) = Program::run(&arguments, &[("REELGATE_ADMIN_KEY", ADMIN_KEY)]).await;
        self.said += &output;
        (status, output)
    }

    /// Asks it and takes what it says.
    async fn says(&mut self, arguments: &[&str]) -> String {
        let (status, output) = self.ask(arguments).await;
        assert_eq!(status, 0, "{arguments:?}: {output}");
        output
    }

    async fn lose(&self, prompt: &str) {
        self.served.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Reset));
        assert_eq!(self.served.submit(prompt).await.code(), "outcome_unknown");
    }

    fn data(&self) -> PathBuf {
        self.folder.path("data")
    }

    /// Ends the gateway; its ledger stays.
    async fn stop(&mut self) {
        self.served.program.signal(Signal::TERM);
        self.served.program.ended().await;
        self.said += &self.served.program.output();
    }

    /// Checks that no secret and no prompt was ever said.
    fn close(self) {
        key_is_absent(&self.key, "a command's output", self.said.as_bytes());
        assert!(!self.said.contains("a candle") && !self.said.contains(ADMIN_KEY), "{}", self.said);
    }
}

/// Runs a command on a ledger of which no gateway makes use.
async fn offline(arguments: &[&str], path: &Path) -> (i32, String) {
    Program::run(&[arguments, &["--offline", path.to_str().unwrap()]].concat(), &[]).await
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

#[tokio::test]
async fn the_job_of_a_lost_answer_is_found_online_and_offline() {
    let mut office = Office::open().await;
    let made = office.served.submit("a candle").await.request_id();
    office.lose("a candle in the rain").await;
    let table = office.says(&["ledger", "jobs"]).await;
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[0].starts_with("CREATED") && rows[0].contains("CLIENT_REQUEST_ID"), "{table}");
    assert!(rows[1].contains("unknown") && rows[2].contains(&made), "{table}");
    assert!(office.says(&["ledger", "jobs", "--state", "running"]).await.contains(&made));
    assert_eq!(office.says(&["ledger", "jobs", "--team", "other"]).await.lines().count(), 1, "only the header");
    let found = parsed(&office.says(&["ledger", "jobs", "--json", "--request-id", &made]).await);
    assert_eq!((found.len(), found[0]["state"].as_str()), (1, Some("running")));
    let entries = parsed(&office.says(&["ledger", "entries", "--json"]).await);
    assert_eq!(entries.len(), 2);
    let digits = &found[0]["fingerprint"].as_str().unwrap()[..12];
    assert!(office.says(&["ledger", "entries", digits]).await.contains(&made));
    let online = parsed(&office.says(&["ledger", "export"]).await);
    let kinds: Vec<_> = online.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["job", "job", "entry", "entry", "spend"]);

    let data = office.data();
    let (status, output) = offline(&["ledger", "jobs"], &data).await;
    assert_eq!(status, 1, "{output}");
    assert!(output.contains("another process uses this ledger"), "{output}");
    office.stop().await;
    let (status, output) = offline(&["ledger", "jobs", "--json"], &data).await;
    assert_eq!(status, 0, "{output}");
    let again = parsed(&output);
    assert_eq!((again.len(), again[1]["request_id"].as_str()), (2, Some(made.as_str())));
    assert_eq!(again[0]["client_request_id"], online[0]["client_request_id"], "also of what is unknown");
    assert!(again[0]["client_request_id"].is_string());
    let (status, output) = offline(&["ledger", "export"], &data).await;
    office.said += &output;
    assert_eq!((status, parsed(&output).len()), (0, 5), "{output}");
    office.close();
}

#[tokio::test]
async fn an_entry_is_forgotten_online_and_offline() {
    let mut office = Office::open().await;
    let first = office.served.submit("a candle").await.request_id();
    let line = &parsed(&office.says(&["ledger", "jobs", "--json"]).await)[0];
    let digits = line["fingerprint"].as_str().unwrap()[..12].to_owned();
    let told = office.says(&["ledger", "forget", &digits]).await;
    assert!(told.contains("forgotten, it was accepted"), "{told}");
    let (status, told) = office.ask(&["ledger", "forget", &digits]).await;
    assert!(status == 1 && told.contains("no entry"), "{status}: {told}");
    let second = office.served.submit("a candle").await.request_id();
    assert_ne!(second, first);
    office.served.program.says("an operator had an entry forgotten").await;
    office.stop().await;
    let data = office.data();
    let (status, told) = offline(&["ledger", "forget", &digits], &data).await;
    assert!(status == 0 && told.contains("forgotten"), "{told}");
    let (_, left) = offline(&["ledger", "entries", "--json"], &data).await;
    assert!(parsed(&left).is_empty(), "it is written: {left}");
    let (_, jobs) = offline(&["ledger", "jobs", "--json"], &data).await;
    assert_eq!(parsed(&jobs).len(), 2, "both jobs are still known");
    office.close();
}

#[tokio::test]
async fn m7_what_was_forgotten_stays_so_after_a_kill() {
    let mut office = Office::open().await;
    office.served.submit("a candle").await.request_id();
    let line = &parsed(&office.says(&["ledger", "jobs", "--json"]).await)[0];
    let digits = line["fingerprint"].as_str().unwrap()[..12].to_owned();
    office.says(&["ledger", "forget", &digits]).await;
    office.served.program.signal(Signal::KILL);
    office.served.program.ended().await;
    let (_, left) = offline(&["ledger", "entries", "--json"], &office.data()).await;
    assert!(parsed(&left).is_empty(), "{left}");
    office.close();
}

#[tokio::test]
async fn what_is_on_its_way_is_forgotten_by_the_switch_that_is_named() {
    let mut office = Office::open().await;
    office.served.upstream.next_submission(Fault::Stall);
    let address = office.served.address;
    let waits = tokio::spawn(async move {
        ask(address, Method::POST, GENERATIONS, &[("content-type", "application/json")], "{\"prompt\":\"a lamp\"}")
            .await
    });
    assert!(office.served.upstream.wait_until(|counts| counts.posts == 1, SOON).await);
    let line = &parsed(&office.says(&["ledger", "entries", "--json"]).await)[0];
    let digits = line["fingerprint"].as_str().unwrap()[..12].to_owned();
    let (status, told) = office.ask(&["ledger", "forget", &digits]).await;
    assert!(status == 1 && told.contains("say --force") && !told.contains("force=true"), "{status}: {told}");
    assert!(office.says(&["ledger", "forget", &digits, "--force"]).await.contains("forgotten, it was sending"));
    waits.abort();
    office.close();
}

#[tokio::test]
async fn what_was_spent_is_told_as_a_table_and_as_csv() {
    let mut office = Office::open().await;
    let id = office.served.submit("a candle").await.request_id();
    eventually("it is done", async || office.served.poll(&id).await.text().contains("\"done\"")).await;
    let table = office.says(&["spend"]).await;
    assert!(table.starts_with("PERIOD") && table.contains("open"), "{table}");
    let csv = office.says(&["spend", "--csv", "--top", "1"]).await;
    let rows: Vec<_> = csv.lines().collect();
    assert!(rows[0].starts_with("period,holder,team,user,spent_usd"), "{csv}");
    assert_eq!(rows.len(), 7, "a day and a month of total, team and user: {csv}");
    assert!(rows.iter().all(|row| row.matches(',').count() == 11), "{csv}");
    office.close();
}

#[tokio::test]
async fn what_was_spent_is_told_of_a_file_too() {
    let mut office = Office::open().await;
    let body = |user: &str, seconds: u8| format!(r#"{{"prompt":"a candle","user":"{user}","duration":{seconds}}}"#);
    for (user, seconds) in [("less", 2), ("most", 9), ("more", 5)] {
        let headers = [("content-type", "application/json")];
        let body = body(user, seconds);
        ask(office.served.address, Method::POST, GENERATIONS, &headers, &body).await.request_id();
    }
    let told = office.says(&["spend", "--csv", "--top", "2"]).await;
    let (status, output) = offline(&["spend"], &office.data()).await;
    assert!(status == 1 && output.contains("another process uses this ledger"), "{output}");
    office.served.program.signal(Signal::TERM);
    office.served.program.ended().await;

    let (status, output) = offline(&["spend", "--csv", "--top", "2"], &office.data()).await;
    assert_eq!((status, &output), (0, &told), "it says what the gateway said");
    let users = |output: &str| output.lines().skip(1).filter(|line| line.contains(",user,")).count();
    assert_eq!(users(&output), 4, "two a period: {output}");
    let (status, output) = offline(&["spend", "--csv"], &office.data()).await;
    assert_eq!((status, users(&output)), (0, 6), "{output}");
    let (status, output) = offline(&["spend"], &office.data()).await;
    assert!(status == 0 && output.starts_with("PERIOD"), "{output}");
}

#[tokio::test]
async fn a_command_says_what_is_wrong() {
    let mut office = Office::open().await;
    let url = format!("http://{}", office.served.admin);
    let elsewhere = office.folder.path("elsewhere");
    let nowhere = elsewhere.to_str().unwrap();
    for (arguments, key, status, told) in [
        (&["ledger", "jobs", "--admin", &url][..], "", 1, "401: set REELGATE_ADMIN_KEY to the key that admin.key_env"),
        (
            &["spend", "--admin", &url],
            "wrong",
            1,
            "401: what REELGATE_ADMIN_KEY holds is not the key that admin.key_env",
        ),
        (&["ledger", "jobs", "--admin", "http://127.0.0.1:1"], "", 1, "127.0.0.1:1: "),
        (&["ledger", "jobs", "--admin", "127.0.0.1:1"], "", 1, "127.0.0.1:1: "),
        (&["ledger", "jobs", "--admin", "https://127.0.0.1:1"], "", 2, "--admin: expected HOST:PORT"),
        (&["ledger", "jobs", "--admin", "127.0.0.1"], "", 2, "--admin: expected HOST:PORT"),
        (&["ledger", "jobs", "--admin", "me@127.0.0.1:1"], "", 2, "--admin: expected HOST:PORT"),
        (&["ledger", "jobs", "--state", "gone"], "", 2, "expected one of running, done"),
        (&["ledger", "forget", "123"], "", 2, "12 to 64 hex digits"),
        (&["ledger", "entries", "0123456789xy"], "", 2, "12 to 64 hex digits"),
        (&["ledger", "jobs", "--offline", nowhere], "", 1, "No such file"),
        (&["ledger", "recover", "--offline", nowhere], "", 1, "No such file"),
        (&["spend", "--offline", nowhere], "", 1, "No such file"),
    ] {
        let (ended, output) = Program::run(arguments, &[("REELGATE_ADMIN_KEY", key)]).await;
        assert_eq!(ended, status, "{arguments:?}: {output}");
        assert!(output.contains(told) && !output.contains("wrong\n"), "{arguments:?}: {output}");
    }
    assert!(!elsewhere.exists(), "nothing is made where there was nothing");
    let (status, output) = offline(&["ledger", "recover"], &office.data()).await;
    assert!(status == 1 && output.contains("another process uses this ledger"), "{output}");
    office.says(&["ledger", "jobs"]).await;
    office.close();
}

/// What the ledger of a gateway says of its entries and jobs, without what changes from look to look.
async fn summary(path: &Path) -> Vec<(String, String, String)> {
    let (status, output) = offline(&["ledger", "export"], path).await;
    assert_eq!(status, 0, "{output}");
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or("-").to_owned();
    let lines = parsed(&output).into_iter().filter(|line| line["kind"] != "spend");
    let mut all: Vec<_> =
        lines.map(|line| (text(&line, "kind"), text(&line, "fingerprint"), text(&line, "state"))).collect();
    all.sort();
    all
}

#[tokio::test]
async fn f43_what_can_be_read_of_a_damaged_ledger_is_copied_into_a_new_one() {
    let mut office = Office::open().await;
    let mut made = Vec::new();
    for number in 0..20 {
        made.push(office.served.submit(&format!("a candle {number}")).await.request_id());
    }
    office.lose("a candle in the rain").await;
    eventually("one is done", async || office.served.poll(&made[0]).await.text().contains("\"done\"")).await;
    office.stop().await;
    let (data, file) = (office.data(), office.data().join("ledger.redb"));
    let (before, whole) = (summary(&data).await, std::fs::read(&file).unwrap());
    assert_eq!(before.len(), 2 * 21);

    let (status, told) = offline(&["ledger", "recover"], &data).await;
    assert!(status == 0 && told.contains("21 entries, 20 jobs") && told.contains("0 records are damaged"), "{told}");
    let copy = office.folder.path("data.recovered");
    assert_eq!(summary(&copy).await, before, "a sound ledger is copied as it is");
    let (status, told) = offline(&["ledger", "recover"], &data).await;
    assert!(status == 1 && told.contains("data.recovered"), "it overwrites nothing: {told}");

    // The store's own header is gone: serve refuses it, and says what to do.
    let mut headless = whole.clone();
    headless[..4096].fill(0);
    std::fs::write(&file, &headless).unwrap();
    let environment = [
        ("COMETAPI_KEY", office.key.as_str()),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LEDGER__PATH", data.to_str().unwrap()),
    ];
    let (status, told) = Program::run(&["serve"], &environment).await;
    assert!(status == 1 && told.contains(&format!("reelgate ledger recover --offline {}", data.display())), "{told}");
    let second = office.folder.path("second");
    let (status, told) = offline(&["ledger", "recover", "--to", second.to_str().unwrap()], &data).await;
    assert!(status == 0 && told.contains("20 jobs"), "{told}");
    assert_eq!(std::fs::read(&file).unwrap(), headless, "the damaged file is left as it is");
    assert_eq!(summary(&second).await, before, "from its pages alone");

    // It is served again, with the same fingerprints' key: every prompt still leads to its job.
    let path = second.to_str().unwrap();
    let options = Options { key: Some(office.key.clone()), ..Options::default() };
    let environment = [
        ("REELGATE_LEDGER__PATH", path),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ("REELGATE_UPSTREAM__URL", &office.served.upstream.origin()),
    ];
    let served = Served::start(&office.key, options, &[], &environment).await;
    for (number, id) in made.iter().enumerate() {
        assert_eq!(served.submit(&format!("a candle {number}")).await.request_id(), *id);
    }
    assert_eq!(served.submit("a candle in the rain").await.code(), "outcome_unknown");
    served.end().await;
    office.close();
}

#[tokio::test]
async fn f43_a_damaged_page_is_told_in_one_line_that_says_what_helps() {
    let mut office = Office::open().await;
    for number in 0..30 {
        office.served.submit(&format!("a candle {number}")).await.request_id();
    }
    office.stop().await;
    let (data, file) = (office.data(), office.data().join("ledger.redb"));
    let (whole, log) = (std::fs::read(&file).unwrap(), std::fs::read(data.join("ledger.wal")).unwrap());
    let advice = format!("reelgate ledger recover --offline {}", data.display());
    let mut refused = 0;
    for page in 1..(whole.len() / 4096).min(20) {
        let mut scratched = whole.clone();
        scratched[page * 4096..][..4096].iter_mut().for_each(|byte| *byte ^= 0xff);
        std::fs::write(&file, &scratched).unwrap();
        std::fs::write(data.join("ledger.wal"), &log).unwrap();
        let (status, told) = offline(&["ledger", "jobs"], &data).await;
        assert!(!told.contains("panicked"), "page {page}: {told}");
        if status != 0 {
            refused += 1;
            assert!(told.lines().count() == 1 && told.contains(&advice), "page {page}: {told}");
            let to = office.folder.path(&format!("copy-{page}"));
            let (status, told) = offline(&["ledger", "recover", "--to", to.to_str().unwrap()], &data).await;
            assert!(status == 0 && !told.contains("panicked"), "page {page}: {told}");
        }
    }
    assert!(refused > 0, "nothing was damaged");
    office.close();
}

#[tokio::test]
async fn f43_a_ledger_that_a_gateway_has_closed_after_a_failure_is_in_use_all_the_same() {
    let mut office = Office::open().await;
    office.served.submit("a candle").await.request_id();
    office.stop().await;
    let lock = std::fs::File::open(office.data().join("ledger.lock")).unwrap();
    lock.lock().unwrap();
    for command in [&["ledger", "recover"][..], &["ledger", "jobs"]] {
        let (status, told) = offline(command, &office.data()).await;
        assert!(status == 1 && told.contains("another process uses this ledger"), "{told}");
    }
    drop(lock);
    assert_eq!(offline(&["ledger", "recover"], &office.data()).await.0, 0);
    office.close();
}

#[tokio::test]
async fn f43_a_cut_or_scratched_ledger_loses_only_what_is_scratched() {
    let mut office = Office::open().await;
    let mut made = Vec::new();
    for number in 0..10 {
        made.push(office.served.submit(&format!("a candle {number}")).await.request_id());
    }
    office.stop().await;
    let (data, file) = (office.data(), office.data().join("ledger.redb"));
    let (before, whole) = (summary(&data).await, std::fs::read(&file).unwrap());
    let mut scratched = whole.clone();
    scratched[..4096].fill(0);
    let (log, shown) = (office.data().join("ledger.wal"), format!("{{\\\"request_id\\\":\\\"{}", made[3]));
    let mut scratched_log = std::fs::read(&log).unwrap();
    for bytes in [&mut scratched, &mut scratched_log] {
        let places: Vec<_> = memchr::memmem::find_iter(bytes, &shown).collect();
        assert!(!places.is_empty());
        for place in places {
            bytes[place + 20] ^= 1;
        }
    }
    std::fs::write(&file, &scratched).unwrap();
    std::fs::write(&log, &scratched_log).unwrap();
    let third = office.folder.path("third");
    let (status, told) = offline(&["ledger", "recover", "--to", third.to_str().unwrap()], &data).await;
    assert!(status == 0 && told.contains("10 entries, 10 jobs") && !told.contains(" 0 records are damaged"), "{told}");
    let (after, states) = (summary(&third).await, |all: &[(String, String, String)], state: &str| {
        all.iter().filter(|(kind, _, of)| kind == "entry" && of == state).count()
    });
    assert_eq!((states(&before, "accepted"), states(&after, "accepted"), states(&after, "unknown")), (10, 9, 1));

    // Nothing that is a ledger: an empty one is not made of it without a word.
    std::fs::write(&file, vec![7; 20_000]).unwrap();
    std::fs::write(&log, vec![7; 20_000]).unwrap();
    let fourth = office.folder.path("fourth");
    let (status, told) = offline(&["ledger", "recover", "--to", fourth.to_str().unwrap()], &data).await;
    assert!(status == 0 && told.contains("0 entries, 0 jobs") && told.contains("key was lost"), "{told}");
    // Cut at any place, what comes before the cut is read.
    for share in [1, 2, 3] {
        std::fs::write(&file, &whole[..whole.len() * share / 4]).unwrap();
        let to = office.folder.path(&format!("cut-{share}"));
        let (status, told) = offline(&["ledger", "recover", "--to", to.to_str().unwrap()], &data).await;
        assert_eq!(status, 0, "{told}");
    }
    office.close();
}
