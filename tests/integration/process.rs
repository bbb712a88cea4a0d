//! The program itself: what its users start, how it ends, and with which status (`DESIGN.md` §2; F-40, F-46, T-36).

use std::net::TcpListener;
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{Fault, Options};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::process::{Program, Served};
use super::support::{Folder, GENERATIONS, SOON, ask, eventually, key_is_absent, random_key, together};

fn options(key: &str) -> Options {
    Options { key: Some(key.to_owned()), job_duration: Duration::from_millis(300), ..Options::default() }
}

#[tokio::test]
async fn inv1_serve_without_a_file_does_the_main_job_and_tells_nobody_the_key() {
    let key = random_key();
    let served = Served::start(&key, options(&key), &[], &[]).await;
    let first = served.submit("a candle").await;
    let id = first.request_id();
    assert_eq!(first.cache_status(), "reelgate; fwd=miss; stored");
    assert_eq!(served.submit("a candle").await.request_id(), id);
    eventually("the job is done", async || served.poll(&id).await.text().contains("\"done\"")).await;
    let done = served.poll(&id).await;
    assert!(done.text().contains(".mp4"), "{}", done.text());
    let metrics = served.admin("/metrics").await;
    assert_eq!(served.metric("submissions_total{outcome=\"hit\"}").await, 1.0);
    assert_eq!(served.upstream.posts(), 1);
    let received = served.upstream.received();
    let head = String::from_utf8_lossy(&received[0].head).to_ascii_lowercase();
    assert!(head.contains(&format!("authorization: bearer {key}")), "the key was not sent upstream");

    key_is_absent(&key, "the command line", served.program.command_line().as_bytes());
    for answer in [&first, &done, &metrics] {
        key_is_absent(&key, "an answer", &answer.raw());
    }
    let output = served.end().await;
    key_is_absent(&key, "the output", output.as_bytes());
    assert!(output.contains("\"ledger.kind: ") || output.contains("forgets at a restart"), "it warns: {output}");
    assert!(!output.contains("a candle"), "prompts are not logged: {output}");
}

#[tokio::test]
async fn f46_without_a_key_it_ends_with_2_and_one_line_that_names_the_variable() {
    for environment in [&[][..], &[("COMETAPI_KEY", "")], &[("COMETAPI_KEY", "two words")]] {
        let (status, output) = Program::run(&["serve"], environment).await;
        assert_eq!((status, output.lines().count()), (2, 1), "{output}");
        assert!(output.contains("COMETAPI_KEY") && !output.contains("two words"), "{output}");
    }
    let (_, output) = Program::run(&["serve"], &[("COMETAPI_KEY", "Bearer sk-x")]).await;
    assert!(output.contains("it holds a space") && output.contains("Bearer is added here"), "{output}");
    let other = [("COMETAPI_KEY", "real"), ("REELGATE_UPSTREAM__KEY_ENV", "VIDEO_KEY")];
    let (status, output) = Program::run(&["serve"], &other).await;
    assert!(status == 2 && output.contains("VIDEO_KEY"), "{output}");
}

#[tokio::test]
async fn f46_a_bad_configuration_ends_with_2_and_all_its_faults() {
    let folder = Folder::new();
    let bad = "[server]\nlisen = \"127.0.0.1:0\"\nmax_body = \"lots\"\n[limits.user]\ngenerations = \"0/minute\"\n";
    let file = folder.write("reelgate.toml", bad);
    let file = file.to_str().unwrap();
    for command in ["check", "serve"] {
        let environment = [("COMETAPI_KEY", "real"), ("REELGATE_DEDUP__BY", "magic")];
        let (status, output) = Program::run(&[command, "--config", file], &environment).await;
        assert_eq!(status, 2, "{output}");
        for part in ["lisen", "listen", "server.max_body", "limits.user.generations", "REELGATE_DEDUP__BY"] {
            assert!(output.contains(part), "{command}: {part} in {output}");
        }
    }
    let missing = folder.path("missing.toml");
    let (status, output) = Program::run(&["check", "--config", missing.to_str().unwrap()], &[]).await;
    assert!(status == 2 && output.contains("missing.toml") && output.lines().count() == 1, "{output}");
    let (status, output) = Program::run(&["serve"], &[("COMETAPI_KEY", "k"), ("REELGATE_SERVER__LISEN", "x")]).await;
    assert!(status == 2 && output.contains("REELGATE_SERVER__LISEN"), "{output}");
}

