//! The directory: fetched at the start and when tor would fetch a new one, and kept in the files that tor keeps.
//!
//! A consensus goes into `cached-microdesc-consensus`; microdescriptors that are new go behind those in
//! `cached-microdescs.new`, which is merged into `cached-microdescs` when it has grown, as tor does it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::engine::{Engine, State};
use super::event::Kind;
use crate::link::{Ask, Edition};
use crate::model::text;

mod read;

pub(super) use read::microdescs;
use read::{Consensus, consensus};

/// Names of tor's files.
const CONSENSUS: &str = "cached-microdesc-consensus";
const MICRODESCS: &str = "cached-microdescs";
const JOURNAL: &str = "cached-microdescs.new";

/// How long tor uses a consensus after it has expired.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// tor's wait before it asks for the directory again.
const AGAIN: Duration = Duration::from_secs(10);

/// How long tor waits for an answer to one question for the directory.
const ANSWER: Duration = Duration::from_secs(60);

/// Bytes of the journal below which it is never merged.
const SMALL: u64 = 16 * 1024;

/// Part of all paths that must be buildable.
const ENOUGH: f64 = 0.6;

/// What the task that looks after the directory hears.
#[derive(Clone, Debug)]
pub(super) enum News {
    Fetched(Edition),
    Failed,
    Asking,
    Conduct,
}

/// What is known of relays.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) enough: bool,
    /// Nicknames by fingerprint.
    names: HashMap<String, String>,
    /// Listed, but without a microdescriptor.
    missing: HashSet<String>,
    lifetime: Option<(SystemTime, SystemTime, SystemTime)>,
    recommended: Vec<String>,
}

/// How far the start is.
#[derive(Clone, Debug, Default)]
pub(super) struct Bootstrap {
    percent: u8,
    warning: Option<String>,
}

/// tor's phases: percent, tag, and a line for people.
const PHASES: &[(u8, &str, &str)] = &[
    (0, "starting", "Starting"),
    (5, "conn", "Connecting to a relay"),
    (10, "conn_done", "Connected to a relay"),
    (14, "handshake", "Handshaking with a relay"),
    (15, "handshake_done", "Handshake with a relay done"),
    (20, "onehop_create", "Establishing an encrypted directory connection"),
    (25, "requesting_status", "Asking for networkstatus consensus"),
    (30, "loading_status", "Loading networkstatus consensus"),
    (40, "loading_keys", "Loading authority key certs"),
    (45, "requesting_descriptors", "Asking for relay descriptors"),
    (50, "loading_descriptors", "Loading relay descriptors"),
    (75, "enough_dirinfo", "Loaded enough directory info to build circuits"),
    (90, "ap_handshake_done", "Handshake finished with a relay to build circuits"),
    (95, "circuit_create", "Establishing a Tor circuit"),
    (100, "done", "Done"),
];

impl Directory {
    /// `$FINGERPRINT~nickname`, or without the nickname where it is not known.
    pub(super) fn long_name(&self, relay: &str) -> String {
        match self.names.get(relay) {
            Some(name) => format!("${relay}~{name}"),
            None => format!("${relay}"),
        }
    }

    /// Whether a relay is listed, and whether a circuit can go through it.
    pub(super) fn knows(&self, relay: &str) -> (bool, bool) {
        let listed = self.names.contains_key(relay);
        (listed, listed && !self.missing.contains(relay))
    }

    pub(super) fn lifetime(&self) -> Option<[SystemTime; 3]> {
        self.lifetime.map(|(after, fresh, until)| [after, fresh, until])
    }

