//! Parses the answer of an echo server: the IP address that the server sees, as plain text or in JSON.
//!
//! The answer arrives through an exit that is not trusted yet. So the answer must contain exactly one address, in one
//! of the forms that the well-known servers use. A list of addresses (`"origin": "a, b"`) is rejected: a proxy on the
//! way has added one of the addresses, and it is unknown which of them a site would see.

use std::net::IpAddr;

use serde::Deserialize;

/// The longest answer that is read, in bytes. The known servers send about 100 bytes, and some servers add a few
/// fields.
pub const LONGEST: usize = 4096;

/// The answer of an echo server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echoed {
    /// The address of the client, as the server sees it.
    pub ip: IpAddr,
    /// The random number (nonce) of the request, if the server repeated it in the body.
    pub nonce: Option<Box<str>>,
}

/// The four field names that servers use for the address. The users of these names are: ipify and most other servers,
/// check.torproject.org, httpbin, ip-api.
#[derive(Deserialize)]
struct JsonAnswer {
    #[serde(alias = "IP", alias = "origin", alias = "query")]
    ip: Box<str>,
    #[serde(default)]
    nonce: Option<Box<str>>,
}

/// Parses an answer. Returns `None` if the answer contains no address, or more than one.
pub fn read(body: &[u8]) -> Option<Echoed> {
    let text = str::from_utf8(body).ok().filter(|text| text.len() <= LONGEST)?.trim();
    let (ip, nonce) = if text.starts_with('{') {
        let answer: JsonAnswer = serde_json::from_str(text).ok()?;
        (answer.ip.trim().parse::<IpAddr>().ok()?, answer.nonce)
    } else {
        (text.parse().ok()?, None)
    };
    Some(Echoed { ip: ip.to_canonical(), nonce })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_form_that_servers_use() {
        for (body, ip, nonce) in [
            ("192.0.2.1", "192.0.2.1", None),
            (" 192.0.2.1\r\n", "192.0.2.1", None),
            ("2001:db8::1\n", "2001:db8::1", None),
            ("::ffff:192.0.2.1", "192.0.2.1", None),
            (r#"{"ip":"192.0.2.1"}"#, "192.0.2.1", None),
            (r#"{"IsTor":true,"IP":"192.0.2.1"}"#, "192.0.2.1", None),
            (r#"{"origin": "192.0.2.1", "nonce": "7f"}"#, "192.0.2.1", Some("7f")),
            (r#"{"query":"192.0.2.1","status":"success","nonce":null}"#, "192.0.2.1", None),
        ] {
            let want = Echoed { ip: ip.parse().unwrap(), nonce: nonce.map(Into::into) };
            assert_eq!(read(body.as_bytes()), Some(want), "{body}");
        }
    }

    #[test]
    fn an_answer_without_exactly_one_address_is_rejected() {
        let long = format!("{{\"ip\":\"192.0.2.1\",\"more\":\"{}\"}}", "x".repeat(LONGEST));
        for body in [
            "",
            "192.0.2",
            "192.0.2.1, 192.0.2.2",
            "<html>192.0.2.1</html>",
            "{}",
            r#"{"ip":7}"#,
            r#"{"ip":"192.0.2.1, 192.0.2.2"}"#,
            r#"{"ip":"192.0.2.1","query":"192.0.2.2"}"#,
            r#"{"ip":"192.0.2.1""#,
            r#"["192.0.2.1"]"#,
            &long,
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
        assert_eq!(read(b"\xff\xfe"), None);
    }

    proptest! {
        #[test]
        fn no_answer_panics(body in prop::collection::vec(any::<u8>(), 0..200), json in r#"\{"(ip|IP|origin|query)":.{0,40}\}"#) {
            let _ = read(&body);
            let _ = read(json.as_bytes());
        }

        #[test]
        fn an_address_survives_every_form(ip: IpAddr, key in "ip|IP|origin|query") {
            let want = Some(Echoed { ip: ip.to_canonical(), nonce: None });
            prop_assert_eq!(read(ip.to_string().as_bytes()), want.clone());
            prop_assert_eq!(read(format!("{{\"{key}\":\"{ip}\"}}").as_bytes()), want);
        }
    }
}
