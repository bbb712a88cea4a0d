//! nginx, configured to do as much of the same work as it can.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::certificate;
use super::upstream::KEY;

/// What it is configured to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nginx {
    /// Passes on, over upstream connections that are kept; streams bodies.
    Pass,
    /// The same, with an upstream connection for each request.
    Fresh,
    /// Answers submissions from its cache, by path and body; it sends from files, as Debian configures it.
    Cache,
    /// The same, but reads the files and writes what it has read, which costs less for answers as small as these.
    CacheRead,
}

impl Nginx {
    /// Writes its configuration and completes its command line: where it will serve.
    pub fn prepare(
        self,
        command: &mut Command,
        folder: &Path,
        upstream: SocketAddr,
        workers: usize,
        tls: Option<&Path>,
    ) -> io::Result<SocketAddr> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let run = folder.display();
        let (scheme, mut listen, mut more) = match tls {
            None => ("http", format!("listen {address} backlog=4096;"), String::new()),
            Some(keys) => {
                let (chain, key) = (keys.join(certificate::CERTIFICATE), keys.join(certificate::KEY));
                let (chain, key) = (chain.display(), key.display());
                (
                    "https",
                    format!(
                        "listen {address} ssl backlog=4096; ssl_certificate {chain}; ssl_certificate_key {key};
    ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {CIPHER};"
                    ),
                    format!(
                        "proxy_ssl_trusted_certificate {chain}; proxy_ssl_verify on; proxy_ssl_name localhost;
      proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites {CIPHER};"
                    ),
                )
            }
        };
        listen += " server_name localhost;";
        let sendfile = if self == Self::CacheRead { "off" } else { "on" };
        let mut pool = "keepalive 1024; keepalive_requests 100000000; keepalive_timeout 600s;";
        match self {
            Self::Pass => more += "proxy_request_buffering off; client_body_buffer_size 256k;",
            Self::Fresh => pool = "",
            Self::Cache | Self::CacheRead => {
                more += "client_body_buffer_size 1m; proxy_cache c; proxy_cache_methods POST; proxy_cache_lock on;
      proxy_cache_key \"$request_uri|$request_body\"; proxy_cache_valid 200 60m;
      proxy_ignore_headers Vary Cache-Control Expires Set-Cookie;";
            }
        }
        let text = format!(
            "user root; worker_processes {workers}; daemon off; pid {run}/pid; error_log {run}/error.log error;
events {{ worker_connections 25000; }}
http {{
  access_log {run}/access.log combined buffer=64k flush=1s; server_tokens off; sendfile {sendfile};
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;
  scgi_temp_path {run}/s; proxy_cache_path {run}/cache levels=1:2 keys_zone=c:50m inactive=60m use_temp_path=off;
  open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s;
  upstream up {{ server {upstream}; {pool} }}
  server {{
    {listen}
    keepalive_requests 100000000; keepalive_timeout 600s; client_header_timeout 600s; client_max_body_size 64m;
    location / {{
      proxy_pass {scheme}://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host localhost;
      proxy_set_header Authorization \"Bearer {KEY}\";
      {more}
    }}
  }}
}}
"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text)?;
        command.arg("nginx").arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
        // Debian has it where only root looks.
        let places = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{places}:/usr/sbin:/sbin"));
        Ok(address)
    }
}

/// Waits until something listens there.
pub fn listens(address: SocketAddr) -> io::Result<SocketAddr> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(address) {
            Ok(_) => return Ok(address),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What everybody's TLS uses.
pub const CIPHER: &str = "TLS_AES_256_GCM_SHA384";
