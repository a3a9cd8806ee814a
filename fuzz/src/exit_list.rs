//! The exit list with any bytes: no panic, no dependence on how the bytes were cut, no more sightings than lines.

use exitgate::source::exit_list::{ExitList, Sighting};
use exitgate::source::{Garbage, Parse, Parsed};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Parsed<Vec<Sighting>>, Garbage> {
    let mut list = ExitList::default();
    for piece in pieces {
        list.feed(piece)?;
    }
    list.finish()
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let (piece, bytes) = super::cut(input);
    let whole = read(std::iter::once(bytes));
    assert_eq!(whole, read(bytes.chunks(piece)));
    let lines = bytes.split(|&byte| byte == b'\n').count();
    if let Ok(parsed) = whole {
        assert!(parsed.value.len() + parsed.skipped as usize + parsed.records as usize <= lines);
    }
}
