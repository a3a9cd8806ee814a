//! Warns of engines whose version of tor the authorities do not recommend.
//!
//! Most versions that are no longer recommended have faults that an attacker can use, and after some time such versions
//! cannot use the network at all. The warning is logged once for each version and reason. A metric, the API and the
//! console show the same for each engine.

use super::netdir::clients::Recommendation;
use super::shared_state::SharedState;
use super::version::{UPDATE, Version};

impl Recommendation {
    /// Returns what is wrong with `version` and what to do, or `None` if nothing is wrong.
    pub fn advice(&self, version: Version) -> Option<String> {
        let what = match self {
            Self::Outdated { newest } => format!(
                "the Tor network does not recommend tor {version} any more, usually because of security faults; the newest \
                 recommended version is {newest}"
            ),
            Self::LacksRecommended(what) => {
                format!("tor {version} lacks parts of Tor's protocol that clients should have ({what})")
            }
            Self::LacksRequired(what) => format!(
                "tor {version} lacks parts of Tor's protocol that clients must have ({what}), and will stop working"
            ),
            Self::Recommended | Self::New | Self::Unknown => return None,
        };
        Some(format!("{what}: {UPDATE}"))
    }
}

impl SharedState {
    /// Returns what the authorities recommend about this version of tor in the newest directory.
    pub(super) fn recommendation(&self, version: Version) -> Recommendation {
        self.netdir().map_or(Recommendation::Unknown, |dir| dir.clients().recommendation(version))
    }

    /// Logs a warning if the authorities do not recommend this version. Does so only once for each version and reason.
    pub(super) fn warn_of_version(&self, version: Version) {
        let recommendation = self.recommendation(version);
        if let Some(advice) = recommendation.advice(version)
            && self.is_first_warning(version, recommendation.as_str())
        {
            tracing::warn!("{advice}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Lifecycle;
    use crate::tor::settings::Settings;

    #[test]
    fn advice_names_the_version_and_what_to_do() {
        let version = Version([0, 4, 9, 11]);
        let outdated = Recommendation::Outdated { newest: Version([0, 4, 9, 14]) };
        let advice = outdated.advice(version).unwrap();
        assert!(advice.contains("0.4.9.11 any more") && advice.contains("0.4.9.14: install"), "{advice}");
        for lacks in [Recommendation::LacksRecommended("Link=6".into()), Recommendation::LacksRequired("Link=6".into())]
        {
            assert!(lacks.advice(version).unwrap().contains("(Link=6)"));
        }
        for fine in [Recommendation::Recommended, Recommendation::New, Recommendation::Unknown] {
            assert_eq!(fine.advice(version), None);
        }
    }

    #[test]
    fn each_version_and_reason_is_warned_of_once() {
        let shared = SharedState::new(Settings::default(), Lifecycle::new().tasks());
        let (old, new) = (Version([0, 4, 9, 11]), Version([0, 4, 9, 14]));
        assert!(shared.is_first_warning(old, "outdated") && !shared.is_first_warning(old, "outdated"));
        assert!(shared.is_first_warning(old, "lacks_required") && shared.is_first_warning(new, "outdated"));
        assert_eq!(shared.recommendation(old), Recommendation::Unknown, "without a directory");
    }
}
