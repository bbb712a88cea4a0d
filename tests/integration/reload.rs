//! A new configuration while it runs: on SIGHUP and by a change of the file, whole or not at all, and what is
//! remembered stays (F-70).

use std::path::Path;
use std::time::Duration;

use reelgate::simulator::Options;
use rustix::process::Signal;

use super::support::process::Served;
use super::support::{Answer, Folder, eventually, key_is_absent, random_key};
use super::teams::{self, STUDIO};

const FILE: &str = "reelgate.toml";

/// The program with a configuration file of this text.
async fn served(folder: &Folder, key: &str, text: &str) -> Served {
    let file = folder.write(FILE, text);
    let options = Options { key: Some(key.to_owned()), job_duration: Duration::from_millis(100), ..Options::default() };
    Served::start(key, options, &["--config", file.to_str().unwrap()], &[]).await
}

fn generations(rate: &str) -> String {
    format!("[limits.user]\ngenerations = \"{rate}\"\n")
}

fn is_limited(answer: &Answer) -> bool {
    match answer.status {
        200 => false,
        _ => {
            assert_eq!(answer.refusal(), (429, "rate_limited".to_owned()));
            true
        }
    }
}

/// Waits until so many reloads ended so.
async fn reloads(served: &Served, result: &str, count: f64) {
    let series = format!("config_reloads_total{{result=\"{result}\"}}");
    eventually(&series, async || served.metric(&series).await >= count).await;
}

#[tokio::test]
async fn t74_a_hangup_applies_new_limits_and_keeps_what_was_counted() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &generations("off")).await;
    let id = served.submit("a").await.request_id();
    assert!(!is_limited(&served.submit("b").await));
    folder.write(FILE, &generations("1/day"));
    served.program.signal(Signal::HUP);
    reloads(&served, "ok", 1.0).await;
    served.program.says("limits.user.generations").await;
    assert!(!is_limited(&served.submit("c").await));
    assert!(is_limited(&served.submit("d").await));
    assert_eq!(served.submit("a").await.request_id(), id, "entries survive");

    // What was used stays used, whatever else changes.
    folder.write(FILE, &(generations("1/day") + "requests = \"1000/day\"\n"));
    served.program.signal(Signal::HUP);
    reloads(&served, "ok", 2.0).await;
    assert!(is_limited(&served.submit("d").await));
    assert_eq!(served.metric("submissions_total{outcome=\"created\"}").await, 3.0, "counts survive");
    assert_eq!(served.upstream.posts(), 3);
    served.end().await;
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed_without_a_signal() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &generations("off")).await;
    folder.write(FILE, "[validation]\nunknown_fields = \"refuse\"\n");
    reloads(&served, "ok", 1.0).await;
    let body = "{\"prompt\":\"a\",\"camera\":1}";
    let headers = [("content-type", "application/json")];
    let answer = super::support::ask(served.address, hyper::Method::POST, super::support::GENERATIONS, &headers, body);
    assert_eq!(answer.await.refusal(), (422, "invalid_request".to_owned()));
    served.end().await;
}

#[tokio::test]
async fn inv9_t74_f70_a_bad_file_changes_nothing_and_is_logged_and_counted() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &generations("1/day")).await;
    assert!(!is_limited(&served.submit("a").await));
    let long = "# a comment\n".repeat(1 << 20);
    let schema = folder.write("schema.json", "{\"type\": 12}");
    let own = |path: &Path| format!("[validation]\ngenerations = \"{}\"\n", path.display());
    // Each would lift the limit, if any part of it were applied.
    let mut count = 0.0;
    for (bad, said) in [
        ("[limits.user\ngenerations = \"off\"\n".to_owned(), "reelgate.toml:1"),
        (generations("off") + "generatoins = 1\n", "generatoins"),
        (generations("0/minute"), "limits.user.generations"),
        (long, "longer than 1 MiB"),
        (generations("off") + "[upstream]\nkey_file = \"/nowhere/key\"\n", "upstream.key_file: cannot be read"),
        (generations("off") + &own(&schema), "validation.generations"),
        (generations("off") + "[server]\nmax_body = \"1 GiB\"\n", "server.body_memory"),
        ("[limits.user]\ngenerations = \"of".to_owned(), "reelgate.toml:2"),
    ] {
        folder.write(FILE, &bad);
        served.program.signal(Signal::HUP);
        count += 1.0;
        reloads(&served, "error", count).await;
        served.program.says(said).await;
        assert!(is_limited(&served.submit("b").await), "{said}");
        assert_eq!(served.metric("config_reloads_total{result=\"ok\"}").await, 0.0, "{said}");
    }
    std::fs::remove_file(folder.path(FILE)).unwrap();
    served.program.signal(Signal::HUP);
    reloads(&served, "error", count + 1.0).await;
    assert!(is_limited(&served.submit("b").await));
    folder.write(FILE, &generations("off"));
    served.program.signal(Signal::HUP);
    reloads(&served, "ok", 1.0).await;
    assert!(!is_limited(&served.submit("b").await));
    let output = served.end().await;
    assert!(output.contains("what runs is unchanged"), "{output}");
}

