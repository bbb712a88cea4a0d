//! The public listener behind TLS (`[server.tls]`; LIM-1, R-75, F-71): both protocols by ALPN, a deadline for the
//! handshake, and certificates that are replaced while connections go on.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reelgate::simulator::Options;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::process::{Program, Served};
use super::support::{Authority, Folder, GENERATIONS, Line, SOON, Scene, eventually, random_key};

/// A scene whose listener speaks TLS, with a certificate for `localhost` until the beginning of `year`.
async fn secure(folder: &Folder, authority: &Authority, year: i32) -> Scene {
    let (certificate, key) = authority.certificate("localhost", year);
    let (certificate, key) = (folder.write("cert.pem", &certificate), folder.write("key.pem", &key));
    Scene::with(|config, _| {
        config.server.tls.certificate = Some(certificate);
        config.server.tls.key = Some(key);
        config.server.tls.handshake_timeout = Duration::from_millis(700);
    })
    .await
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    authority.connector(protocols).connect(name, socket).await
}

async fn http1(address: SocketAddr, authority: &Authority) -> Line {
    Line::http1_over(address, connect(address, authority, &["http/1.1"]).await.unwrap()).await
}

#[tokio::test]
async fn r75_both_protocols_are_spoken_over_tls_and_nothing_without_it() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let scene = secure(&folder, &authority, 2100).await;
    let address = scene.gateway().address();
    let body = json!({"prompt": "a candle"}).to_string();
    let headers = [("content-type", "application/json")];
    let mut ids = Vec::new();
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"][..], Some("http/1.1")), (&[][..], None)]
    {
        let stream = connect(address, &authority, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        let mut line = match agreed {
            Some("h2") => Line::http2_over(address, stream).await,
            _ => Line::http1_over(address, stream).await,
        };
        scene.note_submissions(1);
        let answer = line.ask("POST", GENERATIONS, &headers, &body).await.whole().await;
        for absent in ["strict-transport-security", "server", "alt-svc"] {
            assert_eq!(answer.header(absent), "", "{absent}");
        }
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        ids.push(answer.request_id());
        // A connection carries more than one, also after a rest.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let poll = line.ask("GET", &format!("/grok/v1/videos/{}", ids[0]), &[], "").await.whole().await;
        assert_eq!(poll.status, 200);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one job");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    _ = tokio::time::timeout(SOON, plain.read_to_end(&mut said)).await.expect("it stays open");
    assert!(!said.windows(5).any(|bytes| bytes == b"HTTP/"), "plain HTTP is not answered");
    scene.metric_becomes("connections_closed_total{reason=\"tls\"}", 1.0).await;
    assert!(connect(address, &Authority::new(), &[]).await.is_err(), "whoever does not trust it leaves");
    scene.end().await;
}

#[tokio::test]
async fn lim1_t63_a_handshake_that_stalls_is_closed_while_others_are_served() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let scene = secure(&folder, &authority, 2100).await;
    let address = scene.gateway().address();
    // Nothing; the beginning of a record; a record that announces a ClientHello and holds none of it.
    let mut stalled = Vec::new();
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(beginning).await.unwrap();
        stalled.push(socket);
    }
    let mut line = http1(address, &authority).await;
    assert_eq!(line.ask("GET", "/openapi.json", &[], "").await.whole().await.status, 200);
    for mut socket in stalled {
        let mut said = Vec::new();
        _ = tokio::time::timeout(SOON, socket.read_to_end(&mut said)).await.expect("it stays open");
    }
    scene.metric_becomes("connections_closed_total{reason=\"tls\"}", 3.0).await;
    assert_eq!(line.ask("GET", "/openapi.json", &[], "").await.whole().await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn r74_our_own_page_over_tls_has_an_origin_of_https() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let scene = secure(&folder, &authority, 2100).await;
    let address = scene.gateway().address();
    let mut line = http1(address, &authority).await;
    for (origin, status) in [(format!("https://{address}"), 200), (format!("http://{address}"), 403)] {
        let headers = [("origin", origin.as_str())];
        assert_eq!(line.ask("GET", "/openapi.json", &headers, "").await.whole().await.status, status, "{origin}");
    }
    scene.end().await;
}

