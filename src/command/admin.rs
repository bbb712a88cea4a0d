//! How the commands ask a running gateway: its admin listener, by plain HTTP, which stays on the machine or behind
//! something that adds TLS.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use hyper::Uri;
use secrecy::zeroize::Zeroizing;
use serde_json::Value;

use super::{Failure, failed, faulty};

/// Which gateway is asked.
#[derive(Args, Clone, Debug)]
pub(super) struct AdminArguments {
    /// The admin listener of a running gateway, HOST:PORT or http://HOST:PORT; its key, if it wants one, comes from
    /// REELGATE_ADMIN_KEY
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    admin: String,
}

/// A running gateway's admin listener.
pub(super) struct AdminClient {
    authority: String,
    key: Option<Zeroizing<String>>,
}

impl AdminClient {
    /// The one that the arguments name.
    pub(super) fn new(arguments: &AdminArguments) -> Result<Self, Failure> {
        let authority = authority(&arguments.admin)?;
        let key = std::env::var(KEY).ok().map(Zeroizing::new).filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(faulty(&format!("{KEY}: a key is of visible ASCII characters")));
        }
        Ok(Self { authority, key })
    }

    /// What a page says.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask("GET", path)
    }

    /// Deletes something.
    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask("DELETE", path)
    }

    fn ask(&self, method: &str, path: &str) -> Result<Value, Failure> {
        let unreached = |error: std::io::Error| failed(&format!("{}: {error}", self.authority));
        let answer = self.exchange(method, path).map_err(unreached)?;
        let strange = || failed(&format!("{}: this is no admin listener of ours", self.authority));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        let body: Value = serde_json::from_str(body).map_err(|_| strange())?;
        if status == "200" {
            return Ok(body);
        }
        let told = |name| body.pointer(name).and_then(Value::as_str);
        // The listener speaks of requests, and here these are a variable and a switch.
        let message = match (status, told("/error/code")) {
            ("401", _) if self.key.is_none() => NO_KEY,
            ("401", _) => WRONG_KEY,
            ("409", Some("in_flight")) => IN_FLIGHT,
            _ => told("/error/message").unwrap_or("no reason was given"),
        };
        Err(failed(&format!("{}: {status}: {}", self.authority, printable(message))))
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<String> {
        let mut stream = connect(&self.authority, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = Zeroizing::new(format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.authority));
        if let Some(key) = &self.key {
            head.push_str("Authorization: Bearer ");
            head.push_str(key);
            head.push_str("\r\n");
        }
        head.push_str("Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        String::from_utf8(answer).map_err(|_| std::io::Error::other("the answer is no text"))
    }
}

/// Host and port of an admin listener, as people have them at hand: alone, or in a URL.
pub(super) fn authority(text: &str) -> Result<String, Failure> {
    let wrong = || faulty(&"--admin: expected HOST:PORT or http://HOST:PORT");
    let has_scheme = text.contains("://");
    let url = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let is_origin = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|authority| is_origin && !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(wrong)?;
    let port = authority.port_u16().or(has_scheme.then_some(80)).ok_or_else(wrong)?;
    Ok(format!("{}:{port}", authority.host()))
}

/// Connects to the first of its addresses that takes it.
pub(super) fn connect(authority: &str, patience: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("this name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a terminal does not act on.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A value of a query string.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Where the operators' key comes from.
const KEY: &str = "REELGATE_ADMIN_KEY";
const NO_KEY: &str = "set REELGATE_ADMIN_KEY to the key that admin.key_env of its configuration names";
const WRONG_KEY: &str = "what REELGATE_ADMIN_KEY holds is not the key that admin.key_env of its configuration names";
const IN_FLIGHT: &str =
    "an attempt is on its way there: wait for its outcome, or say --force and risk that the prompt is bought twice";
/// A page may have to walk through many jobs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const LONGEST: u64 = 64 << 20;
