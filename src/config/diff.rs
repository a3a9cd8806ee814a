//! Compares two configurations. Finds out which keys changed, and which of them take effect without a restart.
//!
//! Each configuration is converted to a map from every key to its value as text, so no key can be forgotten. Entries of
//! lists are identified by their `name`, so a new order of routes in the file is not a change. Secrets, and the files
//! that contain secrets, are compared by their digest. No value leaves this module.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::secret::{digest, digest_of};
use super::{Config, Exposure, Log, ProxiesFrom, schema};

/// The keys that need a restart. They determine a socket, a process or a file that is created only once. All keys
/// inside these keys need a restart too.
const RESTART: [&str; 22] = [
    "data_dir",
    "log.file",
    "log.format",
    "log.keep",
    "log.rotate",
    "gateway.listen",
    "gateway.route_bind",
    "gateway.max_connections",
    "gateway.max_sessions",
    "gateway.max_implicit_routes",
    "gateway.implicit_idle",
    "api.listen",
    "api.console",
    "tor.enabled",
    "tor.binary",
    "tor.engines",
    "tor.attach",
    "tor.geoip_file",
    "tor.geoip6_file",
    "sources",
    "check",
    "store",
];

/// A map from the path of every key to the key's value as text.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct FlatKeys(BTreeMap<String, String>);

impl fmt::Debug for FlatKeys {
    /// Prints only the number of keys, because some values are digests of secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlatKeys({} keys)", self.0.len())
    }
}

/// The paths of the keys that changed, such as `gateway.hedge` or `routes[shop].pool`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The keys whose new values take effect with the reload.
    pub live: Vec<String>,
    /// The keys whose new values take effect at the next start.
    pub restart: Vec<String>,
}

impl Changes {
    #[cfg_attr(feature = "dead-code", allow(dead_code, reason = "tests and fuzz targets use it"))]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |keys: &[String]| keys.join(", ");
        match (self.live.is_empty(), self.restart.is_empty()) {
            (true, true) => f.write_str("nothing changed"),
            (false, true) => write!(f, "changed: {}", list(&self.live)),
            (true, false) => write!(f, "waits for a restart: {}", list(&self.restart)),
            (false, false) => {
                write!(f, "changed: {}; waits for a restart: {}", list(&self.live), list(&self.restart))
            }
        }
    }
}

impl Config {
    /// Replaces all values that need no restart by the values of `new`.
    pub fn take_live(&mut self, new: Self) {
        let waits = |(key, _): &(&String, &String)| needs_restart(key);
        let kept = self.flat.0.iter().filter(waits).chain(new.flat.0.iter().filter(|entry| !waits(entry)));
        let flat = FlatKeys(kept.map(|(key, value)| (key.clone(), value.clone())).collect());
        let old = std::mem::replace(self, new);
        self.flat = flat;
        self.data_dir = old.data_dir;
        self.log = Log { level: self.log.level.clone(), targets: self.log.targets, ..old.log };
        let gateway = &mut self.gateway;
        gateway.listen = old.gateway.listen;
        gateway.route_bind = old.gateway.route_bind;
        gateway.max_connections = old.gateway.max_connections;
        gateway.max_sessions = old.gateway.max_sessions;
        gateway.max_implicit_routes = old.gateway.max_implicit_routes;
        gateway.implicit_idle = old.gateway.implicit_idle;
        (self.api.listen, self.api.console) = (old.api.listen, old.api.console);
        let tor = &mut self.tor;
        tor.enabled = old.tor.enabled;
        tor.binary = old.tor.binary;
        tor.engines = old.tor.engines;
        tor.attach = old.tor.attach;
        tor.geoip_file = old.tor.geoip_file;
        tor.geoip6_file = old.tor.geoip6_file;
        (self.sources, self.check, self.store) = (old.sources, old.check, old.store);
        // The exposure is computed from the addresses that listen now, because new addresses are not opened before a
        // restart.
        self.exposure = Exposure::of(&self.gateway, &self.api);
    }
}

/// Compares two configurations. Files that contain a secret, a certificate or torrc lines are compared too.
pub fn diff(old: &Config, new: &Config) -> Changes {
    let (old, new) = (&old.flat.0, &new.flat.0);
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    // The path of a list entry (`routes[shop]`) sorts before the paths of its keys. If the whole entry is new or was
    // removed, its keys are not listed.
    let mut whole: Vec<String> = Vec::new();
    for key in changed {
        let inside = whole.last().is_some_and(|entry| entry.ends_with(']') && key.starts_with(&format!("{entry}.")));
        if !inside {
            whole.push(key.clone());
        }
    }
    let (restart, live) = whole.into_iter().partition(|key| needs_restart(key));
    Changes { live, restart }
}

