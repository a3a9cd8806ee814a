//! Sources: where the gateway learns which exits exist. Each source has a file of its own.
//!
//! The answer of a source may be late, cut short, huge, a different page, or the same for hours. One rule holds for all
//! sources: the last good answer stays in use until a better answer was read to its end. Each failure is logged once,
//! is counted in a metric, and is shown in the [`Source`] record of that source, which the API lists.
//!
//! A parser ([`Parse`]) reads the bytes of an answer as the bytes arrive, and keeps at most one record in memory, so a
//! huge answer cannot fill the memory. Parsers open no connections. `source/fetch.rs` makes the requests.
//! `source/poll.rs` decides when a request is made, and whether its answer is used.
//!
//! Next: `source/relay_sources.rs` starts the sources of Tor relays; `source/onionoo.rs`, `source/exit_list.rs` and
//! `source/consensus.rs` are these sources; `source/merge.rs` merges their data into one list. `source/public.rs`
//! starts and merges the lists of public proxies. `source/upstream.rs` reads lists of proxies of one's own.
//!
//! To add a source: write its parser ([`Parse`]) or its requests (the trait `Request` in `source/poll.rs`) in a new
//! file of the folder `source`, add its settings to `config/schema.rs` and `config/source.rs`, and then, for Tor
//! relays, start the source in `source/relay_sources.rs`, pass its settings in `app/wire/exits.rs` and merge its data in
//! `source/merge.rs`, or, for public proxies, start and merge the source in `source/public.rs`.
//!
//! [`Source`]: crate::store::Source

pub mod consensus;
pub mod exit_list;
pub mod fetch;
pub mod handle;
pub mod list;
pub mod merge;
pub mod onionoo;
pub mod outward;
pub mod poll;
pub mod proxifly;
pub mod public;
pub mod relay_sources;
pub mod upstream;

use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::exit::Moment;

/// Why an answer cannot be used. The text is a clause that the log and the API show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Garbage(pub &'static str);

/// A complete answer after parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    pub value: T,
    /// How many exits the answer describes.
    pub records: u32,
    /// How many records of the answer could not be used.
    pub skipped: u32,
    /// When the source made the answer, according to the answer. `None` if the answer contains no such time.
    pub published: Option<Moment>,
}

/// Parses an answer while the answer arrives.
pub trait Parse: Default + Send {
    type Output: Send + 'static;

    /// Parses the next bytes. After an error the whole answer cannot be used.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Garbage>;

    /// Ends the parsing after the last byte, and returns the data. Returns an error if the answer is incomplete.
    fn finish(self) -> Result<Parsed<Self::Output>, Garbage>;
}

/// The form of every time in Tor's documents, always in UTC: `2026-09-04 03:00:00`.
const TIME: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// Parses a time in UTC such as `2026-09-04 03:00:00`. Returns `None` if the text is not such a time, or if the time is
/// before 1970.
fn utc(text: impl AsRef<str>) -> Option<Moment> {
    // The required length of 19 characters excludes years with a sign (`+2026`), which the `time` crate would accept.
    let text = Some(text.as_ref().trim()).filter(|text| text.len() == 19)?;
    let time = PrimitiveDateTime::parse(text, TIME).ok()?.assume_utc();
    let seconds = u64::try_from(time.unix_timestamp()).ok()?;
    Some(Moment(seconds * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_times_of_tors_documents() {
        for (text, seconds) in [
            ("1970-01-01 00:00:00", 0),
            ("2000-02-29 12:00:00", 951_825_600),
            ("2024-01-30 10:21:54", 1_706_610_114),
            ("2026-09-04 03:00:00", 1_788_490_800),
            (" 2026-12-31 23:59:59 ", 1_798_761_599),
        ] {
            assert_eq!(utc(text), Some(Moment(seconds * 1_000_000)), "{text}");
        }
        for bad in [
            "",
            "2026-09-04",
            "2026-09-04T03:00:00",
            "2026-13-04 03:00:00",
            "2026-09-00 03:00:00",
            "1969-12-31 23:59:59",
            "2026-09-04 24:00:00",
            "+026-09-04 03:00:00",
            "+2026-09-04 03:00:00",
            "2026-02-29 03:00:00",
            "2026-9-04 03:00:00",
            "2026-09-04 03:0é:0",
        ] {
            assert_eq!(utc(bad), None, "{bad}");
        }
    }
}
