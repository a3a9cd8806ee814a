//! A route's settings beside its selector.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::selector::Selector;
use super::session::Term;
use crate::exit::Source;

const MINUTE: Duration = Duration::from_secs(60);

/// How a route's exits are chosen, kept and reached, and which clients may use its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many exits with different IPs are in use at once.
    pub pool: u16,
    /// The name of the check target that exits must pass.
    pub check: Option<Arc<str>>,
    /// Sources in order of preference; empty: those of the selector.
    pub sources: Vec<Source>,
    /// A later source serves only while the earlier ones have no exit. If false, the pool is filled from all of them, in
    /// their order.
    pub fallback: bool,
    /// No other pin may have the IP of a pin of this route.
    pub exclusive: bool,
    pub engine: Engine,
    /// Relays in each circuit: 3, or 2 for speed without anonymity.
    pub hops: u8,
    /// IPv6 targets are allowed, where exits show an address that no check has seen.
    pub ipv6: bool,
    /// How often exits are exchanged for others.
    pub rotate_every: Option<Duration>,
    /// How long a pinned exit may be down before the pin moves; `None`: the pin waits for its exit.
    pub repin_after: Option<Duration>,
    /// How long an unused pin lasts.
    pub pin_ttl: Duration,
    /// How long an unused session lasts if the username states no `ttl`.
    pub session_ttl: Duration,
    /// The longest `ttl` that a username may state.
    pub max_session_ttl: Duration,
    pub auth: Auth,
    /// Networks whose clients may use the route's own port; empty: all.
    pub allow: Vec<IpNet>,
}

/// The tor processes that carry a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// The engines that other routes use, too.
    #[default]
    Shared,
    /// An engine of its own.
    Own,
}

/// Whether clients need a key at a route's own port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Auth {
    #[default]
    Key,
    Open,
}

impl Default for Policy {
    /// As documented in `config/exitgate.toml`. A pool of 8 is as many exits as gateways with one tor process for each run
    /// on a small machine; ten minutes is how long sessions of paid gateways last; the rest is not tuned.
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
    /// Sources in order of preference: the policy's, or those of the selector if the policy names none.
    pub fn sources<'a>(&'a self, selector: &Selector) -> &'a [Source] {
        if self.sources.is_empty() { selector.source.sources() } else { &self.sources }
    }

    /// How long a session of this selector lasts.
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

    /// How long a pin of this selector lasts.
    pub(crate) fn pin_term(&self, selector: &Selector) -> Term {
        match selector.ttl {
            Some(span) => Term { span, fixed: true },
            None => Term { span: self.pin_ttl, fixed: false },
        }
    }
}
