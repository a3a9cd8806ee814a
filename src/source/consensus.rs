//! The Tor exits that are listed in the directory (consensus and microdescriptors), which the Tor engines download.
//!
//! A gateway that can reach the Tor network needs no other source: every engine downloads the consensus and the
//! microdescriptors anyway. These documents contain the addresses, flags, bandwidth and exit policy of each relay. They
//! do not contain the country of a relay, nor the address from which its traffic leaves. The country comes from tor's
//! geoip file. The address comes from the other sources, and in the end from checks.
//!
//! Next: `source/merge.rs` merges the sources. [`crate::tor::netdir`] parses the directory.

use std::net::IpAddr;

use crate::exit::country::Country;
use crate::exit::facts;
use crate::exit::{ExitId, Listing, Moment};
use crate::store::Source;
use crate::tor::netdir::{Flags, Netdir, Relay};

/// The name of this source in the API path `/sources`, in metrics and in the log.
pub const NAME: &str = "consensus";

/// Returns the listing of a relay in the directory. Returns `None` if the relay is not an exit, or if its exit policy
/// has not arrived yet.
///
/// The exit policy decides whether a relay is an exit, and not the `Exit` flag: the flag requires ports 80 and 443, but
/// a relay that refuses one of these ports can still be used for the other. A relay with the `BadExit` flag is listed
/// and marked, so the API can show why that relay is not used.
pub fn listing(relay: Relay<'_>) -> Option<Listing> {
    let lets_out = !relay.policy().is_reject_all() || !relay.policy_v6().is_reject_all();
    let counts = relay.is_known() && lets_out && relay.flags().has(Flags::VALID);
    counts.then(|| Listing {
        id: ExitId::Tor(relay.fingerprint()),
        nickname: relay.nickname().into(),
        announced: std::iter::once(IpAddr::V4(relay.v4())).chain(relay.v6().map(IpAddr::V6)).collect(),
        country: Country::UNKNOWN,
        asn: None,
        as_name: None,
        policy: relay.policy().clone(),
        policy_v6: relay.policy_v6().clone(),
        flags: flags(relay),
        weight: relay.bandwidth(),
        unlisted: None,
        public: None,
        upstream: None,
    })
}

/// The flags of a relay. `MiddleOnly` means that a relay must not be used as an exit, so this flag is treated like
/// `BadExit`.
pub fn flags(relay: Relay<'_>) -> facts::Flags {
    let flags = relay.flags();
    facts::Flags {
        running: flags.has(Flags::RUNNING),
        stable: flags.has(Flags::STABLE),
        fast: flags.has(Flags::FAST),
        bad_exit: flags.has(Flags::BAD_EXIT) || flags.has(Flags::MIDDLE_ONLY),
    }
}

/// Returns the status of the directory as a source: fresh, or stale after the directory has expired.
pub fn status(directory: &Netdir, before: &Source, now: Moment) -> Source {
    let exits = directory.relays().filter(|relay| listing(*relay).is_some()).count();
    let missing = directory.missing_microdescs();
    let stale = directory.valid_until().is_some_and(|until| Moment::from(until) < now);
    let (outcome, why) = match (stale, missing) {
        (true, _) => ("stale", "the directory has expired and the engines have no newer one".to_owned()),
        (false, 0) => ("fresh", String::new()),
        (false, missing) => ("fresh", format!("microdescriptors that have not arrived yet: {missing}")),
    };
    Source {
        name: NAME.to_owned(),
        attempt: Some(now),
        good: if stale { before.good } else { Some(now) },
        next: directory.fresh_until().map(Moment::from),
        published: directory.valid_after().map(Moment::from),
        outcome: outcome.to_owned(),
        why,
        records: u32::try_from(exits).unwrap_or(u32::MAX),
        skipped: directory.skipped().relays,
        failures: if stale { before.failures.saturating_add(1) } else { 0 },
        etag: None,
        last_modified: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tor::netdir::synth::{Fake, WEIGHTS, texts};

    fn directory(relays: &[Fake]) -> Netdir {
        let (consensus, microdescs) = texts(relays, "", WEIGHTS);
        Netdir::parse(&consensus, &microdescs).unwrap()
    }

    fn listed(relay: Fake) -> Option<Listing> {
        let directory = directory(&[relay]);
        directory.relays().next().and_then(listing)
    }

    #[test]
    fn a_relay_is_listed_by_what_it_lets_out() {
        let fake = |flags: &str, policy: &str, policy_v6: &str| Fake {
            flags: flags.into(),
            policy: policy.into(),
            policy_v6: policy_v6.into(),
            ..Fake::new(1)
        };
        let up = facts::Flags { running: true, stable: true, fast: true, bad_exit: false };
        let bad = facts::Flags { bad_exit: true, ..up };
        for (relay, want) in [
            (fake("Exit Fast Running Stable Valid", "accept 80,443", ""), Some(up)),
            (fake("Fast Running Stable Valid", "accept 80", ""), Some(up)),
            (fake("Fast Running Stable Valid", "", "accept 443"), Some(up)),
            (fake("BadExit Exit Fast Running Stable Valid", "accept 80,443", ""), Some(bad)),
            (fake("Fast MiddleOnly Running Stable Valid", "accept 80,443", ""), Some(bad)),
            (fake("Exit Valid", "accept 80,443", ""), Some(facts::Flags::default())),
            (fake("Exit Fast Running Stable", "accept 80,443", ""), None),
            (fake("Exit Fast Running Stable Valid", "", ""), None),
            (Fake { known: false, ..Fake::new(1) }, None),
        ] {
            let what = format!("{} / {} / {}", relay.flags, relay.policy, relay.policy_v6);
            assert_eq!(listed(relay).map(|listing| listing.flags), want, "{what}");
        }
    }

    #[test]
    fn a_listing_has_the_facts_of_the_directory() {
        let relay = Fake { v6: Some("2001:db8::1".parse().unwrap()), policy_v6: "reject 25".into(), ..Fake::new(3) };
        let (fingerprint, v4) = (relay.hex().parse().unwrap(), relay.v4);
        let flags = facts::Flags { running: true, stable: true, fast: true, bad_exit: false };
        let want = Listing {
            id: ExitId::Tor(fingerprint),
            nickname: "relay3".into(),
            announced: vec![v4.into(), "2001:db8::1".parse().unwrap()],
            country: Country::UNKNOWN,
            asn: None,
            as_name: None,
            policy: "accept 80,443".parse().unwrap(),
            policy_v6: "reject 25".parse().unwrap(),
            flags,
            weight: 1000,
            unlisted: None,
            public: None,
            upstream: None,
        };
        assert_eq!(listed(relay), Some(want));
    }

    #[test]
    fn an_expired_directory_is_stale() {
        let directory = directory(&[Fake::new(1), Fake { known: false, ..Fake::new(2) }]);
        let until = Moment::from(directory.valid_until().unwrap());
        let fresh = status(&directory, &Source::default(), until);
        assert_eq!((fresh.outcome.as_str(), fresh.records, fresh.good), ("fresh", 1, Some(until)));
        assert_eq!(fresh.why, "microdescriptors that have not arrived yet: 1");
        let later = until.after(Duration::from_secs(1));
        let stale = status(&directory, &fresh, later);
        assert_eq!((stale.outcome.as_str(), stale.good, stale.failures), ("stale", Some(until), 1));
        assert_eq!((stale.published, stale.next), (fresh.published, fresh.next), "both are the directory's times");
    }
}
