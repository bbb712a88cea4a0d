//! How tabs and accounts are written down. A user stands there as a hash, and by name only where the configuration
//! says so.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::{AccountKey, Holder, Period, Sums, TokenId, UserId};
use super::charge::Purse;
use super::money::Amount;
use super::price::Price;
use super::tab::{Charge, Open, Standing};
use crate::clock::Time;

/// A tab as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub struct TabForm {
    team: Arc<str>,
    user: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Arc<str>>,
    price: Price,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purse: Option<PurseForm>,
    at: u64,
    standing: StandingForm,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PurseForm {
    id: TokenId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usd: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<u32>,
    until: u64,
}

impl PurseForm {
    const fn of(purse: Purse) -> Self {
        let Purse { id, usd, seconds, until } = purse;
        Self { id, usd, seconds, until: until.as_millis() }
    }

    const fn purse(self) -> Purse {
        let Self { id, usd, seconds, until } = self;
        Purse { id, usd, seconds, until: Time::from_millis(until) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StandingForm {
    Reserved,
    Created,
    AtRisk(u64),
}

impl TabForm {
    /// The form of an open tab.
    pub fn of(open: &Open) -> Self {
        let charge = &open.charge;
        Self {
            team: charge.team.clone(),
            user: charge.user,
            name: charge.name.clone(),
            price: charge.price,
            purse: charge.purse.map(PurseForm::of),
            at: charge.at.as_millis(),
            standing: match open.standing {
                Standing::Reserved => StandingForm::Reserved,
                Standing::Created => StandingForm::Created,
                Standing::AtRisk(until) => StandingForm::AtRisk(until.as_millis()),
            },
        }
    }

    /// The tab.
    pub fn into_open(self) -> Open {
        let standing = match self.standing {
            StandingForm::Reserved => Standing::Reserved,
            StandingForm::Created => Standing::Created,
            StandingForm::AtRisk(until) => Standing::AtRisk(Time::from_millis(until)),
        };
        let at = Time::from_millis(self.at);
        let Self { team, user, name, price, .. } = self;
        let purse = self.purse.map(PurseForm::purse);
        Open { charge: Charge { team, user, name, price, purse, at }, standing }
    }
}

/// An account as it is written down; what is reserved in it follows from the open tabs.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccountForm {
    sums: Sums,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Arc<str>>,
}

impl AccountForm {
    /// The form of an account.
    pub fn of((sums, name): (&Sums, Option<Arc<str>>)) -> Self {
        Self { sums: *sums, name }
    }

    /// The later version of an account has more in it: its sums only grow.
    pub fn weight(&self) -> u64 {
        let Sums { spent, spent_millis, jobs, lost, .. } = self.sums;
        [spent, spent_millis, jobs, lost].iter().fold(0, |sum, part| sum + u64::try_from(*part).unwrap_or_default() / 4)
    }

    /// The account, and what its user is called.
    pub fn into_account(self) -> (Sums, Option<Arc<str>>) {
        (self.sums, self.name)
    }
}

/// The key of an account as bytes: whose it is, of which period.
pub fn account_key(key: &AccountKey) -> Vec<u8> {
    let (letter, number) = match key.period {
        Period::Day(day) => (b'd', day),
        Period::Month(month) => (b'm', month),
    };
    let mut bytes = vec![letter];
    bytes.extend_from_slice(&number.to_be_bytes());
    match &key.holder {
        Holder::Total => bytes.push(b'*'),
        Holder::Team(team) => {
            bytes.push(b't');
            bytes.extend_from_slice(team.as_bytes());
        }
        Holder::User(team, user) => {
            bytes.push(b'u');
            bytes.extend_from_slice(user);
            bytes.extend_from_slice(team.as_bytes());
        }
        Holder::Token(id) => {
            bytes.push(b'k');
            bytes.extend_from_slice(id);
        }
    }
    bytes
}

/// The account of a key.
pub fn parse_account_key(bytes: &[u8]) -> Option<AccountKey> {
    let (letter, rest) = bytes.split_first()?;
    let (number, rest) = rest.split_at_checked(4)?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let period = match letter {
        b'd' => Period::Day(number),
        b'm' => Period::Month(number),
        _ => return None,
    };
    let (kind, rest) = rest.split_first()?;
    let team = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Arc::<str>::from);
    let holder = match kind {
        b'*' if rest.is_empty() => Holder::Total,
        b't' => Holder::Team(team(rest)?),
        b'k' => Holder::Token(rest.try_into().ok()?),
        b'u' => {
            let (user, rest) = rest.split_at_checked(16)?;
            Holder::User(team(rest)?, user.try_into().ok()?)
        }
        _ => return None,
    };
    Some(AccountKey { period, holder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_account_comes_back_and_nothing_else_is_one() {
        for holder in
            [Holder::Total, Holder::Team("a".into()), Holder::User("a".into(), [7; 16]), Holder::Token([9; 16])]
        {
            for period in [Period::Day(20_000), Period::Month(682)] {
                let key = AccountKey { period, holder: holder.clone() };
                assert_eq!(parse_account_key(&account_key(&key)), Some(key));
            }
        }
        for wrong in [&b""[..], b"d", b"x\0\0\0\0*", b"d\0\0\0\0", b"d\0\0\0\0*a", b"d\0\0\0\0u123", b"d\0\0\0\0t\xff"]
        {
            assert_eq!(parse_account_key(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_tab_comes_back_as_it_was() {
        let purse = Purse { id: [4; 16], usd: Some(Amount::from_ticks(5)), seconds: None, until: Time::from_millis(6) };
        let name = Some("alice".into());
        let charge = Charge { team: "a".into(), user: [3; 16], name, purse: Some(purse), ..Charge::default() };
        for standing in [Standing::Reserved, Standing::Created, Standing::AtRisk(Time::from_millis(5))] {
            let open = Open { charge: charge.clone(), standing };
            let json = serde_json::to_string(&TabForm::of(&open)).unwrap();
            assert_eq!(serde_json::from_str::<TabForm>(&json).unwrap().into_open(), open, "{json}");
        }
    }
}
