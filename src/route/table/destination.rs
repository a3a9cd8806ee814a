//! Applies the rules of a route to a username and a target.
//!
//! The tokens that follow the route's name in the username narrow what the rule asks for, just as they narrow the
//! route's own selector. So a rule never gives a username more than the rule itself says, and a client's tokens never
//! disappear.

use std::fmt;
use std::sync::Arc;

use super::{Entry, RouteTable, Wish};
use crate::net::Host;
use crate::route::rules::{Action, RuleSelector};
use crate::route::selector::{BadSelector, Narrowed, RouteName, Selector};

/// A rule, named by its route and by its number in the list of rules. The first rule has the number 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleId {
    pub route: RouteName,
    pub number: usize,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.route, self.number)
    }
}

/// Why a rule does not let a connection through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {} of the route `{}` {why}", .rule.number, .rule.route)]
pub struct RuleRefusal {
    pub rule: RuleId,
    pub why: WhyRule,
}

/// The reason of a [`RuleRefusal`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyRule {
    #[error("refuses this target")]
    Refused,
    #[error("leads to the route `{0}`, which does not exist")]
    NoRoute(RouteName),
    /// The rules of some routes lead from one to the other without end. Such rules are refused before they are used, so
    /// this is a second line of defence.
    #[error("leads back to a route before it")]
    Circle,
    #[error("does not allow this username: {0}")]
    Username(BadSelector),
}

impl RouteTable {
    /// Applies rules to a resolved username: returns what the username means for this target. The port is `None` if the
    /// request is a look-up of a name. The username stays unchanged if its route has no rule for the target.
    pub fn for_target(&self, wish: Wish, host: &Host, port: Option<u16>) -> Result<Wish, Box<RuleRefusal>> {
        if wish.entry.as_ref().is_none_or(|entry| entry.route.policy.rules.is_empty()) {
            return Ok(wish);
        }
        self.follow(wish, host, port)
    }

    fn follow(&self, mut wish: Wish, host: &Host, port: Option<u16>) -> Result<Wish, Box<RuleRefusal>> {
        while let Some(entry) = wish.entry.clone() {
            let Some((number, rule)) = entry.route.policy.rules.find(host, port) else { break };
            let id = RuleId { route: entry.route.name.clone(), number };
            let refuse = |why| Box::new(RuleRefusal { rule: id.clone(), why });
            // Without a circle, each route is passed at most once.
            if wish.rules.len() >= self.len() {
                return Err(refuse(WhyRule::Circle));
            }
            let tokens = wish.tokens.as_deref().unwrap_or_default();
            let last = !matches!(rule.action, Action::Route(_));
            let (next, own) = match &rule.action {
                Action::Refuse => return Err(refuse(WhyRule::Refused)),
                Action::Use(rule) | Action::Direct(rule) => (self.by_selector(&entry, rule, tokens), &rule.selector),
                Action::Route(name) => match self.get(name.as_str()) {
                    Some(other) => (self.narrowed(other, tokens), &other.route.selector),
                    None => return Err(refuse(WhyRule::NoRoute(name.clone()))),
                },
            };
            let next = next.and_then(|wish| Self::within_policy(wish, Some(own)));
            let next = next.map_err(|bad| refuse(WhyRule::Username(bad)))?;
            let mut rules = std::mem::take(&mut wish.rules);
            rules.push(id);
            wish = Wish { rules, ..next };
            if last {
                break;
            }
        }
        Ok(wish)
    }

    /// Returns the meaning of a username of the route `entry` whose selector is that of a rule.
    fn by_selector(&self, entry: &Arc<Entry>, rule: &RuleSelector, tokens: &str) -> Result<Wish, BadSelector> {
        let route = &entry.route;
        let (selector, beyond) = if tokens.is_empty() {
            (rule.selector.clone(), String::new())
        } else {
            let sources = route.policy.sources(&rule.selector);
            let Narrowed { selector, beyond, .. } =
                rule.selector.narrowed(route.name.as_str(), tokens, sources, &self.words)?;
            (selector, beyond)
        };
        let scope = format!("{}:{}{beyond}", route.name, rule.lasting).into();
        let pool = if is_pool_of(&selector, &route.selector) {
            None
        } else if tokens.is_empty() {
            Some(format!("{}:{}", route.name, rule.pooled).into())
        } else {
            Some(format!("{}:{}", route.name, selector.pooled()).into())
        };
        let (entry, policy) = (Some(entry.clone()), route.policy.clone());
        let tokens = (!tokens.is_empty()).then(|| tokens.into());
        Ok(Wish { entry, selector, scope, policy, pool, tokens, rules: Vec::new(), order: None })
    }

    /// Resolves the scope of a pin or session. A scope is a username, or `route:selector` if a rule of the route set
    /// the selector. `None` if no username and no rule of the route has this scope.
    pub fn resolve_scope(&self, scope: &str) -> Option<Wish> {
        let Some((name, rest)) = scope.split_once(':') else { return self.resolve(scope, None).ok() };
        let entry = self.get(name)?;
        let rules = entry.route.policy.rules.as_slice().iter();
        let selectors = rules.filter_map(|rule| match &rule.action {
            Action::Use(selector) | Action::Direct(selector) => Some(selector),
            Action::Route(_) | Action::Refuse => None,
        });
        // The tokens of the username stand behind the selector of the rule.
        let fits = |selector: &RuleSelector| {
            let beyond = rest.strip_prefix(&*selector.lasting)?;
            let tokens = if beyond.is_empty() { beyond } else { beyond.strip_prefix('-')? };
            self.by_selector(entry, selector, tokens).ok()
        };
        selectors.into_iter().filter_map(fits).find(|wish| *wish.scope == *scope)
    }
}

/// Returns true if both selectors choose among the same exits, so one pool serves both.
fn is_pool_of(selector: &Selector, of: &Selector) -> bool {
    selector.pooled() == of.pooled()
}

#[cfg(test)]
mod tests;
