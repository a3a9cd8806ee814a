//! Tokens behind a route's name: they may narrow what the route allows, never widen it.
//!
//! A route is a promise by its owner ("never the US", "only exits that pass the shop's check"), and a username is
//! written by its user. So each token is compared with the route's own selector, and a token that would allow more
//! is refused by name.

use super::parse::ParsedTokens;
use super::{BadSelector, Mode, Reason, Selector, SourcePick, Words};

/// A route's selector as one username narrows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Narrowed {
    /// The resulting selector: the route's with the tokens applied.
    pub(crate) selector: Selector,
    /// What the tokens add to the route's selector, sessions left out: canonical tokens with a `-` before each; empty
    /// if they add nothing.
    pub(crate) beyond: String,
    /// The exits to choose among are fewer than the route's, so that a pool of its own is needed.
    pub(crate) fewer: bool,
}

impl Selector {
    /// This selector of the route `name`, narrowed by the tokens that stand behind the name.
    pub(crate) fn narrowed(&self, name: &str, text: &str, words: &Words) -> Result<Narrowed, BadSelector> {
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
            let fits = source == self.source || (self.source == SourcePick::Any && source != SourcePick::Direct);
            whole.source = fits.then_some(source).ok_or_else(|| widens(token))?;
        }
        only(&mut whole.exit, &parsed.exit, widens)?;
        only(&mut whole.asn, &parsed.asn, widens)?;
        only(&mut whole.session, &parsed.session, widens)?;
        only(&mut whole.ttl, &parsed.ttl, widens)?;
        parsed.contradictions(&whole)?;
        let fewer = whole.pooled() != self.pooled();
        Ok(Narrowed { beyond: self.beyond(&whole), selector: whole, fewer })
    }

    /// The parts of `whole` that this selector does not have, as canonical text.
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
            exit: whole.exit.filter(|_| self.exit.is_none()),
            asn: whole.asn.filter(|_| self.asn.is_none()),
            source: SourcePick::Tor,
            mode: Mode::Flexible,
            ..whole.clone()
        };
        // Writing to a String cannot fail.
        let _ = added.write_tail(&mut text);
        if whole.source != self.source {
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
    /// The mode that results when a username asks this mode of a route to be `other`. An error without a reason means
    /// that `other` would widen the route.
    fn narrowed_to(self, other: Self) -> Result<Self, Option<Reason>> {
        match (self, other) {
            (Self::Flexible, other) => Ok(other),
            (own, other) if own == other => Ok(own),
            (Self::Strict, Self::Rotate) | (Self::Rotate, Self::Strict) => Err(Some(Reason::StrictRotate)),
            _ => Err(None),
        }
    }
}

/// Sets a part that the route leaves open; a part that it sets may only be repeated.
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
