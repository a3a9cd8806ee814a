//! Parses one entry of a list of public proxies. An entry is `1.2.3.4:80`, a URL with or without a login,
//! `1.2.3.4:80:user:password`, a row of a table, or a JSON object. Pure.
//!
//! These lists are made by programs that copy other lists, so invalid entries of all kinds occur. If an entry has no
//! clear meaning, the entry is left out instead of guessed, because the machine at a guessed port is probably not a
//! proxy.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::exit::{Login, Protocol, PublicId};
use crate::net::Secret;

/// One proxy from a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: PublicId,
    /// The username and password for the proxy, if the entry contains them.
    pub login: Option<Login>,
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadEntry {
    #[error("its scheme is none of http, https, socks4, socks5")]
    Scheme,
    /// The entry has a host name instead of an address. Host names would have to be resolved, and free lists contain
    /// none.
    #[error("its host is not an address")]
    Host,
    /// The entry has no port, or its port is not a number from 1 to 65535.
    #[error("it has no valid port")]
    Port,
    /// The entry is empty, or is a JSON value that contains no proxy.
    #[error("it names no proxy")]
    Nothing,
    #[error("it is too long")]
    TooLong,
    #[error("its address is not on the public internet")]
    Private,
}

/// Returns the protocol that a URL scheme means. Lists write `https` for HTTP proxies that open tunnels.
fn protocol(word: &str) -> Option<Protocol> {
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is(&["http", "https"]) {
        Some(Protocol::Http)
    } else if is(&["socks4", "socks4a"]) {
        Some(Protocol::Socks4)
    } else if is(&["socks5", "socks5h", "socks"]) {
        Some(Protocol::Socks5)
    } else {
        None
    }
}

pub(in crate::source) fn port(text: &str) -> Result<u16, BadEntry> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port > 0).ok_or(BadEntry::Port)
}

fn ip(text: &str) -> Result<IpAddr, BadEntry> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| BadEntry::Host)
}

/// Parses a login as written in a URL: `username:password`, percent-encoded.
pub(in crate::source) fn login(text: &str) -> Login {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Login { user: decoded(user).into(), password: Secret::new(decoded(password)) }
}

/// Splits `host:port` or `host:port:user:password`, the form that sellers of proxies use, into the host, the port and the
/// login. `before` is the login that stood before the address; a login after the address is then ignored. Returns `None`
/// if there is no port.
pub(in crate::source) fn split_host_port_login(
    address: &str,
    before: Option<Login>,
) -> Option<(&str, &str, Option<Login>)> {
    let (host, tail) = match address.strip_prefix('[').and_then(|address| address.split_once(']')) {
        Some((host, tail)) => (host, tail.strip_prefix(':')?),
        None => address.split_once(':')?,
    };
    let (number, behind) = tail.split_once(':').map_or((tail, None), |(number, behind)| (number, Some(behind)));
    let after = behind.filter(|_| before.is_none()).map(|text| {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Login { user: user.into(), password: Secret::new(password) }
    });
    Some((host, number, before.or(after).filter(|login| !login.user.is_empty())))
}

/// Decodes percent-encoding. A text whose decoded bytes are not UTF-8 is returned unchanged.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// Parses a line of text. The text after the first space is a comment and is ignored. `fallback` is the protocol of an
/// entry without a URL scheme.
pub fn line(text: &str, fallback: Protocol) -> Result<Entry, BadEntry> {
    let word = text.split_whitespace().next().ok_or(BadEntry::Nothing)?;
    let (protocol, rest) = match word.split_once("://") {
        Some((scheme, rest)) => (protocol(scheme).ok_or(BadEntry::Scheme)?, rest),
        None => (fallback, word),
    };
    let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (before, address) = match rest.rsplit_once('@') {
        Some((before, address)) => (Some(login(before)), address),
        None => (None, rest),
    };
    let (host, number, login) = split_host_port_login(address, before).ok_or(BadEntry::Port)?;
    let addr = SocketAddr::new(ip(host)?, port(number)?);
    Ok(Entry { id: PublicId { protocol, addr }, login })
}

