//! What can be commanded, and how tor answers: its codes, and its words as far as they were heard from a real one.

use std::sync::Arc;

use super::config::{get, load, reset, set};
use super::getinfo::getinfo;
use super::{Command, Reply, Session, Then, auth};
use crate::link::CircuitId;
use crate::model::text;
use crate::tor::circuits::Purpose;
use crate::tor::engine::{Engine, State};
use crate::tor::event::{self, Kind};
use crate::tor::streams::{Order, Phase};

/// Commands that may come before a login.
const BEFORE_LOGIN: &[&str] = &["PROTOCOLINFO", "AUTHENTICATE", "AUTHCHALLENGE", "QUIT"];

/// Signals that tor knows.
pub(super) const SIGNALS: &str =
    "RELOAD HUP SHUTDOWN DUMP USR1 DEBUG USR2 HALT TERM INT NEWNYM CLEARDNSCACHE HEARTBEAT ACTIVE DORMANT";

/// Runs a command and hands its answer on before the events that follow from it.
pub(super) fn run(engine: &Arc<Engine>, session: &mut Session, command: &Command, answer: impl Fn(String)) -> Then {
    if !session.login.done && !BEFORE_LOGIN.contains(&command.word.as_str()) {
        answer("514 Authentication required.\r\n".to_owned());
        return Then::Close;
    }
    match command.word.as_str() {
        "QUIT" => {
            answer("250 closing connection\r\n".to_owned());
            return Then::Close;
        }
        "PROTOCOLINFO" => answer(auth::protocol_info(engine).0),
        "AUTHCHALLENGE" => match auth::challenge(engine, &mut session.login, &command.rest) {
            Some(reply) => answer(reply.0),
            None => {
                answer("513 AUTHCHALLENGE only supports SAFECOOKIE authentication\r\n".to_owned());
                return Then::Close;
            }
        },
        "AUTHENTICATE" => match auth::authenticate(engine, &mut session.login, &command.rest) {
            Ok(()) => answer(Reply::ok().0),
            Err(why) => {
                answer(format!("515 {why}\r\n"));
                return Then::Close;
            }
        },
        "GETINFO" => answer(getinfo(engine, &command.rest).0),
        "LOADCONF" if command.block.is_some() => answer(load(engine, command.block.as_deref().unwrap_or_default()).0),
        "SIGNAL" => return signal(engine, &command.rest, answer),
        _ => engine.with(|state| answer(change(state, session, command).0)),
    }
    Then::GoOn
}

/// Commands whose answer and whose consequences belong together.
fn change(state: &mut State, session: &Session, command: &Command) -> Reply {
    let words: Vec<&str> = command.rest.split_whitespace().collect();
    match command.word.as_str() {
        "SETEVENTS" => set_events(state, session.id, &words),
        "EXTENDCIRCUIT" => with_words(command, 1, &words, |words| extend_circuit(state, words)),
        "SETCIRCUITPURPOSE" => with_words(command, 1, &words, |words| set_purpose(state, words)),
        "CLOSECIRCUIT" => with_words(command, 1, &words, |words| close_circuit(state, words)),
        "ATTACHSTREAM" => with_words(command, 2, &words, |words| attach_stream(state, words)),
        "CLOSESTREAM" => with_words(command, 2, &words, |words| close_stream(state, words)),
        "REDIRECTSTREAM" => with_words(command, 2, &words, |words| redirect_stream(state, words)),
        "GETCONF" => get(state, &words),
        "SETCONF" => set(state, &command.rest),
        "RESETCONF" => reset(state, &words),
        "TAKEOWNERSHIP" => {
            state.owner = Some(session.id);
            Reply::ok()
        }
        "DROPOWNERSHIP" => {
            state.owner = state.owner.filter(|owner| *owner != session.id);
            Reply::ok()
        }
        "USEFEATURE" => match words.iter().find(|word| !["EXTENDED_EVENTS", "VERBOSE_NAMES"].contains(word)) {
            Some(unknown) => Reply::end(552, &format!("Unrecognized feature \"{unknown}\"")),
            None => Reply::ok(),
        },
        "RESOLVE" | "SAVECONF" | "MAPADDRESS" | "HSFETCH" => Reply::ok(),
        _ => Reply::end(510, &format!("Unrecognized command \"{}\"", command.spelt)),
    }
}

fn with_words(command: &Command, least: usize, words: &[&str], then: impl FnOnce(&[&str]) -> Reply) -> Reply {
    if words.len() < least {
        let word = &command.word;
        return Reply::end(512, &format!("Bad arguments to {word}: Need at least {least} argument(s)"));
    }
    then(words)
}

fn set_events(state: &mut State, id: u64, words: &[&str]) -> Reply {
    let names = words.iter().filter(|word| !word.eq_ignore_ascii_case("EXTENDED"));
    let mut events = Vec::new();
    for name in names {
        match event::find(name) {
            Some(kind) => events.push(kind),
            None => return Reply::end(552, &format!("Unrecognized event \"{name}\"")),
        }
    }
    if let Some(controller) = state.controllers.iter_mut().find(|controller| controller.id == id) {
        controller.events = events;
    }
    Reply::ok()
}

fn circuit_of(state: &State, word: &str) -> Option<CircuitId> {
    word.parse().ok().filter(|id| state.circuits.contains_key(id))
}

fn unknown(what: &str, word: &str) -> Reply {
    Reply::end(552, &format!("Unknown {what} \"{word}\""))
}

