//! What a real browser makes of the rules for pages: `tests/run` brings Debian's Chromium.

use reelgate::simulator::Options;
use serde_json::{Value, json};

use super::REAL_CLIENTS;
use crate::support::process::Served;
use crate::support::{Authority, Browser, Folder, GENERATIONS, REBOUND, SOON, ask, eventually, random_key};
use crate::teams::{MODE, STUDIO, key, team};

/// The program, for pages of one origin.
async fn served(browser: &Browser, folder: &Folder, more: &str) -> Served {
    let secret = random_key();
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        key: Some(secret.clone()),
        job_duration: SOON / 20,
        ..Options::default()
    };
    let origin = format!("http://app.localhost:{}", browser.port());
    let file = folder.write("reelgate.toml", &format!("[server.cors]\nallowed_origins = [\"{origin}\"]\n{more}"));
    Served::start(&secret, options, &["--config", file.to_str().unwrap()], &[]).await
}

/// The options of a page's POST, as a published SDK makes them.
fn post(token: &str, body: &Value) -> Value {
    let mut headers = serde_json::Map::new();
    // Without what would mean another take, nothing but a trial, or a new job.
    let is_usual = |name: &&&str| !name.starts_with("reelgate-") && !["cache-control", "pragma"].contains(*name);
    for name in REAL_CLIENTS.iter().filter(is_usual) {
        headers.insert((*name).to_owned(), json!("1"));
    }
    headers.insert("authorization".to_owned(), json!(format!("Bearer {token}")));
    headers.insert("content-type".to_owned(), json!("application/json"));
    headers.insert("idempotency-key".to_owned(), json!(format!("key of {}", body["prompt"])));
    json!({"method": "POST", "headers": headers, "body": body.to_string()})
}

/// With something else in it.
fn with(mut options: Value, name: &str, value: Value) -> Value {
    options[name] = value;
    options
}

/// A header that the page could read.
fn header<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer["headers"][name].as_str().unwrap_or_else(|| panic!("{name} cannot be read: {answer}"))
}

fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().unwrap_or_else(|| panic!("no answer: {answer}"));
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {answer}"))
}

