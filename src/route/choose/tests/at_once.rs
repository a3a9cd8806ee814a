//! Tests with a thousand connections at the same time.

use std::sync::Barrier;

use super::*;

fn at_once(world: &World, usernames: impl Fn(usize) -> String + Sync) -> Vec<(usize, ExitId)> {
    const THREADS: usize = 50;
    let (barrier, usernames) = (Barrier::new(THREADS), &usernames);
    let run = |thread: usize, barrier: &Barrier| {
        let mut rng = SmallRng::seed_from_u64(thread as u64);
        barrier.wait();
        let one = |n: usize| {
            let (wish, target) = (world.wish(&usernames(n)), target("shop.com:443"));
            let ask = Ask { wish: &wish, key: "team", target: &target, now: world.now, avoid: &[], plain: false };
            let plan = decide(world.view(), &world.memory, &ask, &mut rng).unwrap();
            (n, plan.first().id().clone())
        };
        (0..20).map(one).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let barrier = &barrier;
                    move || run(thread, barrier)
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_thousand_first_uses_are_one_exit() {
    for username in ["us-session-a", "us-strict", "us-strict-session-a"] {
        let world = World::new(&["US"; 100]);
        let exits: BTreeSet<_> = at_once(&world, |_| username.to_owned()).into_iter().map(|(_, exit)| exit).collect();
        assert_eq!(exits.len(), 1, "{username}");
        let puts = world.memory.changes().len();
        assert_eq!(puts, 1, "{username}: and one row to store");
    }
}

#[test]
fn a_thousand_first_uses_of_exclusive_pins_share_no_address() {
    let mut world = World::new(&["US"; 20]);
    (0..20)
        .for_each(|n| world.route(&format!("shop-{n}"), "us-strict", Policy { exclusive: true, ..Policy::default() }));
    let pairs: BTreeSet<_> = at_once(&world, |n| format!("shop-{n}")).into_iter().collect();
    let exits: BTreeSet<_> = pairs.iter().map(|(_, exit)| exit).collect();
    assert_eq!((pairs.len(), exits.len()), (20, 20), "twenty routes, twenty exits, one each");
}
