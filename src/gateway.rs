//! The data path: from accepted bytes to a relayed tunnel. Start reading at `gateway/connection.rs`.
//!
//! [`socks`] and [`http`] parse the two protocols without doing I/O. [`connection`] drives them over a client's socket.
//! [`gate`] is the interface behind which [`outbound`] chooses an exit and opens a stream through it. A request that fails
//! ends with a [`failure`]; a tunnel that opens is carried by [`relay`]; [`record`] writes both to metrics and the access log.

pub mod client;
pub mod connection;
pub mod connection_table;
pub mod failure;
pub mod gate;
pub mod http;
pub mod listener;
pub mod meters;
pub mod outbound;
pub mod protocol;
pub mod proxy_protocol;
pub mod record;
pub mod relay;
pub mod socks;

#[cfg(test)]
mod testing;
