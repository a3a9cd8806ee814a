//! Parses a list of proxies of one's own. Pure.
//!
//! Other than free lists (`source/list.rs`), such a list is written by its owner: it may contain host names and logins,
//! `https` means TLS to the proxy, and an entry that cannot be read is reported with its line. The report never
//! contains the entry itself, because an entry may contain a login.

use std::fmt;

use serde_json::Value;

use super::super::list::entry::{login, port, split_host_port_login};
use crate::exit::{Login, Protocol};
use crate::net::{Host, Secret, Target};

/// The largest number of proxies in one list.
const MOST: usize = 20_000;

/// One proxy of a list.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) protocol: Protocol,
    /// True if the connection to the proxy is encrypted with TLS.
    pub(super) tls: bool,
    pub(super) at: Target,
    /// The username and password for the proxy, if the entry contains them.
    pub(super) login: Option<Login>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.as_str(), self.at)
    }
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadEntry {
    #[error("its scheme is none of http, https, socks4, socks5")]
    Scheme,
    #[error("its host is neither an address nor a host name")]
    Host,
    #[error("it has no valid port")]
    Port,
    #[error("it names no proxy: write scheme://user:password@host:port, or host:port:user:password")]
    Nothing,
    #[error("the list has more than {MOST} proxies")]
    TooMany,
}

/// A list after parsing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    /// The entries that cannot be used: the number of the entry (in a text: of its line), counted from 1, and the
    /// reason.
    pub(super) bad: Vec<(usize, BadEntry)>,
}

/// Parses a list: one entry per line, or a JSON array of texts and objects. `scheme` is the URL scheme of entries that
/// have none. Lines that begin with `#` are comments.
pub(super) fn list(text: &str, scheme: &str) -> Result<Read, &'static str> {
    let text = text.trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with(['[', '{']) || text.trim_start().starts_with("[::") {
        let lines = text.lines().map(str::trim).enumerate();
        let entries = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        return Ok(collect(entries.map(|(at, text)| (at + 1, line(text, scheme)))));
    }
    let value: Value = serde_json::from_str(text).map_err(|_| "it is not valid JSON")?;
    let inner = value.as_object().and_then(|object| object.values().find(|inner| inner.is_array()));
    let items = inner.unwrap_or(&value).as_array().ok_or("it contains no JSON array")?;
    Ok(collect(items.iter().enumerate().map(|(at, item)| (at + 1, json(item, scheme)))))
}

fn collect(entries: impl Iterator<Item = (usize, Result<Entry, BadEntry>)>) -> Read {
    let mut read = Read::default();
    for (at, entry) in entries {
        match entry {
            Ok(_) if read.entries.len() >= MOST => {
                read.bad.push((at, BadEntry::TooMany));
                break;
            }
            Ok(entry) => read.entries.push(entry),
            Err(bad) => read.bad.push((at, bad)),
        }
    }
    read
}

/// Returns the protocol of a URL scheme, and true if the scheme means TLS to the proxy.
fn protocol(scheme: &str) -> Result<(Protocol, bool), BadEntry> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Ok((Protocol::Http, false)),
        "https" => Ok((Protocol::Http, true)),
        "socks4" | "socks4a" => Ok((Protocol::Socks4, false)),
        "socks5" | "socks5h" | "socks" => Ok((Protocol::Socks5, false)),
        _ => Err(BadEntry::Scheme),
    }
}

/// Parses one line: a URL, `user:password@host:port`, `host:port` or `host:port:user:password`. The text after the
/// first space is ignored.
pub(super) fn line(text: &str, scheme: &str) -> Result<Entry, BadEntry> {
    let word = text.split_whitespace().next().ok_or(BadEntry::Nothing)?;
    let (scheme, rest) = word.split_once("://").unwrap_or((scheme, word));
    let (protocol, tls) = protocol(scheme)?;
    let (before, address) = match rest.rsplit_once('@') {
        Some((before, address)) => (Some(login(before)), address),
        None => (None, rest),
    };
    let address = address.split(['/', '?', '#']).next().unwrap_or(address);
    let (host, number, login) = split_host_port_login(address, before).ok_or(BadEntry::Port)?;
    let at = target(host, port(number).map_err(|_| BadEntry::Port)?)?;
    Ok(Entry { protocol, tls, at, login })
}

fn target(host: &str, port: u16) -> Result<Target, BadEntry> {
    Target::new(Host::parse(host).map_err(|_| BadEntry::Host)?, port).map_err(|_| BadEntry::Port)
}

