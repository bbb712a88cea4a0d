//! Floods over HTTP/2: whatever one connection throws, it ends or stays bounded, memory does not grow with it, nothing
//! is bought beyond the limits, and others are served meanwhile. Against the program in a process of its own, so that
//! its memory can be told.

use std::collections::HashSet;

use reelgate::simulator::Options;
use tokio::time::timeout;

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};
use crate::support::process::Served;
use crate::support::{GENERATIONS, Line, SOON, random_key};

/// What all floods together may add to the process' memory: far less than any of them sends.
const GROWTH_KIB: u64 = 24 << 10;
/// How many frames a flood has, if nobody stops it.
const FRAMES: usize = 20_000;
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

async fn served(environment: &[(&str, &str)]) -> Served {
    let key = random_key();
    let options = Options { key: Some(key.clone()), ..Options::default() };
    Served::start(&key, options, &[], environment).await
}

/// The memory of a process, in KiB.
fn resident(served: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A client that keeps its connection and asks for something that costs nothing.
async fn is_served(line: &mut Line) {
    assert_eq!(line.ask("GET", "/openapi.json", &[], "").await.whole().await.status, 200);
}

fn get<'a>() -> Vec<(&'a str, &'a str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":path", "/openapi.json"), (":authority", "a")]
}

/// Sends these frames over and over, with nobody reading, until the gateway takes no more or there were enough.
async fn flood(served: &Served, opening: &[u8], frames: &[u8], count: usize) {
    let mut connection = Frames::connect(served.address, &[]).await;
    connection.send(opening).await;
    let many = frames.repeat(100);
    for _ in 0..count / 100 {
        match timeout(SOON / 5, connection.send(&many)).await {
            Ok(true) => {}
            // The connection has ended; or it is not read any more, which bounds it as well.
            Ok(false) | Err(_) => break,
        }
    }
}

#[tokio::test]
async fn r50_t65_no_flood_of_frames_takes_memory_or_keeps_others_out() {
    let served = served(&[]).await;
    let mut good = Line::http1(served.address).await;
    is_served(&mut good).await;
    let request = frame(HEADERS, END_HEADERS, 1, &block(&get()));
    let begun = frame(HEADERS, 0, 1, &block(&get()));
    let field = block(&[("x-a", &"y".repeat(100))]);
    let floods = [
        ("CONTINUATION without end", begun.clone(), frame(CONTINUATION, 0, 1, &field)),
        ("CONTINUATION without content", begun, frame(CONTINUATION, 0, 1, &[])),
        ("DATA without content", request.clone(), frame(DATA, 0, 1, &[])),
        ("DATA of padding alone", request.clone(), frame(DATA, 8, 1, &[255; 256])),
        ("PING", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS that change the window", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PRIORITY", Vec::new(), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])),
        ("WINDOW_UPDATE", request, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("RST_STREAM", Vec::new(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("frames of unknown kinds", Vec::new(), frame(200, 0, 0, &[1; 100])),
    ];
    let before = resident(&served);
    for (name, opening, frames) in floods {
        for _ in 0..3 {
            flood(&served, &opening, &frames, FRAMES).await;
        }
        is_served(&mut good).await;
        let grown = resident(&served).saturating_sub(before);
        assert!(grown < GROWTH_KIB, "{name}: {grown} KiB more");
    }
    drop(good);
    served.end().await;
}

#[tokio::test]
async fn h42_r50_a_continuation_flood_ends_its_connection() {
    let served = served(&[]).await;
    for payload in [block(&[("x-a", &"y".repeat(1000))]), Vec::new()] {
        let mut connection = Frames::connect(served.address, &[]).await;
        connection.frame(HEADERS, 0, 1, &block(&get())).await;
        for _ in 0..1000 {
            if !connection.frame(CONTINUATION, 0, 1, &payload).await {
                break;
            }
        }
        let fate = connection.fate(1).await;
        assert!(matches!(fate, Fate::Gone(_)), "{fate:?}");
    }
    served.end().await;
}

#[tokio::test]
async fn r50_a_small_block_that_would_be_a_large_header_is_refused() {
    let served = served(&[]).await;
    let before = resident(&served);
    for stream in 0..50 {
        // A field of 3 KiB goes into the table once; then one byte repeats it, 4,000 times: 12 MiB of header in 7 KiB.
        let mut bomb = block(&get());
        let mut field = block(&[("x-bomb", &"y".repeat(3000))]);
        field[0] = 0x40;
        bomb.extend(field);
        bomb.extend([0x80 | 62; 4000]);
        let mut connection = Frames::connect(served.address, &[]).await;
        connection.frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
        let fate = connection.fate(1).await;
        assert!(matches!(fate, Fate::Answered(431) | Fate::Reset(_) | Fate::Gone(_)), "{fate:?} of {stream}");
    }
    let grown = resident(&served).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    served.end().await;
}

#[tokio::test]
async fn r50_answers_that_nobody_takes_stay_small() {
    let served = served(&[]).await;
    let mut good = Line::http1(served.address).await;
    is_served(&mut good).await;
    let before = resident(&served);
    let mut connections = Vec::new();
    for _ in 0..10 {
        // A window of 0 for all streams.
        let mut connection = Frames::connect(served.address, &[0, 4, 0, 0, 0, 0]).await;
        for stream in 0..100 {
            connection.headers(2 * stream + 1, &get(), true).await;
        }
        assert_eq!(connection.fate(199).await, Fate::Answered(200));
        connections.push(connection);
    }
    is_served(&mut good).await;
    let grown = resident(&served).saturating_sub(before);
    assert!(grown < GROWTH_KIB / 2, "{grown} KiB more for 1,000 answers");
    drop((good, connections));
    served.end().await;
}

#[tokio::test]
async fn h40_r49_requests_that_are_reset_before_anybody_has_seen_them_end_their_connection() {
    let served = served(&[]).await;
    let mut connection = Frames::connect(served.address, &[]).await;
    let mut flood = Vec::new();
    for stream in (1..160).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS, stream, &block(&get())));
        flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    connection.send(&flood).await;
    assert_eq!(connection.fate(999).await, Fate::Gone(Some(ENHANCE_YOUR_CALM)));
    served.end().await;
}

