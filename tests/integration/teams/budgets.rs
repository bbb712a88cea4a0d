//! The bill of several teams: each has its own, and what one spends is nothing to the other (`MONEY.md` M29; INV-5).

use reelgate::bill::money::Amount;
use reelgate::bill::settings::Budget;
use serde_json::json;

use super::{LAB, STUDIO, post_as, scene_of, two_teams};

#[tokio::test]
async fn m29_a_team_has_a_budget_of_its_own_and_places_of_its_own() {
    let studio = "budgets.team.per_day = 0.75\nlimits.team.running = 3";
    let scene = scene_of(&two_teams(studio, "budgets.user.per_day = \"off\""), |config, options| {
        config.budgets.team = Budget { per_day: Amount::parse("1.50"), ..Budget::default() };
        config.budgets.user = Budget { per_day: Amount::parse("0.75"), ..Budget::default() };
        options.job_duration = std::time::Duration::from_secs(3600);
    })
    .await;
    let seconds = |prompt: &str, seconds: u32| json!({"prompt": prompt, "duration": seconds, "user": "alice"});
    let refused = async |credential: &str, body, param: &str| {
        let answer = post_as(&scene, credential, &body).await;
        assert_eq!(answer.json()["error"]["param"], param, "{}", answer.text());
    };
    post_as(&scene, STUDIO, &seconds("a", 10)).await.request_id();
    refused(STUDIO, seconds("b", 6), "user.per_day").await;
    let other = json!({"prompt": "c", "duration": 6, "user": "bob"});
    refused(STUDIO, other, "team.per_day").await;
    for prompt in ["d", "e"] {
        post_as(&scene, STUDIO, &seconds(prompt, 1)).await.request_id();
    }
    refused(STUDIO, seconds("f", 1), "team.running").await;
    // The other team is under everybody's bounds, but its users are under none.
    post_as(&scene, LAB, &seconds("g", 15)).await.request_id();
    post_as(&scene, LAB, &seconds("h", 15)).await.request_id();
    refused(LAB, seconds("i", 1), "team.per_day").await;

    let spent = async |team: &str| scene.metric(&format!("spend_usd_total{{team=\"{team}\"}}")).await;
    assert!((spent("studio").await - 0.60).abs() < 1e-9 && (spent("lab").await - 1.50).abs() < 1e-9);
    scene.end().await;
}