    /// tor's word for what the directory says of this version.
    pub(super) fn version_status(&self, version: &str) -> &'static str {
        let numbers = |text: &str| text.split(['.', '-']).map_while(|part| part.parse().ok()).collect::<Vec<u32>>();
        let own = numbers(version);
        let mut others = self.recommended.iter().map(|other| numbers(other)).collect::<Vec<_>>();
        others.sort_unstable();
        match (others.first(), others.last()) {
            _ if others.contains(&own) => "recommended",
            (Some(oldest), _) if own < *oldest => "obsolete",
            (_, Some(newest)) if own > *newest => "new",
            (Some(_), _) => "unrecommended",
            (None, _) => "unknown",
        }
    }

    pub(super) fn recommended(&self) -> String {
        self.recommended.join(",")
    }
}

impl Bootstrap {
    /// The fields of a bootstrap status.
    pub(super) fn fields(&self) -> String {
        let (percent, tag, summary) =
            PHASES.iter().rfind(|phase| phase.0 <= self.percent).copied().unwrap_or(PHASES[0]);
        match &self.warning {
            Some(why) => format!(
                "WARN BOOTSTRAP PROGRESS={percent} TAG={tag} SUMMARY=\"{summary}\" WARNING=\"{why}\" REASON={why} COUNT=1 \
                 RECOMMENDATION=warn"
            ),
            None => format!("NOTICE BOOTSTRAP PROGRESS={percent} TAG={tag} SUMMARY=\"{summary}\""),
        }
    }
}

impl State {
    fn reach(&mut self, percent: u8) {
        if percent > self.bootstrap.percent || (percent == 0 && self.bootstrap.warning.is_none()) {
            self.bootstrap = Bootstrap { percent, warning: None };
            let fields = self.bootstrap.fields();
            self.event(Kind::StatusClient, format!("STATUS_CLIENT {fields}"));
        }
    }

    /// A connection to a relay failed while the start is not over.
    pub(super) fn warn_of_bootstrap(&mut self, _relay: &str, why: &str) {
        if self.bootstrap.percent < 75 {
            self.bootstrap.warning = Some(why.to_owned());
            let fields = self.bootstrap.fields();
            self.event(Kind::StatusClient, format!("STATUS_CLIENT {fields}"));
        }
    }

    fn say_enough(&mut self, enough: bool) {
        if std::mem::replace(&mut self.directory.enough, enough) != enough {
            let word = if enough { "ENOUGH_DIR_INFO" } else { "NOT_ENOUGH_DIR_INFO" };
            self.event(Kind::StatusClient, format!("STATUS_CLIENT NOTICE {word}"));
        }
    }
}

/// Looks after the directory for ever.
pub(super) async fn bootstrap(engine: Arc<Engine>) {
    let Some(mut news) = engine.with(|state| state.heard.take()) else { return };
    let mut kept = Kept::default();
    engine.with(|state| state.reach(0));
    kept.read(&engine).await;
    loop {
        let wait = match kept.due(&engine) {
            Some(wait) => wait,
            None => match kept.renew(&engine, &mut news).await {
                Ok(()) => continue,
                Err(()) => engine.scaled(AGAIN),
            },
        };
        tokio::select! {
            () = sleep(wait) => {}
            heard = news.recv() => if heard.is_none() { return },
        }
        kept.update_enough(&engine);
    }
}

/// What lies in the folder.
#[derive(Debug, Default)]
struct Kept {
    current: Option<Consensus>,
    /// Digests of the microdescriptors that we have.
    have: HashSet<[u8; 32]>,
    /// When the next consensus is to be fetched.
    next: Option<SystemTime>,
    journal: u64,
    whole: u64,
}

impl Kept {
    /// Takes over what an earlier run has left.
    async fn read(&mut self, engine: &Arc<Engine>) {
        let paths = [CONSENSUS, MICRODESCS, JOURNAL].map(|name| engine.home.path(name));
        let read = move || paths.map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let Ok([text, whole, journal]) = tokio::task::spawn_blocking(read).await else { return };
        let Some(current) = consensus(&text) else { return };
        if engine.now() > current.valid_until + STALE {
            return;
        }
        (self.whole, self.journal) = (whole.len() as u64, journal.len() as u64);
        for piece in microdescs(&whole).chain(microdescs(&journal)) {
            self.have.insert(Sha256::digest(piece.1).into());
        }
        self.take(engine, current);
    }