/// A configuration whose gateway asks for keys.
fn keys() -> String {
    [teams::MODE, &teams::team("studio", &[teams::key("one", STUDIO, "")], "")].concat()
}

#[tokio::test]
async fn f70_a_file_that_has_become_empty_opens_nothing_and_is_told() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &keys()).await;
    for (count, empty) in [(1.0, ""), (2.0, " \t\r\n\n")] {
        folder.write(FILE, empty);
        reloads(&served, "error", count).await;
        assert_eq!(served.submit("a").await.refusal(), (401, "missing_key".to_owned()));
    }
    served.program.says("reelgate.toml: it is empty").await;
    assert_eq!((served.upstream.posts(), served.metric("config_reloads_total{result=\"ok\"}").await), (0, 0.0));
    // Who means it says something, and is told what it means.
    folder.write(FILE, "# whoever is on this machine\n");
    reloads(&served, "ok", 1.0).await;
    served.program.says("access.mode: \\\"open\\\" from now on").await;
    assert_eq!(served.submit("a").await.status, 200);
    // Where all is as it was before, there is nothing to refuse.
    folder.write(FILE, "");
    reloads(&served, "ok", 2.0).await;
    served.end().await;
}

#[tokio::test]
async fn a_reload_warns_as_check_and_a_start_do() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &generations("off")).await;
    let doubt = "dedup.delivery_window: longer than 24h";
    assert!(!served.program.output().contains(doubt));
    folder.write(FILE, &(generations("off") + "[dedup]\ndelivery_window = \"30h\"\n"));
    reloads(&served, "ok", 1.0).await;
    let output = served.end().await;
    let told: Vec<_> = output.lines().filter(|line| line.contains(doubt)).collect();
    assert!(told.len() == 1 && told[0].contains("\"level\":\"warn\""), "{output}");
}

#[tokio::test]
async fn a_schema_file_is_followed_and_its_change_is_named() {
    let (folder, key) = (Folder::new(), random_key());
    let needs = |field: &str| folder.write("schema.json", &format!("{{\"required\": [\"prompt\", \"{field}\"]}}"));
    let schema = needs("mood");
    let served = served(&folder, &key, &format!("[validation]\ngenerations = {schema:?}\n")).await;
    assert!(served.submit("a").await.text().contains("mood"));
    needs("tone");
    served.program.says("\"changed\":\"validation.generations (its file)\"").await;
    assert!(served.submit("a").await.text().contains("tone"));
    assert_eq!(served.metric("config_changes_total{section=\"validation\"}").await, 1.0);
    // Nothing changed, nothing is named.
    served.program.signal(Signal::HUP);
    reloads(&served, "ok", 2.0).await;
    folder.write("schema.json", "no schema");
    reloads(&served, "error", 1.0).await;
    assert!(served.submit("a").await.text().contains("tone"));
    let output = served.end().await;
    assert_eq!(output.matches("(its file)").count(), 1, "{output}");
}

#[tokio::test]
async fn a_key_that_needs_a_restart_is_named_and_the_rest_is_applied() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &generations("off")).await;
    folder.write(FILE, &(generations("1/day") + "[server]\nconnections = 500\nconnections_per_address = 100\n"));
    served.program.signal(Signal::HUP);
    reloads(&served, "ok", 1.0).await;
    for name in ["server.connections", "server.connections_per_address"] {
        assert_eq!(served.metric(&format!("config_restart_needed{{key=\"{name}\"}}")).await, 1.0);
    }
    served.program.says("these keys wait for a restart").await;
    assert!(!is_limited(&served.submit("a").await));
    assert!(is_limited(&served.submit("b").await));
    folder.write(FILE, &generations("1/day"));
    served.program.signal(Signal::HUP);
    reloads(&served, "ok", 2.0).await;
    assert!(!served.admin("/metrics").await.text().contains("config_restart_needed{"), "what was taken back");
    served.end().await;
}

