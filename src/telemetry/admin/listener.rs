//! The sockets of the admin listener: few, short-lived, and never in the way of the end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Admin, handle};

/// Serves the admin listener until `shutdown`; then waits a moment for the answers in flight.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let (ending, ended) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                // Past the bound a connection is closed: a probe that is told no asks again.
                Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(connection(stream, Arc::clone(&admin), ended.clone()));
                }
                Ok(_) => {}
                // Out of file descriptors, say: accepting again at once would only spin.
                Err(error) => {
                    tracing::warn!(error = %error, "the admin listener cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop((listener, ending));
    let _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one connection. It ends when the listener does, when it is old, or when its client breaks it.
async fn connection(stream: TcpStream, admin: Arc<Admin>, mut ended: watch::Receiver<()>) {
    let service = service_fn(|request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(handle(&admin, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = ended.changed() => {}
        () = sleep(MAX_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWERS, connection).await;
}

/// Open connections: a few scrapers and probes.
const MAX_CONNECTIONS: usize = 64;
/// For a request's header, and for a connection without a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
const MAX_HEADER_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The oldest a connection gets; it also bounds how long one that does not read holds its place.
const MAX_AGE: Duration = Duration::from_secs(300);
/// For the answers in flight when a connection is to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Between two attempts to accept, after one that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
