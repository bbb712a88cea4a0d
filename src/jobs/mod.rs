//! Is there a job already, and what became of it: entries, the single flight of each attempt, and the ledger.

pub mod entry;
pub mod book;
pub mod keys;
pub mod owners;
pub mod records;
pub mod watchlist;
pub mod list;
pub mod ledger;
pub mod flight;
pub mod lease;
pub mod attempt;
pub mod dedup;
pub mod observe;
pub mod settings;
