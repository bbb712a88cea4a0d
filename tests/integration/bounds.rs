//! What the process itself takes and leaves behind, seen from outside: memory under slow uploads (T-66, F-60), descriptors and
//! series after a load (INV-7), and files (T-80).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{Options, Simulator};
use rustix::process::{Signal, geteuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::process::{Program, Served};
use super::support::{Folder, GENERATIONS, SOON, ask, eventually, random_key, together};

const NO_LIMITS: [(&str, &str); 3] = [
    ("REELGATE_LIMITS__ADDRESS__REQUESTS", "off"),
    ("REELGATE_LIMITS__USER__REQUESTS", "off"),
    ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
];

fn options(key: &str) -> Options {
    Options { key: Some(key.to_owned()), job_duration: Duration::from_millis(50), ..Options::default() }
}

/// One value of the metrics page, by its whole name.
fn number(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).trim().parse().unwrap()
}

async fn resident(served: &Served) -> f64 {
    number(&served.admin("/metrics").await.text(), "process_resident_memory_bytes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t66_f60_slow_uploads_take_no_more_than_the_memory_of_bodies() {
    const MEBI: usize = 1 << 20;
    const UPLOADS: usize = 64;
    let key = random_key();
    let bounds = [("REELGATE_SERVER__MAX_BODY", "8 MiB"), ("REELGATE_SERVER__BODY_MEMORY", "16 MiB")];
    let served = Served::start(&key, options(&key), &[], &[&NO_LIMITS[..], &bounds].concat()).await;
    served.submit("a candle").await.request_id();
    let before = resident(&served).await;
    // Each is half of what it announces, and waits for nothing.
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        8 * MEBI
    );
    let (head, piece) = (head.as_bytes(), vec![b' '; MEBI]);
    let uploads = together((0..UPLOADS).map(|_| async {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let sent = async {
            stream.write_all(head).await?;
            for _ in 0..4 {
                stream.write_all(&piece).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        // Whoever was refused is not read to the end.
        _ = tokio::time::timeout(SOON, sent).await;
        stream
    }))
    .await;
    let page = served.admin("/metrics").await.text();
    let (held, grown) = (number(&page, "reelgate_body_memory_bytes"), resident(&served).await - before);
    assert!(held > 4.0 * MEBI as f64 && held <= 16.0 * MEBI as f64, "{held} bytes of bodies are held");
    // 256 MiB were on offer. Beside the bodies there are the connections' own buffers.
    assert!(grown < 64.0 * MEBI as f64, "{grown} bytes for {UPLOADS} uploads");
    assert!(number(&page, "reelgate_submissions_total{outcome=\"unavailable\"}") > 0.0, "nobody was refused");
    let beside = served.submit("a lamp").await;
    assert!([200, 503].contains(&beside.status), "{}", beside.text());
    drop(uploads);
    eventually("it is given back", async || served.metric("body_memory_bytes").await == 0.0).await;
    served.submit("a lamp").await.request_id();
    served.end().await;
}

/// Requests of all kinds, good and bad, and clients that leave at all places.
async fn load(served: &Served, round: usize) {
    let prompts: Vec<_> = (0..30).map(|number| format!("prompt {round} {number}")).collect();
    for answer in together(prompts.iter().map(|prompt| served.submit(prompt))).await {
        served.poll(&answer.request_id()).await;
    }
    for (path, body) in [(GENERATIONS, "{"), ("/nothing", ""), (GENERATIONS, "{\"prompt\":\"\"}")] {
        ask(served.address, Method::POST, path, &[("content-type", "application/json")], body).await;
    }
    let leaving = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        + "Content-Length: 1000\r\n\r\n{\"prompt\":\"";
    // After one letter it may be either protocol's, and more of it is waited for (LIM-1), whoever has left.
    for length in (0..leaving.len().min(160)).filter(|length| *length != 1) {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(&leaving.as_bytes()[..length]).await.unwrap();
        if length % 2 == 0 {
            stream.set_zero_linger().unwrap();
        }
    }
    // Nonsense is answered, or not, and closed.
    for nonsense in [&b"\x16\x03\x01\x02\x00"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnothing of HTTP/2", b"\r\n\r\n\0"]
    {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        stream.shutdown().await.unwrap();
        _ = tokio::time::timeout(SOON, stream.read_to_end(&mut Vec::new())).await;
    }
}

/// What is open, and how many series there are, once all is quiet.
async fn left(served: &Served) -> (f64, usize) {
    for gauge in ["connections", "requests_in_flight", "body_memory_bytes"] {
        eventually(gauge, async || served.metric(gauge).await == 0.0).await;
    }
    let page = served.admin("/metrics").await.text();
    let series = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    (number(&page, "process_open_fds"), series.count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv7_inv9_after_a_load_the_same_process_has_no_more_open_than_before_it() {
    let key = random_key();
    let more = [("REELGATE_LIMITS__TOTAL__GENERATIONS", "off")];
    let served = Served::start(&key, options(&key), &[], &[&NO_LIMITS[..], &more].concat()).await;
    load(&served, 0).await;
    let (open, series) = left(&served).await;
    for round in 1..4 {
        load(&served, round).await;
    }
    let (open_then, series_then) = left(&served).await;
    // A connection to the upstream more or less may be kept for the next poll.
    assert!(open_then <= open + 8.0, "{open} descriptors, then {open_then}");
    assert_eq!(series_then, series);
    assert_eq!(served.metric("panics_total").await, 0.0);
    served.end().await;
}

/// The user that is nobody, wherever there is one.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn t80_as_nobody_it_writes_in_its_ledgers_folder_alone() {
    let (folder, key) = (Folder::new(), random_key());
    let upstream = Simulator::start(options(&key)).await.unwrap();
    let (program, state) = (folder.path("reelgate"), folder.path("state"));
    // Nobody may not come to where it was built. A process of its own copies it: a file that is still open for writing in
    // this one cannot be started.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_reelgate")).arg(&program).status().unwrap();
    assert!(copied.success());
    fs::create_dir(&state).unwrap();
    let is_root = geteuid().is_root();
    if is_root {
        chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let (origin, data) = (upstream.origin(), state.join("data"));
    let nowhere = folder.as_ref().to_str().unwrap();
    let environment = [
        ("COMETAPI_KEY", key.as_str()),
        ("REELGATE_UPSTREAM__URL", &origin),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LEDGER__PATH", data.to_str().unwrap()),
        ("HOME", nowhere),
        ("TMPDIR", nowhere),
    ];
    let mut id = None;
    for _ in 0..2 {
        let mut command = Command::new(&program);
        command.current_dir(&folder);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut process = Program::spawn(command, &["serve"], &environment);
        let (address, _) = process.serving().await;
        let json = [("content-type", "application/json")];
        let answer = ask(address, Method::POST, GENERATIONS, &json, r#"{"prompt":"a candle"}"#).await;
        assert_eq!(*id.get_or_insert(answer.request_id()), answer.request_id(), "it remembers");
        process.signal(Signal::TERM);
        assert_eq!(process.ended().await.code(), Some(0), "{}", process.output());
    }
    mode(0o755);
    let names = |path: &std::path::Path| -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.as_ref()), ["reelgate", "state"]);
    assert_eq!(names(&state), ["data"]);
    assert_eq!(upstream.posts(), 1);
}
