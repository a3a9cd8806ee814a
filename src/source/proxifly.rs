//! ProxiFly: free public proxies by the thousand, renewed every few minutes.
//!
//! Asked every minute is only `meta/data.json`, a few kilobytes with a date; the list itself is fetched when that date
//! moves. The CDN in front of it caches what it likes (half a day for a branch), so the date is also how a stale copy
//! is told: then the mirror is asked, and the newer of the two is believed. Of the list's words only protocol, address
//! and port are used: half of its countries are wrong, "elite" is what it says of transparent ones, and one proxy
//! stands in it under several protocols.
//!
//! Next: `source/list.rs` reads the list, `source/public.rs` passes it on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use super::fetch::{Answer, Client, Connect, FetchError, Limits, Validators};
use super::list::reader::{Read, Reader};
use super::list::{Bounds, fetch, parsed};
use super::poll::{Ask, Clock, Reply};
use super::{Garbage, utc};
use crate::config::{self, ListFormat};
use crate::exit::{Moment, Protocol};
use crate::store::Source;

/// Its name in `/sources`, metrics and the log.
pub const NAME: &str = "proxifly";

/// A copy this old is worth asking the mirror. Arbitrary: six of its own periods.
const OLD: Duration = Duration::from_secs(30 * 60);

/// The longest `meta/data.json` that is read: it has some 4 KB.
const LONGEST_META: u64 = 256 << 10;

/// Asks ProxiFly.
pub(super) struct Proxifly<C> {
    /// The folders, the preferred one first, with what is known of each.
    places: Vec<Place>,
    bounds: Bounds,
    client: Client<C>,
    clock: Clock,
}

/// One copy of it.
struct Place {
    folder: String,
    /// The marks and the date of its last `meta/data.json`.
    meta: Mutex<Option<(Validators, Moment)>>,
}

#[derive(Deserialize)]
struct Meta {
    timestamp: String,
}

impl<C: Connect> Proxifly<C> {
    pub(super) fn new(config: &config::Proxifly, bounds: Bounds, client: Client<C>, clock: Clock) -> Self {
        let folders = [Some(config.url.clone()), config.mirror.clone()];
        let places = folders.into_iter().flatten().map(|folder| Place { folder, meta: Mutex::default() });
        Self { places: places.collect(), bounds, client, clock }
    }

    /// The date of a copy.
    async fn date(&self, place: &Place) -> Result<Moment, FetchError> {
        let held = place.meta.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = held.as_ref().map(|(marks, _)| marks.clone()).unwrap_or_default();
        let mut body = Vec::new();
        let mut feed = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            Ok(())
        };
        let limits = Limits { body: LONGEST_META, ..Limits::default() };
        let answer = self.client.get(&url(place, "meta/data.json")?, &known, limits, &mut feed).await?;
        let (marks, date) = match (answer, held) {
            (Answer::Fresh { validators, .. }, _) => (validators, read_meta(&body)?),
            (Answer::Unchanged { .. }, Some(held)) => held,
            (Answer::Unchanged { .. }, None) => {
                return Err(Garbage("it says `unchanged` to a question that was not conditional").into());
            }
        };
        *place.meta.lock().unwrap_or_else(PoisonError::into_inner) = Some((marks, date));
        Ok(date)
    }

    /// The places that answer, the newest first; no further is asked than the first that is new enough.
    async fn dated(&self) -> Result<Vec<(Moment, &Place)>, FetchError> {
        let (mut dated, mut fault) = (Vec::new(), None);
        for place in &self.places {
            match self.date(place).await {
                Ok(date) => {
                    dated.push((date, place));
                    if (self.clock)().since(date) <= OLD {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(place = place.folder, %error, "a copy of ProxiFly's list cannot be asked");
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

    async fn list(&self, place: &Place) -> Result<Read, FetchError> {
        let reader = Reader::new(ListFormat::Json, Protocol::Http, self.bounds.most, self.bounds.private);
        let url = url(place, "all/data.json")?;
        let read = fetch(&self.client, &url, &Validators::default(), Limits::default(), reader).await?;
        read.map(|(read, _)| read).ok_or_else(|| Garbage("it says `unchanged` to an unconditional question").into())
    }
}

impl<C: Connect> Ask for Proxifly<C> {
    type Output = Read;

    async fn ask(&self, before: &Source) -> Result<Reply<Read>, FetchError> {
        let dated = self.dated().await?;
        let Some((date, _)) = dated.first().copied() else { return Ok(Reply::Unchanged(None)) };
        if before.published.is_some_and(|held| date <= held) {
            return Ok(Reply::Unchanged(None));
        }
        // A date may be there before its list is, and the other way about: whoever has the list may bring it.
        let others = self.places.iter().filter(|place| dated.iter().all(|(_, known)| !std::ptr::eq(*known, *place)));
        let mut fault = None;
        for place in dated.iter().map(|(_, place)| *place).chain(others) {
            match self.list(place).await {
                Ok(read) => return Ok(Reply::Fresh(parsed(NAME, read, Some(date)), Validators::default(), None)),
                Err(error) => _ = fault.get_or_insert(error),
            }
        }
        Err(fault.unwrap_or(Garbage("nobody has the list").into()))
    }
}

fn url(place: &Place, file: &str) -> Result<Uri, FetchError> {
    format!("{}/{file}", place.folder).parse().map_err(|_| FetchError::Scheme)
}

/// `{"timestamp":"2025-12-12T21:52:23.576Z",…}`.
fn read_meta(body: &[u8]) -> Result<Moment, Garbage> {
    let meta: Meta = serde_json::from_slice(body).map_err(|_| Garbage("its meta document is no such JSON"))?;
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
