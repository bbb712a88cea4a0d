//! The key travels over verified TLS (T-08), and its session keys are written nowhere (T-11).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use reelgate::simulator::{Fault, Options};
use reelgate::upstream::settings::Roots;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::process::Served;
use crate::support::{Authority, Folder, Scene, TlsFront, eventually, random_key};

/// A scene whose upstream is reached through TLS only, by somebody who trusts the authority in `roots`.
async fn behind(acceptor: TlsAcceptor, roots: Roots) -> (Scene, TlsFront) {
    // The simulated upstream is there before the gateway, but its address is told by the scene.
    let upstream = Arc::new(Mutex::new(None::<SocketAddr>));
    let told = upstream.clone();
    let front = TlsFront::start(acceptor, move || told.lock().unwrap().expect("it is asked too early")).await;
    let scene = Scene::with(|config, _| {
        config.upstream.url = front.origin();
        config.upstream.roots = roots;
    })
    .await;
    *upstream.lock().unwrap() = Some(scene.upstream.address());
    (scene, front)
}

#[tokio::test]
async fn t08_an_upstream_by_the_file_of_trusted_authorities_is_submitted_to_and_polled() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let roots = Roots::File(folder.write("roots.pem", &authority.pem()));
    let (scene, front) = behind(authority.acceptor("localhost", 2100), roots).await;
    let id = scene.submit("a").await.request_id();
    assert!(scene.submit("a").await.cache_status().starts_with("reelgate; hit"));
    scene.poll_until(&id, "\"done\"").await;
    for fault in [Fault::Chunked { bytes: 5 }, Fault::UntilClose] {
        scene.upstream.next_poll(fault);
        assert_eq!(scene.poll(&id).await.json()["status"], "done");
    }
    assert!(front.carried() >= 2 && front.refused() == 0);
    let host = front.origin().replace("https://", "\r\nhost: ");
    for received in scene.upstream.received() {
        assert!(String::from_utf8_lossy(&received.head).contains(&host), "the origin's own name");
    }
    scene.end().await;
}

#[tokio::test]
async fn t08_a_certificate_that_does_not_hold_gets_no_byte_of_http() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let ours = || Roots::File(folder.write("roots.pem", &authority.pem()));
    for (what, acceptor, roots) in [
        ("signed by itself", Authority::new().acceptor("localhost", 2100), Roots::Bundled),
        ("signed by a stranger", Authority::new().acceptor("localhost", 2100), ours()),
        ("expired", authority.acceptor("localhost", 2020), ours()),
        ("for another name", authority.acceptor("elsewhere.example", 2100), ours()),
    ] {
        let (scene, front) = behind(acceptor, roots).await;
        for answer in [scene.submit("a").await, scene.submit("a").await, scene.poll("x").await] {
            assert_eq!(answer.refusal(), (502, "upstream_unreachable".to_owned()), "{what}");
            assert_eq!(answer.header("proxy-status"), "reelgate; error=tls_certificate_error", "{what}");
            // Only an operator can change it.
            assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("", "false"), "{what}");
            let told = answer.json()["error"]["message"].to_string();
            assert!(told.contains("certificate is not trusted") && !told.contains("try again"), "{what}: {told}");
        }
        eventually("each handshake has ended", async || front.refused() == 3).await;
        assert_eq!((front.carried(), scene.upstream.counts().connections), (0, 0), "{what}");
        assert_eq!(scene.metric("submissions_total{outcome=\"not_sent\"}").await, 2.0, "{what}");
        eventually("each has its line", async || scene.log.requests().len() == 3).await;
        for line in scene.log.requests() {
            assert!(line["cause"].as_str().unwrap_or_default().contains("upstream.roots"), "{what}: {line}");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn t08_t11_the_environment_neither_redirects_nor_reveals() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let roots = folder.write("roots.pem", &authority.pem());
    let secrets = folder.path("session-keys");
    let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let upstream = Arc::new(Mutex::new(None::<SocketAddr>));
    let told = upstream.clone();
    let acceptor = authority.acceptor("localhost", 2100);
    let front = TlsFront::start(acceptor, move || told.lock().unwrap().expect("it is asked too early")).await;
    let (key, origin) = (random_key(), front.origin());
    let mut environment = vec![
        ("REELGATE_UPSTREAM__URL", origin.as_str()),
        ("REELGATE_UPSTREAM__ROOTS", roots.to_str().unwrap()),
        ("SSLKEYLOGFILE", secrets.to_str().unwrap()),
    ];
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        environment.push((name, proxy_url.as_str()));
    }
    let options = Options { key: Some(key.clone()), ..Options::default() };
    let served = Served::start(&key, options, &[], &environment).await;
    *upstream.lock().unwrap() = Some(served.upstream.address());
    let id = served.submit("a").await.request_id();
    assert_eq!(served.poll(&id).await.status, 200);
    assert!(front.carried() >= 2);
    assert!(!secrets.exists(), "T-11");
    let nobody = std::future::poll_fn(|context| std::task::Poll::Ready(proxy.poll_accept(context).is_pending()));
    assert!(nobody.await, "T-08: it went by a proxy of the environment");
    served.end().await;
}
