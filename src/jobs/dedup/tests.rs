//! Several replicas over one ledger, with a double of that ledger in memory.

mod model;
mod replicas;
mod shared;
