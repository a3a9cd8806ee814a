//! The fields of a spec that choose the sources of a route's exits, and their validation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::BadField;
use crate::exit::Source;
use crate::route::selector::{Selector, Words};

/// A source of exits: `tor`, `public`, `direct`, or the name of an upstream source of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(as = SourceName, value_type = String, example = "tor")]
pub struct SourceChoice(pub Source);

impl TryFrom<String> for SourceChoice {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let unknown = || {
            format!("`{name}` is no source; write tor, public, direct, or the name of an entry of [[sources.upstream]]")
        };
        Source::find(&name).map(Self).ok_or_else(unknown)
    }
}

impl From<SourceChoice> for String {
    fn from(choice: SourceChoice) -> Self {
        choice.0.as_str().to_owned()
    }
}

/// The fields of a spec that concern sources.
pub(super) struct SourceFields<'a> {
    /// The field `source`. Empty if the spec does not have it.
    pub(super) sources: &'a [SourceChoice],
    pub(super) fallback: bool,
    /// The field `selector`, which may name a source too.
    pub(super) selector: Option<&'a str>,
}

impl SourceFields<'_> {
    /// `allow_direct` is true if routes may use this machine's own address.
    pub(super) fn validate(&self, words: &Words, allow_direct: bool) -> Result<(), BadField> {
        let Self { sources, fallback, selector } = self;
        if sources.contains(&SourceChoice(Source::Direct)) && !allow_direct {
            return Err(BadField::new("source", "names `direct`, which gateway.allow_direct does not allow"));
        }
        if sources.iter().enumerate().any(|(at, source)| sources[..at].contains(source)) {
            return Err(BadField::new("source", "names a source twice"));
        }
        let in_selector = selector.is_some_and(|text| Selector::has_source(text, words) == Ok(true));
        if in_selector && !sources.is_empty() {
            let why = "and `source-` in the selector both choose the sources; remove `source-` from the selector";
            return Err(BadField::new("source", why));
        }
        if *fallback && sources.len() < 2 {
            return Err(BadField::new("fallback", "needs two or more sources in `source`, the preferred one first"));
        }
        Ok(())
    }
}
