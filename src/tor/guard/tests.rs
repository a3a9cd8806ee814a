use std::collections::HashSet;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::netdir::synth::{Fake, WEIGHTS, network, texts};
use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// The time of the tests in seconds since 1970: half an hour after the start of the generated directories.
const NOW: u64 = 1_795_264_200;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW + seconds)
}

fn read(relays: &[Fake], params: &str) -> Netdir {
    let (consensus, microdescs) = texts(relays, params, WEIGHTS);
    Netdir::parse(&consensus, &microdescs).unwrap()
}

/// Returns a directory without times, which counts as new at any time.
fn timeless(relays: &[Fake], params: &str) -> Netdir {
    let (consensus, microdescs) = texts(relays, params, WEIGHTS);
    Netdir::parse(&consensus.replace("valid-", "x-valid-"), &microdescs).unwrap()
}

fn guards(count: u16) -> Vec<Fake> {
    let guard = |seed| Fake { flags: "Fast Guard Running Stable V2Dir Valid".into(), ..Fake::new(seed) };
    (1..=count).map(guard).collect()
}

fn id(relay: &Fake) -> Fingerprint {
    Fingerprint(relay.id)
}

fn ids(state: &GuardState) -> Vec<Fingerprint> {
    state.sample.iter().map(|guard| guard.id).collect()
}

/// One engine's guard state and the inputs that a test gives to it.
struct Bench {
    state: GuardState,
    dir: Netdir,
    rng: SmallRng,
    exclude: Vec<Fingerprint>,
    reachable: Reachable,
}

impl Bench {
    fn new(dir: Netdir) -> Self {
        let (rng, reachable) = (SmallRng::seed_from_u64(1), Reachable::default());
        Self { state: GuardState::default(), dir, rng, exclude: Vec::new(), reachable }
    }

    fn choose(&mut self, seconds: u64) -> Result<Choice, NoGuard> {
        let exclude = Exclude { guards: &self.exclude, rules: Rules::default(), reachable: &self.reachable };
        self.state.choose(&self.dir, at(seconds), &mut self.rng, &exclude)
    }

    fn guard(&mut self, seconds: u64) -> Fingerprint {
        self.choose(seconds).unwrap().guard
    }

    /// Chooses guards until one is in use. Each guard that must be tested answers its test.
    fn settled(&mut self, seconds: u64) -> Fingerprint {
        loop {
            match self.choose(seconds).unwrap() {
                Choice { guard, trial: false, .. } => return guard,
                Choice { guard, .. } => self.works(guard, seconds),
            }
        }
    }

    fn works(&mut self, guard: Fingerprint, seconds: u64) {
        self.state.note_success(guard, at(seconds), &mut self.rng);
    }

    fn fails(&mut self, guard: Fingerprint, seconds: u64) {
        self.state.note_failure(guard, at(seconds));
    }
}

#[test]
fn keeps_one_guard_across_directories_and_restarts() {
    let mut bench = Bench::new(timeless(&network(600, 1), ""));
    let first = bench.choose(0).unwrap();
    assert_eq!((first.trial, first.moved_from), (false, None));
    bench.works(first.guard, 1);
    let sample = ids(&bench.state);
    assert_eq!((sample.len(), sample[0]), (20, first.guard));
    for day in 1..60 {
        bench.state = GuardState::from_json(&bench.state.to_json()).unwrap();
        assert_eq!(bench.state.current(), Some(first.guard));
        assert_eq!(bench.choose(day * DAY), Ok(Choice { guard: first.guard, trial: false, moved_from: None }));
    }
    assert_eq!(ids(&bench.state), sample);
}

