//! What is not even TOML, in words for somebody who has never read its grammar.
//!
//! Most such lines have one of four faults, and for those the parser's own words ("invalid float, expected `inf`" for
//! `level = info`) are true and no help: a text without quotes, a name that stands twice, a line that is no
//! `key = value`, a list that is not closed. They are told apart by looking at the line itself. What a line holds is
//! never repeated, but for the name of a key: it may be a secret.
//!
//! A line that was reported is taken out, so that the rest of the file is looked at in the same run. That ends where
//! one line decides about others: without its header a section's keys would seem to be another's.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue, Error};

use super::finding::{Finding, Location};

/// Stands for a value that was reported: a text that nobody writes.
pub(super) const TAKEN_OUT: &str = "\0";

/// Finds every line that is not TOML. The text comes back without them, or not at all when too much hung on one.
pub(super) fn mend(name: &Arc<str>, text: &str) -> (Option<String>, Vec<Finding>) {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let mut faults: Vec<Finding> = Vec::new();
    loop {
        let mended = lines.join("\n");
        let (_, errors) = DeTable::parse_recoverable(&mended);
        if errors.is_empty() {
            return (Some(mended), faults);
        }
        for (number, fault, cure) in Lines::of(name, &mended).faults(&errors) {
            // A line that is wrong again, mended as it is, is not where the fault lies.
            let again = faults.iter().any(|known| known.place == fault.place);
            if !again {
                faults.push(fault);
            }
            match (cure, lines.get_mut(number - 1)) {
                (Some(cure), Some(line)) if !again => *line = cure,
                _ => return (None, faults),
            }
        }
    }
}

/// Where the lines of a text begin.
pub(super) struct Lines<'a> {
    name: &'a Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Finds the lines of a text of this name.
    pub(super) fn of(name: &'a Arc<str>, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, starts }
    }

    /// The place of a piece of the text.
    pub(super) fn place(&self, span: Range<usize>) -> Location {
        Location::Line(self.name.clone(), self.number(span.start))
    }

    /// What to tell of a parser's errors, and what to put in place of the line, if anything: one fault a line, and
    /// none after an open list, inside which every line is wrong.
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
        let taken_out = key_of(line).map(|key| format!("{key} = \"\\u0000\"")).unwrap_or_default();
        let mut cure = Some(taken_out).filter(|_| !line.trim_start().starts_with('['));
        let (what, mut hint) = if error.message() == "duplicate key" {
            let name = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
            cure = cure.map(|_| String::new());
            let hint = "join the two: a key or a section stands only once".to_owned();
            (format!("`{name}` stands here a second time"), hint)
        } else if let Some(key) = unquoted(line) {
            (format!("the value of `{key}` is neither a number nor true or false"), cure_of_text(key, line))
        } else if is_open_list(error) {
            cure = cure.filter(|_| line.contains(']'));
            let hint = "separate its items by commas, put text in quotes, and close it with ]".to_owned();
            ("a list here, or before this line, is broken or not closed".to_owned(), hint)
        } else {
            let (what, hint) = plain(line, error.message());
            (what, hint.to_owned())
        };
        if cure.is_none() {
            hint.push_str("; the rest is looked at after that");
        }
        (number, Finding { place: Location::Line(self.name.clone(), number), key: String::new(), what, hint }, cure)
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

/// True of the errors that the lines after an open bracket give.
fn is_open_list(error: &Error) -> bool {
    ["array", "inline table"].iter().any(|kind| error.message().contains(kind))
}

/// What to write instead of text without quotes.
fn cure_of_text(key: &str, line: &str) -> String {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim()).to_ascii_lowercase();
    match value.as_str() {
        "yes" | "on" | "true" => format!("write {key} = true"),
        "no" | "off" | "false" => format!("write {key} = false"),
        _ => format!("put it in quotes: {key} = \"…\""),
    }
}

/// The faults that a line shows by itself.
fn plain(line: &str, message: &str) -> (String, &'static str) {
    if line.trim_start().starts_with('[') {
        return (format!("this is no section: {message}"), "write [section], or [[section]] for an entry of a list");
    }
    if !line.contains('=') {
        return ("this line is no key with a value".to_owned(), "write key = value, or # in front of a remark");
    }
    if message.contains("string") {
        return (
            "a quotation mark is missing, or a \\ is not doubled".to_owned(),
            "write key = \"text\"; 'text' keeps a \\ as it is",
        );
    }
    (format!("this is not TOML: {message}"), "write key = value, with text and ranges in quotes")
}

/// The key that a line begins with.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    bare.then_some(key)
}

/// The key of a line whose value is text without quotes.
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
        mend(&"t".into(), text)
    }

    #[test]
    fn a_line_is_taken_out_and_the_rest_is_left_as_it_is() {
        let (text, faults) = mended("a = 1\nb = two\nc\nb2 = 'x\nd = 4\nd = 5\n[s]\ne = 5\n");
        assert_eq!(text.unwrap(), "a = 1\nb = \"\\u0000\"\n\nb2 = \"\\u0000\"\nd = 4\n\n[s]\ne = 5\n");
        let lines: Vec<_> = faults.iter().map(|fault| fault.place.to_string()).collect();
        assert_eq!(lines, ["t:2", "t:3", "t:4", "t:6"]);
    }

    #[test]
    fn a_section_without_its_header_is_not_guessed_at() {
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
        fn a_slip_of_the_hand_is_told_and_never_a_panic(at in 0..PAGE.len(), slip in "[\\[\\]{}=\"'#\n]?") {
            let at = (at..).find(|at| PAGE.is_char_boundary(*at)).unwrap_or_default();
            let rest = PAGE[at..].char_indices().nth(1).map_or("", |(next, _)| &PAGE[at + next..]);
            let (_, faults) = mended(&format!("{}{slip}{rest}", &PAGE[..at]));
            prop_assert!(faults.iter().all(|fault| matches!(fault.place, Location::Line(..))));
        }
    }
}
