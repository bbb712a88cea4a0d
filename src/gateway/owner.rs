//! Whose a job is (`MONEY.md` M31): who polls it must own it, and who is told its id owns it first.

use tracing::warn;

use super::Worker;
use super::rules::Rules;
use crate::access::teams::Pass;
use crate::error::Error;
use crate::jobs::ledger::WRITE_PATIENCE;
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::settings::{Ownership, Scope};
use crate::request::client::Client;
use crate::request::route::RequestId;

impl Worker {
    /// As whom a poll asks; `None` where everybody may. A gateway key sees all jobs of its team.
    pub(super) fn asking(&self, pass: &Pass, rules: &Rules) -> Option<Owner> {
        match rules.ownership {
            Ownership::Off => None,
            Ownership::Team => Some(Owner { team: pass.team.name.clone(), user: None }),
            Ownership::User => {
                let user = pass.user().map(|user| self.user_of(&pass.team.name, user));
                Some(Owner { team: pass.team.name.clone(), user })
            }
        }
    }

    /// Makes a client one of the owners of the job whose id it is about to be told. Where only the maker's team can meet
    /// a job, and users are not told apart, there is nothing to do: then a hit needs no lock.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many own it. That it could not be written withholds no id (M8).
    pub(super) async fn own(&self, job: &RequestId, client: &Client, rules: &Rules) -> Result<(), Error> {
        let user = client.user().filter(|_| rules.ownership == Ownership::User);
        let may_be_anothers = rules.scope == Scope::Global && rules.ownership != Ownership::Off;
        if user.is_none() && !may_be_anothers {
            return Ok(());
        }
        let owner = Owner { team: client.team().clone(), user: user.map(|user| self.user_of(client.team(), user)) };
        let owning = self.gateway.dedup.ledger().own(job, owner, rules.max_owners);
        match tokio::time::timeout(WRITE_PATIENCE, owning).await {
            Ok(Ok(Owned::Full)) => Err(Error::Overloaded { what: "polls.max_owners" }),
            Ok(Ok(Owned::Already | Owned::News | Owned::NoRecord)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                warn!(%job, team = %client.team(), "whose the job is could not be written to the ledger");
                Ok(())
            }
        }
    }

    /// Whether a client sees a job before it is told of it; what the ledger cannot say now it does not see.
    pub(super) async fn sees(&self, job: &RequestId, pass: &Pass, rules: &Rules) -> bool {
        let Some(asking) = self.asking(pass, rules) else { return true };
        let formerly = self.formerly(pass, &asking);
        let job = self.gateway.dedup.ledger().job_anew(job).await.ok().flatten();
        job.is_some_and(|job| formerly.iter().chain([&asking]).any(|owner| job.is_of(owner)))
    }

    /// A user as records name it: nobody reads the name back.
    fn user_of(&self, team: &str, user: &str) -> [u8; 16] {
        self.gateway.fingerprints.current.digest(OWNER, &[team, user])
    }

    /// The same owner as records name it that were made under the fingerprints' key before the one in use (M9).
    pub(super) fn formerly(&self, pass: &Pass, owner: &Owner) -> Option<Owner> {
        let (key, user) = (self.gateway.fingerprints.former.as_ref()?, pass.user()?);
        owner.user?;
        Some(Owner { team: owner.team.clone(), user: Some(key.digest(OWNER, &[&owner.team, user])) })
    }
}

/// What the digest of an owner is for.
const OWNER: &str = "owner";