/// Parses an element of a JSON array: a text as in [`line()`], or an object with the usual field names.
fn json(value: &Value, scheme: &str) -> Result<Entry, BadEntry> {
    if let Value::String(text) = value {
        return line(text, scheme);
    }
    let text = |names: &[&str]| names.iter().find_map(|name| value.get(name)?.as_str());
    let scheme = text(&["protocol", "type", "scheme"]).unwrap_or(scheme);
    if let Some(url) = text(&["proxy", "url"]) {
        return line(url, scheme);
    }
    let host = text(&["host", "ip", "address", "proxy_address", "addr"]).ok_or(BadEntry::Nothing)?;
    let number = match value.get("port") {
        Some(Value::String(text)) => port(text).map_err(|_| BadEntry::Port)?,
        Some(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or(BadEntry::Port)?,
        None => return line(host, scheme),
    };
    let (protocol, tls) = protocol(scheme)?;
    let user = text(&["username", "user"]).filter(|user| !user.is_empty());
    let password = text(&["password", "pass"]).unwrap_or_default();
    let login = user.map(|user| Login { user: user.into(), password: Secret::new(password) });
    Ok(Entry { protocol, tls, at: target(host, number)?, login })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns an entry as text: scheme, host and port, and the login if there is one.
    fn shown(read: Result<Entry, BadEntry>) -> Result<String, BadEntry> {
        let Entry { protocol, tls, at, login } = read?;
        let tls = if tls { "+tls" } else { "" };
        let login = login.map(|login| format!(" {} {}", login.user, login.password.expose())).unwrap_or_default();
        Ok(format!("{}{tls} {at}{login}", protocol.as_str()))
    }

    #[test]
    fn a_line_may_have_a_host_name_a_login_and_tls() {
        for (text, want) in [
            ("proxy.example.com:3128", Ok("http proxy.example.com:3128")),
            ("https://u:p%40ss@Proxy.Example.com:443/", Ok("http+tls proxy.example.com:443 u p@ss")),
            ("socks5h://u:p:w@10.0.0.5:1080  # home", Ok("socks5 10.0.0.5:1080 u p:w")),
            ("socks4://[2001:db8::1]:1080", Ok("socks4 [2001:db8::1]:1080")),
            ("proxy.example.com:80:user:pa:ss", Ok("http proxy.example.com:80 user pa:ss")),
            ("u:p@proxy.example.com:80", Ok("http proxy.example.com:80 u p")),
            ("http://:@proxy.example.com:80", Ok("http proxy.example.com:80")),
            ("http://u:p/w@proxy.example.com:80", Ok("http proxy.example.com:80 u p/w")),
            ("ftp://1.2.3.4:21", Err(BadEntry::Scheme)),
            ("proxy.example.com", Err(BadEntry::Port)),
            ("proxy.example.com:0", Err(BadEntry::Port)),
            ("münchen.example:80", Err(BadEntry::Host)),
            ("127.1:80", Err(BadEntry::Host)),
            ("", Err(BadEntry::Nothing)),
        ] {
            assert_eq!(shown(line(text, "http")), want.map(str::to_owned), "{text}");
        }
        assert_eq!(shown(line("a.example:80", "https")), Ok("http+tls a.example:80".to_owned()));
    }

    #[test]
    fn text_and_json_are_told_apart_and_bad_entries_have_their_line() {
        let text = "\u{feff}# mine\n\na.example:80\nnothing\n[2001:db8::1]:80\n";
        let read = list(text, "socks5").unwrap();
        let shown_all = |read: &Read| read.entries.iter().cloned().map(|e| shown(Ok(e)).unwrap()).collect::<Vec<_>>();
        assert_eq!(shown_all(&read), ["socks5 a.example:80", "socks5 [2001:db8::1]:80"]);
        assert_eq!(read.bad, [(4, BadEntry::Port)]);
        let json = r#"{"results":[{"proxy_address":"1.2.3.4","port":80,"username":"u","password":"p"},
            {"host":"b.example","port":"443","protocol":"https"}, "socks4://c.example:1080", {"x":1}, 7]}"#;
        let read = list(json, "http").unwrap();
        let want = ["http 1.2.3.4:80 u p", "http+tls b.example:443", "socks4 c.example:1080"];
        assert_eq!(shown_all(&read), want);
        assert_eq!(read.bad, [(4, BadEntry::Nothing), (5, BadEntry::Nothing)]);
        assert_eq!(list("[1", "http"), Err("it is not valid JSON"));
        assert_eq!(list("{}", "http"), Err("it contains no JSON array"));
        assert_eq!(list("", "http"), Ok(Read::default()));
    }

    #[test]
    fn a_list_has_a_limit() {
        let text: String = (0..MOST + 5).map(|n| format!("a{n}.example:80\n")).collect();
        let read = list(&text, "http").unwrap();
        assert_eq!((read.entries.len(), read.bad), (MOST, vec![(MOST + 1, BadEntry::TooMany)]));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_error_shows_the_entry(text in "planted.{0,80}") {
            if let Err(bad) = line(&text, "http") {
                prop_assert!(!bad.to_string().contains("planted"));
            }
            let _ = list(&text, "socks5");
            let _ = list(&format!("[{text}"), "socks5");
        }
    }
}
