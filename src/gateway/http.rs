//! The HTTP/1 language of the front: strict where two readers could disagree, and otherwise out of the way.
//!
//! A head is scanned byte by byte as it comes ([`head`]), read as a request or an answer ([`request`], [`response`]) and
//! written on with as little changed as a forwarder may. A body is never decoded, only measured ([`body`]). All of that
//! is pure; [`forward`] has the sockets. What we say in our own name is in [`answer`], [`page`] and [`errand`].

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
