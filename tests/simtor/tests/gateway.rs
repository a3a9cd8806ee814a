//! The gateway reads what the model writes: not a line is skipped, and every exit is one.

use std::time::{Duration, UNIX_EPOCH};

use exitgate::exit::country::GeoIp;
use exitgate::tor::netdir::{Flags, Netdir, Rules};
use exitgate_simtor::model::{Model, PUBLIC_SIZE, Relay};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_gateway_reads_every_line_of_the_directory() {
    let model = Model::new(1, PUBLIC_SIZE);
    let after = UNIX_EPOCH + Duration::from_secs(1_795_262_400);
    let (consensus, microdescs) = (model.consensus(20, after, HOUR), model.microdescs(20, after));
    let directory = Netdir::parse(&consensus, &microdescs).unwrap();
    let skipped = directory.skipped();
    assert_eq!((skipped.malformed, skipped.unknown, skipped.relays, skipped.microdescs), (0, 0, 0, 0));
    assert_eq!(directory.missing_microdescs(), 0);
    assert_eq!(directory.len(), (0..PUBLIC_SIZE).filter(|place| model.is_listed(*place, 20)).count());
    assert_eq!(directory.valid_after(), Some(after));
    assert_eq!(directory.fresh_until(), Some(after + HOUR));
    assert_eq!(directory.valid_until(), Some(after + 3 * HOUR));
    assert_eq!(directory.param("DoSCircuitCreationRate"), Some(2));
    for (_, relay) in model.relays().iter().enumerate().filter(|(place, _)| model.is_listed(*place, 20)) {
        let read = directory.relay(&relay.hex().parse().unwrap()).unwrap();
        assert!(read.is_known(), "{}", relay.nickname);
        assert_eq!((read.nickname(), read.v4()), (&*relay.nickname, relay.address));
        assert_eq!((read.v6(), read.bandwidth()), (relay.ipv6, relay.weight));
        let flags = read.flags();
        assert_eq!((flags.has(Flags::EXIT), flags.has(Flags::GUARD)), (relay.flags.exit, relay.flags.guard));
        assert_eq!((flags.has(Flags::STABLE), flags.has(Flags::BAD_EXIT)), (relay.flags.stable, relay.flags.bad_exit));
        for port in [25, 80, 443, 6667] {
            assert_eq!(read.policy().allows(port), relay.lets_out(port), "{} {port}", relay.policy);
        }
    }
    // The public network's directory, as a client has it, is some 3 MB of consensus and 9 MB of microdescriptors.
    assert!((2_500_000..4_500_000).contains(&consensus.len()), "{}", consensus.len());
    assert!((5_000_000..11_000_000).contains(&microdescs.len()), "{}", microdescs.len());
}

#[test]
fn relays_of_one_family_are_one_family_to_the_gateway() {
    let model = Model::new(2, 2000);
    let directory = Netdir::parse(&model.consensus(0, UNIX_EPOCH, HOUR), &model.microdescs(0, UNIX_EPOCH)).unwrap();
    let rules = Rules { distinct_subnets: false };
    let read = |relay: &Relay| directory.relay(&relay.hex().parse().unwrap()).unwrap();
    for pair in model.relays().windows(2) {
        let related = read(&pair[0]).relation(read(&pair[1]), rules).is_some();
        assert_eq!(related, pair[0].family == pair[1].family, "{} {}", pair[0].nickname, pair[1].nickname);
    }
    let (first, second) = model
        .relays()
        .iter()
        .enumerate()
        .find_map(|(place, relay)| {
            let kin = |other: &&Relay| other.family == relay.family;
            model.relays()[place + 1..].iter().find(kin).map(|other| (relay, other))
        })
        .unwrap();
    assert!(read(first).relation(read(second), rules).is_some());
}

#[test]
fn the_gateway_knows_where_every_address_is() {
    let model = Model::new(3, 3000);
    let geoip = GeoIp::parse(&model.geoip(), "");
    for relay in model.relays() {
        assert_eq!(geoip.country(relay.exit_address.into()).as_str(), relay.country, "{}", relay.exit_address);
    }
}