#[tokio::test]
async fn check_passes_a_sound_configuration_with_0_and_needs_no_key() {
    let folder = Folder::new();
    let file = folder.write("reelgate.toml", "[limits.user]\ngenerations = \"3/minute\"\n");
    let (status, output) = Program::run(&["check", "--config", file.to_str().unwrap()], &[]).await;
    assert!(status == 0 && output.contains("reelgate.toml: ok"), "{output}");
    assert!(output.contains("warning: no upstream key: set the environment variable COMETAPI_KEY"), "{output}");
}

#[tokio::test]
async fn check_refuses_what_serve_would_refuse_of_keys_and_authorities() {
    let folder = Folder::new();
    let (key, roots) = (folder.write("key", "two words"), folder.write("roots.pem", "no certificate"));
    let file = folder.write("reelgate.toml", "");
    let check = ["check", "--config", file.to_str().unwrap()];
    for (variable, value, told) in [
        ("COMETAPI_KEY", "two words", "COMETAPI_KEY cannot be used"),
        ("REELGATE_UPSTREAM__KEY_FILE", key.to_str().unwrap(), "the upstream key"),
        ("REELGATE_UPSTREAM__ROOTS", roots.to_str().unwrap(), "upstream.roots: "),
    ] {
        let (status, output) = Program::run(&check, &[(variable, value)]).await;
        assert!(status == 2 && output.contains(told) && !output.contains("two words"), "{variable}: {output}");
    }
    let both = roots.to_str().unwrap();
    let all = [
        ("COMETAPI_KEY", "two words"),
        ("REELGATE_UPSTREAM__ROOTS", both),
        ("REELGATE_SERVER__TLS__CERTIFICATE", both),
        ("REELGATE_SERVER__TLS__KEY", both),
        ("REELGATE_DEDUP__BY", "magic"),
    ];
    for command in ["check", "serve"] {
        let (status, output) = Program::run(&[command, "--config", check[2]], &all).await;
        assert_eq!(status, 2, "{output}");
        let told = ["COMETAPI_KEY cannot be used", "upstream.roots: ", "server.tls.certificate: ", "server.tls.key: "];
        for part in told.iter().chain(&["REELGATE_DEDUP__BY"]) {
            assert_eq!(output.matches(part).count(), 1, "{command}: {part} once, with all others: {output}");
        }
    }
    let (status, output) = Program::run(&check, &[("REELGATE_DEDUP__KEY_ENV", "NOT_SET_HERE")]).await;
    assert!(status == 0 && output.contains("warning: dedup.key_env: NOT_SET_HERE is not set"), "{output}");
}

#[tokio::test]
async fn f17_the_log_tells_when_the_upstream_refuses_the_key_and_when_it_takes_it_again() {
    let key = random_key();
    let served = Served::start(&key, options(&key), &[], &[]).await;
    for prompt in ["a", "b"] {
        served.upstream.next_submission(Fault::named("401").unwrap());
        assert_eq!(served.submit(prompt).await.status, 502);
    }
    assert_eq!(served.submit("c").await.status, 200);
    let output = served.end().await;
    for told in ["the upstream refuses the gateway's key", "no longer degraded"] {
        assert_eq!(output.matches(told).count(), 1, "a change is told once: {output}");
    }
}

#[tokio::test]
async fn f46_simulate_on_a_port_in_use_ends_with_1_and_the_address_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, output) = Program::run(&["simulate", "--listen", &address], &[]).await;
    assert!(status == 1 && output.contains(&address), "{output}");
}

#[tokio::test]
async fn t36_open_to_everybody_on_a_public_address_refuses_to_start() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let environment = [("COMETAPI_KEY", "real"), ("REELGATE_SERVER__LISTEN", address)];
        let (status, output) = Program::run(&["serve"], &environment).await;
        assert!(status == 2 && output.contains("access.allow_public"), "{address}: {output}");
    }
    let key = random_key();
    let allowed = [("REELGATE_SERVER__LISTEN", "0.0.0.0:0"), ("REELGATE_ACCESS__ALLOW_PUBLIC", "true")];
    let served = Served::start(&key, options(&key), &[], &allowed).await;
    let output = served.end().await;
    assert!(output.contains("everyone who reaches server.listen spends"), "it warns at each start: {output}");
}

