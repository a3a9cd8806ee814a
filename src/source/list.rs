//! One list of public proxies at a URL, in any of the usual formats.
//!
//! A request is made at a configured interval. The `max-age` of the server's answer is ignored, because some lists are
//! behind caches that announce a `max-age` of a week.
//!
//! Next: `list/reader.rs` splits a list into entries, `list/entry.rs` parses one entry, `source/public.rs` merges the
//! lists.

pub mod entry;
pub mod reader;

use http::Uri;

use self::reader::{ProxyList, Reader};
use super::Parsed;
use super::fetch::{Answer, Client, Connect, FetchError, Limits, Validators};
use super::poll::{Reply, Request, check_conditional, usable_validators};
use crate::config::ListFormat;
use crate::exit::{Moment, Protocol};
use crate::store::Source;

/// The limits for every list of public proxies.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest number of proxies that is taken from one list. The merged list of all sources has the same limit.
    pub most: usize,
    /// True if proxies may have private addresses.
    pub private: bool,
}

/// Makes requests for one list.
pub(super) struct List<C> {
    pub(super) name: String,
    pub(super) url: Uri,
    pub(super) format: ListFormat,
    pub(super) protocol: Protocol,
    pub(super) bounds: Bounds,
    pub(super) limits: Limits,
    pub(super) client: Client<C>,
}

impl<C: Connect> Request for List<C> {
    type Output = ProxyList;

    async fn send(&self, before: &Source) -> Result<Reply<ProxyList>, FetchError> {
        let known = usable_validators(before);
        let reader = Reader::new(self.format, self.protocol, self.bounds.most, self.bounds.private);
        match fetch(&self.client, &self.url, &known, self.limits, reader).await? {
            Some((list, validators)) => Ok(Reply::Fresh(parsed(&self.name, list, None), validators, None)),
            None => check_conditional(&known).map(|()| Reply::Unchanged(None)),
        }
    }
}

/// Requests one list. Returns the list and its validators, or `None` if the list has not changed.
pub(super) async fn fetch<C: Connect>(
    client: &Client<C>,
    url: &Uri,
    known: &Validators,
    limits: Limits,
    mut reader: Reader,
) -> Result<Option<(ProxyList, Validators)>, FetchError> {
    let mut feed = |bytes: &[u8]| {
        reader.feed(bytes);
        Ok(())
    };
    match client.get(url, known, limits, &mut feed).await? {
        Answer::Fresh { validators, .. } => Ok(Some((reader.finish(), validators))),
        Answer::Unchanged { .. } => Ok(None),
    }
}

/// Logs the entries of a list that cannot be used. Returns the list in the form that all sources use.
pub(super) fn parsed(source: &str, list: ProxyList, published: Option<Moment>) -> Parsed<ProxyList> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    if list.skipped > 0 {
        let samples: Vec<_> = list.samples.iter().map(|(text, bad)| format!("\"{text}\": {bad}")).collect();
        let (skipped, samples) = (list.skipped, samples.join("; "));
        tracing::info!(source, skipped, samples, "a list has entries that cannot be used");
    }
    if list.beyond > 0 {
        tracing::warn!(source, left_out = list.beyond, "a list has more proxies than check.public.most allows");
    }
    Parsed { records: count(list.proxies.len()), skipped: list.skipped, published, value: list }
}
