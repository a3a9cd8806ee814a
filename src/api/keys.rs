//! `/keys`: the keys of clients, with their limits and with what they have used.
//!
//! The handlers translate between HTTP and [`crate::admin::keys`], which validates, creates, changes and deletes keys. A
//! secret is in one answer only: the answer to the request that created the key.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Wiring;
use super::error::{ApiError, Problem};
use super::etag::tagged;
use super::extract::{self, Body, Named, Params};
use super::timestamp::Timestamp;
use crate::admin::keys::{BudgetSpec, ByteCount, CreatedKey, KeyError, KeySpec, LimitsSpec};
use crate::exit::Moment;
use crate::limit::keys::KeyState;
use crate::limit::{Amounts, Budget, Level, Usage, Used};

/// A key of clients. Its secret is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Key {
    name: String,
    /// Where the key was created. A key of the configuration is changed there, and not by this API.
    origin: KeyOrigin,
    /// True if the time of the key is over.
    expired: bool,
    /// Null for a key of the configuration.
    created: Option<Timestamp>,
    /// Null if the key does not expire.
    expires: Option<Timestamp>,
    /// The routes that the key may use; null: all, and usernames without a route.
    routes: Option<Vec<String>>,
    /// The sources that the key may use; null: all.
    sources: Option<Vec<String>>,
    limits: LimitsSpec,
    open_connections: u32,
    /// What was used of all sources together, and its budget.
    usage: KeyUsage,
    /// The same for each source that the key has used, or for which it has a budget.
    source_usage: Vec<SourceUsage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum KeyOrigin {
    Config,
    Api,
}

/// What was used in the present day and month, and the budget.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyUsage {
    budget: BudgetSpec,
    /// `fine`, `near` (80 % of a limit are used) or `spent` (a limit is used up).
    #[schema(example = "fine")]
    level: &'static str,
    /// The present day in UTC.
    day: UsedInPeriod,
    /// The present month in UTC.
    month: UsedInPeriod,
}

/// What was used in a period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsedInPeriod {
    requests: u64,
    /// Bytes of both directions together.
    bytes: u64,
    /// When the next period begins, with nothing used.
    resets: Timestamp,
}

/// What was used of one source.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourceUsage {
    #[schema(example = "tor")]
    source: String,
    #[serde(flatten)]
    usage: KeyUsage,
}

/// A page of keys, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Keys {
    /// How many there are, also beyond this page.
    total: usize,
    keys: Vec<Key>,
    /// The value of `after` for the next page.
    next: Option<String>,
}

/// A created key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewKeyAnswer {
    /// The secret, which clients send as their password. It is shown only here. Null if the key existed already.
    #[schema(example = "xg_abcdefghijkmnpqrstuvwxyz23456789")]
    secret: Option<String>,
    #[serde(flatten)]
    key: Key,
}

/// A deleted key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeletedKey {
    name: String,
    #[schema(example = "deleted")]
    state: &'static str,
}

/// The query of `GET /keys`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeyPage {
    /// The most keys in one answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only keys after this name: the `next` of the answer before.
    after: Option<String>,
}

/// The query of `DELETE /keys/{name}`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Delete {
    /// End the open connections of the key too.
    cut: Option<bool>,
    /// Delete the last key as well: after that, the gateway needs no key.
    open: Option<bool>,
}

impl Key {
    fn of(key: &Arc<KeyState>) -> Self {
        let usage = key.account.usage(Moment::from(SystemTime::now()));
        let (all, sources): (Vec<_>, Vec<_>) = usage.into_iter().partition(|usage| usage.source.is_none());
        let list = |names: &Option<Box<[Box<str>]>>| {
            names.as_ref().map(|names| names.iter().map(|name| name.to_string()).collect())
        };
        let Amounts { connections, per_second, bytes_per_second } = key.amounts();
        let of_source = |usage: Usage| SourceUsage {
            source: usage.source.as_deref().unwrap_or_default().to_owned(),
            usage: KeyUsage::of(&usage),
        };
        Self {
            name: key.name.to_string(),
            origin: if key.created.is_some() { KeyOrigin::Api } else { KeyOrigin::Config },
            expired: key.is_expired(Instant::now()),
            created: key.created.map(Timestamp),
            expires: key.expires().map(Timestamp),
            routes: list(&key.rights().routes),
            sources: list(&key.rights().sources),
            limits: LimitsSpec { connections, per_second, bytes_per_second: bytes_per_second.map(ByteCount) },
            open_connections: key.open_connections(),
            usage: all.first().map(KeyUsage::of).unwrap_or_else(|| KeyUsage::of(&Usage::default())),
            source_usage: sources.into_iter().map(of_source).collect(),
        }
    }
}

