//! `exitgate keys`: lists, creates, changes and deletes the keys of a running gateway.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::ExitStatus;
use super::remote::{ApiRequest, Remote, Watch, bytes, cell, encode, time, with_query};
use super::table::Table;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List keys, and what they have used
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one key, with its budgets and what it has used of each source
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Create a key, and print its secret, which is not shown again
    ///
    /// exitgate keys create team-a --ttl 30d --source tor --budget bytes_per_month=100GB
    Create {
        /// Its name: sessions and pins belong to it
        name: String,
        #[command(flatten)]
        options: KeyOptions,
    },
    /// Change a key; its secret, its usage and open connections stay
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        options: KeyOptions,
        /// Remove this field: ttl, routes, sources, limits, budget, source_budgets
        #[arg(long, value_name = "FIELD")]
        unset: Vec<String>,
    },
    /// Delete a key: the next connection with it is refused, open tunnels may finish
    Delete {
        /// Its name
        name: String,
        /// Close its open connections too
        #[arg(long)]
        cut: bool,
        /// Delete the last key too: after that, clients need no key
        #[arg(long)]
        open: bool,
    },
}

/// The fields of a key.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct KeyOptions {
    /// The key expires after this time: 10m, 2h, 30d
    #[arg(long)]
    ttl: Option<String>,
    /// Only these routes, and no usernames without a route [default: all]
    #[arg(long = "route", value_name = "NAME", value_delimiter = ',')]
    routes: Vec<String>,
    /// Only these sources: tor, public, direct [default: all]
    #[arg(long = "source", value_name = "SOURCE", value_delimiter = ',')]
    sources: Vec<String>,
    /// Open connections
    #[arg(long)]
    connections: Option<u32>,
    /// New connections per second
    #[arg(long)]
    per_second: Option<u32>,
    /// Bytes per second, such as 50MiB
    #[arg(long)]
    bytes_per_second: Option<String>,
    /// A limit of the budget: requests_per_day, requests_per_month, bytes_per_day or bytes_per_month
    #[arg(long, value_name = "LIMIT=AMOUNT", value_parser = budget_limit)]
    budget: Vec<(String, Value)>,
    /// A limit of the budget of one source: public:bytes_per_day=1GB
    #[arg(long, value_name = "SOURCE:LIMIT=AMOUNT", value_parser = source_limit)]
    source_budget: Vec<(String, String, Value)>,
}

/// Reads `bytes_per_day=10GB`. The API checks the name of the limit and the amount.
fn budget_limit(text: &str) -> Result<(String, Value), String> {
    let (limit, amount) = text.split_once('=').ok_or("write LIMIT=AMOUNT, such as bytes_per_day=10GB")?;
    let amount = amount.parse::<u64>().map_or_else(|_| json!(amount), |number| json!(number));
    Ok((limit.to_owned(), amount))
}

fn source_limit(text: &str) -> Result<(String, String, Value), String> {
    let (source, rest) = text.split_once(':').ok_or("write SOURCE:LIMIT=AMOUNT, such as public:bytes_per_day=10GB")?;
    let (limit, amount) = budget_limit(rest)?;
    Ok((source.to_owned(), limit, amount))
}

impl KeyOptions {
    fn body(self) -> Map<String, Value> {
        let mut body = Map::new();
        let mut put = |field: &str, value: Value| {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !empty && value != json!({}) {
                body.insert(field.to_owned(), value);
            }
        };
        put("ttl", json!(self.ttl));
        put("routes", json!(self.routes));
        put("sources", json!(self.sources));
        let limits = [
            ("connections", json!(self.connections)),
            ("per_second", json!(self.per_second)),
            ("bytes_per_second", json!(self.bytes_per_second)),
        ];
        let limits = limits.into_iter().filter(|(_, value)| !value.is_null());
        put("limits", limits.map(|(field, value)| (field.to_owned(), value)).collect::<Map<_, _>>().into());
        put("budget", self.budget.into_iter().collect::<Map<_, _>>().into());
        let mut sources = json!({});
        for (source, limit, amount) in self.source_budget {
            sources[source][limit] = amount;
        }
        put("source_budgets", sources);
        body
    }
}

