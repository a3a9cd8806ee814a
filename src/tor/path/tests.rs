//! Compares the module with a slow reference. The reference uses the list of relays that a directory was generated
//! from, not the parsed directory. It lists all possible middles and filters them, without optimisations.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::netdir::synth::{Fake, WEIGHTS, network, texts};
use super::*;

fn read(relays: &[Fake]) -> Netdir {
    let (consensus, microdescs) = texts(relays, "", WEIGHTS);
    Netdir::parse(&consensus, &microdescs).unwrap()
}

fn id(relay: &Fake) -> Fingerprint {
    Fingerprint(relay.id)
}

fn flag(relay: &Fake, word: &str) -> bool {
    relay.flags.split(' ').any(|flag| flag == word)
}

fn up(relay: &Fake) -> bool {
    relay.known && flag(relay, "Running") && flag(relay, "Valid")
}

fn kin(a: &Fake, b: &Fake) -> bool {
    let declares = |a: &Fake, b: &Fake| a.family.split(' ').any(|member| member == b.hex() || member == b.nickname);
    let proven = a.family_ids.split(' ').any(|id| !id.is_empty() && b.family_ids.split(' ').any(|other| id == other));
    declares(a, b) && declares(b, a) || proven
}

fn neighbours(a: &Fake, b: &Fake) -> bool {
    let v6 = a.v6.zip(b.v6).is_some_and(|(a, b)| a.segments()[..2] == b.segments()[..2]);
    a.v4.octets()[..2] == b.v4.octets()[..2] || v6
}

fn slow_exit(exit: &Fake, target: Option<Port>) -> Option<NoPath> {
    // In these tests a policy is a list of single ports.
    let allows = |policy: &str, port: u16| {
        policy.strip_prefix("accept ").is_some_and(|list| list.split(',').any(|one| one == port.to_string()))
    };
    let lets_out = |port: Port| match port.over {
        IpVersion::V4 => allows(&exit.policy, port.number),
        IpVersion::V6 => allows(&exit.policy_v6, port.number),
        IpVersion::Either => allows(&exit.policy, port.number) || allows(&exit.policy_v6, port.number),
    };
    if !flag(exit, "Running") {
        Some(NoPath::ExitNotRunning)
    } else if !flag(exit, "Valid") {
        Some(NoPath::ExitNotValid)
    } else if flag(exit, "BadExit") {
        Some(NoPath::ExitBad)
    } else if flag(exit, "MiddleOnly") {
        Some(NoPath::ExitMiddleOnly)
    } else if !exit.known {
        Some(NoPath::ExitNoDescriptor)
    } else {
        target.filter(|port| !lets_out(*port)).map(|port| NoPath::ExitPolicy { port: port.number })
    }
}

fn slow_ends(guard: &Fake, exit: &Fake, distinct: bool) -> Option<NoPath> {
    if !up(guard) {
        Some(NoPath::GuardUnusable)
    } else if guard.id == exit.id {
        Some(NoPath::GuardIsExit)
    } else if kin(guard, exit) {
        Some(NoPath::GuardInExitFamily)
    } else {
        (distinct && neighbours(guard, exit)).then_some(NoPath::GuardInExitSubnet)
    }
}

/// Returns a relay's weight in the middle position, computed from [`WEIGHTS`].
fn slow_weight(relay: &Fake) -> f64 {
    let exit = flag(relay, "Exit") && !flag(relay, "BadExit");
    let factor = match (flag(relay, "Guard"), exit) {
        (false, false) => 1.0,
        (true, false) => 0.4194,
        _ => 0.0,
    };
    f64::from(relay.bandwidth) * factor
}

/// Returns every possible middle with its probability.
fn slow_middles(relays: &[Fake], guard: &Fake, exit: &Fake, want: &Want<'_>, stable: bool) -> Vec<(Fingerprint, f64)> {
    let free = |relay: &&Fake| {
        up(relay)
            && !want.avoid.contains(&id(relay))
            && [guard, exit].iter().all(|end| {
                end.id != relay.id && !kin(end, relay) && !(want.rules.distinct_subnets && neighbours(end, relay))
            })
    };
    let free: Vec<&Fake> = relays.iter().filter(free).collect();
    let wished: Vec<&Fake> =
        free.iter().copied().filter(|relay| flag(relay, "Fast") && (!stable || flag(relay, "Stable"))).collect();
    let fit = if wished.is_empty() { free } else { wished };
    let total: f64 = fit.iter().map(|relay| slow_weight(relay)).sum();
    let even = 1.0 / fit.len() as f64;
    let chance = |relay: &Fake| if total == 0.0 { even } else { slow_weight(relay) / total };
    fit.iter().map(|relay| (id(relay), chance(relay))).collect()
}

