//! Tokens for browsers: what a frontend hands to its page instead of a team's key. A JWT under one algorithm, whose
//! signing key is derived from the fingerprints' key, so that restarts and replicas agree wherever the ledger does.
//! Behind `rgt_`, so that it is told from a key at once, here and by scanners.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::allowance::{Allowance, Claim};
use super::settings::Gate;
use super::teams::Pass;
use crate::clock::Time;

/// Signs and reads tokens.
pub struct Tokens {
    signing: EncodingKey,
    reading: DecodingKey,
    validation: Validation,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The team.
    pub team: String,
    /// The id of the gateway key it was made with.
    pub key: String,
    /// That key's mark.
    pub mark: String,
    /// The user it is for, in NFC.
    pub user: String,
    /// What it may ask for; empty: what the key may.
    pub models: Vec<String>,
    /// What it may be used for; empty: what the key may, but never making tokens.
    pub routes: Vec<Gate>,
    /// When it ends.
    pub until: Time,
    /// What it may use up by itself, if that is limited.
    pub limited: Option<Limited>,
}

/// A token with limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What is counted under: no two tokens have the same.
    pub id: [u8; 16],
    /// The limits.
    pub limits: Allowance,
}

impl Grant {
    /// What a token of this caller says of `user`; `None` if the caller has no gateway key.
    pub fn of(pass: &Pass, user: String, models: Vec<String>, routes: Vec<Gate>, until: Time) -> Option<Self> {
        let key = pass.key.as_ref()?;
        Some(Self {
            team: pass.team.name.to_string(),
            key: key.id.to_string(),
            mark: key.mark.clone(),
            user,
            models,
            routes,
            until,
            limited: None,
        })
    }

    /// The same, with limits of its own.
    pub fn limited(mut self, id: [u8; 16], limits: Allowance) -> Self {
        self.limited = (!limits.is_empty()).then_some(Limited { id, limits });
        self
    }
}

/// The claims (RFC 7519 §4.1, and ours).
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    /// Milliseconds would be no NumericDate: seconds.
    exp: u64,
    team: String,
    key: String,
    mark: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<String>,
    /// What the limits are counted under, as hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<Claim>,
}

impl Tokens {
    /// Tokens under a key.
    pub fn new(key: &[u8; 32]) -> Self {
        let mut validation = Validation::new(ALGORITHM);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // The expiry is judged by our own clock, which does not go back, and to the second.
        validation.validate_exp = false;
        Self { signing: EncodingKey::from_secret(key), reading: DecodingKey::from_secret(key), validation }
    }

    /// A token that says so from `now` on; `None` if it cannot be signed.
    pub fn sign(&self, grant: &Grant, now: Time) -> Option<String> {
        let grant = grant.clone();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: grant.user,
            iat: now.as_millis() / 1_000,
            exp: grant.until.as_millis().div_ceil(1_000),
            team: grant.team,
            key: grant.key,
            mark: grant.mark,
            models: grant.models,
            routes: grant.routes.iter().map(|route| route.name().to_owned()).collect(),
            jti: grant.limited.map(|limited| u128::from_be_bytes(limited.id)).map(|id| format!("{id:032x}")),
            limits: grant.limited.and_then(|limited| limited.limits.claim()),
        };
        let token = jsonwebtoken::encode(&Header::new(ALGORITHM), &claims, &self.signing).ok()?;
        Some([PREFIX, &token].concat())
    }

    /// What a token, without its prefix, says at `now`.
    ///
    /// # Errors
    /// Why it is worth nothing, for the log alone.
    pub fn read(&self, token: &str, now: Time) -> Result<Grant, &'static str> {
        let read = jsonwebtoken::decode::<Claims>(token, &self.reading, &self.validation);
        let claims = read.map_err(|_| "not a token of this gateway")?.claims;
        if claims.exp.saturating_mul(1_000) <= now.as_millis() {
            return Err("expired token");
        }
        let routes: Option<Vec<Gate>> = claims.routes.iter().map(|route| Gate::named(route)).collect();
        // Another version's: what it was narrowed to is not known here.
        let routes = routes.ok_or("token for an unknown route")?;
        let limited = match &claims.limits {
            None => None,
            Some(limits) => {
                let id = claims.jti.as_deref().and_then(|id| u128::from_str_radix(id, 16).ok());
                let limited = id.zip(Allowance::of(limits));
                let (id, limits) = limited.ok_or("token with unknown limits")?;
                Some(Limited { id: id.to_be_bytes(), limits })
            }
        };
        let until = Time::from_millis(claims.exp.saturating_mul(1_000));
        let Claims { team, key, mark, sub: user, models, .. } = claims;
        Ok(Grant { team, key, mark, user, models, routes, until, limited })
    }
}

