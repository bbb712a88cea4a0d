//! Who has an account of their own: as many users, and as many client tokens, as `budgets.tracked` says, over all replicas.
//! Redis knows how many there are; a charge that it has no room for counts in the account that the others share.

use super::names::{account_key, set_key};
use super::script::Crowd;
use crate::bill::account::{AccountKey, Holder, Period};
use crate::bill::tab::Charge;

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    User,
    Token,
}

/// Those for whom there was no room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowded {
    user: bool,
    token: bool,
}

impl Crowded {
    /// There is no room for this one.
    pub(super) const fn note(&mut self, whose: Whose) {
        match whose {
            Whose::User => self.user = true,
            Whose::Token => self.token = true,
        }
    }

    /// The charge, as it counts.
    pub(super) fn filed(self, charge: &Charge) -> Charge {
        let mut filed = charge.clone();
        if self.user {
            filed.share_user();
        }
        if self.token {
            filed.share_token();
        }
        filed
    }

    /// The accounts for which there must be room, but for those that are shared anyway.
    pub(super) fn crowds(self, charge: &Charge, tracked: usize) -> Vec<(Crowd, Whose)> {
        let user = Holder::User(charge.team.clone(), charge.user);
        let of_user = Period::of(charge.at).map(|period| AccountKey { period, holder: user.clone() });
        let of_user = of_user.into_iter().filter(|_| !self.user).map(|account| (account, Whose::User));
        let purse = charge.purse.filter(|_| !self.token);
        let of_token = purse.map(|purse| (purse.account(), Whose::Token));
        let crowd = |(account, whose): (AccountKey, Whose)| {
            let (key, set) = (account_key(&account), set_key(&account));
            (Crowd { key, set, most: tracked }, whose)
        };
        of_user.chain(of_token).map(crowd).collect()
    }
}
