//! Is there one already: what is remembered of jobs, and what their polls tell.

pub mod observe;
pub mod settings;
