//! `POST /grok/v1/client_tokens`: a team's frontend asks, with its gateway key, for a token that it can hand to a page.
//! The page is then one user, for a while, and never holds the key.

use std::time::Duration;

use hyper::Response;
use serde_json::{Value, json};

use super::Worker;
use super::answer::{self, Body};
use super::rules::Rules;
use super::submit::random;
use crate::access::allowance::Allowance;
use crate::access::settings::Gate;
use crate::access::token::Grant;
use crate::error::{Error, Fault};
use crate::request::client::Client;
use crate::request::fields;
use crate::request::head::Head;
use crate::request::json;
use crate::request::submission;
use crate::server::body::{self, Upload};

impl Worker {
    /// Serves a request for a token. It takes a request of the address, as submissions do before their body is read.
    pub(super) async fn client_token(
        &self,
        head: &Head<'_>,
        upload: Upload,
        client: &Client,
        rules: &Rules,
    ) -> Result<Response<Body>, Error> {
        let gateway = &*self.gateway;
        if rules.teams.is_open() {
            // Nobody needs one here, and a frontend must not believe that it has fixed its users.
            return Err(Error::NoTokens);
        }
        gateway.limits.before_body(client.who()).map_err(|refusal| Error::from(&refusal))?;
        submission::check_media(&head.header)?;
        let body = body::read(upload, &rules.body.at_most(LONGEST_BODY), &gateway.memory).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            let message = "the body is empty: send a JSON object with a user".to_owned();
            return Err(Error::InvalidJson { message });
        }
        let wish = Wish::read(&json::parse(&body)?, rules.token_lifetime).map_err(Error::InvalidRequest)?;
        for model in &wish.models {
            client.pass.check_model(Some(model)).map_err(|_| Error::ModelNotAllowed { param: "models" })?;
        }
        for route in &wish.routes {
            client.pass.check_route(*route)?;
        }
        let now = gateway.clock.now();
        let until = now + wish.lifetime;
        let grant = Grant::of(&client.pass, wish.user, wish.models, wish.routes, until).ok_or(Error::Internal)?;
        let grant = grant.limited(random()?, wish.limits);
        let token = gateway.tokens.sign(&grant, now).ok_or(Error::Internal)?;
        let told = json!({
            "token": token,
            "token_type": "Bearer",
            "user": grant.user,
            "expires_in": wish.lifetime.as_secs(),
            "expires_at": until.as_millis().div_ceil(1_000),
        });
        Ok(answer::told(told.to_string().into()))
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    user: String,
    lifetime: Duration,
    models: Vec<String>,
    routes: Vec<Gate>,
    limits: Allowance,
}

impl Wish {
    /// All faults at once.
    fn read(body: &Value, longest: Duration) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let Some(fields) = body.as_object() else { return Err(vec![fault("", "type", "must be an object")]) };
        for name in fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
            // Forwarded to nobody: what is not known here was meant to narrow the token, and would not.
            faults.push(fields::stranger(name.clone(), name, &FIELDS));
        }
        let user = match submission::user(body) {
            Ok(Some(user)) => user,
            Ok(None) => {
                faults.push(fault("user", "required", "is required"));
                String::new()
            }
            Err(of_user) => {
                // Of a submission it could be left out.
                faults.push(if of_user.code == "minLength" { fault("user", of_user.code, EMPTY) } else { of_user });
                String::new()
            }
        };
        let longest = longest.as_secs().max(1);
        let lifetime = match fields.get("expires_in") {
            None => USUAL_LIFETIME.min(longest),
            Some(seconds) => within(seconds, longest).unwrap_or_else(|code| {
                let message = format!("must be a whole number of seconds from 1 to {longest}");
                faults.push(fault("expires_in", code, &message));
                0
            }),
        };
        let mut texts = |name: &str| -> Vec<String> {
            let texts = match fields.get(name) {
                None => return Vec::new(),
                Some(Value::Array(items)) if (1..=MOST_NAMES).contains(&items.len()) => {
                    items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
                }
                Some(_) => None,
            };
            texts.filter(|texts| texts.iter().all(|text| (1..=128).contains(&text.len()))).unwrap_or_else(|| {
                faults.push(fault(name, "items", "must be a list of 1 to 32 names"));
                Vec::new()
            })
        };
        let (models, names) = (texts("models"), texts("routes"));
        let mut routes = Vec::new();
        for name in names {
            match Gate::named(&name).filter(|gate| *gate != Gate::ClientTokens) {
                Some(gate) => routes.push(gate),
                None => faults.push(fault("routes", "enum", "must name \"generations\", \"edits\" or \"poll\"")),
            }
        }
        let limits = fields.get("limits").map_or_else(|| Ok(Allowance::default()), Allowance::read);
        let limits = limits.unwrap_or_else(|of_limits| {
            faults.extend(of_limits);
            Allowance::default()
        });
        let wish = Self { user, lifetime: Duration::from_secs(lifetime), models, routes, limits };
        if faults.is_empty() { Ok(wish) } else { Err(faults) }
    }
}