fn want<'a>(guard: &Fake, exit: &Fake, avoid: &'a HashSet<Fingerprint>) -> Want<'a> {
    Want {
        entry: Entry::Guard(id(guard)),
        exit: id(exit),
        target: Some(Port { number: 443, over: IpVersion::V4 }),
        hops: Hops::Three,
        avoid,
        rules: Rules::default(),
    }
}

#[test]
fn a_path_is_written_as_tor_takes_it() {
    let relays: Vec<Fake> = (1..=3).map(Fake::new).collect();
    let (dir, none, mut rng) = (read(&relays), HashSet::new(), SmallRng::seed_from_u64(1));
    let path = choose(&dir, &want(&relays[0], &relays[2], &none), &mut rng).unwrap();
    assert_eq!(path.to_string(), relays.iter().map(Fake::hex).collect::<Vec<_>>().join(","));
    assert_eq!((path.exit(), path.middle(), path.relaxed()), (id(&relays[2]), Some(id(&relays[1])), false));
    let short = Want { hops: Hops::Two, ..want(&relays[0], &relays[2], &none) };
    let path = choose(&dir, &short, &mut rng).unwrap();
    assert_eq!(path.to_string(), format!("{},{}", relays[0].hex(), relays[2].hex()));
    assert_eq!((path.exit(), path.middle(), path.hops().len()), (id(&relays[2]), None, 2));
}

#[test]
fn says_why_there_is_no_path() {
    type Change = fn(&mut [Fake]);
    let cases: [(Change, NoPath); 14] = [
        (|relays| relays[0].id[5] = 1, NoPath::GuardUnknown),
        (|relays| relays[0].flags = "Valid".into(), NoPath::GuardUnusable),
        (|relays| relays[0].known = false, NoPath::GuardUnusable),
        (|relays| relays[0].v4 = "10.3.9.9".parse().unwrap(), NoPath::GuardInExitSubnet),
        (|relays| [0, 2].map(|i| relays[i].family_ids = "x".into()).into_iter().collect(), NoPath::GuardInExitFamily),
        (|relays| relays[2].id[5] = 1, NoPath::ExitUnknown),
        (|relays| relays[2].flags = "Exit Valid".into(), NoPath::ExitNotRunning),
        (|relays| relays[2].flags = "Exit Running".into(), NoPath::ExitNotValid),
        (|relays| relays[2].flags.push_str(" BadExit"), NoPath::ExitBad),
        (|relays| relays[2].flags.push_str(" MiddleOnly"), NoPath::ExitMiddleOnly),
        (|relays| relays[2].known = false, NoPath::ExitNoDescriptor),
        (|relays| relays[2].policy = "reject 443".into(), NoPath::ExitPolicy { port: 443 }),
        (|relays| relays[1].flags = "Running".into(), NoPath::NoMiddle),
        (|relays| relays[1].v4 = "10.1.9.9".parse().unwrap(), NoPath::NoMiddle),
    ];
    let good: Vec<Fake> = (1..=3).map(Fake::new).collect();
    let none = HashSet::new();
    let wanted = want(&good[0], &good[2], &none);
    assert!(choose(&read(&good), &wanted, &mut SmallRng::seed_from_u64(1)).is_ok());
    for (change, why) in cases {
        let mut relays = good.clone();
        change(&mut relays);
        assert_eq!(choose(&read(&relays), &wanted, &mut SmallRng::seed_from_u64(1)), Err(why));
    }
    let to_itself = Want { exit: id(&good[0]), ..wanted };
    assert_eq!(choose(&read(&good), &to_itself, &mut SmallRng::seed_from_u64(1)), Err(NoPath::GuardIsExit));
}

#[test]
fn prefers_stable_relays_for_long_lived_ports_only() {
    let mut relays: Vec<Fake> = (1..=6).map(Fake::new).collect();
    relays.iter_mut().for_each(|relay| relay.policy = "accept 22,443".into());
    relays[2..].iter_mut().for_each(|relay| relay.flags = "Fast Running Valid".into());
    relays[2].flags = "Fast Stable Running Valid".into();
    relays[5].flags = "Exit Running Valid".into();
    let (mut avoid, mut rng) = (HashSet::new(), SmallRng::seed_from_u64(1));
    let middles = |port, avoid: &HashSet<_>, rng: &mut SmallRng| {
        let target = Some(Port { number: port, over: IpVersion::V4 });
        let dir = read(&relays);
        let wanted = Want { target, ..want(&relays[0], &relays[1], avoid) };
        (0..200)
            .map(|_| choose(&dir, &wanted, rng).unwrap())
            .map(|path| (path.middle(), path.relaxed()))
            .collect::<HashSet<_>>()
    };
    assert_eq!(middles(22, &avoid, &mut rng), HashSet::from([(Some(id(&relays[2])), false)]));
    assert_eq!(middles(443, &avoid, &mut rng).len(), 3, "whatever is Fast");
    avoid.extend([id(&relays[2])]);
    let relaxed = middles(22, &avoid, &mut rng);
    assert_eq!(relaxed.len(), 3 - usize::from(slow_weight(&relays[5]) == 0.0), "all that is up, by weight");
    assert!(relaxed.iter().all(|(_, relaxed)| *relaxed));
    let to_slow = Want { hops: Hops::Two, exit: id(&relays[5]), ..want(&relays[0], &relays[1], &avoid) };
    assert!(
        choose(&read(&relays), &to_slow, &mut rng).unwrap().relaxed(),
        "an exit that was asked for need not be Fast"
    );
}

