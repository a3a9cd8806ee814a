//! Forms of values: what an option takes, and how `GETCONF` tells it.

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    SwitchOrAuto,
    Number,
    Fraction,
    Seconds,
    Milliseconds,
    Bytes,
    Text,
    Lines,
}

/// Units of time in seconds, by the word without its plural `s`.
const TIMES: &[(&str, u64)] = &[
    ("second", 1),
    ("sec", 1),
    ("minute", 60),
    ("min", 60),
    ("hour", 3_600),
    ("day", 86_400),
    ("week", 604_800),
    ("month", 2_629_728),
];

/// Units of data in bytes.
const SIZES: &[(&str, u64)] = &[
    ("byte", 1),
    ("b", 1),
    ("kb", 1 << 10),
    ("kbyte", 1 << 10),
    ("kilobyte", 1 << 10),
    ("kbit", 1 << 7),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mbyte", 1 << 20),
    ("megabyte", 1 << 20),
    ("mbit", 1 << 17),
    ("gb", 1 << 30),
    ("gbyte", 1 << 30),
    ("gigabyte", 1 << 30),
    ("gbit", 1 << 27),
    ("tb", 1 << 40),
    ("terabyte", 1 << 40),
];

impl Kind {
    /// By tor's name of it.
    pub(super) fn read(name: &str) -> Self {
        match name {
            "Boolean" => Self::Switch,
            "Boolean+Auto" => Self::SwitchOrAuto,
            "Integer" | "SignedInteger" => Self::Number,
            "Float" => Self::Fraction,
            "TimeInterval" => Self::Seconds,
            "TimeMsecInterval" => Self::Milliseconds,
            "DataSize" => Self::Bytes,
            "LineList" | "Dependent" | "Virtual" => Self::Lines,
            _ => Self::Text,
        }
    }

    /// Whether several lines add up rather than replace one another.
    pub(super) fn is_list(self) -> bool {
        self == Self::Lines
    }

    /// A value as `GETCONF` tells it; the error completes tor's complaint.
    pub(super) fn normal(self, value: &str) -> Result<String, String> {
        let unable = || format!("Unable to parse {value} as a number");
        let whole = |text: &str| text.parse::<i128>().map(|number| number.to_string()).map_err(|_| unable());
        match (self, value) {
            (Self::Switch, "0" | "1") | (Self::SwitchOrAuto, "0" | "1" | "auto") => Ok(value.to_owned()),
            (Self::Switch, _) => Err(format!("Unrecognized value {value}. Allowed values are 0 and 1.")),
            (Self::SwitchOrAuto, _) => {
                Err(format!("Boolean '{value}' unrecognized. Allowed values are 0, 1, and \"auto\"."))
            }
            (Self::Number, _) => whole(value),
            (Self::Fraction, _) => {
                value.trim_end_matches('%').parse::<f64>().map(|_| value.to_owned()).map_err(|_| unable())
            }
            (Self::Seconds, _) => with_unit(value, TIMES).map(|number| number.to_string()).ok_or_else(unable),
            (Self::Milliseconds, _) => match value.split_whitespace().collect::<Vec<_>>()[..] {
                [number] => whole(number),
                [number, "msec" | "msecs" | "millisecond" | "milliseconds"] => whole(number),
                _ => with_unit(value, TIMES).map(|number| (number * 1000).to_string()).ok_or_else(unable),
            },
            (Self::Bytes, _) => with_unit(value, SIZES).map(|number| number.to_string()).ok_or_else(unable),
            (Self::Text | Self::Lines, _) => Ok(value.to_owned()),
        }
    }

    /// The default as `GETCONF` tells it.
    pub(super) fn normal_default(self, default: &str) -> String {
        self.normal(default).unwrap_or_else(|_| default.to_owned())
    }
}

fn with_unit(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let single = unit.strip_suffix('s').unwrap_or(&unit);
    let factor = match unit.is_empty() {
        true => 1,
        false => units.iter().find(|(name, _)| *name == unit || *name == single)?.1,
    };
    Some((number * factor as f64) as u64)
}