#[test]
fn draws_guards_by_weight_and_only_fit_ones() {
    let mut relays = guards(6);
    relays.iter_mut().zip([100, 200, 300, 0]).for_each(|(relay, bandwidth)| relay.bandwidth = bandwidth);
    relays[3].flags.push_str(" Exit"); // its factor `Wgd` in the weights is 0, so it is never a guard
    relays[4].flags = "Fast Guard Running Valid V2Dir".into();
    relays[5].flags = "Fast Running Stable Valid V2Dir".into();
    let dir = read(&relays, "");
    let mut first = [0u32; 6];
    for seed in 0..3000 {
        let mut bench = Bench { rng: SmallRng::seed_from_u64(seed), ..Bench::new(dir.clone()) };
        let guard = bench.guard(0);
        first[relays.iter().position(|relay| id(relay) == guard).unwrap()] += 1;
        assert_eq!(ids(&bench.state).len(), 4, "all that can be a guard, the one without weight last");
        assert_eq!(ids(&bench.state)[3], id(&relays[3]));
    }
    assert_eq!(first[3..], [0; 3]);
    for (found, expected) in first.iter().zip([500.0f64, 1000.0, 1500.0]) {
        assert!((f64::from(*found) - expected).abs() < 5.0 * expected.sqrt(), "{first:?}");
    }
}

