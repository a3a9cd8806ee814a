//! The settings of a route, except its selector.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::isolate_by::IsolateBy;
use super::rules::Rules;
use super::selector::Selector;
use super::session::Term;
use crate::exit::{Moment, Source};

const MINUTE: Duration = Duration::from_secs(60);

/// How the exits of a route are chosen, kept and reached, and which clients may use the route's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The number of exits, each with another IP, that the route uses at the same time.
    pub pool: u16,
    /// The name of the check target that exits must pass. `None` if there is no such condition.
    pub check: Option<Arc<str>>,
    /// The sources of exits in order of preference. If empty, the sources of the selector are used. A username may exclude
    /// some of these sources ([`Selector::narrowed_source`]).
    pub sources: Vec<Source>,
    /// True if a later source may serve only while the earlier sources have no exit, or while the site of a request
    /// refuses them. If false, the pool is filled from
    /// all sources, in their order.
    pub fallback: bool,
    /// How long requests to a site begin with a later source, after the site has refused an earlier source. Matters only
    /// with `fallback`. `None`: requests always begin with the first source.
    pub escalate_for: Option<Duration>,
    /// True if no other pin may have the IP of a pin of this route.
    pub exclusive: bool,
    pub engine: Engine,
    /// Which streams of one client may share circuits.
    pub isolation: IsolateBy,
    /// The number of relays in each circuit: 3, or 2 for more speed and no anonymity.
    pub hops: u8,
    /// True if the route may connect to IPv6 targets. Such targets see an IPv6 address of the exit that no check has
    /// seen.
    pub ipv6: bool,
    /// The time after which the exits of the route are exchanged for others. `None`: exits are never exchanged.
    pub rotate_every: Option<Duration>,
    /// How long a pinned exit may be down, or missing from the directory, before the pin moves to another exit. `None`:
    /// the pin never moves by itself and waits for its exit.
    pub repin_after: Option<Duration>,
    /// How long a pin lasts after its last use.
    pub pin_ttl: Duration,
    /// How long a session lasts after its last use, if the username has no `ttl`.
    pub session_ttl: Duration,
    /// The longest `ttl` that a username may have.
    pub max_session_ttl: Duration,
    pub auth: Auth,
    /// The networks from which clients may use the route's own port. If empty, clients from every network may use the
    /// port.
    pub allow: Vec<IpNet>,
    /// The rules by destination: which targets do not use the selector of the route.
    pub rules: Rules,
}

/// The tor processes that carry the traffic of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// The tor processes that are shared with other routes.
    #[default]
    Shared,
    /// Tor processes that only this route uses.
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
    /// Returns the defaults, as documented in `config/exitgate.toml`. A pool has 8 exits: other gateways, which start
    /// one tor process for each exit, also offer about 8 exits on a small machine. A session lasts ten minutes, as at
    /// paid gateways. The other values are not tuned.
    fn default() -> Self {
        Self {
            pool: 8,
            check: None,
            sources: Vec::new(),
            fallback: false,
            escalate_for: Some(60 * MINUTE),
            exclusive: false,
            engine: Engine::Shared,
            isolation: IsolateBy::Key,
            hops: 3,
            ipv6: false,
            rotate_every: None,
            repin_after: Some(180 * MINUTE),
            pin_ttl: 30 * 24 * 60 * MINUTE,
            session_ttl: 10 * MINUTE,
            max_session_ttl: 24 * 60 * MINUTE,
            auth: Auth::Key,
            allow: Vec::new(),
            rules: Rules::default(),
        }
    }
}

impl Policy {
    /// Returns the sources in order of preference. These are the policy's sources. The selector decides if the policy has
    /// none, or if a username has narrowed the sources.
    pub fn sources<'a>(&'a self, selector: &Selector) -> &'a [Source] {
        if self.sources.is_empty() {
            return selector.source.sources();
        }
        if !selector.narrowed_source {
            return &self.sources;
        }
        let narrowed = selector.source.sources();
        let first = self.sources.iter().find(|source| narrowed.contains(source));
        match (narrowed, first) {
            // `source-any` means two sources, and their order is that of the policy.
            ([Source::Tor, Source::Public], Some(Source::Public)) => &[Source::Public, Source::Tor],
            _ => narrowed,
        }
    }

    /// Returns how many times `rotate_every` has passed since the time `since`. Returns 0 if exits are never exchanged.
    pub(super) fn exchanges(&self, since: Moment, now: Moment) -> u64 {
        let Some(every) = self.rotate_every else { return 0 };
        let due = now.since(since).as_micros() / every.as_micros().max(1);
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// Returns how long a session of this selector lasts.
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

    /// Returns how long a pin of this selector lasts.
    pub(crate) fn pin_term(&self, selector: &Selector) -> Term {
        match selector.ttl {
            Some(span) => Term { span, fixed: true },
            None => Term { span: self.pin_ttl, fixed: false },
        }
    }
}
