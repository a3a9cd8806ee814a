//! The meaning of a username: a route, a route that further tokens narrow, or a selector without a route.
//!
//! If a username begins with the names of several routes, the longest name counts. For example, `shop-de-strict` is the
//! route `shop-de` with the token `strict`, if there is a route `shop-de`. Otherwise it is the route `shop` with the
//! tokens `de-strict`.

use std::sync::Arc;

use super::{Entry, Route, RouteTable, RuleId};
use crate::exit::{Exit, Source};
use crate::net::Host;
use crate::route::OwnEngine;
use crate::route::isolation::{self, Isolation, Tenant};
use crate::route::policy::Policy;
use crate::route::selector::{BadSelector, Mode, Narrowed, Reason, Selector};

/// The metric label of all usernames that contain no route name.
pub const IMPLICIT: &str = "implicit";

/// The meaning of a username, according to the routes of one snapshot.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The route whose name the username contains, or whose port the client used. `None` if there is no such route.
    pub entry: Option<Arc<Entry>>,
    /// The selector of the route after the username has narrowed it, or the username's own selector.
    pub selector: Selector,
    /// The part of the key of pins and sessions that comes from the username: the route's name with the tokens that
    /// narrow the route, or the canonical selector.
    pub scope: Arc<str>,
    /// The policy of the route, or the default policy.
    pub policy: Arc<Policy>,
    /// The scope of the implicit pool. `None` if the route's own pool is used.
    pub(in crate::route) pool: Option<Arc<str>>,
    /// The text after the route's name in the username. Kept only if the route has rules, which narrow their selectors
    /// by this text. `None` if nothing follows the name, or if the route has no rules.
    pub(super) tokens: Option<Box<str>>,
    /// The rules that matched the target, in the order in which they were applied. Empty until
    /// [`RouteTable::for_target`] has applied rules.
    pub rules: Vec<RuleId>,
    /// The sources that this request tries, in their order. `None` means the sources of the policy in the order of the
    /// policy.
    pub order: Option<Arc<[Source]>>,
}

impl Wish {
    /// Returns the name of the route, or `implicit`. The text is suitable as a metric label.
    pub fn label(&self) -> &str {
        self.entry.as_ref().map_or(IMPLICIT, |entry| entry.route.name.as_str())
    }

    /// Returns the rules that were applied, as the access line writes them: `shop#2`, or `shop#2>dear#1` if the first
    /// rule leads to another route whose rule matches too. `None` if no rule was applied.
    pub fn rule_text(&self) -> Option<Arc<str>> {
        let ids: Vec<_> = self.rules.iter().map(ToString::to_string).collect();
        (!ids.is_empty()).then(|| ids.join(">").into())
    }

    /// Returns the sources that this request tries, in their order.
    pub fn sources(&self) -> &[Source] {
        self.order.as_deref().unwrap_or_else(|| self.policy.sources(&self.selector))
    }

    /// Returns the same wish with other sources, or with another order of them.
    pub fn with_order(&self, order: Arc<[Source]>) -> Self {
        Self { order: Some(order), ..self.clone() }
    }

    /// Returns true if connections may use any exit of a pool, because there is neither a session nor a pin.
    pub fn is_pooled(&self) -> bool {
        self.selector.mode != Mode::Strict && self.selector.session.is_none()
    }

    /// Returns true if the username uses the whole pool of its route.
    pub fn is_whole(&self) -> bool {
        self.entry.is_some() && self.pool.is_none()
    }

    /// Returns true if the exit meets the selector of the username. Whether the exit is up and passes checks does not
    /// matter.
    pub fn wants(&self, exit: &Exit) -> bool {
        let filter = self.selector.filter(self.policy.sources(&self.selector), None);
        filter.wants(exit) && self.selector.picks(exit)
    }

    /// Returns the engine that belongs to the username's route alone, if there is one.
    pub fn own_engine(&self) -> Option<OwnEngine> {
        self.entry.as_ref()?.route.own_engine()
    }

    /// Returns the isolation of a stream of this client to a target host. The username may let fewer streams share
    /// circuits than the route does, but not more.
    pub fn isolation(&self, tenant: Tenant<'_>, host: &Host) -> Isolation {
        let by = self.selector.isolate.map_or(self.policy.isolation, |by| by.max(self.policy.isolation));
        isolation::isolation(by, tenant, &self.scope, self.selector.session.as_ref(), host)
    }
}