/// What a token begins with.
pub const PREFIX: &str = "rgt_";
/// The only one that is read, whatever a token's header says.
const ALGORITHM: Algorithm = Algorithm::HS256;
const ISSUER: &str = "reelgate";
const AUDIENCE: &str = "reelgate client";

#[cfg(test)]
mod tests {
    use base64::Engine;
    use serde_json::{Value, json};

    use super::*;

    fn grant() -> Grant {
        Grant {
            team: "studio".to_owned(),
            key: "web".to_owned(),
            mark: "00".to_owned(),
            user: "alice".to_owned(),
            models: vec!["m".to_owned()],
            routes: vec![Gate::Poll],
            until: at(20),
            limited: None,
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    /// A token of these parts, signed with HS256 under `key`.
    fn forged(header: &Value, claims: &Value, key: &[u8]) -> String {
        let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        let body = format!("{}.{}", part(header), part(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let signature = aws_lc_rs::hmac::sign(&key, body.as_bytes());
        format!("{body}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature))
    }

    fn claims() -> Value {
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": 0, "exp": 100, "team": "studio", "key": "web", "mark": "00"})
    }

    #[test]
    fn a_token_says_what_it_was_told_until_it_expires() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.sign(&grant(), at(10)).unwrap();
        let token = token.strip_prefix(PREFIX).unwrap();
        assert_eq!(tokens.read(token, at(19)), Ok(grant()));
        assert_eq!(tokens.read(token, at(20)), Err("expired token"));
        assert!(Tokens::new(&[8; 32]).read(token, at(19)).is_err(), "another gateway's");
    }

    #[test]
    fn a_token_brings_its_own_limits_and_what_is_not_known_of_them_is_no_token() {
        let tokens = Tokens::new(&[7; 32]);
        let limits = Allowance::read(&json!({"generations": "5/hour", "budget_usd": 0.25})).unwrap();
        for id in [[0; 16], [0xa5; 16]] {
            let grant = grant().limited(id, limits);
            let token = tokens.sign(&grant, at(10)).unwrap();
            assert_eq!(tokens.read(token.strip_prefix(PREFIX).unwrap(), at(19)), Ok(grant));
        }
        assert_eq!(grant().limited([1; 16], Allowance::default()), grant());
        let header = json!({"alg": "HS256", "typ": "JWT"});
        for (jti, limits) in [
            (Value::Null, json!({"generations": "5/hour"})),
            (json!("zz"), json!({"generations": "5/hour"})),
            (json!("1"), json!({"generations": "now and then"})),
            (json!("1"), json!({"later": 1})),
        ] {
            let mut claims = claims();
            claims["jti"] = jti;
            claims["limits"] = limits;
            assert!(tokens.read(&forged(&header, &claims, &[7; 32]), at(1)).is_err(), "{claims}");
        }
    }

    #[test]
    fn only_one_algorithm_issuer_and_audience_is_read() {
        let tokens = Tokens::new(&[7; 32]);
        let header = json!({"alg": "HS256", "typ": "JWT"});
        assert!(tokens.read(&forged(&header, &claims(), &[7; 32]), at(1)).is_ok(), "the forger knows the form");
        for (name, value) in [
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("iss", Value::Null),
            ("aud", Value::Null),
            ("exp", Value::Null),
            ("exp", json!("100")),
            ("exp", json!(1)),
            ("sub", Value::Null),
            ("team", Value::Null),
            ("mark", Value::Null),
            ("routes", json!(["future"])),
        ] {
            let mut claims = claims();
            match value {
                Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
                value => claims[name] = value,
            }
            assert!(tokens.read(&forged(&header, &claims, &[7; 32]), at(1)).is_err(), "{name}: {claims}");
        }
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "HS384"}),
            json!({"alg": "HS512"}),
            json!({"alg": "RS256"}),
            json!({"typ": "JWT"}),
        ] {
            assert!(tokens.read(&forged(&header, &claims(), &[7; 32]), at(1)).is_err(), "{header}");
        }
        let sound = forged(&header, &claims(), &[7; 32]);
        let (body, _) = sound.rsplit_once('.').unwrap();
        for token in [body, &format!("{body}."), "", "..", "a.b.c", &sound[1..], &format!("{sound}A")] {
            assert!(tokens.read(token, at(1)).is_err(), "{token}");
        }
    }
}