#[tokio::test]
async fn f46_a_port_in_use_ends_it_with_1_at_once_and_the_address_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, other) in [("SERVER", "ADMIN"), ("ADMIN", "SERVER")] {
        let (taken, free) = (format!("REELGATE_{key}__LISTEN"), format!("REELGATE_{other}__LISTEN"));
        let environment = [("COMETAPI_KEY", "real"), (taken.as_str(), address.as_str()), (&free, "127.0.0.1:0")];
        let (status, output) = Program::run(&["serve"], &environment).await;
        let line = output.lines().last().unwrap();
        assert!(status == 1 && line.contains(&address), "{output}");
        assert!(line.contains(&format!("{}.listen", key.to_ascii_lowercase())), "{output}");
    }
}

#[tokio::test]
async fn the_demo_prints_what_to_try_and_it_works_without_the_real_key() {
    let key = random_key();
    let page = "http://localhost:3000";
    let addresses = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let arguments = [&addresses[..], &["--job-seconds", "0", "--allow-origin", page]].concat();
    let mut program = Program::start(&arguments, &[("COMETAPI_KEY", &key)]);
    let (address, admin) = program.serving().await;
    program.says("Ctrl-C").await;
    let output = program.output();
    assert!(
        output.contains(&format!("http://{address}/grok/v1")) && output.contains(&format!("http://{admin}/metrics"))
    );
    let curl = output.split_once("curl -i ").unwrap().1;
    assert!(curl.starts_with(&format!("http://{address}{GENERATIONS} ")), "{output}");
    let header = curl.split('\'').nth(1).unwrap().split_once(": ").unwrap();
    let body = curl.split('\'').nth(3).unwrap();
    let created = ask(address, Method::POST, GENERATIONS, &[header, ("origin", page)], body).await;
    assert_eq!(created.header("access-control-allow-origin"), page);
    let path = format!("/grok/v1/videos/{}", created.request_id());
    let done = async || ask(address, Method::GET, &path, &[], "").await.text().contains("\"done\"");
    eventually("the demo's job is done", done).await;
    let seen = output.split_once("what upstream has seen http://").unwrap().1;
    let upstream = seen.split('/').next().unwrap().parse().unwrap();
    let seen = ask(upstream, Method::GET, "/simulator/", &[], "").await;
    key_is_absent(&key, "what the demo sent and wrote", &[seen.raw(), program.output().into_bytes()].concat());
    program.signal(Signal::INT);
    assert_eq!(program.ended().await.code(), Some(0));
    let (status, output) = Program::run(&["demo", "--listen", "0.0.0.0:0"], &[]).await;
    assert!(status == 2 && output.contains("loopback"), "{output}");
    let (status, output) = Program::run(&["demo", "--allow-origin", "*"], &[]).await;
    assert!(status == 2 && output.contains("an exact origin"), "{output}");
}

#[tokio::test]
async fn health_ends_with_0_or_1() {
    let key = random_key();
    let served = Served::start(&key, options(&key), &[], &[]).await;
    let admin = served.admin.to_string();
    let (status, output) = Program::run(&["health", "--admin", &admin], &[]).await;
    assert!(status == 0 && output.contains("degraded"), "{output}");
    // What the other commands take, this one takes too.
    let url = format!("http://{admin}");
    let (status, output) = Program::run(&["health", "--admin", &url], &[]).await;
    assert!(status == 0 && output.contains("degraded"), "{output}");
    let (status, output) = Program::run(&["health", "--admin", "https://127.0.0.1:1"], &[]).await;
    assert!(status == 2 && output.contains("--admin: expected HOST:PORT or http://HOST:PORT"), "{output}");
    // The listeners are told by the environment, as in a container; serve alone would want to know who may call.
    let environment = [("REELGATE_ADMIN__LISTEN", admin.as_str()), ("REELGATE_SERVER__LISTEN", "0.0.0.0:8080")];
    let (status, output) = Program::run(&["health"], &environment).await;
    assert_eq!(status, 0, "{output}");
    served.end().await;
    let (status, output) = Program::run(&["health", "--admin", &admin], &[]).await;
    assert!(status == 1 && output.contains(&admin), "{output}");
}

