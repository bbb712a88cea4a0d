//! How many connections may be open, in all and for one address. The table of addresses holds only those with an open
//! connection, so the connections themselves bound it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::proxies::Proxies;
use super::settings::Settings;
use super::tally::{Closed, Tally};

/// The seats of one listener, shared by its workers.
#[derive(Debug)]
pub(super) struct Seats {
    limit: usize,
    limit_per_address: usize,
    /// They stand for many, so they have no cap as an address.
    proxies: Proxies,
    taken: Mutex<Taken>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<Address, usize>,
}

impl Seats {
    pub(super) fn new(settings: &Settings, tally: Arc<Tally>) -> Arc<Self> {
        let limit = match affordable(settings.connections) {
            Some(affordable) => {
                tracing::warn!(
                    connections = affordable,
                    "server.connections is more than half of the open files allowed, so that half is the limit"
                );
                affordable
            }
            None => settings.connections,
        };
        let limit_per_address = settings.connections_per_address;
        let proxies = Proxies::new(settings);
        Arc::new(Self { limit, limit_per_address, proxies, taken: Mutex::default(), tally })
    }

    /// A seat for a connection from `address`, or why there is none.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Closed> {
        let limit_per_address = if self.proxies.include(address) { self.limit } else { self.limit_per_address };
        let address = Address::of(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.limit {
            return Err(Closed::Full);
        }
        let count = taken.by_address.entry(address).or_default();
        if *count >= limit_per_address {
            if *count == 0 {
                taken.by_address.remove(&address);
            }
            return Err(Closed::AddressFull);
        }
        *count += 1;
        taken.all += 1;
        self.tally.connection_opened();
        Ok(Seat { seats: Arc::clone(self), address })
    }
}

/// One open connection; its place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: Address,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Entry::Occupied(mut entry) = taken.by_address.entry(self.address) {
            match entry.get().checked_sub(1) {
                None | Some(0) => drop(entry.remove()),
                Some(rest) => *entry.get_mut() = rest,
            }
        }
        self.seats.tally.connection_ended();
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one customer has of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    V4(u32),
    V6Net(u64),
}

impl Address {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6Net(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// How many connections this process can afford, if those are fewer than `wanted`: half of the descriptors that it may
/// have, for the rest is for the upstream, the ledger and the admin port. The soft limit is for programs that use
/// `select`, and most systems keep it low: it is raised to the hard one first.
fn affordable(wanted: usize) -> Option<usize> {
    let half = |limit: Rlimit| limit.current.and_then(|current| usize::try_from(current / 2).ok());
    let limit = getrlimit(Resource::Nofile);
    half(limit).filter(|affordable| *affordable < wanted)?;
    // Where there is no hard limit, the kernel still has one that nobody tells.
    let enough = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_mul(2);
    let raised = Rlimit { current: limit.maximum.or(Some(enough)), maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files cannot be raised");
    }
    half(getrlimit(Resource::Nofile)).filter(|affordable| *affordable < wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(connections: usize, connections_per_address: usize) -> Arc<Seats> {
        let settings = Settings { connections, connections_per_address, ..Settings::default() };
        Seats::new(&settings, Arc::new(Tally::default()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lim7_a_full_address_leaves_the_others_their_seats() {
        let seats = seats(4, 2);
        let _first = seats.take(ip("192.0.2.1")).unwrap();
        let second = seats.take(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(seats.take(ip("192.0.2.1")).unwrap_err(), Closed::AddressFull);
        let _third = seats.take(ip("192.0.2.2")).unwrap();
        let _fourth = seats.take(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(seats.take(ip("192.0.2.3")).unwrap_err(), Closed::Full);
        drop(second);
        let _again = seats.take(ip("192.0.2.1")).unwrap();
        assert_eq!(seats.tally.open(), 4);
    }

    #[test]
    fn lim7_a_trusted_proxy_stands_for_many_addresses() {
        let (trusted_proxies, tally) = (vec!["10.0.0.0/8".parse().unwrap()], Arc::new(Tally::default()));
        let settings = Settings { connections: 3, connections_per_address: 1, trusted_proxies, ..Settings::default() };
        let seats = Seats::new(&settings, tally);
        let _taken = [seats.take(ip("10.0.0.1")).unwrap(), seats.take(ip("10.0.0.1")).unwrap()];
        let _third = seats.take(ip("192.0.2.1")).unwrap();
        assert_eq!(seats.take(ip("10.0.0.1")).unwrap_err(), Closed::Full);
    }

    #[test]
    fn lim7_ipv6_counts_by_64_bits() {
        let seats = seats(9, 1);
        let _first = seats.take(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(seats.take(ip("2001:db8:0:1:ffff::9")).unwrap_err(), Closed::AddressFull);
        assert!(seats.take(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn inv7_the_table_of_addresses_is_empty_when_no_connection_is_open() {
        let seats = seats(100, 3);
        let taken: Vec<_> = (0..60_u32).map(|n| seats.take(IpAddr::V4((n % 20).into())).unwrap()).collect();
        assert_eq!(seats.taken.lock().unwrap().by_address.len(), 20);
        assert_eq!(seats.take(ip("0.0.0.5")).unwrap_err(), Closed::AddressFull);
        drop(taken);
        let left = seats.taken.lock().unwrap();
        assert_eq!((left.all, left.by_address.len()), (0, 0));
        assert_eq!(seats.tally.open(), 0);
    }
}
