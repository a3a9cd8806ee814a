//! The documents of a ProxiFly list: no I/O.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::mix::{Protocol, Proxy};
use crate::dates;

/// Which proxies a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    All,
    Protocol(Protocol),
    /// HTTP proxies that accept CONNECT. They are in the HTTP list too, so a reader of both must remove duplicates.
    Https,
    Country(&'a str),
}

impl<'a> Scope<'a> {
    /// The scope of a path such as `protocols/socks5`.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        match path.split_once('/') {
            None if path == "all" => Some(Self::All),
            Some(("protocols", "http")) => Some(Self::Protocol(Protocol::Http)),
            Some(("protocols", "https")) => Some(Self::Https),
            Some(("protocols", "socks4")) => Some(Self::Protocol(Protocol::Socks4)),
            Some(("protocols", "socks5")) => Some(Self::Protocol(Protocol::Socks5)),
            Some(("countries", country)) if country.len() == 2 => Some(Self::Country(country)),
            _ => None,
        }
    }

    fn holds(self, proxy: &Proxy) -> bool {
        match self {
            Self::All => true,
            Self::Protocol(protocol) => proxy.protocol == protocol,
            Self::Https => proxy.listed_https,
            Self::Country(country) => proxy.listed_country == country,
        }
    }
}

/// `data.json`, `data.txt` or `data.csv` of a scope.
pub(super) fn document(proxies: &[Proxy], scope: Scope<'_>, file: &str) -> Option<(&'static str, String)> {
    let shown = proxies.iter().filter(|proxy| scope.holds(proxy));
    match file {
        "data.json" => {
            let entries: Vec<Value> = shown.map(entry).collect();
            Some(("application/json; charset=utf-8", serde_json::to_string_pretty(&entries).ok()?))
        }
        "data.txt" => Some(("text/plain; charset=utf-8", shown.map(|proxy| format!("{}\n", proxy.url())).collect())),
        "data.csv" => {
            let row = |proxy: &Proxy| format!("{},{},{}\n", proxy.url(), proxy.listed_country, city(proxy));
            Some(("text/csv; charset=utf-8", shown.map(row).collect()))
        }
        _ => None,
    }
}

/// `meta/data.json`. As in the real one, `https` is counted apart from `http`: the four protocols add up to `all`.
pub(super) fn meta(proxies: &[Proxy], published: u64) -> String {
    let count = |holds: &dyn Fn(&Proxy) -> bool| proxies.iter().filter(|proxy| holds(proxy)).count();
    let mut countries = BTreeMap::new();
    for proxy in proxies {
        *countries.entry(proxy.listed_country).or_insert(0u32) += 1;
    }
    let totals = json!({
        "timestamp": format!("{}.000Z", dates::stamp(published).replace(' ', "T")),
        "totals": {
            "all": proxies.len(),
            "protocols": {
                "http": count(&|proxy| proxy.protocol == Protocol::Http && !proxy.listed_https),
                "https": count(&|proxy| proxy.listed_https),
                "socks4": count(&|proxy| proxy.protocol == Protocol::Socks4),
                "socks5": count(&|proxy| proxy.protocol == Protocol::Socks5),
            },
            "countries": countries,
        },
    });
    format!("{totals:#}")
}

fn entry(proxy: &Proxy) -> Value {
    json!({
        "proxy": proxy.url(),
        "protocol": proxy.protocol,
        "ip": proxy.address.ip(),
        "port": proxy.address.port(),
        "https": proxy.listed_https,
        "anonymity": proxy.listed_anonymity,
        "score": 1,
        "geolocation": { "country": proxy.listed_country, "city": city(proxy) },
    })
}

fn city(proxy: &Proxy) -> &'static str {
    if proxy.listed_country == "ZZ" { "Unknown" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::mix::{Kind, Mix, lay_out};
    use crate::sandbox::Sandbox;

    fn proxies() -> Vec<Proxy> {
        lay_out(&Mix::of(&[(Kind::Good, 24)]), &Sandbox::claim().unwrap()).unwrap()
    }

    #[test]
    fn the_counts_of_the_meta_document_add_up() {
        let meta: Value = serde_json::from_str(&meta(&proxies(), 1_765_576_343)).unwrap();
        let protocols = meta["totals"]["protocols"].as_object().unwrap();
        assert_eq!(protocols.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 24);
        assert_eq!(meta["timestamp"], "2025-12-12T21:52:23.000Z");
    }

    #[test]
    fn every_scope_and_format() {
        let proxies = proxies();
        let lines = |path: &str, file: &str| {
            document(&proxies, Scope::parse(path)?, file).map(|(_, text)| text.lines().count())
        };
        assert_eq!(lines("all", "data.txt"), Some(24));
        assert_eq!(lines("protocols/http", "data.txt"), Some(12));
        assert_eq!(lines("protocols/socks4", "data.csv"), Some(6));
        assert!(lines("protocols/https", "data.txt").is_some_and(|count| (1..12).contains(&count)));
        assert!(lines("countries/ZZ", "data.txt").is_some_and(|count| count > 0));
        for (path, file) in
            [("all", "data.xml"), ("protocols/ftp", "data.txt"), ("countries/USA", "data.txt"), ("x", "data.txt")]
        {
            assert_eq!(lines(path, file), None, "{path}/{file}");
        }
        let (_, json) = document(&proxies, Scope::All, "data.json").unwrap();
        let first = &serde_json::from_str::<Value>(&json).unwrap()[0];
        assert_eq!((&first["protocol"], &first["port"], &first["score"]), (&"http".into(), &8080.into(), &1.into()));
    }
}
