//! `/bans`: which sites refuse which exits. An operator can list, make and lift bans.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::exits::{find, read_id};
use super::extract::{Body, Named, Params, bad_query, limit};
use super::timestamp::Timestamp;
use crate::admin::{BadField, HumanDuration};
use crate::exit::{ExitId, Moment};
use crate::net::Host;
use crate::route::ban::Site;
use crate::state::{Change, Refused, Snapshot};
use crate::store::{Fault, StoreError};

/// The longest `why` of a ban, in bytes. It is as long as the `outcome` of a report.
const WHY_MAX: usize = 64;

/// The query of `GET /bans`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BansQuery {
    /// Only bans of the site that this host belongs to.
    site: Option<String>,
    /// Only bans of this exit: its id, or the address that sites see.
    exit: Option<String>,
    /// The most bans in one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only bans after this one: the `next` of the answer before.
    after: Option<String>,
}

/// An exit that is not used for a site until the ban ends.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SiteBan)]
pub(super) struct BanRow {
    site: String,
    /// The id of the exit.
    exit: String,
    /// The address that sites see; null if it is not known, or if the exit is gone.
    ip: Option<String>,
    until: Timestamp,
}

/// A page of bans, by site and exit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Bans {
    /// How many bans match, also beyond this page.
    total: usize,
    bans: Vec<BanRow>,
    /// The value of `after` for the next page.
    next: Option<String>,
}

/// A ban to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBan)]
pub(super) struct BanSpec {
    /// A host of the site. The ban holds for the whole site.
    #[schema(example = "shop.example")]
    site: String,
    /// The exit, by id or by the address that sites see.
    exit: String,
    /// How long the ban lasts. Without it as long as `check.ban_for` says.
    r#for: Option<HumanDuration>,
    /// The reason, for people.
    #[schema(example = "captcha")]
    why: Option<String>,
}

/// The bans that were lifted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lifted {
    /// How many bans ended.
    lifted: usize,
}

/// Lists the bans that have not ended.
#[utoipa::path(get, path = "/bans", tag = "exits", params(BansQuery),
    responses((status = 200, body = Bans), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Params(query): Params<BansQuery>,
) -> Result<Response, ApiError> {
    tagged(&headers, &page(&wiring.state.snapshot(), &query, wiring.state.now())?)
}

