//! Paid calls over real sockets.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::{HeaderMap, StatusCode, Version};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::request::head::Header;
use crate::upstream::outcome::{Outcome, Rules, classify};
use crate::upstream::resolver::Resolver;
use crate::upstream::scripted::{Act, KEY, PSEUDONYM, Scripted, json, say};
use crate::upstream::settings::{Roots, Settings};

const BODY: &str = r#"{ "prompt" : "A sea\u00e9 otter" }"#;
const CREATED: &str = r#"{"request_id":"r-1"}"#;

async fn send_body(upstream: &Arc<Upstream>, body: Bytes) -> Result<Answer, Unanswered> {
    let passed = Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_2, upstream.via());
    upstream.connect().await.unwrap().send(Operation::Generations, &passed, body).await
}

async fn send(upstream: &Arc<Upstream>) -> Result<Answer, Unanswered> {
    send_body(upstream, Bytes::from_static(BODY.as_bytes())).await
}

#[tokio::test]
async fn inv6_r20_each_submission_is_one_well_framed_request_on_a_connection_of_its_own() {
    let upstream = Scripted::start(vec![vec![json("200 OK", CREATED)]; 2]).await;
    let behind = upstream.upstream(|_| {});
    for _ in 0..2 {
        let answer = send(&behind).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, CREATED.as_bytes()));
        assert!(!answer.headers.contains_key("content-length"));
        upstream.ended(1).await;
    }
    let received = upstream.received();
    assert_eq!(received.iter().map(|one| one.connection).collect::<Vec<_>>(), [0, 1]);
    let want = format!(
        "POST /grok/v1/videos/generations HTTP/1.1\r\nhost: {}\r\nuser-agent: reelgate/{}\r\n\
         accept: application/json\r\naccept-encoding: identity\r\nvia: 2 {PSEUDONYM}\r\n\
         authorization: Bearer {KEY}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{BODY}",
        upstream.address,
        env!("CARGO_PKG_VERSION"),
        BODY.len(),
    );
    assert_eq!(received[0].text, want);
}

#[tokio::test]
async fn an_answer_that_is_kept_for_a_day_holds_no_more_memory_than_it_needs() {
    let upstream = Scripted::start(vec![vec![json("200 OK", CREATED)]]).await;
    let answer = send(&upstream.upstream(|_| {})).await.unwrap();
    let own = answer.body.try_into_mut().expect("it shares the buffer that it came in");
    assert!(own.capacity() <= 2 * CREATED.len(), "{} bytes", own.capacity());
}

#[tokio::test]
async fn a_large_body_arrives_byte_for_byte() {
    let upstream = Scripted::start(vec![vec![json("200 OK", CREATED)]]).await;
    let body = "0123456789abcdef".repeat(200_000);
    send_body(&upstream.upstream(|_| {}), Bytes::from(body.clone())).await.unwrap();
    assert!(upstream.received()[0].text.ends_with(&format!("\r\n\r\n{body}")));
}

#[tokio::test]
async fn inv4_f05_f07_what_may_have_arrived_is_in_doubt_and_never_sent_again() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"request_id\":\"abc";
    for script in [
        vec![Act::Close],
        vec![Act::Reset],
        vec![say("HTTP/1.1 200 OK\r\nContent-Le"), Act::Close],
        vec![say(cut), Act::Close],
        vec![say(cut), Act::Reset],
        vec![
            say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"request_id\":\"r-1\"}\r\n"),
            Act::Close,
        ],
        vec![say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Act::Close],
    ] {
        let upstream = Scripted::start(vec![script]).await;
        assert_eq!(send(&upstream.upstream(|_| {})).await, Err(Unanswered::InDoubt(Doubt::Broken)));
        assert_eq!(upstream.received().len(), 1);
    }
}

#[tokio::test]
async fn f11_r39_an_answer_that_can_be_read_in_two_ways_is_none() {
    let many = "x: y\r\n".repeat(101);
    let huge = "y".repeat(1_000_000);
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"request_id\":\"r-1\"}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nContent-Length: 20\r\n\r\n{\"request_id\":\"r-1\"}",
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nContent-Length: 21\r\n\r\n{\"request_id\":\"r-1\"}",
        "HTTP/1.1 200 OK\r\nContent-Length: +20\r\n\r\n{\"request_id\":\"r-1\"}",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\nContent-Length: 20\r\n\r\n{\"request_id\":\"r-1\"}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n14\r\n{\"request_id\":\"r-1\"}\r\n0\r\n\r\n",
        "HTTP/1.1 400 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"request_id\":\"r-1\"}\r\n0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 20\r\n\r\n{\"request_id\":\"r-1\"}",
        "{\"request_id\":\"r-1\"}\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 20\r\n\r\n{{\"request_id\":\"r-1\"}}"),
        &format!("HTTP/1.1 200 OK\r\nx: {huge}\r\nContent-Length: 20\r\n\r\n{{\"request_id\":\"r-1\"}}"),
    ] {
        let upstream = Scripted::start(vec![vec![say(raw), Act::Hang]]).await;
        let answer = send(&upstream.upstream(|_| {})).await;
        assert_eq!(answer, Err(Unanswered::InDoubt(Doubt::Broken)), "{}", &raw[..60]);
        upstream.ended(1).await;
    }
}

