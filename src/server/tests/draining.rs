//! The phases of the end.

use tokio::time::Instant;

use super::*;
use crate::server::drain::Phase;
use crate::server::tally::Closed;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const WAIT: &str = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";

/// Deadlines that play no part.
fn patient() -> Settings {
    Settings { workers: 2, first_byte_timeout: BOUND, header_timeout: BOUND, ..settings() }
}

#[tokio::test]
async fn f40_f45_a_draining_server_serves_and_sends_its_clients_elsewhere() {
    let server = Running::start(patient());
    let mut kept = server.connect().await;
    assert!(!kept.ask(GET).await.contains("connection: close"));
    server.drain.begin();
    for mut client in [kept, server.connect().await] {
        client.send(GET).await;
        let answer = client.rest().await;
        assert!(answer.contains("200 OK") && answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn f40_a_closing_server_finishes_what_it_has_and_ends() {
    let mut server = Running::start(patient());
    let address = server.servers.address();
    let mut waiting = server.connect().await;
    waiting.send(WAIT).await;
    assert_eq!(server.event().await, Event::Began("/wait".to_owned()));
    let mut idle = server.connect().await;
    assert!(idle.ask(GET).await.contains("200 OK"));
    let mut silent = server.connect().await;

    let closing = tokio::spawn(server.servers.close(BOUND));
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
    assert!(!closing.is_finished());
    server.known.gate.add_permits(1);
    let answer = waiting.rest().await;
    assert!(answer.contains("connection: close") && answer.ends_with("waited"), "{answer}");
    drop((idle, silent, waiting));
    assert!(timeout(BOUND, closing).await.unwrap().unwrap());
    assert_eq!(server.tally.open(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn f40_what_is_open_at_the_deadline_is_cut_off() {
    let mut server = Running::start(patient());
    let mut waiting = server.connect().await;
    waiting.send(WAIT).await;
    assert_eq!(server.event().await, Event::Began("/wait".to_owned()));
    let start = Instant::now();
    assert!(server.servers.close(Duration::from_millis(200)).await);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(waiting.rest().await, "");
    assert_eq!(server.tally.closed(Closed::Drain), 1);
    assert_eq!(server.tally.open(), 0);
}

#[tokio::test]
async fn f40_a_second_signal_cuts_off_at_once() {
    let mut server = Running::start(patient());
    let mut waiting = server.connect().await;
    waiting.send(WAIT).await;
    assert_eq!(server.event().await, Event::Began("/wait".to_owned()));
    let closing = tokio::spawn(server.servers.close(BOUND * 10));
    server.drain.reached(Phase::Closing).await;
    server.drain.abort();
    assert!(timeout(BOUND, closing).await.unwrap().unwrap());
    assert_eq!(waiting.rest().await, "");
}

#[tokio::test]
async fn f40_an_idle_server_ends_at_once_though_its_clients_do_not() {
    let server = Running::start(patient());
    let (mut idle, silent) = (server.connect().await, server.connect().await);
    assert!(idle.ask(GET).await.contains("200 OK"));
    assert!(server.servers.close(BOUND).await, "nothing had to be cut off");
    drop((idle, silent));
}

#[tokio::test]
async fn a_client_that_connects_in_the_last_moment_is_served_or_refused_cleanly() {
    for _ in 0..20 {
        let server = Running::start(patient());
        let address = server.servers.address();
        let clients: Vec<_> = (0..10)
            .map(|_| {
                tokio::spawn(async move {
                    let Ok(socket) = TcpStream::connect(address).await else { return None };
                    let mut client = Client(socket);
                    client.send(GET).await;
                    Some(client.rest().await)
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(server.servers.close(BOUND).await);
        for client in clients {
            let answer = client.await.unwrap();
            assert!(answer.as_ref().is_none_or(|answer| answer.ends_with("hello")), "{answer:?}");
        }
    }
}