impl Keys {
    fn request(self) -> ApiRequest {
        let url = |name: &str| format!("/keys/{}", encode(name));
        match self {
            Self::List { .. } => ApiRequest::get("/keys"),
            Self::Show { name, .. } => ApiRequest::get(url(&name)),
            Self::Create { name, options } => {
                let mut body = options.body();
                body.insert("name".to_owned(), json!(name));
                ApiRequest::with_body(Method::POST, "/keys", body.into())
            }
            Self::Set { name, options, unset } => {
                let mut body = options.body();
                body.extend(unset.into_iter().map(|field| (field, Value::Null)));
                ApiRequest::with_body(Method::PATCH, url(&name), body.into())
            }
            Self::Delete { name, cut, open } => {
                let flag = |set: bool| set.then(|| "true".to_owned());
                ApiRequest::delete(with_query(&url(&name), &[("cut", flag(cut)), ("open", flag(open))]))
            }
        }
    }

    pub(super) fn run(self, remote: Remote) -> ExitStatus {
        let (watch, show): (Watch, fn(&Value, Option<usize>) -> String) = match &self {
            Self::List { watch } => (*watch, keys_table),
            Self::Show { watch, .. } => (*watch, |key, _| details(key)),
            Self::Set { .. } => (Watch::default(), |key, _| details(key)),
            Self::Create { .. } => (Watch::default(), |answer, _| created(answer)),
            Self::Delete { .. } => {
                (Watch::default(), |answer, _| format!("{}  {}", cell(&answer["name"]), cell(&answer["state"])))
            }
        };
        remote.run(watch, &self.request(), show)
    }
}

fn created(answer: &Value) -> String {
    match answer["secret"].as_str() {
        Some(secret) => format!(
            "{}\n{}\n  the secret is shown only now; clients send it as their password",
            cell(&answer["name"]),
            secret
        ),
        None => format!("{}  exists already, and its secret is not shown again", cell(&answer["name"])),
    }
}

fn keys_table(answer: &Value, width: Option<usize>) -> String {
    let mut table = Table::new([
        "NAME", "ORIGIN", "EXPIRES", "OPEN", "TODAY", "BYTES", "MONTH", "BYTES", "BUDGET", "ROUTES", "SOURCES",
    ]);
    for key in answer["keys"].as_array().into_iter().flatten() {
        let usage = &key["usage"];
        let of_sources = key["source_usage"].as_array().into_iter().flatten().map(|source| &source["level"]);
        let levels: Vec<_> = std::iter::once(&usage["level"]).chain(of_sources).filter_map(Value::as_str).collect();
        let level = ["spent", "near"].into_iter().find(|level| levels.contains(level)).unwrap_or("fine");
        table.row([
            cell(&key["name"]),
            cell(&key["origin"]),
            if key["expired"] == true { "expired".to_owned() } else { time(&key["expires"]) },
            cell(&key["open_connections"]),
            cell(&usage["day"]["requests"]),
            bytes(&usage["day"]["bytes"]),
            cell(&usage["month"]["requests"]),
            bytes(&usage["month"]["bytes"]),
            level.to_owned(),
            cell(&key["routes"]),
            cell(&key["sources"]),
        ]);
    }
    if answer["total"] == 0 {
        return "no keys: everybody who can reach the port may use it; create one: exitgate keys create team-a"
            .to_owned();
    }
    table.text(width)
}