#[tokio::test]
async fn r23_f19_interim_answers_are_passed_over_but_not_without_end() {
    let interim = |count| say(&"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(count));
    let scripts = vec![vec![interim(10), json("200 OK", CREATED)], vec![interim(11), Act::Hang]];
    let upstream = Scripted::start(scripts).await;
    let behind = upstream.upstream(|_| {});
    assert_eq!(send(&behind).await.unwrap().body, CREATED);
    assert_eq!(send(&behind).await, Err(Unanswered::InDoubt(Doubt::Broken)));
    upstream.ended(2).await;
}

#[tokio::test]
async fn r23_switching_protocols_is_no_answer() {
    let raw = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let upstream = Scripted::start(vec![vec![say(raw), Act::Hang]]).await;
    let outcome = classify(send(&upstream.upstream(|_| {})).await, &Rules::default());
    assert_eq!(outcome, Outcome::Unknown { doubt: Doubt::Broken, answer: None });
}

#[tokio::test]
async fn lim11_f19_an_endless_answer_is_cut_at_64_kib() {
    let known = format!("HTTP/1.1 500 No\r\nContent-Length: 65537\r\n\r\n{}", "x".repeat(65_537));
    let unknown = format!("HTTP/1.1 400 No\r\nConnection: close\r\n\r\n{}", "x".repeat(10_000_000));
    let fits = format!("HTTP/1.1 400 No\r\nConnection: close\r\n\r\n{}", "x".repeat(65_536));
    let scripts = vec![vec![say(&known), Act::Hang], vec![say(&unknown), Act::Hang], vec![say(&fits), Act::Close]];
    let upstream = Scripted::start(scripts).await;
    let behind = upstream.upstream(|_| {});
    assert_eq!(send(&behind).await, Err(Unanswered::TooLong(StatusCode::INTERNAL_SERVER_ERROR)));
    assert_eq!(send(&behind).await, Err(Unanswered::TooLong(StatusCode::BAD_REQUEST)));
    assert_eq!(send(&behind).await.unwrap().body.len(), 65_536);
    upstream.ended(3).await;
}

#[tokio::test]
async fn t02_the_key_is_masked_in_an_answer_that_passes() {
    let body = format!(r#"{{"error":{{"message":"Incorrect API key: {KEY}"}}}}"#);
    let head = format!("HTTP/1.1 403 No\r\nWWW-Authenticate: {KEY}\r\nContent-Length: {}\r\n\r\n", body.len());
    let upstream = Scripted::start(vec![vec![say(&head), say(&body)]]).await;
    let answer = send(&upstream.upstream(|_| {})).await.unwrap();
    assert_eq!(answer.body, body.replace(KEY, &"*".repeat(KEY.len())));
    assert!(answer.headers.is_empty());
}

#[tokio::test]
async fn t01_a_redirect_is_not_followed() {
    let elsewhere = Scripted::start(vec![]).await;
    let raw = format!("HTTP/1.1 307 Go\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", elsewhere.address);
    let upstream = Scripted::start(vec![vec![say(&raw)]]).await;
    assert_eq!(send(&upstream.upstream(|_| {})).await.unwrap().status, StatusCode::TEMPORARY_REDIRECT);
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn a_call_that_is_given_up_closes_its_connection() {
    let upstream = Scripted::start(vec![vec![Act::Hang]]).await;
    let behind = upstream.upstream(|_| {});
    let call = tokio::time::timeout(Duration::from_millis(50), send(&behind));
    assert!(call.await.is_err());
    upstream.ended(1).await;
    drop(behind.connect().await.unwrap());
    upstream.ended(1).await;
}

#[tokio::test]
async fn f05_a_connection_that_ended_before_the_call_was_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Scripted::start(vec![]).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behind = upstream.upstream(|settings| settings.url = url);
    let (connection, accepted) = tokio::join!(behind.connect(), listener.accept());
    let connection = connection.unwrap();
    // The runtime has not seen the end when the call begins.
    drop(accepted.unwrap());
    let passed = Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_11, behind.via());
    let answer = connection.send(Operation::Edits, &passed, Bytes::from_static(b"{}")).await;
    assert_eq!(answer, Err(Unanswered::NotSent(Unreached::Refused)));
}

#[tokio::test]
async fn f01_f03_what_cannot_be_reached_says_why() {
    let upstream = Scripted::start(vec![]).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, why) in
        [(format!("http://{closed}"), Unreached::Refused), ("http://no-such-host.invalid".to_owned(), Unreached::Dns)]
    {
        let behind = upstream.upstream(|settings| (settings.url, settings.allow_http) = (url.clone(), true));
        assert_eq!(behind.connect().await.err(), Some(why), "{url}");
    }
}