    fn take(&mut self, engine: &Arc<Engine>, current: Consensus) {
        let fresh = current.fresh_until.duration_since(current.valid_after).unwrap_or_default();
        let valid = current.valid_until.duration_since(current.valid_after).unwrap_or_default();
        // As dir-spec has it for clients: some time after three quarters of the next interval, spread over most of the rest.
        let from = current.fresh_until + fresh.mul_f64(0.75);
        let spread = valid.saturating_sub(fresh.mul_f64(1.75)).mul_f64(0.875);
        self.next = Some(from + spread.mul_f64(rand::random::<f64>()));
        let warned = engine.with(|state| {
            let version = state.conduct.version.clone();
            let known = &mut state.directory;
            known.names =
                current.relays.iter().map(|relay| (relay.fingerprint.clone(), relay.nickname.clone())).collect();
            known.lifetime = Some((current.valid_after, current.fresh_until, current.valid_until));
            known.recommended.clone_from(&current.recommended);
            let status = known.version_status(&version);
            let warns = matches!(status, "obsolete" | "unrecommended");
            warns.then(|| (status.to_ascii_uppercase(), version, known.recommended()))
        });
        if let Some((status, version, list)) = warned {
            engine.log.warn(&format!(
                "Please upgrade! This version of Tor ({version}) is not recommended, according to the directory \
                 authorities. Recommended versions are: {list}"
            ));
            let line = format!(
                "STATUS_GENERAL WARN DANGEROUS_VERSION CURRENT={version} REASON={status} RECOMMENDED=\"{list}\""
            );
            engine.with(|state| state.event(Kind::StatusGeneral, line));
        }
        self.current = Some(current);
        self.update_enough(engine);
    }

    /// Whether circuits can be built with what is there now.
    fn update_enough(&self, engine: &Arc<Engine>) {
        let Some(current) = &self.current else { return };
        let now = engine.now();
        let missing: HashSet<String> = current
            .relays
            .iter()
            .filter(|relay| !self.have.contains(&relay.digest))
            .map(|relay| relay.fingerprint.clone())
            .collect();
        let known = 1.0 - missing.len() as f64 / current.relays.len().max(1) as f64;
        let live = now + STALE > current.valid_after && now < current.valid_until + STALE;
        let enough = live && known.powi(3) >= ENOUGH;
        let predicts = engine.with(|state| {
            state.directory.missing = missing;
            state.say_enough(enough);
            if enough {
                state.reach(75);
            }
            enough && !state.torrc.is_on("__DisablePredictedCircuits") && state.bootstrap.percent < 100
        });
        if predicts {
            tokio::spawn(predict(engine.clone()));
        }
    }

    /// How long to wait for the next thing to do; none if it is to be done now.
    fn due(&self, engine: &Arc<Engine>) -> Option<Duration> {
        let (Some(current), Some(next)) = (&self.current, self.next) else { return None };
        let lacks = current.relays.iter().any(|relay| !self.have.contains(&relay.digest));
        let wait = next.duration_since(engine.now()).ok()?;
        let least = Duration::from_millis(20);
        Some(if lacks { wait.min(engine.scaled(ANSWER)) } else { wait }.clamp(least, Duration::from_secs(5)))
    }

