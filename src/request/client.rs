//! Who asks: the team, the `user` the body names, and the address, and the keys under which the limits count them.
//! The keys are 128 bits of a hash under a secret, so nobody can choose names that share a bucket
//! with somebody else's, and no name is kept.

use std::hash::{Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use crate::access::teams::{OPEN, Pass};
use crate::admission::settings::Rates;
use crate::request::verbatim::{Name, Verbatim};

/// Tells clients apart; one for the whole process.
pub struct Clients {
    secret: [u8; 32],
    /// What names addresses: each submission asks for one, so by a hash that costs a fraction of the other.
    addresses: Verbatim,
    /// The key of everyone's team in mode `open`.
    open: BucketKey,
}

impl Clients {
    /// Draws the secret.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new() -> io::Result<Self> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("the system gives no randomness"))?;
        Ok(Self::keyed(secret))
    }

    /// Clients under a secret that outlives the process, so that accounts and refusals are found again by whoever
    /// starts next.
    pub fn keyed(secret: [u8; 32]) -> Self {
        let open = BucketKey::new(digest(&secret, b"team", &[OPEN.as_bytes()]));
        let addresses = Verbatim::keyed(digest(&secret, b"addresses", &[]));
        Self { secret, addresses, open }
    }

    /// The client behind a connection that has shown this. Its `user` is known only once the body is read, unless a
    /// token fixes it; without one, each gateway key has a bucket of its own among the users, and where there are none
    /// (mode `open`) each address.
    pub fn identify(&self, address: IpAddr, pass: Rc<Pass>) -> Client {
        let group = AddressGroup::of(address);
        let address_key = self.address_of(group);
        let (team, user) = match &pass.key {
            None => (self.open, address_key.inside(self.open).tagged(self.open)),
            Some(key) => {
                let name = &pass.team.name;
                let team = *pass.team.bucket.get_or_init(|| self.team(name));
                let of_key = || self.bucket(b"gateway key", &[name.as_bytes(), key.id.as_bytes()]).tagged(team);
                (team, *key.bucket.get_or_init(of_key))
            }
        };
        let limited = pass.grant.as_deref().and_then(|grant| grant.limited);
        let token = limited.map(|limited| Counted {
            key: self.bucket(b"token", &[pass.team.name.as_bytes(), &limited.id]),
            rates: limited.limits.rates,
        });
        let who = Who { user, team, address: address_key, token };
        let fixed = pass.user().map(|user| self.user(&pass.team.name, user));
        let mut client = Client { pass, address, user: None, who };
        client.name(fixed.as_ref());
        client
    }

    /// The user of this name, in NFC, inside a team.
    pub fn user(&self, team: &str, name: &str) -> User {
        User { name: name.into(), key: self.bucket(b"user", &[team.as_bytes(), name.as_bytes()]) }
    }

    /// The key under which the limits count a team.
    pub fn team(&self, name: &str) -> BucketKey {
        self.bucket(b"team", &[name.as_bytes()])
    }

    /// The key under which the limits count an address.
    pub fn address(&self, address: IpAddr) -> BucketKey {
        self.address_of(AddressGroup::of(address))
    }

    fn address_of(&self, group: AddressGroup) -> BucketKey {
        let Name([low, high]) = self.addresses.name(&[group.as_bytes()]);
        BucketKey { low, high }
    }

    fn bucket(&self, label: &[u8], parts: &[&[u8]]) -> BucketKey {
        BucketKey::new(digest(&self.secret, label, parts))
    }

    /// Team, user and address together (`MONEY.md` M13, M14). An address counts as its group, because a client's
    /// IPv6 address changes within its /64 by itself.
    pub fn caller(&self, client: &Client) -> Caller {
        // Both are hashes already, so their sum is one: every hit asks for it.
        Caller(client.who.user.inside(client.who.address).to_bytes())
    }
}

/// Each part goes in behind its length, so that no two lists of parts are the same bytes.
fn digest(secret: &[u8; 32], label: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    for part in std::iter::once(&label).chain(parts) {
        hasher.update(&part.len().to_le_bytes());
        hasher.update(part);
    }
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hasher.finalize().as_bytes();
    digest
}

/// One client, as far as it is known.
#[derive(Clone)]
pub struct Client {
    /// What it has shown, and so what it may.
    pub pass: Rc<Pass>,
    /// Where it calls from.
    pub address: IpAddr,
    /// The body's `user`, or the token's.
    pub user: Option<User>,
    who: Who,
}

/// A `user`, and under what the limits count it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name, in NFC.
    pub name: Arc<str>,
    key: BucketKey,
}

impl Client {
    /// Names its user, now that the body is read: `user` is what the body says. Where a token fixes the user, that is the
    /// same one.
    pub fn name(&mut self, user: Option<&User>) {
        if let Some(user) = user {
            self.who.user = user.key.tagged(self.who.team);
            self.user = Some(user.clone());
        }
    }

    /// Whose money it spends.
    pub fn team(&self) -> &Arc<str> {
        &self.pass.team.name
    }

    /// The name of its user, where there is one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|user| &*user.name)
    }

    /// The keys under which the limits count it.
    pub fn who(&self) -> &Who {
        &self.who
    }
}

