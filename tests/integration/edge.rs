//! The edge, against clients that do not keep to the rules: raw bytes, a table a rule. Each table ends with what must
//! hold beside the answers: nothing malformed went upstream, and a good client was served meanwhile.

mod floods;
mod forwarding;
mod framing;
mod http2;
mod methods;
mod targets;
mod tracing;
mod unread;
mod visibility;
