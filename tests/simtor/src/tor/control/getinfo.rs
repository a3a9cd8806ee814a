//! What can be asked with GETINFO.

use super::Reply;
use super::commands::SIGNALS;
use crate::hex;
use crate::model::text;
use crate::tor::directory::microdescs;
use crate::tor::engine::{Engine, State};
use crate::tor::event;

/// Files of the directory.
const CONSENSUS: &str = "cached-microdesc-consensus";
const MICRODESCS: [&str; 2] = ["cached-microdescs", "cached-microdescs.new"];

/// A value, or why there is none.
type Answer = Result<String, (u16, String)>;

pub(super) fn getinfo(engine: &Engine, rest: &str) -> Reply {
    let mut reply = Reply(String::new());
    let mut unknown = Vec::new();
    for key in rest.split_whitespace() {
        match value(engine, key) {
            Some(Ok(text)) if text.contains('\n') => reply.block(key, &text),
            Some(Ok(text)) => reply.mid(&format!("{key}={text}")),
            Some(Err((code, why))) => return Reply::end(code, &why),
            None => unknown.push(key),
        }
    }
    match &unknown[..] {
        [] => {
            reply.0.push_str("250 OK\r\n");
            reply
        }
        [all @ .., last] => {
            let before: String = all.iter().map(|key| format!("552-Unrecognized key \"{key}\"\r\n")).collect();
            Reply(format!("{before}552 Unrecognized key \"{last}\"\r\n"))
        }
    }
}

fn value(engine: &Engine, key: &str) -> Option<Answer> {
    let of_state = engine.with(|state| of_state(state, key));
    let text = match (of_state, key) {
        (Some(text), _) => text,
        (_, "process/pid") => std::process::id().to_string(),
        (_, "process/uid") => "0".to_owned(),
        (_, "uptime") => engine.began.elapsed().as_secs().to_string(),
        (_, "config-file") => engine.file(),
        (_, "events/names") => event::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" "),
        (_, "features/names") => "VERBOSE_NAMES EXTENDED_EVENTS".to_owned(),
        (_, "signal/names") => SIGNALS.to_owned(),
        (_, "config/names") => crate::torrc::kinds(),
        (_, "dir/status-vote/current/consensus-microdesc") => {
            let why = "Could not open cached consensus. Make sure FetchUselessDescriptors is set to 1.";
            return Some(std::fs::read_to_string(engine.home.path(CONSENSUS)).map_err(|_| (551, why.to_owned())));
        }
        (_, "md/all") => kept(engine).iter().flat_map(|kept| microdescs(kept)).map(|(_, piece)| piece).collect(),
        (_, "ns/all") => statuses(engine, |_| true),
        (_, "current-time/utc" | "current-time/local") => text::stamp(text::seconds(engine.now())).replace(' ', "T"),
        (_, "exit-policy/full") => return Some(Err((552, "Not running in server mode".to_owned()))),
        (_, "fingerprint") => return Some(Err((551, "Not running in server mode".to_owned()))),
        (_, "address") => return Some(Err((551, "Address unknown".to_owned()))),
        _ => return by_relay(engine, key),
    };
    Some(Ok(text))
}

fn kept(engine: &Engine) -> Vec<String> {
    MICRODESCS.iter().filter_map(|name| std::fs::read_to_string(engine.home.path(name)).ok()).collect()
}

/// `ns/id/…` and `md/id/…`.
fn by_relay(engine: &Engine, key: &str) -> Option<Answer> {
    if let Some(id) = key.strip_prefix("ns/id/") {
        let id = hex::fingerprint(id)?;
        return Some(Ok(statuses(engine, |other| other == id)));
    }
    let id = text::hex(&key.strip_prefix("md/id/").and_then(hex::fingerprint)?);
    if !engine.with(|state| state.directory.knows(&id).1) {
        return None;
    }
    let digest = std::fs::read_to_string(engine.home.path(CONSENSUS)).ok().and_then(|consensus| {
        let found = entries(&consensus).find(|(other, _)| text::hex(other) == id)?;
        found.1.lines().find_map(|line| line.strip_prefix("m ").map(str::to_owned))
    })?;
    let kept = kept(engine);
    let found = kept.iter().flat_map(|kept| microdescs(kept)).find(|(_, piece)| {
        use sha2::{Digest as _, Sha256};
        text::base64(&Sha256::digest(piece)) == digest
    });
    found.map(|(_, piece)| Ok(piece.to_owned()))
}

