//! A configuration file: it is refused with its faults, or everything that is made of it can be made; and what it says
//! of itself says the same again.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use reelgate::config::Config;
use reelgate::gateway::rules::{Rules, bill, bounds};

pub const WORDS: &[&str] = &[
    "[server]\n",
    "[limits.user]\n",
    "[[teams]]\nname = \"t\"\n",
    "keys = [{ id = \"a\", sha256 = \"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\" }]\n",
    "generations = \"12/minute\"\n",
    "\"30s\"",
    "\"8 MiB\"",
    "\"off\"",
    "listen = \"127.0.0.1:0\"\n",
    "mode = \"keys\"\n",
    "expires = 2027-01-31",
    "allowed_origins = [\"https://a\"]\n",
    "budgets.team.day = \"5 USD\"\n",
    "unknown_hold = \"10m\"\n",
    "= 1e999\n",
    "\"\"\"",
];

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("reelgate-fuzz-{}.toml", std::process::id())));

pub fn run(input: &[u8]) {
    // What is read is what the program reads: a file.
    fs::write(&*FILE, input).unwrap();
    match Config::load(Some(&FILE), [], &|_, _| Ok(())) {
        Ok(config) => {
            _ = config.warnings();
            _ = (bill(&config), bounds(&config));
            // A schema file that is not there is the one thing that may still go wrong.
            _ = Rules::new(&config);
            said_again(&config);
        }
        Err(faults) => {
            let text = faults.to_string();
            assert!(!text.is_empty() && text.lines().count() <= 10_000);
        }
    }
    _ = fs::remove_file(&*FILE);
}

/// Says to the environment what the configuration says of itself, but for prices, which have names of their own, and
/// not where there are teams, which stand in files only.
fn said_again(config: &Config) {
    if !config.teams.is_empty() {
        return;
    }
    let values = config.values().into_iter().filter(|(key, _)| !key.starts_with("prices"));
    let name = |key: &str| format!("REELGATE_{}", key.to_ascii_uppercase().replace('.', "__"));
    let environment: Vec<_> = values.map(|(key, value)| (name(&key), value)).collect();
    let back = Config::load(None, environment.clone(), &|_, _| Ok(()));
    let back = back.unwrap_or_else(|faults| panic!("what it says of itself is refused: {faults}\n{environment:?}"));
    let prices = config.prices.clone();
    assert_eq!(Config { prices, ..back }, *config, "what it says of itself is something else");
}
