//! The gateway of a provider: the username names a country and a session, and each session has an address.
//!
//! The grammars are those of six providers' documentation. A test may plant what real ones do: a session that moves to
//! another address, a country that is served from another one, a login that is refused, an account without traffic.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Decide, Verdict, address_in};
use crate::sandbox::Sandbox;

/// Whose grammar a gateway has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    Brightdata,
    Oxylabs,
    Decodo,
    Iproyal,
    Soax,
    Webshare,
}

impl Grammar {
    pub const ALL: [Self; 6] =
        [Self::Brightdata, Self::Oxylabs, Self::Decodo, Self::Iproyal, Self::Soax, Self::Webshare];

    /// The name that exitgate's configuration has for this provider.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brightdata => "brightdata",
            Self::Oxylabs => "oxylabs",
            Self::Decodo => "decodo",
            Self::Iproyal => "iproyal",
            Self::Soax => "soax",
            Self::Webshare => "webshare",
        }
    }
}

/// What a gateway does with the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Good,
    /// The login is refused.
    Refused,
    /// The account has no traffic left.
    Empty,
}

/// The accounts and sessions of one provider.
pub struct Provider {
    grammar: Grammar,
    user: String,
    password: String,
    sandbox: Arc<Sandbox>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    standing: Standing,
    /// Country and session → the address.
    sessions: HashMap<(String, String), Ipv4Addr>,
    given: u8,
    /// Sessions for the first country leave in the second.
    wrong: Option<(String, String)>,
    /// The country for which there is no peer.
    without_peers: Option<String>,
}

impl Provider {
    pub fn new(sandbox: &Arc<Sandbox>, grammar: Grammar, user: &str, password: &str) -> Arc<Self> {
        let (user, password, sandbox) = (user.to_owned(), password.to_owned(), sandbox.clone());
        Arc::new(Self { grammar, user, password, sandbox, state: Mutex::default() })
    }

    /// What the proxy of this provider decides by.
    pub fn decide(self: &Arc<Self>) -> Decide {
        let provider = self.clone();
        Arc::new(move |user, password| provider.verdict(user, password))
    }

    pub fn set_standing(&self, standing: Standing) {
        self.state().standing = standing;
    }

    /// Sessions for `country` leave in `other`.
    pub fn mislead(&self, country: &str, other: &str) {
        self.state().wrong = Some((country.to_owned(), other.to_owned()));
    }

    /// There is no peer in this country any more.
    pub fn empty(&self, country: &str) {
        self.state().without_peers = Some(country.to_owned());
    }

    /// Gives every session another address, as providers do when a peer goes offline.
    pub fn move_all(&self) {
        let mut state = self.state();
        let all: Vec<_> = state.sessions.keys().cloned().collect();
        for key in all {
            let ip = self.new_address(&mut state, &key.0);
            state.sessions.insert(key, ip);
        }
    }

    /// How many sessions were ever used.
    pub fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_address(&self, state: &mut State, country: &str) -> Ipv4Addr {
        let shown = state.wrong.as_ref().filter(|(of, _)| of == country).map_or(country, |(_, other)| other);
        state.given = state.given.wrapping_add(1).max(1);
        address_in(&self.sandbox, if shown.is_empty() { "FR" } else { shown }, state.given)
    }

    fn verdict(&self, user: &str, password: &str) -> Verdict {
        let Some((country, session)) = self.read(user, password) else { return self.bad_login() };
        let mut state = self.state();
        match state.standing {
            Standing::Refused => return self.bad_login(),
            Standing::Empty => return self.no_traffic(),
            Standing::Good => {}
        }
        if state.without_peers.as_ref() == Some(&country) {
            return self.no_peers();
        }
        let key = (country, session);
        if let Some(ip) = state.sessions.get(&key) {
            return Verdict::Leave(*ip);
        }
        let ip = self.new_address(&mut state, &key.0);
        state.sessions.insert(key, ip);
        Verdict::Leave(ip)
    }