/// Sends this for one stream after another, until the gateway ends the connection: which it must, before 2,000.
async fn is_calmed(served: &Served, name: &str, flood: impl Fn(u32) -> Vec<u8>) {
    let mut connection = Frames::connect(served.address, &[]).await;
    for stream in (1..4001).step_by(2) {
        if !connection.send(&flood(stream)).await {
            break;
        }
    }
    let fate = connection.fate(9999).await;
    // Its last word may be lost in the reset of a connection that still sends.
    assert!(matches!(fate, Fate::Gone(None | Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR))), "{name}: {fate:?}");
}

#[tokio::test]
async fn h41_h43_h44_r50_whoever_makes_us_reset_streams_or_sends_nothing_for_ever_is_told_to_calm_down() {
    let served = served(&[]).await;
    let (good, malformed) = (block(&get()), block(&[&get()[..], &[("connection", "close")]].concat()));
    let request =
        |header: &[u8], stream: u32, then: &[u8]| [&frame(HEADERS, END_HEADERS, stream, header)[..], then].concat();
    let no_increment = |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    let own_parent = |stream: u32| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat());
    is_calmed(&served, "malformed requests", |stream| request(&malformed, stream, &[])).await;
    is_calmed(&served, "windows raised by nothing", |stream| request(&good, stream, &no_increment(stream))).await;
    is_calmed(&served, "streams below themselves", |stream| request(&good, stream, &own_parent(stream))).await;
    let nothing = |stream| frame(DATA, 0, stream, &[]).repeat(100);
    is_calmed(&served, "bodies of nothing", |stream| request(&good, stream, &nothing(stream))).await;
    served.end().await;
}

#[tokio::test]
async fn h40_r49_ten_thousand_requests_that_are_reset_at_once_buy_no_more_than_the_limits_allow() {
    const QUOTA: u64 = 5;
    let served = served(&[
        ("REELGATE_LIMITS__TOTAL__GENERATIONS", "5/day"),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ("REELGATE_LIMITS__USER__REQUESTS", "off"),
        ("REELGATE_LIMITS__ADDRESS__REQUESTS", "off"),
    ])
    .await;
    let mut good = Line::http1(served.address).await;
    is_served(&mut good).await;
    let before = resident(&served);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", GENERATIONS),
        (":authority", "a"),
        ("content-type", "application/json"),
    ];
    let header = block(&fields);
    let (mut sent, mut connections) = (0, 0);
    while sent < 10_000 {
        let mut connection = Frames::connect(served.address, &[]).await;
        connections += 1;
        // One connection has so many streams; a gateway that ends it earlier has ended the flood.
        for stream in 0..500 {
            let id = 2 * stream + 1;
            let body = format!(r#"{{"prompt":"{sent}"}}"#);
            let mut request = frame(HEADERS, END_HEADERS, id, &header);
            request.extend(frame(DATA, END_STREAM, id, body.as_bytes()));
            request.extend(frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
            sent += 1;
            if !connection.send(&request).await {
                break;
            }
        }
        if connections % 5 == 0 {
            is_served(&mut good).await;
        }
    }
    let grown = resident(&served).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    assert!(served.upstream.posts() <= QUOTA, "{} were bought", served.upstream.posts());
    drop(good);
    // What went out is kept: the same prompt gets the job that was made.
    let mut ids = HashSet::new();
    for job in served.upstream.accepted() {
        let answer = served.submit(&job.prompt).await;
        assert!(answer.cache_status().starts_with("reelgate; hit"), "{:?}", answer.headers);
        ids.insert(answer.request_id());
    }
    assert_eq!(ids.len() as u64, served.upstream.posts());
    served.end().await;
}
