//! TLS over real sockets: what the TLS layer holds back in either direction makes no deadline longer and loses nothing.

use rcgen::{CertificateParams, KeyPair};
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connections::assert_until;
use super::*;
use crate::server::settings::Tls;
use crate::server::tally::Closed;
use crate::server::tls::{Certificates, Identity};

/// A server that speaks TLS and whose sockets take few bytes, and a client's side that trusts it.
fn start(settings: Settings) -> (Running, TlsConnector) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let port = listen::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    for socket in port.sockets() {
        set_socket_send_buffer_size(socket, FEW).unwrap();
    }
    let file = |name: &str, text: String| {
        let name = format!("reelgate-server-{}-{}-{name}", std::process::id(), port.address().port());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = [file("certificate", certificate.pem()), file("key", key.serialize_pem())];
    let [shown, private] = files.clone().map(Some);
    let identity = Identity::read(&Tls { certificate: shown, key: private, ..Tls::default() }).unwrap().unwrap();
    for path in files {
        std::fs::remove_file(path).unwrap();
    }

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let config = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    (Running::start_on(port, settings, Some(Certificates::new(identity))), connector)
}

/// A client that speaks HTTP/1.1 and whose socket takes few bytes.
async fn connect(server: &Running, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(u32::try_from(FEW).unwrap()).unwrap();
    let socket = socket.connect(server.servers.address()).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
}

async fn send(client: &mut TlsStream<TcpStream>, request: &str) {
    client.write_all(request.as_bytes()).await.unwrap();
}

/// An answer of `LARGE` bytes, which the TLS layer takes from hyper at once and the socket does not take from there.
fn large(connection: &str) -> String {
    format!("GET /large HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n")
}

#[tokio::test]
async fn lim15_over_tls_a_client_that_pauses_gets_every_byte() {
    let settings = Settings { write_timeout: BOUND, header_timeout: Duration::from_millis(300), ..settings() };
    let (server, connector) = start(settings);
    for connection in ["keep-alive", "close"] {
        let mut client = connect(&server, &connector).await;
        send(&mut client, &large(connection)).await;
        // Longer than it takes to find a connection idle and to close an idle one.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut answer = Vec::new();
        // An idle connection ends without a word of TLS's.
        let _ = timeout(BOUND, client.read_to_end(&mut answer)).await.expect("the connection stays open");
        let body = answer.iter().rev().take_while(|byte| **byte == b'x').count();
        assert_eq!(body, LARGE, "{connection}");
    }
    assert_eq!(server.tally.closed(Closed::Write), 0);
}

#[tokio::test]
async fn lim15_t63_f25_over_tls_a_client_that_does_not_read_is_closed_for_that() {
    let settings = Settings { header_timeout: Duration::from_secs(1), ..settings() };
    let (server, connector) = start(settings);
    for (number, connection) in (1..).zip(["keep-alive", "close"]) {
        let mut client = connect(&server, &connector).await;
        send(&mut client, &large(connection)).await;
        assert_until(|| server.tally.closed(Closed::Write) == number && server.tally.open() == 0).await;
    }
    assert_eq!(server.tally.closed(Closed::Header), 0);
}

#[tokio::test]
async fn lim2_t63_over_tls_a_record_that_drips_in_makes_no_deadline_longer() {
    let (server, connector) = start(settings());
    for (number, is_first) in (1..).zip([true, false]) {
        let mut client = connect(&server, &connector).await;
        if !is_first {
            send(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut answer = Vec::new();
            while !is_complete(&answer) {
                answer.push(timeout(BOUND, client.read_u8()).await.unwrap().unwrap());
            }
        }
        let (mut socket, _) = client.into_inner();
        // A record of application data (RFC 8446 §5.1) whose 16 KiB never come together.
        socket.write_all(b"\x17\x03\x03\x40\x00").await.unwrap();
        let drip = async {
            while server.tally.closed(Closed::Header) < number {
                // It fails once the server has closed.
                let _ = socket.write_all(b"\0").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(BOUND, drip).await.expect("the connection stays open");
    }
    assert_until(|| server.tally.open() == 0).await;
}

/// What the sockets of both sides buffer, in bytes, as far as the kernel goes so low.
const FEW: usize = 4096;