    fn bad_login(&self) -> Verdict {
        match self.grammar {
            Grammar::Brightdata => Verdict::Answer(
                "HTTP/1.1 407 Auth Failed\r\nx-brd-err-code: client_10000\r\nx-brd-err-msg: wrong_password\r\n\r\n"
                    .into(),
            ),
            _ => Verdict::BadLogin,
        }
    }

    fn no_traffic(&self) -> Verdict {
        let answer = match self.grammar {
            Grammar::Brightdata => "407 Auth Failed\r\nx-brd-err-msg: zone traffic quota exceeded",
            Grammar::Oxylabs => "403 Forbidden\r\nX-Error-Description: Traffic limit reached",
            _ => "402 Payment Required",
        };
        Verdict::Answer(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"))
    }

    fn no_peers(&self) -> Verdict {
        let answer = match self.grammar {
            Grammar::Brightdata => "502 Proxy Error\r\nx-brd-err-code: peer_10001\r\nx-brd-err-msg: no_peers",
            Grammar::Oxylabs => "525 No Exit Found",
            _ => "502 Bad Gateway\r\nX-Error: no available peer",
        };
        Verdict::Answer(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"))
    }

    /// Reads country (empty: any) and session. `None` if the login or the grammar is wrong.
    fn read(&self, user: &str, password: &str) -> Option<(String, String)> {
        let (head, keys, text): (String, [&str; 3], &str) = match self.grammar {
            Grammar::Brightdata => (self.user.clone(), ["country", "session", ""], user),
            Grammar::Oxylabs => (format!("customer-{}", self.user), ["cc", "sessid", "sesstime"], user),
            Grammar::Decodo => (format!("user-{}", self.user), ["country", "session", "sessionduration"], user),
            Grammar::Iproyal => (self.password.clone(), ["country", "session", "lifetime"], password),
            Grammar::Soax => (format!("package-{}", self.user), ["country", "sessionid", "sessionlength"], user),
            Grammar::Webshare => (self.user.clone(), ["", "", ""], user),
        };
        let right = if self.grammar == Grammar::Iproyal { user == self.user } else { password == self.password };
        let separator = if self.grammar == Grammar::Iproyal { '_' } else { '-' };
        let rest = text.strip_prefix(head.as_str())?.strip_prefix(separator).filter(|_| right)?;
        if self.grammar == Grammar::Webshare {
            let (country, session) = rest.split_once('-').unwrap_or(("", rest));
            let is_number = session.bytes().all(|byte| byte.is_ascii_digit());
            return is_number.then(|| (country.to_ascii_uppercase(), session.to_owned()));
        }
        let split = if separator == '_' { rest.replace('_', "-") } else { rest.to_owned() };
        let words: Vec<&str> = split.split('-').collect();
        let pairs: HashMap<&str, &str> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let known = words.len().is_multiple_of(2) && pairs.keys().all(|key| keys.contains(key));
        let country = pairs.get(keys[0]).map(|country| country.to_ascii_uppercase()).unwrap_or_default();
        known.then(|| pairs.get(keys[1])).flatten().map(|session| (country, (*session).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_grammar_is_read_as_its_provider_documents_it() {
        let sandbox = Sandbox::claim().unwrap();
        for (grammar, user, password) in [
            (Grammar::Brightdata, "acc-country-us-session-12345678", "pw"),
            (Grammar::Oxylabs, "customer-acc-cc-us-sessid-12345678-sesstime-10", "pw"),
            (Grammar::Decodo, "user-acc-country-us-sessionduration-10-session-12345678", "pw"),
            (Grammar::Iproyal, "acc", "pw_country-us_session-12345678_lifetime-10m"),
            (Grammar::Soax, "package-acc-country-us-sessionid-12345678-sessionlength-600", "pw"),
            (Grammar::Webshare, "acc-us-12345678", "pw"),
        ] {
            let provider = Provider::new(&sandbox, grammar, "acc", "pw");
            assert_eq!(provider.read(user, password), Some(("US".into(), "12345678".into())), "{grammar:?}");
            assert_eq!(provider.read(&format!("x{user}"), &format!("x{password}")), None, "{grammar:?}");
        }
    }
}
