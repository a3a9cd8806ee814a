//! Where exits come from, one file a source.
//!
//! A source is asked seldom and distrusted always: its answer may be late, cut short, huge, another page altogether, or
//! for hours the same. The rule for all of them is one: the last good answer stands until a better one was read to its
//! end. What went wrong is never silent; it is in the log once, in a metric, and in the source's own [`Source`] record
//! that the API lists.
//!
//! Parsers ([`Parse`]) take bytes as they arrive and hold no more than one record, so that nobody can fill our memory
//! by answering. They open nothing; `source/fetch.rs` does the asking, `source/poll.rs` decides when, and what an
//! answer is worth.
//!
//! Next: `source/relays.rs` (who starts what, and where it goes), `source/onionoo.rs`, `source/exit_list.rs` and
//! `source/consensus.rs` (what each says), `source/merge.rs` (what they say together); `source/public.rs` and what it
//! names, for lists of public proxies.
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

/// Why an answer is none: a clause for the log and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Garbage(pub &'static str);

/// A whole answer, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What it says.
    pub value: T,
    /// How many exits it describes.
    pub records: u32,
    /// How many of its records could not be used.
    pub skipped: u32,
    /// When it was made, by its own word.
    pub published: Option<Moment>,
}

/// Reads an answer while it arrives.
pub trait Parse: Default + Send {
    /// What the answer says.
    type Output: Send + 'static;

    /// Takes the next bytes. An error is final: this is no answer.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Garbage>;

    /// There are no more bytes.
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
