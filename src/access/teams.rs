//! The teams of the configuration, made ready to be looked up: by the digest of a key that was presented, so that
//! nothing about a key can be learned from the time it takes, and by the name that a token carries.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use hyper::header::{HeaderMap, ORIGIN};

use super::format::Digest;
use super::settings::{self, Access, Gate, Mode};
use super::token::{self, Tokens};
use crate::clock::{Clock, Time};
use crate::error::Error;
use crate::request::client::BucketKey;

/// All teams.
#[derive(Debug)]
pub struct Teams {
    mode: Mode,
    /// Everybody's in mode `open`.
    open: Pass,
    by_digest: HashMap<Digest, Found>,
    by_name: HashMap<Arc<str>, Arc<Team>>,
}

/// A key, and whose it is.
type Found = (Arc<Team>, Arc<Key>);

/// One team.
#[derive(Debug)]
pub struct Team {
    /// Its name.
    pub name: Arc<str>,
    /// What it may ask for; empty: everything.
    models: Vec<String>,
    keys: Vec<Arc<Key>>,
    /// How the limits know it, once somebody has asked.
    pub bucket: OnceLock<BucketKey>,
}

/// One gateway key, as far as it is known here.
#[derive(Debug)]
pub struct Key {
    /// How logs name it.
    pub id: Arc<str>,
    /// What ties tokens to this key: another under the same id has another.
    pub mark: String,
    expires: Option<Time>,
    disabled: bool,
    models: Vec<String>,
    routes: Vec<Gate>,
    origins: Vec<String>,
    /// How the limits know whoever shows it and names no user, once somebody has asked.
    pub bucket: OnceLock<BucketKey>,
}

impl Teams {
    /// The teams of a configuration that has been checked.
    pub fn new(access: &Access, teams: &[settings::Team]) -> Self {
        let team = |team: &settings::Team| {
            let keys = team.keys.iter().map(|key| Arc::new(Key::new(key))).collect();
            Arc::new(Team::new(&team.name, team.models.clone(), keys))
        };
        let (mut by_digest, mut by_name) = (HashMap::new(), HashMap::new());
        for settings in teams {
            let team = team(settings);
            for (digest, key) in settings.keys.iter().map(|key| key.sha256).zip(&team.keys) {
                by_digest.insert(digest, (team.clone(), key.clone()));
            }
            by_name.insert(team.name.clone(), team);
        }
        Self { mode: access.mode, open: Pass::open(), by_digest, by_name }
    }

    /// Whether everybody may call.
    pub fn is_open(&self) -> bool {
        self.mode == Mode::Open
    }

    /// What everybody has in mode `open`.
    pub(super) const fn everybody(&self) -> &Pass {
        &self.open
    }

    /// The names of the teams that may call.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let open = self.is_open().then_some(&self.open.team.name);
        open.into_iter().chain(self.by_name.keys().filter(|_| !self.is_open()))
    }

    /// How many teams may call.
    pub fn count(&self) -> usize {
        if self.is_open() { 1 } else { self.by_name.len() }
    }

    /// What a gateway key is worth that was found by its digest, whether or not it is good now.
    pub(super) fn of_key(&self, presented: &str) -> Result<Pass, NoPass> {
        let (team, key) = self
            .by_digest
            .get(&Digest::of(presented))
            .cloned()
            .ok_or_else(|| NoPass::Refused("unknown key".to_owned()))?;
        Ok(Pass { team, key: Some(key), grant: None })
    }

    /// A token is worth what its key is worth, at every use.
    pub(super) fn of_token(&self, presented: &str, tokens: &Tokens, clock: &Clock) -> Result<Pass, NoPass> {
        let grant = tokens.read(presented, clock.now()).map_err(|why| NoPass::Refused(why.to_owned()))?;
        let team = self.by_name.get(grant.team.as_str());
        let key = team.and_then(|team| team.keys.iter().find(|key| *key.id == *grant.key && key.mark == grant.mark));
        let gone = || NoPass::Refused(format!("token of a key that is gone: {} {}", grant.team, grant.key));
        let (team, key) = team.zip(key).ok_or_else(gone)?;
        key.check(team, clock)?;
        Ok(Pass { team: team.clone(), key: Some(key.clone()), grant: Some(Arc::new(grant)) })
    }
}

impl Team {
    fn new(name: &str, models: Vec<String>, keys: Vec<Arc<Key>>) -> Self {
        Self { name: name.into(), models, keys, bucket: OnceLock::new() }
    }
}

