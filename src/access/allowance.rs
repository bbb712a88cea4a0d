//! What a client token may use up by itself: limits and a budget for its life, which stand beside all others and so only
//! narrow. They travel inside the token, in the spelling of the configuration.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::admission::settings::{Rate, Rates};
use crate::bill::money::Amount;
use crate::config::{Raw, Value};
use crate::error::Fault;
use crate::request::fields;

/// See the module's page. Nothing: no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How often.
    pub rates: Rates,
    /// For how many dollars, in all its life.
    pub budget_usd: Option<Amount>,
    /// For how many seconds of video, in all its life.
    pub budget_seconds: Option<u32>,
}

/// The same, as a token says it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claim {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generations: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget_usd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget_seconds: Option<u32>,
}

impl Allowance {
    /// What a request for a token says under `limits`.
    ///
    /// # Errors
    /// All its faults.
    pub fn read(wish: &Json) -> Result<Self, Vec<Fault>> {
        let fault = |name: &str, code, message: &str| Fault {
            param: if name.is_empty() { "limits".to_owned() } else { format!("limits.{name}") },
            code,
            message: message.to_owned(),
        };
        let Some(fields) = wish.as_object() else { return Err(vec![fault("", "type", "must be an object")]) };
        let (mut limits, mut faults) = (Self::default(), Vec::new());
        for (name, value) in fields {
            let is_good = match name.as_str() {
                "requests" => set(&mut limits.rates.requests, value.as_str().and_then(rate)),
                "generations" => set(&mut limits.rates.generations, value.as_str().and_then(rate)),
                "budget_usd" => set(&mut limits.budget_usd, amount(value)),
                "budget_seconds" => set(&mut limits.budget_seconds, seconds(value)),
                _ => {
                    faults.push(fields::stranger(format!("limits.{name}"), name, &FIELDS));
                    continue;
                }
            };
            let expected = match name.as_str() {
                "budget_usd" => "must be an amount in US dollars such as 2.5, more than 0",
                "budget_seconds" => "must be a whole number of seconds, at least 1",
                _ => "must be a rate such as \"6/minute\" (1 to 1000000 a /second, /minute, /hour or /day)",
            };
            if !is_good {
                faults.push(fault(name, "format", expected));
            }
        }
        if faults.is_empty() { Ok(limits) } else { Err(faults) }
    }

    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn claim(&self) -> Option<Claim> {
        let rate = |rate: Option<Rate>| rate.map(|rate| Some(rate).show());
        (!self.is_empty()).then(|| Claim {
            requests: rate(self.rates.requests),
            generations: rate(self.rates.generations),
            budget_usd: self.budget_usd.map(|amount| amount.to_string()),
            budget_seconds: self.budget_seconds,
        })
    }

    /// `None`: it limits in a way that is not known here.
    pub(super) fn of(claim: &Claim) -> Option<Self> {
        let known = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => rate(text).map(Some),
        };
        let budget_usd = match &claim.budget_usd {
            None => None,
            Some(text) => Some(Amount::parse(text)?),
        };
        let rates = Rates { requests: known(&claim.requests)?, generations: known(&claim.generations)? };
        Some(Self { rates, budget_usd, budget_seconds: claim.budget_seconds })
    }
}

/// What `limits` may say.
const FIELDS: [&str; 4] = ["requests", "generations", "budget_usd", "budget_seconds"];

fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

/// A token is not made to be without a limit: `"off"` is none.
fn rate(text: &str) -> Option<Rate> {
    <Option<Rate>>::read(&Raw::Text(text)).flatten()
}

fn amount(value: &Json) -> Option<Amount> {
    value.as_number().and_then(|number| Amount::parse(&number.to_string())).filter(|amount| *amount > Amount::ZERO)
}

fn seconds(value: &Json) -> Option<u32> {
    value.as_u64().and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn limits_of_a_token_are_spelled_as_in_the_configuration_and_come_back_from_its_claims() {
        let all = json!({"requests": "30/minute", "generations": "5/hour", "budget_usd": 2.5, "budget_seconds": 60});
        let limits = Allowance::read(&all).unwrap();
        let rate = |count, seconds| Some(Rate { count, per: Duration::from_secs(seconds) });
        assert_eq!(limits.rates, Rates { requests: rate(30, 60), generations: rate(5, 3600) });
        assert_eq!((limits.budget_usd, limits.budget_seconds), (Amount::parse("2.5"), Some(60)));
        let whole = Allowance::read(&json!({"budget_usd": 2})).unwrap();
        for limits in [limits, whole, Allowance::read(&json!({"generations": "1/day"})).unwrap()] {
            let claim = serde_json::to_string(&limits.claim().unwrap()).unwrap();
            assert_eq!(Allowance::of(&serde_json::from_str(&claim).unwrap()), Some(limits), "{claim}");
        }
        assert!(Allowance::default().claim().is_none() && Allowance::read(&json!({})).unwrap().is_empty());
        assert!(serde_json::from_str::<Claim>("{\"later\": 1}").is_err(), "another version's");
        let odd: Claim = serde_json::from_str("{\"requests\": \"often\"}").unwrap();
        assert_eq!(Allowance::of(&odd), None);
    }

    #[test]
    fn all_faults_of_limits_are_told_and_none_takes_one_away() {
        let faults = |limits: Json| -> Vec<String> {
            Allowance::read(&limits).unwrap_err().into_iter().map(|fault| fault.param).collect()
        };
        assert_eq!(faults(json!("5/hour")), ["limits"]);
        for (name, value) in [
            ("requests", json!("off")),
            ("requests", json!("0/minute")),
            ("generations", json!(5)),
            ("generations", json!("5/week")),
            ("generations", json!(null)),
            ("budget_usd", json!(0)),
            ("budget_usd", json!(-1)),
            ("budget_usd", json!("2")),
            ("budget_usd", json!(1e300)),
            ("budget_seconds", json!(0)),
            ("budget_seconds", json!(1.5)),
            ("per_day", json!(1)),
        ] {
            assert_eq!(faults(json!({name: value})), [format!("limits.{name}")], "{value}");
        }
        let mut both = faults(json!({"requests": 1, "budget_seconds": "x"}));
        both.sort_unstable();
        assert_eq!(both, ["limits.budget_seconds", "limits.requests"]);
    }
}
