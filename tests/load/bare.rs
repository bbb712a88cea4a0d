//! The floor of the stack: hyper on both sides with as little in between as a pass-through can have. One runtime for
//! each worker, a stack of upstream connections for each, no vectored writes. What the gateway costs beyond this is
//! its own doing, whatever the machine.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as Socket};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use clap::Args;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1 as client;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::{LocalSet, spawn_local};

use super::upstream::KEY;

/// `load bare`.
#[derive(Args)]
pub struct Bare {
    /// The API behind.
    #[arg(long)]
    upstream: SocketAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

type Sender = client::SendRequest<Incoming>;

/// One worker's way upstream.
struct Way {
    upstream: SocketAddr,
    host: HeaderValue,
    authorization: HeaderValue,
    idle: RefCell<Vec<Sender>>,
}

impl Bare {
    /// Serves until the process is ended, after telling where.
    pub fn run(&self) -> io::Result<()> {
        let first = socket("127.0.0.1:0".parse().map_err(io::Error::other)?)?;
        let address = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..self.workers {
            sockets.push(socket(address)?);
        }
        let threads = sockets.into_iter().map(|socket| {
            let upstream = self.upstream;
            std::thread::spawn(move || serve(socket, upstream))
        });
        let threads: Vec<_> = threads.collect();
        println!("serving {address}");
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a worker panicked"))?)
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket.into())
}

fn serve(socket: Socket, upstream: SocketAddr) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let header = |text: String| HeaderValue::try_from(text).map_err(io::Error::other);
    let way = Rc::new(Way {
        upstream,
        host: header(upstream.to_string())?,
        authorization: header(format!("Bearer {KEY}"))?,
        idle: RefCell::default(),
    });
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            _ = stream.set_nodelay(true);
            spawn_local(connection(stream, Rc::clone(&way)));
        }
    })
}

async fn connection(stream: TcpStream, way: Rc<Way>) {
    let service = service_fn(move |request| {
        let way = Rc::clone(&way);
        async move {
            let answer = way.pass(request).await.unwrap_or_else(|_| {
                let mut answer = Response::new(Passed { body: None, home: None });
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            });
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = server::Builder::new();
    builder.writev(false);
    // A client that leaves is no fault.
    _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

impl Way {
    async fn pass(self: Rc<Self>, mut request: Request<Incoming>) -> Result<Response<Passed>, hyper::Error> {
        let headers = request.headers_mut();
        headers.remove(CONNECTION);
        headers.insert(HOST, self.host.clone());
        headers.insert(AUTHORIZATION, self.authorization.clone());
        let mut sender = self.sender().await?;
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| Passed { body: Some(body), home: Some((sender, self)) }.settled()))
    }

    async fn sender(&self) -> Result<Sender, hyper::Error> {
        loop {
            let Some(mut sender) = self.idle.borrow_mut().pop() else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.upstream).await.unwrap();
        _ = stream.set_nodelay(true);
        let (sender, connection) = client::Builder::new().writev(false).handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(sender)
    }
}

/// An answer's body, which gives its connection back at its end.
struct Passed {
    body: Option<Incoming>,
    home: Option<(Sender, Rc<Way>)>,
}

impl Passed {
    fn settled(mut self) -> Self {
        if self.is_end_stream() {
            self.settle();
        }
        self
    }

    fn settle(&mut self) {
        if let Some((sender, way)) = self.home.take()
            && !sender.is_closed()
        {
            way.idle.borrow_mut().push(sender);
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.is_end_stream() {
            self.settle();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
