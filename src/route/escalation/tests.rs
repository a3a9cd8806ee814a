use super::super::Site;
use super::super::fixture::*;
use super::super::policy::Policy;
use super::site_level::*;
use super::*;
use crate::exit::Exit;

const HOUR: Duration = Duration::from_secs(3600);
const SITE: &str = "shop.test";

/// Relays 0 to 9 and the public proxies 10 to 14, which play the paid source. The route `shop` has both in order.
fn world() -> World {
    let mut world = World::new(&["US"; 10]);
    (10..15).for_each(|n| world.join_public(n, "US"));
    let policy = Policy {
        sources: vec![Source::Tor, Source::Public],
        fallback: true,
        escalate_for: Some(HOUR),
        ..Policy::default()
    };
    world.route("shop", "us", policy);
    world
}

/// Has the site ban the public proxy `n`.
fn ban_proxy(world: &mut World, n: u16) {
    let is_it = |exit: &&Arc<Exit>| exit.id().source() == Source::Public && exit.ip() == Some(ip(n));
    let id = world.catalog.iter().find(is_it).unwrap().id().clone();
    world.bans = world.bans.with([(Site::of(&host()), id, world.now.after(HOUR))]);
}

fn host() -> Host {
    target("www.shop.test:443").host
}

/// Begins a request to the site. Returns the index of its first source.
fn begin(world: &World) -> (usize, Option<Event>) {
    let start = world.memory.escalations().begin(world.view(), &world.wish("shop"), &host(), world.now).unwrap();
    (start.first, start.event)
}

fn note(world: &World, source: Source, outcome: Outcome) -> Option<Event> {
    world.memory.escalations().note(&world.wish("shop"), &host(), source, outcome, world.now)
}

/// Has the site ban two relays after one request each.
fn escalate(world: &mut World) {
    for n in 0..2 {
        assert_eq!(begin(world), (0, None));
        world.ban(SITE, n, 3 * HOUR);
    }
    assert_eq!(begin(world), (1, Some(Event::Begun(Cause::Banned))));
}

#[test]
fn two_bans_in_a_row_let_the_next_source_serve_until_the_time_is_over() {
    let mut world = world();
    let wish = world.wish("shop");
    assert_eq!(world.memory.escalations().level(&wish, &host(), world.now), None);
    escalate(&mut world);
    let of = |world: &World, host: &Host| world.memory.escalations().of(&wish, host, world.now);
    let until = world.now.after(HOUR);
    let want = Escalated { source: Source::Public, cause: Cause::Banned, until };
    assert_eq!(of(&world, &host()), Some(want));
    assert_eq!(of(&world, &target("shop.test:80").host), Some(want), "hosts of one site share it");
    assert_eq!(of(&world, &target("other.test:80").host), None);
    world.pass(HOUR - SECOND);
    assert_eq!(begin(&world), (1, None));
    world.pass(SECOND);
    assert_eq!((of(&world, &host()), begin(&world)), (None, (0, Some(Event::Ended))));
    // The bans of before last longer, but only new ones count.
    (0..10).for_each(|_| assert_eq!(begin(&world), (0, None)));
}

#[test]
fn few_bans_among_many_requests_change_nothing() {
    let mut world = world();
    for n in 0..4 {
        (0..3).for_each(|_| assert_eq!(begin(&world), (0, None)));
        world.ban(SITE, n, 3 * HOUR);
    }
    assert_eq!(begin(&world), (0, None), "4 bans of 12 requests");
    // A ban of another source says nothing about this one.
    let mut world = self::world();
    begin(&world);
    (10..13).for_each(|n| ban_proxy(&mut world, n));
    assert_eq!(begin(&world), (0, None));
}

#[test]
fn old_requests_and_old_bans_count_less() {
    let mut world = world();
    (0..200).for_each(|_| assert_eq!(begin(&world), (0, None)));
    // After 200 requests that were served, at most the window of 64 is left, so a site that bans everything from now on
    // needs no more than 64 bans. This world has only 10 relays, so the failures tell it.
    for _ in 0..2 {
        assert_eq!(note(&world, Source::Tor, Outcome::Failed), None);
    }
    assert_eq!(note(&world, Source::Tor, Outcome::Failed), Some(Event::Begun(Cause::Failed)));
    assert_eq!(begin(&world), (1, None));
    world.pass(HOUR);
    assert_eq!(begin(&world), (0, Some(Event::Ended)));
}

#[test]
fn bans_that_existed_before_the_first_request_do_not_count() {
    let mut world = world();
    (0..5).for_each(|n| world.ban(SITE, n, HOUR));
    assert_eq!(begin(&world), (0, None));
    world.ban(SITE, 5, HOUR);
    assert_eq!(begin(&world), (0, None));
    world.ban(SITE, 6, HOUR);
    assert_eq!(begin(&world), (1, Some(Event::Begun(Cause::Banned))));
}

#[test]
fn failures_in_a_row_let_the_next_source_serve_and_an_answer_interrupts_them() {
    let mut world = world();
    begin(&world);
    for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Served, Outcome::Failed, Outcome::Failed] {
        assert_eq!(note(&world, Source::Tor, outcome), None);
    }
    assert_eq!(note(&world, Source::Tor, Outcome::Failed), Some(Event::Begun(Cause::Failed)));
    assert_eq!(begin(&world), (1, None));
    // The site is down for everybody: the later source is left, and not tried again before the time is over.
    assert_eq!(note(&world, Source::Public, Outcome::Failed), None);
    assert_eq!(note(&world, Source::Public, Outcome::Failed), Some(Event::Useless));
    for _ in 0..10 {
        assert_eq!(begin(&world), (0, None));
        assert_eq!(note(&world, Source::Tor, Outcome::Failed), None);
    }
    world.pass(HOUR);
    assert_eq!(note(&world, Source::Tor, Outcome::Failed), Some(Event::Begun(Cause::Failed)));
}

