//! Reads `Proxy-Authorization: Basic`: the username selects the exit, and the password is the client's key.
//!
//! This field never reaches a target: [`super::framing::Options::ends`] drops it. The base64 decoder must be strict. A
//! decoder that accepts missing padding or unused bits would accept one key in several spellings. Each spelling of a
//! wrong key would then count as another wrong key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::head::Fields;
use crate::gateway::failure::{AuthFault, ClientFault, Failure};

/// The username and the password of a request, in the form in which the client sent them: `username:password`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    text: Vec<u8>,
    /// The length of the username in bytes.
    username: usize,
}

impl Credentials {
    /// Reads the first `Proxy-Authorization` field. If there is no such field, the username and the password are empty.
    /// A field that cannot be parsed is refused like a wrong key.
    pub fn read(fields: &Fields<'_>) -> Result<Self, Failure> {
        let Some(field) = fields.get("proxy-authorization") else { return Ok(Self::default()) };
        let wrong = Failure::Auth(AuthFault::Wrong);
        let (scheme, text) = field.value.split_at(field.value.iter().position(|&b| b == b' ').ok_or(wrong)?);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(Failure::Auth(AuthFault::Missing));
        }
        let text = STANDARD.decode(text.trim_ascii()).map_err(|_| wrong)?;
        let username = text.iter().position(|&b| b == b':').ok_or(wrong)?;
        match str::from_utf8(&text[..username]) {
            Ok(_) => Ok(Self { text, username }),
            Err(_) => Err(Failure::Client(ClientFault::Username)),
        }
    }

    /// Returns the username. The text is empty if the client sent none.
    pub fn username(&self) -> &str {
        str::from_utf8(&self.text[..self.username]).unwrap_or_default()
    }

    /// Returns the password. Returns `None` if the client sent no password or an empty one.
    pub fn password(&self) -> Option<&[u8]> {
        self.text.get(self.username + 1..).filter(|password| !password.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Result<(String, Option<String>), Failure> {
        let line = format!("Proxy-Authorization: {value}\r\n");
        let read = Credentials::read(&Fields::check(line.as_bytes()).unwrap())?;
        Ok((read.username().to_owned(), read.password().map(|p| String::from_utf8_lossy(p).into_owned())))
    }

    #[test]
    fn a_username_and_a_password_are_read_and_bad_encodings_are_wrong_keys() {
        let nobody = Credentials::read(&Fields::check(b"").unwrap()).unwrap();
        assert_eq!((nobody.username(), nobody.password()), ("", None));
        for (value, want) in [
            ("Basic dXM6aw==", Ok(("us", Some("k")))),
            ("basic  dXM6aw==", Ok(("us", Some("k")))),
            ("Basic dXM6", Ok(("us", None))),
            ("Basic Og==", Ok(("", None))),
            ("Basic dXM6azpr", Ok(("us", Some("k:k")))),
            ("Bearer dXM6aw==", Err(Failure::Auth(AuthFault::Missing))),
            ("Basic", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dXM", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dXM6aw", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dXM6ax==", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dXM6a===", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dX*6aw==", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dX=6aw==", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic dXM=", Err(Failure::Auth(AuthFault::Wrong))),
            ("Basic /zpr", Err(Failure::Client(ClientFault::Username))),
        ] {
            let want = want.map(|(user, key): (&str, Option<&str>)| (user.to_owned(), key.map(str::to_owned)));
            assert_eq!(read(value), want, "{value}");
        }
    }

    proptest! {
        #[test]
        fn each_text_has_one_spelling(spelling in "[A-Za-z0-9+/]{0,11}={0,2}") {
            if let Ok(text) = STANDARD.decode(&spelling) {
                prop_assert_eq!(STANDARD.encode(text), spelling);
            }
        }
    }
}
