//! The gateway of a provider as a source: one host and port, where the username names a session. A session is an exit.
//!
//! The worker of this source keeps as many sessions as pools want, in the countries that routes and requests want. It
//! ends a session when its time is over, when the provider moved it to another address, or when it is of no use. A
//! session that ended drains: open connections finish, and a pin to it gets an error instead of another address.
//!
//! The name of a session is part of the id of its exit. So after a restart the worker continues the same sessions.
//!
//! If the provider refuses the account (wrong login, nothing left to spend), this counts against no exit. `/sources`, an
//! event and the log say it, and the sessions count as down, so other sources of a route serve. After a minute the
//! sessions count as up again, and a check tries the account.
//!
//! Next: `upstream/plan.rs` (which sessions), `upstream/demand.rs` (how many), `upstream/template.rs` (usernames).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;

use super::demand;
use super::plan::{Place, Plan, Seen, Session, Terms};
use super::template::{Values, fill};
use super::{BadUpstream, connector, count};
use crate::config::{Upstream, UpstreamGateway};
use crate::exit::country::Country;
use crate::exit::facts::Flags;
use crate::exit::{
    Account, AccountFault, AccountRef, Exit, ExitId, Listing, Login, Moment, ProxyTls, Source, UpstreamId,
    UpstreamProxy, Verdict,
};
use crate::lifecycle::Tasks;
use crate::net::Secret;
use crate::source::handle::{Handle, report};
use crate::state::{Change, State};
use crate::store::{self, Store, Write};

/// The time between two looks at what is wanted. A waiting request waits this long for its session.
const LOOK: Duration = Duration::from_millis(500);

/// The time between two tries while the provider refuses the account.
const RETRY: Duration = Duration::from_secs(60);

/// Starts the worker of one gateway source.
pub(super) fn start(
    config: &Upstream,
    gateway: &UpstreamGateway,
    state: State,
    store: Option<Store>,
    known: Option<store::Source>,
    tasks: &Tasks,
) -> Result<Handle, BadUpstream> {
    let name = config.name.as_str();
    let tls = connector(config).map_err(|why| BadUpstream { name, why })?;
    let (handle, status) = Handle::new(name, known.map(|known| store::Source { next: None, ..known }));
    let terms = Terms { most: gateway.sessions, lasts: gateway.session_time };
    let kept = kept(&state, config);
    config.name.set_makes_exits(true);
    let worker = Worker {
        config: config.clone(),
        gateway: gateway.clone(),
        tls,
        account: AccountRef(Arc::new(Account::default())),
        plan: Plan::new(terms, kept),
        state,
        store,
        status,
        listed: None,
        fault: None,
        refused_until: None,
    };
    let worker = Arc::new(tokio::sync::Mutex::new(worker));
    let stopping = tasks.clone();
    tasks.supervise("gateway source", move || {
        let (worker, stopping) = (worker.clone(), stopping.clone());
        async move {
            let mut worker = worker.lock().await;
            tokio::select! {
                () = stopping.stopping() => {}
                () = worker.run() => {}
            }
        }
    });
    Ok(handle)
}

/// Returns the sessions of the last run, which the catalog knows.
fn kept(state: &State, config: &Upstream) -> Vec<Session> {
    let (snapshot, now) = (state.snapshot(), state.now());
    let ids = snapshot.catalog.iter().filter_map(|exit| match exit.id() {
        ExitId::Upstream(id) if id.source == config.name && !exit.known().marks.draining => Some(id.clone()),
        _ => None,
    });
    ids.filter_map(|id| session(&id.key, now)).collect()
}

/// Returns the session of an exit. The key of the exit is the country and the name of the session: `us-12345678`.
fn session(key: &str, begun: Moment) -> Option<Session> {
    let (place, name) = key.split_once('-')?;
    let place = if place == "any" { None } else { Some(Country::parse(place)?) };
    let is_name = name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then(|| Session { place, name: name.to_owned(), begun })
}

/// Returns the key of the exit of a session.
fn key(place: Place, name: &str) -> Box<str> {
    let place = place.map_or("any".to_owned(), |country| country.to_string().to_ascii_lowercase());
    format!("{place}-{name}").into()
}