/// The entries of some relays, as `ns/all` has them: with half of what the consensus says of digests.
fn statuses(engine: &Engine, wanted: impl Fn([u8; 20]) -> bool) -> String {
    let consensus = std::fs::read_to_string(engine.home.path(CONSENSUS)).unwrap_or_default();
    let wanted = entries(&consensus).filter(|(id, _)| wanted(*id));
    wanted.flat_map(|(_, entry)| entry.lines()).filter(|line| !line.starts_with("m ")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

/// The entries of a consensus by identity.
fn entries(consensus: &str) -> impl Iterator<Item = ([u8; 20], &str)> {
    let body = consensus.find("\nr ").map_or("", |at| &consensus[at + 1..]);
    let body = &body[..body.find("\ndirectory-footer").map_or(body.len(), |at| at + 1)];
    body.split_inclusive('\n')
        .scan(0, |at, line| {
            let begin = *at;
            *at += line.len();
            Some((begin, line))
        })
        .filter(|(_, line)| line.starts_with("r "))
        .filter_map(move |(begin, line)| {
            let end = body[begin..].find("\nr ").map_or(body.len(), |length| begin + length + 1);
            let id = crate::tor::directory::identity(line.split(' ').nth(2)?)?;
            Some((id, &body[begin..end]))
        })
}

fn of_state(state: &State, key: &str) -> Option<String> {
    let flag = |is: bool| if is { "1" } else { "0" }.to_owned();
    let names = |what: &str| state.listeners.get(what).map_or_else(String::new, |names| names.join(" "));
    Some(match key {
        "version" => state.conduct.version.clone(),
        "status/bootstrap-phase" => state.bootstrap.fields(),
        "status/enough-dir-info" => flag(state.directory.enough),
        "status/circuit-established" => flag(state.circuits.values().any(|circuit| circuit.built)),
        "status/version/current" => state.directory.version_status(&state.conduct.version).to_owned(),
        "status/version/recommended" => match state.directory.recommended() {
            none if none.is_empty() => "?".to_owned(),
            list => list,
        },
        "circuit-status" => state.circuit_status(),
        "stream-status" => state.stream_status(),
        "orconn-status" => {
            let line = |(relay, (_, open)): (&String, &(u64, bool))| {
                format!("{} {}", state.directory.long_name(relay), if *open { "CONNECTED" } else { "LAUNCHED" })
            };
            state.conns.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        "entry-guards" => state.entry_guards(),
        "network-liveness" => if state.conns.values().any(|(_, open)| *open) { "up" } else { "down" }.to_owned(),
        "dormant" => "0".to_owned(),
        "traffic/read" => state.read.to_string(),
        "traffic/written" => state.written.to_string(),
        "config-text" => state.torrc.lines().map(|line| line + "\n").collect(),
        "config-can-saveconf" => "1".to_owned(),
        "consensus/valid-after" | "consensus/fresh-until" | "consensus/valid-until" => {
            let at = ["consensus/valid-after", "consensus/fresh-until", "consensus/valid-until"];
            let place = at.iter().position(|name| *name == key)?;
            state.directory.lifetime().map_or_else(String::new, |times| text::stamp(text::seconds(times[place])))
        }
        _ => names(key.strip_prefix("net/listeners/").filter(|_| key.starts_with("net/listeners/"))?),
    })
}

impl State {
    /// Bridges first, then the guards that were entered by.
    fn entry_guards(&self) -> String {
        let up = |relay: &str| match self.guards.get(relay) {
            Some(true) => "up",
            Some(false) => "down",
            None => "never-connected",
        };
        let bridges = crate::tor::circuits::bridges(&self.torrc);
        let uses = self.torrc.is_on("UseBridges");
        let relays: Vec<&String> = if uses { bridges.iter().collect() } else { self.guards.keys().collect() };
        let line = |relay: &&String| format!("{} {}", self.directory.long_name(relay), up(relay));
        relays.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
