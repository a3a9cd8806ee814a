//! Converts the configuration's routes and defaults into the types of [`crate::route`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::app::StartError;
use crate::config::{self, Config, Gateway, Groups, SelectorFacts};
use crate::exit::Moment;
use crate::route::IsolateBy;
use crate::route::memory::Bounds;
use crate::route::policy::{Auth, Engine, Policy};
use crate::route::rules::{Action, Rule, RuleSelector, Rules};
use crate::route::selector::{BadSelector, RouteName, Selector, Words};
use crate::route::table::{Origin, Route};
use crate::state::{CONFIG_PORTS, Change, Snapshot};

/// Validates the text of a selector while a configuration is read. The error text is the rest of a sentence that begins
/// with the selector.
pub(in crate::app) fn validate_selector(text: &str, groups: &Groups) -> Result<SelectorFacts, String> {
    // A wrong country group is ignored here, because another check of the configuration reports it.
    let words = read_words(groups, &[]).unwrap_or_default();
    let facts = || {
        let selector = Selector::parse(text, &words)?;
        let sources = if Selector::has_source(text, &words)? { selector.source.sources() } else { &[] };
        Ok(SelectorFacts { sources, ttl: selector.ttl })
    };
    facts().map_err(|fault: BadSelector| fault.to_string())
}

fn read_words(groups: &Groups, prefixes: &[String]) -> Option<Words> {
    let groups = groups.iter().map(|(name, countries)| (name.to_owned(), countries.to_vec()));
    Words::new(groups, prefixes.iter().cloned()).ok()
}

pub(super) fn words(config: &Config) -> Words {
    read_words(&config.groups, &config.gateway.alias_prefixes).unwrap_or_default()
}

/// Returns the policy of usernames that have no route. It is also the source of the defaults of routes.
pub(super) fn defaults(config: &Config) -> Policy {
    let gateway = &config.gateway;
    Policy {
        pool: u16::try_from(gateway.pool.get()).unwrap_or(u16::MAX),
        repin_after: gateway.repin_after,
        escalate_for: gateway.escalate_for,
        isolation: isolate_by(gateway.isolation),
        pin_ttl: gateway.pin_ttl,
        session_ttl: gateway.session_ttl,
        max_session_ttl: gateway.max_session_ttl,
        ..Policy::default()
    }
}

fn isolate_by(isolation: config::Isolation) -> IsolateBy {
    match isolation {
        config::Isolation::Key => IsolateBy::Key,
        config::Isolation::Session => IsolateBy::Session,
        config::Isolation::Target => IsolateBy::Target,
    }
}

pub(super) fn bounds(gateway: &Gateway) -> Bounds {
    Bounds {
        sessions: gateway.max_sessions.get() as usize,
        implicit: gateway.max_implicit_routes.get() as usize,
        implicit_idle: gateway.implicit_idle,
        ..Bounds::default()
    }
}

/// A map from the name of each route of the configuration to the port that this route had in the last run.
pub(in crate::app) type FormerPorts = BTreeMap<String, u16>;

/// Reads the ports of the last run from the store's metadata.
pub(super) fn former(meta: &BTreeMap<String, String>) -> FormerPorts {
    meta.get(CONFIG_PORTS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Returns the configuration's routes and defaults as a change of the state. A route without a `port` keeps its present
/// port, or gets its port of the last run, or else the next free port of `gateway.route_ports`.
pub(super) fn configured(
    config: &Config,
    held: &Snapshot,
    former: &FormerPorts,
    now: Moment,
) -> Result<Change, StartError> {
    let words = words(config);
    let ports = ports(config, held, former)?;
    let route = |route: &config::Route| {
        let wrong = |why: String| StartError::Other(format!("routes[{}]: {why}", route.name));
        let selector = Selector::parse(&route.selector, &words).map_err(|fault| wrong(fault.to_string()))?;
        let name = RouteName::parse(&route.name, &selector, &words).map_err(|fault| wrong(fault.to_string()))?;
        let port = ports.get(route.name.as_str()).copied();
        let rules = rules(route, &words).map_err(wrong)?;
        let policy = Arc::new(Policy { rules, ..policy(config, route) });
        Ok(Route { name, selector, port, policy, origin: Origin::Config, created: now, expires: None })
    };
    let routes = config.routes.iter().map(route).collect::<Result<_, StartError>>()?;
    Ok(Change::Configured { words, defaults: defaults(config), routes })
}

/// Chooses the port of each route of the configuration. Returns a map from the route's name to its port.
fn ports<'c>(config: &'c Config, held: &Snapshot, former: &FormerPorts) -> Result<HashMap<&'c str, u16>, StartError> {
    let written = config.routes.iter().filter_map(|route| Some((route.name.as_str(), route.port?.get())));
    let mut all: HashMap<&str, u16> = written.collect();
    let mut taken: HashSet<u16> = all.values().copied().collect();
    let range = config.gateway.route_ports.first()..=config.gateway.route_ports.last();
    let names = || config.routes.iter().filter(|route| route.port.is_none()).map(|route| route.name.as_str());
    let others = held.routes.iter().filter(|entry| entry.route.origin == Origin::Api);
    taken.extend(others.filter_map(|entry| entry.route.port));
    for name in names() {
        let had = held.routes.get(name).and_then(|entry| entry.route.port).or_else(|| former.get(name).copied());
        let kept = had.filter(|port| range.contains(port));
        if let Some(port) = kept.filter(|port| taken.insert(*port)) {
            all.insert(name, port);
        }
    }
    let mut free = range.filter(|port| !taken.contains(port));
    for name in names() {
        if !all.contains_key(name) {
            let none = || StartError::Other(format!("routes[{name}]: gateway.route_ports has no port left; widen it"));
            all.insert(name, free.next().ok_or_else(none)?);
        }
    }
    Ok(all)
}

