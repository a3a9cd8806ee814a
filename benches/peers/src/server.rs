//! One server under test, as the command line names it.

use std::net::{SocketAddr, TcpStream};

use exitgate_bench_shared::tunnel::{self, Kind};

/// A server under test.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name in the table.
    pub name: String,
    pub kind: Kind,
    /// The address at which it listens.
    pub addr: SocketAddr,
    /// Its first process. CPU and memory are those of this process and all its descendants.
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

    /// Opens a tunnel to `target` and waits for it.
    pub fn open(&self, target: SocketAddr) -> Result<TcpStream, String> {
        tunnel::open(self.kind, self.addr, target)
    }

    /// What the server answers when nobody listens at the target. An answer of success is an error: it is not true.
    pub fn refusal(&self) -> Result<String, String> {
        match self.open(([127, 0, 0, 1], 9).into()) {
            Ok(_) => Err("the server says success, and nobody listens at the target".into()),
            Err(answer) => Ok(answer),
        }
    }
}
