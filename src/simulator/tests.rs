//! The simulated upstream over real sockets: its routes, and each fault once.
