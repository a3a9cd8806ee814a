//! Shows the results of `exitgate test-exits` to people: counts while the tests run, and a table at the end.

use std::fmt;

use serde_json::Value;

use crate::net::Printable;

/// The number of exits with each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    good: usize,
    bad: usize,
    unclear: usize,
    /// The number of good exits that reached the page of `--target`, and the number of good exits that did not.
    target: Option<(usize, usize)>,
}

impl Counts {
    pub(super) fn and(mut self, line: &Value) -> Self {
        match line["verdict"].as_str() {
            Some("good") => self.good += 1,
            Some("bad") => self.bad += 1,
            _ => self.unclear += 1,
        }
        if let Some(passed) = line["target"]["passed"].as_bool() {
            let (yes, no) = self.target.get_or_insert_default();
            *(if passed { yes } else { no }) += 1;
        }
        self
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} good, {} bad, {} unclear", self.good, self.bad, self.unclear)?;
        match self.target {
            Some((yes, no)) => write!(f, "; the target answered through {yes}, not through {no}"),
            None => Ok(()),
        }
    }
}

/// Returns the results as a table. Good exits come first. Within a verdict, the rows are sorted by country and speed.
pub(super) fn render(lines: &[Value]) -> String {
    let mut rows: Vec<(&Value, [String; 7])> = lines.iter().map(|line| (line, row(line))).collect();
    let rank = |line: &Value| match line["verdict"].as_str() {
        Some("good") => 0,
        Some("bad") => 1,
        _ => 2,
    };
    let speed = |line: &Value| line["ms"].as_f64().unwrap_or(f64::MAX);
    rows.sort_by(|(a, one), (b, other)| {
        rank(a).cmp(&rank(b)).then_with(|| one[2].cmp(&other[2])).then_with(|| speed(a).total_cmp(&speed(b)))
    });
    let head = ["EXIT", "NAME", "COUNTRY", "IP", "VERDICT", "MS", "WHY"].map(str::to_owned);
    let all: Vec<&[String; 7]> = std::iter::once(&head).chain(rows.iter().map(|(_, row)| row)).collect();
    let width = |at: usize| all.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<_> = widths.iter().zip(row).map(|(width, cell)| format!("{cell:width$}  ")).collect();
        format!("{}{}", cells.concat(), row[6]).trim_end().to_owned() + "\n"
    };
    all.into_iter().map(line).collect()
}

fn row(line: &Value) -> [String; 7] {
    let exit = &line["exit"];
    let text = |value: &Value| printable(value.as_str().unwrap_or_default());
    let ips = line["ips"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let ip = if ips.is_empty() { text(&exit["ip"]) } else { ips };
    let ms = line["ms"].as_f64().map(|ms| format!("{ms:.0}")).unwrap_or_default();
    let target = &line["target"];
    let why = match (text(&line["why"]), target["passed"].as_bool()) {
        (why, None) => why,
        (_, Some(true)) => "the target answered".to_owned(),
        (_, Some(false)) => text(&target["why"]),
    };
    let verdict = match line["verdict"].as_str() {
        Some("untested") => "unclear".to_owned(),
        _ => text(&line["verdict"]),
    };
    [text(&line["id"]), text(&exit["nickname"]), text(&exit["country"]), ip, verdict, ms, why]
}

/// Escapes control characters. A relay's nickname may contain them, because its operator can choose any text.
fn printable(text: &str) -> String {
    Printable(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_good_exits_first_and_escapes_names() {
        let lines = [
            json!({"id": "B", "verdict": "bad", "why": "no answer in time", "exit": {"nickname": "x\u{1b}[2J", "country": "DE"}}),
            json!({"id": "C", "verdict": "good", "why": "", "ips": ["192.0.2.1"], "ms": 90.4, "exit": {"nickname": "c", "country": "US"}}),
            json!({"id": "D", "verdict": "good", "why": "", "ips": ["192.0.2.2", "192.0.2.3"], "ms": 12.0, "exit": {"nickname": "d", "country": "US"},
                   "target": {"passed": false, "why": "it answers 403"}}),
            json!({"id": "E", "verdict": "untestable", "why": "it is gone", "exit": null}),
        ];
        let want = "\
EXIT  NAME        COUNTRY  IP                   VERDICT     MS  WHY
D     d           US       192.0.2.2 192.0.2.3  good        12  it answers 403
C     c           US       192.0.2.1            good        90
B     x\\u{1b}[2J  DE                            bad             no answer in time
E                                               untestable      it is gone
";
        assert_eq!(render(&lines), want);
        let counts = lines.iter().fold(Counts::default(), |counts, line| counts.and(line));
        assert_eq!(counts.to_string(), "2 good, 1 bad, 1 unclear; the target answered through 0, not through 1");
    }
}