impl RouteTable {
    /// Returns the meaning that an empty username at the port of this route would have if the route were added.
    pub fn preview(&self, route: Route) -> Result<Wish, BadSelector> {
        self.narrowed(&Arc::new(self.entry(route)), "")
    }

    /// Resolves a username. `own` is the route to which the port belongs, or `None` at the shared port.
    pub fn resolve(&self, username: &str, own: Option<&str>) -> Result<Wish, BadSelector> {
        let wish = match own.and_then(|own| self.by_name.get(own)) {
            Some(own) => self.resolve_at(username, own)?,
            None => self.resolve_shared(username)?,
        };
        let own = wish.entry.clone();
        Self::within_policy(wish, own.as_ref().map(|entry| &entry.route.selector))
    }

    /// Refuses a username whose tokens go beyond the policy of its route. `own` is the selector that the tokens narrow:
    /// that of the route or of one of its rules.
    pub(super) fn within_policy(wish: Wish, own: Option<&Selector>) -> Result<Wish, BadSelector> {
        let longest = wish.policy.max_session_ttl;
        if wish.selector.ttl.is_some_and(|ttl| ttl > longest) {
            return Err(BadSelector::new("ttl", Reason::TimeTooLong(longest)));
        }
        // The selector of a route or rule may let more streams share circuits than the policy of the route does. This is
        // no error, and the policy counts. An error is only a token in the username that would do so.
        let own = own.and_then(|own| own.isolate);
        if let Some(by) = wish.selector.isolate.filter(|by| *by < wish.policy.isolation && own != Some(*by)) {
            return Err(BadSelector::new(by.as_str(), Reason::IsolateLess(wish.policy.isolation)));
        }
        Ok(wish)
    }

    fn resolve_shared(&self, username: &str) -> Result<Wish, BadSelector> {
        let named = self.longest(username);
        let named = named.or_else(|| self.longest(self.words.without_prefix(username)?));
        match named {
            Some((entry, behind)) => self.narrowed(entry, behind),
            None => Ok(self.implicit(Selector::parse(username, &self.words)?)),
        }
    }

    fn resolve_at(&self, username: &str, own: &Arc<Entry>) -> Result<Wish, BadSelector> {
        match self.longest(username) {
            Some((entry, behind)) if entry.route.name == own.route.name => self.narrowed(own, behind),
            Some((entry, _)) => {
                let why = Reason::OtherRoute(own.route.name.as_str().into());
                Err(BadSelector::new(entry.route.name.as_str(), why))
            }
            None => self.narrowed(own, self.words.without_prefix(username).unwrap_or(username)),
        }
    }

    /// Returns the route with the longest name with which the text begins, and the text after that name.
    pub(super) fn longest<'t>(&self, text: &'t str) -> Option<(&Arc<Entry>, &'t str)> {
        if self.by_name.is_empty() {
            return None;
        }
        let folded = text.to_ascii_lowercase();
        let ends = std::iter::once(text.len()).chain(text.rmatch_indices('-').map(|(at, _)| at));
        ends.into_iter().find_map(|end| {
            let entry = self.by_name.get(&folded[..end])?;
            // If nothing follows a `-`, the error must report a missing token.
            let behind = if end + 1 == text.len() { "-" } else { text.get(end + 1..).unwrap_or_default() };
            Some((entry, behind))
        })
    }

    pub(super) fn narrowed(&self, entry: &Arc<Entry>, behind: &str) -> Result<Wish, BadSelector> {
        let route = &entry.route;
        let sources = route.policy.sources(&route.selector);
        let narrowed = route.selector.narrowed(route.name.as_str(), behind, sources, &self.words)?;
        let Narrowed { selector, beyond, fewer } = narrowed;
        let scope = if beyond.is_empty() { route.name.shared() } else { format!("{}{beyond}", route.name).into() };
        let pool = fewer.then(|| format!("{}:{}", route.name, selector.pooled()).into());
        let tokens = (!route.policy.rules.is_empty() && !behind.is_empty()).then(|| behind.into());
        let (entry, policy) = (Some(entry.clone()), route.policy.clone());
        Ok(Wish { entry, policy, selector, scope, pool, tokens, rules: Vec::new(), order: None })
    }

    fn implicit(&self, selector: Selector) -> Wish {
        let scope: Arc<str> = selector.lasting().to_string().into();
        let pooled = selector.pooled();
        let pool = if pooled == selector { scope.clone() } else { pooled.to_string().into() };
        let policy = self.defaults.clone();
        Wish { entry: None, policy, selector, scope, pool: Some(pool), tokens: None, rules: Vec::new(), order: None }
    }
}