#[test]
fn a_bridge_is_kept_from_its_neighbours() {
    let relays: Vec<Fake> = (1..=4).map(Fake::new).collect();
    let (dir, none, mut rng) = (read(&relays), HashSet::new(), SmallRng::seed_from_u64(1));
    let bridge = |ip: Option<&str>, exit: usize| Want {
        entry: Entry::Bridge { id: Fingerprint([9; 20]), ip: ip.map(|ip| ip.parse().unwrap()) },
        ..want(&relays[0], &relays[exit], &none)
    };
    assert_eq!(choose(&dir, &bridge(Some("10.4.7.7"), 3), &mut rng), Err(NoPath::GuardInExitSubnet));
    for _ in 0..50 {
        let middle = choose(&dir, &bridge(Some("10.4.7.7"), 2), &mut rng).unwrap().middle().unwrap();
        assert!([0, 1].iter().any(|i| id(&relays[*i]) == middle));
    }
    let anywhere: HashSet<_> = (0..200).map(|_| choose(&dir, &bridge(None, 2), &mut rng).unwrap().middle()).collect();
    assert_eq!(anywhere.len(), 3);
    assert_eq!(choose(&dir, &bridge(None, 2), &mut rng).unwrap().hops()[0], Fingerprint([9; 20]));
    let listed = Want { entry: Entry::Bridge { id: id(&relays[2]), ip: None }, ..want(&relays[0], &relays[2], &none) };
    assert_eq!(choose(&dir, &listed, &mut rng), Err(NoPath::GuardIsExit));
}

/// Draws many middles in one network and compares their frequencies with the expected ones, with Pearson's chi-square
/// test.
fn fits_the_weights(relays: &[Fake], avoid: &HashSet<Fingerprint>, drawn: u32) {
    let exit = relays.iter().position(|relay| relay.policy.contains("accept 80,443") && up(relay)).unwrap();
    let guard = relays.iter().rposition(|relay| flag(relay, "Guard") && up(relay)).unwrap();
    let (dir, mut rng) = (read(relays), SmallRng::seed_from_u64(7));
    let wanted = want(&relays[guard], &relays[exit], avoid);
    let mut seen = std::collections::HashMap::<Fingerprint, u32>::new();
    for _ in 0..drawn {
        *seen.entry(choose(&dir, &wanted, &mut rng).unwrap().middle().unwrap()).or_default() += 1;
    }
    // Relays that are expected fewer than five times are counted together, because the chi-square test requires this.
    let (mut chi, mut cells, mut small) = (0f64, 0f64, (0f64, 0f64));
    for (middle, chance) in slow_middles(relays, &relays[guard], &relays[exit], &wanted, false) {
        let (expected, found) = (chance * f64::from(drawn), f64::from(seen.remove(&middle).unwrap_or(0)));
        if expected < 5.0 {
            small = (small.0 + expected, small.1 + found);
            continue;
        }
        chi += (found - expected).powi(2) / expected;
        cells += 1.0;
        assert!((found - expected).abs() < 6.0 * expected.sqrt(), "{middle}: {found} instead of {expected}");
    }
    assert!(seen.is_empty(), "unfit middles: {seen:?}");
    assert!((small.1 - small.0).abs() <= 6.0 * small.0.sqrt(), "{small:?}");
    // The mean and the standard deviation of chi-square for this number of cells. A result four standard deviations
    // away from the mean happens by chance once in thirty thousand runs.
    let (mean, spread) = (cells - 1.0, (2.0 * (cells - 1.0)).sqrt());
    assert!(chi < mean + 4.0 * spread, "chi-square {chi} of {cells} cells");
}

#[test]
fn the_distribution_of_middles_fits_the_weights() {
    fits_the_weights(&network(400, 3), &HashSet::new(), 100_000);
}

