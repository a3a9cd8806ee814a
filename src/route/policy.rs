//! What a route says beside its selector.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::selector::Selector;
use super::session::Term;
use crate::exit::Source;

const MINUTE: Duration = Duration::from_secs(60);

/// How a route's exits are chosen, kept and reached, and who may use its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Exits with different IPs that it uses at once.
    pub pool: u16,
    /// The check target that its exits must pass.
    pub check: Option<Arc<str>>,
    /// Sources, the preferred one first; none: what the selector says.
    pub sources: Vec<Source>,
    /// A later source serves only while the earlier ones have no exit. Otherwise the pool is filled in their order.
    pub fallback: bool,
    /// Its pins share their IP with no other pin.
    pub exclusive: bool,
    /// Whose engines carry it.
    pub engine: Engine,
    /// Relays in a circuit: 3, or 2 for speed without anonymity.
    pub hops: u8,
    /// Targets may be reached over IPv6, where exits show an address that no check saw.
    pub ipv6: bool,
    /// How often its exits are exchanged for others.
    pub rotate_every: Option<Duration>,
    /// How long a pinned exit is down before the pin moves; `None`: it waits for ever.
    pub repin_after: Option<Duration>,
    /// How long an unused pin lasts.
    pub pin_ttl: Duration,
    /// How long an unused session lasts, if the client does not say.
    pub session_ttl: Duration,
    /// The longest that a client may say.
    pub max_session_ttl: Duration,
    /// Whether its own port asks for a key.
    pub auth: Auth,
    /// Who may use its own port at all; nobody named: everybody.
    pub allow: Vec<IpNet>,
}

/// Whose engines carry a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Those that carry the others.
    #[default]
    Shared,
    /// One of its own.
    Own,
}

/// Whether a route's own port asks for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Auth {
    /// It does.
    #[default]
    Key,
    /// It does not.
    Open,
}

impl Default for Policy {
    /// As documented in the config. A pool of 8 is what peers with one tor process an exit run at most on a small
    /// machine; ten minutes is the session of paid gateways; the rest is the design's.
    fn default() -> Self {
        Self {
            pool: 8,
            check: None,
            sources: Vec::new(),
            fallback: false,
            exclusive: false,
            engine: Engine::Shared,
            hops: 3,
            ipv6: false,
            rotate_every: None,
            repin_after: Some(10 * MINUTE),
            pin_ttl: 30 * 24 * 60 * MINUTE,
            session_ttl: 10 * MINUTE,
            max_session_ttl: 24 * 60 * MINUTE,
            auth: Auth::Key,
            allow: Vec::new(),
        }
    }
}

impl Policy {
    /// Sources in order of preference, for a selector of (or narrowed from) a route with this policy.
    pub fn sources<'a>(&'a self, selector: &Selector) -> &'a [Source] {
        if self.sources.is_empty() { selector.source.sources() } else { &self.sources }
    }

    /// How long a session lasts that asks for this.
    pub(crate) fn session_term(&self, selector: &Selector) -> Term {
        let asked = match selector.ttl {
            Some(span) => Term { span, fixed: true },
            None => Term { span: self.session_ttl, fixed: false },
        };
        match self.rotate_every {
            Some(every) if !asked.fixed || every < asked.span => Term { span: every, fixed: true },
            _ => asked,
        }
    }

    /// How long a pin lasts that asks for this.
    pub(crate) fn pin_term(&self, selector: &Selector) -> Term {
        match selector.ttl {
            Some(span) => Term { span, fixed: true },
            None => Term { span: self.pin_ttl, fixed: false },
        }
    }
}
