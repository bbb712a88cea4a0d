//! `reelgate demo`: the main job on one machine, with nothing else needed: the gateway in front of the simulated
//! upstream, whose videos are real.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

use super::{Ends, Failure, failed, faulty, print, runtime, telemetry, until_ended};
use crate::config::{self, Config};
use crate::run::Running;
use crate::simulator::{Options, Simulator};
use crate::upstream::key::UpstreamKey;

/// Gateway and simulated upstream together.
#[derive(Args, Debug)]
pub(super) struct DemoArguments {
    /// The public address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The admin address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// The origin of a page that may call, such as http://localhost:3000; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// How many seconds a job takes
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    job_seconds: u64,
}

pub(super) fn run(arguments: DemoArguments) -> Result<(), Failure> {
    if !arguments.listen.ip().is_loopback() {
        return Err(faulty(
            &"reelgate demo: it spends nothing, but it is open to all: --listen takes a loopback address",
        ));
    }
    if !arguments.allow_origin.iter().all(|origin| config::is_origin(origin)) {
        return Err(faulty(&"reelgate demo: --allow-origin takes an exact origin such as http://localhost:3000"));
    }
    let mut config = Config::default();
    config.server.cors.allowed_origins = arguments.allow_origin;
    config.server.listen = arguments.listen;
    config.admin.listen = arguments.admin;
    config.ledger.path = std::env::temp_dir().join(format!("reelgate-demo-{}", std::process::id()));
    let ledger = config.ledger.path.clone();
    let telemetry = telemetry(&config)?;
    let runtime = runtime()?;
    let ends = Ends::listen(&runtime)?;
    runtime.block_on(async {
        // A key of its own: COMETAPI_KEY is not read, so nothing real can be spent or told.
        let mut secret = [0; 20];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| failed(&"the system gives no randomness"))?;
        let secret = hex::encode(secret);
        let key = UpstreamKey::parse(&secret).map_err(|flaw| failed(&flaw))?;
        let simulator = Simulator::start(Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: Some(secret),
            job_duration: Duration::from_secs(arguments.job_seconds),
            ..Options::default()
        });
        let simulator = simulator.await.map_err(|error| failed(&error))?;
        config.upstream.url = simulator.origin();
        let running = Running::start(config, key, telemetry, None).await.map_err(|error| failed(&error))?;
        print(&instructions(&running, &simulator));
        until_ended(running, ends).await;
        simulator.stop().await;
        // Only the demo's own; what cannot be removed is left to the system's broom.
        _ = std::fs::remove_dir_all(ledger);
        Ok(())
    })
}

fn instructions(running: &Running, simulator: &Simulator) -> String {
    let (gateway, admin) = (running.address(), running.admin_address());
    let upstream = simulator.origin();
    format!(
        r#"
Reelgate is running in front of a simulated upstream. Nothing here costs anything.

  base URL for clients   http://{gateway}/grok/v1
  metrics and health     http://{admin}/metrics  http://{admin}/readyz
  what upstream has seen {upstream}/simulator/

Submit a prompt (twice: the second time is a hit, and buys nothing):

  curl -i http://{gateway}/grok/v1/videos/generations \
    -H 'Content-Type: application/json' \
    -d '{{"prompt": "A candle flickers on a wooden table."}}'

Poll it until its status is "done", then open the video's url:

  curl http://{gateway}/grok/v1/videos/REQUEST_ID

Ctrl-C ends it.
"#
    )
}