fn extend_circuit(state: &mut State, words: &[&str]) -> Reply {
    if words[0] != "0" {
        // A circuit that exists is not made longer here; nobody in exitgate asks for it.
        return match circuit_of(state, words[0]) {
            Some(_) => Reply::end(551, "Couldn't start circuit"),
            None => unknown("circuit", words[0]),
        };
    }
    let (options, path): (Vec<&str>, Vec<&str>) = words[1..].iter().partition(|word| word.contains('='));
    let mut purpose = Purpose::General;
    for option in options {
        let named = option.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case("purpose"));
        let Some((_, word)) = named else { continue };
        match Purpose::read(word) {
            Some(known) => purpose = known,
            None => return unknown("purpose", word),
        }
    }
    let mut relays = Vec::new();
    let bridges = crate::tor::circuits::bridges(&state.torrc);
    for word in path.into_iter().flat_map(|path| path.split(',')) {
        let Some(relay) = crate::hex::fingerprint(word).map(|id| text::hex(&id)) else {
            return Reply::end(552, &format!("No such router \"{word}\""));
        };
        match (state.directory.knows(&relay), bridges.contains(&relay)) {
            ((_, true), _) | (_, true) => relays.push(relay),
            ((true, false), _) => return Reply::end(552, &format!("No descriptor for \"{word}\"")),
            ((false, _), _) => return Reply::end(552, &format!("No such router \"{word}\"")),
        }
    }
    if !state.directory.enough {
        return Reply::end(551, "Couldn't start circuit");
    }
    Reply::end(250, &format!("EXTENDED {}", state.extend(relays, purpose)))
}

fn set_purpose(state: &mut State, words: &[&str]) -> Reply {
    let Some(id) = circuit_of(state, words[0]) else { return unknown("circuit", words[0]) };
    let word = words.iter().find_map(|word| word.strip_prefix("purpose="));
    match word.map(|word| (word, Purpose::read(word))) {
        Some((_, Some(purpose))) => {
            if let Some(circuit) = state.circuits.get_mut(&id) {
                circuit.purpose = purpose;
            }
            state.event(Kind::CircMinor, format!("CIRC_MINOR {id} PURPOSE_CHANGED"));
            Reply::ok()
        }
        Some((word, None)) => unknown("purpose", word),
        None => Reply::end(552, "No purpose given"),
    }
}

fn close_circuit(state: &mut State, words: &[&str]) -> Reply {
    let Some(id) = circuit_of(state, words[0]) else { return unknown("circuit", words[0]) };
    let if_unused = words[1..].iter().any(|word| word.eq_ignore_ascii_case("IfUnused"));
    let unused = state.circuits.get(&id).is_some_and(|circuit| circuit.streams == 0);
    if unused || !if_unused {
        state.close_circuit(id, "REQUESTED");
    }
    Reply::ok()
}

fn attach_stream(state: &mut State, words: &[&str]) -> Reply {
    let stream = words[0].parse::<u64>().ok().filter(|id| state.streams.contains_key(id));
    let Some(stream) = stream else { return unknown("stream", words[0]) };
    let circuit = match words[1] {
        "0" => None,
        word => match circuit_of(state, word) {
            Some(id) => Some(id),
            None => return unknown("circuit", word),
        },
    };
    if state.streams.get(&stream).is_some_and(|stream| stream.phase == Phase::Open) {
        return Reply::end(555, "Connection is not managed by controller.");
    }
    if let Some(circuit) = circuit.and_then(|id| state.circuits.get(&id)) {
        if !circuit.built {
            return Reply::end(551, "Can't attach stream to non-open origin circuit");
        }
        if circuit.length < 2 {
            return Reply::end(551, "Can't attach stream to this one-hop circuit.");
        }
    }
    if circuit.is_some() {
        state.attached(stream, circuit);
    }
    tell(state, stream, Order::Attach(circuit));
    Reply::ok()
}

fn close_stream(state: &mut State, words: &[&str]) -> Reply {
    let stream = words[0].parse::<u64>().ok().filter(|id| state.streams.contains_key(id));
    let Some(stream) = stream else { return unknown("stream", words[0]) };
    let Ok(reason) = words[1].parse() else { return Reply::end(552, &format!("Unrecognized reason \"{}\"", words[1])) };
    tell(state, stream, Order::Close(reason));
    Reply::ok()
}

fn redirect_stream(state: &mut State, words: &[&str]) -> Reply {
    match words[0].parse::<u64>().ok().filter(|id| state.streams.contains_key(id)) {
        Some(_) => Reply::ok(),
        None => unknown("stream", words[0]),
    }
}

fn tell(state: &State, stream: u64, order: Order) {
    if let Some(stream) = state.streams.get(&stream) {
        let _ = stream.orders.send(order); // a stream that has just ended needs no order
    }
}

fn signal(engine: &Arc<Engine>, rest: &str, answer: impl Fn(String)) -> Then {
    let name = rest.to_ascii_uppercase();
    if !SIGNALS.split(' ').any(|known| known == name) {
        answer(Reply::end(552, &format!("Unrecognized signal code \"{rest}\"")).0);
        return Then::GoOn;
    }
    answer(Reply::ok().0);
    engine.with(|state| state.event(Kind::Signal, format!("SIGNAL {name}")));
    match name.as_str() {
        "RELOAD" | "HUP" => engine.reload(),
        "SHUTDOWN" | "HALT" | "TERM" | "INT" => engine.end(),
        _ => {}
    }
    Then::GoOn
}