    /// Fetches a consensus, then the microdescriptors that it names.
    async fn renew(&mut self, engine: &Arc<Engine>, news: &mut mpsc::UnboundedReceiver<News>) -> Result<(), ()> {
        engine.with(|state| state.reach(5));
        let edition = ask(engine, None, news).await.ok_or(())?;
        engine.with(|state| state.reach(30));
        let text = tokio::fs::read_to_string(&edition.consensus).await.map_err(|_| ())?;
        let found = consensus(&text).ok_or(())?;
        if self.current.as_ref().is_some_and(|current| current.valid_after >= found.valid_after) {
            // The same as before: it is asked for again a little later.
            self.next = Some(engine.now() + engine.scaled(ANSWER));
            return Ok(());
        }
        engine.home.write(CONSENSUS, text.as_bytes()).map_err(|_| ())?;
        engine.home.write("cached-certs", b"dir-key-certificate-version 3\n").map_err(|_| ())?;
        engine.with(|state| {
            state.reach(45);
            state.event(Kind::StatusClient, "STATUS_CLIENT NOTICE CONSENSUS_ARRIVED".to_owned());
            state.event(Kind::NewConsensus, "NEWCONSENSUS".to_owned());
        });
        let wanted = found.relays.iter().filter(|relay| !self.have.contains(&relay.digest)).count();
        self.take(engine, found);
        if wanted > 0 {
            let edition = ask(engine, Some(wanted), news).await.ok_or(())?;
            engine.with(|state| state.reach(50));
            self.add(engine, &edition).await.map_err(|_| ())?;
            self.update_enough(engine);
        }
        Ok(())
    }

    /// Puts new microdescriptors behind those that are there.
    async fn add(&mut self, engine: &Arc<Engine>, edition: &Edition) -> io::Result<()> {
        let text = tokio::fs::read_to_string(&edition.microdescs).await?;
        let mut new = String::new();
        for (whole, piece) in microdescs(&text) {
            if self.have.insert(Sha256::digest(piece).into()) {
                new.push_str(whole);
            }
        }
        let path = engine.home.path(JOURNAL);
        let old = if self.journal > 0 { std::fs::read_to_string(&path)? } else { String::new() };
        self.journal += new.len() as u64;
        if self.journal > SMALL && self.journal > self.whole / 2 {
            let before = std::fs::read_to_string(engine.home.path(MICRODESCS)).unwrap_or_default();
            engine.home.write(MICRODESCS, [before, old, new].concat().as_bytes())?;
            engine.home.write(JOURNAL, b"")?;
            (self.whole, self.journal) = (self.whole + self.journal, 0);
            return Ok(());
        }
        engine.home.write(JOURNAL, [old, new].concat().as_bytes())
    }
}

/// Asks a guard for something; none if it does not answer in time.
async fn ask(
    engine: &Arc<Engine>,
    microdescs: Option<usize>,
    news: &mut mpsc::UnboundedReceiver<News>,
) -> Option<Edition> {
    let entry = engine.torrc().text("EntryNodes").split(',').next().and_then(crate::hex::fingerprint);
    let known = engine.with(|state| {
        let bridge = super::circuits::bridges(&state.torrc).into_iter().next();
        let up = state.guards.iter().find(|(_, up)| **up).map(|(guard, _)| guard.clone());
        bridge.filter(|_| state.torrc.is_on("UseBridges")).or(entry.map(|id| text::hex(&id))).or(up)
    });
    engine.with(|state| state.ask(Ask::Fetch { guard: known, microdescs }));
    let by = Instant::now() + engine.scaled(ANSWER);
    let heard = async {
        loop {
            match news.recv().await? {
                News::Fetched(edition) if edition.complete == microdescs.is_some() => return Some(edition),
                News::Failed => return None,
                News::Asking | News::Conduct | News::Fetched(_) => {}
            }
        }
    };
    timeout(by - Instant::now(), heard).await.ok().flatten()
}

/// A first circuit of tor's own, with which its start is complete.
async fn predict(engine: Arc<Engine>) {
    loop {
        let changed = engine.changed.notified();
        let built = engine.with(|state| {
            let id = state.own_circuit();
            state.circuits.get(&id).is_some_and(|circuit| circuit.built)
        });
        if built {
            return engine.with(|state| state.reach(100));
        }
        changed.await;
    }
}

/// A moment as a consensus writes it.
fn moment(text: &str) -> Option<SystemTime> {
    read::seconds(text).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// An identity as a consensus writes it.
pub(super) fn identity(text: &str) -> Option<[u8; 20]> {
    read::base64(text)
}
