//! Clients of HTTP/2 that have no room for an answer: what is behind it is given back all the same, and their streams
//! end in time.

use std::time::Duration;

use reelgate::simulator::Fault;

use crate::support::frames::{Fate, Frames, HEADERS, SETTINGS};
use crate::support::{Scene, eventually};

/// A window of 0 for all streams.
const NO_ROOM: [u8; 6] = [0, 4, 0, 0, 0, 0];
const CANCEL: u32 = 8;

/// Asks for this job on so many streams of a new connection, and waits until all heads have come.
async fn ask_and_read_nothing(scene: &Scene, id: &str, streams: u32) -> Frames {
    let path = format!("/grok/v1/videos/{id}");
    let mut frames = Frames::connect(scene.gateway().address(), &NO_ROOM).await;
    for stream in 0..streams {
        let get = [(":method", "GET"), (":scheme", "http"), (":path", &path), (":authority", "a")];
        frames.headers(2 * stream + 1, &get, true).await;
    }
    let mut answered = 0;
    while answered < streams {
        let frame = frames.read().await.expect("the connection ended");
        match frame.kind {
            HEADERS => answered += 1,
            SETTINGS if frame.flags == 0 => _ = frames.frame(SETTINGS, 1, 0, &[]).await,
            _ => {}
        }
    }
    frames
}

#[tokio::test]
async fn r50_inv7_f64_a_short_answer_that_nobody_reads_keeps_no_connection_upstream() {
    const STREAMS: u32 = 30;
    let scene = Scene::with(|config, _| config.server.workers = 1).await;
    let id = scene.submit("a").await.request_id();
    scene.upstream.always_poll(Some(Fault::Chunked { bytes: 11 }));
    let mut unread = Vec::new();
    for _ in 0..5 {
        unread.push(ask_and_read_nothing(&scene, &id, STREAMS).await);
        let polls = scene.upstream.polls();
        // Its last byte has been sent, and the next round finds it taken.
        eventually("all was answered", async || scene.upstream.counts().answered > polls).await;
    }
    // Nearly all of them are those of the first round.
    let connections = scene.upstream.connections();
    assert!(connections < 3 * u64::from(STREAMS), "{connections} connections");
    drop(unread);
    scene.end().await;
}

#[tokio::test]
async fn lim15_lim9_inv7_an_answer_that_nobody_reads_keeps_its_place_and_ends_with_all_that_is_behind_it() {
    let scene = Scene::with(|config, _| {
        config.server.workers = 1;
        config.server.write_timeout = Duration::from_secs(2);
        config.server.requests_in_flight = 1;
    })
    .await;
    let id = scene.submit("a").await.request_id();
    let open = scene.upstream.counts().open;
    // More than all that is fetched ahead, and than sockets hold.
    scene.upstream.always_poll(Some(Fault::Padded(16 << 20)));
    let mut frames = ask_and_read_nothing(&scene, &id, 1).await;
    let beside = scene.poll(&id).await;
    assert_eq!(beside.refusal(), (503, "overloaded".to_owned()));
    assert_eq!(frames.fate(1).await, Fate::Reset(CANCEL));
    eventually("the upstream's connection is closed", async || scene.upstream.counts().open <= open).await;
    scene.upstream.always_poll(None);
    eventually("its place is free", async || scene.poll(&id).await.status == 200).await;
    // The others on its connection are not hurt.
    drop(frames);
    scene.end().await;
}
