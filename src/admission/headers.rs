//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): lists of quoted names with parameters.
//! A policy's `q` and `w` are its quota and its window in seconds. `r` is how many more fit now; `t` is the time,
//! in seconds, until one more than that does, so it agrees with `Retry-After` where `r` is 0.

use arrayvec::ArrayString;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::quota::{Level, Limit, Scope};
use super::settings::{self, Rate, Rates};

/// How the limits stand that one request was counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing([Option<Level>; Limit::ALL.len()]);

impl Standing {
    pub(super) fn set(&mut self, limit: Limit, level: Level) {
        if let Some(place) = self.0.get_mut(limit.place()) {
            *place = Some(level);
        }
    }

    /// This one and a later one; where both know a limit, the later one's word counts.
    pub fn then(self, later: Self) -> Self {
        let mut both = self;
        for (place, level) in both.0.iter_mut().zip(later.0) {
            *place = level.or(*place);
        }
        both
    }

    /// The limits that were asked, and how each stands.
    pub fn levels(&self) -> impl Iterator<Item = (Limit, Level)> {
        Limit::ALL.into_iter().zip(self.0).filter_map(|(limit, level)| Some((limit, level?)))
    }

    /// The value of `RateLimit`; `None` if no limit was asked.
    fn value(&self) -> Option<HeaderValue> {
        // On the stack: every submission's answer has one.
        let mut text = ArrayString::<LONGEST_STATE>::new();
        let mut digits = itoa::Buffer::new();
        let mut push = |part: &str| text.try_push_str(part).is_ok();
        let mut between = "\"";
        for (limit, level) in self.levels() {
            let mut fits = push(between) && push(limit.name()) && push("\";r=") && push(digits.format(level.remaining));
            if level.seconds > 0 {
                fits = fits && push(";t=") && push(digits.format(level.seconds));
            }
            if !fits {
                return None;
            }
            between = ", \"";
        }
        (!text.is_empty()).then(|| HeaderValue::from_str(&text).ok())?
    }
}

/// The value of `RateLimit-Policy`, made once for each configuration.
#[derive(Clone, Debug)]
pub struct Policies(Option<HeaderValue>);

impl Policies {
    pub(super) fn of(limits: &settings::Limits) -> Self {
        let mut text = Vec::new();
        for limit in Limit::ALL {
            push_policy(&mut text, limit, limit.rate(limits));
        }
        Self(value(text))
    }

    /// Adds both headers to an answer; neither where no limit was asked. A client token has its `own` limits besides.
    pub fn write(&self, own: Option<&Rates>, standing: &Standing, headers: &mut HeaderMap) {
        let policies = match own {
            None => self.0.clone(),
            Some(own) => {
                let mut text = Vec::new();
                for limit in Limit::ALL.into_iter().filter(|limit| limit.scope == Scope::Token) {
                    push_policy(&mut text, limit, own.of(limit.kind));
                }
                if let Some(policies) = &self.0 {
                    let between: &[u8] = if text.is_empty() { b"" } else { b", " };
                    text.extend_from_slice(between);
                    text.extend_from_slice(policies.as_bytes());
                }
                value(text)
            }
        };
        if let (Some(policies), Some(standing)) = (policies, standing.value()) {
            headers.insert(POLICY, policies);
            headers.insert(STATE, standing);
        }
    }
}

fn push_policy(text: &mut Vec<u8>, limit: Limit, rate: Option<Rate>) {
    if let Some(rate) = rate {
        push_name(text, limit);
        text.extend_from_slice(format!(";q={};w={}", rate.count, rate.per.as_secs()).as_bytes());
    }
}

fn push_name(text: &mut Vec<u8>, limit: Limit) {
    if !text.is_empty() {
        text.extend_from_slice(b", ");
    }
    text.push(b'"');
    text.extend_from_slice(limit.name().as_bytes());
    text.push(b'"');
}

fn value(text: Vec<u8>) -> Option<HeaderValue> {
    if text.is_empty() {
        return None;
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

/// More than ten limits take, in bytes.
const LONGEST_STATE: usize = 512;
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::quota::Kind;
    use crate::admission::settings::Limits;

    const USER: Limit = Limit { scope: Scope::User, kind: Kind::Requests };
    const TOTAL: Limit = Limit { scope: Scope::Total, kind: Kind::Generations };

    fn written(limits: &Limits, standing: &Standing) -> HeaderMap {
        let mut headers = HeaderMap::new();
        Policies::of(limits).write(None, standing, &mut headers);
        headers
    }

    #[test]
    fn r62_names_are_quoted_strings_and_policies_are_those_of_the_configuration() {
        let mut standing = Standing::default();
        standing.set(TOTAL, Level { remaining: 0, seconds: 17 });
        standing.set(USER, Level { remaining: 59, seconds: 1 });
        let headers = written(&Limits::default(), &standing);
        assert_eq!(
            headers["ratelimit-policy"],
            "\"user.requests\";q=60;w=60, \"user.generations\";q=6;w=60, \"address.requests\";q=600;w=60, \
             \"total.generations\";q=60;w=60"
        );
        assert_eq!(headers["ratelimit"], "\"user.requests\";r=59;t=1, \"total.generations\";r=0;t=17");
    }

    #[test]
    fn a_day_is_a_window_of_its_seconds_and_a_full_bucket_has_no_time() {
        let day = Some(Rate { count: 1000, per: Duration::from_secs(86_400) });
        let none = Rates::default();
        let user = Rates { requests: day, generations: None };
        let limits = Limits { user, team: none, address: none, total: none, tracked: 1 };
        let mut standing = Standing::default();
        standing.set(USER, Level { remaining: 1000, seconds: 0 });
        let headers = written(&limits, &standing);
        assert_eq!(headers["ratelimit-policy"], "\"user.requests\";q=1000;w=86400");
        assert_eq!(headers["ratelimit"], "\"user.requests\";r=1000");
    }

    #[test]
    fn without_a_limit_there_is_no_header() {
        assert!(written(&Limits::default(), &Standing::default()).is_empty());
    }

    #[test]
    fn the_later_standing_counts() {
        let (mut one, mut other) = (Standing::default(), Standing::default());
        one.set(USER, Level { remaining: 2, seconds: 1 });
        one.set(TOTAL, Level { remaining: 9, seconds: 1 });
        other.set(USER, Level { remaining: 1, seconds: 1 });
        let both: Vec<_> = one.then(other).levels().map(|(limit, level)| (limit, level.remaining)).collect();
        assert_eq!(both, [(USER, 1), (TOTAL, 9)]);
    }
}