/// Parses a row of a table. The first columns contain the URL of the proxy, or its address and its port.
pub fn row(text: &str, fallback: Protocol) -> Result<Entry, BadEntry> {
    let mut cells = text.split([',', ';', '\t']).map(|cell| cell.trim().trim_matches('"'));
    let first = cells.next().unwrap_or_default();
    if first.contains("://") || first.contains(':') && ip(first).is_err() {
        return line(first, fallback);
    }
    let addr = SocketAddr::new(ip(first)?, port(cells.next().ok_or(BadEntry::Port)?)?);
    let protocol = cells.find_map(protocol).unwrap_or(fallback);
    Ok(Entry { id: PublicId { protocol, addr }, login: None })
}

/// Parses an element of a JSON array: a string as in [`line()`], or an object with the usual field names.
pub fn json(element: &[u8], fallback: Protocol) -> Result<Entry, BadEntry> {
    let value: Value = serde_json::from_slice(element).map_err(|_| BadEntry::Nothing)?;
    if let Value::String(text) = &value {
        return line(text, fallback);
    }
    let text = |names: &[&str]| names.iter().find_map(|name| value.get(name)?.as_str());
    let word = |value: &Value| value.as_str().and_then(protocol);
    let single = value.get("protocol").or_else(|| value.get("type")).and_then(word);
    let listed = || value.get("protocols").and_then(Value::as_array).and_then(|all| all.iter().find_map(word));
    let spoken = single.or_else(listed).unwrap_or(fallback);
    if let Some(url) = text(&["proxy", "url"]) {
        return line(url, spoken);
    }
    let host = text(&["ip", "host", "address", "addr"]).ok_or(BadEntry::Nothing)?;
    let number = match value.get("port") {
        Some(Value::String(text)) => port(text)?,
        Some(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or(BadEntry::Port)?,
        None => return line(host, spoken),
    };
    let id = PublicId { protocol: spoken, addr: SocketAddr::new(ip(host)?, number) };
    let user = text(&["username", "user"]).filter(|user| !user.is_empty());
    let password = text(&["password", "pass"]).unwrap_or_default();
    Ok(Entry { id, login: user.map(|user| Login { user: user.into(), password: Secret::new(password) }) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns an entry as text: `url`, or `url user password` if the entry has a login.
    fn shown(read: Result<Entry, BadEntry>) -> Result<String, BadEntry> {
        let Entry { id, login } = read?;
        let login = login.map(|login| format!(" {} {}", login.user, login.password.expose())).unwrap_or_default();
        Ok(format!("{}://{}{login}", id.protocol.as_str(), id.addr))
    }

    #[test]
    fn a_line_is_parsed_in_every_form_that_lists_use() {
        for (text, want) in [
            ("192.0.2.1:8080", Ok("http://192.0.2.1:8080")),
            ("  192.0.2.1:8080  # fast", Ok("http://192.0.2.1:8080")),
            ("socks5://192.0.2.1:1080", Ok("socks5://192.0.2.1:1080")),
            ("SOCKS5H://192.0.2.1:1080/", Ok("socks5://192.0.2.1:1080")),
            ("socks4a://192.0.2.1:1080", Ok("socks4://192.0.2.1:1080")),
            ("https://192.0.2.1:443", Ok("http://192.0.2.1:443")),
            ("http://[2001:db8::1]:80", Ok("http://[2001:db8::1]:80")),
            ("http://[::ffff:192.0.2.1]:80", Ok("http://192.0.2.1:80")),
            ("http://user:p%40ss@192.0.2.1:80", Ok("http://192.0.2.1:80 user p@ss")),
            ("http://user:p:w@192.0.2.1:80", Ok("http://192.0.2.1:80 user p:w")),
            ("192.0.2.1:80:user:pass", Ok("http://192.0.2.1:80 user pass")),
            ("", Err(BadEntry::Nothing)),
            ("<html>", Err(BadEntry::Port)),
            ("ftp://192.0.2.1:21", Err(BadEntry::Scheme)),
            ("192.0.2.1", Err(BadEntry::Port)),
            ("192.0.2.1:0", Err(BadEntry::Port)),
            ("192.0.2.1:65536", Err(BadEntry::Port)),
            ("192.0.2.1:+80", Err(BadEntry::Port)),
            ("999.0.2.1:80", Err(BadEntry::Host)),
            ("proxy.example.com:80", Err(BadEntry::Host)),
            ("[192.0.2.1:80", Err(BadEntry::Host)),
        ] {
            assert_eq!(shown(line(text, Protocol::Http)), want.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn rows_and_objects_are_parsed_with_the_usual_names() {
        for (text, want) in [
            ("socks5://192.0.2.1:4145,ZZ,Unknown", Ok("socks5://192.0.2.1:4145")),
            ("socks5://192.0.2.1:1145,CN,", Ok("socks5://192.0.2.1:1145")),
            ("192.0.2.1,3128,socks4,US", Ok("socks4://192.0.2.1:3128")),
            ("\"192.0.2.1\";\"3128\"", Ok("http://192.0.2.1:3128")),
            ("192.0.2.1:3128;elite", Ok("http://192.0.2.1:3128")),
            ("ip,port,protocol", Err(BadEntry::Host)),
            ("192.0.2.1", Err(BadEntry::Port)),
        ] {
            assert_eq!(shown(row(text, Protocol::Http)), want.map(str::to_owned), "{text}");
        }
        for (text, want) in [
            (r#"{"proxy":"http://188.114.96.92:80","protocol":"http","https":true}"#, Ok("http://188.114.96.92:80")),
            (r#"{"ip":"192.0.2.1","port":"80","protocols":["socks4","socks5"]}"#, Ok("socks4://192.0.2.1:80")),
            (r#"{"host":"192.0.2.1","port":80,"username":"a","password":"b"}"#, Ok("http://192.0.2.1:80 a b")),
            (r#"{"address":"192.0.2.1:80","type":"SOCKS5"}"#, Ok("socks5://192.0.2.1:80")),
            (r#""socks4://192.0.2.1:80""#, Ok("socks4://192.0.2.1:80")),
            (r#"{"ip":"192.0.2.1","port":70000}"#, Err(BadEntry::Port)),
            (r#"{"ip":7}"#, Err(BadEntry::Nothing)),
            ("7", Err(BadEntry::Nothing)),
            ("{", Err(BadEntry::Nothing)),
        ] {
            assert_eq!(shown(json(text.as_bytes(), Protocol::Http)), want.map(str::to_owned), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (line(&text, Protocol::Http), row(&text, Protocol::Socks4), json(&bytes, Protocol::Socks5));
        }

        #[test]
        fn every_proxy_is_parsed_from_every_form(ip: IpAddr, port in 1u16.., socks: bool) {
            let protocol = if socks { Protocol::Socks5 } else { Protocol::Http };
            let id = PublicId { protocol, addr: SocketAddr::new(ip.to_canonical(), port) };
            let text = format!("{}://{}", protocol.as_str(), id.addr);
            prop_assert_eq!(line(&text, Protocol::Socks4), Ok(Entry { id: id.clone(), login: None }));
            prop_assert_eq!(row(&format!("{text},US,x"), Protocol::Socks4), Ok(Entry { id: id.clone(), login: None }));
            let object = serde_json::json!({ "ip": id.addr.ip(), "port": port, "protocol": protocol.as_str() });
            prop_assert_eq!(json(object.to_string().as_bytes(), Protocol::Socks4), Ok(Entry { id, login: None }));
        }
    }
}
