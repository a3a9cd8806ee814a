//! Logging in: a cookie, a cookie that nobody sends, a password, or nothing.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::Reply;
use crate::hex;
use crate::tor::engine::Engine;
use crate::torrc::{quoted, unquoted};

const SERVER_KEY: &[u8] = b"Tor safe cookie authentication server-to-controller hash";
const CLIENT_KEY: &[u8] = b"Tor safe cookie authentication controller-to-server hash";

/// Marks hashes that this program has made. tor's own are made by another function, which nobody here needs.
const OURS: &str = "16:51";

/// How far a connection has logged in.
#[derive(Debug, Default)]
pub(super) struct Login {
    pub(super) done: bool,
    expected: Option<Vec<u8>>,
}

/// The answer to `--hash-password`.
pub(crate) fn hashed(password: &str) -> String {
    format!("{OURS}{}", hex::write(&Sha256::digest(password)).to_ascii_uppercase())
}

fn methods(engine: &Engine) -> Vec<&'static str> {
    let torrc = engine.torrc();
    let mut methods = Vec::new();
    if torrc.is_on("CookieAuthentication") {
        methods.extend(["COOKIE", "SAFECOOKIE"]);
    }
    if torrc.all("HashedControlPassword").next().is_some() {
        methods.push("HASHEDPASSWORD");
    }
    if methods.is_empty() { vec!["NULL"] } else { methods }
}

/// PROTOCOLINFO.
pub(super) fn protocol_info(engine: &Engine) -> Reply {
    let methods = methods(engine);
    let cookie = match methods.contains(&"COOKIE") {
        true => format!(" COOKIEFILE={}", quoted(&engine.home.cookie_path().to_string_lossy())),
        false => String::new(),
    };
    let version = engine.with(|state| state.conduct.version.clone());
    let mut reply = Reply("250-PROTOCOLINFO 1\r\n".to_owned());
    reply.mid(&format!("AUTH METHODS={}{cookie}", methods.join(",")));
    reply.mid(&format!("VERSION Tor=\"{version}\""));
    reply.0.push_str("250 OK\r\n");
    reply
}

/// AUTHCHALLENGE: proves that we know the cookie, and remembers what proves that the other end does.
pub(super) fn challenge(engine: &Engine, login: &mut Login, rest: &str) -> Option<Reply> {
    let nonce = match rest.split_once(' ') {
        Some((method, nonce)) if method.eq_ignore_ascii_case("SAFECOOKIE") => nonce.trim(),
        _ => return None,
    };
    let nonce = match unquoted(nonce) {
        Some((text, _)) => text.into_bytes(),
        None => hex::read(nonce)?,
    };
    let ours: [u8; 32] = rand::random();
    let message = [&engine.home.cookie()[..], &nonce, &ours].concat();
    login.expected = Some(mac(CLIENT_KEY, &message));
    let (proof, ours) = (hex::write(&mac(SERVER_KEY, &message)), hex::write(&ours));
    let upper = |text: String| text.to_ascii_uppercase();
    Some(Reply::end(250, &format!("AUTHCHALLENGE SERVERHASH={} SERVERNONCE={}", upper(proof), upper(ours))))
}

/// AUTHENTICATE; the error is why not.
pub(super) fn authenticate(engine: &Engine, login: &mut Login, rest: &str) -> Result<(), &'static str> {
    let methods = methods(engine);
    let given = match unquoted(rest) {
        Some((text, _)) => text.into_bytes(),
        None => hex::read(rest).unwrap_or_else(|| rest.as_bytes().to_vec()),
    };
    let torrc = engine.torrc();
    let by_cookie = methods.contains(&"COOKIE") && given == engine.home.cookie();
    let by_proof = login.expected.as_ref().is_some_and(|expected| *expected == given);
    let password = String::from_utf8_lossy(&given).into_owned();
    let by_password = torrc.all("HashedControlPassword").any(|hash| hash == hashed(&password));
    if methods == ["NULL"] || by_cookie || by_proof || by_password {
        login.done = true;
        return Ok(());
    }
    Err(match (methods.contains(&"HASHEDPASSWORD"), login.expected.is_some(), given.len()) {
        (_, true, _) => "Authentication failed: Safe cookie response did not match expected value.",
        (true, ..) => "Authentication failed: Password did not match HashedControlPassword *or* authentication cookie.",
        (false, false, 32) => "Authentication failed: Authentication cookie did not match expected value.",
        _ => "Authentication failed: Wrong length on authentication cookie.",
    })
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // A key of any length will do for HMAC, so that there is no error to meet.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
