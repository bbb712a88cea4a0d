//! Is there a job already, and what became of it: entries, the single flight of each attempt, and the ledger.

pub mod book;
pub mod entry;
pub mod keys;
pub mod observe;
pub mod records;
pub mod settings;
