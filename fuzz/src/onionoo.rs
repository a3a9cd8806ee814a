//! Onionoo's details with any bytes: no panic, no dependence on how the bytes were cut, and every relay once.

use std::collections::HashSet;

use exitgate::exit::Listing;
use exitgate::source::onionoo::Details;
use exitgate::source::{Garbage, Parse, Parsed};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Parsed<Vec<Listing>>, Garbage> {
    let mut details = Details::default();
    for piece in pieces {
        details.feed(piece)?;
    }
    details.finish()
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let (piece, bytes) = super::cut(input);
    let whole = read(std::iter::once(bytes));
    assert_eq!(whole, read(bytes.chunks(piece)));
    let Ok(parsed) = whole else { return };
    assert_eq!(parsed.records as usize, parsed.value.len());
    let mut seen = HashSet::new();
    for listing in &parsed.value {
        assert!(seen.insert(listing.id.clone()), "{:?} twice", listing.id);
        let distinct: HashSet<_> = listing.announced.iter().collect();
        assert_eq!(distinct.len(), listing.announced.len());
    }
}
