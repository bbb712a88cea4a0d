//! What the commands say of a ledger that no gateway uses: the same as its gateway said, and the same at each look.

use std::time::Duration;

use reelgate::simulator::{CutAt, Fault, How, Options};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::process::{Program, Served};
use crate::support::{Folder, SOON, eventually, random_key};

const WINDOWS: &str = "[dedup]\nunknown_hold = \"6h\"\ndelivery_window = \"7d\"\n";

/// A ledger on disk, and the configuration of its gateway.
struct Archive {
    folder: Folder,
    key: String,
}

impl Archive {
    fn new() -> Self {
        let folder = Folder::new();
        folder.write("reelgate.toml", WINDOWS);
        Self { folder, key: random_key() }
    }

    async fn served(&self) -> Served {
        let (data, file) = (self.folder.path("data"), self.folder.path("reelgate.toml"));
        let job_duration = Duration::from_millis(50);
        let options = Options { key: Some(self.key.clone()), job_duration, ..Options::default() };
        let environment = [("REELGATE_LEDGER__PATH", data.to_str().unwrap())];
        Served::start(&self.key, options, &["--config", file.to_str().unwrap()], &environment).await
    }

    /// Asks the file, with more arguments and this environment.
    async fn ask(&self, command: &str, more: &[&str], environment: &[(&str, &str)]) -> String {
        let data = self.folder.path("data");
        let arguments = [&["ledger", command, "--offline", data.to_str().unwrap()], more].concat();
        let (status, output) = Program::run(&arguments, environment).await;
        assert_eq!(status, 0, "{output}");
        output
    }

    /// Its jobs and entries.
    async fn lines(&self, more: &[&str], environment: &[(&str, &str)]) -> [Vec<Value>; 2] {
        let more = [more, &["--json"]].concat();
        [self.ask("jobs", &more, environment).await, self.ask("entries", &more, environment).await]
            .map(|said| told(&said))
    }
}

/// Lines of JSON, without what only a gateway that runs can know.
fn told(lines: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("last_poll");
        line
    };
    lines.lines().map(line).collect()
}

/// The one line of this state.
fn of<'a>(lines: &'a [Value], state: &str) -> &'a Value {
    let mut found = lines.iter().filter(|line| line["state"] == state);
    let line = found.next().unwrap_or_else(|| panic!("nothing is {state}: {lines:?}"));
    assert!(found.next().is_none(), "{lines:?}");
    line
}

#[tokio::test]
async fn by_its_gateways_configuration_a_file_says_what_the_gateway_said() {
    let archive = Archive::new();
    let served = archive.served().await;
    let done = served.submit("a candle").await.request_id();
    eventually("it is done", async || served.poll(&done).await.text().contains("\"done\"")).await;
    served.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Reset));
    assert_eq!(served.submit("a candle in the rain").await.code(), "outcome_unknown");
    served.submit("a torch").await.request_id();
    let admin = format!("http://{}", served.admin);
    let mut online = Vec::new();
    for command in ["jobs", "entries"] {
        let (status, output) = Program::run(&["ledger", command, "--json", "--admin", &admin], &[]).await;
        assert_eq!(status, 0, "{output}");
        online.push(told(&output));
    }
    served.end().await;

    // Only the windows are read of it: a key that is not here, and what else is wrong, does not matter.
    let broken = format!("{WINDOWS}[upstream]\nkey_file = \"/nowhere/key\"\n[server]\nlisten = 3\n");
    let file = archive.folder.write("elsewhere.toml", &broken);
    let config = ["--config", file.to_str().unwrap()];
    let variables = [("REELGATE_DEDUP__UNKNOWN_HOLD", "6h"), ("REELGATE_DEDUP__DELIVERY_WINDOW", "7d")];
    for (more, environment) in [(&config[..], &[][..]), (&config, &[]), (&[], &variables)] {
        assert_eq!(archive.lines(more, environment).await.to_vec(), online, "{more:?}");
    }

    // Without it: what stands in the file is told all the same, and what needs the hold is not known.
    let [jobs, entries] = archive.lines(&[], &[]).await;
    assert_eq!(archive.lines(&[], &[]).await, [jobs.clone(), entries.clone()], "nothing moves");
    for state in ["done", "unknown"] {
        assert_eq!(of(&entries, state)["until"], of(&online[1], state)["until"], "{state}");
    }
    assert_ne!(of(&entries, "accepted")["until"], of(&online[1], "accepted")["until"], "the default stands");
    assert_eq!(of(&jobs, "unknown")["created"], Value::Null);
    let table = archive.ask("jobs", &["--state", "unknown"], &[]).await;
    assert!(table.lines().nth(1).unwrap().starts_with("-  "), "{table}");

    let data = archive.folder.path("data");
    let mistaken = archive.folder.write("mistaken.toml", "[dedup]\nunknown_hodl = \"6h\"\n");
    let mistaken = mistaken.to_str().unwrap();
    for (arguments, told) in [
        (&["ledger", "jobs", "--config", config[1]][..], "--offline"),
        (&["ledger", "jobs", "--offline", data.to_str().unwrap(), "--config", mistaken], "did you mean unknown_hold?"),
    ] {
        let (status, output) = Program::run(arguments, &[]).await;
        assert!(status == 2 && output.contains(told), "{output}");
    }
}

#[tokio::test]
async fn m7_what_was_being_sent_at_a_kill_has_no_end_until_the_next_start() {
    let archive = Archive::new();
    let mut served = archive.served().await;
    served.submit("a candle").await.request_id();
    served.upstream.next_submission(Fault::Stall);
    let sent = async {
        assert!(served.upstream.wait_until(|counts| counts.posts == 2, SOON).await);
        served.program.signal(Signal::KILL);
    };
    tokio::select! {
        answer = served.submit("a candle in the rain") => panic!("{}", answer.text()),
        () = sent => {}
    }
    served.program.ended().await;
    let file = archive.folder.path("reelgate.toml");
    let config = ["--config", file.to_str().unwrap()];
    let looks = [archive.lines(&config, &[]).await, archive.lines(&config, &[]).await, archive.lines(&[], &[]).await];
    for [jobs, entries] in &looks {
        assert_eq!(of(entries, "unknown")["until"], Value::Null, "it begins with the next start");
        // Since the file was written last, which was just before the send.
        let (unknown, made) = (of(jobs, "unknown")["created"].as_str(), of(jobs, "running")["created"].as_str());
        assert!(unknown >= made && unknown == of(&looks[0][0], "unknown")["created"].as_str(), "{jobs:?}");
    }
    let table = archive.ask("entries", &config, &[]).await;
    let row = table.lines().find(|line| line.contains("unknown")).unwrap();
    assert!(row.trim_end().ends_with('-'), "{table}");

    let served = archive.served().await;
    served.end().await;
    let [_, entries] = archive.lines(&config, &[]).await;
    assert!(of(&entries, "unknown")["until"].is_string(), "{entries:?}");
    assert_eq!(archive.lines(&config, &[]).await[1], entries);
}
