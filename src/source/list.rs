//! A list of public proxies at a URL, in whatever form it is written.
//!
//! What the server says of how long its answer stays fresh does not count here: lists lie behind caches that promise a
//! week, and the operator has said how often he wants to ask.
//!
//! Next: `list/reader.rs` cuts a list into entries, `list/entry.rs` reads one, `source/public.rs` puts lists together.

pub mod entry;
pub mod reader;

use http::Uri;

use self::reader::{Read, Reader};
use super::Parsed;
use super::fetch::{Answer, Client, Connect, FetchError, Limits, Validators};
use super::poll::{Ask, Reply, unasked, usable_validators};
use crate::config::ListFormat;
use crate::exit::{Moment, Protocol};
use crate::store::Source;

/// How every list is read.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Proxies that are taken of one list.
    pub most: usize,
    /// They may stand on addresses that are not on the public internet.
    pub private: bool,
}

/// Asks for one list.
pub(super) struct List<C> {
    pub(super) name: String,
    pub(super) url: Uri,
    pub(super) format: ListFormat,
    pub(super) protocol: Protocol,
    pub(super) bounds: Bounds,
    pub(super) limits: Limits,
    pub(super) client: Client<C>,
}

impl<C: Connect> Ask for List<C> {
    type Output = Read;

    async fn ask(&self, before: &Source) -> Result<Reply<Read>, FetchError> {
        let known = usable_validators(before);
        let reader = Reader::new(self.format, self.protocol, self.bounds.most, self.bounds.private);
        match fetch(&self.client, &self.url, &known, self.limits, reader).await? {
            Some((read, marks)) => Ok(Reply::Fresh(parsed(&self.name, read, None), marks, None)),
            None => unasked(&known).map(|()| Reply::Unchanged(None)),
        }
    }
}

/// One list and its marks; `None` if it has not changed.
pub(super) async fn fetch<C: Connect>(
    client: &Client<C>,
    url: &Uri,
    known: &Validators,
    limits: Limits,
    mut reader: Reader,
) -> Result<Option<(Read, Validators)>, FetchError> {
    let mut feed = |bytes: &[u8]| {
        reader.feed(bytes);
        Ok(())
    };
    match client.get(url, known, limits, &mut feed).await? {
        Answer::Fresh { validators, .. } => Ok(Some((reader.finish(), validators))),
        Answer::Unchanged { .. } => Ok(None),
    }
}

/// A list as every source's answer stands; says in the log what could not be read.
pub(super) fn parsed(source: &str, read: Read, published: Option<Moment>) -> Parsed<Read> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    if read.skipped > 0 {
        let samples: Vec<_> = read.samples.iter().map(|(text, odd)| format!("\"{text}\": {odd}")).collect();
        let (skipped, samples) = (read.skipped, samples.join("; "));
        tracing::info!(source, skipped, samples, "a list has entries that are no proxies of ours");
    }
    if read.beyond > 0 {
        tracing::warn!(source, left_out = read.beyond, "a list has more proxies than check.public.most allows");
    }
    Parsed { records: count(read.proxies.len()), skipped: read.skipped, published, value: read }
}
