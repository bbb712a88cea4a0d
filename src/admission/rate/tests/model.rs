//! The limits beside a reference of them: leaky buckets, written as plainly as possible, through random histories.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The reference, a leaky bucket: what is owed, in nanoseconds, drains with time. `full` counts how
/// often the meter was full, which tells whether a token may still come back.
#[derive(Clone, Default)]
struct Meter {
    owed: u64,
    full: u32,
}

impl Meter {
    fn drain(&mut self, nanos: u64) {
        if self.owed > 0 && self.owed <= nanos {
            self.full += 1;
        }
        self.owed = self.owed.saturating_sub(nanos);
    }

    fn fits(&self, quota: Quota) -> bool {
        self.owed + quota.interval.as_u64() <= quota.window.as_u64()
    }

    fn take(&mut self, quota: Quota) {
        self.owed += quota.interval.as_u64();
    }
}

#[derive(Default)]
struct Model {
    meters: HashMap<(Scope, Kind, u64), Meter>,
}

impl Model {
    fn name(scope: Scope, user: u64) -> u64 {
        if scope == Scope::User { user } else { 0 }
    }

    /// Whether all of the scopes have room; then one is taken from each.
    fn take(&mut self, quotas: &Quotas, user: u64, kind: Kind, scopes: &[Scope]) -> Option<Vec<ModelToken>> {
        let asked: Vec<_> = scopes
            .iter()
            .filter_map(|&scope| Some(((scope, kind, Self::name(scope, user)), quotas.get(Limit { scope, kind })?)))
            .collect();
        if !asked.iter().all(|(key, quota)| self.meters.entry(*key).or_default().fits(*quota)) {
            return None;
        }
        let mut tokens = Vec::new();
        for (key, quota) in asked {
            let meter = self.meters.entry(key).or_default();
            meter.take(quota);
            tokens.push((key, quota.interval.as_u64(), meter.full));
        }
        Some(tokens)
    }

    fn give_back(&mut self, quotas: &Quotas, tokens: Vec<ModelToken>) {
        for (key, interval, full) in tokens {
            let Some(meter) = self.meters.get_mut(&key) else { continue };
            if meter.full != full || meter.owed == 0 {
                continue;
            }
            let quota = quotas.get(Limit { scope: key.0, kind: key.1 });
            let interval = quota.map_or(interval, |quota| interval.min(quota.interval.as_u64()));
            meter.owed = meter.owed.saturating_sub(interval);
            if meter.owed == 0 {
                meter.full += 1;
            }
        }
    }

    fn reload(&mut self, old: &Quotas, quotas: &Quotas) {
        for ((scope, kind, _), meter) in &mut self.meters {
            let limit = Limit { scope: *scope, kind: *kind };
            if let Some(quota) = quotas.get(limit) {
                // As many as before, each by the new measure.
                let old = old.get(limit).unwrap_or(quota).interval.as_u64();
                let owed = (u128::from(meter.owed) * u128::from(quota.interval.as_u64())).div_ceil(u128::from(old));
                meter.owed = u64::try_from(owed).unwrap();
                meter.owed = meter.owed.min(quota.window.as_u64());
            }
        }
    }

    fn pass(&mut self, nanos: u64) {
        self.meters.values_mut().for_each(|meter| meter.drain(nanos));
    }
}

type ModelToken = ((Scope, Kind, u64), u64, u32);

#[derive(Clone, Debug)]
enum Act {
    Request(u64),
    Generation(u64),
    GiveBack(usize),
    Pass(u64),
    Sweep,
    Reload(settings::Limits),
}

fn any_rate() -> impl Strategy<Value = Option<Rate>> {
    prop_oneof![
        1 => Just(None),
        3 => (1_u32..9, prop_oneof![Just(SECOND), Just(MINUTE), Just(DAY)]).prop_map(|(count, per)| rate(count, per)),
    ]
}

fn any_rates() -> impl Strategy<Value = Rates> {
    (any_rate(), any_rate()).prop_map(|(requests, generations)| Rates { requests, generations })
}

fn any_limits() -> impl Strategy<Value = settings::Limits> {
    (any_rates(), any_rates(), any_rates(), any_rates()).prop_map(|(user, team, address, total)| settings::Limits {
        user,
        team,
        address,
        total,
        tracked: 1_000,
    })
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u64..3).prop_map(Act::Request),
        6 => (0_u64..3).prop_map(Act::Generation),
        3 => (0_usize..8).prop_map(Act::GiveBack),
        4 => prop_oneof![0_u64..2_000, 0..MINUTE, 0..DAY, Just(10 * SECOND), Just(20 * SECOND)].prop_map(Act::Pass),
        1 => Just(Act::Sweep),
        1 => any_limits().prop_map(Act::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done in whatever order, the limits allow exactly what a leaky bucket for each of them allows, and
    /// a refusal's wait is the shortest after which the same request passes.
    #[test]
    fn the_limits_decide_as_their_model_does(limits in any_limits(), acts in prop::collection::vec(any_act(), 1..120)) {
        let bench = Bench::new(&limits);
        let mut model = Model::default();
        let mut quotas = Quotas::new(&limits);
        let mut tokens: Vec<(Taken, Vec<ModelToken>)> = Vec::new();
        for act in acts {
            let (kind, scopes, user): (_, &[Scope], _) = match act {
                Act::Request(user) => (Kind::Requests, &[Scope::User, Scope::Team, Scope::Total], user),
                Act::Generation(user) => (Kind::Generations, &Scope::ALL, user),
                Act::GiveBack(position) => {
                    if position < tokens.len() {
                        let (taken, modelled) = tokens.remove(position);
                        bench.limits.give_back(taken);
                        model.give_back(&quotas, modelled);
                    }
                    continue;
                }
                Act::Pass(millis) => {
                    bench.pass(millis);
                    model.pass(millis * NANOS_A_MILLISECOND);
                    continue;
                }
                Act::Sweep => {
                    bench.limits.sweep();
                    continue;
                }
                Act::Reload(limits) => {
                    bench.limits.reload(&limits, &[]);
                    let old = std::mem::replace(&mut quotas, Quotas::new(&limits));
                    model.reload(&old, &quotas);
                    continue;
                }
            };
            let want = model.take(&quotas, user, kind, scopes);
            let got = match kind {
                Kind::Requests => bench.limits.requests(&who(user)).map(|_| None),
                Kind::Generations => bench.limits.generations(&who(user)).map(|(taken, _)| Some(taken)),
            };
            match (got, want) {
                (Ok(taken), Some(modelled)) => tokens.extend(taken.map(|taken| (taken, modelled))),
                (Err(refusal), None) => {
                    let millis = u64::try_from(refusal.retry_after.as_millis()).unwrap();
                    prop_assert!(millis >= 1);
                    let mut later = Model { meters: model.meters.clone() };
                    later.pass((millis - 1) * NANOS_A_MILLISECOND);
                    prop_assert!(later.take(&quotas, user, kind, scopes).is_none(), "{refusal:?} is too long");
                    later.pass(NANOS_A_MILLISECOND);
                    prop_assert!(later.take(&quotas, user, kind, scopes).is_some(), "{refusal:?} is too short");
                }
                (got, want) => prop_assert!(false, "{got:?}, but the model says {want:?}"),
            }
        }
    }
}
