//! Usernames with any bytes: no panic; a selector reads back from its canonical text, and a refusal fits into a header.
use std::sync::LazyLock;

use exitgate::route::{Policy, RouteTable, Selector, Words};

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let eu = vec!["de".to_owned(), "fr".to_owned()];
    Words::new([("eu".to_owned(), eu)], ["customer-acme".to_owned()]).expect("valid words")
});

static ROUTES: LazyLock<RouteTable> = LazyLock::new(|| RouteTable::new(WORDS.clone(), Policy::default()));

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Selector::parse(text, &WORDS) {
        Ok(selector) => {
            let canonical = selector.to_string();
            assert_eq!(Selector::parse(&canonical, &WORDS).as_ref(), Ok(&selector));
        }
        Err(bad) => assert!(bad.to_string().bytes().all(|b| b.is_ascii_graphic() || b == b' ')),
    }
    let _ = ROUTES.resolve(text, None);
}