#[test]
fn moves_on_when_the_guard_is_down_and_comes_back() {
    let mut bench = Bench::new(read(&guards(5), ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    bench.fails(first, 100);
    let second = bench.choose(100).unwrap();
    assert_eq!((second.trial, second.moved_from), (true, None), "it must answer first");
    assert_eq!(bench.state.current(), Some(first));
    assert_eq!(bench.state.alternative(), Some(second.guard));
    assert!(!bench.state.is_up(first) && !bench.state.is_up(second.guard));
    bench.works(second.guard, 101);
    assert!(bench.state.is_up(second.guard));
    assert_eq!(bench.choose(101), Ok(Choice { trial: false, moved_from: Some(first), ..second }));
    assert_eq!(bench.state.next_retry(), Some(at(100 + 600)));
    assert_eq!(bench.guard(699), second.guard);

    let trial = bench.choose(700).unwrap();
    assert_eq!(trial, Choice { guard: first, trial: true, moved_from: None });
    assert_eq!(bench.state.current(), Some(second.guard), "a trial is no move");
    bench.fails(first, 701);
    assert_eq!(bench.guard(1300), second.guard);
    assert!(bench.choose(1301).unwrap().trial);
    bench.works(first, 1302);
    assert_eq!(bench.choose(1302), Ok(Choice { guard: first, trial: false, moved_from: Some(second.guard) }));
    assert_eq!(bench.state.next_retry(), None);
}

#[test]
fn a_guard_that_answered_long_ago_must_answer_again() {
    let mut bench = Bench::new(read(&guards(5), ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    bench.fails(first, 100);
    let second = bench.choose(100).unwrap().guard;
    bench.works(second, 101);
    assert_eq!(bench.guard(101), second);
    bench.choose(700).unwrap();
    bench.works(first, 701);
    assert!(bench.state.is_up(second), "the second guard is in use until the engine changes");
    assert_eq!(bench.guard(701), first);
    bench.works(first, 702);
    assert!(bench.state.is_up(first) && !bench.state.is_up(second));
    bench.fails(first, 90_000);
    let choice = bench.choose(90_000).unwrap();
    assert_eq!((choice.guard, choice.trial), (second, true));
}

#[test]
fn a_success_after_ten_silent_minutes_clears_the_other_guards() {
    for (silence, cleared) in [(600, false), (601, true)] {
        let mut bench = Bench::new(read(&guards(5), ""));
        let first = bench.guard(0);
        bench.works(first, 0);
        let second = bench.state.alternative().unwrap();
        bench.fails(second, 1);
        bench.works(first, silence);
        assert_eq!(
            bench.state.alternative() == Some(second),
            cleared,
            "{silence} s: the network itself may have failed"
        );
    }
}

#[test]
fn a_guard_that_is_known_to_be_down_keeps_its_retry_time() {
    let mut bench = Bench::new(read(&guards(5), ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    let is_down = |bench: &mut Bench, seconds| {
        bench.state.note_down(first, at(seconds));
        assert!(!bench.state.is_up(first));
    };
    is_down(&mut bench, 100);
    let second = bench.settled(100);
    assert_ne!(second, first);
    is_down(&mut bench, 500);
    assert_eq!(bench.state.next_retry(), Some(at(100 + 600)), "what is known already delays nothing");
    bench.fails(first, 500);
    assert_eq!(bench.state.next_retry(), Some(at(500 + 600)), "a failed retry does");
}

#[test]
fn the_table_of_failing_exits_is_bounded() {
    let mut bench = Bench::new(read(&guards(3), ""));
    let guard = bench.guard(0);
    for n in 0..10_000u16 {
        let mut bytes = [9; 20];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        bench.state.note_build(guard, Fingerprint(bytes), false);
    }
    assert!(bench.state.failed_in_a_row.len() <= 4096);
}

#[test]
fn retries_ever_less_often() {
    let mut bench = Bench::new(read(&guards(2), ""));
    let (first, mut now) = (bench.guard(0), 0);
    bench.works(first, 0);
    bench.fails(first, 0);
    let second = bench.settled(0);
    for (after, wait) in [(HOUR, 600), (7 * HOUR, 90 * 60), (5 * DAY, 4 * HOUR), (8 * DAY, 9 * HOUR)] {
        bench.works(second, now);
        now = after;
        bench.fails(first, now);
        assert_eq!(bench.guard(now + wait - 1), second);
        assert_eq!(bench.choose(now + wait).map(|choice| (choice.guard, choice.trial)), Ok((first, true)));
    }
}

#[test]
fn a_silence_is_not_held_against_the_guards() {
    let mut bench = Bench::new(read(&guards(4), ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    for at in 1..=4 {
        let down = bench.guard(1000 + at);
        bench.fails(down, 1000 + at);
    }
    assert_eq!(bench.guard(1005), first, "when all are down the fault is ours: begin again with the best");
    bench.fails(first, 1006);
    let second = bench.guard(1006);
    bench.works(second, 1007);
    let choice = bench.choose(1008).unwrap();
    assert_eq!(
        (choice.guard, choice.trial),
        (first, false),
        "it failed while we were offline, so that counts for nothing"
    );
    bench.fails(first, 1008);
    bench.works(second, 1009);
    assert_eq!(bench.choose(1010).map(|choice| (choice.guard, choice.trial)), Ok((second, false)), "and now it counts");
}

#[test]
fn the_failures_of_an_outage_are_withdrawn_and_others_are_not() {
    let mut bench = Bench::new(read(&guards(4), ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    bench.fails(first, 100);
    let second = bench.settled(100);
    bench.works(second, 150);
    bench.fails(second, 200);
    let third = bench.guard(200);
    bench.fails(third, 201);
    bench.state.withdraw(at(200));
    assert_eq!(bench.choose(202).map(|choice| (choice.guard, choice.trial)), Ok((second, false)));
    assert_eq!(bench.state.alternative(), Some(third));
    assert_eq!(bench.guard(699), second, "the first had failed before");
    assert_eq!(bench.guard(700), first);
}

#[test]
fn a_guard_that_stays_down_is_not_tried_later_for_that() {
    let mut bench = Bench::new(read(&guards(2), ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    bench.state.note_down(first, at(10));
    bench.state.note_down(first, at(500));
    let second = bench.settled(501);
    assert_eq!((bench.guard(609), bench.guard(610)), (second, first), "ten minutes after the first time");
    bench.state.note_down(first, at(700));
    assert_eq!((bench.guard(1299), bench.guard(1300)), (second, first));
}

#[test]
fn guards_out_of_reach_are_in_the_sample_and_are_not_used() {
    let mut relays = guards(6);
    relays[2].v6 = "2001:db8::3".parse().ok();
    let mut bench = Bench::new(read(&relays, ""));
    let option = |name: &'static str, value: &'static str| {
        Reachable::of(move |option| (option == name).then(|| value.to_owned()))
    };
    // This option allows only the ports 80 and 443. All relays of the generated directory are at port 9001.
    bench.reachable = option("FascistFirewall", "1");
    assert_eq!((bench.choose(0), bench.state.sample.len()), (Err(NoGuard::AllExcluded), 6));
    bench.reachable = option("ReachableAddresses", "*:9001");
    assert!(bench.choose(0).is_ok());
    bench.reachable = Reachable::of(|option| match option {
        "ClientUseIPv4" => Some("0".into()),
        "ClientUseIPv6" => Some("1".into()),
        _ => None,
    });
    assert_eq!(bench.choose(0).map(|choice| (choice.guard, choice.trial)), Ok((id(&relays[2]), false)));
}

#[test]
fn leaves_guards_that_lose_their_listing() {
    let mut relays = guards(3);
    let mut bench = Bench::new(timeless(&relays, ""));
    let first = bench.guard(0);
    bench.works(first, 0);
    let place = relays.iter().position(|relay| id(relay) == first).unwrap();
    relays[place].flags = "Fast Running Stable V2Dir Valid".into();
    bench.dir = timeless(&relays, "");
    let second = bench.choose(60).unwrap();
    assert!(second.guard != first && second.moved_from == Some(first));
    assert!(bench.state.sample.iter().any(|guard| guard.id == first && guard.unlisted_since.is_some()));

    relays[place].flags.push_str(" Guard");
    let back = timeless(&relays, "");
    let away = std::mem::replace(&mut bench.dir, back);
    assert_eq!(bench.settled(DAY), first, "it is as good as before");
    bench.dir = away;
    bench.guard(2 * DAY);
    // The loss was noticed on day 2 and recorded with a random time from day -2 to day 2. So on day 17 the guard has
    // been lost for 15 to 19 days, which is less than the limit of 20 days.
    bench.guard(17 * DAY);
    assert_eq!(ids(&bench.state).len(), 3);
    bench.guard(23 * DAY);
    assert!(!ids(&bench.state).contains(&first), "after 20 days it is forgotten");
    bench.dir = read(&relays, "");
    let sample = ids(&bench.state);
    bench.guard(400 * DAY);
    assert!(sample.iter().all(|guard| ids(&bench.state).contains(guard)), "a directory that is long over moves nobody");
}

#[test]
fn guards_leave_when_their_time_is_up() {
    for (params, kept_until, gone_after) in
        [("", 108, 121), ("guard-lifetime-days=20 guard-confirmed-min-lifetime-days=5", 18, 21)]
    {
        let mut bench = Bench::new(timeless(&guards(30), params));
        let first = bench.guard(0);
        bench.works(first, 0);
        let sample = ids(&bench.state);
        bench.guard(kept_until * DAY - 1);
        assert_eq!(ids(&bench.state), sample, "{params}");
        let moved = bench.choose(gone_after * DAY).unwrap();
        let left: HashSet<_> = sample.iter().filter(|guard| ids(&bench.state).contains(guard)).collect();
        assert!(left.len() < 20 && moved.guard != first, "the draw may bring some back, {params}");
    }
    // A guard that was confirmed long after it was added stays in the sample as long as other confirmed guards.
    let mut bench = Bench::new(timeless(&guards(30), ""));
    let first = bench.guard(0);
    bench.works(first, 100 * DAY);
    assert_eq!(bench.guard(125 * DAY), first);
    assert_ne!(bench.guard(170 * DAY), first);
}

#[test]
fn engines_share_neither_guards_nor_their_kin() {
    let mut relays = guards(8);
    relays[1].v4 = "10.1.99.1".parse().unwrap(); // in the same subnet as the first guard
    relays[2].family_ids = "k".into();
    relays[0].family_ids = "k".into();
    let dir = read(&relays, "");
    let mut used: Vec<Fingerprint> = Vec::new();
    for seed in 0..40 {
        let mut bench =
            Bench { rng: SmallRng::seed_from_u64(seed), exclude: vec![id(&relays[0])], ..Bench::new(dir.clone()) };
        assert!(![0, 1, 2].iter().any(|kin| id(&relays[*kin]) == bench.guard(0)));
    }
    while let Ok(choice) = (Bench { exclude: used.clone(), ..Bench::new(dir.clone()) }).choose(0) {
        assert!(!used.contains(&choice.guard));
        used.push(choice.guard);
    }
    assert!((6..=7).contains(&used.len()), "one of the kin at most, or the two of them that are not of each other");
    let mut bench = Bench { exclude: used, ..Bench::new(dir) };
    assert_eq!(bench.choose(0), Err(NoGuard::AllExcluded));
    bench.dir = read(&[Fake { flags: "Running Valid".into(), ..Fake::new(1) }], "");
    assert_eq!(bench.choose(0), Err(NoGuard::NoneListed));
}

#[test]
fn adopts_what_tor_chose_by_itself() {
    let relays = guards(5);
    let mut bench = Bench::new(read(&relays, ""));
    let drawn = bench.guard(0);
    let other = relays.iter().map(id).find(|guard| *guard != drawn).unwrap();
    assert!(bench.state.adopt(other, &bench.dir, at(0), &mut bench.rng));
    assert_eq!(bench.choose(1), Ok(Choice { guard: other, trial: false, moved_from: None }));
    assert_eq!(ids(&bench.state).iter().collect::<HashSet<_>>().len(), 5);
    assert!(!bench.state.adopt(Fingerprint([1; 20]), &bench.dir, at(0), &mut bench.rng));
    let mut fresh = GuardState::default();
    assert!(fresh.adopt(other, &bench.dir, at(0), &mut bench.rng) && fresh.current() == Some(other));
}

fn exit(number: u32) -> Fingerprint {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Fingerprint(id)
}

#[test]
fn raises_an_alarm_when_circuits_past_the_guard_fail() {
    for (built_of_ten, builds, want) in [
        (8, 290, None),
        (6, 140, None), // fewer circuits than the minimum for an alarm
        (6, 290, Some(Level::Notice)),
        (4, 290, Some(Level::Warning)),
        (2, 290, Some(Level::Extreme)),
        (2, 2900, Some(Level::Extreme)),
    ] {
        let mut bench = Bench::new(read(&guards(3), ""));
        let guard = bench.guard(0);
        for build in 0..builds {
            bench.state.note_build(guard, exit(build), build % 10 < built_of_ten);
        }
        let alarm = bench.state.alarm();
        assert_eq!(alarm.map(|alarm| (alarm.level, alarm.failing)), want.map(|level| (level, Failing::Builds)));
        assert!(alarm.is_none_or(|alarm| alarm.guard == guard && (150..=300).contains(&alarm.attempted)));
        let again = GuardState::from_json(&bench.state.to_json()).unwrap();
        assert_eq!(again.alarm(), alarm, "an alarm outlives a restart");
    }
}

#[test]
fn a_dead_exit_raises_no_alarm_and_a_lasting_recovery_ends_one() {
    let mut bench = Bench::new(read(&guards(3), ""));
    let guard = bench.guard(0);
    for build in 0..1000 {
        bench.state.note_build(guard, exit(build % 2), build % 2 != 0);
    }
    assert_eq!(bench.state.alarm(), None, "half of all builds fail, all of them to one exit");
    (0..300).for_each(|build| bench.state.note_build(guard, exit(build), false));
    assert_eq!(bench.state.alarm().map(|alarm| alarm.level), Some(Level::Extreme));
    (0..600).for_each(|build| bench.state.note_build(guard, exit(build), true));
    assert_eq!(bench.state.alarm(), None);
}

#[test]
fn use_counts_as_well_and_the_consensus_may_have_guards_dropped() {
    let mut bench = Bench::new(read(&guards(4), "pb_dropguards=1 pb_minuse=10"));
    let guard = bench.guard(0);
    (0..11).for_each(|circuit| bench.state.note_use(guard, circuit % 4 != 0));
    assert_eq!(bench.state.alarm().map(|alarm| (alarm.level, alarm.failing)), Some((Level::Notice, Failing::Uses)));
    assert_eq!(bench.guard(1), guard, "a notice drops nobody");
    (0..11).for_each(|_| bench.state.note_use(guard, false));
    let alarm = bench.state.alarm().unwrap();
    assert_eq!((alarm.level, alarm.attempted), (Level::Extreme, 22));
    assert!(alarm.to_string().contains("of the last 22 circuits"), "{alarm}");
    assert_ne!(bench.guard(2), guard);
    bench.state = GuardState::from_json(&bench.state.to_json()).unwrap();
    assert_ne!(bench.guard(3), guard, "nor is it forgiven at a restart");

    let mut lenient = Bench::new(read(&guards(4), ""));
    let guard = lenient.guard(0);
    (0..40).for_each(|_| lenient.state.note_use(guard, false));
    assert_eq!((lenient.guard(1), lenient.state.alarm().map(|alarm| alarm.level)), (guard, Some(Level::Extreme)));
}

#[test]
fn reads_generously_and_refuses_what_it_would_destroy() {
    let mut bench = Bench::new(read(&guards(3), ""));
    let guard = bench.guard(0);
    bench.works(guard, 0);
    let text = bench.state.to_json();
    let with_more = text.replacen("{\"version\":1,", "{\"version\":1,\"later\":[1],", 1).replacen(
        "\"added\"",
        "\"x\":{},\"added\"",
        1,
    );
    let damaged = text.replacen("\"sample\":[", "\"sample\":[7,{\"id\":\"no\"},{},", 1);
    for text in [&text, &with_more, &damaged] {
        let again = GuardState::from_json(text).unwrap();
        assert_eq!((ids(&again), again.current()), (ids(&bench.state), Some(guard)), "{text}");
        assert_eq!(again.to_json(), bench.state.to_json());
    }
    let bare =
        format!("{{\"version\":1,\"sample\":[{{\"id\":\"{guard}\",\"added\":1}},{{\"id\":\"{guard}\",\"added\":2}}]}}");
    assert_eq!(ids(&GuardState::from_json(&bare).unwrap()), [guard]);
    assert!(matches!(GuardState::from_json("{\"version\":2}"), Err(BadState::Version(2))));
    for text in ["", "[]", "{}", "{\"version\":\"1\"}", "{\"version\":1,\"sample\":{}}"] {
        assert!(matches!(GuardState::from_json(text), Err(BadState::Json(_))), "{text}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Choose,
    Works(prop::sample::Index),
    Fails(prop::sample::Index),
    Directory(u64),
    Wait(u64),
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Choose),
        any::<prop::sample::Index>().prop_map(Event::Works),
        any::<prop::sample::Index>().prop_map(Event::Fails),
        (0u64..4).prop_map(Event::Directory),
        (1u64..40 * DAY).prop_map(Event::Wait),
        Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_the_guard_is_a_guard(events in prop::collection::vec(any_event(), 1..60), excluded in 0usize..40) {
        let networks: Vec<Netdir> = (0..4).map(|seed| timeless(&network(40, seed % 2), if seed < 2 { "" } else { "guard-lifetime-days=9" })).collect();
        let mut bench = Bench::new(networks[0].clone());
        bench.exclude = bench.dir.relays().nth(excluded).map(|relay| relay.fingerprint()).into_iter().collect();
        let mut now = 0;
        for event in events {
            let sample = ids(&bench.state);
            let some = |index: prop::sample::Index| (!sample.is_empty()).then(|| *index.get(&sample));
            match event {
                Event::Works(index) => some(index).into_iter().for_each(|guard| bench.works(guard, now)),
                Event::Fails(index) => some(index).into_iter().for_each(|guard| bench.fails(guard, now)),
                Event::Directory(seed) => bench.dir = networks[seed as usize].clone(),
                Event::Wait(time) => now += time,
                Event::Restart => bench.state = GuardState::from_json(&bench.state.to_json()).unwrap(),
                Event::Choose => {
                    if let Ok(choice) = bench.choose(now) {
                        let relay = bench.dir.relay(&choice.guard).unwrap();
                        prop_assert!(sample::is_possible_guard(relay) && !bench.exclude.contains(&choice.guard));
                        prop_assert!(choice.trial != (bench.state.current() == Some(choice.guard)));
                        prop_assert!(!choice.trial || bench.state.current().is_some());
                        prop_assert!(ids(&bench.state).contains(&choice.guard) && choice.moved_from != Some(choice.guard));
                    }
                }
            }
            prop_assert!(ids(&bench.state).len() <= 20 && ids(&bench.state).iter().collect::<HashSet<_>>().len() == ids(&bench.state).len());
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,80}") {
        let _ = GuardState::from_json(&text);
    }
}
