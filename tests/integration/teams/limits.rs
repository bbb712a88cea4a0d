//! Limits inside teams: a user counts in its own team, and no number of names, teams or keys gets past what is above.

use std::time::Duration;

use reelgate::admission::settings::Rate;
use serde_json::json;

use super::{LAB, MODE, STUDIO, key, post_as, scene, scene_of, submit_as, team, token_for, two_teams};
use crate::support::{Answer, together};

fn day(count: u32) -> Option<Rate> {
    Some(Rate { count, per: Duration::from_secs(86_400) })
}

/// The limit that refused.
fn limit(answer: &Answer) -> String {
    assert_eq!(answer.refusal(), (429, "rate_limited".to_owned()));
    answer.json()["error"]["param"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn t31_a_users_name_counts_inside_its_team() {
    let scene = scene(|config, _| config.limits.user.generations = day(1)).await;
    let ask = |prompt: &str| json!({"prompt": prompt, "user": "alice"});
    post_as(&scene, STUDIO, &ask("a")).await.request_id();
    assert_eq!(limit(&post_as(&scene, STUDIO, &ask("b")).await), "user.generations");
    post_as(&scene, LAB, &ask("c")).await.request_id();
    assert_eq!(limit(&post_as(&scene, LAB, &ask("d")).await), "user.generations");
    // A token's user is that user.
    let token = token_for(&scene, STUDIO, "alice").await;
    assert_eq!(limit(&submit_as(&scene, &token, "e").await), "user.generations");
    let token = token_for(&scene, STUDIO, "bob").await;
    submit_as(&scene, &token, "f").await.request_id();
    assert_eq!(limit(&post_as(&scene, STUDIO, &json!({"prompt": "g", "user": "bob"})).await), "user.generations");
    scene.end().await;
}

#[tokio::test]
async fn t33_without_a_user_each_gateway_key_has_a_bucket_of_its_own() {
    let keys = [key("one", STUDIO, ""), key("two", "second", "")];
    let text = [MODE, &team("studio", &keys, ""), &team("lab", &[key("one", LAB, "")], "")].concat();
    let scene = scene_of(&text, |config, _| config.limits.user.generations = day(1)).await;
    for (key, prompt) in [(STUDIO, "a"), ("second", "b"), (LAB, "c")] {
        submit_as(&scene, key, prompt).await.request_id();
        assert_eq!(limit(&submit_as(&scene, key, "another").await), "user.generations");
    }
    // Nobody can choose the name of the nameless.
    for user in ["one", "studio", "gateway key"] {
        post_as(&scene, STUDIO, &json!({"prompt": user, "user": user})).await.request_id();
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t31_ten_thousand_invented_users_get_past_neither_team_nor_address_nor_total() {
    for (users, team, address, total, wanted) in [
        (10_000, day(7), None, None, "team.generations"),
        (1_000, None, day(7), None, "address.generations"),
        (1_000, None, None, day(7), "total.generations"),
    ] {
        let scene = scene(|config, _| {
            config.limits.user.generations = day(6);
            config.limits.team.generations = team;
            config.limits.address.generations = address;
            config.limits.total.generations = total;
        })
        .await;
        let mut line = crate::support::Line::http1(scene.gateway().address()).await;
        let mut created = 0;
        scene.note_submissions(users);
        let authorization = super::bearer(STUDIO);
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        for number in 0..users {
            let body = json!({"prompt": number.to_string(), "user": format!("invented {number}")}).to_string();
            let answer = line.ask("POST", super::GENERATIONS, &headers, &body).await.whole().await;
            if answer.status == 200 {
                created += 1;
            } else {
                assert_eq!(limit(&answer), wanted);
            }
        }
        assert_eq!((created, scene.upstream.posts()), (7, 7), "{wanted}");
        // The other team's own limits are untouched by it.
        let other = submit_as(&scene, LAB, "the other team").await;
        assert_eq!(other.status == 200, wanted == "team.generations", "{wanted}");
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_a_teams_quota_is_exact_under_concurrency_and_takes_nothing_from_another() {
    let scene = scene(|config, _| config.limits.team.generations = day(5)).await;
    let prompts: Vec<String> = (0..60).map(|number| format!("prompt {number}")).collect();
    let asked = prompts.iter().enumerate();
    let answers = together(asked.map(|(number, prompt)| {
        let key = if number % 2 == 0 { STUDIO } else { LAB };
        submit_as(&scene, key, prompt)
    }))
    .await;
    for team in 0..2 {
        let created = answers.iter().skip(team).step_by(2).filter(|answer| answer.status == 200).count();
        assert_eq!(created, 5);
    }
    assert_eq!(scene.upstream.posts(), 10);
    scene.end().await;
}

#[tokio::test]
async fn a_teams_own_limits_stand_in_place_of_everybodys() {
    let studio = "limits.user.generations = \"2/day\"\nlimits.team.generations = \"3/day\"";
    let lab = "limits.user.generations = \"off\"";
    let scene = scene_of(&two_teams(studio, lab), |config, _| {
        config.limits.user.generations = day(1);
        config.limits.user.requests = day(50);
    })
    .await;
    let ask = |user: &str, prompt: &str| json!({"prompt": prompt, "user": user});
    let first = post_as(&scene, STUDIO, &ask("alice", "a")).await;
    assert_eq!(first.status, 200);
    let policies = first.header("ratelimit-policy").to_owned();
    assert!(policies.contains("\"user.generations\";q=2;w=86400"), "{policies}");
    assert!(policies.contains("\"team.generations\";q=3;w=86400"), "{policies}");
    assert!(policies.contains("\"user.requests\";q=50"), "what it does not set is everybody's: {policies}");
    post_as(&scene, STUDIO, &ask("alice", "b")).await.request_id();
    assert_eq!(limit(&post_as(&scene, STUDIO, &ask("alice", "c")).await), "user.generations");
    post_as(&scene, STUDIO, &ask("bob", "c")).await.request_id();
    assert_eq!(limit(&post_as(&scene, STUDIO, &ask("bob", "d")).await), "team.generations");
    for prompt in ["1", "2", "3", "4"] {
        post_as(&scene, LAB, &ask("alice", prompt)).await.request_id();
    }
    scene.end().await;
}
