//! Teams: who may call, with what, and what one team has nothing of another's (`HARDENING.md` T-30 to T-43).

mod allowances;
mod budgets;
mod deployment;
mod keys;
mod limits;
mod owners;
mod replicas;
mod rotation;
mod tokens;

use reelgate::access::settings::{Mode, Team};
use reelgate::config::Config;
use reelgate::simulator::Options;
use serde_json::{Value, json};

use super::support::{Answer, Folder, GENERATIONS, Scene};

/// The keys of the tests: made by hand, so that they can be told in a failure.
pub(super) const STUDIO: &str = "rg_the-studios-key";
const LAB: &str = "rg_the-labs-key";

/// Two teams with a key each, and what else stands in the configuration of each.
fn two_teams(studio: &str, lab: &str) -> String {
    let (one, other) = (key("one", STUDIO, ""), key("one", LAB, ""));
    [MODE, &team("studio", &[one], studio), &team("lab", &[other], lab)].concat()
}

pub(super) const MODE: &str = "[access]\nmode = \"keys\"\n";

/// A team of the configuration.
pub(super) fn team(name: &str, keys: &[String], more: &str) -> String {
    format!("[[teams]]\nname = \"{name}\"\nkeys = [{}]\n{more}\n", keys.join(", "))
}

/// One of its keys.
pub(super) fn key(id: &str, key: &str, more: &str) -> String {
    format!("{{ id = \"{id}\", sha256 = \"{}\"{more} }}", sha256(key))
}

/// The teams that a configuration file describes.
fn teams_of(text: &str) -> Vec<Team> {
    let folder = Folder::new();
    let file = folder.write("reelgate.toml", text);
    Config::load(Some(&file), [], &|_, _| Ok(())).unwrap_or_else(|faults| panic!("{faults}")).teams
}

/// A scene with the two teams.
pub(super) async fn scene(change: impl FnOnce(&mut Config, &mut Options)) -> Scene {
    scene_of(&two_teams("", ""), change).await
}

/// A scene with the teams of this configuration file.
async fn scene_of(text: &str, change: impl FnOnce(&mut Config, &mut Options)) -> Scene {
    Scene::with(|config, options| {
        config.access.mode = Mode::Keys;
        config.teams = teams_of(text);
        change(config, options);
    })
    .await
}

pub(super) fn bearer(credential: &str) -> String {
    format!("Bearer {credential}")
}

/// Submits a body with a key or a token.
pub(super) async fn post_as(scene: &Scene, credential: &str, body: &Value) -> Answer {
    scene.post(GENERATIONS, body, &[("authorization", &bearer(credential))]).await
}

/// Submits a prompt with a key or a token.
pub(super) async fn submit_as(scene: &Scene, credential: &str, prompt: &str) -> Answer {
    post_as(scene, credential, &json!({"prompt": prompt})).await
}

/// Polls a job with a key or a token.
pub(super) async fn poll_as(scene: &Scene, credential: &str, id: &str) -> Answer {
    let path = format!("/grok/v1/videos/{id}");
    scene.ask(hyper::Method::GET, &path, &[("authorization", &bearer(credential))], "").await
}

/// Asks for a token.
pub(super) async fn token_as(scene: &Scene, credential: &str, body: &Value) -> Answer {
    scene.post("/grok/v1/client_tokens", body, &[("authorization", &bearer(credential))]).await
}

/// A token for this user.
pub(super) async fn token_for(scene: &Scene, credential: &str, user: &str) -> String {
    let answer = token_as(scene, credential, &json!({"user": user})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// What every operator has at hand as `sha256sum`.
fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
