//! Who calls, and may they: gateway keys, the teams behind them, and the short-lived tokens for browsers.

pub mod allowance;
pub mod bearer;
pub mod format;
pub mod passes;
pub mod teams;
pub mod token;
pub mod settings;
