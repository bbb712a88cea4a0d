//! May it go on: how often each user, team and address, and all together, may submit.

pub mod rate;
pub mod quota;
pub mod headers;
pub mod attempts;
pub mod pace;
pub mod remote;
mod buckets;
pub mod settings;
