//! Validates selectors that the configuration contains: those of routes and of their rules.

use std::time::Duration;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::text_value::TextValue as _;
use super::{Gateway, Groups, Sources};
use crate::exit::Source;

/// What the validation of a configuration must know about a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectorFacts {
    /// The sources that the token `source-…` of the selector names. Empty if the selector has no such token.
    pub sources: &'static [Source],
    /// The time of the token `ttl-…`.
    pub ttl: Option<Duration>,
}

/// A function that validates the text of a selector. `Groups` are the country groups that a selector may contain. The
/// error says what is wrong. The function is a parameter, because this room does not know the grammar of usernames.
pub type SelectorCheck<'a> = &'a dyn Fn(&str, &Groups) -> Result<SelectorFacts, String>;

/// The other parts of the configuration that a selector may refer to.
pub(super) struct SelectorContext<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) groups: &'a Groups,
    pub(super) sources: &'a Sources,
    /// `None` if selectors are not validated.
    pub(super) check: Option<SelectorCheck<'a>>,
}

impl SelectorContext<'_> {
    /// Returns true if the text is a selector.
    pub(super) fn is_selector(&self, text: &str) -> bool {
        self.check.is_some_and(|check| check(text, self.groups).is_ok())
    }

    /// Validates the selector at the key `at`. Returns what is known of it; `None` if it is wrong, or if selectors are
    /// not validated. `hint` follows an error of the grammar.
    pub(super) fn validate(
        &self,
        text: &str,
        at: &KeyPath,
        hint: &str,
        findings: &mut Findings,
    ) -> Option<SelectorFacts> {
        let facts = match self.check?(text, self.groups) {
            Ok(facts) => facts,
            Err(why) => {
                findings.fault(at, format!("is {text:?}: {why}"), hint);
                return None;
            }
        };
        if facts.sources == [Source::Direct] && !self.gateway.allow_direct {
            let what = format!("is {text:?}, but connections from this machine's own address are turned off");
            let hint = "set gateway.allow_direct = true if sites may see this machine's own address";
            findings.fault(at, what, hint);
        }
        for source in facts.sources {
            self.require(*source, at, findings);
        }
        let longest = self.gateway.max_session_ttl;
        if let Some(ttl) = facts.ttl.filter(|ttl| *ttl > longest) {
            let what = format!(
                "is {text:?}, whose time of {} is longer than gateway.max_session_ttl ({})",
                ttl.write(),
                longest.write()
            );
            findings.fault(at, what, "shorten the time after `ttl-`, or raise gateway.max_session_ttl");
        }
        Some(facts)
    }

    /// Reports a source that this configuration does not have. The process may know its name from the configuration of
    /// before a reload.
    pub(super) fn require(&self, source: Source, at: &KeyPath, findings: &mut Findings) {
        let Source::Upstream(name) = source else { return };
        if !self.sources.upstream.iter().any(|upstream| upstream.name == name) {
            let what = format!("names the source {:?}, which [[sources.upstream]] does not have", name.as_str());
            findings.fault(at, what, "keep the source in [[sources.upstream]], or name another source here");
        }
    }
}
