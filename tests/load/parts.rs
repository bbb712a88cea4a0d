//! The pure parts alone: nanoseconds of each, the median of the quieter half of many batches. A loop of our own, because
//! a library for it would bring more code than it saves here, and its numbers would move as much on a busy machine.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{StatusCode, Version};
use reelgate::access::teams::Pass;
use reelgate::admission::rate::Limits;
use reelgate::admission::settings::{self, Rate, Rates};
use reelgate::clock::Clock;
use reelgate::jobs::observe;
use reelgate::request::client::Clients;
use reelgate::request::fingerprint::{FingerprintKey, Sharing};
use reelgate::request::json;
use reelgate::request::route::Operation;
use reelgate::request::schema::Schema;
use reelgate::request::settings::UnknownFields;
use reelgate::request::verbatim::Verbatim;
use reelgate::upstream::headers::{Passed, Via};
use reelgate::upstream::key::UpstreamKey;
use reelgate::upstream::wire::cleaned;

use super::race::middle;
use super::{requests, upstream};
use reelgate::request::head::Header;

/// `load parts`.
#[derive(Args)]
pub struct Parts {
    /// Only parts with this in their name.
    #[arg(default_value = "")]
    filter: String,
}

impl Parts {
    /// Times them.
    pub fn run(&self) {
        println!("{:<44} {:>12}", "", "ns");
        self.bodies("600 bytes", &requests::body(NUMBER, "", "user-1"));
        self.bodies("4 MB with an image", &requests::body(NUMBER, &requests::image(), "user-1"));
        self.polls();
        self.limits();
    }

    /// What a submission's body goes through.
    fn bodies(&self, size: &str, body: &str) {
        let bytes = Bytes::from(body.to_owned());
        let fields = json::parse(&bytes).unwrap();
        let schema = Schema::builtin(Operation::Generations);
        let (key, verbatim) = (FingerprintKey::random().unwrap(), Verbatim::default());
        let sharing = Sharing { origin: "https://api.example", team: Some("studio"), ..Sharing::default() };
        self.time(&format!("strict JSON, {size}"), || json::parse(black_box(&bytes)).unwrap());
        self.time(&format!("schema, {size}"), || schema.check(black_box(&fields), UnknownFields::Forward));
        let name = || key.fingerprint(&sharing, Operation::Generations, black_box(&fields), None, &[]);
        self.time(&format!("fingerprint, {size}"), name);
        self.time(&format!("name of the same bytes, {size}"), || verbatim.name(&[black_box(&bytes)]));
    }

    /// What a poll goes through.
    fn polls(&self) {
        let (_, body) = upstream::POLL.split_once("\r\n\r\n").unwrap();
        self.time("observation of a poll's answer", || observe::read(StatusCode::OK, black_box(body.as_bytes())));
        let key = UpstreamKey::parse(upstream::KEY).unwrap();
        let head = || cleaned(black_box(upstream::POLL.as_bytes()), key.pattern()).unwrap();
        self.time("head of an answer, read and cleaned", head);
        let via = Via::new("reelgate-00000000").unwrap();
        let names = [("host", "localhost"), ("accept", "application/json"), ("authorization", "Bearer any")];
        let asked: HeaderMap = names
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .into_iter()
            .collect();
        self.time("header rules of a request", || Passed::of(&Header::of(black_box(&asked)), Version::HTTP_11, &via));
    }

    /// What the limits take.
    fn limits(&self) {
        let rates = Rates { requests: plenty(), generations: plenty() };
        let all = settings::Limits { user: rates, team: rates, address: rates, total: rates, tracked: 1_000_000 };
        let limits = Limits::new(&all, Clock::system());
        let clients = Clients::keyed([7; 32]);
        let mut client = clients.identify(IpAddr::V4(Ipv4Addr::LOCALHOST), std::rc::Rc::new(Pass::open()));
        let user = clients.user(client.team(), "user-1");
        self.time("naming a client by its user", || client.name(black_box(Some(&user))));
        self.time("limiter: the address", || limits.before_body(black_box(client.who())).is_ok());
        self.time("limiter: user, team and total", || limits.requests(black_box(client.who())).is_ok());
        let generation = || {
            if let Ok((taken, _)) = limits.generations(black_box(client.who())) {
                limits.give_back(taken);
            }
        };
        self.time("limiter: a generation, given back", generation);
        // A user at a time, so that the table has many buckets.
        let crowd: Vec<_> = (0..100_000)
            .map(|user| {
                client.name(Some(&clients.user(&client.team().clone(), &format!("user-{user}"))));
                client.clone()
            })
            .collect();
        let mut next = 0;
        let one_of_many = || {
            next = (next + 7_919) % crowd.len();
            limits.requests(crowd[next].who()).is_ok()
        };
        self.time("limiter: one of 100,000 users", one_of_many);
    }

    fn time<T>(&self, name: &str, mut part: impl FnMut() -> T) {
        if !name.contains(&self.filter) {
            return;
        }
        // As many as take about a millisecond.
        let begun = Instant::now();
        let mut count = 0_u32;
        while begun.elapsed().as_micros() < 20_000 || count == 0 {
            black_box(part());
            count += 1;
        }
        let each = (count / 20).max(1);
        let batch = |_| {
            let begun = Instant::now();
            for _ in 0..each {
                black_box(part());
            }
            begun.elapsed().as_nanos() as f64 / f64::from(each)
        };
        let mut batches: Vec<f64> = (0..BATCHES).map(batch).collect();
        batches.sort_by(f64::total_cmp);
        batches.truncate(BATCHES / 2);
        println!("{name:<44} {:>12.0}", middle(batches));
    }
}

fn plenty() -> Option<Rate> {
    Some(Rate { count: 1_000_000, per: std::time::Duration::from_secs(1) })
}

/// How many batches are timed.
const BATCHES: usize = 60;
/// A submission's number.
const NUMBER: &str = "00000000000000000001";
