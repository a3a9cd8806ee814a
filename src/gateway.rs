//! The data path of the gateway: from the first bytes of a client to a relayed tunnel. Start reading at
//! `gateway/connection.rs`.
//!
//! [`socks`] and [`http`] parse the two client protocols and do no I/O. [`connection`] runs these parsers on a client's
//! socket. [`gate`] is the interface between connections and exits. [`outbound`] implements this interface: it chooses
//! an exit and opens a stream through the exit.
//!
//! [`failure`] lists the ways in which a request can fail. [`relay`] carries an open tunnel. [`record`] writes the
//! result of each connection to the metrics and to the access log.

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