#[tokio::test]
async fn f40_an_idle_process_ends_at_once_also_under_open_connections() {
    let key = random_key();
    let mut served = Served::start(&key, options(&key), &[], &[]).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 64]).await.unwrap() > 0);
    served.program.signal(Signal::TERM);
    // Its connections would have three times as long as is waited for here.
    assert_eq!(served.program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn f40_lim14_a_drain_answers_what_is_in_flight_and_serves_what_costs_nothing() {
    let key = random_key();
    let no_limit = [("REELGATE_LIMITS__USER__GENERATIONS", "off")];
    let mut served = Served::start(&key, options(&key), &[], &no_limit).await;
    let known = served.submit("known").await.request_id();
    served.upstream.always_submission(Some(Fault::Delay(Duration::from_secs(3))));
    let prompts: Vec<String> = (0..20).map(|number| format!("slow {number}")).collect();
    let during = async {
        assert!(served.upstream.wait_until(|counts| counts.posts == 21, SOON).await);
        served.program.signal(Signal::TERM);
        eventually("it says that it drains", async || served.admin("/readyz").await.status == 503).await;
        let refused = served.submit("new").await;
        assert_eq!(refused.refusal(), (503, "draining".to_owned()));
        assert_eq!((refused.header("retry-after"), refused.header("connection")), ("1", "close"));
        assert_eq!(served.submit("known").await.request_id(), known, "a hit is served");
        let poll = served.poll(&known).await;
        assert_eq!((poll.status, poll.header("connection")), (200, "close"));
        served.submit("slow 7").await.request_id()
    };
    let (answers, joined) = tokio::join!(together(prompts.iter().map(|prompt| served.submit(prompt))), during);
    let ids: Vec<String> = answers.iter().map(|answer| answer.request_id()).collect();
    assert_eq!(ids[7], joined, "a twin joins");
    assert_eq!(served.program.ended().await.code(), Some(0), "{}", served.program.output());
    assert_eq!((served.upstream.posts(), served.upstream.counts().accepted), (21, 21));
    key_is_absent(&key, "the output", served.program.output().as_bytes());
}

#[tokio::test]
async fn f40_a_second_signal_hurries_and_what_is_in_flight_is_unknown() {
    let key = random_key();
    let mut served = Served::start(&key, options(&key), &[], &[]).await;
    served.upstream.always_submission(Some(Fault::Stall));
    let head = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ");
    let mut clients = Vec::new();
    for number in 0..20 {
        let body = format!(r#"{{"prompt":"stalled {number}","user":"user-{}"}}"#, number / 4);
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        clients.push(client);
    }
    assert!(served.upstream.wait_until(|counts| counts.posts == 20, SOON).await);
    served.program.signal(Signal::TERM);
    served.program.says("draining").await;
    assert_eq!(served.metric("submissions_total{outcome=\"unknown\"}").await, 0.0);
    served.program.signal(Signal::TERM);
    assert_eq!(served.program.ended().await.code(), Some(0));
    served.program.says("the outcome of a submission is unknown").await;
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("\"outcome_unknown\""), "{answer}");
        assert!(answer.contains("x-should-retry: false"), "{answer}");
    }
}

#[tokio::test]
async fn lim7_a_low_soft_limit_of_open_files_is_raised_and_not_complained_about() {
    use rustix::process::{Pid, Resource, getrlimit, kill_process};
    // Where the hard limit is low too, the complaint is right.
    let enough = getrlimit(Resource::Nofile).maximum.is_none_or(|maximum| maximum >= 2 * 16_384);
    let run = "ulimit -Sn 1024 && exec \"$0\" demo --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let mut demo = std::process::Command::new("sh")
        .args(["-c", run, env!("CARGO_BIN_EXE_reelgate")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(demo.stdout.take().unwrap()));
    while !said.contains("Ctrl-C ends it") {
        said += &lines.next().expect("it has ended").unwrap();
    }
    kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
    demo.wait().unwrap();
    assert!(!enough || !said.contains("open files"), "{said}");
}