#[tokio::test]
async fn f71_a_new_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let (folder, key) = (Folder::new(), random_key());
    let (old, new) = (Authority::new(), Authority::new());
    let write = |authority: &Authority, year| {
        let (certificate, key) = authority.certificate("localhost", year);
        folder.write("key.pem", &key);
        folder.write("cert.pem", &certificate)
    };
    let certificate = write(&old, 2100);
    let private = folder.path("key.pem");
    let options = Options { key: Some(key.clone()), ..Options::default() };
    let environment = [
        ("REELGATE_SERVER__TLS__CERTIFICATE", certificate.to_str().unwrap()),
        ("REELGATE_SERVER__TLS__KEY", private.to_str().unwrap()),
    ];
    let served = Served::start(&key, options, &[], &environment).await;
    let expiry = "tls_certificate_expiry_seconds{listener=\"public\"}";
    let far = served.metric(expiry).await;
    assert!(far > 70.0 * 365.0 * 86_400.0, "{far}");
    let mut open = http1(served.address, &old).await;
    assert_eq!(open.ask("GET", "/openapi.json", &[], "").await.whole().await.status, 200);

    write(&new, 2060);
    served.program.says("\"changed\":\"server.tls.certificate (its file)\"").await;
    eventually("the new certificate is shown", async || connect(served.address, &new, &[]).await.is_ok()).await;
    assert!(connect(served.address, &old, &[]).await.is_err(), "the old one is shown to nobody");
    assert_eq!(open.ask("GET", "/openapi.json", &[], "").await.whole().await.status, 200, "what is open goes on");
    assert!(served.metric(expiry).await < far - 30.0 * 365.0 * 86_400.0);

    // A key that does not fit changes nothing and is told without a word of it.
    let (_, stranger) = new.certificate("localhost", 2090);
    folder.write("key.pem", &stranger);
    served.program.says("is not that of the first certificate").await;
    eventually("it is counted", async || served.metric("config_reloads_total{result=\"error\"}").await >= 1.0).await;
    assert!(connect(served.address, &new, &[]).await.is_ok());
    let output = served.program.output();
    assert!(stranger.lines().filter(|line| line.len() > 20).all(|line| !output.contains(line)), "the key was logged");

    // An expired one is served, because no TLS at all would be worse, and is told.
    write(&new, 2020);
    served.program.says("has expired").await;
    assert!(served.metric(expiry).await < 0.0);
    served.end().await;
}

#[tokio::test]
async fn t09_a_private_key_that_others_can_read_is_warned_about_once_by_each_who_reads_it() {
    let (folder, authority, key) = (Folder::new(), Authority::new(), random_key());
    let (certificate, private) = authority.certificate("localhost", 2100);
    let (certificate, file) = (folder.write("cert.pem", &certificate), folder.write("key.pem", &private));
    let environment = [
        ("REELGATE_SERVER__TLS__CERTIFICATE", certificate.to_str().unwrap()),
        ("REELGATE_SERVER__TLS__KEY", file.to_str().unwrap()),
        ("COMETAPI_KEY", key.as_str()),
    ];
    let (doubt, config) = (format!("server.tls.key: {} can be read by others", file.display()), folder.write("c", ""));
    let check = ["check", "--config", config.to_str().unwrap()];
    let (status, said) = Program::run(&check, &environment).await;
    assert!(status == 0 && !said.contains(&doubt), "{said}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (status, said) = Program::run(&check, &environment).await;
    assert!(status == 0 && said.matches(&format!("warning: {doubt}")).count() == 1, "{said}");
    let options = Options { key: Some(key.clone()), ..Options::default() };
    let served = Served::start(&key, options, &[], &environment).await;
    assert_eq!(served.program.output().matches(&doubt).count(), 1, "{}", served.program.output());
    served.program.signal(Signal::HUP);
    served.program.says("the configuration was reloaded").await;
    assert_eq!(served.end().await.matches(&doubt).count(), 2);
}

#[tokio::test]
async fn f71_f46_what_is_no_certificate_and_key_refuses_to_start() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (certificate, key) = authority.certificate("localhost", 2100);
    let (_, other) = authority.certificate("localhost", 2100);
    let (good, its) = (folder.write("cert.pem", &certificate), folder.write("key.pem", &key));
    let (other, text) = (folder.write("other.pem", &other), folder.write("text.pem", "no PEM"));
    let absent = folder.path("absent.pem");
    for (certificate, key, told) in [
        (&good, &other, "the key in"),
        (&text, &its, "text.pem cannot be read as a chain of PEM certificates"),
        (&absent, &its, "absent.pem cannot be read: No such file or directory"),
        (&its, &its, "server.tls.certificate"),
        (&good, &good, "cert.pem cannot be read as a PEM private key"),
        (&good, &absent, "absent.pem cannot be read: No such file or directory"),
    ] {
        let environment = [
            ("REELGATE_SERVER__TLS__CERTIFICATE", certificate.to_str().unwrap()),
            ("REELGATE_SERVER__TLS__KEY", key.to_str().unwrap()),
            ("COMETAPI_KEY", "k"),
        ];
        for command in ["serve", "check"] {
            let config = folder.write("reelgate.toml", "");
            let (status, output) = Program::run(&[command, "--config", config.to_str().unwrap()], &environment).await;
            assert!(status == 2 && output.contains(told), "{command}: {status} {output}");
        }
    }
    let alone = [("REELGATE_SERVER__TLS__CERTIFICATE", good.to_str().unwrap()), ("COMETAPI_KEY", "k")];
    let (status, output) = Program::run(&["serve"], &alone).await;
    assert!(status == 2 && output.contains("needs a certificate and its key, or neither"), "{output}");
}
