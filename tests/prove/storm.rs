//! The faults: what happens to the replicas, to Redis and to the upstream, one thing after another.

use std::time::Duration;

use reelgate::simulator::{CutAt, Fault as UpstreamFault, Form, How};
use rustix::process::Signal;
use tokio::time::sleep;

use super::arguments::{Arguments, Fault};
use super::dice::Dice;
use super::run::World;

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Damage {
    pub kills: usize,
    pub freezes: usize,
    pub terms: usize,
    pub drops: usize,
    pub redis_kills: usize,
    pub redis_freezes: usize,
    pub redis_flushes: usize,
}

/// What may happen next, and how often of a hundred times.
const STORM: &[(Option<Fault>, usize)] = &[
    (None, 55),
    (Some(Fault::Freeze), 15),
    (Some(Fault::Term), 10),
    (Some(Fault::Drop), 5),
    (Some(Fault::RedisKill), 5),
    (Some(Fault::RedisFreeze), 5),
    (Some(Fault::RedisFlush), 5),
];

/// What the replicas are given to put back what an emptied Redis has lost.
const PUT_BACK: Duration = Duration::from_secs(3);

/// One fault of a storm; a replica is killed where nothing else is thrown or allowed.
pub async fn strike(world: &mut World, dice: &mut Dice) -> Result<(), String> {
    let mut thrown = dice.below(100);
    let chosen = STORM.iter().find(|(_, weight)| {
        let is_it = thrown < *weight;
        thrown = thrown.saturating_sub(*weight);
        is_it
    });
    let fault = chosen.and_then(|(fault, _)| *fault).filter(|fault| world.arguments.may(*fault));
    // Most deaths come while submissions are on their way.
    sleep(dice.millis(20, 400)).await;
    match fault {
        Some(fault) => calm_fault(world, dice, fault).await,
        None => {
            let replica = dice.pick(&world.replicas).clone();
            if dice.happens(10) {
                replica.signal(Signal::STOP);
                sleep(dice.millis(1, 300)).await;
            }
            replica.kill();
            world.damage.kills += 1;
            world.died();
            sleep(dice.millis(0, 100)).await;
            replica.start().await
        }
    }
}

/// One fault of a calm: no replica dies.
pub async fn ruffle(world: &mut World, dice: &mut Dice) -> Result<(), String> {
    sleep(dice.millis(50, 300)).await;
    let all = [Fault::Freeze, Fault::Drop, Fault::RedisKill, Fault::RedisFreeze, Fault::RedisFlush];
    let fault = *dice.pick(&all);
    if world.arguments.may(fault) { calm_fault(world, dice, fault).await } else { Ok(()) }
}

async fn calm_fault(world: &mut World, dice: &mut Dice, fault: Fault) -> Result<(), String> {
    let replica = dice.pick(&world.replicas).clone();
    match fault {
        Fault::Freeze => {
            world.damage.freezes += 1;
            replica.signal(Signal::STOP);
            sleep(dice.millis(1, 1500)).await;
            replica.signal(Signal::CONT);
        }
        Fault::Term => {
            world.damage.terms += 1;
            replica.end().await?;
            world.died();
            replica.start().await?;
        }
        Fault::Drop => {
            world.damage.drops += 1;
            for _ in 0..=dice.below(8) {
                world.upstream.next_connection(*dice.pick(&[How::Fin, How::Reset]));
            }
        }
        Fault::RedisKill | Fault::RedisFreeze | Fault::RedisFlush => {
            let (deaths, books) = (world.deaths(), world.books.clone());
            let Some(redis) = &mut world.redis else { return Ok(()) };
            match fault {
                Fault::RedisKill => {
                    world.damage.redis_kills += 1;
                    redis.kill(dice.millis(0, 500)).await?;
                }
                Fault::RedisFreeze => {
                    world.damage.redis_freezes += 1;
                    redis.freeze(dice.millis(1, 2000)).await;
                }
                _ => {
                    world.damage.redis_flushes += 1;
                    redis.flush().await?;
                    books.flushed(deaths);
                    // A replica that dies before it has put back what it alone knew is one fault too many (M26).
                    sleep(PUT_BACK).await;
                }
            }
        }
        // These two happen all the time.
        Fault::Cut | Fault::Leave => {}
    }
    Ok(())
}

/// What the upstream does with one submission: it delays its answer, or ends the connection at any byte of the request or
/// of the answer, with and without a job.
pub fn upstream_fault(arguments: &Arguments, dice: &mut Dice) -> UpstreamFault {
    let delay = UpstreamFault::Delay(dice.millis(0, *dice.clone().pick(&[5, 20, 80, 300])));
    if !arguments.may(Fault::Cut) || !dice.happens(12) {
        return delay;
    }
    let how = *dice.pick(&[How::Fin, How::Reset, How::Stall]);
    let accepted = dice.happens(50);
    let cut = match dice.below(14) {
        0..3 => UpstreamFault::Cut { at: CutAt::Within(dice.below(400)), how, accepted: true },
        3 => UpstreamFault::Cut { at: CutAt::BeforeEnd, how, accepted: true },
        4 | 5 => UpstreamFault::Cut { at: CutAt::BeforeAnswer, how, accepted },
        6 | 7 => UpstreamFault::cut(CutAt::Request(dice.below(200)), how),
        8 => UpstreamFault::cut(CutAt::BeforeRead, how),
        9 => UpstreamFault::cut(CutAt::AfterHeader, how),
        10 => UpstreamFault::cut(CutAt::AfterAnswer, how),
        11 => return UpstreamFault::status(524, Form::Html).and_accepted(),
        12 => return UpstreamFault::status(500, Form::comet("internal_error")),
        // Its client has been told by then that nobody knows, or nobody even reads for it any more.
        _ => return UpstreamFault::Delay(*dice.pick(&[Duration::from_millis(1500), Duration::from_millis(2500)])),
    };
    UpstreamFault::All(vec![delay, cut])
}
