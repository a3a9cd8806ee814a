//! What a username resolves to: a route, a route narrowed by further tokens, or a selector without a route.
//!
//! The longest route name that the username begins with wins: `shop-de-strict` is the route `shop-de` with `strict` if
//! there is one, and else the route `shop` with `de-strict`.

use std::sync::Arc;

use super::{Entry, Route, RouteTable};
use crate::exit::Exit;
use crate::route::holder::HolderRef;
use crate::route::policy::Policy;
use crate::route::selector::{BadSelector, Mode, Narrowed, Reason, Selector};
use crate::route::{Isolation, OwnEngine};

/// The label of all usernames that name no route.
pub const IMPLICIT: &str = "implicit";

/// A username, resolved against the routes of one snapshot.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The route that it names, or whose port the client used; `None`: no route.
    pub entry: Option<Arc<Entry>>,
    /// The route's selector, narrowed by the username; or the username's own.
    pub selector: Selector,
    /// Pins and sessions are stored under this: the route's name with the tokens that narrow it, or the canonical selector.
    pub scope: Arc<str>,
    /// The route's policy, or the default.
    pub policy: Arc<Policy>,
    /// The scope of the implicit pool; `None`: the route's own pool serves.
    pub(in crate::route) pool: Option<Arc<str>>,
}

impl Wish {
    /// The route's name, or `implicit`: fit for a metric label.
    pub fn label(&self) -> &str {
        self.entry.as_ref().map_or(IMPLICIT, |entry| entry.route.name.as_str())
    }

    /// True if connections may take any exit of a pool: there is neither a session nor a pin.
    pub fn is_pooled(&self) -> bool {
        self.selector.mode != Mode::Strict && self.selector.session.is_none()
    }

    /// True if it uses the whole pool of its route.
    pub fn is_whole(&self) -> bool {
        self.entry.is_some() && self.pool.is_none()
    }

    /// True if an exit has what the username asks for, whether or not it is up and passes checks.
    pub fn wants(&self, exit: &Exit) -> bool {
        let filter = self.selector.filter(self.policy.sources(&self.selector), None);
        filter.wants(exit) && self.selector.picks(exit)
    }

    /// The own engine of its route, if it has one.
    pub fn own_engine(&self) -> Option<OwnEngine> {
        self.entry.as_ref()?.route.own_engine()
    }

    /// The isolation of its streams, for a client with this key.
    pub fn isolation(&self, key: &str) -> Isolation {
        HolderRef { key, scope: &self.scope, session: self.selector.session.as_ref() }.isolation()
    }
}

impl RouteTable {
    /// What an empty username at the port of this route would resolve to if the route were added.
    pub fn preview(&self, route: Route) -> Result<Wish, BadSelector> {
        self.narrowed(&Arc::new(self.entry(route)), "")
    }

    /// Resolves a username at the shared port, or at the port of the route `own`.
    pub fn resolve(&self, username: &str, own: Option<&str>) -> Result<Wish, BadSelector> {
        let wish = match own.and_then(|own| self.by_name.get(own)) {
            Some(own) => self.resolve_at(username, own)?,
            None => self.resolve_shared(username)?,
        };
        let longest = wish.policy.max_session_ttl;
        if wish.selector.ttl.is_some_and(|ttl| ttl > longest) {
            return Err(BadSelector::new("ttl", Reason::TimeTooLong(longest)));
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

    /// The route with the longest name that the text begins with, and the text behind that name.
    pub(super) fn longest<'t>(&self, text: &'t str) -> Option<(&Arc<Entry>, &'t str)> {
        if self.by_name.is_empty() {
            return None;
        }
        let folded = text.to_ascii_lowercase();
        let ends = std::iter::once(text.len()).chain(text.rmatch_indices('-').map(|(at, _)| at));
        ends.into_iter().find_map(|end| {
            let entry = self.by_name.get(&folded[..end])?;
            // A `-` with nothing behind it must be reported as a missing token.
            let behind = if end + 1 == text.len() { "-" } else { text.get(end + 1..).unwrap_or_default() };
            Some((entry, behind))
        })
    }

    fn narrowed(&self, entry: &Arc<Entry>, behind: &str) -> Result<Wish, BadSelector> {
        let route = &entry.route;
        let Narrowed { selector, beyond, fewer } = route.selector.narrowed(route.name.as_str(), behind, &self.words)?;
        let scope = if beyond.is_empty() { route.name.shared() } else { format!("{}{beyond}", route.name).into() };
        let pool = fewer.then(|| format!("{}:{}", route.name, selector.pooled()).into());
        Ok(Wish { entry: Some(entry.clone()), policy: route.policy.clone(), selector, scope, pool })
    }

    fn implicit(&self, selector: Selector) -> Wish {
        let scope: Arc<str> = selector.lasting().to_string().into();
        let pooled = selector.pooled();
        let pool = if pooled == selector { scope.clone() } else { pooled.to_string().into() };
        Wish { entry: None, policy: self.defaults.clone(), selector, scope, pool: Some(pool) }
    }
}
