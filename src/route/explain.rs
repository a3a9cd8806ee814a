//! Explains which exits a username would use, and why. `GET /explain` and `exitgate why` call this. Neither of them
//! counts as a use of the username.

use super::choose::{Ask, Chooser};
use super::escalation::Escalated;
use super::memory::Memory;
use super::no_plan::{Funnel, Why};
use super::pinned::Pinned;
use super::selector::Mode;
use super::view::View;
use crate::exit::ExitId;

/// The answer to "what would this username use, and why?".
#[derive(Clone, Debug)]
pub struct Explanation {
    pub funnel: Funnel,
    /// The exits that the pool has now. Empty if the username has an implicit route that nobody has used.
    pub pool: Vec<ExitId>,
    /// The exit of the session, if the username has a session that is in use.
    pub session: Option<ExitId>,
    /// The pin, if the username is strict and was used before.
    pub pin: Option<Pinned>,
    /// Why a connection would be refused. `None` if a connection would not be refused.
    pub why: Option<Why>,
    /// The later source of the route with which requests to this target begin now.
    pub escalation: Option<Escalated>,
}

/// Returns how many exits are left for a username after each filter step. Sessions and pins do not matter.
pub fn funnel(view: View<'_>, memory: &Memory, ask: &Ask<'_>) -> Funnel {
    Chooser::new(view, memory, ask).funnel().0
}

/// Explains a username without using it: no session or pin is made or moved.
pub fn explain(view: View<'_>, memory: &Memory, ask: &Ask<'_>) -> Explanation {
    let chooser = Chooser::new(view, memory, ask);
    let (funnel, _) = chooser.funnel();
    let pool = match (&ask.wish.pool, &ask.wish.entry) {
        (None, Some(entry)) => Some(entry.pool.clone()),
        (scope, _) => memory.implicit().peek(scope.as_ref().unwrap_or(&ask.wish.scope)),
    };
    let pool = pool.iter().flat_map(|pool| pool.members()).map(|member| member.id().clone()).collect();
    let strict = ask.wish.selector.mode == Mode::Strict;
    let pin = if strict { memory.pins().peek(chooser.holder, ask.now) } else { None };
    let session = if strict { None } else { memory.sessions().of(chooser.holder, ask.now) };
    // The holder of a pin may use only the pinned exit. So if there is a pin, the other exits do not matter.
    let why = match &pin {
        Some(pin) => chooser.pin_problem(pin),
        None => funnel.reason(),
    };
    let escalation = memory.escalations().of(ask.wish, &ask.target.host, ask.now);
    Explanation { funnel, pool, session, pin: pin.map(|pin| pin.to), why, escalation }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::policy::Policy;
    use super::Why;
    use crate::exit::Verdict;

    fn world() -> World {
        let mut world = World::new(&["US", "US", "US", "US", "US", "US", "US", "DE", "FR", "??"]);
        world.kill(0);
        world.relist(1, |listing| listing.policy = "reject 443".parse().unwrap());
        world.learn(2, |known| known.verdict = Verdict::Bad);
        world.learn(3, |known| known.verdict = Verdict::Untested);
        world.ban("shop.com", 4, MINUTE);
        world
    }

    #[test]
    fn the_funnel_counts_the_exits_left_after_each_step() {
        let mut world = world();
        let explained = world.explain("us", "www.shop.com:443");
        let want = "10 known -> 7 in us -> 6 up -> 5 allow 443 -> 3 tested -> 2 not banned by shop.com";
        assert_eq!((explained.funnel.to_string(), explained.why), (want.to_owned(), None));
        assert!(explained.pool.is_empty() && world.memory.implicit().is_empty(), "an explanation creates nothing");
        world.first("us");
        assert_eq!(world.explain("us", "www.shop.com:443").pool.len(), 3);
        let home = world.first("us-session-a");
        assert_eq!(world.explain("us-session-a", "shop.com:443").session, Some(id(home)));
        let home = world.first("us-strict");
        let explained = world.explain("us-strict", "other.com:80");
        assert_eq!(explained.pin.map(|pin| pin.ip), Some(ip(home)));
        assert_eq!(
            explained.funnel.to_string(),
            "10 known -> 7 in us -> 6 up -> 6 allow 80 -> 4 tested -> 4 with one known IP -> 4 with an IP free for this pin"
        );
    }

    #[test]
    fn a_refusal_gives_the_first_condition_that_no_exit_meets() {
        let mut world = world();
        world.route("steam", "any", Policy { check: Some("steam".into()), ..Policy::default() });
        for (username, to, want) in [
            (
                "jp",
                "shop.com:443",
                "none of the known exits has the source, country, AS or address asked for (10 known -> 0 in jp",
            ),
            (
                "us-source-public",
                "shop.com:443",
                "none of the known exits has the source, country, AS or address asked for (10 known -> 0 from source public",
            ),
            (
                "us-asn-4",
                "shop.com:443",
                "no exit that matches has passed its latest check (10 known -> 7 in us -> 1 in AS4 -> 1 up -> 1 allow 443 -> 0 tested",
            ),
            ("us-asn-1", "shop.com:443", "every exit that matches is down"),
            ("us-asn-2", "shop.com:443", "no exit that matches allows connections to this port"),
            ("us-asn-5", "shop.com:443", "the site has banned every exit that matches"),
            ("us-asn-5", "[2001:db8::1]:443", "this route does not connect to IPv6 targets"),
            ("steam", "shop.com:443", "no exit that matches passes the check target of the route"),
        ] {
            if username == "us-asn-1" {
                world.kill(5);
            }
            if username == "us-asn-2" {
                world.kill(6);
            }
            let refusal = world.decide_to(username, to).unwrap_err();
            assert!(refusal.to_string().starts_with(want), "{username}: {refusal}");
        }
    }

    #[test]
    fn a_refusal_lists_exits_that_lack_only_a_check() {
        let mut world = world();
        let refusal = world.decide("us-asn-4").unwrap_err();
        assert_eq!(refusal.untested, [id(3)]);
        world.learn(3, |known| known.verdict = Verdict::Good);
        assert_eq!(world.first("us-asn-4"), 3);
    }

    #[test]
    fn a_pin_decides_what_its_holder_is_told() {
        let mut world = World::new(&["US", "US"]);
        let home = world.first("us-strict");
        let told = |world: &mut World| {
            let explained = world.explain("us-strict", "shop.com:443").why;
            assert_eq!(explained, world.decide("us-strict").err().map(|refusal| refusal.why));
            explained
        };
        world.ban("shop.com", 1 - home, MINUTE);
        assert_eq!(told(&mut world), None, "the other exit does not matter");
        world.ban("shop.com", home, MINUTE);
        assert!(matches!(told(&mut world), Some(Why::PinBanned { .. })));
        world.pass(MINUTE);
        world.relist(home, |listing| listing.policy = "accept 80".parse().unwrap());
        assert_eq!(told(&mut world), Some(Why::PinPort { exit: id(home) }));
        world.kill(home);
        assert!(matches!(told(&mut world), Some(Why::PinDown { .. })));
    }
}
