//! The name server that exits ask. Its answers are in a map that a test may change.
//!
//! tor caches an answer for at least five minutes, whatever its time to live. So a test that changes an answer must use a name that no
//! exit was asked for before.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::UdpSocket;

use crate::fake_runtime::{self, Task};
use crate::network::dns_address;
use crate::onionoo;
use crate::public;
use crate::sandbox::Sandbox;
use crate::web;

mod message;

/// The answer for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses: the IPv4 ones for A, the IPv6 ones for AAAA.
    Addresses(Vec<IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
    /// REFUSED.
    Refused,
    /// SERVFAIL.
    Failed,
    /// The server does not answer.
    Silent,
}

impl Answer {
    pub fn ip(ip: impl Into<IpAddr>) -> Self {
        Self::Addresses(vec![ip.into()])
    }
}

/// A running name server; dropping this ends it.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    names: Arc<Names>,
    _task: Task,
}

/// Names and their answers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
}

impl Dns {
    /// Starts at the address that the exits of a network in `sandbox` ask. Every name under `.test` is the fake web, except `hang.test`,
    /// `closed.test`, `other.test` (its other addresses), `dual.test` (also `::1`), `onionoo.test` and `cdn.test` (both on port 8080),
    /// `rebind.test` (127.0.0.1), `refused.test`, `failed.test`, `silent.test`, and `nx.test` (NXDOMAIN). All other names are NXDOMAIN.
    pub async fn start(sandbox: &Sandbox) -> anyhow::Result<Self> {
        let address = dns_address(sandbox);
        let socket = fake_runtime::run(UdpSocket::bind(address)).await?;
        let socket = socket.with_context(|| format!("cannot listen on {address}"))?;
        let names = Arc::new(Names::default());
        let dns = Self { address, _task: fake_runtime::spawn(serve(socket, names.clone())), names };
        let web = sandbox.ip(web::SUBNET, web::WEB);
        dns.set("*.test", Answer::ip(web));
        dns.set("hang.test", Answer::ip(sandbox.ip(web::SUBNET, web::HANG)));
        dns.set("closed.test", Answer::ip(sandbox.ip(web::SUBNET, web::CLOSED)));
        dns.set("other.test", Answer::ip(sandbox.ip(web::SUBNET, web::OTHER)));
        dns.set("dual.test", Answer::Addresses(vec![web.into(), Ipv6Addr::LOCALHOST.into()]));
        dns.set("onionoo.test", Answer::ip(sandbox.ip(onionoo::SUBNET, 1)));
        dns.set("cdn.test", Answer::ip(sandbox.ip(public::CDN_SUBNET, 1)));
        dns.set("rebind.test", Answer::ip([127, 0, 0, 1]));
        dns.set("refused.test", Answer::Refused);
        dns.set("failed.test", Answer::Failed);
        dns.set("silent.test", Answer::Silent);
        dns.set("nx.test", Answer::NoSuchName);
        Ok(dns)
    }

    /// Its UDP address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer for a name, or for all names below a suffix (`*.test`). The longest match counts.
    pub fn set(&self, name: &str, answer: Answer) {
        let mut answers = self.names.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(name.to_ascii_lowercase(), answer);
    }

    /// The names, for fakes that resolve them without DNS.
    pub(crate) fn names(&self) -> Arc<Names> {
        self.names.clone()
    }

    /// Every name that was asked for, in order and in lower case.
    pub fn asked(&self) -> Vec<String> {
        self.names.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Names {
    /// The first IPv4 address of a name. Does not count as asked.
    pub(crate) fn resolve(&self, name: &str) -> Option<IpAddr> {
        match self.look_up(&name.to_ascii_lowercase()) {
            Answer::Addresses(addresses) => addresses.into_iter().find(IpAddr::is_ipv4),
            _ => None,
        }
    }

    fn answer(&self, name: &str) -> Answer {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        self.look_up(name)
    }

    fn look_up(&self, name: &str) -> Answer {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let parents = name.match_indices('.').map(|(dot, _)| format!("*{}", &name[dot..]));
        let mut keys = std::iter::once(name.to_owned()).chain(parents);
        keys.find_map(|key| answers.get(&key).cloned()).unwrap_or(Answer::NoSuchName)
    }
}

async fn serve(socket: UdpSocket, names: Arc<Names>) {
    let mut packet = [0; 1500];
    loop {
        let Ok((length, asker)) = socket.recv_from(&mut packet).await else { continue };
        let Some(question) = message::parse(&packet[..length]) else { continue };
        if let Some(reply) = message::reply(&question, &names.answer(&question.name)) {
            let _ = socket.send_to(&reply, asker).await; // fails only if the client is gone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_counts() {
        let names = Names::default();
        let mut answers = names.answers.lock().unwrap();
        answers.insert("*.test".into(), Answer::Refused);
        answers.insert("*.b.test".into(), Answer::Failed);
        answers.insert("a.b.test".into(), Answer::Silent);
        drop(answers);
        for (name, answer) in [
            ("a.b.test", Answer::Silent),
            ("c.b.test", Answer::Failed),
            ("d.a.b.test", Answer::Failed),
            ("x.test", Answer::Refused),
            ("test", Answer::NoSuchName),
            ("x.example", Answer::NoSuchName),
        ] {
            assert_eq!(names.answer(name), answer, "{name}");
        }
        assert_eq!(names.asked.lock().unwrap().len(), 6);
    }
}
