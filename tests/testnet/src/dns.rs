//! The name server that exits ask: every answer is a line in a map that a test may change.
//!
//! Exits remember: tor keeps an answer for five minutes at least, whatever its time to live. A test that changes an
//! answer uses a name that no exit has been asked for yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::UdpSocket;

use crate::ground::Ground;
use crate::network::dns_address;
use crate::onionoo;
use crate::public;
use crate::stage::{self, Task};
use crate::web;

mod message;

/// What a name comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses: the IPv4 ones for A, the IPv6 ones for AAAA; none at all is an empty answer.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// The server refuses to say.
    Refused,
    /// The server has failed.
    Failed,
    /// Nothing, ever.
    Silent,
}

impl Answer {
    /// One address.
    pub fn ip(ip: impl Into<IpAddr>) -> Self {
        Self::Addresses(vec![ip.into()])
    }
}

/// A running name server; it ends with this value.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    book: Arc<Book>,
    _task: Task,
}

/// Names and their answers.
#[derive(Debug, Default)]
pub(crate) struct Book {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
}

impl Dns {
    /// Starts where the exits of a network on `ground` ask. Every name under `.test` is the fake web, but for
    /// `hang.test`, `closed.test`, `other.test` (its other addresses), `dual.test` (also `::1`), `onionoo.test` and `cdn.test` (both on port 8080), `rebind.test` (127.0.0.1),
    /// `refused.test`, `failed.test`, `silent.test`, and `nx.test`, which does not exist. All else does not exist either.
    pub async fn start(ground: &Ground) -> anyhow::Result<Self> {
        let address = dns_address(ground);
        let socket = stage::run(UdpSocket::bind(address)).await?;
        let socket = socket.with_context(|| format!("cannot listen on {address}"))?;
        let book = Arc::new(Book::default());
        let dns = Self { address, _task: stage::spawn(serve(socket, book.clone())), book };
        let web = ground.ip(web::SUBNET, web::WEB);
        dns.set("*.test", Answer::ip(web));
        dns.set("hang.test", Answer::ip(ground.ip(web::SUBNET, web::HANG)));
        dns.set("closed.test", Answer::ip(ground.ip(web::SUBNET, web::CLOSED)));
        dns.set("other.test", Answer::ip(ground.ip(web::SUBNET, web::OTHER)));
        dns.set("dual.test", Answer::Addresses(vec![web.into(), Ipv6Addr::LOCALHOST.into()]));
        dns.set("onionoo.test", Answer::ip(ground.ip(onionoo::SUBNET, 1)));
        dns.set("cdn.test", Answer::ip(ground.ip(public::CDN_SUBNET, 1)));
        dns.set("rebind.test", Answer::ip([127, 0, 0, 1]));
        dns.set("refused.test", Answer::Refused);
        dns.set("failed.test", Answer::Failed);
        dns.set("silent.test", Answer::Silent);
        dns.set("nx.test", Answer::NoSuchName);
        Ok(dns)
    }

    /// Where it listens (UDP).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer for a name, or for all names below a suffix (`*.test`); the longest match wins.
    pub fn set(&self, name: &str, answer: Answer) {
        let mut answers = self.book.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(name.to_ascii_lowercase(), answer);
    }

    /// The same names for who asks from within.
    pub(crate) fn book(&self) -> Arc<Book> {
        self.book.clone()
    }

    /// Every name that was asked for, in order, lower case.
    pub fn asked(&self) -> Vec<String> {
        self.book.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Book {
    /// The first IPv4 address of a name, without a record of the question.
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

async fn serve(socket: UdpSocket, book: Arc<Book>) {
    let mut packet = [0; 1500];
    loop {
        let Ok((length, asker)) = socket.recv_from(&mut packet).await else { continue };
        let Some(question) = message::parse(&packet[..length]) else { continue };
        if let Some(reply) = message::reply(&question, &book.answer(&question.name)) {
            let _ = socket.send_to(&reply, asker).await; // an asker that is gone needs no answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_wins() {
        let book = Book::default();
        let mut answers = book.answers.lock().unwrap();
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
            assert_eq!(book.answer(name), answer, "{name}");
        }
        assert_eq!(book.asked.lock().unwrap().len(), 6);
    }
}
