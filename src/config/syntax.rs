//! Explains syntax errors (lines that are not TOML) to people who do not know the grammar of TOML.
//!
//! Most such lines have one of four faults: text without quotes, a key that is defined twice, a line that is not `key =
//! value`, or a list that is not closed. The parser's own messages do not help here (for `level = info` the parser says
//! "invalid float, expected `inf`"). So this module looks at the line itself to find the fault. A message repeats only
//! the name of the key, because the rest of the line may be a secret.
//!
//! A wrong line is reported and then replaced by a valid one, so the rest of the file is checked in the same run. This
//! is not possible if other lines depend on the wrong line. For example, without the header of a section, its keys
//! would seem to belong to another section.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue, Error};

use super::finding::{Finding, Location};

/// If a line is not TOML, an error is reported and this text replaces the value on the line. It is the text of no real
/// value.
pub(super) const REMOVED: &str = "\0";

/// Finds every line that is not TOML. Returns the text with these lines replaced, or `None` if other lines depend on
/// one of them.
pub(super) fn recover(name: &Arc<str>, text: &str) -> (Option<String>, Vec<Finding>) {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let mut faults: Vec<Finding> = Vec::new();
    loop {
        let mended = lines.join("\n");
        let (_, errors) = DeTable::parse_recoverable(&mended);
        if errors.is_empty() {
            return (Some(mended), faults);
        }
        for (number, fault, replacement) in Lines::of(name, &mended).faults(&errors) {
            // If a line is still reported as wrong after it was replaced by a valid line, the fault is in another line.
            let again = faults.iter().any(|known| known.place == fault.place);
            if !again {
                faults.push(fault);
            }
            match (replacement, lines.get_mut(number - 1)) {
                (Some(replacement), Some(line)) if !again => *line = replacement,
                _ => return (None, faults),
            }
        }
    }
}

/// A text, with the offset of each of its lines.
pub(super) struct Lines<'a> {
    name: &'a Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(name: &'a Arc<str>, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, starts }
    }

    /// Returns the file and line number of a piece of the text.
    pub(super) fn place(&self, span: Range<usize>) -> Location {
        Location::Line(self.name.clone(), self.number(span.start))
    }

    /// Returns a finding for each of the parser's errors, with its line number and, if possible, a valid line to
    /// replace it. There is at most one finding per line. After a list that is not closed there are no further
    /// findings, because every line inside the list is wrong.
    fn faults(&self, errors: &[Error]) -> Vec<(usize, Finding, Option<String>)> {
        let mut errors: Vec<_> = errors.iter().map(|error| (self.number(self.start(error)), error)).collect();
        errors.sort_by_key(|(line, _)| *line);
        errors.dedup_by_key(|(line, _)| *line);
        let open = errors.iter().position(|(_, error)| is_open_list(error));
        errors.truncate(open.map_or(errors.len(), |first| first + 1));
        errors.into_iter().map(|(line, error)| self.fault(line, error)).collect()
    }

    fn fault(&self, number: usize, error: &Error) -> (usize, Finding, Option<String>) {
        let line = self.line(number);
        let removed = key_of(line).map(|key| format!("{key} = \"\\u0000\"")).unwrap_or_default();
        let mut replacement = Some(removed).filter(|_| !line.trim_start().starts_with('['));
        let (what, mut hint) = if error.message() == "duplicate key" {
            let name = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
            replacement = replacement.map(|_| String::new());
            let hint = "merge the two: each key and section may be defined once".to_owned();
            (format!("`{name}` is defined a second time here"), hint)
        } else if let Some(key) = unquoted(line) {
            (format!("the value of `{key}` is neither a number nor true or false"), quoted_value_hint(key, line))
        } else if is_open_list(error) {
            replacement = replacement.filter(|_| line.contains(']'));
            let hint = "separate the items by commas, put text in quotes, and close the list with ]".to_owned();
            ("a list on this line or before it is malformed or not closed".to_owned(), hint)
        } else {
            let (what, hint) = plain(line, error.message());
            (what, hint.to_owned())
        };
        if replacement.is_none() {
            hint.push_str("; the rest of the file is checked after that");
        }
        (
            number,
            Finding { place: Location::Line(self.name.clone(), number), key: String::new(), what, hint },
            replacement,
        )
    }

    fn start(&self, error: &Error) -> usize {
        error.span().map_or(0, |span| span.start)
    }

    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn line(&self, number: usize) -> &'a str {
        let start = self.starts.get(number.wrapping_sub(1)).copied().unwrap_or_default();
        self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }
}

