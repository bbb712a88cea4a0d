//! A real browser, with a page in it that does what a test orders and tells what a page may see of it. Chromium is
//! started as a person's would be: it opens an address, and all that is known of it comes from that page.

use std::convert::Infallible;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};

use super::Folder;

/// How long the browser may take to start, or for anything that it is ordered to do.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the page asks of its own site.
const PAGE: &str = include_str!("page.html");

/// A name that leads to a site of a stranger's, and then to wherever that stranger wants.
pub const REBOUND: &str = "rebound.example";

/// A browser with one page open.
pub struct Browser {
    process: Child,
    folder: Folder,
    site: SocketAddr,
    orders: mpsc::Sender<Value>,
    told: mpsc::Receiver<Value>,
    turncoat: Turncoat,
}

impl Browser {
    /// Starts it with a page of `http://NAME:PORT` open, where the name is a subdomain of localhost, and the port that
    /// of [`Browser::port`].
    pub async fn start() -> Self {
        let (orders, asked) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(1);
        let site = serve(asked, tell).await;
        let turncoat = Turncoat::start(site).await;
        let folder = Folder::new();
        let log = File::create(folder.path("log")).unwrap();
        let process = Command::new("chromium")
            .args(["--headless", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // Its own sandbox needs more than a container's root may do, and the tests' authorities are nobody's; only our
            // pages are opened.
            .args(["--no-sandbox", "--ignore-certificate-errors"])
            .arg(format!("--user-data-dir={}", folder.path("profile").display()))
            .arg(format!("--host-resolver-rules=MAP {REBOUND} 127.0.0.1, MAP *.localhost 127.0.0.1"))
            .arg(format!("http://127.0.0.1:{}/", site.port()))
            .env("HOME", folder.as_ref())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "chromium: {error}: install Debian's package chromium, or leave these tests out: --skip chromium"
                )
            });
        Self { process, folder, site, orders, told, turncoat }
    }

    /// The port of the site that its pages are of.
    pub fn port(&self) -> u16 {
        self.site.port()
    }

    /// Leaves the page for one of another origin.
    pub async fn go(&mut self, name: &str) {
        let port = if name == REBOUND { self.turncoat.address.port() } else { self.port() };
        self.order(json!({"go": format!("http://{name}:{port}/")})).await;
    }

    /// From now on [`REBOUND`] leads elsewhere.
    pub fn rebind(&self, address: SocketAddr) {
        self.turncoat.leads_to.send_replace(address);
    }

    /// Lets the page call `fetch` with these options: what it got, or `error`.
    pub async fn fetch(&mut self, url: &str, mut options: Value) -> Value {
        options["url"] = json!(url);
        self.order(json!({"fetch": options})).await
    }

    /// Opens a frame inside the page, with a sandbox of its own.
    pub async fn frame(&mut self, page: &str, sandbox: &str) {
        self.order(json!({"frame": {"page": page, "sandbox": sandbox}})).await;
    }

    async fn order(&mut self, order: Value) -> Value {
        let whole = async {
            self.orders.send(order.clone()).await.unwrap();
            self.told.recv().await.unwrap()
        };
        let Ok(told) = tokio::time::timeout(PATIENCE, whole).await else {
            let log = std::fs::read_to_string(self.folder.path("log")).unwrap_or_default();
            panic!("the browser did not do {order} in {PATIENCE:?}. It says: {log}");
        };
        told
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With all of its processes, before the folder goes.
        _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        _ = self.process.wait();
    }
}

/// Serves the page under every name, and its orders.
async fn serve(orders: mpsc::Receiver<Value>, told: mpsc::Sender<Value>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (orders, told) = (Arc::new(Mutex::new(orders)), told);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (orders, told) = (orders.clone(), told.clone());
            let service = service_fn(move |request| answer(request, address, orders.clone(), told.clone()));
            tokio::spawn(http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn answer(
    request: Request<Incoming>,
    site: SocketAddr,
    orders: Arc<Mutex<mpsc::Receiver<Value>>>,
    told: mpsc::Sender<Value>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let text = match (request.method(), path.as_str()) {
        (&Method::GET, "/order") => orders.lock().await.recv().await.unwrap_or_default().to_string(),
        (&Method::POST, "/told") => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            _ = told.send(serde_json::from_slice(&body).unwrap()).await;
            String::new()
        }
        (&Method::GET, "/") => PAGE.replace("{{control}}", &format!("http://{site}")),
        _ => String::new(),
    };
    let kind = if path == "/" { "text/html" } else { "text/plain" };
    let answer = Response::builder().header("content-type", kind).header("access-control-allow-origin", "*");
    Ok(answer.body(text.into()).unwrap())
}

/// An address that leads to one place, and later to another: what a name is whose DNS answers change.
struct Turncoat {
    address: SocketAddr,
    leads_to: watch::Sender<SocketAddr>,
}

impl Turncoat {
    async fn start(first: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leads_to, target) = watch::channel(first);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    // A browser may connect long before it asks.
                    if !matches!(client.peek(&mut [0]).await, Ok(1)) {
                        return;
                    }
                    let target = *target.borrow();
                    let mut server = TcpStream::connect(target).await.unwrap();
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, leads_to }
    }
}
