//! `/exits` and `/countries`: the known exits.
//!
//! A list is sorted by id and has at most `limit` entries. To get the next page, the caller sends the `next` of this
//! page as `after`. If the catalog changes while a caller reads all pages, every exit that exists the whole time is
//! listed exactly once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::extract::{Named, Nothing, Params, bad_query, limit};
use super::identity::IdentityView;
use super::timestamp::Timestamp;
use crate::check::{Checked, condemnation, pardon};
use crate::exit::catalog::Count;
use crate::exit::country::Country;
use crate::exit::{Exit, ExitId, Moment, Protocol, PublicId, Source, UpstreamId, UpstreamName, Verdict};
use crate::state::{Change, Snapshot};

/// How long a caller waits for the result of a check. Not tuned: several times the time limit of one check.
const CHECK_DEADLINE: Duration = Duration::from_secs(60);

/// The largest number of bans that are shown for one exit. Not tuned.
const BANS: usize = 100;

/// An exit, with what its source and its checks say of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Exit)]
pub(super) struct ExitView {
    id: String,
    source: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schema(value_type = String, required = false)]
    nickname: Box<str>,
    /// The address that sites see.
    #[schema(value_type = Option<String>)]
    ip: Option<IpAddr>,
    #[schema(value_type = Vec<String>)]
    announced: Vec<IpAddr>,
    country: Option<String>,
    asn: Option<u32>,
    as_name: Option<String>,
    usable: bool,
    verdict: &'static str,
    /// Why its last check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Why it is not usable although its checks may pass: `down`, `not_listed`, `bad_exit`, `draining`, `condemned`, `several_ips`.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marks: Vec<&'static str>,
    checked: Option<Timestamp>,
    good: Option<Timestamp>,
    latency_ms: Option<u64>,
    passed: Vec<String>,
    streams: u32,
    /// A username that uses this exit alone; null while no check has seen the address of a proxy.
    username: Option<String>,
}

impl ExitView {
    pub(super) fn of(exit: &Exit) -> Self {
        let (listing, known) = (exit.listing(), exit.known());
        Self {
            id: exit.id().to_string(),
            source: exit.id().source().as_str(),
            nickname: listing.nickname.clone(),
            ip: exit.ip(),
            announced: listing.announced.clone(),
            country: exit.country().is_known().then(|| exit.country().to_string()),
            asn: listing.asn,
            as_name: listing.as_name.as_ref().map(ToString::to_string),
            usable: exit.usable(),
            verdict: word(known.verdict),
            why: known.why.as_deref().map(str::to_owned),
            marks: marks(exit),
            checked: known.checked.map(Timestamp),
            good: known.good.map(Timestamp),
            latency_ms: known.latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            passed: known.passed.iter().map(ToString::to_string).collect(),
            streams: exit.load().in_flight(),
            username: username(exit),
        }
    }
}

/// Returns a username that uses only this exit. A public proxy is identified by the address that sites see (with `_`
/// instead of `:` in IPv6 addresses), and the username must contain its source too.
fn username(exit: &Exit) -> Option<String> {
    match exit.id() {
        ExitId::Tor(fingerprint) => Some(format!("any-exit-{fingerprint}")),
        ExitId::Public(_) => {
            let ip = exit.ip()?.to_string().replace(':', "_");
            Some(format!("any-exit-{ip}-source-public"))
        }
        ExitId::Upstream(id) => {
            let ip = exit.ip()?.to_string().replace(':', "_");
            Some(format!("any-exit-{ip}-source-{}", id.source.as_str()))
        }
        ExitId::Direct => Some("any-source-direct".to_owned()),
        ExitId::Own(ip) => Some(format!("any-exit-{}-source-direct", ip.to_string().replace(':', "_"))),
        ExitId::Onion => None,
    }
}

pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Untested => "untested",
        Verdict::Good => "good",
        Verdict::Bad => "bad",
    }
}

