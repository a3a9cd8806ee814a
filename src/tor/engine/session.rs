//! One run of an engine: a loop over tor's events, from the login to the end of the control connection.
//!
//! A run has two phases. Until tor has a directory of relays, the loop only reports the progress of the bootstrap.
//! After that the run is *live*: the loop handles tor's events about circuits and streams. In addition, it handles slow
//! builds and old circuits once a second, and checks the guard, the directory and the control connection once a minute.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::first_hop::{FirstHop, Source};
use super::guarding::GuardLimits;
use super::{Engine, EngineState, Folder, Live};
use crate::exit::Fingerprint;
use crate::tor::circuit::pool::BuildId;
use crate::tor::control::commands::{Signal, extended};
use crate::tor::control::{ControlError, Events, Incoming};
use crate::tor::event::{Bootstrap, Circ, CircReason, CircStatus, CircuitId, Event};
use crate::tor::fault::LeaseFault;
use crate::tor::netdir::Netdir;
use crate::tor::path::Path;
use crate::tor::shared_state::Alert;
use crate::tor::torrc::UserLines;

mod entry;
mod follow;
mod progress;
mod recovery;
mod strays;
mod streams;
mod trial;

use progress::{Line, Progress};
use recovery::Recovery;
use trial::Trials;

/// The events that we subscribe to. NEWCONSENSUS is left out because it has megabytes. STATUS_CLIENT also reports a new
/// consensus.
const EVENTS: [&str; 6] = ["CIRC", "STREAM", "CIRC_BW", "STATUS_CLIENT", "NETWORK_LIVENESS", "ORCONN"];

/// The time between two checks of the guard, of missing microdescriptors, and of whether tor still answers.
const UPKEEP: Duration = Duration::from_secs(60);

/// The pause between two questions to tor of whether its bootstrap is complete. tor sends no event for this.
const BOOTSTRAP_LOOK: Duration = Duration::from_millis(500);

/// Advice in the log for an operator whose tor makes no progress in its bootstrap.
const STUCK_HELP: &str = "if this lasts, check that this machine is online, that its clock is right, and that no firewall blocks Tor; bridges are set by lines of tor.extra";

/// The pause between the arrival of a consensus and the read of the new directory. Microdescriptors arrive in the
/// seconds after their consensus.
const DIRECTORY_SETTLES: Duration = Duration::from_secs(5);

/// The addresses and settings that one run of an engine needs.
pub(super) struct Ports<'a> {
    pub(super) live: Arc<Live>,
    pub(super) events: Events,
    pub(super) folder: &'a Folder,
    /// The user's torrc lines. `None` for an attached tor, because we do not change its configuration.
    pub(super) user: Option<&'a UserLines>,
}

struct Session<'a> {
    engine: &'a Arc<Engine>,
    live: Arc<Live>,
    folder: &'a Folder,
    /// The guard to which this gateway has set tor's option EntryNodes. `None` if the gateway has not set the option.
    told: Option<Fingerprint>,
    trials: Trials,
    network_down: bool,
    directory_lost: bool,
    /// Whether the entry (guard or bridge) answers.
    hop: FirstHop,
    /// When the entry was found to be silent. `None` while the entry answers.
    silent_since: Option<Instant>,
    /// True if the guards of all engines were silent at some time since this engine's entry fell silent. False again
    /// after tor has connected to the entry anew.
    outage: bool,
    /// True while tor does not answer commands, so nothing is known about the guard.
    deaf: bool,
    /// True if the failures of guards since the entry fell silent were withdrawn, because this machine had no network.
    withdrawn: bool,
    /// True if the gateway itself (not tor) could connect to the guard's address since the guard fell silent.
    reachable: bool,
    recovery: Recovery,
    /// The sender through which a probe (a connection to the guard's address) reports whether it succeeded.
    probes: mpsc::UnboundedSender<bool>,
    /// The time of the last tick, by the clock of the day and by the steady clock.
    last_tick: (SystemTime, Instant),
    /// The newest directory of relays, which all engines share. `None` before the first directory was read.
    directory: watch::Receiver<Option<Arc<Netdir>>>,
    /// The time when the directory of relays must be read again. `None` if no read is due.
    directory_due: Option<Instant>,
    guard_due: Instant,
    /// Relay (not guards) → the time when a circuit through this relay was last closed by a relay. Other circuits
    /// through the relay may be dead too. The entry is removed once these circuits are being tested
    /// (`engine/nudge.rs`).
    cut: HashMap<Fingerprint, Instant>,
    /// The circuits that did not belong to the pool at the last check. A circuit that does not belong to it at the next
    /// check either is closed.
    strays: HashSet<CircuitId>,
}

