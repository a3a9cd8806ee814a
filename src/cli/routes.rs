//! `exitgate routes`: lists, creates, changes and deletes the routes of a running gateway, rotates their exits, and
//! reports exits that a site refuses.
//!
//! The API calls a route a proxy, so the URL paths in this file begin with `/proxies`.

mod output;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use self::output::{batch, details, routes_table, shell_lines};
use super::ExitStatus;
use super::remote::{ApiRequest, Remote, Watch, cell, encode, time, with_query};
use super::rule;

#[derive(Debug, Subcommand)]
pub(super) enum Routes {
    /// List routes and their traffic
    List {
        /// Only routes whose name begins with this
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Create a route with a port of its own
    ///
    /// exitgate routes create shop --country us --strict --port 20001
    ///
    /// Without --country and --selector the name is read as the selector, and the route is called p and its port.
    Create {
        /// The name [default: p and the port]
        name: Option<String>,
        #[command(flatten)]
        exits: ExitArgs,
        #[command(flatten)]
        options: RouteOptions,
        /// Create this many routes, each with other IPs
        #[arg(long)]
        count: Option<u16>,
        /// Print lines for a shell: `source <(exitgate routes create … --env)`
        #[arg(long)]
        env: bool,
    },
    /// Show one route, with lines to paste
    Show {
        /// Its name or port
        route: String,
        /// Print lines for a shell
        #[arg(long)]
        env: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Change a route; open connections are not affected
    Patch {
        /// Its name or port
        route: String,
        #[command(flatten)]
        exits: ExitArgs,
        #[command(flatten)]
        options: RouteOptions,
        /// Reset this field to its default
        #[arg(long, value_name = "FIELD")]
        unset: Vec<String>,
    },
    /// Switch to another exit with another IP; it is tested before the answer
    Rotate {
        /// Its name or port, or a username
        route: String,
        /// A target's host, if a rule of the route decides the exit
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        holder: HolderArgs,
    },
    /// Report that a site refuses an exit: it is not used for that site for a while
    Report {
        /// Its name or port, or a username
        route: String,
        /// The site that refused the exit
        #[arg(long)]
        site: String,
        /// The exit [default: that of the session or the pin]
        #[arg(long)]
        exit: Option<String>,
        /// What went wrong: blocked, captcha, …
        #[arg(long)]
        outcome: Option<String>,
        #[command(flatten)]
        holder: HolderArgs,
    },
    /// Delete a route: its port is free at once, open tunnels may finish
    Delete {
        /// Its name or port
        route: String,
        /// Close its tunnels too
        #[arg(long)]
        force: bool,
    },
}

/// Which exits a route uses, and whether it keeps one.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct ExitArgs {
    /// A short form of --selector: us, nonus, de,fr, or a group of the configuration
    #[arg(long, conflicts_with = "selector")]
    country: Option<String>,
    /// Which exits to use, written as in a username: us-strict, nonus-asn-3320, …
    #[arg(long)]
    selector: Option<String>,
    /// Keep one exit IP
    #[arg(long, conflicts_with = "rotate")]
    strict: bool,
    /// Use another exit for each connection
    #[arg(long)]
    rotate: bool,
}

/// The other fields of a route.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct RouteOptions {
    /// The port [default: the next free one]
    #[arg(long)]
    port: Option<u16>,
    /// The number of exits to use at once
    #[arg(long)]
    pool: Option<u16>,
    /// A check target that the exits must pass
    #[arg(long)]
    check: Option<String>,
    /// Delete the route after this time: 30s, 10m, 2h, 7d
    #[arg(long)]
    ttl: Option<String>,
    /// Replace the exits this often
    #[arg(long)]
    rotate_every: Option<String>,
    /// How long a pinned exit may be down before the pin moves, or never
    #[arg(long)]
    repin_after: Option<String>,
    /// Relays in a circuit: 3, or 2 for speed without anonymity
    #[arg(long)]
    hops: Option<u8>,
    /// Reach targets over IPv6 too
    #[arg(long)]
    ipv6: bool,
    /// Share no IP with another pin
    #[arg(long)]
    exclusive: bool,
    /// Use the shared tor processes, or one of its own
    #[arg(long)]
    engine: Option<EngineChoice>,
    /// Which streams of a client may share circuits [default: gateway.isolation]
    #[arg(long)]
    isolation: Option<IsolationChoice>,
    /// Networks whose clients may use its port
    #[arg(long, value_name = "NET", value_delimiter = ',')]
    allow: Vec<String>,
    /// Require a key on its port, or not
    #[arg(long)]
    auth: Option<AuthChoice>,
    /// Sources of exits in order of preference: tor, public, direct, or names of upstream sources
    #[arg(long, value_name = "SOURCE", value_delimiter = ',')]
    source: Vec<String>,
    /// Use a later source only while the earlier ones have no exit: true or false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    fallback: Option<bool>,
    /// How long requests to a site begin with a later source after the site refused an earlier one: 30m, 2h, or never
    #[arg(long, value_name = "TIME")]
    escalate_for: Option<String>,
    /// A rule by destination, such as "*.shop.example use us-strict" or "port 25 refuse"; the first match counts
    ///
    /// The rules of the command replace all rules of the route. What to do is one of: use SELECTOR, route NAME, refuse,
    /// direct.
    #[arg(long, value_name = "RULE", value_parser = rule::parse)]
    rule: Vec<Value>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineChoice {
    Shared,
    Own,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsolationChoice {
    Key,
    Session,
    Target,
}

impl IsolationChoice {
    fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Session => "session",
            Self::Target => "target",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AuthChoice {
    Key,
    Open,
}

/// Which session or pin of a route is meant.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct HolderArgs {
    /// The session of a client
    #[arg(long)]
    session: Option<String>,
    /// The name of the client's key, on a gateway with keys
    #[arg(long)]
    key: Option<String>,
}

impl ExitArgs {
    fn write(self, body: &mut Map<String, Value>) {
        let selector = self.selector.or_else(|| self.country.map(|country| country.replace(',', "+")));
        put(body, "selector", selector);
        let mode = if self.strict { Some("strict") } else { self.rotate.then_some("rotate") };
        put(body, "mode", mode);
    }
}

impl RouteOptions {
    fn write(self, body: &mut Map<String, Value>) {
        put(body, "port", self.port);
        put(body, "pool", self.pool);
        put(body, "check", self.check);
        put(body, "ttl", self.ttl);
        put(body, "rotate_every", self.rotate_every);
        put(body, "repin_after", self.repin_after);
        put(body, "hops", self.hops);
        put(body, "ipv6", self.ipv6.then_some(true));
        put(body, "exclusive", self.exclusive.then_some(true));
        put(body, "engine", self.engine.map(|it| if matches!(it, EngineChoice::Own) { "own" } else { "shared" }));
        put(body, "isolation", self.isolation.map(IsolationChoice::as_str));
        put(body, "allow", Some(self.allow).filter(|nets| !nets.is_empty()));
        put(body, "source", Some(self.source).filter(|sources| !sources.is_empty()));
        put(body, "fallback", self.fallback);
        put(body, "escalate_for", self.escalate_for);
        put(body, "rules", Some(self.rule).filter(|rules| !rules.is_empty()));
        put(body, "auth", self.auth.map(|auth| if matches!(auth, AuthChoice::Open) { "open" } else { "key" }));
    }
}

fn put(body: &mut Map<String, Value>, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(field.to_owned(), value.into());
    }
}

/// Returns the request that creates routes. If there is no selector, the name is used as the selector, as in `exitgate
/// routes create us-strict`. Then the route gets no name, because a route named like a selector would hide that
/// selector from usernames.
fn create(name: Option<String>, exits: ExitArgs, options: RouteOptions, count: Option<u16>) -> ApiRequest {
    let mut body = Map::new();
    put(&mut body, "count", count);
    exits.write(&mut body);
    options.write(&mut body);
    let (implied, name) = if body.contains_key("selector") { (None, name) } else { (name, None) };
    put(&mut body, "selector", implied.clone());
    put(&mut body, "name", name);
    let reason = |name| {
        format!(
            "the name {name:?} was read as the selector, as there is no --country and no --selector; add one of them"
        )
    };
    ApiRequest {
        implied: implied.map(|name| ("selector", reason(name))),
        ..ApiRequest::with_body(Method::POST, "/proxies", body.into())
    }
}

impl Routes {
    fn request(self) -> ApiRequest {
        let path = |route: &str| format!("/proxies/{}", encode(route));
        match self {
            Self::List { name, .. } => ApiRequest::get(with_query("/proxies", &[("name", name)])),
            Self::Show { route, .. } => ApiRequest::get(path(&route)),
            Self::Create { name, exits, options, count, .. } => create(name, exits, options, count),
            Self::Patch { route, exits, options, unset } => {
                let mut body = Map::new();
                exits.write(&mut body);
                options.write(&mut body);
                body.extend(unset.into_iter().map(|field| (field, Value::Null)));
                ApiRequest::with_body(Method::PATCH, path(&route), body.into())
            }
            Self::Rotate { route, host, holder: HolderArgs { session, key } } => {
                let query = [("session", session), ("key", key), ("host", host)];
                let path = with_query(&format!("{}/rotate", path(&route)), &query);
                ApiRequest::with_body(Method::POST, path, json!({}))
            }
            Self::Report { route, site, exit, outcome, holder: HolderArgs { session, key } } => {
                let mut body = Map::new();
                put(&mut body, "site", Some(site));
                put(&mut body, "exit", exit);
                put(&mut body, "outcome", outcome);
                put(&mut body, "session", session);
                put(&mut body, "key", key);
                ApiRequest::with_body(Method::POST, format!("{}/report", path(&route)), body.into())
            }
            Self::Delete { route, force } => {
                ApiRequest::delete(with_query(&path(&route), &[("force", force.then(|| "true".to_owned()))]))
            }
        }
    }

