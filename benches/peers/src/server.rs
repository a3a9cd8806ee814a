//! One server under test, as the command line names it.

use std::net::SocketAddr;

/// How a server is asked for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SOCKS5 without authentication.
    Socks5,
    /// HTTP CONNECT.
    Http,
    /// Nothing is said: the server relays to a fixed target.
    Plain,
}

/// A server under test.
#[derive(Clone, Debug)]
pub struct Server {
    /// As the table names it.
    pub name: String,
    /// How it is asked.
    pub kind: Kind,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its first process; its CPU and memory are those of this one and all its children.
    pub pid: Option<u32>,
}

impl Server {
    /// Reads `NAME=KIND@ADDRESS[#PID]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text}: not NAME=KIND@ADDRESS[#PID]");
        let (name, rest) = text.split_once('=').ok_or_else(bad)?;
        let (kind, rest) = rest.split_once('@').ok_or_else(bad)?;
        let (addr, pid) = match rest.split_once('#') {
            Some((addr, pid)) => (addr, Some(pid.parse().map_err(|_| bad())?)),
            None => (rest, None),
        };
        let kind = match kind {
            "socks5" => Kind::Socks5,
            "http" => Kind::Http,
            "plain" => Kind::Plain,
            _ => return Err(bad()),
        };
        Ok(Self { name: name.into(), kind, addr: addr.parse().map_err(|_| bad())?, pid })
    }
}