#[tokio::test]
async fn f03_while_look_ups_hang_new_connections_go_where_the_last_ones_went() {
    let upstream = Scripted::start(vec![vec![json("200 OK", CREATED)]; 20]).await;
    let (address, begun) = (upstream.address, Arc::new(AtomicUsize::new(0)));
    let settings = Settings { url: "http://api.invalid".to_owned(), allow_http: true, ..Settings::default() };
    let mut behind = Upstream::new(&settings, UpstreamKey::parse(KEY).unwrap(), PSEUDONYM).unwrap();
    // It ends with the test.
    let (_hold, held) = std::sync::mpsc::channel::<()>();
    let (count, held) = (begun.clone(), Mutex::new(held));
    behind.set_resolver(Resolver::new(move || {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            _ = held.lock().unwrap().recv();
        }
        // The first address is dead: the next one has its share of the time as ever.
        Ok(vec!["127.0.0.1:1".parse().unwrap(), address])
    }));
    let behind = Arc::new(behind);
    for _ in 0..20 {
        assert_eq!(send(&behind).await.unwrap().body, CREATED);
    }
    assert_eq!(begun.load(Ordering::SeqCst), 2, "one look-up hangs, and no other is begun beside it");
}

#[tokio::test]
async fn a_name_with_several_addresses_is_reached_by_the_one_that_answers() {
    let upstream = Scripted::start(vec![vec![json("200 OK", CREATED)]]).await;
    let port = upstream.address.port();
    // `localhost` may be ::1 first, where nobody listens.
    let behind = upstream.upstream(|settings| settings.url = format!("http://localhost:{port}"));
    assert_eq!(send(&behind).await.unwrap().body, CREATED);
}

/// An authority of this test's own, its PEM file, and an acceptor with a certificate it signed.
fn authority(name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join(format!("{name}-{}.pem", std::process::id()));
    std::fs::write(&file, issuer.pem()).unwrap();
    (issuer, file)
}

fn acceptor(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str, year: i32, alpn: &[u8]) -> TlsAcceptor {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn t08_f04_the_upstream_s_certificate_is_verified_before_a_byte_of_http() {
    let (issuer, roots) = authority("roots");
    let (stranger, strange_roots) = authority("stranger");
    for (acceptor, want) in [
        (acceptor(&issuer, "localhost", 2100, b"http/1.1"), Ok(())),
        (acceptor(&issuer, "localhost", 2020, b"http/1.1"), Err(Unreached::Certificate)),
        (acceptor(&issuer, "elsewhere.example", 2100, b"http/1.1"), Err(Unreached::Certificate)),
        (acceptor(&stranger, "localhost", 2100, b"http/1.1"), Err(Unreached::Certificate)),
        (acceptor(&issuer, "localhost", 2100, b"h2"), Err(Unreached::Tls)),
    ] {
        let upstream = Scripted::start_with(vec![vec![json("200 OK", CREATED)]], Some(acceptor)).await;
        let behind = upstream.upstream(|settings| {
            settings.url = format!("https://localhost:{}", upstream.address.port());
            settings.roots = Roots::File(roots.clone());
        });
        assert_eq!(behind.connect().await.map(drop), want);
        upstream.ended(1).await;
        if want.is_ok() {
            assert_eq!(send(&behind).await.unwrap().body, CREATED);
        }
        assert_eq!(upstream.received().len(), usize::from(want.is_ok()));
    }
    for file in [roots, strange_roots] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn f04_a_server_without_tls_and_one_that_stalls_are_told_apart() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    let upstream = Scripted::start(vec![]).await;
    let behind = upstream.upstream(|settings| {
        settings.url = url;
        settings.connect_timeout = Duration::from_millis(200);
    });
    let answer = async {
        let (stream, _) = plain.accept().await.unwrap();
        stream.writable().await.unwrap();
        stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        stream
    };
    let (plain_text, _held) = tokio::join!(behind.connect(), answer);
    assert_eq!(plain_text.err(), Some(Unreached::Tls));
    let (stalled, _held) = tokio::join!(behind.connect(), plain.accept());
    assert_eq!(stalled.err(), Some(Unreached::Timeout));
}

#[tokio::test]
async fn m3_a_request_is_not_written_too_late() {
    let upstream = Scripted::start(vec![vec![json("200 OK", CREATED)]]).await;
    let behind = upstream.upstream(|_| {});
    for (frozen, sends) in [(1_000, true), (1_001, false)] {
        let millis = Arc::new(std::sync::atomic::AtomicU64::new(50_000));
        let clock = crate::clock::Clock::manual(millis.clone());
        let mut connection = behind.connect().await.unwrap();
        connection.send_by(SendBy { issued: clock.reading(), clock, within: Duration::from_secs(1) });
        let passed = Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_2, behind.via());
        let call = connection.send(Operation::Generations, &passed, Bytes::from_static(b"{}"));
        millis.fetch_add(frozen, Ordering::SeqCst);
        let answer = call.await;
        match sends {
            true => assert_eq!(answer.unwrap().status, StatusCode::OK),
            false => assert_eq!(answer, Err(Unanswered::TooLate)),
        }
        upstream.ended(1).await;
    }
    assert_eq!(upstream.received().len(), 1, "not a byte of the second one came");
}

