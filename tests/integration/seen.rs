//! What is seen from outside: metrics that agree with the bill, one log line a request, and the listener for
//! operators (`DESIGN.md` §5, `HARDENING.md` INV-10, T-32, T-71, T-72).

mod admin;
mod counts;
mod log;
mod metrics;
