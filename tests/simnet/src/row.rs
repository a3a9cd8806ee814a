//! What a scenario comes to: figures, bars that some of them must clear, and a line of the table.

use std::fmt::Write as _;
use std::time::Duration;

/// One scenario's figures.
#[derive(Clone, Debug)]
pub struct Row {
    pub scenario: &'static str,
    /// How time ran: `real time`, or by what it was divided.
    pub pace: String,
    pub figures: Vec<(String, String)>,
    pub bars: Vec<Bar>,
    /// How long it took on the wall.
    pub took: Duration,
}

/// A figure that must be as good as something.
#[derive(Clone, Debug)]
pub struct Bar {
    pub what: String,
    pub found: String,
    pub must: String,
    pub passed: bool,
    /// Every scenario has it: the table shows it where it is not cleared.
    pub common: bool,
}

impl Row {
    pub fn new(scenario: &'static str, pace: String) -> Self {
        Self { scenario, pace, figures: Vec::new(), bars: Vec::new(), took: Duration::ZERO }
    }

    /// A figure without a bar.
    pub fn figure(&mut self, what: impl Into<String>, found: impl ToString) {
        self.figures.push((what.into(), found.to_string()));
    }

    /// A number that must not be above a bar.
    pub fn at_most(&mut self, what: impl Into<String>, found: f64, bar: f64) {
        self.bar(what, number(found), format!("≤ {}", number(bar)), found <= bar);
    }

    /// A number that must not be below a bar.
    pub fn at_least(&mut self, what: impl Into<String>, found: f64, bar: f64) {
        self.bar(what, number(found), format!("≥ {}", number(bar)), found >= bar);
    }

    /// Something that must hold.
    pub fn holds(&mut self, what: impl Into<String>, found: impl ToString, passed: bool) {
        self.bar(what, found.to_string(), "must hold".into(), passed);
    }

    fn bar(&mut self, what: impl Into<String>, found: String, must: String, passed: bool) {
        self.bars.push(Bar { what: what.into(), found, must, passed, common: false });
    }

    /// A count that must be nothing, in every scenario.
    pub fn never(&mut self, what: &str, found: f64) {
        self.at_most(what, found, 0.0);
        if let Some(bar) = self.bars.last_mut() {
            bar.common = true;
        }
    }

    /// Whether every bar was cleared.
    pub fn green(&self) -> bool {
        self.bars.iter().all(|bar| bar.passed)
    }

    /// Lines for a terminal.
    pub fn report(&self) -> String {
        let mut text =
            format!("== {} ({}, {} s): {}\n", self.scenario, self.pace, self.took.as_secs(), colour(self.green()));
        for (what, found) in &self.figures {
            let _ = writeln!(text, "     {what}: {found}"); // a String takes everything
        }
        for Bar { what, found, must, passed, .. } in &self.bars {
            let _ = writeln!(text, "  {} {what}: {found} ({must})", if *passed { "ok " } else { "RED" });
        }
        text
    }

    /// A line of the table in Markdown.
    pub fn line(&self) -> String {
        let figures = self.figures.iter().map(|(what, found)| format!("{what} {found}"));
        let bars = self.bars.iter().filter(|bar| !(bar.common && bar.passed)).map(|bar| {
            let mark = if bar.passed { "" } else { "**" };
            format!("{mark}{} {}{mark} ({})", bar.what, bar.found, bar.must)
        });
        let cell = |parts: Vec<String>| parts.join("; ").replace('|', "/");
        let (bars, figures) = (cell(bars.collect()), cell(figures.collect()));
        format!("| {} | {} | {} | {bars} | {figures} |", self.scenario, self.pace, colour(self.green()))
    }
}

/// The head of the table.
pub const HEAD: &str = "| scenario | time | | bars | other figures |\n| --- | --- | --- | --- | --- |";

fn colour(green: bool) -> &'static str {
    if green { "green" } else { "red" }
}

/// A number in as many digits as mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".into(),
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The value below which this part of the values lies; not a number if there are none.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_green_when_every_bar_is_cleared() {
        let mut row = Row::new("x", "real time".into());
        row.at_most("p95", 4.0, 5.0);
        assert!(row.green());
        row.at_least("served", 95.0, 200.0);
        assert!(!row.green());
        row.never("wrong exits", 0.0);
        assert_eq!(row.line(), "| x | real time | red | p95 4 (≤ 5); **served 95** (≥ 200) |  |");
    }

    #[test]
    fn a_figure_that_does_not_exist_clears_no_bar() {
        let mut row = Row::new("x", String::new());
        row.at_most("p95", quantile(&[], 0.95), 5.0);
        assert!(!row.green());
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((quantile(&values, 0.0), quantile(&values, 0.5), quantile(&values, 1.0)), (1.0, 3.0, 5.0));
        assert_eq!(
            (number(0.123), number(12.34), number(200.0), number(f64::NAN)),
            ("0.12".into(), "12.3".into(), "200".into(), "–".into())
        );
    }
}