/// Converts the rules of a route. An error is the rest of a sentence that begins with the route.
fn rules(route: &config::Route, words: &Words) -> Result<Rules, String> {
    let one = |rule: &config::Rule| {
        let action = match &rule.action {
            config::RuleAction::Use(text) => {
                let selector = Selector::parse(text, words).map_err(|fault| fault.to_string())?;
                let has_source = Selector::has_source(text, words).map_err(|fault| fault.to_string())?;
                Action::Use(RuleSelector::new(selector, has_source))
            }
            config::RuleAction::Route(name) => Action::Route(RouteName::of_rule(name).map_err(|why| why.to_string())?),
            config::RuleAction::Refuse => Action::Refuse,
            config::RuleAction::Direct => Action::Direct(RuleSelector::direct()),
        };
        let ports = rule.ports.iter().map(|ports| ports.first()..=ports.last()).collect();
        Ok(Rule { hosts: rule.hosts.clone(), ports, action })
    };
    route.rules.iter().map(one).collect::<Result<_, String>>().map(Rules::new)
}

fn policy(config: &Config, route: &config::Route) -> Policy {
    Policy {
        pool: u16::try_from(route.pool.get()).unwrap_or(u16::MAX),
        check: route.check.as_deref().map(Arc::from),
        sources: route.source.clone(),
        fallback: route.fallback,
        escalate_for: route.escalate_for,
        exclusive: route.exclusive,
        engine: match route.engine {
            config::Engine::Shared => Engine::Shared,
            config::Engine::Own => Engine::Own,
        },
        isolation: isolate_by(route.isolation),
        hops: route.hops,
        ipv6: route.ipv6,
        rotate_every: route.rotate_every,
        repin_after: route.repin_after,
        auth: match route.auth {
            config::Auth::Key => Auth::Key,
            config::Auth::Open => Auth::Open,
        },
        allow: route.allow.clone(),
        ..defaults(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exit::Source;

    fn config(routes: &str) -> Config {
        config::parse("t.toml", &format!("[gateway]\nroute_ports = \"20000-20003\"\n{routes}"), [], None).unwrap().0
    }

    fn route(name: &str, port: Option<u16>) -> String {
        let port = port.map_or(String::new(), |port| format!("port = {port}\n"));
        format!("[[routes]]\nname = \"{name}\"\nselector = \"us\"\n{port}")
    }

    fn held(config: &Config, ports: &[(&str, u16)]) -> Snapshot {
        let mut held = Snapshot::new(words(config), defaults(config));
        for (name, port) in ports {
            let selector = Selector::parse("us", &words(config)).unwrap();
            let name = RouteName::parse(name, &selector, &words(config)).unwrap();
            let (policy, origin, created) = (Arc::default(), Origin::Config, Moment(1));
            let route = Route { name, selector, port: Some(*port), policy, origin, created, expires: None };
            held.routes.put(route).unwrap();
        }
        held
    }

    #[test]
    fn ports_are_kept_and_missing_ones_are_assigned() {
        let written =
            config(&[route("a", None), route("b", Some(20_000)), route("c", None), route("d", None)].concat());
        let kept = held(&written, &[("c", 20_001), ("gone", 20_002), ("d", 9)]);
        let all = ports(&written, &kept, &FormerPorts::new()).unwrap();
        assert_eq!([all["a"], all["b"], all["c"], all["d"]], [20_002, 20_000, 20_001, 20_003]);
    }

    #[test]
    fn ports_of_the_last_run_are_kept_unless_another_route_has_them() {
        let written = config(&["new", "a", "b"].map(|name| route(name, None)).concat());
        let mut held = held(&written, &[("x", 20_001)]);
        let api = Route { origin: Origin::Api, ..(*held.routes.get("x").unwrap().route).clone() };
        assert!(held.routes.remove("x"));
        held.routes.put(api).unwrap();
        let kept = r#"{"a": 20000, "b": 20001, "c": 9, "gone": 20002}"#;
        let former = former(&BTreeMap::from([(CONFIG_PORTS.to_owned(), kept.to_owned())]));
        let all = ports(&written, &held, &former).unwrap();
        assert_eq!([all["new"], all["a"], all["b"]], [20_002, 20_000, 20_003]);
        assert!(super::former(&BTreeMap::from([(CONFIG_PORTS.to_owned(), "no".to_owned())])).is_empty());
    }

    #[test]
    fn a_range_that_routes_of_the_api_fill_is_a_clear_error() {
        let written = config(&["a", "b"].map(|name| route(name, None)).concat());
        let mut full = held(&written, &[("x", 20_000), ("y", 20_002), ("z", 20_003)]);
        for entry in full.routes.clone().iter() {
            assert!(full.routes.remove(entry.route.name.as_str()));
            full.routes.put(Route { origin: Origin::Api, ..(*entry.route).clone() }).unwrap();
        }
        let error = ports(&written, &full, &FormerPorts::new()).unwrap_err().to_string();
        assert_eq!(error, "routes[b]: gateway.route_ports has no port left; widen it");
    }

    #[test]
    fn a_selector_is_validated_with_the_groups_of_its_file() {
        let with = config("[groups]\nnord = [\"se\", \"no\"]\n");
        let facts = |text: &str| validate_selector(text, &with.groups).unwrap();
        assert_eq!(facts("nord-strict"), SelectorFacts { sources: &[], ttl: None });
        assert_eq!(facts("nord-source-tor"), SelectorFacts { sources: &[Source::Tor], ttl: None });
        assert_eq!(facts("nord-session-a-ttl-5m").ttl, Some(Duration::from_secs(300)));
        assert!(validate_selector("sued-strict", &with.groups).unwrap_err().contains("sued"));
    }

    #[test]
    fn a_selector_may_name_only_what_its_own_file_has() {
        let read =
            |text: &str| config::parse("test", text, [], Some(&validate_selector)).map_err(|why| why.to_string());
        let source = "[[sources.upstream]]\nname = \"dear\"\nproxies = [\"http://192.0.2.1:8080\"]\n";
        let route = |more: &str| format!("[[routes]]\nname = \"shop\"\n{more}\n");
        let rule =
            |selector: &str| route(&format!("selector = \"us\"\nrules = [{{ host = \"*\", use = \"{selector}\" }}]"));
        let budget = "[[gateway.keys]]\nname = \"a\"\nkey = \"planted-secret-of-a-test\"\n\
                      source_budgets = { dear = { requests_per_day = 1 } }\n";
        let of_source = [
            route("selector = \"us-source-dear\""),
            route("selector = \"us\"\nsource = [\"tor\", \"dear\"]"),
            rule("us-source-dear"),
            budget.to_owned(),
        ];
        for text in of_source {
            read(&format!("{text}{source}")).unwrap();
            // The process still knows the name, as after a reload that has removed the source.
            let why = read(&text).unwrap_err();
            assert!(why.contains("names the source \"dear\", which [[sources.upstream]] does not have"), "{text}{why}");
        }
        for text in [route("selector = \"any-source-direct\""), rule("any-source-direct")] {
            let why = read(&text).unwrap_err();
            assert!(why.contains("connections from this machine's own address are turned off"), "{text}{why}");
            read(&format!("[gateway]\nallow_direct = true\n{text}")).unwrap();
        }
        for selector in ["us-session-a-ttl-25h", "us-session-a-ttl-24h"] {
            for text in [route(&format!("selector = \"{selector}\"")), rule(selector)] {
                let refused = read(&text).is_err_and(|why| why.contains("is longer than gateway.max_session_ttl (1d)"));
                assert_eq!(refused, selector.ends_with("25h"), "{text}");
            }
        }
    }
}
