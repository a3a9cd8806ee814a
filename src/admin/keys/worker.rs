//! The worker that stores what keys use, ends tunnels of keys whose budget is used up, and reports budgets.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use super::{KeyAdmin, KeyChange, KeyEvent};
use crate::exit::Moment;
use crate::gateway::protocol::Protocol;
use crate::lifecycle::Tasks;
use crate::limit::keys::KeyState;
use crate::limit::{Level, Limits, Period, Usage, Used};
use crate::store::{KeyUsage, UsagePeriod, Write};
use crate::telemetry::metrics as names;

/// The time between two rounds. The store writes notes within a quarter of a second, so a process that is killed loses
/// less than one second of the counts.
const TICK: Duration = Duration::from_millis(500);

/// What the worker remembers between two rounds.
pub(super) struct Saved {
    /// The stored use of keys that were removed from the configuration, by the name of the key. A reload of the
    /// configuration may bring such a key back.
    unclaimed: HashMap<String, Vec<KeyUsage>>,
    /// The keys of the API whose expiry was reported.
    expired: BTreeSet<Arc<str>>,
}

impl Saved {
    pub(super) fn new(unclaimed: Vec<KeyUsage>) -> Self {
        let mut by_key: HashMap<String, Vec<KeyUsage>> = HashMap::new();
        for usage in unclaimed.into_iter().filter(|usage| usage.created == Moment(0)) {
            by_key.entry(usage.key.clone()).or_default().push(usage);
        }
        Self { unclaimed: by_key, expired: BTreeSet::new() }
    }
}

/// Adds to each key what the key used before this process started. Returns the stored use of keys that do not exist
/// now.
pub fn restore_usage(limits: &Limits, stored: Vec<KeyUsage>) -> Vec<KeyUsage> {
    let (keys, now) = (limits.keys(), SystemTime::now().into());
    let by_name: HashMap<(&str, Moment), &Arc<KeyState>> =
        keys.iter().map(|key| ((&*key.name, key.created.unwrap_or_default()), key)).collect();
    stored
        .into_iter()
        .filter(|usage| match by_name.get(&(usage.key.as_str(), usage.created)) {
            Some(key) => {
                restore(key, usage, now);
                false
            }
            None => true,
        })
        .collect()
}

fn restore(key: &KeyState, usage: &KeyUsage, now: Moment) {
    let period = |[present, before]: [UsagePeriod; 2]| Period {
        index: present.index,
        used: Used { requests: present.requests, bytes: present.bytes },
        before_index: before.index,
        before: Used { requests: before.requests, bytes: before.bytes },
    };
    let source = Some(usage.source.as_str()).filter(|source| !source.is_empty());
    key.account.restore(source, period(usage.days), period(usage.months), now);
}

fn row(key: &KeyState, usage: &Usage) -> KeyUsage {
    let periods = |period: &Period| {
        let of = |index, used: Used| UsagePeriod { index, requests: used.requests, bytes: used.bytes };
        [of(period.index, period.used), of(period.before_index, period.before)]
    };
    KeyUsage {
        key: key.name.to_string(),
        created: key.created.unwrap_or_default(),
        source: usage.source.as_deref().unwrap_or_default().to_owned(),
        days: periods(&usage.ledger.day),
        months: periods(&usage.ledger.month),
    }
}

/// Does a round twice a second until the gateway stops.
pub(super) async fn run(admin: KeyAdmin, tasks: Tasks) {
    let mut tick = tokio::time::interval(TICK);
    while !tasks.is_stopping() {
        tokio::select! {
            () = tasks.stopping() => {}
            _ = tick.tick() => round(&admin),
        }
    }
}

fn round(admin: &KeyAdmin) {
    let keys = admin.0.parts.limits.keys();
    claim(admin, &keys);
    for key in &keys {
        for crossing in key.account.settle(SystemTime::now().into()) {
            report(admin, key, crossing.source, crossing.level);
        }
    }
    report_expired(admin, &keys);
    store(admin, &keys);
    end_tunnels(admin, &keys);
    set_gauges(&keys);
}

/// Stores twice a second what keys have used. Never returns.
pub(super) async fn keep_saving(admin: &KeyAdmin) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        save(admin);
    }
}

