//! Who asks, and may they at all: before anything of the body is read (`DESIGN.md` §3 step 1, `HARDENING.md` §7 step 8).

use std::rc::Rc;

use super::Worker;
use super::local::LocalRules;
use crate::access::settings::Gate;
use crate::access::teams::{NoPass, Pass};
use crate::error::Error;
use crate::request::head::Head;
use crate::request::route::Operation;
use crate::server::Peer;
use crate::telemetry::record::Record;

impl Worker {
    /// What a request has shown, if that opens this gate. In mode `open` everyone is one team, and what a
    /// client sends as Authorization is not looked at; in either mode it goes no further.
    pub(super) fn identify(
        &self,
        gate: Gate,
        head: &Head<'_>,
        peer: Peer,
        rules: &LocalRules,
        record: &mut Record,
    ) -> Result<Rc<Pass>, Error> {
        let gateway = &*self.gateway;
        let address = peer.address.ip();
        let pass = match rules.passes.identify(&rules.teams, &head.header, &gateway.tokens, &gateway.clock) {
            Ok(pass) => pass,
            Err(NoPass::Missing) => return Err(Error::MissingKey),
            Err(NoPass::Several) => {
                return Err(Error::BadRequest {
                    param: "Authorization",
                    message: "Authorization may be sent once only".into(),
                });
            }
            Err(NoPass::Refused(why)) => {
                record.cause(why);
                return Err(gateway.attempts.failed(gateway.clients.address(address)));
            }
        };
        record.by(&pass);
        pass.check_route(gate)?;
        pass.check_origin(gate, &head.headers)?;
        Ok(pass)
    }
}

impl From<Operation> for Gate {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Generations => Self::Generations,
            Operation::Edits => Self::Edits,
        }
    }
}
