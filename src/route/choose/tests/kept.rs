//! Tests of the rule that decides whether a kept stream may serve another request.

use super::*;

fn serves_again(world: &mut World, username: &str, to: &str, exit: u16) -> bool {
    world.ask(username, to, |view, memory, ask, _| may_serve_again(view, memory, ask, &id(exit)))
}

#[test]
fn a_kept_stream_serves_while_a_new_one_would_use_the_same_exit() {
    type Change = fn(&mut World, u16);
    let changes: [(&str, Change, [bool; 3]); 8] = [
        ("nothing", |_, _| {}, [true; 3]),
        ("other exits are gone", |world, n| (0..6).filter(|m| *m != n).for_each(|m| world.kill(m)), [true; 3]),
        ("ejected", |world, n| world.eject(n), [true; 3]),
        ("gone", |world, n| world.kill(n), [false; 3]),
        ("found bad", |world, n| world.learn(n, |known| known.verdict = Verdict::Bad), [false; 3]),
        ("seen elsewhere", |world, n| world.learn(n, |known| known.saw(ip(90), country("DE"), START)), [false; 3]),
        ("banned by the site", |world, n| world.ban("shop.com", n, MINUTE), [false; 3]),
        (
            "the port is refused",
            |world, n| world.relist(n, |listing| listing.policy = "accept 443".parse().unwrap()),
            [false; 3],
        ),
    ];
    for (what, change, want) in changes {
        for (username, want) in ["us", "us-session-a", "us-strict"].into_iter().zip(want) {
            let mut world = World::new(&["US"; 6]);
            let home = number(world.decide_to(username, "shop.com:80").unwrap().first().id());
            change(&mut world, home);
            assert_eq!(serves_again(&mut world, username, "shop.com:80", home), want, "{username}, {what}");
        }
    }
}

#[test]
fn a_kept_stream_ends_with_the_exit_of_its_session_or_pin() {
    let mut world = World::new(&["US"; 6]);
    for username in ["us-session-a", "us-strict"] {
        let home = world.first(username);
        world.rotate(username).unwrap();
        assert!(!serves_again(&mut world, username, "shop.com:443", home), "{username}");
        let there = world.first(username);
        assert!(serves_again(&mut world, username, "shop.com:443", there), "{username}");
    }
    let home = world.first("us");
    world.rotate("us").unwrap();
    assert!(serves_again(&mut world, "us", "shop.com:443", home), "a pool has no exit of its own");

    let every = Policy { rotate_every: Some(MINUTE), ..Policy::default() };
    world.route("shop", "us-strict", every);
    let home = world.first("shop");
    assert!(serves_again(&mut world, "shop", "shop.com:443", home));
    world.pass(MINUTE);
    assert!(!serves_again(&mut world, "shop", "shop.com:443", home), "the pin is due for rotation");
}

#[test]
fn a_kept_stream_follows_its_route_and_keeps_it_in_use() {
    let mut world = World::new(&["US", "US", "DE"]);
    world.route("shop", "us", Policy::default());
    let home = world.first("shop");
    assert!(serves_again(&mut world, "shop", "shop.com:443", home));
    world.route("shop", "us-rotate", Policy::default());
    assert!(!serves_again(&mut world, "shop", "shop.com:443", home), "each request needs another exit now");
    world.route("shop", "de", Policy::default());
    assert!(!serves_again(&mut world, "shop", "shop.com:443", home), "the route has another selector");

    world.relist(home, |listing| listing.policy_v6 = PortPolicy::accept_all());
    for ipv6 in [true, false] {
        world.route("six", "us", Policy { ipv6, ..Policy::default() });
        assert_eq!(serves_again(&mut world, "six", "[2001:db8::1]:443", home), ipv6);
    }

    let home = world.first("us-session-a");
    for _ in 0..10 {
        world.pass(9 * MINUTE);
        assert!(serves_again(&mut world, "us-session-a", "shop.com:443", home), "each request renews the session");
    }
}
