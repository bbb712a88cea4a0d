//! The ledger that replicas share.

mod link;
mod script;