pub(super) fn needs_restart(key: &str) -> bool {
    RESTART
        .iter()
        .any(|listed| key.strip_prefix(listed).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

impl FlatKeys {
    /// Creates the map from the file's keys, and adds the digests of the files that the configuration names.
    pub(super) fn of(file: &schema::File, config: &Config) -> Self {
        let mut keys = BTreeMap::new();
        if let Ok(value) = serde_json::to_value(file) {
            flatten("", &value, &mut keys);
        }
        for key in &config.gateway.keys {
            keys.insert(format!("gateway.keys[{}].key", key.name), digest(&key.secret));
        }
        if let Some(tls) = &config.gateway.tls {
            let chain: Vec<u8> = tls.certified.cert.iter().flat_map(|cert| cert.iter().copied()).collect();
            keys.insert("gateway.tls.cert".to_owned(), format!("{} {}", tls.cert.display(), digest_of(&chain)));
        }
        for (name, token) in [("token", &config.api.token), ("read_token", &config.api.read_token)] {
            keys.insert(format!("api.{name}"), token.as_ref().map(digest).unwrap_or_default());
        }
        for (index, engine) in config.tor.attach.iter().enumerate() {
            let password = engine.password.as_ref().map(digest).unwrap_or_default();
            keys.insert(format!("tor.attach[{index}].password"), password);
        }
        for source in &config.sources.upstream {
            if let ProxiesFrom::Gateway(gateway) = &source.proxies {
                let key = format!("sources.upstream[{}].password", source.name.as_str());
                keys.insert(key, digest(&gateway.password));
            }
        }
        for (name, path) in [("tor.torrc", &config.tor.torrc), ("check.ca_file", &config.check.ca_file)] {
            if let Some(path) = path {
                let content = std::fs::read(path).unwrap_or_default();
                keys.insert(name.to_owned(), format!("{} {}", path.display(), digest_of(&content)));
            }
        }
        Self(keys)
    }
}

fn flatten(path: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    let dot = if path.is_empty() { "" } else { "." };
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, inner)| flatten(&format!("{path}{dot}{key}"), inner, keys));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                let entry = format!("{path}[{name}]");
                keys.insert(entry.clone(), String::new());
                flatten(&entry, item, keys);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Null => {}
        plain => _ = keys.insert(path.to_owned(), plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn config(text: &str) -> Config {
        parse("t.toml", text, [], None).unwrap_or_else(|faults| panic!("{faults}")).0
    }

    fn changes(old: &str, new: &str) -> String {
        diff(&config(old), &config(new)).to_string()
    }

    #[test]
    fn changes_are_live_or_need_a_restart() {
        assert_eq!(changes("", "[log]\nlevel = 'info'\n[gateway]\nidle_timeout = '900s'"), "nothing changed");
        assert_eq!(changes("", "[log]\nlevel = 'debug'"), "changed: log.level");
        assert_eq!(changes("", "data_dir = 'x'"), "waits for a restart: data_dir");
        assert_eq!(
            changes("[tor]\nattach = [{ control = 'a:1', socks = 'a:2' }]", "[gateway]\nhedge = 0.1"),
            "changed: gateway.hedge; waits for a restart: tor.attach[0]"
        );
        assert_eq!(
            changes("", "[gateway]\nlisten = '127.0.0.1:2'\nroute_ports = 7"),
            "changed: gateway.route_ports; waits for a restart: gateway.listen"
        );
    }

    #[test]
    fn list_entries_are_identified_by_name() {
        let (a, b) = ("[[routes]]\nname = 'a'\nselector = 'us'\n", "[[routes]]\nname = 'b'\nselector = 'de'\n");
        assert_eq!(changes(&format!("{a}{b}"), &format!("{b}{a}")), "nothing changed");
        assert_eq!(changes(a, &format!("{b}{a}")), "changed: routes[b]");
        assert_eq!(changes(a, b), "changed: routes[a], routes[b]");
        assert_eq!(changes(a, &format!("{a}pool = 2\nhops = 2\n")), "changed: routes[a].hops, routes[a].pool");
    }

    #[test]
    fn secrets_are_compared_and_never_shown() {
        let key = |secret: &str| format!("[[gateway.keys]]\nname = 'a'\nkey = '{secret}'\n[api]\ntoken = '{secret}'");
        let (old, new) = (key("correct-horse-battery"), key("staple-staple-staple"));
        assert_eq!(changes(&old, &old), "nothing changed");
        assert_eq!(changes(&old, &new), "changed: api.token, gateway.keys[a].key");
        assert!(!format!("{:?}", config(&old)).contains("horse"));
    }

    #[test]
    fn a_changed_secret_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let text = format!("[[gateway.keys]]\nname = 'a'\nkey_file = '{}'", path.display());
        std::fs::write(&path, "correct-horse-battery\n").unwrap();
        let old = config(&text);
        std::fs::write(&path, "staple-staple-staple\n").unwrap();
        assert_eq!(diff(&old, &config(&text)).live, ["gateway.keys[a].key"]);
    }

    #[test]
    fn a_reload_takes_over_all_but_restart_keys() {
        let old = config("[gateway]\nlisten = '127.0.0.1:1'\nhedge = 0.2\n[tor]\nengines = 3\n[check]\nprobes = 5");
        let new = config("data_dir = 'x'\n[gateway]\nhedge = 0.1\n[log]\nlevel = 'debug'\n[store]\nkeep_checks = '3d'");
        let mut running = old.clone();
        running.take_live(new.clone());
        assert_eq!(diff(&old, &running).to_string(), "changed: gateway.hedge, log.level");
        assert_eq!(diff(&running, &new).live, [""; 0], "and the rest still waits");
        assert_eq!(diff(&running, &new).restart, diff(&old, &new).restart);
        let structure = |config: &Config| {
            let Config { data_dir, gateway, tor, check, store, .. } = config.clone();
            (data_dir, gateway.listen, tor.engines, check.probes, store)
        };
        assert_eq!(structure(&running), structure(&old));
        assert_eq!((running.gateway.hedge, &*running.log.level), (0.1, "debug"));
    }

    #[test]
    fn restart_keys_are_keys() {
        let flat = FlatKeys::of(&schema::File::default(), &Config::default());
        for key in RESTART {
            let known = flat.0.keys().any(|known| known == key || known.starts_with(&format!("{key}.")));
            assert!(
                known || ["log.file", "tor.attach", "tor.geoip_file", "tor.geoip6_file"].contains(&key),
                "{key} is no key"
            );
        }
    }
}
