//! Sources: where exits come from. Each has a file of its own.
//!
//! A source's answer may be late, cut short, huge, a different page, or the same for hours. One rule holds for all
//! sources: the last good answer is used until a better one was read to its end. Each failure is logged once, counted in
//! a metric, and shown in the source's [`Source`] record, which the API lists.
//!
//! Parsers ([`Parse`]) take bytes as they arrive and keep no more than one record, so an answer cannot fill the memory.
//! They open no connections: `source/fetch.rs` makes requests, `source/poll.rs` decides when, and whether an answer is
//! used.
//!
//! Next: `source/relays.rs` (starts the sources of Tor relays), `source/onionoo.rs`, `source/exit_list.rs` and
//! `source/consensus.rs` (one source each), `source/merge.rs` (makes one list of them); `source/public.rs` for lists of
//! public proxies.
//!
//! [`Source`]: crate::store::Source

pub mod consensus;
pub mod exit_list;
pub mod fetch;
pub mod handle;
pub mod list;
pub mod merge;
pub mod onionoo;
pub mod poll;
pub mod proxifly;
pub mod public;
pub mod relays;

use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::exit::Moment;

/// Why an answer cannot be used: a clause for the log and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Garbage(pub &'static str);

/// A complete answer, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    pub value: T,
    /// How many exits the answer describes.
    pub records: u32,
    /// How many of its records could not be used.
    pub skipped: u32,
    /// When the answer was made, as the answer states.
    pub published: Option<Moment>,
}

/// Parses an answer while it arrives.
pub trait Parse: Default + Send {
    type Output: Send + 'static;

    /// Takes the next bytes. After an error the answer cannot be used.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Garbage>;

    /// The answer is complete.
    fn finish(self) -> Result<Parsed<Self::Output>, Garbage>;
}

/// `2026-09-04 03:00:00`: the form of every time in Tor's documents, always UTC.
const TIME: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// Reads such a time; `None` if it is none, or before 1970.
fn utc(text: impl AsRef<str>) -> Option<Moment> {
    // The length leaves out years with a sign, which `time` would read.
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
