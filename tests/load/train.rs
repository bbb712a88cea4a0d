//! What a build is optimised for: every kind of request that the comparison has, asked of a program that counts what it
//! does. `deploy/build` runs this between its two builds; nothing is measured.

use std::io;

use clap::Args;

use super::certificate;
use super::contestants::{Bench, Launch, Places, Program, Who};
use super::drive::Drive;
use super::process::Folder;
use super::requests::Kind;

/// `load train`.
#[derive(Args)]
pub struct Train {
    /// How long each kind of request is asked for.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub program: Program,
}

impl Train {
    /// Asks everything, over plain HTTP and over TLS on both sides, and ends the program as an operator does: what it
    /// counted is written at its end.
    pub fn run(&self) -> io::Result<()> {
        for tls in [false, true] {
            let folder = Folder::new()?;
            if tls {
                certificate::make(folder.path())?;
            }
            let bench = Bench::start(folder.path(), &self.program, tls, Places::default())?;
            let gateway = bench.launch(Who::Gateway, &Launch::default())?;
            for kind in [Kind::Polls, Kind::Hits, Kind::Varied, Kind::New, Kind::Big] {
                let connections = if kind == Kind::Big { 4 } else { 64 };
                let drive = Drive { connections, seconds: self.seconds, users: 64, ..Drive::new(kind) };
                let made = bench.drive(&gateway, Drive { seed: bench.fresh_numbers(), ..drive })?;
                println!("{}{kind:?}: {} requests", if tls { "TLS: " } else { "" }, made.requests);
            }
            gateway.end()?;
        }
        Ok(())
    }
}