impl KeyUsage {
    fn of(usage: &Usage) -> Self {
        let ledger = &usage.ledger;
        let Budget { requests_per_day, requests_per_month, bytes_per_day, bytes_per_month } = ledger.budget;
        let in_period =
            |Used { requests, bytes }: Used, resets| UsedInPeriod { requests, bytes, resets: Timestamp(resets) };
        let (bytes_per_day, bytes_per_month) = (bytes_per_day.map(ByteCount), bytes_per_month.map(ByteCount));
        Self {
            budget: BudgetSpec { requests_per_day, requests_per_month, bytes_per_day, bytes_per_month },
            level: Level::as_str(ledger.level()),
            day: in_period(ledger.day.used, ledger.day_ends()),
            month: in_period(ledger.month.used, ledger.month_ends()),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let (status, code, details) = match &error {
            KeyError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found", json!({})),
            KeyError::ReadOnly(_) => (StatusCode::CONFLICT, "read_only", json!({})),
            KeyError::NameOfConfig(_) | KeyError::NameTaken(_) => {
                (StatusCode::CONFLICT, "name_taken", json!({ "field": "name" }))
            }
            KeyError::LastKey(_) => (StatusCode::CONFLICT, "last_key", json!({})),
            KeyError::BadField(bad) => return bad.clone().into(),
            KeyError::DiskHangs => (StatusCode::SERVICE_UNAVAILABLE, "disk_hangs", json!({})),
            KeyError::Internal => return Self::internal("a request about a key failed"),
        };
        Self::new(status, code, error.to_string()).with(details)
    }
}

/// Keys, by name, with what they have used.
#[utoipa::path(get, path = "/keys", tag = "keys", params(KeyPage),
    responses((status = 200, body = Keys), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn list(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Params(KeyPage { limit, after }): Params<KeyPage>,
) -> Result<Response, ApiError> {
    let limit = extract::limit(limit)?;
    let all = wiring.keys.list();
    let from = all.partition_point(|key| after.as_deref().is_some_and(|after| *key.name <= *after));
    let keys: Vec<_> = all[from..].iter().take(limit).map(Key::of).collect();
    let more = from + keys.len() < all.len();
    let next = keys.last().filter(|_| more).map(|key| key.name.clone());
    tagged(&headers, &Keys { total: all.len(), keys, next })
}

/// Creates a key. Its secret is in this answer only. The same name and body again change nothing, and show no secret. From
/// the first key on, every client needs a key, as with keys in the configuration.
#[utoipa::path(post, path = "/keys", tag = "keys", request_body = KeySpec,
    responses((status = 201, body = NewKeyAnswer, headers(("Location" = String, description = "The URL of the key"))),
        (status = 200, body = NewKeyAnswer, description = "The key existed already, created from an equal body"),
        (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn create(State(wiring): State<Wiring>, Body(fields): Body) -> Result<Response, ApiError> {
    let CreatedKey { name, secret } = wiring.keys.create(KeySpec::read(&fields)?).await?;
    let key = Key::of(&wiring.keys.one(&name)?);
    let status = if secret.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    let headers = [(header::LOCATION, format!("/keys/{name}")), (header::CACHE_CONTROL, "no-store".to_owned())];
    let secret = secret.map(|secret| secret.expose().to_owned());
    Ok((status, headers, Json(NewKeyAnswer { secret, key })).into_response())
}

/// One key, with what it has used.
#[utoipa::path(get, path = "/keys/{name}", tag = "keys", params(("name" = String, Path, description = "The key's name")),
    responses((status = 200, body = Key), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn one(
    State(wiring): State<Wiring>,
    headers: HeaderMap,
    Named(name): Named,
) -> Result<Response, ApiError> {
    tagged(&headers, &Key::of(&wiring.keys.one(&name)?))
}

/// Changes a key by a JSON merge patch of the body that created it: `null` removes a field. The secret and what was used
/// stay, and so do open connections.
#[utoipa::path(patch, path = "/keys/{name}", tag = "keys", params(("name" = String, Path, description = "The key's name")),
    request_body = KeySpec,
    responses((status = 200, body = Key), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn change(
    State(wiring): State<Wiring>,
    Named(name): Named,
    Body(patch): Body,
) -> Result<Response, ApiError> {
    wiring.keys.change(&name, patch).await?;
    Ok(Json(Key::of(&wiring.keys.one(&name)?)).into_response())
}

/// Deletes a key. The next connection with its secret is refused. Open connections may finish, unless `cut`.
#[utoipa::path(delete, path = "/keys/{name}", tag = "keys",
    params(("name" = String, Path, description = "The key's name"), Delete),
    responses((status = 200, body = DeletedKey), (status = "default", description = "A refusal", body = Problem)))]
pub(super) async fn delete(
    State(wiring): State<Wiring>,
    Named(name): Named,
    Params(Delete { cut, open }): Params<Delete>,
) -> Result<Response, ApiError> {
    wiring.keys.delete(&name, cut.unwrap_or(false), open.unwrap_or(false)).await?;
    Ok(Json(DeletedKey { name, state: "deleted" }).into_response())
}