/// Returns true if the parser's error belongs to a line after a bracket that is not closed.
fn is_open_list(error: &Error) -> bool {
    ["array", "inline table"].iter().any(|kind| error.message().contains(kind))
}

/// Returns the hint for a value that is text without quotes.
fn quoted_value_hint(key: &str, line: &str) -> String {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim()).to_ascii_lowercase();
    match value.as_str() {
        "yes" | "on" | "true" => format!("write {key} = true"),
        "no" | "off" | "false" => format!("write {key} = false"),
        _ => format!("put it in quotes: {key} = \"…\""),
    }
}

/// Returns the fault and the hint for lines with any other fault.
fn plain(line: &str, message: &str) -> (String, &'static str) {
    if line.trim_start().starts_with('[') {
        return (
            format!("this is not a section header: {message}"),
            "write [section], or [[section]] for an entry of a list",
        );
    }
    if !line.contains('=') {
        return ("this line is not `key = value`".to_owned(), "write key = value, or begin a comment with #");
    }
    if message.contains("string") {
        return (
            "a quotation mark is missing, or a \\ is not written as \\\\".to_owned(),
            "write key = \"text\"; in 'text' a \\ needs no second one",
        );
    }
    (format!("this is not TOML: {message}"), "write key = value, with text and ranges in quotes")
}

/// Returns the key at the beginning of a line.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    bare.then_some(key)
}

/// Returns the key of a line if its value is text without quotes.
fn unquoted(line: &str) -> Option<&str> {
    let (key, value) = (key_of(line)?, line.split_once('=')?.1.trim());
    let text = !value.is_empty() && !value.starts_with(['"', '\'', '[', '{']) && DeValue::parse(value).is_err();
    text.then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = include_str!("../../config/exitgate.toml");

    fn mended(text: &str) -> (Option<String>, Vec<Finding>) {
        recover(&"t".into(), text)
    }

    #[test]
    fn a_faulty_line_is_replaced_and_the_rest_is_unchanged() {
        let (text, faults) = mended("a = 1\nb = two\nc\nb2 = 'x\nd = 4\nd = 5\n[s]\ne = 5\n");
        assert_eq!(text.unwrap(), "a = 1\nb = \"\\u0000\"\n\nb2 = \"\\u0000\"\nd = 4\n\n[s]\ne = 5\n");
        let lines: Vec<_> = faults.iter().map(|fault| fault.place.to_string()).collect();
        assert_eq!(lines, ["t:2", "t:3", "t:4", "t:6"]);
    }

    #[test]
    fn the_keys_of_a_section_without_header_are_not_guessed_at() {
        for text in ["[a\nb = 1", "a = [1,\n[b]\nc = 1", "[a]\n[b]\n[a]\nc = 1", "a = \"\"\"\nb = 1\n"] {
            let (mended, faults) = mended(text);
            assert_eq!((mended, faults.is_empty()), (None, false), "{text}");
        }
    }

    #[test]
    fn no_value_is_repeated() {
        for line in [
            "token = hunter2",
            "token = \"hunter2",
            "token = 'a' hunter2",
            "hunter2",
            "token = {hunter2",
            "x = [hunter2]",
        ] {
            let (_, faults) = mended(line);
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.to_string().contains("hunter2")), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_toml_has_no_faults_and_what_is_not_has_some(text in "([a-c\\[\\]{}=\"'#,.0-9 \n-]{0,60})") {
            let (text_again, faults) = mended(&text);
            prop_assert_eq!(DeTable::parse(&text).is_ok(), faults.is_empty());
            prop_assert!(text_again.is_none_or(|text| DeTable::parse(&text).is_ok()));
        }

        #[test]
        fn a_typo_is_reported_and_never_a_panic(at in 0..PAGE.len(), typo in "[\\[\\]{}=\"'#\n]?") {
            let at = (at..).find(|at| PAGE.is_char_boundary(*at)).unwrap_or_default();
            let rest = PAGE[at..].char_indices().nth(1).map_or("", |(next, _)| &PAGE[at + next..]);
            let (_, faults) = mended(&format!("{}{typo}{rest}", &PAGE[..at]));
            prop_assert!(faults.iter().all(|fault| matches!(fault.place, Location::Line(..))));
        }
    }
}
