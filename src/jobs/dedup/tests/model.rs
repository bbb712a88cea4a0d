//! Two replicas as state machines over the shared ledger, any of their steps at any time: submissions, clients that leave,
//! replicas that freeze anywhere and wake, answers of all kinds. What must hold whatever happens is told apart from how it
//! is done; and each rule that is left out on purpose is seen to be missed.

mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::world::World;
use super::shared::Broken;

/// What happens next. Numbers pick one of those there are.
#[derive(Clone, Debug)]
enum Event {
    Submit {
        replica: usize,
        wants: Wants,
    },
    Leave(usize),
    /// An attempt takes its next step.
    Go(usize),
    Freeze(usize),
    Wake(usize),
    Pass(u32),
    /// The upstream ends one of its calls.
    Answer(usize, Reaction),
    /// A job fails.
    End(usize),
}

#[derive(Clone, Copy, Debug)]
struct Wants {
    prompt: u8,
    caller: u8,
    no_cache: bool,
    key: Option<u8>,
}

/// What the upstream does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    Created,
    Refused,
    /// The connection breaks.
    Broken,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let wants = (1..=2_u8, 1..=2_u8, prop::bool::weighted(0.15), prop::option::weighted(0.5, 1..=2_u8))
        .prop_map(|(prompt, caller, no_cache, key)| Wants { prompt, caller, no_cache, key });
    let reaction = prop_oneof![3 => Just(Reaction::Created), 2 => Just(Reaction::Refused), 1 => Just(Reaction::Broken)];
    let event = prop_oneof![
        5 => (0..2_usize, wants).prop_map(|(replica, wants)| Event::Submit { replica, wants }),
        1 => (0..8_usize).prop_map(Event::Leave),
        8 => (0..4_usize).prop_map(Event::Go),
        2 => (0..2_usize).prop_map(Event::Freeze),
        2 => (0..2_usize).prop_map(Event::Wake),
        4 => (1..40_u32).prop_map(Event::Pass),
        3 => (0..4_usize, reaction).prop_map(|(which, reaction)| Event::Answer(which, reaction)),
        1 => (0..4_usize).prop_map(Event::End),
    ];
    prop::collection::vec(event, 1..80)
}

/// Runs the same sequences, whatever is broken; gives what was seen to be wrong, if its words hold `sign`.
fn run(broken: Broken, sign: &str, cases: u32) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&events(), |events| {
        let mut world = World::new(broken);
        events.iter().for_each(|event| world.happen(event));
        world.finish();
        match world.faults.iter().find(|fault| fault.contains(sign)) {
            None => Ok(()),
            Some(fault) => Err(TestCaseError::fail(fault.clone())),
        }
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, events)) => Err(format!("{why}: {events:#?}")),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn m1_to_m6_two_replicas_never_buy_twice_and_lose_nothing() {
    if let Err(fault) = run(Broken::Nothing, "", 2_000) {
        panic!("{fault}");
    }
}

#[test]
fn each_rule_that_is_left_out_is_missed() {
    for (broken, sign) in [
        (Broken::FreeWithoutCompare, "was sent beside"),
        (Broken::NoGate, "was sent beside"),
        (Broken::SendingWithoutCompare, "was sent beside"),
        (Broken::LapsedSendingIsFree, "was sent beside"),
        (Broken::LateOutcomesAreDropped, "was lost"),
        (Broken::LapsedKeysAreFree, "has its key"),
    ] {
        assert!(run(broken, sign, 3_000).is_err(), "nobody missed {broken:?}");
    }
}