    pub(super) fn run(self, remote: Remote) -> ExitStatus {
        let watch = match &self {
            Self::List { watch, .. } | Self::Show { watch, .. } => *watch,
            _ => Watch::default(),
        };
        let show: fn(&Value, Option<usize>) -> String = match &self {
            Self::Create { env: true, .. } | Self::Show { env: true, .. } => |answer, _| shell_lines(answer),
            Self::List { .. } => routes_table,
            Self::Create { .. } => {
                |answer, width| if answer["proxies"].is_array() { batch(answer, width) } else { details(answer) }
            }
            Self::Show { .. } | Self::Patch { .. } => |answer, _| details(answer),
            Self::Rotate { .. } => |answer, _| {
                format!("{} -> {} ({})", cell(&answer["before"]), cell(&answer["after"]), cell(&answer["exit"]["id"]))
            },
            Self::Report { .. } => |answer, _| {
                let (site, exit) = (cell(&answer["site"]), cell(&answer["exit"]));
                format!("{exit} is not used for {site} until {} UTC", time(&answer["until"]))
            },
            Self::Delete { .. } => |answer, _| format!("{} is deleted", cell(&answer["name"])),
        };
        remote.run(watch, &self.request(), show)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        routes: Routes,
    }

    fn parsed(line: &str) -> (String, String, Value) {
        let words = std::iter::once("routes").chain(line.split(' '));
        let ApiRequest { method, path, body, .. } = CommandLine::try_parse_from(words).unwrap().routes.request();
        (method.to_string(), path, body.unwrap_or_default())
    }

