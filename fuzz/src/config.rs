//! A configuration file with any content: the result is settings, or faults that say where and what to do, and never a panic.

use std::sync::LazyLock;

use exitgate::config::{Groups, SelectorFacts, parse};
use exitgate::route::{Selector, Words};

static WORDS: LazyLock<Words> = LazyLock::new(|| Words::new([], []).expect("no words"));

fn selector(text: &str, _: &Groups) -> Result<SelectorFacts, String> {
    let selector = Selector::parse(text, &WORDS).map_err(|fault| fault.to_string())?;
    let has_source = Selector::has_source(text, &WORDS).map_err(|fault| fault.to_string())?;
    Ok(SelectorFacts { sources: if has_source { selector.source.sources() } else { &[] }, ttl: selector.ttl })
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    // The parser reads files that the configuration names. Devices and the files of /proc may have no end.
    if text.contains("dev") || text.contains("proc") || text.contains("\\u") || text.contains("\\U") {
        return;
    }
    let read = || parse("fuzz", text, [], Some(&selector));
    match (read(), read()) {
        (Ok((one, warnings)), Ok((other, again))) => {
            assert_eq!(format!("{warnings:?}"), format!("{again:?}"));
            assert!(exitgate::config::diff(&one, &other).is_empty(), "a configuration differs from itself");
        }
        (Err(faults), Err(again)) => {
            assert_eq!(faults.to_string(), again.to_string());
            assert!(faults.iter().count() > 0);
            for fault in faults.iter() {
                assert!(!fault.what.is_empty() && !fault.hint.is_empty());
            }
            let printed = faults.to_string();
            assert!(!printed.chars().any(|c| c.is_control() && c != '\n'), "{printed:?}");
        }
        _ => panic!("the same text gave two different results"),
    }
}
