//! Who sends a request, as one worker finds out: a gateway key that it has met is found again without what the other
//! workers touch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;

use super::bearer::Bearer;
use super::teams::{NoPass, Pass, Teams};
use super::token::{self, Tokens};
use crate::clock::Clock;
use crate::request::fingerprint::PickBits;
use crate::request::head::Header;
use crate::request::verbatim::{Name, Verbatim};

/// The passes of the keys that were presented to one worker and found, by another hash of them: SHA-256 is what they are
/// stored by, and it costs many times as much. As many as there are keys; they are worth what [`Teams`] they were asked
/// of is worth, so a reload begins anew.
#[derive(Debug)]
pub struct Passes {
    /// Everybody's in mode `open`.
    open: Rc<Pass>,
    met: RefCell<HashMap<Name, Rc<Pass>, BuildHasherDefault<PickBits>>>,
    names: Verbatim,
}

impl Passes {
    /// Of a worker that has met nobody yet under these teams.
    pub fn of(teams: &Teams) -> Self {
        Self { open: Rc::new(teams.everybody().clone()), met: RefCell::default(), names: Verbatim::default() }
    }

    /// What everybody has in mode `open`.
    pub fn everybody(&self) -> &Rc<Pass> {
        &self.open
    }

    /// Who sends a request with this header. In mode `open` it is not looked at.
    ///
    /// # Errors
    /// [`NoPass`].
    pub fn identify(
        &self,
        teams: &Teams,
        header: &Header<'_>,
        tokens: &Tokens,
        clock: &Clock,
    ) -> Result<Rc<Pass>, NoPass> {
        if teams.is_open() {
            return Ok(Rc::clone(&self.open));
        }
        let credential = match Bearer::read(header) {
            Bearer::Absent => return Err(NoPass::Missing),
            Bearer::Several => return Err(NoPass::Several),
            Bearer::Malformed => return Err(NoPass::Refused("malformed".to_owned())),
            Bearer::Credential(credential) => credential,
        };
        match credential.strip_prefix(token::PREFIX) {
            Some(token) => teams.of_token(token, tokens, clock).map(Rc::new),
            None => self.of_key(teams, credential, clock),
        }
    }

    fn of_key(&self, teams: &Teams, presented: &str, clock: &Clock) -> Result<Rc<Pass>, NoPass> {
        let name = self.names.name(&[presented.as_bytes()]);
        let met = self.met.borrow().get(&name).cloned();
        let pass = match met {
            Some(pass) => pass,
            None => {
                let pass = Rc::new(teams.of_key(presented)?);
                self.met.borrow_mut().insert(name, Rc::clone(&pass));
                pass
            }
        };
        pass.check(clock)?;
        Ok(pass)
    }
}