#[test]
fn the_distribution_fits_when_most_draws_are_unfit() {
    // All of the heaviest relays must be avoided, so that both methods of drawing are used.
    let relays = network(60, 5);
    let mut by_weight: Vec<&Fake> = relays.iter().collect();
    by_weight.sort_by(|a, b| slow_weight(b).total_cmp(&slow_weight(a)));
    let avoid: HashSet<Fingerprint> = by_weight[..12].iter().map(|relay| id(relay)).collect();
    fits_the_weights(&relays, &avoid, 20_000);
}

prop_compose! {
    /// A relay of a small network: few subnets, few families, some flags and descriptors missing.
    fn crowded(seed: u16)(
        net in 0u8..12, v6 in prop::option::weighted(0.3, 0u16..3), family in 0usize..12, proven in 0usize..20,
        bandwidth in prop_oneof![Just(0u32), 1u32..50], known in prop::bool::weighted(0.9),
        policy in prop::sample::select(vec!["", "accept 443", "accept 22,443"]), v6_exit in any::<bool>(),
        flags in prop::sample::subsequence(vec!["Exit", "Guard", "Stable", "V2Dir"], 0..=4),
        odd in prop::option::weighted(0.15, prop::sample::select(vec!["BadExit", "MiddleOnly"])),
        dull in prop::collection::vec(prop::bool::weighted(0.9), 3),
    ) -> (Fake, usize) {
        let mut relay = Fake::new(seed);
        relay.v4 = std::net::Ipv4Addr::new(10, net, 1, seed as u8);
        relay.v6 = v6.map(|net| std::net::Ipv6Addr::new(0x2001, net, 0, 0, 0, 0, 0, seed));
        relay.family_ids = if proven < 2 { format!("k{proven}") } else { String::new() };
        let dull = ["Fast", "Running", "Valid"].into_iter().zip(dull).filter_map(|(flag, has)| has.then_some(flag));
        relay.flags = flags.into_iter().chain(odd).chain(dull).collect::<Vec<_>>().join(" ");
        (relay.bandwidth, relay.known) = (bandwidth, known);
        (relay.policy, relay.policy_v6) = (policy.into(), if v6_exit { policy.into() } else { String::new() });
        (relay, family)
    }
}

fn small_network() -> impl Strategy<Value = Vec<Fake>> {
    (2u16..16).prop_flat_map(|size| (1..=size).map(crowded).collect::<Vec<_>>()).prop_map(|relays| {
        let declared = |family: usize| {
            let members = relays.iter().filter(|(_, other)| *other == family);
            members.map(|(relay, _)| relay.hex()).collect::<Vec<_>>().join(" ")
        };
        // The members of families 0 to 2 declare each other. One member of family 3 declares family 0, which does not
        // declare it.
        let with_family = |(relay, family): &(Fake, usize)| {
            let mut relay = relay.clone();
            relay.family = if *family < 4 { declared(family % 3) } else { String::new() };
            relay
        };
        relays.iter().map(with_family).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn choosing_is_what_the_reference_chooses(
        relays in small_network(), ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        avoided in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        number in prop::sample::select(vec![443u16, 22]), over in prop::sample::select(vec![IpVersion::V4, IpVersion::V6, IpVersion::Either]),
        distinct in any::<bool>(), seed in any::<u64>(),
    ) {
        let (guard, exit) = (&relays[ends.0.index(relays.len())], &relays[ends.1.index(relays.len())]);
        let avoid = avoided.iter().map(|index| id(&relays[index.index(relays.len())])).collect();
        let target = Some(Port { number, over });
        let wanted = Want { target, rules: Rules { distinct_subnets: distinct }, ..want(guard, exit, &avoid) };
        let (dir, mut rng) = (read(&relays), SmallRng::seed_from_u64(seed));
        let stable = is_long_lived(number);
        let middles = slow_middles(&relays, guard, exit, &wanted, stable);
        let refused = slow_exit(exit, target).or_else(|| slow_ends(guard, exit, distinct));
        let short = choose(&dir, &Want { hops: Hops::Two, ..wanted.clone() }, &mut rng);
        prop_assert_eq!(short.map(|path| path.hops().to_vec()), refused.map_or(Ok(vec![id(guard), id(exit)]), Err));
        for _ in 0..20 {
            match (choose(&dir, &wanted, &mut rng), refused) {
                (found, Some(why)) => prop_assert_eq!(found, Err(why)),
                (Err(why), None) => prop_assert!(why == NoPath::NoMiddle && middles.is_empty(), "{why}"),
                (Ok(path), None) => {
                    prop_assert_eq!((path.hops()[0], path.exit()), (id(guard), id(exit)));
                    let chance = middles.iter().find(|(middle, _)| path.middle() == Some(*middle)).map(|(_, chance)| *chance);
                    prop_assert!(chance.is_some_and(|chance| chance > 0.0), "{path}: {chance:?}");
                }
            }
        }
    }
}