fn refusal(answer: &Value) -> (u64, String) {
    (answer["status"].as_u64().unwrap_or_default(), body(answer)["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn r73_an_allowed_page_submits_polls_and_reads_every_header_of_ours() {
    let mut browser = Browser::start().await;
    let teams = [MODE, &team("studio", &[key("web", STUDIO, "")], "limits.user.generations = \"4/hour\"")].concat();
    let folder = Folder::new();
    let served = served(&browser, &folder, &teams).await;
    let url = format!("http://{}{GENERATIONS}", served.address);
    // The page's own backend gets it a token.
    let asked = [("authorization", &*format!("Bearer {STUDIO}")), ("content-type", "application/json")];
    let path = "/grok/v1/client_tokens";
    let told = ask(served.address, hyper::Method::POST, path, &asked, "{\"user\":\"alice\"}").await;
    let token = told.json()["token"].as_str().unwrap().to_owned();
    browser.go("app.localhost").await;

    let candle = json!({"prompt": "A candle flickers.", "size": "720p"});
    let made = browser.fetch(&url, post(&token, &candle)).await;
    assert_eq!((&made["status"], &made["type"]), (&json!(200), &json!("cors")), "{made}");
    assert!(header(&made, "cache-status").contains("fwd=miss"), "{made}");
    assert!(header(&made, "ratelimit").contains("r=3"), "{made}");
    assert_eq!(header(&made, "x-request-id"), "1");
    for name in ["ratelimit-policy", "reelgate-warning", "cache-control"] {
        header(&made, name);
    }

    let id = body(&made)["request_id"].as_str().unwrap().to_owned();
    let job = format!("http://{}/grok/v1/videos/{id}", served.address);
    let poll = json!({"headers": {"authorization": format!("Bearer {token}"), "x-stainless-retry-count": "0"}});
    let mut seen = Value::Null;
    eventually("the page sees its video", async || {
        seen = browser.fetch(&job, poll.clone()).await;
        seen["body"].as_str().is_some_and(|body| body.contains("\"done\""))
    })
    .await;
    assert!(body(&seen)["video"]["url"].is_string(), "{seen}");
    assert!(header(&seen, "reelgate-upstream-request-id").starts_with("simulated-"));

    // Again, also as frontends do that want nothing from the browser's cache (M13): Chromium adds two headers by itself.
    for cache in ["default", "no-store", "reload", "no-cache"] {
        let again = browser.fetch(&url, with(post(&token, &candle), "cache", json!(cache))).await;
        assert_eq!(body(&again)["request_id"], id, "{cache}");
        assert!(header(&again, "cache-status").contains("hit"), "{cache}: {again}");
    }
    assert_eq!(served.upstream.posts(), 1);

    // A page that is left at once, and comes back.
    let slow = post(&token, &json!({"prompt": "A closed tab. [simulate: slow]"}));
    let left = browser.fetch(&url, with(slow.clone(), "leave_after", json!(500))).await;
    assert!(left["error"].as_str().is_some_and(|error| error.contains("TimeoutError")), "{left}");
    let back = browser.fetch(&url, slow).await;
    assert_eq!(back["status"], 200, "{back}");
    assert_eq!(served.upstream.posts(), 2);

    let unknown = browser.fetch(&url, post(&token, &json!({"prompt": "[simulate: lost]"}))).await;
    assert_eq!(refusal(&unknown), (502, "outcome_unknown".to_owned()));
    assert_eq!(header(&unknown, "x-should-retry"), "false");
    assert!(header(&unknown, "retry-after").parse::<u64>().unwrap() >= 61);
    let invalid = browser.fetch(&url, post(&token, &json!({"prompt": "a", "duration": 99, "resolution": "1p"}))).await;
    assert_eq!(refusal(&invalid), (422, "invalid_request".to_owned()));
    assert_eq!(body(&invalid)["errors"].as_array().map(Vec::len), Some(2));
    assert_eq!(refusal(&browser.fetch(&url, post("rgt_no", &candle)).await), (401, "invalid_key".to_owned()));
    assert_eq!(refusal(&browser.fetch(&format!("{job}0"), poll).await), (404, "unknown_job".to_owned()));
    let last = browser.fetch(&url, post(&token, &json!({"prompt": "b"}))).await;
    assert_eq!(last["status"], 200, "{last}");
    let limited = browser.fetch(&url, post(&token, &json!({"prompt": "c"}))).await;
    assert_eq!(refusal(&limited), (429, "rate_limited".to_owned()));
    assert!(header(&limited, "retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(header(&limited, "x-request-id"), "1");

    // Cookies are never asked for.
    let with_cookies = browser.fetch(&url, with(post(&token, &candle), "credentials", json!("include"))).await;
    assert!(with_cookies["error"].is_string(), "{with_cookies}");
    assert_eq!(served.upstream.posts(), 4);
    served.end().await;
}

#[tokio::test]
async fn r75_a_page_streams_its_body_over_tls_and_http2() {
    let mut browser = Browser::start().await;
    let folder = Folder::new();
    let (certificate, secret) = Authority::new().certificate("localhost", 2100);
    let files = (folder.write("cert.pem", &certificate), folder.write("key.pem", &secret));
    let tls = format!("[server.tls]\ncertificate = {:?}\nkey = {:?}\n", files.0, files.1);
    let served = served(&browser, &folder, &tls).await;
    let url = format!("https://localhost:{}{GENERATIONS}", served.address.port());
    browser.go("app.localhost").await;
    let candle = json!({"prompt": "A candle flickers."});
    let made = browser.fetch(&url, with(post("", &candle), "stream", json!(true))).await;
    assert_eq!(made["status"], 200, "{made}");
    assert_eq!(served.upstream.received()[0].body, candle.to_string().as_bytes());
    let again = browser.fetch(&url, post("", &candle)).await;
    assert!(header(&again, "cache-status").contains("hit"), "{again}");
    browser.go("evil.localhost").await;
    assert!(browser.fetch(&url, with(post("", &candle), "stream", json!(true))).await["error"].is_string());
    assert_eq!(served.upstream.posts(), 1);
    served.end().await;
}

#[tokio::test]
async fn r74_t39_no_foreign_page_spends_whatever_way_a_browser_has_to_send() {
    let mut browser = Browser::start().await;
    let folder = Folder::new();
    let served = served(&browser, &folder, "").await;
    let url = format!("http://{}{GENERATIONS}", served.address);
    let body = "{\"prompt\":\"spent by a stranger\"}";
    let denied = "submissions_total{outcome=\"denied\"}";
    browser.go("evil.localhost").await;

    // What needs a preflight is not even sent.
    let asked = browser.fetch(&url, post("rgt_stolen", &json!({"prompt": "a"}))).await;
    assert!(asked["error"].is_string(), "{asked}");
    assert!(served.metric(denied).await.abs() < f64::EPSILON);
    assert!(served.metric("requests_total{route=\"preflight\",status=\"403\"}").await >= 1.0);

    // What needs none is sent, and refused: a plain POST, a form, and a frame whose origin is `null`.
    let plain = json!({"method": "POST", "body": body, "headers": {"content-type": "text/plain"}});
    let blind = browser.fetch(&url, with(plain.clone(), "mode", json!("no-cors"))).await;
    assert_eq!((&blind["type"], &blind["status"]), (&json!("opaque"), &json!(0)));
    assert!(browser.fetch(&url, plain).await["error"].is_string());
    assert_eq!(served.metric(denied).await, 2.0);
    let form = format!(
        "<form method=post enctype=text/plain action={url}><input name='{{\"prompt\":\"a\",\"b\":\"' value='\"}}'></form>\
         <script>document.forms[0].submit()</script>"
    );
    browser.frame(&form, "allow-scripts allow-forms allow-same-origin").await;
    eventually("the form was sent", async || served.metric(denied).await >= 3.0).await;
    let script = format!("<script>fetch('{url}', {{method: 'POST', mode: 'no-cors', body: '{body}'}})</script>");
    browser.frame(&script, "allow-scripts").await;
    eventually("the frame has sent", async || served.metric(denied).await >= 4.0).await;

    // A name whose DNS leads to us all at once: for the browser page and gateway are one site.
    browser.go(REBOUND).await;
    assert!(
        browser.fetch("/", json!({})).await["body"].as_str().is_some_and(|page| page.contains("A page of the tests"))
    );
    browser.rebind(served.address);
    let rebound = browser.fetch(GENERATIONS, post("", &json!({"prompt": "a"}))).await;
    assert_eq!(refusal(&rebound), (403, "origin_refused".to_owned()));
    assert_eq!(rebound["type"], "basic");

    assert_eq!(served.metric(denied).await, 5.0);
    assert_eq!(served.upstream.connections(), 0);
    served.end().await;
}
