//! Scenarios that are red today, each with the reason.
//!
//! They do not fail a run. A scenario that is listed here and turns green does, so that the list says what is true.

/// Name and cause.
pub const KNOWN_RED: &[(&str, &str)] = &[
    (
        "uplink-10s",
        "engines walk through their sample of guards while nothing connects (tor/guard.rs), and come back late",
    ),
    ("uplink-15m", "the tester calls hundreds of exits bad meanwhile (check/fault.rs), so that pins move"),
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
    (
        "guards-in-turn",
        "a build that fails at the guard is taken for the exit's (tor/engine/session.rs), so the tester calls some exits bad",
    ),
    (
        "consensuses",
        "each engine reads the directory again and again (tor/directory.rs), memory grows with it, and a relay that is missing from \
         one consensus loses its pins",
    ),
    (
        "routes-1000",
        "1,000 routes within a minute use some 800 different exits, so they need 800 circuits, and two engines build 220 within the \
         minute and the patience of the last client: a burst of 20 each, and one a second each",
    ),
    (
        "echo-down",
        "exits that are tested before the page is suspended are called bad; how many depends on the division of time, because \
         check/witness.rs looks at a minute that is not divided",
    ),
    (
        "echo-lying",
        "the address that the gateway names is the one that the second echo server made up, for exits tested meanwhile",
    ),
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