#[tokio::test]
async fn a_models_prices_that_come_and_go_are_all_that_a_reload_tells() {
    let (folder, key) = (Folder::new(), random_key());
    let served = served(&folder, &key, &generations("off")).await;
    let row = "[prices.a-model]\n\"480p\" = 0.01\n";
    let changes = async |section: &str| served.metric(&format!("config_changes_total{{section=\"{section}\"}}")).await;
    for (count, text) in [(1.0, generations("off") + row), (2.0, generations("off"))] {
        folder.write(FILE, &text);
        reloads(&served, "ok", count).await;
        assert_eq!(changes("prices").await, 2.0 * count);
    }
    assert_eq!((changes("budgets").await, changes("validation").await, changes("log").await), (0.0, 0.0, 0.0));
    let output = served.end().await;
    let told: Vec<_> = output.lines().filter(|line| line.contains("the configuration was reloaded")).collect();
    for (line, changed) in told
        .iter()
        .zip(["\"prices.a-model.image, prices.a-model.480p\"", "\"prices.a-model.480p, prices.a-model.image\""])
    {
        assert!(line.contains(&format!("\"changed\":{changed}")), "{line}");
    }
    assert_eq!(told.len(), 2, "{output}");
}

#[tokio::test]
async fn inv1_a_new_key_in_the_key_file_is_used_by_what_comes_after_it() {
    let (folder, old, new) = (Folder::new(), random_key(), random_key());
    let file = folder.write("key", &format!("{old}\n"));
    let environment = [("COMETAPI_KEY", ""), ("REELGATE_UPSTREAM__KEY_FILE", file.to_str().unwrap())];
    let served = Served::start("", Options::default(), &[], &environment).await;
    served.submit("a").await.request_id();
    folder.write("key", &format!("{new}\n"));
    reloads(&served, "ok", 1.0).await;
    served.program.says("\"changed\":\"upstream.key_file (its file)\"").await;
    served.submit("b").await.request_id();
    // A key that cannot be one is not taken.
    folder.write("key", "two words\n");
    served.program.signal(Signal::HUP);
    reloads(&served, "error", 1.0).await;
    served.submit("c").await.request_id();
    let received = served.upstream.received();
    let keys: Vec<bool> = [&old, &new, &new]
        .iter()
        .zip(&received)
        .map(|(key, received)| String::from_utf8_lossy(&received.head).contains(&format!("Bearer {key}\r\n")))
        .collect();
    assert_eq!(keys, [true; 3]);
    let output = served.end().await;
    for key in [&old, &new] {
        key_is_absent(key, "the output", output.as_bytes());
    }
    assert!(!output.contains("two words"), "{output}");
}

#[tokio::test]
async fn f70_what_was_refused_for_a_missing_file_is_taken_when_the_file_comes() {
    let (folder, old, new) = (Folder::new(), random_key(), random_key());
    let file = folder.write(FILE, &generations("off"));
    let options = Options { job_duration: Duration::from_millis(50), ..Options::default() };
    let served = Served::start(&old, options, &["--config", file.to_str().unwrap()], &[]).await;
    served.submit("a").await.request_id();
    let key = format!("[upstream]\nkey_file = {:?}\n", folder.path("key"));
    folder.write(FILE, &(generations("off") + &key));
    reloads(&served, "error", 1.0).await;
    served.program.says("upstream.key_file: cannot be read").await;
    served.submit("b").await.request_id();
    // First as nobody should write it: what comes of that is seen too.
    folder.write("key", "two words\n");
    reloads(&served, "error", 2.0).await;
    folder.write("key", &format!("{new}\n"));
    reloads(&served, "ok", 1.0).await;
    let id = served.submit("c").await.request_id();
    served.poll(&id).await;
    let received = served.upstream.received();
    let heads: Vec<_> = received.iter().map(|received| String::from_utf8_lossy(&received.head)).collect();
    let of = |method: &str| -> Vec<bool> {
        let heads = heads.iter().filter(|head| head.starts_with(method));
        heads.map(|head| head.contains(&format!("Bearer {new}\r\n"))).collect()
    };
    assert_eq!((of("POST"), of("GET")), (vec![false, false, true], vec![true]));

    // So it is with a schema.
    let schema = format!("{key}[validation]\ngenerations = {:?}\n", folder.path("schema.json"));
    folder.write(FILE, &(generations("off") + &schema));
    reloads(&served, "error", 3.0).await;
    folder.write("schema.json", "{\"type\": \"object\", \"required\": [\"prompt\", \"mood\"]}");
    reloads(&served, "ok", 2.0).await;
    assert_eq!(served.submit("d").await.refusal(), (422, "invalid_request".to_owned()));
    assert_eq!(served.metric("config_reloads_total{result=\"error\"}").await, 3.0, "each is told once");
    served.end().await;
}
