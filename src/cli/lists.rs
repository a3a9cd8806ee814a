//! `exitgate exits | engines | sources | connections | why`: shows data of a running gateway as tables.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::ExitStatus;
use super::remote::{ApiRequest, Remote, Watch, bytes, cell, encode, time, with_query};
use super::table::Table;

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct ExitsArgs {
    /// Show one exit, by id or address
    exit: Option<String>,
    /// Test that exit now, before all others
    #[arg(long, requires = "exit", conflicts_with = "watch")]
    check: bool,
    /// End the condemnation of that exit; it is tested before its next use
    #[arg(long, requires = "exit", conflicts_with_all = ["watch", "check"])]
    pardon: bool,
    /// Only this country: two letters, or ?? for exits whose country is unknown
    #[arg(long)]
    country: Option<String>,
    /// Only this source: tor, public or direct
    #[arg(long)]
    source: Option<String>,
    /// Only exits that may be used now
    #[arg(long)]
    usable: bool,
    /// Print at most this many
    #[arg(long)]
    limit: Option<u16>,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct SourcesArgs {
    /// Fetch this source now, before its next time
    #[arg(long, value_name = "NAME", conflicts_with = "watch")]
    refresh: Option<String>,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct ConnectionsArgs {
    /// Only connections of this route
    #[arg(long)]
    route: Option<String>,
    /// Close the connection with this number
    #[arg(long, value_name = "ID", conflicts_with = "watch")]
    cut: Option<u64>,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct WhyArgs {
    /// A username as a client would send it
    username: String,
    /// The port of the target
    #[arg(long, default_value_t = 443)]
    port: u16,
    /// The host of the target: exits that are banned there are excluded, and the rules of the route apply
    #[arg(long)]
    host: Option<String>,
    /// The name of the client's key, on a gateway with keys
    #[arg(long)]
    key: Option<String>,
}

impl ExitsArgs {
    fn request(&self) -> ApiRequest {
        match &self.exit {
            Some(exit) if self.check => {
                ApiRequest::with_body(Method::POST, format!("/exits/{}/check", encode(exit)), json!({}))
            }
            Some(exit) if self.pardon => ApiRequest::delete(format!("/exits/{}/condemnation", encode(exit))),
            Some(exit) => ApiRequest::get(format!("/exits/{}", encode(exit))),
            None => ApiRequest::get(with_query(
                "/exits",
                &[
                    ("country", self.country.clone()),
                    ("source", self.source.clone()),
                    ("usable", self.usable.then(|| "true".to_owned())),
                    ("limit", self.limit.map(|limit| limit.to_string())),
                ],
            )),
        }
    }

    pub(super) fn run(self, remote: Remote, watch: Watch) -> ExitStatus {
        let request = self.request();
        match (self.exit, self.check) {
            (Some(_), true) => remote.run(watch, &request, |answer, _| check_result(answer)),
            (Some(_), false) => remote.run(watch, &request, |answer, _| exit_details(answer)),
            (None, _) => remote.run(watch, &request, exits_table),
        }
    }
}

fn exits_table(answer: &Value, width: Option<usize>) -> String {
    let mut table =
        Table::new(["ID", "SOURCE", "IP", "COUNTRY", "ASN", "VERDICT", "USABLE", "MS", "STREAMS", "CHECKED"]);
    for exit in answer["exits"].as_array().into_iter().flatten() {
        table.row([
            cell(&exit["id"]),
            cell(&exit["source"]),
            cell(&exit["ip"]),
            cell(&exit["country"]),
            cell(&exit["asn"]),
            cell(&exit["verdict"]),
            cell(&exit["usable"]),
            cell(&exit["latency_ms"]),
            cell(&exit["streams"]),
            time(&exit["checked"]),
        ]);
    }
    let shown = answer["exits"].as_array().map_or(0, Vec::len);
    format!("{}\n{shown} of {} exits", table.text(width), cell(&answer["total"]))
}

fn exit_details(exit: &Value) -> String {
    let mut lines = vec![cell(&exit["id"])];
    let names =
        ["nickname", "source", "ip", "country", "asn", "as_name", "verdict", "usable", "marks", "latency_ms", "passed"];
    for name in names {
        if !exit[name].is_null() {
            lines.push(format!("  {name:<12}{}", cell(&exit[name])));
        }
    }
    lines.push(format!("  {:<12}{}", "checked", time(&exit["checked"])));
    for ban in exit["bans"].as_array().into_iter().flatten() {
        lines.push(format!("  banned for {} until {} UTC", cell(&ban["site"]), time(&ban["until"])));
    }
    lines.join("\n")
}

fn check_result(answer: &Value) -> String {
    let verdict = cell(&answer["verdict"]);
    let mut lines = vec![match (cell(&answer["why"]).as_str(), cell(&answer["ips"]).as_str()) {
        ("" | "-", "-") => verdict,
        ("" | "-", ips) => format!("{verdict}: sites see {ips}"),
        (why, _) => format!("{verdict}: {why}"),
    }];
    for (site, result) in answer["sites"].as_object().into_iter().flatten() {
        let why = result["why"].as_str().unwrap_or("passed");
        lines.push(format!("  {site}: {why}"));
    }
    lines.join("\n")
}

/// Runs the command `exitgate engines`, which shows the tor processes of the gateway.
pub(super) fn engines(remote: Remote, watch: Watch) -> ExitStatus {
    remote.run(watch, &ApiRequest::get("/engines"), |answer, width| {
        let head = ["ID", "STATE", "PID", "VERSION", "CIRCUITS", "BUILDING", "SPARES", "STREAMS", "RESTARTS", "WHY"];
        let mut table = Table::new(head);
        for engine in answer["engines"].as_array().into_iter().flatten() {
            let names =
                ["id", "state", "pid", "version", "circuits", "building", "spares", "streams", "restarts", "why"];
            // The table has one column for both texts. The reason for a bad state of the engine is more urgent than
            // advice about an old version of tor.
            let why = if engine["why"].is_null() { &engine["version_advice"] } else { &engine["why"] };
            table.row(names.map(|name| cell(if name == "why" { why } else { &engine[name] })));
        }
        if answer["enabled"] == false { "Tor is switched off (tor.enabled)".to_owned() } else { table.text(width) }
    })
}

impl SourcesArgs {
    pub(super) fn run(self, remote: Remote, watch: Watch) -> ExitStatus {
        match self.refresh {
            None => remote.run(watch, &ApiRequest::get("/sources"), sources_table),
            Some(name) => {
                let path = format!("/sources/{}/refresh", encode(&name));
                let request = ApiRequest::with_body(Method::POST, path, json!({}));
                remote.run(watch, &request, |answer, _| format!("fetching {}", cell(&answer["name"])))
            }
        }
    }
}

fn sources_table(answer: &Value, width: Option<usize>) -> String {
    let mut table = Table::new(["NAME", "OUTCOME", "EXITS", "FAILURES", "GOOD", "NEXT", "WHY"]);
    for source in answer["sources"].as_array().into_iter().flatten() {
        table.row([
            cell(&source["name"]),
            cell(&source["outcome"]),
            cell(&source["records"]),
            cell(&source["failures"]),
            time(&source["good"]),
            time(&source["next"]),
            cell(&source["why"]),
        ]);
    }
    table.text(width)
}

impl ConnectionsArgs {
    pub(super) fn run(self, remote: Remote, watch: Watch) -> ExitStatus {
        match self.cut {
            None => {
                let path = with_query("/connections", &[("route", self.route)]);
                remote.run(watch, &ApiRequest::get(path), connections_table)
            }
            Some(id) => {
                let request = ApiRequest::delete(format!("/connections/{id}"));
                remote.run(watch, &request, |answer, _| format!("connection {} is closed", cell(&answer["id"])))
            }
        }
    }
}

fn connections_table(answer: &Value, width: Option<usize>) -> String {
    let rows = || answer["connections"].as_array().into_iter().flatten();
    let head = ["ID", "CLIENT", "PROTOCOL", "ROUTE OR SELECTOR", "EXIT", "TARGET", "UP", "DOWN", "SECONDS"];
    let mut table = Table::new(head);
    for row in rows() {
        table.row([
            cell(&row["id"]),
            cell(&row["client"]),
            cell(&row["protocol"]),
            cell(&row["scope"]),
            cell(&row["exit_ip"]),
            cell(&row["target"]),
            bytes(&row["bytes_up"]),
            bytes(&row["bytes_down"]),
            cell(&row["age_seconds"]),
        ]);
    }
    // The API returns no targets if `log.targets` is off. This is detected here: some connections have an exit, but
    // none has a target. (A connection without an exit is idle and never has a target.)
    let hidden = rows().any(|row| !row["exit"].is_null()) && rows().all(|row| row["target"].is_null());
    let note = if hidden { "; set log.targets = true to see their targets" } else { "" };
    format!("{}\n{} connections{note}", table.text(width), cell(&answer["total"]))
}

impl WhyArgs {
    pub(super) fn run(self, remote: Remote, watch: Watch) -> ExitStatus {
        let Self { username, port, host, key } = self;
        let fields = [("username", Some(username)), ("port", Some(port.to_string())), ("host", host), ("key", key)];
        remote.run(watch, &ApiRequest::get(with_query("/explain", &fields)), |answer, _| explanation(answer))
    }
}

/// Returns how many exits are left after each filter step, one step per line, and which exits the username would use.
fn explanation(answer: &Value) -> String {
    let mut lines = Vec::new();
    for rule in answer["rules"].as_array().into_iter().flatten() {
        lines.push(format!("rule {} of {}: {}", cell(&rule["number"]), cell(&rule["route"]), cell(&rule["rule"])));
    }
    for step in answer["funnel"].as_array().into_iter().flatten() {
        lines.push(format!("{:>7} {}", cell(&step["left"]), cell(&step["step"])));
    }
    let escalation = &answer["escalation"];
    if escalation["source"].is_string() {
        let why = match escalation["because"].as_str() {
            Some("banned") => "the site has banned exits of the source before it",
            _ => "requests through the source before it failed",
        };
        lines.push(format!("begins with {} until {}: {why}", cell(&escalation["source"]), time(&escalation["until"])));
    }
    let pool: Vec<_> = answer["pool"].as_array().into_iter().flatten().map(|exit| cell(&exit["ip"])).collect();
    match &answer["refused"] {
        Value::String(why) => lines.push(format!("refused: {why}")),
        _ if pool.is_empty() => lines.push("the first use chooses one of these exits".to_owned()),
        _ => lines.push(format!("pool: {}", pool.join(", "))),
    }
    let bound = [("session", &answer["session"]), ("pinned to", &answer["pin"]["ip"])];
    lines.extend(bound.into_iter().filter(|(_, to)| to.is_string()).map(|(what, to)| format!("{what}: {}", cell(to))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_has_a_line_for_each_filter() {
        let answer = json!({
            "funnel": [{"step": "known", "left": 2041}, {"step": "in us", "left": 312}],
            "pool": [{"ip": "192.0.2.7"}], "refused": null, "session": null, "pin": {"ip": "192.0.2.7"},
        });
        assert_eq!(explanation(&answer), "   2041 known\n    312 in us\npool: 192.0.2.7\npinned to: 192.0.2.7");
        let answer = json!({ "funnel": [], "pool": [], "refused": "it refuses",
            "rules": [{"route": "shop", "number": 2, "rule": "port 25 refuse"}] });
        assert_eq!(explanation(&answer), "rule 2 of shop: port 25 refuse\nrefused: it refuses");
        let answer = json!({ "funnel": [], "pool": [], "refused": null,
            "escalation": {"source": "acme", "because": "banned", "until": "2026-12-01T10:00:00Z"} });
        let text = explanation(&answer);
        assert!(text.starts_with("begins with acme until ") && text.contains(": the site has banned exits"), "{text}");
        let answer = json!({ "funnel": [], "pool": [], "refused": "none of the known exits is in jp" });
        assert_eq!(explanation(&answer), "refused: none of the known exits is in jp");
    }

    #[test]
    fn a_check_has_a_line_for_each_site() {
        let good = json!({ "verdict": "good", "why": "", "ips": ["192.0.2.7"], "sites": {"steam": {"passed": false, "why": "403"}} });
        assert_eq!(check_result(&good), "good: sites see 192.0.2.7\n  steam: 403");
        let bad = json!({ "verdict": "bad", "why": "no answer", "ips": [], "sites": {} });
        assert_eq!(check_result(&bad), "bad: no answer");
        let public = json!({ "verdict": "good", "why": "", "ips": [], "sites": {} });
        assert_eq!(check_result(&public), "good");
    }

    #[test]
    fn hidden_targets_are_explained() {
        let answer = |target: Value, exit: Value| {
            let row = json!({ "id": 1, "client": "127.0.0.1:5", "scope": "us", "exit": exit, "target": target });
            connections_table(&json!({ "connections": [row], "total": 1 }), None)
        };
        assert!(
            answer(Value::Null, json!("A")).ends_with("1 connections; set log.targets = true to see their targets")
        );
        assert!(answer(json!("a.example:443"), json!("A")).ends_with("1 connections"));
        assert!(answer(Value::Null, Value::Null).ends_with("1 connections"), "nothing was asked for yet");
        assert!(answer(Value::Null, Value::Null).starts_with("ID  CLIENT       PROTOCOL  ROUTE OR SELECTOR"));
    }
}