impl Key {
    fn new(key: &settings::Key) -> Self {
        let mark = blake3::derive_key("reelgate mark of a gateway key in its tokens", key.sha256.as_bytes());
        Self {
            id: key.id.as_str().into(),
            mark: hex::encode(mark.get(..8).unwrap_or_default()),
            expires: key.expires,
            disabled: key.disabled,
            models: key.models.clone(),
            routes: key.routes.clone(),
            origins: key.origins.clone(),
            bucket: OnceLock::new(),
        }
    }

    /// Whether it is good now. Most keys never expire, and the clock is read for no others.
    fn check(&self, team: &Team, clock: &Clock) -> Result<(), NoPass> {
        let named = |what: &str| NoPass::Refused(format!("{what} key {} of team {}", self.id, team.name));
        if self.disabled {
            return Err(named("disabled"));
        }
        if self.expires.is_some_and(|expires| expires <= clock.now()) {
            return Err(named("expired"));
        }
        Ok(())
    }
}

/// Why a request is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPass {
    /// It says nothing of who sends it.
    Missing,
    /// It says so more than once.
    Several,
    /// What it says is worth nothing; why, for the log alone.
    Refused(String),
}

/// Who sends a request, and what they may.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The team.
    pub team: Arc<Team>,
    /// The gateway key, or the one that the token was made with; in mode `open` none.
    pub key: Option<Arc<Key>>,
    /// What the token says, if it was a token.
    pub grant: Option<Arc<token::Grant>>,
}

impl Pass {
    /// What everybody has in mode `open`.
    pub fn open() -> Self {
        let team = Team::new(OPEN, Vec::new(), Vec::new());
        Self { team: Arc::new(team), key: None, grant: None }
    }

    /// Whether its key is still good.
    pub(super) fn check(&self, clock: &Clock) -> Result<(), NoPass> {
        self.key.as_ref().map_or(Ok(()), |key| key.check(&self.team, clock))
    }

    /// The user that a token fixes.
    pub fn user(&self) -> Option<&str> {
        self.grant.as_deref().map(|grant| grant.user.as_str())
    }

    /// Whether it opens this gate.
    ///
    /// # Errors
    /// [`Error::RouteNotAllowed`].
    pub fn check_route(&self, gate: Gate) -> Result<(), Error> {
        let Some(key) = &self.key else { return Ok(()) };
        let granted = self.grant.as_deref().map(|grant| grant.routes.as_slice()).unwrap_or_default();
        let opens = |routes: &[Gate]| routes.is_empty() || routes.contains(&gate);
        // What a token could make would outlive it.
        let mints = gate == Gate::ClientTokens && self.grant.is_some();
        if mints || !opens(&key.routes) || !opens(granted) {
            return Err(Error::RouteNotAllowed { route: gate.name() });
        }
        Ok(())
    }

    /// Whether this page, or whoever calls without one, may use it.
    ///
    /// # Errors
    /// [`Error::OriginRefused`].
    pub fn check_origin(&self, gate: Gate, headers: &HeaderMap) -> Result<(), Error> {
        let Some(key) = self.key.as_ref().filter(|key| !key.origins.is_empty()) else { return Ok(()) };
        // A browser names the page with every POST, but not with a GET to the page's own origin; and tokens for those
        // pages are made behind them.
        let known = match headers.get(ORIGIN) {
            Some(origin) => key.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
            None => matches!(gate, Gate::Poll | Gate::ClientTokens),
        };
        if known { Ok(()) } else { Err(Error::OriginRefused) }
    }

    /// Whether it may ask for this model.
    ///
    /// # Errors
    /// [`Error::ModelNotAllowed`].
    pub fn check_model(&self, model: Option<&str>) -> Result<(), Error> {
        let of_key = self.key.as_deref().map(|key| key.models.as_slice()).unwrap_or_default();
        let granted = self.grant.as_deref().map(|grant| grant.models.as_slice()).unwrap_or_default();
        let lists = [self.team.models.as_slice(), of_key, granted];
        let allowed =
            |list: &[String]| list.is_empty() || model.is_some_and(|model| list.iter().any(|allowed| allowed == model));
        if lists.into_iter().all(allowed) { Ok(()) } else { Err(Error::ModelNotAllowed { param: "model" }) }
    }
}

