//! A small world for the tests of this room.

use std::net::Ipv4Addr;

use crate::exit::country::Country;
use crate::exit::facts::Flags;
use crate::exit::policy::PortPolicy;
use crate::exit::{Catalog, ExitId, Fingerprint, Listing, Moment, Verdict};
use crate::route::{Policy, Words};
use crate::state::Snapshot;

/// A relay in each of these countries; all but the last are good.
pub(super) fn snapshot(countries: &[&str]) -> Snapshot {
    let mut edit = Catalog::default().edit();
    for (at, country) in countries.iter().enumerate() {
        let at = u8::try_from(at).unwrap();
        let (id, ip) = (ExitId::Tor(Fingerprint([at + 1; 20])), Ipv4Addr::new(192, 0, 2, at + 1).into());
        let country = Country::parse(country).unwrap();
        edit.list(Listing {
            id: id.clone(),
            nickname: format!("relay{at}").into(),
            announced: vec![ip],
            country,
            asn: Some(64_500),
            as_name: None,
            policy: PortPolicy::accept_all(),
            policy_v6: PortPolicy::reject_all(),
            flags: Flags { running: true, ..Flags::default() },
            weight: 1,
        });
        if usize::from(at) + 1 < countries.len() {
            edit.learn(&id, |known| {
                known.saw(ip, country, Moment(1));
                known.verdict = Verdict::Good;
            });
        }
    }
    let mut snapshot = Snapshot::new(Words::default(), Policy::default());
    snapshot.catalog = edit.finish();
    snapshot
}
