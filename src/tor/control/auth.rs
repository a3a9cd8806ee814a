//! Logs in to tor's control port. There are three methods: no credentials, a cookie file, or a password.
//!
//! If tor offers the method SAFECOOKIE, this method is used: both ends prove that they know the content of the cookie
//! file, and neither end sends the content.
//!
//! The method COOKIE is not safe with a path that the other end sent: we would send the content of the file at that
//! path. A fake tor on the control port could then read any file of 32 bytes that our user may read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt as _;
use sha2::Sha256;
use tokio::io::AsyncReadExt as _;

use super::{Command, Control, ControlError};
use crate::net::Secret;
use crate::tor::reply::{Reply, pairs, quote, unquote};

/// The length of a cookie in bytes. tor's cookies have exactly this length.
const COOKIE: usize = 32;

const SERVER_KEY: &[u8] = b"Tor safe cookie authentication server-to-controller hash";
const CLIENT_KEY: &[u8] = b"Tor safe cookie authentication controller-to-server hash";

/// The credentials for a control port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Any method that needs no settings: no credentials, or SAFECOOKIE with the file whose path tor sends.
    #[default]
    Offered,
    /// Use this cookie file, even if tor sends another path, because tor may run in another file system.
    CookieFile(PathBuf),
    /// Use this password.
    Password(Secret),
}

/// The values in tor's answer to the command PROTOCOLINFO.
#[derive(Debug, Default)]
struct Offer {
    methods: String,
    cookie_file: Option<PathBuf>,
}

impl Offer {
    fn read(reply: &Reply) -> Self {
        let mut offer = Self::default();
        for line in reply.lines() {
            let Some(auth) = line.text.strip_prefix("AUTH ") else { continue };
            for (key, value) in pairs(auth) {
                match key {
                    "METHODS" => offer.methods = value.into_owned(),
                    "COOKIEFILE" => offer.cookie_file = Some(PathBuf::from(&*value)),
                    _ => {}
                }
            }
        }
        offer
    }

    fn has(&self, method: &str) -> bool {
        self.methods.split(',').any(|offered| offered == method)
    }
}

impl Control {
    pub(super) async fn log_in(&self, auth: &Auth) -> Result<(), ControlError> {
        let offer = Offer::read(&self.command(&Command::new("PROTOCOLINFO").arg(1)).await?);
        let no_way_in = || ControlError::NoWayIn { methods: offer.methods.clone() };
        let proof = match auth {
            Auth::Password(password) if offer.has("HASHEDPASSWORD") => quote(password.expose()),
            _ if offer.has("NULL") => String::new(),
            Auth::Password(_) => return Err(no_way_in()),
            Auth::Offered | Auth::CookieFile(_) => {
                let given = if let Auth::CookieFile(path) = auth { Some(path) } else { None };
                let path = given.or(offer.cookie_file.as_ref()).ok_or_else(no_way_in)?;
                if offer.has("SAFECOOKIE") {
                    self.prove(&read_cookie(path).await?).await?
                } else if offer.has("COOKIE") && given.is_some() {
                    // The content of a cookie file is sent only if the operator configured the path of the file. If tor
                    // sent the path, a fake tor could read other files.
                    hex(&read_cookie(path).await?)
                } else {
                    return Err(no_way_in());
                }
            }
        };
        self.command(&Command::new("AUTHENTICATE").arg(proof)).await.map(drop)
    }

    /// Runs the SAFECOOKIE method: checks tor's proof that it knows the cookie, then returns our own proof.
    async fn prove(&self, cookie: &[u8; COOKIE]) -> Result<String, ControlError> {
        let verb = "AUTHCHALLENGE";
        let nonce: [u8; 32] = rand::rng().random();
        let reply = self.command(&Command::new(verb).arg("SAFECOOKIE").arg(hex(&nonce))).await?;
        let field = |name: &str| {
            let value = pairs(reply.text()).find(|(key, _)| *key == name).map(|(_, value)| value.into_owned());
            value.and_then(|text| unhex(&text)).ok_or(ControlError::Unexpected { verb })
        };
        let (server_hash, server_nonce) = (field("SERVERHASH")?, field("SERVERNONCE")?);
        let message = [&cookie[..], &nonce, &server_nonce].concat();
        mac(SERVER_KEY, &message).verify_slice(&server_hash).map_err(|_| ControlError::Impostor)?;
        Ok(hex(&mac(CLIENT_KEY, &message).finalize().into_bytes()))
    }
}

fn mac(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    // HMAC accepts a key of any length, so this never fails.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(message);
    mac
}

/// Reads a cookie file. Never reads more bytes than a cookie has.
async fn read_cookie(path: &Path) -> Result<[u8; COOKIE], ControlError> {
    let fault = |why: String| ControlError::Cookie { path: path.display().to_string(), why };
    let file = tokio::fs::File::open(path).await.map_err(|e| fault(e.to_string()))?;
    let mut bytes = Vec::with_capacity(COOKIE + 1);
    file.take(COOKIE as u64 + 1).read_to_end(&mut bytes).await.map_err(|e| fault(e.to_string()))?;
    bytes.try_into().map_err(|_| fault("a cookie is 32 bytes, this file is not".to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Returns the version in an answer to PROTOCOLINFO, for example `0.4.9.11` from `VERSION Tor="0.4.9.11"`.
pub(super) fn version_text(reply: &Reply) -> Option<String> {
    let text = reply.lines().iter().find_map(|line| line.text.strip_prefix("VERSION Tor="))?;
    unquote(text).map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_back() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        for bad in ["0", "0g", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_keyed_hash_is_hmac_sha256() {
        // Test case 2 of RFC 4231.
        let got = mac(b"Jefe", b"what do ya want for nothing?").finalize().into_bytes();
        assert_eq!(hex(&got), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
