//! The entry of an engine: the guard or bridge where all its circuits begin. This module records whether the entry
//! answers, acts while the entry is silent, and replaces the entry with another guard.
//!
//! The rules are in pure modules: `tor/engine/first_hop.rs` (is the first hop silent?), `tor/liveness.rs` (whose fault is
//! that?), `tor/guard.rs` (which guard is next?) and `tor/engine/session/recovery.rs` (when must tor connect anew?).

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::recovery::{Silence, Step, sleep_between};
use super::{Session, Source};
use crate::exit::Fingerprint;
use crate::tor::engine::EngineState;
use crate::tor::engine::first_hop::{FirstHop, Hop};
use crate::tor::engine::guarding::Chosen;
use crate::tor::event::{OrConn, OrStatus};
use crate::tor::fault::{LeaseFault, StreamFault};
use crate::tor::liveness::{Decision, GuardSilence};
use crate::tor::path::Entry;
use crate::tor::shared_state::Alert;

/// On a busy machine, a tick may come late by up to this time. Only a longer delay is taken as a sign that the machine
/// slept.
const LEAST_SLEEP: Duration = Duration::from_secs(3);

impl Session<'_> {
    pub(super) fn entry(&self) -> Option<Entry> {
        self.engine.circuits().entry
    }

    pub(super) fn is_entry(&self, relay: Fingerprint) -> bool {
        self.entry().is_some_and(|entry| entry.id() == relay)
    }

    /// Records that the entry (the guard or bridge) answered.
    pub(super) fn hear(&mut self) {
        let now = Instant::now();
        let was_proven = {
            let mut liveness = self.engine.shared.liveness();
            let was_proven = liveness.is_proven();
            liveness.heard(self.engine.id, true, now);
            if matches!(self.hop.state(), Hop::Doubted | Hop::Silent(_)) {
                liveness.recovered(self.engine.id, now);
            }
            was_proven
        };
        self.recovery.heard();
        if !self.hop.answered(now) {
            return;
        }
        if let Some(Entry::Guard(guard)) = self.entry() {
            self.engine.guard().note_success(guard, SystemTime::now(), &mut rand::rng());
        }
        self.forget_silence();
        self.engine.set_silent(false);
        if !was_proven {
            self.engine.shared.alert(Alert::NetworkReached { engine: self.engine.id });
        }
        self.show_health();
    }

    fn forget_silence(&mut self) {
        (self.silent_since, self.outage, self.withdrawn, self.reachable) = (None, false, false, false);
    }

    /// Records that a guard other than the entry answered a test.
    pub(super) fn heard_another(&mut self, guard: Fingerprint) {
        let shared = &self.engine.shared;
        let was_proven = shared.liveness().is_proven();
        shared.liveness().heard(self.engine.id, false, Instant::now());
        let mut state = self.engine.guard();
        state.note_success(guard, SystemTime::now(), &mut rand::rng());
        // Before this answer, no relay answered any engine, so the network was down. Failures of guards since the entry
        // fell silent are therefore withdrawn, and these guards are tried again first. This happens once in each
        // silence.
        if let Some(since) = self.silent_since.filter(|_| !was_proven && !self.withdrawn) {
            state.withdraw(SystemTime::now() - since.elapsed());
            self.withdrawn = true;
        }
    }

    /// Records that a question to the entry, which was sent at the time `sent`, got no answer in time.
    pub(super) fn miss(&mut self, source: Source, sent: Instant) {
        if self.hop.unanswered(source, sent) {
            self.fall_silent();
        }
    }

    /// Called when the entry is found to be silent. Dials and requests for circuits get an error and try other engines.
    fn fall_silent(&mut self) {
        let now = Instant::now();
        if let Hop::Silent(since) = self.hop.state() {
            self.silent_since.get_or_insert(since);
        }
        self.hop.restart(now); // only answers after this moment can show that the network works
        self.engine.set_silent(true);
        let all = self.engine.shared.liveness().silent(self.engine.id, now);
        self.engine.streams().all_unanswered(StreamFault::FirstHop);
        self.engine.act(|circuits, _| circuits.pool.refuse_all(LeaseFault::FirstHop));
        tracing::info!(engine = self.engine.id.0, "the guard does not answer");
        if all {
            tracing::warn!(
                "no guard of the Tor network answers: check this machine's network. Nothing is held against exits \
                 and guards until one answers"
            );
            self.engine.shared.alert(Alert::NetworkLost);
        }
        self.show_health();
    }

    pub(super) async fn on_conn(&mut self, conn: &OrConn) {
        let Some(relay) = conn.relay else { return };
        match conn.status {
            OrStatus::Connected if self.is_entry(relay) => self.hear(),
            OrStatus::Failed if conn.was_answered() => {
                self.engine.guard().note_failure(relay, SystemTime::now());
                if self.is_entry(relay) {
                    if self.hop.refused(Instant::now()) {
                        self.fall_silent();
                    }
                    self.find_entry().await;
                }
            }
            OrStatus::Failed if self.is_entry(relay) => self.miss(Source::Connection, Instant::now()),
            _ => {}
        }
    }

    /// Chooses the guard, lets new paths begin there, and sets tor's option EntryNodes to this guard.
    pub(super) async fn find_entry(&mut self) {
        if self.live.bridges {
            if let Some(entry) = self.engine.bridge(&self.live).await {
                self.enter(entry);
            }
            return;
        }
        self.engine.adopt_guard(&self.live).await;
        match self.engine.choose_guard(&self.limits()) {
            Chosen::Use(guard) => self.use_guard(guard).await,
            Chosen::Try { guard, current } => {
                if self.entry().is_none() {
                    self.use_guard(current).await;
                }
                self.try_guard(guard);
            }
            Chosen::None => {}
        }
    }

    async fn use_guard(&mut self, guard: Fingerprint) {
        if self.told != Some(guard) {
            self.tell(guard).await;
        }
        self.enter(Entry::Guard(guard));
    }

    /// Lets new paths begin at this entry.
    fn enter(&mut self, entry: Entry) {
        let was = self.entry();
        if was == Some(entry) {
            return;
        }
        self.engine.enter_at(entry);
        self.hop = FirstHop::default();
        self.recovery.heard();
        self.forget_silence();
        if let Some(was) = was.filter(|_| self.engine.is_silent()) {
            self.engine.shared.avoid(was.id()); // the old guard hangs, so no engine may use it as a middle relay
            let hung = self.engine.act(|circuits, now| circuits.pool.hang_through(was.id(), now));
            hung.into_iter().for_each(|circuit| self.engine.streams().unanswered(circuit, StreamFault::FirstHop));
        }
        self.engine.set_silent(false);
        let answered = self.engine.guard().is_up(entry.id()); // true if the guard answered its test a moment ago
        if answered { self.hear() } else { self.test_entry() }
    }

    async fn tell(&mut self, guard: Fingerprint) {
        match self.live.control.setconf(&[("EntryNodes", &format!("${guard}"))]).await {
            Ok(()) => self.told = Some(guard),
            Err(why) => tracing::warn!(engine = self.engine.id.0, "tor's EntryNodes could not be set: {why}"),
        }
        self.engine.save_guards(self.folder).await;
    }

    /// Checks whether the entry is silent, and does what is due during a silence. Called at every tick.
    pub(super) async fn check_entry(&mut self) {
        let (now, answer) = (Instant::now(), self.engine.shared.answer_time());
        if self.is_deaf(answer, now) {
            return;
        }
        for late in self.trials.late(answer, now) {
            match self.is_entry(late.guard) {
                true => self.miss(Source::Test(late.tag), late.began),
                false => self.tried_in_vain(late).await,
            }
        }
        let (build, nudge) =
            self.engine.act(|circuits, _| (circuits.pool.oldest_unanswered(), circuits.nudges.oldest_unanswered()));
        if let Some(sent) = build.filter(|sent| now.saturating_duration_since(*sent) >= answer) {
            self.miss(Source::Build, sent);
        }
        // If the guard has not answered a circuit for a third of the allowed time, the guard is tested with a circuit
        // over another path.
        let waits = |sent: &Instant| now.saturating_duration_since(*sent) >= answer / 3;
        let in_doubt = build.into_iter().chain(nudge).any(|sent| waits(&sent) && self.hop.heard() < Some(sent));
        let is_asked = self.engine.shared.liveness().asks(self.engine.id);
        match self.hop.state() {
            Hop::Silent(since) => self.bear_silence(since, now).await,
            Hop::New | Hop::Doubted => self.test_entry(),
            Hop::Proven if in_doubt || is_asked => self.test_entry(),
            Hop::Proven => {}
        }
    }

    /// Returns true while tor does not answer commands. Requests then ask other engines, and no guard counts as at
    /// fault. If tor stays silent, the check of tor that runs once a minute ends this run of tor.
    fn is_deaf(&mut self, answer: Duration, now: Instant) -> bool {
        let build = self.engine.act(|circuits, _| circuits.pool.oldest_command());
        let sent = build.into_iter().chain(self.trials.oldest_command()).min();
        let deaf = sent.is_some_and(|sent| now.saturating_duration_since(sent) >= answer);
        if deaf && self.trials.oldest_command().is_none() {
            self.test_entry(); // tor is deaf until it has answered this command
        }
        if std::mem::replace(&mut self.deaf, deaf) != deaf {
            self.engine.set_silent(deaf || self.hop.is_silent());
            if deaf {
                self.engine.streams().all_unanswered(StreamFault::FirstHop);
                self.engine.act(|circuits, _| circuits.pool.refuse_all(LeaseFault::FirstHop));
            }
            self.show_health();
        }
        deaf
    }

    async fn bear_silence(&mut self, since: Instant, now: Instant) {
        if !self.trials.is_testing(self.entry()) {
            self.test_entry();
        }
        let timeout = self.engine.shared.settings.load().circuit_timeout;
        let began = self.silent_since.unwrap_or(since);
        let anew = self.recovery.last_forced_reconnect();
        self.outage |= {
            let liveness = self.engine.shared.liveness();
            !liveness.is_proven() || liveness.is_shared(self.engine.id, anew.unwrap_or(began))
        };
        let silence = GuardSilence { began, since, anew: anew.is_some(), reachable: self.reachable };
        let decision = self.engine.shared.liveness().decide(silence, timeout, now);
        match (decision, self.entry()) {
            // If the network was down for a time, the guard may only seem silent, because TCP has not yet sent the lost
            // data again. So the guard is not blamed then.
            (Decision::Blame, Some(Entry::Guard(guard))) if !self.outage => {
                self.engine.guard().note_down(guard, SystemTime::now());
                self.find_entry().await;
            }
            (Decision::TestAnother, Some(Entry::Guard(_))) => {
                let other = self.engine.guard().alternative();
                other.into_iter().for_each(|guard| self.try_guard(guard));
            }
            _ => {}
        }
        self.recover(timeout, now).await;
        self.show_health();
    }

    /// Checks whether this machine slept since the last tick. After a sleep, the connection to the guard is probably
    /// lost.
    pub(super) fn look_for_sleep(&mut self) {
        let (wall, steady) = std::mem::replace(&mut self.last_tick, (SystemTime::now(), Instant::now()));
        let wall = self.last_tick.0.duration_since(wall).unwrap_or_default();
        let least = (self.engine.shared.settings.load().circuit_timeout * 3 / 2).max(LEAST_SLEEP);
        let Some(slept) = sleep_between(wall, self.last_tick.1 - steady, least) else { return };
        tracing::info!(
            engine = self.engine.id.0,
            seconds = slept.as_secs(),
            "this machine slept, or its clock was set"
        );
        self.recovery.slept();
        self.miss(Source::Sleep, Instant::now());
    }

    /// Shows the state of the engine to the API and the log.
    pub(super) fn show_health(&self) {
        let why = match self {
            Self { network_down: true, .. } => Some("tor cannot reach the network"),
            Self { directory_lost: true, .. } => Some("the directory is too old or too small to build circuits"),
            Self { deaf: true, .. } => Some("tor does not answer commands"),
            _ if self.entry().is_none() => Some("there is no guard that it may use; the log says why"),
            _ if self.hop.is_silent() && self.engine.shared.liveness().is_proven() => Some("its guard does not answer"),
            _ if self.hop.is_silent() => Some("no guard answers: check this machine's network"),
            _ => None,
        };
        let is_new = self.hop.heard().is_none() && self.silent_since.is_none();
        self.engine.set_state(match why {
            Some(why) => EngineState::Degraded { why: why.into() },
            None if is_new => {
                EngineState::Bootstrapping { percent: 90, phase: "Waiting for the guard's answer".into() }
            }
            None => EngineState::Ready,
        });
    }

    /// Lets tor connect to its guard again if that is due.
    async fn recover(&mut self, timeout: Duration, now: Instant) {
        let Some(since) = self.silent_since else { return };
        let addr = self.probe_address();
        let silence = Silence { since, streams: !self.engine.streams().is_empty(), may_probe: addr.is_some() };
        match (self.recovery.step(silence, timeout, now), addr) {
            (Step::Probe, Some(addr)) => self.probe(addr, timeout),
            (Step::Reconnect, _) => self.reconnect(now).await,
            (Step::Probe | Step::Nothing, _) => {}
        }
    }

    /// Returns the address of the guard if the gateway may connect to it without tor. `None` if there is a bridge or a
    /// proxy.
    fn probe_address(&self) -> Option<SocketAddr> {
        let Some(Entry::Guard(guard)) = self.entry().filter(|_| self.live.may_probe) else { return None };
        let dir = self.engine.shared.netdir()?;
        let relay = dir.relay(&guard)?;
        Some((relay.v4(), relay.or_port()).into())
    }

    fn probe(&self, addr: SocketAddr, timeout_: Duration) {
        let results = self.probes.clone();
        self.engine.shared.tasks.spawn("probe", async move {
            let reached = timeout(timeout_ / 10, connect(addr)).await.unwrap_or(false);
            let _ = results.send(reached); // fails if the run of tor has ended
        });
    }

    /// Closes all connections of tor. tor then connects to its guard again. All circuits and streams end.
    async fn reconnect(&mut self, now: Instant) {
        (self.outage, self.reachable) = (false, self.recovery.was_reached());
        self.hop.restart(now);
        self.engine.shared.liveness().silent(self.engine.id, now); // this makes the other engines test their guards
        if self.engine.attach.is_some() {
            return; // other programs may use an attached tor too, so its connections stay
        }
        tracing::info!(engine = self.engine.id.0, "tor connects to its guard anew");
        for value in ["1", "0"] {
            if let Err(why) = self.live.control.setconf(&[("DisableNetwork", value)]).await {
                tracing::warn!(engine = self.engine.id.0, "tor's DisableNetwork could not be set: {why}");
            }
        }
        self.trials.clear();
        self.test_entry();
    }
}

#[expect(clippy::disallowed_methods, reason = "this goes to the engine's guard, whose address no client chooses")]
async fn connect(addr: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(addr).await.is_ok()
}
