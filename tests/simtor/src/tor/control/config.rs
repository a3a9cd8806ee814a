//! Options over the control port.

use super::Reply;
use crate::link::Ask;
use crate::tor::engine::{Engine, State};
use crate::torrc::{Fault, Torrc, unquoted};

/// GETCONF.
pub(super) fn get(state: &State, keys: &[&str]) -> Reply {
    let answers: Vec<_> = keys.iter().map(|key| (*key, state.torrc.answer(key))).collect();
    let unknown: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(key, _)| *key).collect();
    if !unknown.is_empty() {
        let lines = unknown.iter().enumerate().map(|(at, key)| {
            let separator = if at + 1 == unknown.len() { ' ' } else { '-' };
            format!("552{separator}Unrecognized configuration key \"{key}\"\r\n")
        });
        return Reply(lines.collect());
    }
    let known = answers.into_iter().filter_map(|(_, answer)| answer);
    let lines: Vec<String> =
        known.flat_map(|(name, values)| values.into_iter().map(move |value| format!("{name}={value}"))).collect();
    let count = lines.len();
    if count == 0 {
        return Reply::ok();
    }
    let separate = |(at, line)| format!("250{}{line}\r\n", if at + 1 == count { ' ' } else { '-' });
    Reply(lines.into_iter().enumerate().map(separate).collect())
}

/// SETCONF.
pub(super) fn set(state: &mut State, rest: &str) -> Reply {
    match pairs(rest) {
        Some(pairs) => {
            let was = state.torrc.is_on("DisableNetwork");
            let reply = applied(state.torrc.set(&pairs));
            if !was && state.torrc.is_on("DisableNetwork") {
                state.ask(Ask::Disconnect);
            }
            reply
        }
        None => Reply::end(512, "Bad arguments to SETCONF: Cannot parse keyword argument(s)"),
    }
}

/// RESETCONF.
pub(super) fn reset(state: &mut State, keys: &[&str]) -> Reply {
    let pairs: Vec<_> = keys.iter().map(|key| ((*key).to_owned(), None)).collect();
    applied(state.torrc.set(&pairs))
}

/// LOADCONF.
pub(super) fn load(engine: &Engine, text: &str) -> Reply {
    engine.with(|state| {
        let parsed = Torrc::parse(text, &[]).and_then(|(torrc, _)| torrc.may_follow(&state.torrc).map(|()| torrc));
        applied(parsed.map(|torrc| state.torrc = torrc))
    })
}

fn applied(result: Result<(), Fault>) -> Reply {
    match result {
        Ok(()) => Reply::ok(),
        Err(fault @ Fault::Unknown(_)) => Reply::end(552, &format!("Unrecognized option: {fault}")),
        Err(fault @ (Fault::Malformed { .. } | Fault::Invalid(_))) => {
            Reply::end(513, &format!("Unacceptable option value: {fault}"))
        }
        Err(fault @ Fault::Fixed(_)) => Reply::end(553, &format!("Transition not allowed: {fault}")),
    }
}

/// `key=value key="quoted value" key`.
fn pairs(text: &str) -> Option<Vec<(String, Option<String>)>> {
    let (mut rest, mut pairs) = (text.trim_start(), Vec::new());
    while !rest.is_empty() {
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let (value, behind) = match behind.strip_prefix('=') {
            None => (None, behind),
            Some(value) if value.starts_with('"') => {
                let (value, behind) = unquoted(value)?;
                (Some(value), behind)
            }
            Some(value) => {
                let (value, behind) = value.split_at(value.find(' ').unwrap_or(value.len()));
                (Some(value.to_owned()), behind)
            }
        };
        pairs.push((key.to_owned(), value));
        rest = behind.trim_start();
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_in_every_form() {
        let pair = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        assert_eq!(
            pairs("a=1 b=\"x y\" c d=\"\""),
            Some(vec![pair("a", Some("1")), pair("b", Some("x y")), pair("c", None), pair("d", Some(""))])
        );
        assert_eq!(pairs("a=\"open"), None);
    }
}
