//! What is asked, and by whom: pure functions of the request, without I/O or a clock.

pub mod head;
pub mod route;
pub mod client;
pub mod trace;
pub mod inline;
pub mod json;
pub mod schema;
pub(crate) mod fields;
mod media;
mod path;
mod wording;
pub mod submission;
pub mod fingerprint;
pub mod verbatim;
pub mod openapi;
pub mod settings;
pub mod spelling;
