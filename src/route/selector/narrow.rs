//! Words behind a route's name: they may narrow what the route gives, never widen it.
//!
//! A route is a promise by whoever configured it ("never the US", "only what passes the shop's check"), and a user name
//! is written by whoever uses it. So every word is held against the route's own selector, and the word that would break
//! out of it is refused by name.

use super::parse::Said;
use super::{BadSelector, Mode, Reason, Selector, SourcePick, Words};

/// A route's selector as one user name narrows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Narrowed {
    /// The whole of it.
    pub(crate) selector: Selector,
    /// What it asks for beyond the route's own, sessions aside, in canonical words with a `-` before each; empty if
    /// nothing.
    pub(crate) beyond: String,
    /// The exits to choose among are fewer than the route's.
    pub(crate) fewer: bool,
}

impl Selector {
    /// This selector of the route `name`, narrowed by the words that stand behind the name.
    pub(crate) fn narrowed(&self, name: &str, text: &str, words: &Words) -> Result<Narrowed, BadSelector> {
        let said = Said::read(text, words)?;
        let widens = |token: &str| BadSelector::new(token, Reason::Widens(name.into()));
        let mut whole = self.clone();
        if let Some((geo, token)) = &said.geo {
            if !self.geo.covers(geo) {
                return Err(widens(token));
            }
            whole.geo = geo.clone();
        }
        if let Some((mode, token)) = said.mode {
            whole.mode = self
                .mode
                .then(mode)
                .map_err(|why| why.map_or_else(|| widens(token), |why| BadSelector::new(token, why)))?;
        }
        if let Some((source, token)) = said.source {
            let fits = source == self.source || (self.source == SourcePick::Any && source != SourcePick::Direct);
            whole.source = fits.then_some(source).ok_or_else(|| widens(token))?;
        }
        only(&mut whole.exit, &said.exit, widens)?;
        only(&mut whole.asn, &said.asn, widens)?;
        only(&mut whole.session, &said.session, widens)?;
        only(&mut whole.ttl, &said.ttl, widens)?;
        said.contradictions(&whole)?;
        let fewer = whole.pooled() != self.pooled();
        Ok(Narrowed { beyond: self.beyond(&whole), selector: whole, fewer })
    }

    /// What `whole` says that this does not.
    fn beyond(&self, whole: &Self) -> String {
        let mut text = String::new();
        if whole.geo != self.geo {
            text = format!("-{}", whole.geo);
        }
        if whole.mode != self.mode && whole.mode == Mode::Strict {
            text.push_str("-strict");
        }
        let news = Self {
            session: None,
            ttl: None,
            exit: whole.exit.filter(|_| self.exit.is_none()),
            asn: whole.asn.filter(|_| self.asn.is_none()),
            source: SourcePick::Tor,
            mode: Mode::Flexible,
            ..whole.clone()
        };
        // Writing to a String cannot fail.
        let _ = news.write_tail(&mut text);
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
    /// This mode of a route, asked by a user name to be `other`. An error without a reason is a widening.
    fn then(self, other: Self) -> Result<Self, Option<Reason>> {
        match (self, other) {
            (Self::Flexible, other) => Ok(other),
            (own, other) if own == other => Ok(own),
            (Self::Strict, Self::Rotate) | (Self::Rotate, Self::Strict) => Err(Some(Reason::StrictRotate)),
            _ => Err(None),
        }
    }
}

/// Sets what was not set; what was may only be said again.
fn only<T: Clone + PartialEq>(
    own: &mut Option<T>,
    said: &Option<(T, &str)>,
    widens: impl Fn(&str) -> BadSelector,
) -> Result<(), BadSelector> {
    match (&own, said) {
        (_, None) => {}
        (Some(own), Some((said, _))) if own == said => {}
        (Some(_), Some((_, token))) => return Err(widens(token)),
        (None, Some((said, _))) => *own = Some(said.clone()),
    }
    Ok(())
}
