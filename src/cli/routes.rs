//! `exitgate routes`: the routes of a running gateway, and what is done to their exits.

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::Exit;
use super::remote::{Question, Remote, bytes, cell, moment, piece, query};
use super::table::Table;

/// What is done.
#[derive(Debug, Subcommand)]
pub(super) enum Routes {
    /// List routes, with what they carry
    List {
        /// Only those whose name begins so
        #[arg(long)]
        name: Option<String>,
    },
    /// Make a route with a port of its own
    ///
    /// exitgate routes create shop --country us --strict --port 20001
    Create {
        /// What it is called [default: p and its port]
        name: Option<String>,
        #[command(flatten)]
        way: Way,
        #[command(flatten)]
        words: Words,
        /// So many routes, each with IPs of its own
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
    },
    /// Change a route; open connections go on as they are
    Patch {
        /// Its name or port
        route: String,
        #[command(flatten)]
        way: Way,
        #[command(flatten)]
        words: Words,
        /// Take a word back: its default holds again
        #[arg(long, value_name = "FIELD")]
        unset: Vec<String>,
    },
    /// Another exit, verified before the answer, with another IP
    Rotate {
        /// Its name or port, or a username
        route: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Say that a site refuses an exit
    Report {
        /// Its name or port, or a username
        route: String,
        /// The site
        #[arg(long)]
        site: String,
        /// The exit [default: that of the session or the pin]
        #[arg(long)]
        exit: Option<String>,
        /// What went wrong: blocked, captcha, …
        #[arg(long)]
        outcome: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Close a route: its port is free at once, open tunnels may finish
    Delete {
        /// Its name or port
        route: String,
        /// End its tunnels too
        #[arg(long)]
        force: bool,
    },
}

/// Which exits.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Way {
    /// A short form of --selector: us, nonus, de,fr, or a group of the configuration
    #[arg(long, conflicts_with = "selector")]
    country: Option<String>,
    /// Which exits to use, written as in a username: us-strict, nonus-asn-3320, … (the API's geo_category is a short form too)
    #[arg(long)]
    selector: Option<String>,
    /// One exit IP, kept
    #[arg(long, conflicts_with = "rotate")]
    strict: bool,
    /// Another exit for each connection
    #[arg(long)]
    rotate: bool,
}

/// What a route says beside that.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Words {
    /// Its port [default: the next free one]
    #[arg(long)]
    port: Option<u16>,
    /// Exits at once
    #[arg(long)]
    pool: Option<u16>,
    /// A check target that its exits must pass
    #[arg(long)]
    check: Option<String>,
    /// When it ends by itself: 30s, 10m, 2h, 7d
    #[arg(long)]
    ttl: Option<String>,
    /// How often its exits are exchanged
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
    /// Whose engines carry it
    #[arg(long)]
    engine: Option<Carrier>,
    /// Networks whose clients may use its port
    #[arg(long, value_name = "NET", value_delimiter = ',')]
    allow: Vec<String>,
    /// Whether its port asks for a key
    #[arg(long)]
    auth: Option<Asks>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Carrier {
    Shared,
    Own,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Asks {
    Key,
    Open,
}

/// Whose session or pin.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Whose {
    /// A client's session id
    #[arg(long)]
    session: Option<String>,
    /// The name of the client's key, where there are keys
    #[arg(long)]
    key: Option<String>,
}

impl Way {
    fn say(self, body: &mut Map<String, Value>) {
        let selector = self.selector.or_else(|| self.country.map(|country| country.replace(',', "+")));
        put(body, "selector", selector);
        let mode = if self.strict { Some("strict") } else { self.rotate.then_some("rotate") };
        put(body, "mode", mode);
    }
}

impl Words {
    fn say(self, body: &mut Map<String, Value>) {
        put(body, "port", self.port);
        put(body, "pool", self.pool);
        put(body, "check", self.check);
        put(body, "ttl", self.ttl);
        put(body, "rotate_every", self.rotate_every);
        put(body, "repin_after", self.repin_after);
        put(body, "hops", self.hops);
        put(body, "ipv6", self.ipv6.then_some(true));
        put(body, "exclusive", self.exclusive.then_some(true));
        put(body, "engine", self.engine.map(|engine| if matches!(engine, Carrier::Own) { "own" } else { "shared" }));
        put(body, "allow", Some(self.allow).filter(|nets| !nets.is_empty()));
        put(body, "auth", self.auth.map(|auth| if matches!(auth, Asks::Open) { "open" } else { "key" }));
    }
}

fn put(body: &mut Map<String, Value>, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(field.to_owned(), value.into());
    }
}

impl Routes {
    /// The question that it is.
    fn question(self) -> Question {
        let at = |route: &str| format!("/proxies/{}", piece(route));
        match self {
            Self::List { name } => Question::get(query("/proxies", &[("name", name)])),
            Self::Show { route, .. } => Question::get(at(&route)),
            Self::Create { name, way, words, count, .. } => {
                let mut body = Map::new();
                put(&mut body, "name", name);
                put(&mut body, "count", count);
                way.say(&mut body);
                words.say(&mut body);
                // `exitgate routes create us-strict` asks for that selector: no route may have its name.
                if let (false, Some(selector)) = (body.contains_key("selector"), body.get("name").cloned()) {
                    body.remove("name");
                    body.insert("selector".to_owned(), selector);
                }
                Question::send(Method::POST, "/proxies", body.into())
            }
            Self::Patch { route, way, words, unset } => {
                let mut body = Map::new();
                way.say(&mut body);
                words.say(&mut body);
                body.extend(unset.into_iter().map(|field| (field, Value::Null)));
                Question::send(Method::PATCH, at(&route), body.into())
            }
            Self::Rotate { route, whose: Whose { session, key } } => {
                let path = query(&format!("{}/rotate", at(&route)), &[("session", session), ("key", key)]);
                Question::send(Method::POST, path, json!({}))
            }
            Self::Report { route, site, exit, outcome, whose: Whose { session, key } } => {
                let mut body = Map::new();
                put(&mut body, "site", Some(site));
                put(&mut body, "exit", exit);
                put(&mut body, "outcome", outcome);
                put(&mut body, "session", session);
                put(&mut body, "key", key);
                Question::send(Method::POST, format!("{}/report", at(&route)), body.into())
            }
            Self::Delete { route, force } => {
                let path = query(&at(&route), &[("force", force.then(|| "true".to_owned()))]);
                Question { method: Method::DELETE, path, body: None }
            }
        }
    }

