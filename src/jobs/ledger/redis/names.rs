//! What keys and members are called in Redis, without the prefix.

use crate::bill::account::{AccountKey, Holder, Period};
use crate::jobs::entry::AttemptId;
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

pub(super) fn entry_key(fingerprint: &Fingerprint) -> String {
    format!("e:{}", hex(fingerprint.as_bytes()))
}

pub(super) fn key_key(digest: &KeyDigest) -> String {
    format!("k:{}", hex(digest))
}

pub(super) fn job_key(id: &RequestId) -> String {
    format!("j:{}", id.as_str())
}

pub(super) fn tab_key(attempt: &AttemptId) -> String {
    format!("t:{}", hex(&attempt.into_bytes()))
}

pub(super) fn base_key(base: &Fingerprint) -> String {
    format!("b:{}", hex(base.as_bytes()))
}

pub(super) fn keys_of_key(attempt: &AttemptId) -> String {
    format!("ak:{}", hex(&attempt.into_bytes()))
}

pub(super) fn account_key(account: &AccountKey) -> String {
    format!("a:{}:{}", account.period, holder_name(&account.holder))
}

/// The entries of a team in a state, by when their values expire.
pub(super) fn place_key(state: &str, team: &str) -> String {
    format!("in:{state}:{team}")
}

/// All teams that have entries.
pub(super) const TEAMS: &str = "teams";

/// The set of the accounts of a period: of everybody and of all teams. Earlier versions had users in it too.
pub(super) fn accounts_key(period: Period) -> String {
    format!("as:{period}")
}

/// The set of the accounts of users.
pub(super) fn users_key(period: Period) -> String {
    format!("us:{period}")
}

/// The set that an account is in: users and client tokens, which are bounded, have one of their own.
pub(super) fn set_key(account: &AccountKey) -> String {
    match account.holder {
        Holder::Total | Holder::Team(_) => accounts_key(account.period),
        Holder::User(..) => users_key(account.period),
        Holder::Token(_) => format!("ks:{}", account.period),
    }
}

pub(super) fn holder_key(holder: &Holder) -> String {
    format!("h:{}", holder_name(holder))
}

fn holder_name(holder: &Holder) -> String {
    match holder {
        Holder::Total => "total".to_owned(),
        Holder::Team(team) => format!("team:{team}"),
        Holder::User(team, user) => format!("user:{}:{team}", hex(user)),
        Holder::Token(id) => format!("token:{}", hex(id)),
    }
}

/// The stamp of a replica's last write.
pub(super) fn stamp_key(replica: &str) -> String {
    format!("stamp:{replica}")
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// The bytes of hex digits, if there are exactly so many.
pub(super) fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// An unknown outcome, as the index has it: its entry and its attempt.
pub(super) fn unknown_member(fingerprint: &Fingerprint, attempt: &AttemptId) -> String {
    format!("{}.{}", hex(fingerprint.as_bytes()), hex(&attempt.into_bytes()))
}

/// The fingerprint of a member of that index.
pub(super) fn of_unknown(member: &str) -> Option<Fingerprint> {
    bytes(member.split('.').next()?).map(Fingerprint::from_bytes)
}
