//! Reads the tokens after a route's name. Such tokens may narrow what the route allows, but never widen it.
//!
//! A route is a promise by its owner, for example "never the US" or "only exits that pass the shop's check". A username
//! is written by a user of the route. So each token is compared with the route's own selector. If a token would allow
//! more than the route, the username is refused, and the error contains the token.

use super::parse::ParsedTokens;
use super::{BadSelector, Mode, Reason, Selector, SourcePick, Words};
use crate::exit::Source;

/// The selector of a route after one username has narrowed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Narrowed {
    /// The route's selector, narrowed by the tokens (the words that follow the route's name in the username).
    pub(crate) selector: Selector,
    /// The tokens that change the route's selector, in their canonical form and with a `-` before each. The token of a
    /// session is left out. Empty if no token changes the selector.
    pub(crate) beyond: String,
    /// True if fewer exits are allowed than for the route itself. A username that allows fewer exits needs a pool of
    /// its own.
    pub(crate) fewer: bool,
}

impl Selector {
    /// Applies the tokens that follow the name of the route. `self` is the selector of the route `name`, and `allowed` are
    /// the sources that the route allows: those of its list of sources, or those of its selector if it has no list.
    pub(crate) fn narrowed(
        &self,
        name: &str,
        text: &str,
        allowed: &[Source],
        words: &Words,
    ) -> Result<Narrowed, BadSelector> {
        let parsed = ParsedTokens::read(text, words)?;
        let widens = |token: &str| BadSelector::new(token, Reason::Widens(name.into()));
        let mut whole = self.clone();
        if let Some((geo, token)) = &parsed.geo {
            if !self.geo.covers(geo) {
                return Err(widens(token));
            }
            whole.geo = geo.clone();
        }
        if let Some((mode, token)) = parsed.mode {
            whole.mode = self
                .mode
                .narrowed_to(mode)
                .map_err(|why| why.map_or_else(|| widens(token), |why| BadSelector::new(token, why)))?;
        }
        if let Some((source, token)) = parsed.source {
            let wanted = source.sources();
            if !wanted.iter().all(|source| allowed.contains(source)) {
                return Err(widens(token));
            }
            // A token that names all sources of the route changes nothing, so such a username uses the route's own pool.
            if !allowed.iter().all(|source| wanted.contains(source)) {
                (whole.source, whole.narrowed_source) = (source, true);
            }
        }
        only(&mut whole.exit, &parsed.exit, widens)?;
        only(&mut whole.asn, &parsed.asn, widens)?;
        if let Some((all, _)) = &parsed.not_asn {
            // Each AS more that is excluded narrows the route.
            whole.not_asn.extend(all);
            whole.not_asn.sort_unstable();
            whole.not_asn.dedup();
        }
        only(&mut whole.session, &parsed.session, widens)?;
        only(&mut whole.ttl, &parsed.ttl, widens)?;
        if let Some((by, token)) = parsed.isolate {
            // With a later variant of [`IsolateBy`], fewer streams share circuits. So a later variant narrows a route.
            whole.isolate = Some(by).filter(|by| self.isolate.is_none_or(|own| own <= *by));
            whole.isolate.ok_or_else(|| widens(token))?;
        }
        parsed.contradictions(&whole)?;
        whole.drop_idle_exclusions();
        let fewer = whole.pooled() != self.pooled();
        Ok(Narrowed { beyond: self.beyond(&whole), selector: whole, fewer })
    }

    /// Returns the parts of `whole` that this selector does not have, as canonical text.
    fn beyond(&self, whole: &Self) -> String {
        let mut text = String::new();
        if whole.geo != self.geo {
            text = format!("-{}", whole.geo);
        }
        if whole.mode != self.mode && whole.mode == Mode::Strict {
            text.push_str("-strict");
        }
        let added = Self {
            session: None,
            ttl: None,
            isolate: None,
            exit: whole.exit.filter(|_| self.exit.is_none()),
            asn: whole.asn.filter(|_| self.asn.is_none()),
            not_asn: if whole.not_asn == self.not_asn { Vec::new() } else { whole.not_asn.clone() },
            source: SourcePick::Tor,
            narrowed_source: false,
            mode: Mode::Flexible,
            ..whole.clone()
        };
        // Writing to a `String` cannot fail.
        let _ = added.write_tail(&mut text);
        if whole.narrowed_source && (self.source, self.narrowed_source) != (whole.source, true) {
            text.push_str("-source-");
            text.push_str(whole.source.as_str());
        }
        if whole.mode != self.mode && whole.mode == Mode::Rotate {
            text.push_str("-rotate");
        }
        text
    }
}

impl Mode {
    /// Returns the resulting mode if a username adds the mode `other` to a route with the mode `self`. An error without
    /// a reason means that `other` would widen the route.
    fn narrowed_to(self, other: Self) -> Result<Self, Option<Reason>> {
        match (self, other) {
            (Self::Flexible, other) => Ok(other),
            (own, other) if own == other => Ok(own),
            (Self::Strict, Self::Rotate) | (Self::Rotate, Self::Strict) => Err(Some(Reason::StrictRotate)),
            _ => Err(None),
        }
    }
}

/// Sets a part of the selector from a token. If the route's selector already sets that part, the token may only repeat
/// the same value.
fn only<T: Clone + PartialEq>(
    own: &mut Option<T>,
    written: &Option<(T, &str)>,
    widens: impl Fn(&str) -> BadSelector,
) -> Result<(), BadSelector> {
    match (&own, written) {
        (_, None) => {}
        (Some(own), Some((value, _))) if own == value => {}
        (Some(_), Some((_, token))) => return Err(widens(token)),
        (None, Some((value, _))) => *own = Some(value.clone()),
    }
    Ok(())
}