fn marks(exit: &Exit) -> Vec<&'static str> {
    let (flags, marks) = (exit.listing().flags, exit.known().marks);
    let all = [
        (!flags.running, "down"),
        (exit.listing().unlisted.is_some() && !marks.draining, "not_listed"),
        (flags.bad_exit, "bad_exit"),
        (marks.draining, "draining"),
        (marks.bad_for_good, "condemned"),
        (marks.several_ips, "several_ips"),
    ];
    all.into_iter().filter_map(|(holds, word)| holds.then_some(word)).collect()
}

/// A page of exits, sorted by id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Exits {
    /// How many there are, also beyond this page.
    total: usize,
    exits: Vec<ExitView>,
    /// The value of `after` for the next page.
    next: Option<String>,
}

/// A site that refuses the exit, until a moment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refuses)]
struct BanOfExit {
    site: String,
    until: Timestamp,
}

/// An exit, with the sites that refuse it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whole {
    #[serde(flatten)]
    exit: ExitView,
    /// Null if the country of the exit is unknown.
    identity: Option<IdentityView>,
    bans: Vec<BanOfExit>,
}

/// The result of one check target.
#[derive(Debug, Serialize, ToSchema)]
struct Visited {
    passed: bool,
    why: Option<String>,
}

/// The result of a check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CheckedNow {
    /// `good`, `bad`, or `untested` if the check could not decide.
    verdict: &'static str,
    why: String,
    /// The addresses that sites saw.
    #[schema(value_type = Vec<String>)]
    ips: Vec<IpAddr>,
    /// The check targets that were fetched, by name.
    sites: BTreeMap<String, Visited>,
    /// The exit after the check.
    exit: Option<ExitView>,
}

/// How many exits a country has.
#[derive(Debug, Serialize, ToSchema)]
struct CountryShown {
    /// Two letters; `??` for exits of an unknown country.
    country: String,
    known: usize,
    usable: usize,
}

/// The countries of the known exits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Countries {
    countries: Vec<CountryShown>,
}

/// The query of `GET /exits`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExitQuery {
    /// `tor`, `public`, `direct`, or the name of an upstream source.
    source: Option<String>,
    /// Two letters, or `??` for exits of an unknown country.
    country: Option<String>,
    /// Only exits that are usable now, or only those that are not.
    usable: Option<bool>,
    /// The most exits in one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only exits after this id: the `next` of the answer before.
    after: Option<String>,
}

struct Filter {
    source: Option<Source>,
    country: Option<Country>,
    usable: Option<bool>,
    after: Option<ExitId>,
    limit: usize,
}

impl Filter {
    fn read(query: &ExitQuery) -> Result<Self, ApiError> {
        let wrong = |field: &str, want: &str| bad_query(format!("`{field}` {want}")).with(json!({ "field": field }));
        let source = query.source.as_deref().map(|text| {
            let want = "is `tor`, `public`, `direct`, or the name of an upstream source";
            Source::find(text).ok_or_else(|| wrong("source", want))
        });
        let country = query.country.as_deref().map(|text| {
            Country::parse(text)
                .ok_or_else(|| wrong("country", "is two letters, or `??` for exits of an unknown country"))
        });
        let after =
            query.after.as_deref().map(|text| read_id(text).ok_or_else(|| wrong("after", "is the id of an exit")));
        Ok(Self {
            source: source.transpose()?,
            country: country.transpose()?,
            usable: query.usable,
            after: after.transpose()?,
            limit: limit(query.limit)?,
        })
    }

    fn passes(&self, exit: &Exit) -> bool {
        self.source.is_none_or(|source| exit.id().source() == source)
            && self.country.is_none_or(|country| exit.country() == country)
            && self.usable.is_none_or(|usable| exit.usable() == usable)
    }