/// Runs a session until the control connection ends or becomes unusable. Returns the reason as text.
pub(super) async fn run(engine: &Arc<Engine>, ports: Ports<'_>) -> String {
    let Ports { live, mut events, folder, user } = ports;
    let (probes, mut probed) = mpsc::unbounded_channel();
    let mut session = Session {
        engine,
        live,
        folder,
        told: engine.guard().current().filter(|_| user.is_some()),
        trials: Trials::default(),
        network_down: false,
        directory_lost: false,
        hop: FirstHop::default(),
        silent_since: None,
        outage: false,
        deaf: false,
        withdrawn: false,
        reachable: false,
        recovery: Recovery::default(),
        probes,
        last_tick: (SystemTime::now(), Instant::now()),
        directory: engine.shared.directory.subscribe(),
        directory_due: None,
        guard_due: Instant::now(),
        cut: HashMap::new(),
        strays: HashSet::new(),
    };
    match session.bootstrap(&mut events).await {
        Ok(()) => session.live(&mut events, &mut probed, user).await,
        Err(why) => why,
    }
}

impl Session<'_> {
    /// Waits until tor can build circuits, then makes the run live.
    async fn bootstrap(&mut self, events: &mut Events) -> Result<(), String> {
        let text = |e: ControlError| e.to_string();
        self.live.control.setevents(&EVENTS).await.map_err(text)?;
        let (mut look, mut progress) = (interval(BOOTSTRAP_LOOK), Progress::new(std::time::Instant::now()));
        loop {
            tokio::select! {
                _ = look.tick() => {
                    let now = self.live.control.bootstrap().await.map_err(text)?;
                    self.show(now, &mut progress);
                    if self.live.control.enough_directory().await.map_err(text)? {
                        break;
                    }
                }
                incoming = events.next() => match incoming {
                    None => return Err(ControlError::Closed.to_string()),
                    Some(Incoming::Event(Event::Bootstrap(now))) => self.show(now, &mut progress),
                    Some(Incoming::Event(Event::DirInfo(true))) => look.reset_immediately(),
                    Some(_) => {}
                },
            }
        }
        self.close_leftovers().await.map_err(text)?;
        self.refresh_directory().await;
        while self.engine.shared.netdir().is_none() {
            sleep(BOOTSTRAP_LOOK).await; // tor has the directory, but has not written its files yet
            self.live.control.enough_directory().await.map_err(text)?; // fails if tor has ended
            self.refresh_directory().await;
        }
        self.directory.mark_unchanged();
        self.follow_directory().await;
        self.engine.save_guards(self.folder).await;
        self.engine.live.store(Some(self.live.clone()));
        self.show_health();
        Ok(())
    }

    fn show(&self, now: Bootstrap, progress: &mut Progress) {
        let Bootstrap { percent, summary, warning, .. } = now;
        let line = progress.look(percent, warning.is_some(), std::time::Instant::now());
        let phase = match warning {
            Some(warning) => format!("{summary}: {warning}").into(),
            None => summary,
        };
        let engine = self.engine.id.0;
        match line {
            Some(Line::Progress) => tracing::info!(engine, percent, %phase, "bootstrapping"),
            Some(Line::Stuck) => tracing::warn!(engine, percent, %phase, "tor makes no progress; {STUCK_HELP}"),
            None => {}
        }
        self.engine.set_state(EngineState::Bootstrapping { percent, phase });
    }

    async fn live(
        &mut self,
        events: &mut Events,
        probed: &mut mpsc::UnboundedReceiver<bool>,
        user: Option<&UserLines>,
    ) -> String {
        let period = self.engine.shared.tick();
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        upkeep.reset(); // everything was checked a moment ago, so the first interval begins now
        loop {
            let next = self.engine.circuits().pool.next_start(Instant::now()).filter(|wait| *wait < period);
            let result = tokio::select! {
                biased; // events come first, because streams wait for them
                incoming = events.next() => match incoming {
                    Some(Incoming::Event(event)) => { self.on_event(event).await; Ok(()) }
                    Some(Incoming::Answer { tag, result }) => { self.on_answer(tag, result.ok().as_ref().and_then(extended)); Ok(()) }
                    None => Err(ControlError::Closed),
                },
                _ = tick.tick() => { self.tick().await; Ok(()) }
                Some(reached) = probed.recv() => { self.recovery.reached(reached); self.tick().await; Ok(()) }
                () = sleep(next.unwrap_or(period)), if next.is_some() => { self.engine.act(|circuits, now| circuits.pool.tick(now)); Ok(()) }
                () = self.engine.bell.notified() => Ok(()),
                Ok(()) = self.directory.changed() => { self.follow_directory().await; Ok(()) }
                () = self.engine.reload.notified() => { self.reload(user).await; Ok(()) }
                _ = upkeep.tick() => self.upkeep().await,
            };
            if let Err(why) = result {
                return why.to_string();
            }
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Stream(stream) => self.on_stream(&stream),
            Event::Circ(circ) => self.on_circ(circ).await,
            Event::CircBw(bw) => {
                let path = self.engine.act(|circuits, now| {
                    // The event counts the bytes of the last second. So the newest of these bytes may be one second
                    // old.
                    let link = circuits.pool.link(bw.id);
                    if let (Some(at), Some([first, _])) =
                        (now.checked_sub(Duration::from_secs(1)).filter(|_| bw.read > 0), link)
                    {
                        circuits.first_hop_answers(first, at);
                    }
                    circuits.pool.carried(bw.id, bw.read.saturating_add(bw.written), now);
                    link
                });
                if bw.read > 0 && path.is_some_and(|[first, _]| self.is_entry(first)) {
                    self.hear();
                }
            }
            Event::OrConn(conn) => self.on_conn(&conn).await,
            Event::Liveness(up) => {
                self.network_down = !up;
                self.show_health();
            }
            Event::DirInfo(enough) => {
                self.directory_lost = !enough;
                self.show_health();
            }
            Event::ConsensusArrived => self.directory_due = Some(Instant::now() + DIRECTORY_SETTLES),
            Event::Bootstrap(_) | Event::Bw { .. } | Event::NewConsensus | Event::Guard { .. } | Event::Other(_) => {}
        }
    }

    fn on_answer(&mut self, tag: u64, circuit: Option<CircuitId>) {
        if !self.trials.answered(tag, circuit, Instant::now()) && !self.engine.nudge_answered(tag, circuit) {
            self.engine.answered(BuildId(tag), circuit);
        }
    }

    async fn on_circ(&mut self, circ: Circ) {
        if circ.path.first().is_some_and(|first| self.is_entry(*first))
            && matches!(circ.status, CircStatus::Extended | CircStatus::Built)
        {
            self.hear();
        }
        match circ.status {
            CircStatus::Extended | CircStatus::Built if self.trials.is_one(circ.id) => self.tried(&circ, false).await,
            CircStatus::Failed | CircStatus::Closed if self.trials.is_one(circ.id) => self.tried(&circ, true).await,
            CircStatus::Built | CircStatus::Failed | CircStatus::Closed if self.engine.nudge_done(circ.id) => {}
            CircStatus::Extended => {
                self.engine.nudge_extended(&circ);
                self.engine.act(|circuits, now| circuits.pool.extended(circ.id, circ.path.len(), now));
            }
            CircStatus::Built => {
                let path: Arc<[Fingerprint]> = circ.path.into();
                let planned = self.engine.act(|circuits, now| {
                    path.first().into_iter().for_each(|first| circuits.first_hop_answers(*first, now));
                    circuits.pool.built(circ.id, path, now);
                    circuits.finish(circ.id, CircStatus::Built)
                });
                let Some(planned) = planned else { return };
                let (mut state, guard) = (self.engine.guard(), planned.hops()[0]);
                state.note_success(guard, SystemTime::now(), &mut rand::rng());
                state.note_build(guard, planned.exit(), true);
            }
            CircStatus::Failed | CircStatus::Closed => self.on_circ_gone(&circ).await,
            CircStatus::Launched | CircStatus::GuardWait | CircStatus::Other => {}
        }
    }

    async fn on_circ_gone(&mut self, circ: &Circ) {
        let (reached, full) = (circ.reached(), circ.is_refused());
        let planned = self.engine.act(|circuits, now| {
            let planned = circuits.finish(circ.id, (circ.status, circ.reason, circ.remote_reason));
            if planned.is_none() && circ.reason == Some(CircReason::Destroyed) {
                self.cut.extend(circ.path.iter().skip(1).map(|relay| (*relay, now)));
            }
            let hops = planned.as_ref().map_or(0, |path| path.hops().len()); // not used for a complete circuit
            circuits.pool.gone(circ.id, LeaseFault::of_build(reached, hops, full), now);
            planned
        });
        if let Some(middle) = planned.as_ref().filter(|_| reached > 0).and_then(Path::middle) {
            self.engine.shared.avoid(middle);
        }
        // Only a circuit that is being built has a planned path. A circuit that we closed ourselves has none.
        let Some(planned) = planned else { return };
        let guard = planned.hops()[0];
        if reached > 0 {
            self.engine.guard().note_build(guard, planned.exit(), false);
        } else if circ.reason == Some(CircReason::Destroyed) && self.is_entry(guard) {
            self.hear(); // a guard that refuses a circuit has answered
        }
    }

    fn limits(&self) -> GuardLimits<'_> {
        GuardLimits { rules: self.live.rules, reachable: &self.live.reachable }
    }

    async fn tick(&mut self) {
        self.look_for_sleep();
        self.engine.act(|circuits, now| circuits.pool.tick(now));
        self.engine.suspect(&mut self.cut);
        for (source, sent) in self.engine.end_silent() {
            self.miss(source, sent);
        }
        self.check_entry().await;
        if self.guard_due <= Instant::now() {
            self.guard_due = Instant::now() + 10 * UPKEEP;
            self.find_entry().await;
        }
        if self.directory_due.is_some_and(|due| due <= Instant::now()) {
            self.directory_due = None;
            self.look_for_directory();
        }
    }

    /// Does the checks that are due once a minute.
    async fn upkeep(&mut self) -> Result<(), ControlError> {
        // If tor does not answer this command before the deadline for commands, tor hangs. The run of tor then ends.
        let streams = self.live.control.streams().await?;
        self.engine.streams().keep(|id| streams.iter().any(|stream| stream.id == id));
        self.close_strays(&streams).await?;
        self.look_for_directory();
        let due = self.engine.guard().next_retry().is_some_and(|at| at <= SystemTime::now());
        if due {
            self.find_entry().await;
        }
        self.engine.save_guards(self.folder).await;
        let alarm = self.engine.guard().alarm();
        if let Some(alarm) = alarm {
            tracing::warn!(engine = self.engine.id.0, "{alarm}");
            let text = alarm.to_string().into();
            self.engine.shared.alert(Alert::GuardSuspect { engine: self.engine.id, text });
        }
        self.show_health();
        Ok(())
    }

    /// Applies changed settings as far as this is possible without a restart of tor. Open streams continue.
    async fn reload(&mut self, user: Option<&UserLines>) {
        self.engine.act(|circuits, _| circuits.pool.set_limits(self.engine.shared.limits()));
        if user.is_none() {
            return;
        }
        let settings = self.engine.shared.settings.load_full();
        let reloaded = async {
            let user = UserLines::load(settings.torrc.as_deref(), &settings.extra).await.map_err(|e| e.to_string())?;
            self.engine.write_torrc(self.folder, &settings, &user).await?;
            self.live.control.signal(Signal::Reload).await.map_err(|e| e.to_string())
        };
        if let Err(why) = reloaded.await {
            tracing::error!(engine = self.engine.id.0, "the new configuration was not applied: {why}");
        }
    }
}
