//! The key goes to the upstream and nowhere else. INV-1 itself is checked wherever a scene ends: all that clients were
//! sent and all that was logged is searched for the key and its parts.

mod echo;
mod request;
mod tls;
