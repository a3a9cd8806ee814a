//! ProxiFly: a list of thousands of free public proxies, which is updated every few minutes.
//!
//! In each period (one minute by default) only `meta/data.json` is requested: a few kilobytes that contain the date of
//! the list. The list itself is requested only after that date has changed.
//!
//! The CDN (a cache) that serves the list may send a copy that is half a day old. If the date is old, the list is also
//! requested from its mirror, and the newer copy is used.
//!
//! Only protocol, address and port are taken from the list. Its other facts are often wrong: half of the countries are,
//! and transparent proxies are called "elite".
//!
//! Next: `source/list.rs` parses the list, `source/public.rs` merges it with other lists.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use super::fetch::{Answer, Client, Connect, FetchError, Limits, Validators};
use super::list::reader::{ProxyList, Reader};
use super::list::{Bounds, fetch, parsed};
use super::poll::{Clock, Reply, Request};
use super::{Garbage, utc};
use crate::config::{self, ListFormat};
use crate::exit::{Moment, Protocol};
use crate::store::Source;

/// The name of ProxiFly in the API path `/sources`, in metrics and in the log.
pub const NAME: &str = "proxifly";

/// The age of a copy after which the mirror is requested too: six times the period in which ProxiFly updates the list.
/// Not tuned.
const OLD: Duration = Duration::from_secs(30 * 60);

/// The longest `meta/data.json` that is read, in bytes. The real file has about 4 KB.
const LONGEST_META: u64 = 256 << 10;

/// Makes the requests to ProxiFly.
pub(super) struct Proxifly<C> {
    /// The copies of the list, with the preferred copy first.
    copies: Vec<ListCopy>,
    bounds: Bounds,
    client: Client<C>,
    clock: Clock,
}

/// One copy of the list: the main copy, or the mirror.
struct ListCopy {
    /// The URL of the folder that contains the copy.
    folder: String,
    /// The validators and the date of the last `meta/data.json` of this copy.
    meta: Mutex<Option<(Validators, Moment)>>,
}

#[derive(Deserialize)]
struct Meta {
    timestamp: String,
}

impl<C: Connect> Proxifly<C> {
    pub(super) fn new(config: &config::Proxifly, bounds: Bounds, client: Client<C>, clock: Clock) -> Self {
        let folders = [Some(config.url.clone()), config.mirror.clone()];
        let copies = folders.into_iter().flatten().map(|folder| ListCopy { folder, meta: Mutex::default() });
        Self { copies: copies.collect(), bounds, client, clock }
    }

    /// Returns the date of a copy of the list.
    async fn date(&self, copy: &ListCopy) -> Result<Moment, FetchError> {
        let last = copy.meta.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = last.as_ref().map(|(validators, _)| validators.clone()).unwrap_or_default();
        let mut body = Vec::new();
        let mut feed = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            Ok(())
        };
        let limits = Limits { body: LONGEST_META, ..Limits::default() };
        let answer = self.client.get(&url(copy, "meta/data.json")?, &known, limits, &mut feed).await?;
        let (validators, date) = match (answer, last) {
            (Answer::Fresh { validators, .. }, _) => (validators, read_meta(&body)?),
            (Answer::Unchanged { .. }, Some(last)) => last,
            (Answer::Unchanged { .. }, None) => {
                return Err(Garbage("it answers `unchanged` to a request that was not conditional").into());
            }
        };
        *copy.meta.lock().unwrap_or_else(PoisonError::into_inner) = Some((validators, date));
        Ok(date)
    }

    /// Returns the copies that answer, with the newest first. After the first copy that is new enough, no other copy is
    /// requested.
    async fn dated(&self) -> Result<Vec<(Moment, &ListCopy)>, FetchError> {
        let (mut dated, mut fault) = (Vec::new(), None);
        for copy in &self.copies {
            match self.date(copy).await {
                Ok(date) => {
                    dated.push((date, copy));
                    if (self.clock)().since(date) <= OLD {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(place = copy.folder, %error, "a copy of ProxiFly's list does not answer");
                    fault.get_or_insert(error);
                }
            }
        }
        dated.sort_by_key(|(date, _)| std::cmp::Reverse(*date));
        match fault {
            Some(fault) if dated.is_empty() => Err(fault),
            _ => Ok(dated),
        }
    }

    async fn list(&self, copy: &ListCopy) -> Result<ProxyList, FetchError> {
        let reader = Reader::new(ListFormat::Json, Protocol::Http, self.bounds.most, self.bounds.private);
        let url = url(copy, "all/data.json")?;
        let list = fetch(&self.client, &url, &Validators::default(), Limits::default(), reader).await?;
        let unchanged = || Garbage("it answers `unchanged` to a request that was not conditional").into();
        list.map(|(list, _)| list).ok_or_else(unchanged)
    }
}

impl<C: Connect> Request for Proxifly<C> {
    type Output = ProxyList;

    async fn send(&self, before: &Source) -> Result<Reply<ProxyList>, FetchError> {
        let dated = self.dated().await?;
        let Some((date, _)) = dated.first().copied() else { return Ok(Reply::Unchanged(None)) };
        if before.published.is_some_and(|published| date <= published) {
            return Ok(Reply::Unchanged(None));
        }
        // A copy may have the new date before it has the new list, or may have a list without a date. So all copies are
        // tried.
        let others = self.copies.iter().filter(|copy| dated.iter().all(|(_, known)| !std::ptr::eq(*known, *copy)));
        let mut fault = None;
        for copy in dated.iter().map(|(_, copy)| *copy).chain(others) {
            match self.list(copy).await {
                Ok(list) => return Ok(Reply::Fresh(parsed(NAME, list, Some(date)), Validators::default(), None)),
                Err(error) => _ = fault.get_or_insert(error),
            }
        }
        Err(fault.unwrap_or(Garbage("no copy has the list").into()))
    }
}

fn url(copy: &ListCopy, file: &str) -> Result<Uri, FetchError> {
    format!("{}/{file}", copy.folder).parse().map_err(|_| FetchError::Scheme)
}

/// Parses the date in `{"timestamp":"2025-12-12T21:52:23.576Z",…}`.
fn read_meta(body: &[u8]) -> Result<Moment, Garbage> {
    let meta: Meta = serde_json::from_slice(body).map_err(|_| Garbage("its meta document is not the expected JSON"))?;
    let seconds = meta.timestamp.get(..19).map(|text| text.replacen('T', " ", 1));
    seconds.and_then(utc).ok_or(Garbage("its meta document has no date"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_the_meta_document_is_read() {
        let meta = br#"{"timestamp": "2025-12-12T21:52:23.576Z", "totals": {"all": 6710, "countries": {"AE": 7}}}"#;
        assert_eq!(read_meta(meta), Ok(Moment(1_765_576_343_000_000)));
        for bad in [&b"{}"[..], br#"{"timestamp": 7}"#, br#"{"timestamp": "yesterday"}"#, b"<html>"] {
            assert!(read_meta(bad).is_err());
        }
    }
}