/// Returns a name for a new session. All providers accept eight digits, and some accept nothing else.
fn new_name() -> String {
    rand::rng().random_range(10_000_000..100_000_000_u32).to_string()
}

struct Worker {
    config: Upstream,
    gateway: UpstreamGateway,
    tls: ProxyTls,
    /// What the provider says of the account. Dials write it.
    account: AccountRef,
    plan: Plan,
    state: State,
    store: Option<Store>,
    status: watch::Sender<store::Source>,
    /// The sessions that the catalog has, and true if they count as up. `None` before the first change.
    listed: Option<(Vec<Session>, bool)>,
    /// Why the provider refused the account. `None` if it served the last request.
    fault: Option<AccountFault>,
    /// The time of the next try while the provider refuses the account.
    refused_until: Option<Moment>,
}

impl Worker {
    async fn run(&mut self) {
        loop {
            self.step().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn step(&mut self) {
        let (snapshot, now) = (self.state.snapshot(), self.state.now());
        let (source, name) = (Source::Upstream(self.config.name), self.config.name);
        let wanted = demand::wanted(source, &snapshot, self.state.memory(), &name.asked(now), now);
        let wanted: BTreeMap<_, _> = wanted.into_iter().filter(|(place, _)| self.serves(*place)).collect();
        let is_try = self.note_account(now);
        let is_up = self.refused_until.is_none();
        let exit_of = |session: &Session| {
            let key = key(session.place, &session.name);
            snapshot.catalog.get(&ExitId::Upstream(Arc::new(UpstreamId { source: name, key })))
        };
        let seen = |session: &Session| exit_of(session).map_or(Seen::Fine, |exit| seen(session.place, exit));
        let ended = self.plan.step(&wanted, seen, is_up, now, new_name);
        for (session, end) in &ended {
            let exit = format!("{}:{}", name.as_str(), key(session.place, &session.name));
            tracing::info!(exit, why = end.as_str(), "a session of a provider has ended");
        }
        // The provider may have moved sessions while this process did not run, so the first step checks all of them.
        let is_first = self.listed.is_none();
        let known = self.plan.sessions().iter().filter_map(exit_of);
        let due = known.filter(|exit| is_first || self.is_check_due(exit, now));
        let mut checks: Vec<_> = due.map(|exit| exit.id().clone()).collect();
        let first = self.plan.sessions().first().filter(|_| is_try).and_then(exit_of);
        checks.extend(first.map(|exit| exit.id().clone()));
        drop(snapshot);
        self.list(is_up).await;
        checks.into_iter().for_each(|exit| self.state.request_check(exit));
        self.publish(now);
    }

    /// Reads what the last requests showed of the account. Returns true if the account must be tried again now.
    fn note_account(&mut self, now: Moment) -> bool {
        match self.account.0.take() {
            Some(Ok(())) => (self.fault, self.refused_until) = (None, None),
            Some(Err(fault)) => (self.fault, self.refused_until) = (Some(fault), Some(now.after(RETRY))),
            None => {}
        }
        let is_over = self.refused_until.is_some_and(|until| now >= until);
        if is_over {
            self.refused_until = None;
        }
        // While the account is refused, a request that finds no exit is refused immediately and does not wait.
        self.config.name.set_makes_exits(self.refused_until.is_none());
        is_over
    }

    /// Returns true if the username can say this place. A template without a country serves any country.
    fn serves(&self, place: Place) -> bool {
        place.is_none() || self.gateway.has_country()
    }

    /// Returns true if a session in use must be checked now, because only a check shows that the provider has moved it.
    fn is_check_due(&self, exit: &Exit, now: Moment) -> bool {
        let every = self.gateway.check_every;
        let is_used = exit.load().carried_within(every, now);
        is_used && exit.known().checked.is_some_and(|at| now.since(at) >= every)
    }

    /// Makes the sessions the exits of this source, if they have changed.
    async fn list(&mut self, is_up: bool) {
        let is_same = self.listed.as_ref().is_some_and(|(all, up)| all == self.plan.sessions() && *up == is_up);
        let source = Source::Upstream(self.config.name);
        let catalog = self.state.snapshot();
        // An ended session is removed when it carries no connection any more. A condemned one is remembered.
        let has_draining = catalog.catalog.iter().filter(|exit| exit.id().source() == source).any(|exit| {
            let marks = exit.known().marks;
            marks.draining && !marks.bad_for_good && exit.load().in_flight() == 0
        });
        if is_same && !has_draining {
            return;
        }
        drop(catalog);
        let listings = self.plan.sessions().iter().map(|session| self.listing(session, is_up)).collect();
        match self.state.apply(Change::Listed(source, listings)).await {
            Ok(()) => self.listed = Some((self.plan.sessions().to_vec(), is_up)),
            Err(error) => tracing::error!(%error, source = source.as_str(), "sessions could not be listed"),
        }
    }

    fn listing(&self, session: &Session, is_up: bool) -> Listing {
        let minutes = self.gateway.session_time.as_secs().div_ceil(60);
        let (user, password) = (self.gateway.user.expose(), self.gateway.password.expose());
        let values = Values { user, password, country: session.place, session: &session.name, minutes };
        let login = Login {
            user: fill(&self.gateway.username, values).into(),
            password: Secret::new(fill(&self.gateway.password_template, values)),
        };
        let proxy = UpstreamProxy {
            protocol: self.gateway.protocol,
            at: self.gateway.at.clone(),
            tls: self.gateway.tls.then(|| self.tls.clone()),
            login: Some(login),
            allow_private: self.config.allow_private,
            account: Some(self.account.clone()),
        };
        let id = UpstreamId { source: self.config.name, key: key(session.place, &session.name) };
        Listing {
            nickname: self.gateway.at.to_string().into(),
            country: session.place.unwrap_or(Country::UNKNOWN),
            flags: Flags { running: is_up, ..Flags::default() },
            upstream: Some(Arc::new(proxy)),
            ..Listing::new(ExitId::Upstream(Arc::new(id)))
        }
    }

    /// Publishes the status of the source if it has changed. A change of the status is an event of `/events` too.
    fn publish(&mut self, now: Moment) {
        let before = self.status.borrow().clone();
        let records = count(self.plan.sessions().len());
        let (outcome, why) = self.fault.map_or(("fresh", String::new()), |fault| (fault.as_str(), fault.to_string()));
        if before.outcome == outcome && before.records == records && before.good.is_some() {
            return;
        }
        let is_good = self.fault.is_none();
        let status = store::Source {
            attempt: Some(now),
            good: if is_good { Some(now) } else { before.good },
            failures: if is_good { 0 } else { before.failures + u32::from(before.outcome != outcome) },
            outcome: outcome.to_owned(),
            why,
            records,
            skipped: 0,
            ..before.clone()
        };
        report(&before, &status);
        if let Some(store) = &self.store {
            store.note(Write::PutSource(status.clone()));
        }
        self.status.send_replace(status);
    }
}

/// Returns what is known of the exit of a session that was ordered for this place.
fn seen(place: Place, exit: &Exit) -> Seen {
    let known = exit.known();
    let country = exit.country();
    let is_elsewhere = place.is_some_and(|place| !known.observed.is_empty() && country.is_known() && country != place);
    if known.marks.several_ips {
        Seen::Moved
    } else if is_elsewhere {
        Seen::WrongCountry
    } else if known.verdict == Verdict::Bad {
        Seen::Bad
    } else {
        Seen::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_from_the_key_of_its_exit() {
        let us = Country::parse("US");
        for (place, text) in [(us, "us-12345678"), (None, "any-87654321")] {
            let read = session(text, Moment(7)).unwrap();
            assert_eq!((read.place, read.begun, &*key(read.place, &read.name)), (place, Moment(7), text));
        }
        for bad in ["us", "us-1", "usa-12345678", "us-1234567a", "9f2c31ab44d0e1f2"] {
            assert_eq!(session(bad, Moment(7)), None, "{bad}");
        }
        let names: std::collections::BTreeSet<_> = (0..100).map(|_| new_name()).collect();
        assert!(names.len() > 95 && names.iter().all(|name| name.len() == 8));
    }
}