    #[test]
    fn a_command_line_becomes_a_request() {
        for (line, method, path, body) in [
            ("list", "GET", "/proxies", Value::Null),
            (
                "create shop --country us --strict --port 20001",
                "POST",
                "/proxies",
                json!({"name": "shop", "selector": "us", "mode": "strict", "port": 20001}),
            ),
            ("create us-strict", "POST", "/proxies", json!({"selector": "us-strict"})),
            (
                "create --country de,fr --count 3 --ttl 1h --allow 10.0.0.0/8,192.0.2.1/32",
                "POST",
                "/proxies",
                json!({"selector": "de+fr", "count": 3, "ttl": "1h", "allow": ["10.0.0.0/8", "192.0.2.1/32"]}),
            ),
            ("rotate shop --host a.example", "POST", "/proxies/shop/rotate?host=a.example", json!({})),
            (
                "patch shop --source public,tor --fallback --unset check",
                "PATCH",
                "/proxies/shop",
                json!({"source": ["public", "tor"], "fallback": true, "check": null}),
            ),
            ("patch shop --escalate-for 30m", "PATCH", "/proxies/shop", json!({"escalate_for": "30m"})),
            ("patch shop --fallback false", "PATCH", "/proxies/shop", json!({"fallback": false})),
            ("patch shop --pool 5 --unset ttl", "PATCH", "/proxies/shop", json!({"pool": 5, "ttl": null})),
            ("rotate us --session a", "POST", "/proxies/us/rotate?session=a", json!({})),
            ("rotate de+fr-strict", "POST", "/proxies/de%2Bfr-strict/rotate", json!({})),
            (
                "report us --site shop.example --session a --outcome captcha",
                "POST",
                "/proxies/us/report",
                json!({"site": "shop.example", "session": "a", "outcome": "captcha"}),
            ),
            ("delete shop --force", "DELETE", "/proxies/shop?force=true", Value::Null),
        ] {
            assert_eq!(parsed(line), (method.to_owned(), path.to_owned(), body), "{line}");
        }
        assert!(CommandLine::try_parse_from(["routes", "create", "--strict", "--rotate"]).is_err());
    }

    #[test]
    fn rules_of_the_command_line_become_the_body_and_are_shown_as_they_are_written() {
        let rules = ["*.shop.example use us-strict", "port 25,8000-8099 refuse"];
        let mut words = vec!["routes", "patch", "shop"];
        words.extend(rules.iter().flat_map(|rule| ["--rule", rule]));
        let body = CommandLine::try_parse_from(words).unwrap().routes.request().body.unwrap();
        assert_eq!(body["rules"][0], json!({"host": ["*.shop.example"], "use": "us-strict"}));
        let shown = details(&json!({ "rules": body["rules"] }));
        for (at, rule) in rules.iter().enumerate() {
            assert!(shown.contains(&format!("  rule {}     {rule}", at + 1)), "{shown}");
        }
        assert!(CommandLine::try_parse_from(["routes", "patch", "shop", "--rule", "shop.example"]).is_err());
    }

    #[test]
    fn a_name_that_is_read_as_a_selector_is_explained() {
        let implied = |line: &str| {
            let words = std::iter::once("routes").chain(line.split(' '));
            CommandLine::try_parse_from(words).unwrap().routes.request().implied
        };
        let (field, reason) = implied("create X --port 20001").unwrap();
        assert!(field == "selector" && reason.starts_with("the name \"X\" was read as the selector"), "{reason}");
        assert!(implied("create X --country us").is_none() && implied("create X --selector us").is_none());
        assert!(implied("create --port 20001").is_none());
    }
}
