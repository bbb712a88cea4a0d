//! A redis-server of this run's own, which can fail too.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// A running redis-server that writes everything before it answers.
pub struct Redis {
    folder: PathBuf,
    port: u16,
    child: Child,
}

impl Redis {
    pub async fn start(folder: &Path) -> Result<Self, String> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = port.map_err(|error| error.to_string())?.port();
        let redis = Self { folder: folder.to_owned(), port, child: serve(folder, port)? };
        redis.ready().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it and starts it again on what it had written.
    pub async fn kill(&mut self, down: Duration) -> Result<(), String> {
        _ = self.child.kill();
        _ = self.child.wait();
        sleep(down).await;
        self.child = serve(&self.folder, self.port)?;
        self.ready().await
    }

    /// Stands still for so long.
    pub async fn freeze(&self, time: Duration) {
        _ = kill_process(Pid::from_child(&self.child), Signal::STOP);
        sleep(time).await;
        _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
    }

    /// Forgets everything.
    pub async fn flush(&self) -> Result<(), String> {
        self.ask("FLUSHALL", "+OK").await.then_some(()).ok_or_else(|| "FLUSHALL did not work".to_owned())
    }

    async fn ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ask("PING", "+PONG").await {
            if Instant::now() > deadline {
                return Err("redis-server does not serve".to_owned());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn ask(&self, command: &str, want: &str) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await else { return false };
        let mut answer = vec![0; want.len()];
        stream.write_all(format!("{command}\r\n").as_bytes()).await.is_ok()
            && stream.read_exact(&mut answer).await.is_ok()
            && answer == want.as_bytes()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn serve(folder: &Path, port: u16) -> Result<Child, String> {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", "noeviction"]);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]).arg("--dir").arg(folder);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map_err(|error| format!("redis-server cannot be started: {error}"))
}
