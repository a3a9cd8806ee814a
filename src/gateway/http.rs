//! HTTP/1 between clients, the gateway and targets. The parsers refuse everything that two parsers could read
//! differently, and forward the rest unchanged.
//!
//! A head is scanned byte by byte as it arrives ([`head`]), and is then parsed as a request or as an answer
//! ([`request`], [`response`]). The head is forwarded with as few changes as a proxy may make. A body is never decoded:
//! the gateway only finds its end ([`body`]).
//!
//! None of these modules does I/O, except [`forward`], which has the sockets. The answers that the gateway writes
//! itself are in [`answer`], [`page`] and [`builtin`].

pub mod answer;
pub mod auth;
pub mod body;
pub mod builtin;
mod exchange_state;
pub mod forward;
pub mod framing;
pub mod head;
pub mod page;
pub mod request;
pub mod response;
