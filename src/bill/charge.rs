//! What one attempt may cost, and in which accounts that counts.

use std::sync::Arc;

use super::account::{AccountKey, Holder, Period, TokenId, UserId};
use super::money::Amount;
use super::price::Price;
use crate::clock::Time;

/// What one attempt may cost, and whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// The team.
    pub team: Arc<str>,
    /// The user, within the team.
    pub user: UserId,
    /// The user's name, where it may be kept.
    pub name: Option<Arc<str>>,
    /// The price.
    pub price: Price,
    /// The budget of the client token it came with, if that has one.
    pub purse: Option<Purse>,
    /// When it was reserved: it counts in that day and month, whenever it is settled.
    pub at: Time,
}

impl Charge {
    /// Counts in the account that all users without one of their own share, under nobody's name.
    pub fn share_user(&mut self) {
        (self.user, self.name) = (OTHERS, None);
    }

    /// The same of the token's.
    pub fn share_token(&mut self) {
        if let Some(purse) = &mut self.purse {
            purse.id = OTHERS;
        }
    }
}

/// The account of all users, and that of all tokens, that have none of their own.
pub const OTHERS: UserId = [0; 16];

/// The budget that a client token brings along, for all its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purse {
    /// The token.
    pub id: TokenId,
    /// Dollars.
    pub usd: Option<Amount>,
    /// Seconds of video.
    pub seconds: Option<u32>,
    /// When it ends.
    pub until: Time,
}

impl Purse {
    /// Its one account: it is kept past the day in which the token ends.
    pub fn account(&self) -> AccountKey {
        let [day, _] = Period::of(self.until);
        AccountKey { period: day, holder: Holder::Token(self.id) }
    }
}

/// All whose accounts a charge of this user counts in.
pub fn holders(team: &Arc<str>, user: UserId) -> [Holder; 3] {
    [Holder::User(team.clone(), user), Holder::Team(team.clone()), Holder::Total]
}

/// All accounts that a charge counts in: those of its day and its month, and its token's.
pub fn accounts(charge: &Charge) -> impl Iterator<Item = AccountKey> + use<> {
    let periods = Period::of(charge.at);
    let of = move |holder: Holder| periods.map(|period| AccountKey { period, holder: holder.clone() });
    let own = charge.purse.map(|purse| purse.account());
    holders(&charge.team, charge.user).into_iter().flat_map(of).chain(own)
}