    fn list(&self, snapshot: &Snapshot) -> Exits {
        let mut all: Vec<&Arc<Exit>> = snapshot.catalog.iter().filter(|exit| self.passes(exit)).collect();
        let total = all.len();
        all.retain(|exit| self.after.as_ref().is_none_or(|after| exit.id() > after));
        all.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        let next = (all.len() > self.limit).then(|| all[self.limit - 1].id().to_string());
        all.truncate(self.limit);
        Exits { total, exits: all.into_iter().map(|exit| ExitView::of(exit)).collect(), next }
    }
}

/// Reads an exit's id in the form that [`ExitId`] writes.
pub(super) fn read_id(text: &str) -> Option<ExitId> {
    if let Ok(fingerprint) = text.parse() {
        return Some(ExitId::Tor(fingerprint));
    }
    if let Some(direct) = ExitId::parse_direct(text) {
        return Some(direct);
    }
    let Some((scheme, addr)) = text.split_once("://") else {
        return UpstreamId::parse(text, UpstreamName::find).map(|id| ExitId::Upstream(Arc::new(id)));
    };
    let protocols = [Protocol::Http, Protocol::Socks4, Protocol::Socks5];
    let protocol = protocols.into_iter().find(|protocol| protocol.as_str() == scheme)?;
    Some(ExitId::Public(Arc::new(PublicId { protocol, addr: addr.parse().ok()? })))
}

/// Returns the exit with this id, or the exit whose address (as sites see it) is this text.
pub(super) fn find<'s>(snapshot: &'s Snapshot, text: &str) -> Result<&'s Arc<Exit>, ApiError> {
    let by_id = read_id(text).and_then(|id| snapshot.catalog.get(&id));
    let by_ip = || text.parse().ok().and_then(|ip| snapshot.catalog.by_ip(ip).next());
    by_id
        .or_else(by_ip)
        .ok_or_else(|| ApiError::missing("no exit of this id or address is known; GET /exits lists them"))
}

/// Lists the exits that are known.
#[utoipa::path(get, path = "/exits", tag = "exits", params(ExitQuery),
    responses((status = 200, body = Exits), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Params(query): Params<ExitQuery>,
) -> Result<Response, ApiError> {
    let filter = Filter::read(&query)?;
    tagged(&headers, &filter.list(&wiring.state.snapshot()))
}