/// A number of seconds from 1 to the longest; else the rule that it breaks.
fn within(seconds: &Value, longest: u64) -> Result<u64, &'static str> {
    match seconds.as_u64() {
        Some(0) => Err("minimum"),
        Some(seconds) if seconds <= longest => Ok(seconds),
        Some(_) => Err("maximum"),
        None if seconds.is_i64() => Err("minimum"),
        None => Err("type"),
    }
}

fn fault(param: &str, code: &'static str, message: &str) -> Fault {
    Fault { param: param.to_owned(), code, message: message.to_owned() }
}

const EMPTY: &str = "must not be empty";
/// What a body may say.
const FIELDS: [&str; 5] = ["user", "expires_in", "models", "routes", "limits"];
/// In bytes.
const LONGEST_BODY: u64 = 16 << 10;
/// In seconds.
const USUAL_LIFETIME: u64 = 900;
/// Of models or routes.
const MOST_NAMES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wish_names_a_user_and_may_narrow() {
        let wish = Wish::read(&json!({"user": "Zoe\u{308}"}), HOUR).unwrap();
        let plain = Wish {
            user: "Zo\u{eb}".into(),
            lifetime: HOUR / 4,
            models: Vec::new(),
            routes: Vec::new(),
            limits: Allowance::default(),
        };
        assert_eq!(wish, plain);
        assert_eq!(Wish::read(&json!({"user": "a"}), HOUR / 60).unwrap().lifetime, HOUR / 60);
        let all = json!({"user": "a", "expires_in": 3600, "models": ["m"], "routes": ["poll", "edits"]});
        let wish = Wish::read(&all, HOUR).unwrap();
        assert_eq!((wish.lifetime, wish.routes), (HOUR, vec![Gate::Poll, Gate::Edits]));
    }

    #[test]
    fn all_faults_of_a_wish_are_told_at_once() {
        let faults = |body: Value| -> Vec<String> {
            Wish::read(&body, HOUR).unwrap_err().into_iter().map(|fault| fault.param).collect()
        };
        assert_eq!(faults(json!([])), [""]);
        assert_eq!(faults(json!({})), ["user"]);
        assert_eq!(faults(json!({"user": ""})), ["user"]);
        assert_eq!(faults(json!({"user": "a\u{200b}"})), ["user"]);
        let bad = json!({"user": 3, "expires_in": 3601, "models": [], "routes": ["client_tokens"], "limit": 3});
        assert_eq!(faults(bad), ["limit", "user", "expires_in", "models", "routes"]);
        let bad = json!({"user": "a", "limits": {"generations": "off", "later": 1}});
        assert_eq!(faults(bad), ["limits.generations", "limits.later"]);
        for seconds in [json!(0), json!(-1), json!(1.5), json!("900"), json!(null)] {
            assert_eq!(faults(json!({"user": "a", "expires_in": seconds})), ["expires_in"]);
        }
    }
}
