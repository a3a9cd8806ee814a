//! `Proxy-Authorization: Basic`: the user name says which way, the password says who.
//!
//! The field is read here and ends here: [`super::framing::Options::ends`] keeps it from every target. Decoding is ours
//! because it is twenty lines, and because a decoder that is lax about padding or stray bits accepts one key in several
//! spellings, which would let a guesser get round the count of its guesses.

use super::head::Fields;
use crate::gateway::failure::{AuthFault, ClientFault, Failure};

/// What a client said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    text: Vec<u8>,
    username: usize,
}

impl Credentials {
    /// Reads the first `Proxy-Authorization`. None at all is nobody; one that cannot be read is a wrong key.
    pub fn read(fields: &Fields<'_>) -> Result<Self, Failure> {
        let Some(field) = fields.get("proxy-authorization") else { return Ok(Self::default()) };
        let wrong = Failure::Auth(AuthFault::Wrong);
        let (scheme, text) = field.value.split_at(field.value.iter().position(|&b| b == b' ').ok_or(wrong)?);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(Failure::Auth(AuthFault::Missing));
        }
        let text = decode(text.trim_ascii()).ok_or(wrong)?;
        let username = text.iter().position(|&b| b == b':').ok_or(wrong)?;
        match str::from_utf8(&text[..username]) {
            Ok(_) => Ok(Self { text, username }),
            Err(_) => Err(Failure::Client(ClientFault::Username)),
        }
    }

    /// The user name; empty if none was given.
    pub fn username(&self) -> &str {
        str::from_utf8(&self.text[..self.username]).unwrap_or_default()
    }

    /// The password; none if none was given, or an empty one.
    pub fn password(&self) -> Option<&[u8]> {
        self.text.get(self.username + 1..).filter(|password| !password.is_empty())
    }
}

/// Standard base64 with its padding, in the one spelling that each text has.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for &byte in &text[..text.len() - padding] {
        bits = bits << 6 | u32::from(sextet(byte)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    (bits & ((1 << held) - 1) == 0).then_some(out)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
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
    fn user_and_password() {
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
            if let Some(text) = decode(spelling.as_bytes()) {
                prop_assert_eq!(encode(&text), spelling);
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(encode(&text).as_bytes()), Some(text));
        }
    }

    /// The slow reference.
    fn encode(text: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for group in text.chunks(3) {
            let word = (0..3).fold(0usize, |word, i| word << 8 | usize::from(*group.get(i).unwrap_or(&0)));
            for i in 0..4 {
                let digit = ALPHABET[word >> (18 - 6 * i) & 63] as char;
                out.push(if i <= group.len() { digit } else { '=' });
            }
        }
        out
    }
}
