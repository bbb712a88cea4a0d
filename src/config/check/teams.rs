//! What `[[teams]]` must be as a whole: names and ids that tell one from another, and keys that nobody shares.

use std::collections::HashMap;

use super::Finding;
use crate::access::format::Digest;
use crate::access::settings::{Key, Mode, Team, is_name};
use crate::config::{Config, names};

/// Everything about teams that keeps this configuration from being used.
pub(super) fn faults(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.access.mode == Mode::Keys && config.teams.iter().all(|team| team.keys.is_empty()) {
        let message = "\"keys\" lets nobody in without a key: make one with `reelgate key new`";
        findings.push(Finding { keys: &["access.mode", "teams"], at: None, message: message.to_owned() });
    }
    let mut digests = HashMap::<Digest, String>::new();
    for (place, team) in config.teams.iter().enumerate() {
        let mut told = |name: String, message: &str| {
            findings.push(Finding {
                keys: &[],
                at: Some(format!("teams[{place}].{name}")),
                message: message.to_owned(),
            });
        };
        if !is_name(&team.name) {
            told("name".to_owned(), NOT_A_NAME);
        }
        if config.teams.iter().take(place).any(|other| other.name == team.name) {
            told("name".to_owned(), "another team has this name");
        }
        if !team.models.iter().all(|model| is_model(model)) {
            told("models".to_owned(), NOT_A_MODEL);
        }
        for (at, key) in team.keys.iter().enumerate() {
            self::key(team, at, key, &mut |name, message| told(format!("keys[{at}].{name}"), message));
            let here = format!("teams[{place}].keys[{at}]");
            if key.sha256 == Digest::default() {
                continue;
            }
            if let Some(other) = digests.insert(key.sha256, here) {
                told(format!("keys[{at}].sha256"), &format!("{other} is the same key: each has one team and one id"));
            }
        }
    }
    findings
}

fn key(team: &Team, at: usize, key: &Key, told: &mut dyn FnMut(&str, &str)) {
    if !is_name(&key.id) {
        told("id", NOT_A_NAME);
    }
    if team.keys.iter().take(at).any(|other| other.id == key.id) {
        told("id", "another key of this team has this id");
    }
    if key.sha256 == Digest::default() {
        told("sha256", "missing: the SHA-256 of the key, as `reelgate key new` prints it");
    }
    if !key.models.iter().all(|model| is_model(model)) {
        told("models", NOT_A_MODEL);
    }
    if key.models.iter().any(|model| !team.models.is_empty() && !team.models.contains(model)) {
        told("models", "more than the team's: a key can only have fewer");
    }
    if !key.origins.iter().all(|origin| names::is_origin(origin)) {
        told("origins", "expected exact origins as browsers send them, such as \"https://app.example\"");
    }
}

fn is_model(model: &str) -> bool {
    (1..=128).contains(&model.len()) && !model.chars().any(char::is_control)
}

const NOT_A_NAME: &str = "expected 1 to 64 letters, digits, ., _ and -";
const NOT_A_MODEL: &str = "expected names of models such as \"grok-imagine-video\"";

#[cfg(test)]
mod tests {
    use crate::config::tests::{read, refused};

    const ONE: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const OTHER: &str = "ca7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn team(more: &str) -> String {
        format!(
            "[access]\nmode = \"keys\"\n[[teams]]\nname = \"studio\"\nkeys = [{{ id = \"web\", sha256 = \"{ONE}\"{more} }}]\n"
        )
    }

    #[test]
    fn teams_and_their_keys_are_read() {
        let text = team(
            ", expires = 2027-01-31, models = [\"m\"], routes = [\"poll\"], origins = [\"https://a.example\"]",
        ) + "models = [\"m\", \"n\"]\nlimits.user.generations = \"off\"\n[teams.limits.team]\nrequests = \"5/day\"\n\
               [[teams]]\nname = \"lab\"\n[[teams.keys]]\nid = \"web\"\ndisabled = true\n"
            + &format!("sha256 = \"{OTHER}\"\nexpires = 2027-01-31T01:00:00+01:00\n");
        let config = read(&text).unwrap();
        assert_eq!(config.teams.len(), 2);
        let (studio, lab) = (&config.teams[0], &config.teams[1]);
        assert_eq!((studio.name.as_str(), studio.keys[0].id.as_str()), ("studio", "web"));
        assert_eq!(studio.keys[0].expires.map(|time| time.as_millis()), Some(1_801_353_600_000));
        assert_eq!(lab.keys[0].expires, studio.keys[0].expires);
        assert!(lab.keys[0].disabled && !studio.keys[0].disabled);
        let limits = studio.limits.over(&config.limits).unwrap();
        assert_eq!((limits.user.generations, limits.user.requests), (None, config.limits.user.requests));
        assert_eq!(limits.team.requests.map(|rate| rate.count), Some(5));
        assert!(lab.limits.over(&config.limits).is_none());
        // What can be shown can be told apart from another configuration.
        assert_ne!(config.hash(), read(&team("")).unwrap().hash());
    }

    #[test]
    fn what_is_wrong_with_a_team_is_told_with_its_line() {
        refused("[access]\nmode = \"keys\"", "reelgate.toml:2: access.mode: \"keys\" lets nobody in");
        refused("teams = 3", "reelgate.toml:1: teams: expected tables: [[teams]]");
        refused("[teams]\nname = \"a\"", "reelgate.toml:1: teams: expected tables: [[teams]]");
        refused(&team(", expire = 3"), "reelgate.toml:5: teams[0].keys[0].expire: unknown key: did you mean expires?");
        refused(&team(", expires = 2027-01-31T01:00:00"), "keys[0].expires: expected a day or a moment");
        refused(&team(", routes = [\"polls\"]"), "keys[0].routes: expected a list of \"generations\"");
        refused(&team(", origins = [\"*\"]"), "keys[0].origins: expected exact origins");
        refused(&(team("").replace("web", "a b")), "teams[0].keys[0].id: expected 1 to 64 letters");
        refused(&(team("").replace("web", "rg_0123")), "teams[0].keys[0].id: expected 1 to 64 letters");
        refused(&(team(", models = [\"x\"]") + "models = [\"m\"]\n"), "models: more than the team's");
        refused(&(team("") + "[[teams]]\nname = \"studio\"\n"), "reelgate.toml:7: teams[1].name: another team");
        let twice = team("") + &format!("[[teams]]\nname = \"lab\"\nkeys = [{{ id = \"x\", sha256 = \"{ONE}\" }}]\n");
        refused(&twice, "teams[1].keys[0].sha256: teams[0].keys[0] is the same key");
        refused("[[teams]]\nname = \"a\"\nkeys = [{ id = \"b\" }]", "teams[0].keys[0].sha256: missing");
        refused("[[teams]]\nmodels = []", "teams[0].name: expected 1 to 64");
    }

    #[test]
    fn a_gateway_key_in_the_file_is_refused_and_not_repeated() {
        for text in [
            team(", key = \"rg_Zm9vYmFyYmF6cXV4\""),
            team("").replace(ONE, "rg_Zm9vYmFyYmF6cXV4"),
            team("").replace("web", "rg_Zm9vYmFyYmF6cXV4"),
        ] {
            let told = read(&text).expect_err(&text);
            assert!(!format!("{told}\n{told:?}").contains("Zm9vYmFy"), "{told}");
        }
        refused(&team(", key = \"rg_x\""), "teams[0].keys[0].key: secrets never stand");
    }
}
