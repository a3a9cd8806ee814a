//! By what all durations of a run are divided, and the shipped durations to divide.
//!
//! An hour-long scenario is run in minutes by dividing every duration of the model and of the configuration by one factor,
//! and multiplying every rate by it. What the gateway has as constants in its code (how often it looks at the directory, how
//! long it waits before it tries a guard again) stays as it is; `README.md` lists those that matter.

use std::time::Duration;

use tokio::time::sleep;

/// The factor of a run; 1 is real time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace(pub f64);

/// Every duration among the shipped defaults that a scenario can meet, in milliseconds. A test holds the list to
/// `config/exitgate.toml`.
const DURATIONS: &[(&str, u64)] = &[
    ("gateway.handshake_timeout", 10_000),
    ("gateway.dial_timeout", 30_000),
    ("gateway.attempt_timeout", 12_000),
    ("gateway.idle_timeout", 900_000),
    ("gateway.half_closed_timeout", 120_000),
    ("gateway.keep_alive_timeout", 60_000),
    ("gateway.pin_ttl", 2_592_000_000),
    ("gateway.repin_after", 10_800_000),
    ("gateway.escalate_for", 3_600_000),
    ("gateway.session_ttl", 600_000),
    ("gateway.max_session_ttl", 86_400_000),
    ("gateway.implicit_idle", 3_600_000),
    ("tor.circuit_timeout", 20_000),
    ("tor.max_circuit_age", 3_600_000),
    ("sources.onionoo.every", 3_600_000),
    ("check.every", 1_800_000),
    ("check.timeout", 20_000),
    ("check.stale_after", 21_600_000),
    ("check.ban_for", 3_600_000),
];

/// Every rate, a second or an hour.
const RATES: &[(&str, f64)] =
    &[("tor.circuits_per_second", 1.0), ("check.per_second", 5.0), ("check.echo_per_hour", 500.0)];

impl Pace {
    /// The time on the wall that stands for this time of the model.
    pub fn wall(self, model: Duration) -> Duration {
        model.div_f64(self.0)
    }

    /// The time of the model, in seconds, that this time on the wall stands for.
    pub fn model(self, wall: Duration) -> f64 {
        wall.as_secs_f64() * self.0
    }

    /// Waits for a time of the model.
    pub async fn wait(self, model: Duration) {
        sleep(self.wall(model)).await;
    }

    /// A duration as the configuration writes it.
    pub fn written(self, model: Duration) -> String {
        format!("{}ms", (self.wall(model).as_millis() as u64).max(1))
    }

    /// The lines of the configuration that carry the factor; none in real time.
    pub fn lines(self) -> String {
        if self.0 == 1.0 {
            return String::new();
        }
        let durations = DURATIONS
            .iter()
            .map(|(key, millis)| format!("{key} = \"{}\"\n", self.written(Duration::from_millis(*millis))));
        let rates = RATES.iter().map(|(key, rate)| format!("{key} = {:?}\n", rate * self.0));
        durations.chain(rates).collect()
    }

    /// How a row names it.
    pub fn name(self) -> String {
        if self.0 == 1.0 { "real time".into() } else { format!("÷ {}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shipped configuration as `section.key = value`.
    fn shipped() -> Vec<(String, String)> {
        let (mut section, mut found) = (String::new(), Vec::new());
        for line in include_str!("../../../config/exitgate.toml").lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                found.push((format!("{section}.{key}"), value.trim_matches('"').to_owned()));
            }
        }
        found
    }

    fn millis(text: &str) -> Option<u64> {
        let at = text.find(|c: char| !c.is_ascii_digit())?;
        let unit = match &text[at..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        Some(text[..at].parse::<u64>().ok()? * unit)
    }

    #[test]
    fn the_list_says_what_is_shipped() {
        let shipped = shipped();
        let value = |key: &str| shipped.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        for (key, want) in DURATIONS {
            assert_eq!(value(key).and_then(millis), Some(*want), "{key}");
        }
        for (key, want) in RATES {
            assert_eq!(value(key).and_then(|value| value.parse().ok()), Some(*want), "{key}");
        }
    }

    #[test]
    fn no_duration_of_the_parts_that_scenarios_meet_is_left_out() {
        // No scenario has public proxies or upstream sources.
        let left_out = ["sources.onionoo.timeout", "gateway.auth_pause"];
        for (key, value) in shipped() {
            let part = ["gateway.", "tor.", "sources.onionoo.", "check."].iter().any(|part| key.starts_with(part));
            let absent = ["check.public.", "check.upstream."].iter().any(|part| key.starts_with(part));
            let other = absent || left_out.contains(&key.as_str());
            if part && !other && millis(&value).is_some() {
                assert!(DURATIONS.iter().any(|(known, _)| *known == key), "{key} = {value}");
            }
        }
    }

    #[test]
    fn real_time_changes_nothing_and_a_factor_divides() {
        assert_eq!(Pace(1.0).lines(), "");
        let lines = Pace(30.0).lines();
        for line in
            ["gateway.repin_after = \"360000ms\"", "check.every = \"60000ms\"", "tor.circuits_per_second = 30.0"]
        {
            assert!(lines.contains(line), "{line} in {lines}");
        }
        assert_eq!(Pace(30.0).model(Duration::from_secs(2)), 60.0);
    }
}
