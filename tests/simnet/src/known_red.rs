//! Scenarios that are red today, each with the reason.
//!
//! They do not fail a run. A scenario that is listed here and turns green does, so that the list says what is true.

/// Name and cause.
pub const KNOWN_RED: &[(&str, &str)] = &[
    (
        "uplink-10s",
        "the first page comes 5.3 s after the uplink is back, with a bar of 5 s: tor notices a dead connection late (tor/engine/session/recovery.rs)",
    ),
    ("uplink-15m", "not measured since outages are told from faults of exits (tor/liveness.rs)"),
    ("idle-hour-bare", "not measured since exits are tested by demand (check/demand.rs)"),
    (
        "choice",
        "pools follow capacity, but downloads do not show it: 1.99 and 2.96 MB/s in a debug build beside other builds; a \
         release build on a quiet machine has not been measured",
    ),
    (
        "fresh-start",
        "the first burst of checks takes circuits before the request that waits for them (check/schedule.rs)",
    ),
    ("guards-in-turn", "each guard that goes down is left for another one, and the bar counts relays entered besides"),
    (
        "consensuses",
        "memory grows by 6.4 MB in a day, with a bar of 5 MB: the allocator keeps what an edition of the directory needed (tor/directory.rs)",
    ),
    (
        "routes-1000",
        "1,000 routes within a minute use some 800 different exits, so they need 800 circuits, and two engines build 220 within the \
         minute and the patience of the last client: a burst of 20 each, and one a second each",
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