#[test]
fn a_later_source_that_has_served_stays_after_two_failures() {
    let mut world = world();
    escalate(&mut world);
    assert_eq!(note(&world, Source::Public, Outcome::Served), None);
    for _ in 0..2 {
        assert_eq!(note(&world, Source::Public, Outcome::Failed), None);
    }
    assert_eq!(begin(&world), (1, None));
}

#[test]
fn a_later_source_that_the_site_bans_too_is_left() {
    let mut world = world();
    escalate(&mut world);
    (10..12).for_each(|n| ban_proxy(&mut world, n));
    assert_eq!(begin(&world), (0, Some(Event::Useless)));
    (2..5).for_each(|n| world.ban(SITE, n, HOUR));
    assert_eq!(begin(&world), (0, None), "nothing is paid for nothing");
}

/// Begins requests until one is a trial. Returns how many began.
fn until_trial(world: &World) -> u32 {
    (1..1000).find(|_| begin(world).0 == 0).unwrap()
}

#[test]
fn two_good_trials_bring_the_first_source_back_early() {
    let mut world = world();
    escalate(&mut world);
    (0..200).for_each(|_| assert_eq!(begin(&world), (1, None), "no trial within a sixtieth of the time"));
    world.pass(HOUR / 60);
    assert_eq!(until_trial(&world), 1);
    assert_eq!(note(&world, Source::Tor, Outcome::Served), None);
    world.pass(HOUR / 60);
    assert_eq!(until_trial(&world), TRIAL_EVERY, "one of fifty");
    note(&world, Source::Tor, Outcome::Served);
    world.pass(HOUR / 60);
    (1..TRIAL_AGAIN).for_each(|_| assert_eq!(begin(&world), (1, None)));
    assert_eq!(begin(&world), (0, Some(Event::Returned)));
    (0..10).for_each(|_| assert_eq!(begin(&world), (0, None)));
}

#[test]
fn a_trial_that_is_banned_refused_or_not_made_does_not_count() {
    for bad in 0..3 {
        let mut world = world();
        escalate(&mut world);
        (0..100).for_each(|_| _ = begin(&world));
        for round in 0..4 {
            world.pass(HOUR / 60);
            until_trial(&world);
            match bad {
                0 => {
                    note(&world, Source::Tor, Outcome::Served);
                    world.ban(SITE, 3 + round, 3 * HOUR);
                }
                1 => _ = note(&world, Source::Tor, Outcome::Failed),
                // No exit of the first source could serve the trial.
                _ => _ = note(&world, Source::Public, Outcome::Served),
            }
        }
        assert_eq!(begin(&world), (1, None), "{bad}");
    }
}

#[test]
fn only_free_usernames_of_routes_with_sources_in_order_take_part() {
    let mut world = world();
    let policy = |sources: &[Source], fallback, escalate_for| Policy {
        sources: sources.to_vec(),
        fallback,
        escalate_for,
        ..Policy::default()
    };
    let both = [Source::Tor, Source::Public];
    world.route("mixed", "us", policy(&both, false, Some(HOUR)));
    world.route("never", "us", policy(&both, true, None));
    let takes_part = |username: &str| {
        let wish = world.wish(username);
        let begun = world.memory.escalations().begin(world.view(), &wish, &host(), world.now).is_some();
        assert_eq!(begun, applies(&wish));
        begun
    };
    for username in ["shop", "shop-rotate", "shop-session-a"] {
        assert!(takes_part(username), "{username}");
    }
    for username in ["shop-source-tor", "shop-strict", "mixed", "never", "us", "us-source-any"] {
        assert!(!takes_part(username), "{username}");
    }
}

#[test]
fn the_table_is_bounded_and_says_when_it_forgets_an_escalation() {
    let mut world = world();
    escalate(&mut world);
    let (escalations, wish) = (Escalations::new(4), world.wish("shop"));
    let begin = |host: &Host| escalations.begin(world.view(), &wish, host, world.now).unwrap();
    begin(&host());
    (0..3).for_each(|_| _ = escalations.note(&wish, &host(), Source::Tor, Outcome::Failed, world.now));
    let evicted: Vec<_> = (0..6).map(|n| begin(&target(&format!("site{n}.test:80")).host).evicted).collect();
    assert_eq!((evicted, escalations.len()), (vec![false, false, false, true, false, false], 4));
}

#[test]
fn three_sources_are_climbed_one_after_the_other() {
    let mut site_level = SiteLevel::at(0, Moment(1));
    let (mut now, mut bans) = (Moment(1), [0, 0, 0]);
    let mut begin = |bans: [u32; 3], now| site_level.begin(3, |level| bans[level], HOUR, now);
    assert_eq!(begin(bans, now), (0, None));
    bans[0] = 2;
    assert_eq!(begin(bans, now), (1, Some(Event::Begun(Cause::Banned))));
    bans[1] = 2;
    now = now.after(HOUR / 2);
    assert_eq!(begin(bans, now), (2, Some(Event::Begun(Cause::Banned))));
    assert_eq!(begin(bans, now.after(HOUR)), (0, Some(Event::Ended)), "the time begins with each rise");
}
