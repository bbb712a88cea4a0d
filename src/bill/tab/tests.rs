use super::*;
use crate::bill::charge::{OTHERS, Purse};
use crate::bill::price::Price;
use crate::bill::settings::{Budget, Budgets, Running};
use crate::bill::terms::What;

fn dollars(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

fn attempt(number: u8) -> AttemptId {
    AttemptId::from_bytes([number; 16])
}

/// Noon of 2026-11-26.
const NOON: u64 = 1_795_694_400_000;

fn at(seconds: u64) -> Time {
    Time::from_millis(NOON + seconds * 1000)
}

/// Ten seconds at five cents: half a dollar.
fn charge(user: u8) -> Charge {
    let price = Price { second: dollars("0.05"), images: Amount::ZERO, millis: 10_000 };
    Charge { team: "a".into(), user: [user; 16], name: None, price, purse: None, at: at(0) }
}

fn tab(budgets: Budgets, running: Running) -> Tab {
    let mut tab = Tab::default();
    tab.set_terms(Arc::new(Terms::new(&budgets, running, std::collections::HashMap::new())));
    tab
}

fn user_per_day(amount: &str) -> Budgets {
    Budgets { user: Budget { per_day: Some(dollars(amount)), ..Budget::default() }, ..Budgets::default() }
}

fn used(tab: &Tab, holder: &Holder) -> String {
    let [day, _] = Period::of(at(0));
    tab.accounts(day).find(|(known, _)| *known == holder).map_or_else(String::new, |(_, sums)| sums.used().to_string())
}

#[test]
fn m29_a_budget_holds_to_the_tick_and_is_refused_by_name() {
    let mut tab = tab(user_per_day("1.00"), Running::default());
    for number in 1..=2 {
        assert_eq!(tab.fits(&charge(7)), Ok(()));
        tab.reserve(attempt(number), charge(7));
    }
    let refused = tab.fits(&charge(7)).unwrap_err();
    assert_eq!((refused.limit, refused.kind), ("user.per_day", What::Budget));
    assert_eq!(refused.retry_after, Some(Duration::from_secs(12 * 3600)), "until midnight, UTC");
    assert_eq!(tab.fits(&charge(8)), Ok(()), "another user has a budget of its own");
    tab.release(attempt(1));
    assert_eq!(tab.fits(&charge(7)), Ok(()), "what was not sent is given back");
    assert_eq!(used(&tab, &Holder::Total), "0.50");
}

#[test]
fn seconds_of_video_are_a_budget_of_their_own() {
    let budget = Budget { seconds_per_month: Some(25), ..Budget::default() };
    let mut tab = tab(Budgets { team: budget, ..Budgets::default() }, Running::default());
    tab.reserve(attempt(1), charge(1));
    tab.reserve(attempt(2), charge(2));
    assert_eq!(tab.fits(&charge(3)).unwrap_err().limit, "team.seconds_per_month");
}

#[test]
fn jobs_at_once_are_counted_until_they_end() {
    let mut tab = tab(Budgets::default(), Running { user: Some(1), team: Some(2), total: None });
    tab.reserve(attempt(1), charge(1));
    tab.created(attempt(1));
    assert_eq!(tab.fits(&charge(1)).unwrap_err().limit, "user.running");
    tab.reserve(attempt(2), charge(2));
    let refused = tab.fits(&charge(3)).unwrap_err();
    assert_eq!((refused.limit, refused.kind), ("team.running", What::Running));
    tab.settle(attempt(1), Verdict::Failed { cost: None });
    assert_eq!(tab.fits(&charge(1)), Ok(()));
}

#[test]
fn m29_a_job_is_settled_once_by_the_length_it_has() {
    let mut tab = tab(Budgets::default(), Running::default());
    tab.reserve(attempt(1), charge(1));
    tab.created(attempt(1));
    let done = Verdict::Done { cost: None, length: Some(Duration::from_secs(6)) };
    tab.settle(attempt(1), done);
    tab.settle(attempt(1), done);
    assert_eq!(used(&tab, &Holder::Team("a".into())), "0.30");
    let (_, totals) = tab.totals().next().unwrap();
    assert_eq!((totals.spent, totals.returned), (dollars("0.50"), dollars("0.20")));
}

#[test]
fn m29_what_failed_is_returned_and_what_was_moderated_is_lost() {
    let mut tab = tab(Budgets::default(), Running::default());
    for (number, verdict) in [(1, Verdict::Failed { cost: None }), (2, Verdict::Refused { cost: None })] {
        tab.reserve(attempt(number), charge(1));
        tab.created(attempt(number));
        tab.settle(attempt(number), verdict);
    }
    assert_eq!(used(&tab, &Holder::Total), "0.50");
    let (_, totals) = tab.totals().next().unwrap();
    assert_eq!(totals.lost, [Amount::ZERO, dollars("0.50"), Amount::ZERO]);
    assert_eq!(totals.returned, dollars("0.50"));
    // What the upstream itself says that the refusal cost, where that counts.
    tab.reserve(attempt(3), charge(1));
    tab.created(attempt(3));
    tab.settle(attempt(3), Verdict::Refused { cost: Some(dollars("0.20")) });
    assert_eq!(used(&tab, &Holder::Total), "0.70");
}

#[test]
fn m29_an_unknown_outcome_is_at_risk_then_lost_or_spent() {
    let mut tab = tab(user_per_day("1.00"), Running::default());
    for number in 1..=2 {
        tab.reserve(attempt(number), charge(1));
        tab.doubt(attempt(number), at(600));
        tab.doubt(attempt(number), at(600));
    }
    assert!(tab.fits(&charge(1)).is_err(), "it stays reserved");
    assert_eq!(tab.totals().next().unwrap().1.at_risk, dollars("1.00"));
    // What is told again, late or out of order, changes nothing.
    tab.created(attempt(1));
    tab.created(attempt(1));
    tab.doubt(attempt(1), at(600));
    tab.sweep(at(599), 10);
    assert_eq!(tab.totals().next().unwrap().1.at_risk, dollars("0.50"));
    tab.sweep(at(600), 10);
    let totals = *tab.totals().next().unwrap().1;
    assert_eq!((totals.spent, totals.at_risk, totals.lost[UNKNOWN]), (dollars("0.50"), Amount::ZERO, dollars("0.50")));
    assert!(tab.fits(&charge(1)).is_err(), "lost money is gone too");
}

#[test]
fn m29_what_is_refused_late_is_at_risk_no_more() {
    let mut tab = tab(user_per_day("1.00"), Running::default());
    tab.reserve(attempt(1), charge(1));
    tab.doubt(attempt(1), at(600));
    tab.release(attempt(1));
    tab.sweep(at(600), 10);
    let totals = *tab.totals().next().unwrap().1;
    assert_eq!((totals.at_risk, totals.spent, totals.lost), (Amount::ZERO, Amount::ZERO, [Amount::ZERO; 3]));
    assert_eq!(used(&tab, &Holder::Total), "0.00");
}

#[test]
fn m29_what_is_written_down_comes_back_as_it_was() {
    let mut tab = tab(user_per_day("2.00"), Running::default());
    tab.keep_changed();
    for number in 1..=3 {
        tab.reserve(attempt(number), charge(1));
    }
    assert!(!tab.has_changed(), "a claim is not durable");
    tab.sending(attempt(1));
    tab.sending(attempt(2));
    tab.created(attempt(2));
    tab.sending(attempt(3));
    tab.settle(attempt(3), Verdict::Done { cost: None, length: None });
    let changed = tab.take_changed();

    let mut again = self::tab(user_per_day("2.00"), Running::default());
    for number in changed.tabs {
        if let Some(open) = tab.open(&number) {
            again.restore(number, open.clone(), at(600));
        }
    }
    for key in changed.accounts {
        let (sums, name) = tab.account(&key).unwrap();
        let durable = Sums { reserved: 0, reserved_millis: 0, ..*sums };
        again.restore_account(key, durable, name);
    }
    assert_eq!(used(&again, &Holder::Total), "1.50");
    assert_eq!(again.running(&Holder::Team("a".into())), 2);
    assert_eq!(again.totals().next().unwrap().1.at_risk, dollars("0.50"), "what was being sent");
    again.sweep(at(600), 10);
    assert_eq!(used(&again, &Holder::Total), "1.50");
}

#[test]
fn users_beyond_the_bound_share_one_account() {
    let mut tab = tab(Budgets { tracked: 2, ..user_per_day("1.00") }, Running::default());
    for number in 1..=5 {
        tab.reserve(attempt(number), charge(number));
        if number == 4 {
            assert!(tab.fits(&charge(9)).is_err(), "3 and 4 have used up the shared account");
        }
    }
    let [day, _] = Period::of(at(0));
    assert_eq!(tab.accounts(day).filter(|(holder, _)| matches!(holder, Holder::User(..))).count(), 3);
    assert_eq!(tab.fits(&charge(1)), Ok(()), "who has an account keeps it");
    tab.reserve(attempt(6), Charge { name: Some("carl".into()), ..charge(6) });
    assert_eq!(tab.name_of(&Holder::User("a".into(), OTHERS)), None, "it is nobody's alone");
}

#[test]
fn accounts_that_are_over_are_forgotten() {
    let mut tab = tab(Budgets::default(), Running::default());
    tab.keep_changed();
    tab.reserve(attempt(1), charge(1));
    tab.settle(attempt(1), Verdict::Done { cost: None, length: None });
    tab.sweep(at(2 * 24 * 3600), 10);
    let [day, month] = Period::of(at(0));
    assert_eq!((tab.accounts(day).count(), tab.accounts(month).count()), (0, 3));
    tab.sweep(at(70 * 24 * 3600), 10);
    assert_eq!(tab.accounts(month).count(), 0);
}

#[test]
fn m24_a_token_has_a_budget_for_its_life_and_its_jobs_count_for_its_user_too() {
    let mut tab = tab(user_per_day("1.50"), Running::default());
    // It ends on the next day, and its account is the same on both.
    let until = at(0) + Duration::from_secs(20 * 3600);
    let of = |id: u8, at: Time| {
        let purse = Purse { id: [id; 16], usd: Some(dollars("1.00")), seconds: None, until };
        Charge { purse: Some(purse), at, ..charge(7) }
    };
    tab.reserve(attempt(1), of(1, at(0)));
    let late = at(0) + Duration::from_secs(13 * 3600);
    assert_eq!(tab.fits(&of(1, late)), Ok(()));
    tab.reserve(attempt(2), of(1, late));
    let refused = tab.fits(&of(1, late)).unwrap_err();
    assert_eq!((refused.limit, refused.kind), ("token.budget_usd", What::Budget));
    assert_eq!(refused.retry_after, None, "its end brings nothing back");
    assert_eq!(tab.left(&of(1, late)).last(), Some(&Left { limit: "token.budget_usd", left: 0.0 }));
    assert_eq!(tab.fits(&of(2, late)), Ok(()), "another token has its own");
    tab.release(attempt(2));
    assert_eq!(tab.fits(&of(1, late)), Ok(()), "what was not sent is given back");
    // Its user's budget is not widened.
    for number in 3..=4 {
        tab.reserve(attempt(number), of(number, at(0)));
    }
    assert_eq!(tab.fits(&of(5, at(0))).unwrap_err().limit, "user.per_day");
    assert_eq!(used(&tab, &Holder::Team("a".into())), "1.50");
    let seconds = Purse { id: [9; 16], usd: None, seconds: Some(9), until };
    let long = Charge { purse: Some(seconds), at: late, ..charge(8) };
    assert_eq!(tab.fits(&long).unwrap_err().limit, "token.budget_seconds");
    // Both are gone when the day after its end is over.
    tab.sweep(at(0) + Duration::from_secs(4 * 24 * 3600), 0);
    assert!(tab.account(&seconds.account()).is_none() && tab.account(&of(1, at(0)).purse.unwrap().account()).is_none());
}

#[test]
fn lim13_tokens_beyond_the_bound_share_one_account() {
    let mut tab = tab(Budgets { tracked: 2, ..Budgets::default() }, Running::default());
    let of = |id: u8| {
        let purse = Purse { id: [id; 16], usd: Some(dollars("1.00")), seconds: None, until: at(0) };
        Charge { purse: Some(purse), ..charge(7) }
    };
    for number in 1..=4 {
        assert_eq!(tab.fits(&of(number)), Ok(()), "{number}");
        tab.reserve(attempt(number), of(number));
    }
    assert_eq!(tab.fits(&of(5)).unwrap_err().limit, "token.budget_usd", "two of those without one have used it up");
    assert_eq!(tab.fits(&of(1)), Ok(()), "who has one keeps it");
    let [day, _] = Period::of(at(0));
    assert_eq!(tab.accounts(day).filter(|(holder, _)| matches!(holder, Holder::Token(_))).count(), 3);
}
