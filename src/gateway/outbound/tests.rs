//! Tests of the rules by destination on the way of a request: a rule never gives a client more than the configuration
//! allows.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::mpsc;

use super::rotate::Proof;
use super::*;
use crate::gateway::relay::Idle;
use crate::gateway::testing;
use crate::limit::target::{Own, Ports};
use crate::limit::{Amounts, Damping};
use crate::route::memory::Bounds;
use crate::route::rules::{Action, HostPattern, Rule, RuleSelector, Rules as RouteRules};
use crate::route::selector::{RouteName, Selector};
use crate::route::table::{Origin, Route};
use crate::route::{Memory, Policy, Words};
use crate::state::{Change, Clock, Snapshot};

fn terms(allow_direct: bool) -> Terms {
    let minute = Duration::from_secs(60);
    Terms {
        rules: Rules::default(),
        allow_direct,
        times: Times { dial: minute, attempt: minute, idle: Idle::default() },
        public: dial::public::Times { connect: minute, reply: minute },
        max_attempts: NonZeroU32::MIN,
        hedge: 0.0,
        ban_for: minute,
    }
}

/// Makes the outbound side with the route `shop`, which has a rule of each kind.
async fn outbound() -> Outbound {
    let words = Words::default();
    let rule = |host: &str, action| Rule { hosts: vec![HostPattern::parse(host).unwrap()], ports: Vec::new(), action };
    let using = |text: &str| Action::Use(RuleSelector::new(Selector::parse(text, &words).unwrap(), true));
    let rules = RouteRules::new(vec![
        rule("home.example", Action::Direct(RuleSelector::direct())),
        rule("self.example", using("any-source-direct")),
        rule("de.example", using("de")),
        rule("bad.example", Action::Refuse),
        rule("gone.example", Action::Route(RouteName::of_rule("gone").unwrap())),
    ]);
    let selector = Selector::parse("any", &words).unwrap();
    let name = RouteName::parse("shop", &selector, &words).unwrap();
    let policy = Arc::new(Policy { rules, ..Policy::default() });
    let (origin, created) = (Origin::Config, crate::exit::Moment(1));
    let route = Route { name, selector, port: None, policy, origin, created, expires: None };
    let snapshot = Snapshot::new(words.clone(), Policy::default());
    let (state, _wished) = State::new(snapshot, Memory::new(Bounds::default()), Clock::start(), None);
    state.apply(Change::Configured { words, defaults: Policy::default(), routes: vec![route] }).await.unwrap();
    let damping = Damping { failures: NonZeroU32::MIN, pause: Duration::from_secs(60) };
    Outbound::new(Parts {
        state,
        limits: Limits::new(Vec::new(), Amounts::default(), damping),
        tor: None,
        terms: terms(true),
        refusals: RefusalReporter::new(mpsc::channel(1).0),
        verify: Arc::new(|_| Box::pin(async { Proof::Not("nothing is tested here".to_owned()) })),
        stopping: watch::channel(false).1,
        identities: Identities::default(),
    })
}

/// Returns the scope of the request, or the label and the detail of its refusal.
fn asked(outbound: &Outbound, username: &str, host: Option<&str>) -> String {
    let listener = testing::listener();
    let peer = "198.51.100.1:5000".parse().unwrap();
    let caller = Caller { listener: &listener, protocol: Protocol::Socks5, peer, client: peer, username };
    let host = host.map(|host| Host::parse(host).unwrap());
    match outbound.wish(&caller, None, host.as_ref().map(|host| (host, Some(443)))) {
        Ok(wish) => wish.scope.to_string(),
        Err(refused) => format!("{}: {}", refused.failure.label(), refused.detail.as_deref().unwrap_or_default()),
    }
}

#[tokio::test]
async fn a_rule_never_allows_what_the_configuration_forbids() {
    let outbound = outbound().await;
    for (username, host, want) in [
        ("shop", Some("home.example"), "shop:any-source-direct"),
        ("shop", Some("self.example"), "shop:any-source-direct"),
        ("shop", Some("de.example"), "shop:de-source-tor"),
        ("shop", Some("other.example"), "shop"),
        ("shop", None, "shop"),
        ("any", Some("home.example"), "any"),
        ("shop", Some("bad.example"), "denied_rule: rule 4 of the route `shop` refuses this target"),
        (
            "shop",
            Some("gone.example"),
            "denied_rule: rule 5 of the route `shop` leads to the route `gone`, which does not exist",
        ),
    ] {
        assert_eq!(asked(&outbound, username, host), want, "{username} to {host:?}");
    }
    let narrower = asked(&outbound, "shop-us", Some("de.example"));
    assert!(
        narrower.starts_with("client_username: rule 3 of the route `shop` does not allow this username"),
        "{narrower}"
    );

    outbound.change(terms(false));
    for host in ["home.example", "self.example"] {
        assert_eq!(asked(&outbound, "shop", Some(host)), "denied_source: ", "{host} after direct was switched off");
    }
    assert_eq!(asked(&outbound, "shop", Some("de.example")), "shop:de-source-tor");
}

#[tokio::test]
async fn a_kept_stream_obeys_the_settings_of_now() {
    let outbound = outbound().await;
    let listener = testing::listener();
    let peer = "198.51.100.1:5000".parse().unwrap();
    let caller = Caller { listener: &listener, protocol: Protocol::Http, peer, client: peer, username: "shop" };
    let client = outbound.admit(&caller, None).unwrap();
    let reuse = |host: &str| {
        let target = Target { host: Host::parse(host).unwrap(), port: 80 };
        let lease = Lease::without_exit();
        outbound.may_reuse(&caller, &client, &target, &lease).map_err(|refused| refused.failure.label().to_owned())
    };
    assert_eq!(reuse("home.example"), Ok(false), "the stream has no exit, so it cannot serve");
    assert_eq!(reuse("a.onion"), Ok(true), "a stream to an onion service has no exit");
    assert_eq!(reuse("bad.example"), Err("denied_rule".to_owned()));
    outbound.change(terms(false));
    assert_eq!(reuse("home.example"), Err("denied_source".to_owned()), "direct was switched off meanwhile");
    outbound.change(Terms {
        rules: Rules::new(Ports { allow: vec![443..=443], deny: Vec::new() }, false, Own::new()),
        ..terms(true)
    });
    assert_eq!(reuse("a.onion"), Err("denied_port".to_owned()));
}
