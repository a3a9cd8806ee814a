//! The data path: from accepted bytes to a relayed tunnel. Start reading at `gateway/connection.rs`.
//!
//! Two languages ([`socks`], [`http`]) are read by pure machines, one [`connection`] drives them, and behind the seam of
//! [`gate`] somebody chooses an exit and opens a stream. What went wrong is one of the [`failure`]s; what went right is
//! carried by [`relay`]; both are written down in the [`record`].

pub mod client;
pub mod connection;
pub mod connection_table;
pub mod failure;
pub mod gate;
pub mod http;
pub mod outbound;
pub mod proxy_protocol;
pub mod record;
pub mod relay;
pub mod socks;

#[cfg(test)]
mod testing;
