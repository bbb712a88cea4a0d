//! Teams with limits of their own.

use super::*;
use crate::access::passes::Passes;
use crate::access::settings::{Access, Mode, Team};
use crate::access::teams::Teams;
use crate::access::token::Tokens;
use crate::request::client::Clients;
use crate::request::head::Header;

/// The keys of two users, one of each team.
fn users(clients: &Clients) -> [Who; 2] {
    ["studio", "lab"].map(|team| {
        let key = crate::access::settings::Key {
            id: "one".to_owned(),
            sha256: crate::access::format::Digest::of(team),
            ..Default::default()
        };
        let team = Team { name: team.to_owned(), keys: vec![key], ..Team::default() };
        let teams = Teams::new(&Access { mode: Mode::Keys, ..Access::default() }, std::slice::from_ref(&team));
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", team.name);
        headers.insert(hyper::header::AUTHORIZATION, bearer.parse().unwrap());
        let pass = Passes::of(&teams)
            .identify(&teams, &Header::of(&headers), &Tokens::new(&[0; 32]), &Clock::system())
            .unwrap();
        let mut client = clients.identify([192, 0, 2, 1].into(), pass);
        client.name(Some(&clients.user(client.team(), "ada")));
        *client.who()
    })
}

fn drain(limits: &Limits, who: &Who) -> usize {
    std::iter::from_fn(|| limits.generations(who).ok()).count()
}

#[test]
fn a_team_has_its_own_limits_and_a_reload_measures_each_debt_by_its_own() {
    let clients = Clients::keyed([7; 32]);
    let [of_studio, of_lab] = users(&clients);
    let bench = Bench::new(&off());
    bench.pass(60 * MINUTE);
    let own = |limits| [(clients.team("studio"), generations(limits))];
    bench.limits.reload(&generations(rate(6, MINUTE)), &own(rate(60, MINUTE)));
    assert_eq!((drain(&bench.limits, &of_studio), drain(&bench.limits, &of_lab)), (60, 6));

    // Only everybody's changes: six of twelve are used; of the team's own sixty, all.
    bench.limits.reload(&generations(rate(12, MINUTE)), &own(rate(60, MINUTE)));
    assert_eq!((drain(&bench.limits, &of_studio), drain(&bench.limits, &of_lab)), (0, 6));
    // Only the team's changes.
    bench.limits.reload(&generations(rate(12, MINUTE)), &own(rate(70, MINUTE)));
    assert_eq!((drain(&bench.limits, &of_studio), drain(&bench.limits, &of_lab)), (10, 0));
    // It has none of its own any more: it owes for more than everybody's whole window.
    bench.limits.reload(&generations(rate(12, MINUTE)), &[]);
    assert_eq!((drain(&bench.limits, &of_studio), drain(&bench.limits, &of_lab)), (0, 0));
    bench.pass(MINUTE);
    assert_eq!((drain(&bench.limits, &of_studio), drain(&bench.limits, &of_lab)), (12, 12));
}

#[test]
fn what_was_not_sent_comes_back_by_the_teams_own_measure() {
    let clients = Clients::keyed([7; 32]);
    let [of_studio, _] = users(&clients);
    let bench = Bench::new(&off());
    bench.pass(60 * MINUTE);
    bench.limits.reload(&generations(rate(1, MINUTE)), &[(clients.team("studio"), generations(rate(3, MINUTE)))]);
    let (taken, _) = bench.limits.generations(&of_studio).unwrap();
    assert_eq!(drain(&bench.limits, &of_studio), 2);
    bench.limits.give_back(taken);
    assert_eq!(drain(&bench.limits, &of_studio), 1);
}