/// Stores what keys have used until now.
pub(super) fn save(admin: &KeyAdmin) {
    let keys = admin.0.parts.limits.keys();
    store(admin, &keys);
}

/// Restores what a key of the configuration used before, after a reload has added the key.
fn claim(admin: &KeyAdmin, keys: &[Arc<KeyState>]) {
    let mut saved = admin.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
    if saved.unclaimed.is_empty() {
        return;
    }
    for key in keys.iter().filter(|key| key.created.is_none()) {
        for usage in saved.unclaimed.remove(&*key.name).into_iter().flatten() {
            restore(key, &usage, SystemTime::now().into());
        }
    }
}

fn store(admin: &KeyAdmin, keys: &[Arc<KeyState>]) {
    let store = &admin.0.parts.store;
    // The counts stay marked as not stored, and the next round tries again. While the disk fails, the writer would keep
    // all rows of all rounds in memory.
    if !store.has_room() || store.is_failing() {
        return;
    }
    let now = SystemTime::now().into();
    let unsaved = |key: &Arc<KeyState>| {
        let usage = key.account.take_unsaved(now);
        usage.iter().map(|usage| row(key, usage)).collect::<Vec<_>>()
    };
    let rows: Vec<_> = keys.iter().flat_map(unsaved).collect();
    if !rows.is_empty() {
        store.note(Write::PutKeyUsage(rows));
    }
}

fn report(admin: &KeyAdmin, key: &KeyState, source: Option<Arc<str>>, level: Level) {
    let of = source.as_deref().unwrap_or("all");
    match level {
        Level::Fine => tracing::info!(key = %key.name, source = of, "a budget of a key can be used again"),
        Level::Near => tracing::warn!(key = %key.name, source = of, "80 % of a budget of a key are used"),
        Level::Spent => tracing::warn!(key = %key.name, source = of, "a budget of a key is used up"),
    }
    let what = KeyChange::Budget { source, level };
    let _ = admin.0.events.send(KeyEvent { key: key.name.clone(), what }); // fails if nobody listens
}

fn report_expired(admin: &KeyAdmin, keys: &[Arc<KeyState>]) {
    let now = std::time::Instant::now();
    let mut saved = admin.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
    let expired: BTreeSet<_> = keys.iter().filter(|key| key.is_expired(now)).map(|key| key.name.clone()).collect();
    for key in expired.difference(&saved.expired) {
        tracing::info!(%key, "a key has expired");
        let _ = admin.0.events.send(KeyEvent { key: key.clone(), what: KeyChange::Expired }); // as above
    }
    saved.expired = expired;
}

/// Cuts tunnels of keys whose budget of bytes is used up. A tunnel that moves bytes ends by itself. A silent tunnel would
/// stay open until its next byte.
fn end_tunnels(admin: &KeyAdmin, keys: &[Arc<KeyState>]) {
    let spent = keys.iter().filter(|key| key.open_connections() > 0 && key.account.any_bytes_spent());
    let spent: HashMap<&str, &Arc<KeyState>> = spent.map(|key| (&*key.name, key)).collect();
    if spent.is_empty() {
        return;
    }
    for connection in admin.0.parts.connections.list() {
        let state = connection.state();
        let Some(key) = state.key.as_deref().and_then(|key| spent.get(key)) else { continue };
        let Some(served) = state.served_by.filter(|_| state.streaming) else { continue };
        let is_tunnel = state.protocol != Some(Protocol::Http);
        if is_tunnel && key.account.is_out_of_bytes(served.exit.source().as_str()) {
            connection.cut();
        }
    }
}

fn set_gauges(keys: &[Arc<KeyState>]) {
    let count = |is: &dyn Fn(&KeyState) -> bool| keys.iter().filter(|key| is(key)).count() as f64;
    for (origin, api) in [("config", false), ("api", true)] {
        metrics::gauge!(names::KEYS, "origin" => origin).set(count(&|key| key.created.is_some() == api));
    }
    for level in [Level::Near, Level::Spent] {
        metrics::gauge!(names::KEY_BUDGETS, "state" => level.as_str()).set(count(&|key| key.account.level() == level));
    }
}
