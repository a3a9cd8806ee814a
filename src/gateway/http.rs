//! HTTP/1 as clients and targets use it: strict where two parsers could disagree, and otherwise unchanged.
//!
//! A head is scanned byte by byte as it arrives ([`head`]), parsed as a request or an answer ([`request`], [`response`]) and
//! written on with as few changes as a forwarder may make. A body is never decoded, only measured ([`body`]). None of these
//! does I/O; [`forward`] has the sockets. What the gateway answers itself is in [`answer`], [`page`] and [`builtin`].

pub mod answer;
pub mod auth;
pub mod body;
pub mod builtin;
mod carry;
pub mod forward;
pub mod framing;
pub mod head;
pub mod page;
pub mod request;
pub mod response;
