//! `reelgate key new`: a gateway key for a team. It is shown once and stored nowhere; the configuration holds its SHA-256.

use clap::Subcommand;
use secrecy::ExposeSecret;

use super::{Failure, failed, faulty, print};
use crate::access::format::{self, Digest};
use crate::access::settings::is_name;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyAction {
    /// Makes a key, shows it once, and prints the line for the configuration
    New {
        /// The team's name
        #[arg(long, value_name = "NAME")]
        team: String,
        /// How logs name the key; made up if it is not given
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
}

pub(super) fn run(action: &KeyAction) -> Result<(), Failure> {
    let KeyAction::New { team, id } = action;
    let key = format::new_key().map_err(|error| failed(&error))?;
    let digest = Digest::of(key.expose_secret());
    // Tells keys apart, and nothing of the key: two keys made for one team rarely have the same.
    let made_up = || digest.to_string().chars().take(6).collect();
    let id: String = id.clone().unwrap_or_else(made_up);
    for (option, name) in [("--team", team), ("--id", &id)] {
        if !is_name(name) {
            return Err(faulty(&format!("reelgate key new: {option}: expected 1 to 64 letters, digits, ., _ and -")));
        }
    }
    print(&format!(
        r#"The key, shown only now; give it to the team, as Authorization: Bearer:

  {key}

For the configuration, with [access] mode = "keys"; a team's other keys stand beside it in the same list:

  [[teams]]
  name = "{team}"
  keys = [{{ id = "{id}", sha256 = "{digest}" }}]"#,
        key = key.expose_secret()
    ));
    Ok(())
}