    pub(super) fn run(self, remote: Remote) -> Exit {
        let show: fn(&Value, Option<usize>) -> String = match &self {
            Self::Create { env: true, .. } | Self::Show { env: true, .. } => |answer, _| lines(answer),
            Self::List { .. } => |answer, width| list(answer, width),
            Self::Create { .. } => {
                |answer, width| if answer["proxies"].is_array() { batch(answer, width) } else { one(answer) }
            }
            Self::Show { .. } | Self::Patch { .. } => |answer, _| one(answer),
            Self::Rotate { .. } => |answer, _| {
                format!("{} -> {} ({})", cell(&answer["before"]), cell(&answer["after"]), cell(&answer["exit"]["id"]))
            },
            Self::Report { .. } => |answer, _| {
                let (site, exit) = (cell(&answer["site"]), cell(&answer["exit"]));
                format!("{exit} is not used for {site} until {} UTC", moment(&answer["until"]))
            },
            Self::Delete { .. } => |answer, _| format!("{} is closed", cell(&answer["name"])),
        };
        remote.run(&self.question(), show)
    }
}

fn list(answer: &Value, width: Option<usize>) -> String {
    let mut table =
        Table::new(["NAME", "PORT", "SELECTOR", "POOL", "EXIT", "OPEN", "REQUESTS", "ERRORS", "UP", "DOWN", "STATE"]);
    for proxy in answer["proxies"].as_array().into_iter().flatten() {
        let (pool, live) = (&proxy["pool"], &proxy["live"]);
        table.row([
            cell(&proxy["name"]),
            cell(&proxy["port"]),
            cell(&proxy["selector"]),
            format!("{}/{}", cell(&pool["have"]), cell(&pool["wanted"])),
            cell(&proxy["exit"]["ip"]),
            cell(&live["connections"]),
            cell(&live["requests"]),
            cell(&live["errors"]),
            bytes(&live["bytes_up"]),
            bytes(&live["bytes_down"]),
            cell(&proxy["state"]),
        ]);
    }
    if answer["total"] == 0 {
        return "no routes; make one: exitgate routes create shop --country us --strict".to_owned();
    }
    table.text(width)
}

fn batch(answer: &Value, width: Option<usize>) -> String {
    let (have, wanted) = (cell(&answer["have"]), cell(&answer["wanted"]));
    let short = if answer["have"].as_u64() < answer["wanted"].as_u64() { "; there are no more" } else { "" };
    format!("{}\n{have} of {wanted} IPs{short}", list(answer, width))
}

fn one(proxy: &Value) -> String {
    let mut lines =
        vec![format!("{}  {}  {}", cell(&proxy["name"]), cell(&proxy["selector"]), cell(&proxy["urls"]["socks5"]))];
    for (name, value) in [
        ("exits", cell(&proxy["summary"])),
        ("check", cell(&proxy["check"])),
        ("auth", cell(&proxy["auth"])),
        ("created", moment(&proxy["created"])),
        ("expires", moment(&proxy["expires"])),
        ("curl", cell(&proxy["examples"]["curl"])),
        ("python", cell(&proxy["examples"]["python"])),
        ("playwright", cell(&proxy["examples"]["playwright"])),
    ] {
        if value != "-" {
            lines.push(format!("  {name:<11}{value}"));
        }
    }
    lines.join("\n")
}

/// What a shell takes over.
fn lines(answer: &Value) -> String {
    let all: Vec<&Value> = answer["proxies"].as_array().map_or_else(|| vec![answer], |all| all.iter().collect());
    let mut lines = Vec::new();
    for (at, proxy) in all.into_iter().enumerate() {
        let (socks5, http) = (cell(&proxy["urls"]["socks5"]), cell(&proxy["urls"]["http"]));
        let name = cell(&proxy["name"]).to_ascii_uppercase().replace('-', "_");
        lines.push(format!("export EXITGATE_{name}={socks5}"));
        if at == 0 {
            lines.push(format!("export ALL_PROXY={socks5} HTTP_PROXY={http} HTTPS_PROXY={http}"));
            lines.push(format!("export http_proxy={http} https_proxy={http} NO_PROXY=localhost,127.0.0.1,::1"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        routes: Routes,
    }

    fn asked(line: &str) -> (String, String, Value) {
        let words = std::iter::once("routes").chain(line.split(' '));
        let Question { method, path, body } = Line::try_parse_from(words).unwrap().routes.question();
        (method.to_string(), path, body.unwrap_or_default())
    }

    #[test]
    fn a_line_is_a_question() {
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
            assert_eq!(asked(line), (method.to_owned(), path.to_owned(), body), "{line}");
        }
        assert!(Line::try_parse_from(["routes", "create", "--strict", "--rotate"]).is_err());
    }
}
