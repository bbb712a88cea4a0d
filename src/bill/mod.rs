//! What it costs: the price of a submission, the budgets it must fit into, and the tab that each job leaves until it is
//! settled (`MONEY.md` M29). Pure: time and settings are arguments.

pub mod account;
pub mod charge;
pub mod form;
pub mod money;
pub mod price;
pub mod settings;
pub mod statement;
pub mod tab;
pub mod terms;