/// What an upstream says that reads no more than the head of a request with a body of this length. It closes the
/// connection then, whatever of the body has come.
async fn answered_early(length: usize, says: &[&str], reads_on: bool) -> Result<Answer, Unanswered> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scripted = Scripted::start(vec![]).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behind = scripted.upstream(|settings| settings.url = url);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 64];
        stream.read_exact(&mut head).await.unwrap();
        for part in says {
            stream.write_all(part.as_bytes()).await.unwrap();
            if reads_on {
                // All of the body comes, though the answer has begun.
                tokio::io::copy(&mut (&mut stream).take(length as u64), &mut tokio::io::sink()).await.unwrap();
            }
        }
    };
    let (answer, ()) = tokio::join!(send_body(&behind, Bytes::from("x".repeat(length))), serve);
    answer
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_has_gone_counts() {
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}";
    let answer = answered_early(32 << 20, &[refusal], false).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::PAYLOAD_TOO_LARGE, b"{}".as_slice()));
}

#[tokio::test]
async fn a_request_goes_on_while_its_answer_comes() {
    let answer = answered_early(8 << 20, &["HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", CREATED], true).await;
    assert_eq!(answer.unwrap().body, CREATED);
}

#[tokio::test]
async fn f05_a_connection_that_breaks_while_a_request_goes_leaves_it_in_doubt() {
    assert_eq!(answered_early(8 << 20, &[], false).await, Err(Unanswered::InDoubt(Doubt::Broken)));
    // The system tells of the reset once, to who writes; then it looks like the end that such a body has.
    for says in ["HTTP/1.1 200", "HTTP/1.1 400 No\r\n\r\n{\"error\":{\"message\":\"cut he"] {
        assert_eq!(answered_early(32 << 20, &[says], false).await, Err(Unanswered::InDoubt(Doubt::Broken)), "{says}");
    }
}

/// An upstream that speaks TLS, the gateway's side of it, and its authorities' file.
async fn secure(name: &str) -> (TcpListener, TlsAcceptor, Arc<Upstream>, PathBuf) {
    let (issuer, roots) = authority(name);
    let acceptor = acceptor(&issuer, "localhost", 2100, b"http/1.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scripted = Scripted::start(vec![]).await;
    let behind = scripted.upstream(|settings| {
        settings.url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        settings.roots = Roots::File(roots.clone());
    });
    (listener, acceptor, behind, roots)
}

/// The upstream's side of a connection on which a job was made.
async fn answered(listener: &TcpListener, acceptor: &TlsAcceptor) -> TlsStream<TcpStream> {
    let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    let created = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{CREATED}", CREATED.len());
    stream.write_all(created.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn a_paid_connection_says_farewell_where_its_protocol_has_a_word_for_that() {
    let (listener, acceptor, behind, roots) = secure("farewell").await;
    let serve = async {
        let mut stream = answered(&listener, &acceptor).await;
        // An end without it is an error.
        stream.read_to_end(&mut Vec::new()).await
    };
    let (answer, ended) = tokio::join!(send(&behind), serve);
    assert_eq!(answer.unwrap().body, CREATED);
    ended.unwrap();
    std::fs::remove_file(roots).unwrap();
}

#[tokio::test]
async fn m8_an_answer_that_came_whole_counts_whatever_breaks_behind_it() {
    let (listener, acceptor, behind, roots) = secure("behind").await;
    let serve = async {
        let mut stream = answered(&listener, &acceptor).await;
        // It comes with the answer, and is no record of TLS.
        stream.get_mut().0.write_all(&[0xff; 16]).await.unwrap();
        stream
    };
    let (answer, _held) = tokio::join!(send(&behind), serve);
    assert_eq!(answer.unwrap().body, CREATED);
    std::fs::remove_file(roots).unwrap();
}