fn details(key: &Value) -> String {
    let mut lines = vec![format!("{}  {}", cell(&key["name"]), cell(&key["origin"]))];
    for (name, value) in [
        ("created", time(&key["created"])),
        ("expires", time(&key["expires"])),
        ("routes", cell(&key["routes"])),
        ("sources", cell(&key["sources"])),
        ("open", cell(&key["open_connections"])),
    ] {
        if value != "-" {
            lines.push(format!("  {name:<9}{value}"));
        }
    }
    let all = std::iter::once(("all", &key["usage"]));
    let sources = key["source_usage"].as_array().into_iter().flatten();
    for (name, usage) in all.chain(sources.map(|usage| (usage["source"].as_str().unwrap_or("-"), usage))) {
        for period in ["day", "month"] {
            let (used, budget) = (&usage[period], &usage["budget"]);
            let limit = |what: &str, show: fn(&Value) -> String| {
                let limit = &budget[format!("{what}_per_{period}")];
                if limit.is_null() { show(&used[what]) } else { format!("{} of {}", show(&used[what]), show(limit)) }
            };
            lines.push(format!(
                "  {name:<9}{period:<6} {} requests, {} bytes; until {} UTC",
                limit("requests", cell),
                limit("bytes", bytes),
                time(&used["resets"])
            ));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        keys: Keys,
    }

    fn parsed(line: &str) -> (String, String, Value) {
        let words = std::iter::once("keys").chain(line.split(' '));
        let ApiRequest { method, path, body, .. } = CommandLine::try_parse_from(words).unwrap().keys.request();
        (method.to_string(), path, body.unwrap_or_default())
    }

    #[test]
    fn a_command_line_becomes_a_request() {
        for (line, method, path, body) in [
            ("list", "GET", "/keys", Value::Null),
            ("show a", "GET", "/keys/a", Value::Null),
            ("create a", "POST", "/keys", json!({ "name": "a" })),
            (
                "create a --ttl 30d --route shop,search --source tor --connections 5 --bytes-per-second 1MB",
                "POST",
                "/keys",
                json!({
                    "name": "a", "ttl": "30d", "routes": ["shop", "search"], "sources": ["tor"],
                    "limits": { "connections": 5, "bytes_per_second": "1MB" },
                }),
            ),
            (
                "create a --budget bytes_per_day=1GB --budget requests_per_day=5 --source-budget public:bytes_per_day=7",
                "POST",
                "/keys",
                json!({
                    "name": "a", "budget": { "bytes_per_day": "1GB", "requests_per_day": 5 },
                    "source_budgets": { "public": { "bytes_per_day": 7 } },
                }),
            ),
            (
                "set a --per-second 2 --unset ttl",
                "PATCH",
                "/keys/a",
                json!({ "limits": { "per_second": 2 }, "ttl": null }),
            ),
            ("delete a --cut", "DELETE", "/keys/a?cut=true", Value::Null),
            ("delete a --open", "DELETE", "/keys/a?open=true", Value::Null),
        ] {
            assert_eq!(parsed(line), (method.to_owned(), path.to_owned(), body), "{line}");
        }
        assert!(CommandLine::try_parse_from(["keys", "create", "a", "--budget", "1GB"]).is_err());
    }

    #[test]
    fn a_key_is_shown_with_its_budgets() {
        let period = |requests: u64, bytes: u64| json!({ "requests": requests, "bytes": bytes, "resets": "2026-12-01T00:00:00.000Z" });
        let budget = json!({ "bytes_per_day": 2048 });
        let key = json!({
            "name": "a", "origin": "api", "expired": false, "open_connections": 1,
            "usage": { "level": "near", "budget": budget, "day": period(3, 1024), "month": period(7, 4096) },
            "source_usage": [],
        });
        let shown = details(&key);
        assert!(shown.contains("3 requests, 1.0k of 2.0k bytes; until 2026-12-01 00:00:00 UTC"), "{shown}");
        let table = keys_table(&json!({ "total": 1, "keys": [key] }), None);
        assert!(table.contains("near") && table.lines().count() == 2, "{table}");
    }
}