/// Shows an exit, with the sites that refuse it.
#[utoipa::path(get, path = "/exits/{id}", tag = "exits",
    params(("id" = String, Path, description = "The id of the exit, or the address that sites see")),
    responses((status = 200, body = Whole), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn one(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(id): Named,
) -> Result<Response, ApiError> {
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    let exit = find(&snapshot, &id)?;
    let identity = wiring.identities.of(exit).map(IdentityView::from);
    tagged(&headers, &page(&snapshot, exit, identity, now))
}

fn page(snapshot: &Snapshot, exit: &Exit, identity: Option<IdentityView>, now: Moment) -> Whole {
    let bans = snapshot.bans.iter(now).filter(|(_, banned, _)| *banned == exit.id()).take(BANS);
    let bans =
        bans.map(|(site, _, until)| BanOfExit { site: site.as_str().to_owned(), until: Timestamp(until) }).collect();
    Whole { exit: ExitView::of(exit), identity, bans }
}

/// Checks an exit ahead of all others, and answers with the result.
#[utoipa::path(post, path = "/exits/{id}/check", tag = "exits",
    params(("id" = String, Path, description = "The id of the exit, or the address that sites see")),
    request_body = Option<Nothing>,
    responses((status = 200, body = CheckedNow), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn check(State(wiring): State<Wiring>, Named(id): Named, _: Nothing) -> Result<Response, ApiError> {
    let exit = find(&wiring.state.snapshot(), &id)?.id().clone();
    let untestable = || {
        let message = "this exit cannot be checked: it is leaving, condemned, or of a source without checks";
        ApiError::new(StatusCode::CONFLICT, "untestable", message)
    };
    let _permit = wiring.slow()?;
    let tested = async {
        match (exit.source(), &wiring.tester, &wiring.public_tester, &wiring.own_tester) {
            (Source::Public, _, Some(tester), _) => tester.force(exit.clone()).await,
            (Source::Tor, Some(tester), ..) | (Source::Direct, .., Some(tester)) => tester.force(exit.clone()).await,
            (Source::Upstream(_), ..) => match &wiring.upstream_tester {
                Some(tester) => tester.force(exit.clone()).await,
                None => None,
            },
            _ => None,
        }
    };
    let checked = tokio::time::timeout(CHECK_DEADLINE, tested).await.map_err(|_| {
        let message = "the check takes long and goes on; its result will be at /exits";
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "check_slow", message)
    })?;
    let Checked { verdict, why, ips, sites, .. } = checked.ok_or_else(untestable)?;
    let visited = |(site, why): (Arc<str>, Option<String>)| (site.to_string(), Visited { passed: why.is_none(), why });
    let snapshot = wiring.state.snapshot();
    let now_known = snapshot.catalog.get(&exit).map(|exit| ExitView::of(exit));
    let sites = sites.into_iter().map(visited).collect();
    Ok(Json(CheckedNow { verdict: word(verdict), why, ips, sites, exit: now_known }).into_response())
}

/// Ends the condemnation of an exit. The exit is checked before its next use, and condemned again if it still tampers.
#[utoipa::path(delete, path = "/exits/{id}/condemnation", tag = "exits",
    params(("id" = String, Path, description = "The id of the exit, or the address that sites see")),
    responses((status = 200, body = ExitView), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn pardon(State(wiring): State<Wiring>, Named(id): Named) -> Result<Response, ApiError> {
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    let exit = find(&snapshot, &id)?;
    if !exit.known().marks.bad_for_good {
        let message = "this exit is not condemned; GET /exits/{id} shows its state";
        return Err(ApiError::new(StatusCode::CONFLICT, "not_condemned", message));
    }
    let (rows, exit) = (pardon::rows(exit, now), exit.id().clone());
    let change = Change::Pardoned { exit: exit.clone(), pardon: condemnation::pardon, rows };
    wiring.state.apply(change).await.map_err(|_| ApiError::internal("the pardon could not be stored"))?;
    wiring.state.request_check(exit.clone());
    let snapshot = wiring.state.snapshot();
    let exit = snapshot.catalog.get(&exit).ok_or_else(|| ApiError::missing("the exit has left its source"))?;
    Ok(Json(ExitView::of(exit)).into_response())
}

/// Lists the countries that have exits, with their number.
#[utoipa::path(get, path = "/countries", tag = "exits",
    responses((status = 200, body = Countries), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn countries(State(wiring): State<Wiring>, headers: HeaderMap) -> Result<Response, ApiError> {
    let snapshot = wiring.state.snapshot();
    let counts = snapshot.catalog.countries().filter(|(_, count)| count.known > 0);
    let shown = |(country, count): (Country, Count)| CountryShown {
        country: country.as_str().to_owned(),
        known: count.known,
        usable: count.usable,
    };
    tagged(&headers, &Countries { countries: counts.map(shown).collect() })
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn parsed(query: &str) -> Result<ExitQuery, String> {
        let uri = format!("http://x/exits?{query}").parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).map(|query| query.0).map_err(|error| error.body_text())
    }

    #[test]
    fn filters_narrow_and_pages_join_to_the_whole() {
        let snapshot = fixture::snapshot(&["US", "US", "DE", "??", "US"]);
        let total = |query: &str| Filter::read(&parsed(query).unwrap()).unwrap().list(&snapshot).total;
        for (query, want) in [
            ("", 5),
            ("country=us", 3),
            ("country=??", 1),
            ("source=tor", 5),
            ("source=public", 0),
            ("usable=true&country=us", 2),
            ("usable=false", 1),
        ] {
            assert_eq!(total(query), want, "{query}");
        }
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = Filter::read(&parsed(&format!("limit=2{after}")).unwrap()).unwrap().list(&snapshot);
            seen.extend(page.exits.iter().map(|exit| exit.id.clone()));
            let Some(next) = page.next else { break };
            after = format!("&after={next}");
        }
        let mut all: Vec<_> = snapshot.catalog.iter().map(|exit| exit.id().to_string()).collect();
        all.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn a_wrong_filter_names_its_field() {
        for (query, field) in
            [("source=onion", "source"), ("country=usa", "country"), ("limit=0", "limit"), ("after=x", "after")]
        {
            let error = Filter::read(&parsed(query).unwrap()).err().unwrap();
            assert!(error.message().contains(field), "{}", error.message());
        }
        assert!(parsed("usable=maybe").is_err() && parsed("contry=us").is_err());
    }

    #[test]
    fn a_relay_that_the_directory_misses_is_marked_until_it_drains() {
        let mut edit = crate::exit::Catalog::default().edit();
        edit.list(crate::exit::Listing { unlisted: Some(Moment(1)), ..crate::exit::Listing::new(ExitId::Direct) });
        let catalog = edit.finish();
        assert_eq!(marks(catalog.get(&ExitId::Direct).unwrap()), ["not_listed"]);
        let mut edit = catalog.edit();
        edit.learn(&ExitId::Direct, |known| known.marks.draining = true);
        assert_eq!(marks(edit.finish().get(&ExitId::Direct).unwrap()), ["draining"]);
    }

    #[test]
    fn the_username_of_an_exit_is_one_that_the_gateway_takes() {
        let usernames = |snapshot: &Snapshot| -> Vec<Option<String>> {
            snapshot.catalog.iter().map(|exit| ExitView::of(exit).username).collect()
        };
        let public = fixture::public(&[("US", 30), ("", 0)]);
        let found = usernames(&public);
        assert!(found.contains(&Some("any-exit-198.51.100.1-source-public".to_owned())), "{found:?}");
        assert!(found.contains(&None), "the address of the second is unknown: {found:?}");
        for (snapshot, username) in
            [(&public, found.iter().flatten().next()), (&fixture::snapshot(&["US", "DE"]), None)]
        {
            let username = username.cloned().or_else(|| usernames(snapshot).into_iter().flatten().next()).unwrap();
            snapshot.routes.resolve(&username, None).unwrap_or_else(|bad| panic!("{username}: {bad}"));
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let public = PublicId { protocol: Protocol::Socks5, addr: "[2001:db8::1]:1080".parse().unwrap() };
        let relay = ExitId::Tor(crate::exit::Fingerprint([7; 20]));
        for id in [relay, ExitId::Public(Arc::new(public)), ExitId::Direct] {
            assert_eq!(read_id(&id.to_string()), Some(id));
        }
        for bad in ["", "onion", "ftp://1.2.3.4:5", "http://1.2.3.4", "us"] {
            assert_eq!(read_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_exit_is_found_by_id_or_address_and_shows_its_bans() {
        let mut snapshot = fixture::snapshot(&["US", "DE"]);
        let exit = snapshot.catalog.iter().next().unwrap().clone();
        let ip = exit.ip().unwrap().to_string();
        assert_eq!(find(&snapshot, &ip).unwrap().id(), exit.id());
        let site = crate::route::Site::of(&crate::net::Host::parse("www.shop.com").unwrap());
        snapshot.bans = snapshot.bans.with([(site, exit.id().clone(), Moment(2_000_000))]);
        let page_at = |now| json!(page(&snapshot, &exit, None, Moment(now)).bans).to_string();
        assert_eq!(page_at(1), r#"[{"site":"shop.com","until":"1970-01-01T00:00:02.000Z"}]"#);
        assert_eq!(page_at(2_000_001), "[]");
        assert_eq!(find(&snapshot, "192.0.2.99").unwrap_err().code(), "not_found");
    }
}