/// The team of everybody in mode `open`.
pub const OPEN: &str = "open";

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::AtomicU64;

    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;
    use crate::access::passes::Passes;
    use crate::request::head::Header;

    fn key(id: &str, text: &str) -> settings::Key {
        settings::Key { id: id.to_owned(), sha256: Digest::of(text), ..settings::Key::default() }
    }

    fn teams(keys: Vec<settings::Key>) -> Teams {
        let access = Access { mode: Mode::Keys, ..Access::default() };
        let team = settings::Team { name: "studio".to_owned(), keys, ..settings::Team::default() };
        Teams::new(&access, &[team])
    }

    fn identify(teams: &Teams, presented: &str, now: u64) -> Result<Rc<Pass>, NoPass> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {presented}")).unwrap());
        let clock = Clock::manual(Arc::new(AtomicU64::new(now)));
        Passes::of(teams).identify(teams, &Header::of(&headers), &Tokens::new(&[7; 32]), &clock)
    }

    #[test]
    fn a_key_is_found_by_its_digest_until_it_is_switched_off_or_expires() {
        let expires = Some(Time::from_millis(1_000));
        let teams = teams(vec![
            key("a", "secret a"),
            settings::Key { expires, ..key("b", "secretb") },
            settings::Key { disabled: true, ..key("c", "secretc") },
            key("d", "secretd"),
        ]);
        assert_eq!(*identify(&teams, "secretd", 0).unwrap().key.as_ref().unwrap().id, *"d");
        assert!(identify(&teams, "secretb", 999).is_ok());
        for (presented, why) in [("secretb", "expired key b"), ("secretc", "disabled key c"), ("x", "unknown key")] {
            let Err(NoPass::Refused(told)) = identify(&teams, presented, 1_000) else { panic!("{presented}") };
            assert!(told.starts_with(why) && !told.contains(presented), "{told}");
        }
    }

    #[test]
    fn a_token_is_worth_what_its_key_is_worth() {
        let tokens = Tokens::new(&[7; 32]);
        let (one, other) = (teams(vec![key("a", "one")]), teams(vec![key("a", "another under the same id")]));
        let pass = identify(&one, "one", 0).unwrap();
        let grant = token::Grant::of(&pass, "alice".to_owned(), Vec::new(), Vec::new(), Time::from_millis(60_000));
        let token = tokens.sign(&grant.unwrap(), Time::from_millis(0)).unwrap();
        assert_eq!(identify(&one, &token, 59_999).unwrap().user(), Some("alice"));
        for (teams, now, why) in [
            (&one, 60_000, "expired"),
            (&other, 0, "token of a key that is gone: studio a"),
            (&teams(vec![settings::Key { disabled: true, ..key("a", "one") }]), 0, "disabled key a"),
            (&teams(vec![key("b", "one")]), 0, "token of a key that is gone"),
        ] {
            let Err(NoPass::Refused(told)) = identify(teams, &token, now) else { panic!("{why}") };
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn t30_a_key_that_is_nearly_right_is_as_unknown_as_any() {
        let teams = teams(vec![key("a", "rg_0123456789ABCDEFGHIJKLMNOPQRST4PMbyp")]);
        let near = ["xg_0123456789ABCDEFGHIJKLMNOPQRST4PMbyp", "rg_0123456789ABCDEFGHIJKLMNOPQRST4PMbyx", "rg_"];
        for presented in near {
            assert_eq!(identify(&teams, presented, 0).unwrap_err(), NoPass::Refused("unknown key".to_owned()));
        }
    }

    /// That the time tells nothing follows from the look-up by digest; here it can be seen (`--nocapture`).
    #[test]
    fn t30_the_time_of_a_refusal_does_not_say_where_a_key_is_wrong() {
        let right = "rg_0123456789ABCDEFGHIJKLMNOPQRST4PMbyp";
        let (first, last) = (["x", &right[1..]].concat(), [&right[..right.len() - 1], "x"].concat());
        let mut keys: Vec<_> = (0..50).map(|number| key(&number.to_string(), &format!("key {number}"))).collect();
        keys.insert(25, key("right", right));
        let (teams, tokens) = (teams(keys), Tokens::new(&[7; 32]));
        let (passes, clock) = (Passes::of(&teams), Clock::system());
        let kinds = [("wrong at the first byte", &*first), ("wrong at the last byte", &*last), ("right", right)];
        let kinds = kinds.map(|(name, presented)| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {presented}")).unwrap());
            (name, headers)
        });
        let mut times = [const { Vec::new() }; 3];
        // In turns, so that whatever else the machine does falls on all alike.
        for round in 0..100_000 {
            for place in 0..kinds.len() {
                let place = (place + round) % kinds.len();
                let begun = tokio::time::Instant::now();
                let pass = passes.identify(&teams, &Header::of(&kinds[place].1), &tokens, &clock);
                times[place].push(begun.elapsed().as_nanos());
                assert_eq!(pass.is_ok(), place == 2);
            }
        }
        for (times, (name, _)) in times.iter_mut().zip(&kinds) {
            times.sort_unstable();
            let at = |percent: usize| times[times.len() * percent / 100];
            println!("{name}: median {} ns, quartiles {} and {} ns", at(50), at(25), at(75));
        }
    }
}
