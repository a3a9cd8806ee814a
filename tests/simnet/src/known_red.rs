//! Scenarios that are red today, each with the reason.
//!
//! They do not fail a run. A scenario that is listed here and turns green does, so that the list says what is true.

/// Name and cause.
pub const KNOWN_RED: &[(&str, &str)] = &[
    (
        "sessions-200",
        "each new exit needs a circuit, each engine builds one a second, and all requests wait in one queue until they time out \
         together (tor/circuit/pace.rs, tor/circuit/pool/upkeep.rs)",
    ),
    ("sessions-1000", "as sessions-200: two circuits a second are 120 sessions a minute"),
    (
        "dead-target",
        "silence on a circuit is taken for the exit's, the next attempt costs a circuit, and three attempts fill the whole \
         30 s (dial/tor.rs, gateway/tunnel/attempt.rs); the session is given another exit",
    ),
    (
        "uplink-10s",
        "streams on circuits that hang are booked on exits, so sessions leave them (dial/tor/fault.rs, route/choose/sticky.rs)",
    ),
    (
        "uplink-150s",
        "whichever hop failed, a build that fails is the exit's (tor/engine/session.rs, tor/engine/lend.rs); engines walk through \
         their sample of guards while nothing connects (tor/guard.rs)",
    ),
    (
        "uplink-15m",
        "as uplink-150s, and the tester calls hundreds of exits bad meanwhile (check/fault.rs), so that pins move as well",
    ),
    ("suspend-1h", "circuits that died in the sleep are booked on exits, as after an outage"),
    ("idle-hour", "the tester tests every exit every half an hour, whether anybody wants it or not (check/schedule)"),
    ("idle-hour-bare", "as idle-hour: no route is needed for it"),
    (
        "choice",
        "pools follow capacity, but downloads do not show it: 1.99 and 2.96 MB/s in a debug build beside other builds; a \
         release build on a quiet machine has not been measured",
    ),
    (
        "fresh-start",
        "POST /proxies answers 409 while no exit is known, and exits of a country are tested in no order that anybody asked for",
    ),
    (
        "restart",
        "an engine says that it is ready before it has entered the network (tor/engine/lend.rs: NotReady without an entry)",
    ),
    ("guards-in-turn", "sessions whose circuits go down with a guard are given another exit, though theirs is well"),
    ("engine-hang", "as guards-in-turn: sessions are moved when the engine that carries them is silent"),
    ("consensuses", "each engine reads the directory again and again (tor/directory.rs), and memory grows with it"),
    (
        "routes-100",
        "1,600 spares are wanted at two circuits a second, and the first request of each route waits behind them",
    ),
    ("routes-1000", "as routes-100: ten times as many spares"),
    (
        "echo-down",
        "exits that are tested before the page is suspended are called bad; how many depends on the division of time, because \
         check/witness.rs looks at a minute that is not divided",
    ),
    (
        "echo-lying",
        "the address that the gateway names is the one that the second echo server made up, for exits tested meanwhile",
    ),
    ("scraper", "sessions whose circuit ends wait behind spares and checks, are refused after 30 s, and are moved"),
];

/// Why a scenario is expected to be red, if it is.
pub fn reason(scenario: &str) -> Option<&'static str> {
    KNOWN_RED.iter().find(|(name, _)| *name == scenario).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ALL;

    #[test]
    fn every_entry_is_a_scenario_and_has_a_reason() {
        for (name, reason) in KNOWN_RED {
            assert!(ALL.iter().any(|scenario| scenario.name == *name), "{name}");
            assert!(reason.len() > 20, "{name}: {reason}");
        }
    }
}