/// The keys of one client's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The `user` inside its team; without a `user`, the gateway key, or in mode `open` the address inside the team.
    pub user: BucketKey,
    /// The team.
    pub team: BucketKey,
    /// The address's group.
    pub address: BucketKey,
    /// The client token, if it has limits of its own.
    pub token: Option<Counted>,
}

/// A client token with limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Under what it is counted.
    pub key: BucketKey,
    /// How often it may be used.
    pub rates: Rates,
}

/// What is remembered of a caller that was refused (`MONEY.md` M13, M14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller(pub [u8; 16]);

/// A bucket's key: already a hash, so hashing it again only picks bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketKey {
    low: u64,
    high: u64,
}

impl BucketKey {
    /// The key made of a digest.
    pub const fn new(digest: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, high @ ..] = digest;
        Self { low: u64::from_le_bytes([a, b, c, d, e, f, g, h]), high: u64::from_le_bytes(high) }
    }

    /// The key of this one inside another. Both are random to everybody outside, so their sum is too.
    const fn inside(self, other: Self) -> Self {
        Self { low: self.low.wrapping_add(other.low), high: self.high.wrapping_add(other.high) }
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (self.low.to_le_bytes(), self.high.to_le_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The key with the tag of a team's key, so that a reload finds the quota of a user's bucket. What is left of it is
    /// still far too long to be met by chance.
    const fn tagged(self, team: Self) -> Self {
        Self { low: self.low, high: self.high & !TAG | team.high & TAG }
    }

    /// A few bits that a team's key and the keys of its users have in common. Two teams may by chance have the same;
    /// then a reload measures the debts of one by the quota of the other, once.
    pub const fn tag(self) -> u16 {
        (self.high & TAG) as u16
    }

    /// The half that [`Hash`] does not use: it spreads keys over shards.
    pub const fn spread(self) -> u64 {
        self.high
    }
}

impl Hash for BucketKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// The bits of a tag. [`BucketKey::spread`] goes by the others first.
const TAG: u64 = 0xffff;

/// What counts as one address: all of IPv4 (also when it comes mapped into IPv6), the /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressGroup {
    /// An IPv4 address.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl AddressGroup {
    /// The group an address belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(network(address)),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(clients: &Clients, address: &str, user: Option<&str>) -> Client {
        {
            let mut client = clients.identify(address.parse().unwrap(), Rc::new(Pass::open()));
            client.name(user.map(|name| clients.user(client.team(), name)).as_ref());
            client
        }
    }

    #[test]
    fn ipv4_counts_whole_and_ipv6_by_its_64() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("2001:db8:1:2::1", "2001:db9:1:2::1", false),
            ("::1", "::2", true),
            ("::1", "127.0.0.1", false),
            // The deprecated compatible form is no IPv4 address.
            ("::192.0.2.1", "192.0.2.1", false),
        ] {
            let (one, other): (IpAddr, IpAddr) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(AddressGroup::of(one) == AddressGroup::of(other), same, "{one} {other}");
        }
    }

    #[test]
    fn t33_a_user_has_one_bucket_from_every_address_and_no_user_the_addresss_own() {
        let clients = Clients::new().unwrap();
        let ada = client(&clients, "192.0.2.1", Some("ada"));
        let ada_elsewhere = client(&clients, "192.0.2.2", Some("ada"));
        assert_eq!(ada.who().user, ada_elsewhere.who().user);
        assert_ne!(ada.who().address, ada_elsewhere.who().address);
        assert_eq!(ada.who().team, ada_elsewhere.who().team);
        assert_ne!(clients.caller(&ada), clients.caller(&ada_elsewhere));

        let nobody = client(&clients, "192.0.2.1", None);
        let nobody_elsewhere = client(&clients, "192.0.2.2", None);
        assert_ne!(nobody.who().user, nobody_elsewhere.who().user);
        assert_ne!(nobody.who().user, ada.who().user);
        assert_ne!(nobody.who().user, client(&clients, "192.0.2.1", Some("")).who().user);
        assert_ne!(nobody.who().user, client(&clients, "192.0.2.1", Some("\u{c0}\0\u{2}\u{1}")).who().user);
        assert_eq!(nobody.who().address, ada.who().address);
    }

    #[test]
    fn a_caller_is_the_same_from_all_of_its_64() {
        let clients = Clients::new().unwrap();
        let morning = client(&clients, "2001:db8:1:2::aaaa", Some("ada"));
        let evening = client(&clients, "2001:db8:1:2::bbbb", Some("ada"));
        assert_eq!(clients.caller(&morning), clients.caller(&evening));
        assert_ne!(clients.caller(&morning), clients.caller(&client(&clients, "2001:db8:1:2::aaaa", None)));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let digest = |label, parts: &[&[u8]]| digest(&[7; 32], label, parts);
        assert_ne!(digest(b"user", &[b"ab", b"c"]), digest(b"user", &[b"a", b"bc"]));
        assert_ne!(digest(b"user", &[b"ab"]), digest(b"user", &[b"ab", b""]));
        assert_ne!(digest(b"user", &[b"ab"]), digest(b"team", &[b"ab"]));
    }

    #[test]
    fn t46_keys_of_two_processes_differ() {
        let (one, other) = (Clients::new().unwrap(), Clients::new().unwrap());
        assert_ne!(client(&one, "::1", Some("ada")).who().user, client(&other, "::1", Some("ada")).who().user);
    }
}
