//! HTTP/2 as hand-written frames (RFC 9113): what is malformed ends its stream and is never translated into anything,
//! and every limit that was announced is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use reelgate::simulator::{Fault, Options};
use rustix::process::Signal;

use crate::support::frames::{
    CONTINUATION, DATA, END_STREAM, Fate, Frames, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block,
};
use crate::support::process::Served;
use crate::support::{GENERATIONS, SOON, Scene, eventually, random_key};

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const BODY: &str = r#"{"prompt":"a"}"#;

/// The header of a submission, with something else in place of, or behind, the usual fields.
fn submission<'a>(changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", GENERATIONS),
        (":authority", "a"),
        ("content-type", "application/json"),
    ];
    for (name, value) in changed {
        match fields.iter_mut().find(|field| field.0 == *name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

/// Sends a submission's header and this body on a connection of their own.
async fn fate(scene: &Scene, fields: &[(&str, &str)], body: &str) -> Fate {
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    frames.headers(1, fields, false).await;
    frames.frame(DATA, END_STREAM, 1, body.as_bytes()).await;
    frames.fate(1).await
}

/// Ends a scene in which nothing went upstream, and notes what it counted.
async fn end(scene: Scene) {
    assert_eq!(scene.upstream.connections(), 0);
    eventually("all requests have ended", async || scene.metric("requests_in_flight").await == 0.0).await;
    scene.note_submissions(scene.counted().await);
    scene.end().await;
}

#[tokio::test]
async fn r45_names_and_values_that_http_1_could_read_otherwise_are_malformed() {
    let scene = Scene::start().await;
    let mut good = scene.good_client().await;
    for (name, value) in [
        ("x", "a\r\nTransfer-Encoding: chunked"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x", "a\u{7f}"),
        ("x", " a"),
        ("x", "a "),
        ("x", "\ta"),
        ("X-Upper", "a"),
        ("x y", "a"),
        ("x:y", "a"),
        ("x\r\ny", "a"),
        ("x\0", "a"),
        ("", "a"),
        (":unknown", "a"),
        (":status", "200"),
        ("accept", "a\r\nx-api-key: k"),
    ] {
        let fate = fate(&scene, &submission(&[(name, value)]), BODY).await;
        let is_refused =
            matches!(fate, Fate::Reset(PROTOCOL_ERROR) | Fate::Gone(Some(PROTOCOL_ERROR)) | Fate::Answered(400));
        assert!(is_refused, "{name:?}: {value:?} gave {fate:?}");
    }
    good.is_served().await;
    end(scene).await;
}

#[tokio::test]
async fn r46_fields_of_a_connection_are_malformed() {
    let scene = Scene::start().await;
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-foo"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ] {
        let fate = fate(&scene, &submission(&[(name, value)]), BODY).await;
        assert_eq!(fate, Fate::Reset(PROTOCOL_ERROR), "{name}: {value}");
    }
    assert_eq!(scene.counted().await, 0, "none of them became a request");
    end(scene).await;
}

#[tokio::test]
async fn r10_r13_r16_r47_pseudo_fields_stand_once_in_front_and_mean_one_place() {
    let scene = Scene::with(|config, _| config.server.allowed_hosts = vec!["a".to_owned()]).await;
    for (changed, want) in [
        (&[("host", "b")][..], 400),
        (&[("host", "a:1")], 400),
        (&[(":authority", "")], 400),
        (&[(":authority", "u:p@a")], 400),
        (&[(":authority", "b")], 421),
        (&[(":authority", "a b")], 0),
        (&[(":authority", "a/b")], 0),
        (&[(":path", "")], 0),
        (&[(":path", "*")], 400),
        (&[(":path", "http://a/grok/v1/videos/generations")], 400),
        (&[(":path", "grok/v1/videos/generations")], 400),
        (&[(":path", "/grok/v1/videos/generations?a=b")], 400),
        (&[(":path", "/grok/v1/videos/generations HTTP/1.1")], 0),
        (&[(":path", "//grok/v1/videos/generations")], 404),
        (&[(":path", "/grok/v1/videos/%67enerations")], 404),
        (&[(":scheme", "ftp")], 400),
        (&[(":scheme", "")], 0),
        (&[(":method", "CONNECT")], 0),
        (&[(":method", "")], 0),
        (&[(":method", "PO ST")], 0),
        (&[(":method", "post")], 405),
        (&[(":method", "TRACE")], 405),
        (&[(":protocol", "websocket")], 0),
    ] {
        let fate = fate(&scene, &submission(changed), BODY).await;
        // A 400 and the end of the stream are both what a malformed request may get; no path is ever rewritten.
        let is_refused = match fate {
            Fate::Answered(status) => status == want || (want <= 400 && matches!(status, 400 | 404 | 405)),
            Fate::Reset(code) | Fate::Gone(Some(code)) => want <= 400 && code == PROTOCOL_ERROR,
            Fate::Gone(None) => false,
        };
        assert!(is_refused, "{changed:?} gave {fate:?}");
    }
    let usual = submission(&[]);
    let twice: Vec<_> = usual.iter().chain([&(":path", "/nothing")]).copied().collect();
    let behind: Vec<_> = usual[1..].iter().chain([&usual[0]]).copied().collect();
    for fields in [
        &twice[..],
        &behind,
        &usual[1..],
        &[&usual[..1], &usual[2..]].concat(),
        &[&usual[..3], &usual[4..]].concat(),
        &usual[..2],
    ] {
        let fate = fate(&scene, fields, BODY).await;
        assert!(matches!(fate, Fate::Reset(PROTOCOL_ERROR) | Fate::Answered(400)), "{fields:?} gave {fate:?}");
    }
    end(scene).await;
}

#[tokio::test]
async fn r38_r48_a_body_of_another_length_than_announced_is_none() {
    let scene = Scene::start().await;
    for lengths in [&["15"][..], &["13"], &["0"], &["14", "15"], &["15", "14"], &["-14"], &["+14"], &["14,14"], &["x"]]
    {
        let lengths: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        let fields = [submission(&[]), lengths.clone()].concat();
        let fate = fate(&scene, &fields, BODY).await;
        let is_refused = matches!(fate, Fate::Reset(_) | Fate::Gone(Some(PROTOCOL_ERROR)) | Fate::Answered(400));
        assert!(is_refused, "{lengths:?} gave {fate:?}");
    }
    // A header that ends the stream and announces a body.
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    frames.headers(1, &submission(&[("content-length", "14")]), true).await;
    assert!(matches!(frames.fate(1).await, Fate::Reset(PROTOCOL_ERROR) | Fate::Answered(400)));
    assert_eq!(scene.upstream.connections(), 0);
    eventually("all requests have ended", async || scene.metric("requests_in_flight").await == 0.0).await;
    scene.note_submissions(scene.counted().await + 1);
    let first = fate(&scene, &submission(&[("content-length", "14")]), BODY).await;
    assert_eq!(first, Fate::Answered(200));
    assert_eq!(scene.upstream.posts(), 1, "the same prompt sent whole is a miss");
    scene.end().await;
}

#[tokio::test]
async fn h27_lim5_the_limits_stand_in_our_settings() {
    let scene = Scene::start().await;
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    let first = frames.read().await.unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    let setting = |id: u16| {
        let mut all = first.payload.chunks(6);
        all.find(|one| one[..2] == id.to_be_bytes()).map(|one| u32::from_be_bytes(one[2..].try_into().unwrap()))
    };
    // Table, push, streams, window, frame, header list, extended CONNECT; what is absent has RFC 9113's own value.
    assert_eq!(setting(1).unwrap_or(4096), 4096);
    assert_eq!(setting(3), Some(100));
    assert_eq!(setting(4), Some(256 << 10));
    assert_eq!(setting(5).unwrap_or(16 << 10), 16 << 10);
    assert_eq!(setting(6), Some(16 << 10));
    assert_eq!(setting(8).unwrap_or(0), 0);
    // The connection's window is raised to 1 MiB from the 64 KiB that it begins with.
    let raised = loop {
        let frame = frames.read().await.unwrap();
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            break u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
        }
    };
    assert_eq!(raised + 65_535, 1 << 20);
    end(scene).await;
}

#[tokio::test]
async fn lim5_a_stream_beyond_the_hundredth_is_refused_and_the_hundred_go_on() {
    let scene = Scene::start().await;
    let mut good = scene.good_client().await;
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    // The limit counts from when the client has acknowledged it.
    assert_eq!(frames.read().await.unwrap().kind, SETTINGS);
    frames.frame(SETTINGS, 1, 0, &[]).await;
    for stream in 0..101 {
        frames.headers(2 * stream + 1, &submission(&[]), false).await;
    }
    assert_eq!(frames.fate(201).await, Fate::Reset(REFUSED_STREAM));
    good.is_served().await;
    frames.frame(DATA, END_STREAM, 1, BODY.as_bytes()).await;
    assert_eq!(frames.fate(1).await, Fate::Answered(200));
    drop(frames);
    eventually("all requests have ended", async || scene.metric("requests_in_flight").await == 0.0).await;
    scene.note_submissions(scene.counted().await);
    assert_eq!(scene.counted().await, 100);
    scene.end().await;
}

#[tokio::test]
async fn h45_lim3_lim5_a_header_list_beyond_16_kib_is_a_431_or_the_end() {
    let scene = Scene::start().await;
    let large = "x".repeat(15 << 10);
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    frames.headers(1, &submission(&[("a", &large)]), true).await;
    assert_ne!(frames.fate(1).await, Fate::Gone(None));
    // Over the limit, in frames that are each within it.
    let both = block(&submission(&[("a", &large), ("b", &large)]));
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    frames.frame(HEADERS, END_STREAM, 1, &both[..10_000]).await;
    frames.frame(CONTINUATION, 0, 1, &both[10_000..20_000]).await;
    frames.frame(CONTINUATION, 4, 1, &both[20_000..]).await;
    let fate = frames.fate(1).await;
    assert!(matches!(fate, Fate::Answered(431) | Fate::Reset(_) | Fate::Gone(Some(_))), "{fate:?}");
    end(scene).await;
}

#[tokio::test]
async fn lim4_lim8_inv7_what_comes_as_the_body_of_a_get_is_dropped_and_keeps_no_window() {
    const STREAM_WINDOW: usize = 256 << 10;
    let scene = Scene::with(|config, _| config.server.workers = 1).await;
    let id = scene.submit("a").await.request_id();
    scene.upstream.always_poll(Some(Fault::Stall));
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    // The streams' windows count from when the client has acknowledged them; the connection's is raised at once.
    assert_eq!(frames.read().await.unwrap().kind, SETTINGS);
    frames.frame(SETTINGS, 1, 0, &[]).await;
    while frames.read().await.unwrap().kind != WINDOW_UPDATE {}
    let path = format!("/grok/v1/videos/{id}");
    let get = [(":method", "GET"), (":scheme", "http"), (":path", &path), (":authority", "a")];
    for stream in [1, 3, 5, 7] {
        frames.headers(stream, &get, false).await;
    }
    assert!(scene.upstream.wait_until(|counts| counts.polls == 4, SOON).await);
    // As much as the connection's window holds, less what it begins with.
    for stream in [1, 3, 5, 7] {
        for _ in 0..STREAM_WINDOW / (16 << 10) - 1 {
            frames.frame(DATA, 0, stream, &[b'x'; 16 << 10]).await;
        }
    }
    // The connection has room again, the streams have not.
    let raised = loop {
        let frame = frames.read().await.unwrap();
        if frame.kind == WINDOW_UPDATE {
            break frame.stream;
        }
    };
    assert_eq!(raised, 0);
    drop(frames);
    scene.end().await;
}

#[tokio::test]
async fn r05_trailers_of_http_2_end_here_too() {
    let scene = Scene::start().await;
    let mut frames = Frames::connect(scene.gateway().address(), &[]).await;
    scene.note_submissions(1);
    frames.headers(1, &submission(&[]), false).await;
    frames.frame(DATA, 0, 1, BODY.as_bytes()).await;
    // The upstream key is of letters alone, so it cannot begin like the one in the trailers.
    frames.headers(1, &[("authorization", "Bearer 1"), ("content-length", "3"), ("x-sum", "1")], true).await;
    assert_eq!(frames.fate(1).await, Fate::Answered(200));
    let head = String::from_utf8(scene.upstream.received()[0].head.to_vec()).unwrap();
    assert!(
        !head.contains("Bearer 1") && !head.contains("x-sum") && head.matches("content-length").count() == 1,
        "{head}"
    );
    scene.end().await;
}

#[tokio::test]
async fn f40_r51_a_drain_finishes_the_streams_that_it_has_and_takes_no_more() {
    let key = random_key();
    let options = Options { key: Some(key.clone()), ..Options::default() };
    let no_limit = [("REELGATE_LIMITS__USER__GENERATIONS", "off")];
    let mut served = Served::start(&key, options, &[], &no_limit).await;
    served.upstream.always_submission(Some(Fault::Delay(Duration::from_secs(3))));
    let mut frames = Frames::connect(served.address, &[]).await;
    for stream in (1..20).step_by(2) {
        frames.headers(stream, &submission(&[]), false).await;
        frames.frame(DATA, END_STREAM, stream, format!(r#"{{"prompt":"slow {stream}"}}"#).as_bytes()).await;
    }
    assert!(served.upstream.wait_until(|counts| counts.posts == 10, SOON).await);
    served.program.signal(Signal::TERM);
    let (mut answered, mut last) = (BTreeSet::new(), u32::MAX);
    while let Some(frame) = frames.read().await {
        match frame.kind {
            PING if frame.flags == 0 => _ = frames.frame(PING, 1, 0, &frame.payload).await,
            GOAWAY => {
                assert_eq!(frame.code(), 0, "nothing is wrong");
                last = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                if last < u32::MAX >> 1 {
                    frames.headers(99, &submission(&[]), false).await;
                    frames.frame(DATA, END_STREAM, 99, br#"{"prompt":"too late"}"#).await;
                }
            }
            HEADERS => assert!(answered.insert(frame.stream)),
            _ => {}
        }
    }
    assert_eq!((answered, last), ((1..20).step_by(2).collect(), 19));
    assert_eq!(served.program.ended().await.code(), Some(0), "{}", served.program.output());
    assert_eq!((served.upstream.posts(), served.upstream.counts().accepted), (10, 10));
}