/// Bans an exit for a site. If the exit is banned there already, the ban gets the new end.
#[utoipa::path(post, path = "/bans", tag = "exits", request_body = BanSpec,
    responses((status = 201, body = BanRow), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn make(State(wiring): State<Wiring>, Body(fields): Body) -> Result<Response, ApiError> {
    let BanSpec { site, exit, r#for: length, why } = read(&fields)?;
    let site = site_of(&site).map_err(|why| BadField::new("site", format!("is no host: {why}")))?;
    let snapshot = wiring.state.snapshot();
    let exit = find(&snapshot, &exit)
        .map_err(|_| BadField::new("exit", "names no known exit; GET /exits lists them"))?
        .id()
        .clone();
    let why = why.unwrap_or_else(|| "by hand".to_owned());
    if why.is_empty() || why.len() > WHY_MAX || why.chars().any(char::is_control) {
        return Err(BadField::new("why", format!("is 1 to {WHY_MAX} printable characters")).into());
    }
    let length = length.map_or_else(|| wiring.outbound.ban_for(), |HumanDuration(length)| length);
    let until = wiring.state.now().after(length);
    let change = Change::BanSet { site: site.clone(), exits: vec![exit.clone()], until: Some(until), why };
    wiring.state.apply(change).await.map_err(not_stored)?;
    let row = BanRow {
        ip: ip(&snapshot, &exit),
        site: site.as_str().to_owned(),
        exit: exit.to_string(),
        until: Timestamp(until),
    };
    Ok((StatusCode::CREATED, Json(row)).into_response())
}

/// Lifts every ban of a site.
#[utoipa::path(delete, path = "/bans/{site}", tag = "exits",
    params(("site" = String, Path, description = "A host of the site")),
    responses((status = 200, body = Lifted), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn lift_site(State(wiring): State<Wiring>, Named(site): Named) -> Result<Response, ApiError> {
    lift(&wiring, &site, None).await
}

/// Lifts the ban of one exit for a site. The exit may be used there again at once, until the site refuses it again.
#[utoipa::path(delete, path = "/bans/{site}/{exit}", tag = "exits",
    params(("site" = String, Path, description = "A host of the site"),
        ("exit" = String, Path, description = "The id of the exit, or the address that sites see")),
    responses((status = 200, body = Lifted), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn lift_one(
    State(wiring): State<Wiring>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Response, ApiError> {
    let Path((site, exit)) = path.map_err(|_| ApiError::bad("bad_path", "the path is not percent-encoded UTF-8"))?;
    lift(&wiring, &site, Some(&exit)).await
}

async fn lift(wiring: &Wiring, site: &str, exit: Option<&str>) -> Result<Response, ApiError> {
    let site = site_of(site).map_err(|why| ApiError::bad("bad_path", format!("`{site}` is no host: {why}")))?;
    let (snapshot, now) = (wiring.state.snapshot(), wiring.state.now());
    let exit = exit.map(|exit| exit_id(&snapshot, exit)).transpose()?;
    let is_meant = |banned: &ExitId| exit.as_ref().is_none_or(|exit| exit == banned);
    let held = snapshot.bans.iter(now).filter(|(of, banned, _)| **of == site && is_meant(banned));
    let exits: Vec<_> = held.map(|(_, banned, _)| banned.clone()).collect();
    let lifted = exits.len();
    if lifted == 0 {
        return Err(ApiError::missing("there is no such ban; GET /bans lists them"));
    }
    let change = Change::BanSet { site, exits, until: None, why: "lifted by hand".to_owned() };
    wiring.state.apply(change).await.map_err(not_stored)?;
    Ok(Json(Lifted { lifted }).into_response())
}

fn not_stored(refused: Refused) -> ApiError {
    if let Refused::Store(StoreError::Refused(Fault::Hung)) = refused {
        let message = "the disk of the gateway does not answer: nothing was changed. Try again when it answers";
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "disk_hangs", message);
    }
    ApiError::internal("a ban could not be stored")
}

fn site_of(host: &str) -> Result<Site, crate::net::BadTarget> {
    Host::parse(host).map(|host| Site::of(&host))
}

/// Finds an exit by its id or address. An exit that is gone may still be banned, so an unknown id is accepted.
fn exit_id(snapshot: &Snapshot, text: &str) -> Result<ExitId, ApiError> {
    read_id(text).map_or_else(|| find(snapshot, text).map(|exit| exit.id().clone()), Ok)
}

fn ip(snapshot: &Snapshot, exit: &ExitId) -> Option<String> {
    snapshot.catalog.get(exit)?.ip().map(|ip| ip.to_string())
}

/// Returns the text by which the query names a ban as the last one of a page.
fn cursor(site: &str, exit: &str) -> String {
    format!("{site} {exit}")
}

fn page(snapshot: &Snapshot, query: &BansQuery, now: Moment) -> Result<Bans, ApiError> {
    let site = query.site.as_deref().map(site_of).transpose().map_err(|why| bad_query(format!("`site`: {why}")))?;
    let exit = query.exit.as_deref().map(|exit| exit_id(snapshot, exit)).transpose()?;
    let limit = limit(query.limit)?;
    let meant = snapshot.bans.iter(now).filter(|(of, banned, _)| {
        site.as_ref().is_none_or(|site| site == *of) && exit.as_ref().is_none_or(|exit| exit == *banned)
    });
    let sorted: BTreeMap<String, (&Site, &ExitId, Moment)> =
        meant.map(|(site, exit, until)| (cursor(site.as_str(), &exit.to_string()), (site, exit, until))).collect();
    let after = query.after.as_deref().unwrap_or_default();
    let mut rest = sorted.iter().filter(|(at, _)| at.as_str() > after);
    let shown: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(shown.last()).map(|(at, _)| (*at).clone());
    let row = |(site, exit, until): &(&Site, &ExitId, Moment)| BanRow {
        site: site.as_str().to_owned(),
        exit: exit.to_string(),
        ip: ip(snapshot, exit),
        until: Timestamp(*until),
    };
    Ok(Bans { total: sorted.len(), bans: shown.into_iter().map(|(_, ban)| row(ban)).collect(), next })
}

/// Reads the body field by field, because an error must name the wrong field.
fn read(fields: &Map<String, Value>) -> Result<BanSpec, BadField> {
    for (field, value) in fields {
        let mut one =
            Map::from_iter([("site", "a"), ("exit", "a")].map(|(field, text)| (field.to_owned(), text.into())));
        one.insert(field.clone(), value.clone());
        if let Err(why) = serde_json::from_value::<BanSpec>(one.into()) {
            return Err(BadField::new(field, format!("is wrong: {why}")));
        }
    }
    for (field, what) in [("site", "a host of the site, such as \"shop.example\""), ("exit", "its id or address")] {
        if !fields.contains_key(field) {
            return Err(BadField::new(field, format!("is missing: {what}")));
        }
    }
    serde_json::from_value(Value::Object(fields.clone())).map_err(|why| BadField::new("body", why.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture;
    use super::*;

    fn snapshot() -> Snapshot {
        let mut snapshot = fixture::snapshot(&["US", "US", "DE"]);
        let ids: Vec<_> = snapshot.catalog.iter().map(|exit| exit.id().clone()).collect();
        let bans = [("b.test", 0, 9), ("a.test", 1, 9), ("a.test", 0, 9), ("c.test", 2, 3)];
        let ban = |(site, at, until): (&str, usize, u64)| (site_of(site).unwrap(), ids[at].clone(), Moment(until));
        snapshot.bans = snapshot.bans.with(bans.map(ban));
        snapshot
    }

    fn listed(query: BansQuery, now: u64) -> (usize, Vec<String>, Option<String>) {
        let Bans { total, bans, next } = page(&snapshot(), &query, Moment(now)).unwrap();
        (total, bans.iter().map(|ban| format!("{} {}", ban.site, ban.ip.as_deref().unwrap_or("-"))).collect(), next)
    }

    #[test]
    fn bans_are_listed_by_site_and_exit_until_they_end() {
        let all = ["a.test 192.0.2.1", "a.test 192.0.2.2", "b.test 192.0.2.1", "c.test -"];
        assert_eq!(listed(BansQuery::default(), 1).1, all);
        assert_eq!(listed(BansQuery::default(), 3).1, all[..3], "one has ended");
        let site = BansQuery { site: Some("www.A.test".to_owned()), ..BansQuery::default() };
        assert_eq!(listed(site, 1).1, all[..2]);
        let exit = BansQuery { exit: Some("192.0.2.1".to_owned()), ..BansQuery::default() };
        assert_eq!(listed(exit, 1).1, [all[0], all[2]]);
        let unknown = BansQuery { exit: Some("192.0.2.99".to_owned()), ..BansQuery::default() };
        assert_eq!(page(&snapshot(), &unknown, Moment(1)).unwrap_err().code(), "not_found");
        let bad = BansQuery { site: Some("a b".to_owned()), ..BansQuery::default() };
        assert_eq!(page(&snapshot(), &bad, Moment(1)).unwrap_err().code(), "bad_query");
    }

    #[test]
    fn pages_join_to_the_whole() {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (total, mut bans, next) = listed(BansQuery { limit: Some(3), after, ..BansQuery::default() }, 1);
            assert_eq!(total, 4);
            all.append(&mut bans);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all, listed(BansQuery::default(), 1).1);
    }

    #[test]
    fn a_ban_is_read_and_an_error_names_the_field() {
        let spec = |body: Value| read(body.as_object().unwrap()).map_err(|bad| bad.field);
        let good = spec(json!({"site": "a.test", "exit": "192.0.2.1", "for": "2h", "why": "captcha"})).unwrap();
        assert_eq!(good.r#for, Some(HumanDuration(std::time::Duration::from_secs(7200))));
        for (body, field) in [
            (json!({"exit": "192.0.2.1"}), "site"),
            (json!({"site": "a.test"}), "exit"),
            (json!({"site": 7, "exit": "x"}), "site"),
            (json!({"site": "a.test", "exit": "x", "for": "long"}), "for"),
            (json!({"site": "a.test", "exit": "x", "until": "2h"}), "until"),
        ] {
            assert_eq!(spec(body.clone()).unwrap_err(), field, "{body}");
        }
    }
}
