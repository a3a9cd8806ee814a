//! `exitgate exits | engines | sources | connections | why`: what a running gateway knows, as tables.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::Exit;
use super::remote::{Question, Remote, bytes, cell, moment, piece, query};
use super::table::Table;

/// Which exits.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Exits {
    /// One exit, by id or address
    exit: Option<String>,
    /// Test that exit now, ahead of everything else
    #[arg(long, requires = "exit")]
    check: bool,
    /// Two letters, or ?? for those nobody knows
    #[arg(long)]
    country: Option<String>,
    /// tor, public or direct
    #[arg(long)]
    source: Option<String>,
    /// Only those that may be used now
    #[arg(long)]
    usable: bool,
    /// At most so many
    #[arg(long)]
    limit: Option<u16>,
}

/// Which sources.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Sources {
    /// Ask this one now rather than when it is due
    #[arg(long, value_name = "NAME")]
    refresh: Option<String>,
}

/// Which connections.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Connections {
    /// Only those of this route
    #[arg(long)]
    route: Option<String>,
    /// End the connection with this number
    #[arg(long, value_name = "ID")]
    cut: Option<u64>,
}

/// About whom.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Why {
    /// A username as a client would send it
    username: String,
    /// The target's port
    #[arg(long, default_value_t = 443)]
    port: u16,
    /// The target's host: its site may refuse some exits
    #[arg(long)]
    host: Option<String>,
    /// The name of the client's key, where there are keys
    #[arg(long)]
    key: Option<String>,
}

impl Exits {
    fn question(&self) -> Question {
        match &self.exit {
            Some(exit) if self.check => {
                Question::send(Method::POST, format!("/exits/{}/check", piece(exit)), json!({}))
            }
            Some(exit) => Question::get(format!("/exits/{}", piece(exit))),
            None => Question::get(query(
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

    pub(super) fn run(self, remote: Remote) -> Exit {
        let question = self.question();
        match (self.exit, self.check) {
            (Some(_), true) => remote.run(&question, |answer, _| checked(answer)),
            (Some(_), false) => remote.run(&question, |answer, _| one_exit(answer)),
            (None, _) => remote.run(&question, exits),
        }
    }
}

fn exits(answer: &Value, width: Option<usize>) -> String {
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
            moment(&exit["checked"]),
        ]);
    }
    let shown = answer["exits"].as_array().map_or(0, Vec::len);
    format!("{}\n{shown} of {} exits", table.text(width), cell(&answer["total"]))
}

fn one_exit(exit: &Value) -> String {
    let mut lines = vec![cell(&exit["id"])];
    let named =
        ["nickname", "source", "ip", "country", "asn", "as_name", "verdict", "usable", "marks", "latency_ms", "passed"];
    for name in named {
        if !exit[name].is_null() {
            lines.push(format!("  {name:<12}{}", cell(&exit[name])));
        }
    }
    lines.push(format!("  {:<12}{}", "checked", moment(&exit["checked"])));
    for ban in exit["bans"].as_array().into_iter().flatten() {
        lines.push(format!("  not for {} until {} UTC", cell(&ban["site"]), moment(&ban["until"])));
    }
    lines.join("\n")
}

fn checked(answer: &Value) -> String {
    let why = cell(&answer["why"]);
    let mut lines = vec![match why.as_str() {
        "" | "-" => format!("{}: sites see {}", cell(&answer["verdict"]), cell(&answer["ips"])),
        why => format!("{}: {why}", cell(&answer["verdict"])),
    }];
    for (site, said) in answer["sites"].as_object().into_iter().flatten() {
        let why = said["why"].as_str().unwrap_or("passed");
        lines.push(format!("  {site}: {why}"));
    }
    lines.join("\n")
}

/// `exitgate engines`.
pub(super) fn engines(remote: Remote) -> Exit {
    remote.run(&Question::get("/engines"), |answer, width| {
        let head = ["ID", "STATE", "PID", "VERSION", "CIRCUITS", "BUILDING", "SPARES", "STREAMS", "RESTARTS", "WHY"];
        let mut table = Table::new(head);
        for engine in answer["engines"].as_array().into_iter().flatten() {
            let names =
                ["id", "state", "pid", "version", "circuits", "building", "spares", "streams", "restarts", "why"];
            table.row(names.map(|name| cell(&engine[name])));
        }
        if answer["enabled"] == false { "Tor is switched off (tor.enabled)".to_owned() } else { table.text(width) }
    })
}

impl Sources {
    pub(super) fn run(self, remote: Remote) -> Exit {
        match self.refresh {
            None => remote.run(&Question::get("/sources"), sources),
            Some(name) => {
                let ask = Question::send(Method::POST, format!("/sources/{}/refresh", piece(&name)), json!({}));
                remote.run(&ask, |answer, _| format!("{} is being asked", cell(&answer["name"])))
            }
        }
    }
}

fn sources(answer: &Value, width: Option<usize>) -> String {
    let mut table = Table::new(["NAME", "OUTCOME", "EXITS", "FAILURES", "GOOD", "NEXT", "WHY"]);
    for source in answer["sources"].as_array().into_iter().flatten() {
        table.row([
            cell(&source["name"]),
            cell(&source["outcome"]),
            cell(&source["records"]),
            cell(&source["failures"]),
            moment(&source["good"]),
            moment(&source["next"]),
            cell(&source["why"]),
        ]);
    }
    table.text(width)
}

impl Connections {
    pub(super) fn run(self, remote: Remote) -> Exit {
        match self.cut {
            None => remote.run(&Question::get(query("/connections", &[("route", self.route)])), connections),
            Some(id) => {
                let ask = Question { method: Method::DELETE, path: format!("/connections/{id}"), body: None };
                remote.run(&ask, |answer, _| format!("connection {} is cut", cell(&answer["id"])))
            }
        }
    }
}

fn connections(answer: &Value, width: Option<usize>) -> String {
    let mut table = Table::new(["ID", "CLIENT", "PROTOCOL", "SCOPE", "EXIT", "TARGET", "UP", "DOWN", "SECONDS"]);
    let rows = answer["connections"].as_array().map_or(&[][..], Vec::as_slice);
    let hidden = !rows.is_empty() && rows.iter().all(|row| row["target"].is_null());
    for row in rows {
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
    let note = if hidden { "; targets are hidden unless `log.targets` is true" } else { "" };
    format!("{}\n{} connections{note}", table.text(width), cell(&answer["total"]))
}

impl Why {
    pub(super) fn run(self, remote: Remote) -> Exit {
        let Self { username, port, host, key } = self;
        let words = [("username", Some(username)), ("port", Some(port.to_string())), ("host", host), ("key", key)];
        remote.run(&Question::get(query("/explain", &words)), |answer, _| why(answer))
    }
}

/// The funnel, one step a line, and where it ends.
fn why(answer: &Value) -> String {
    let mut lines = Vec::new();
    for step in answer["funnel"].as_array().into_iter().flatten() {
        lines.push(format!("{:>7} {}", cell(&step["left"]), cell(&step["step"])));
    }
    let pool: Vec<_> = answer["pool"].as_array().into_iter().flatten().map(|exit| cell(&exit["ip"])).collect();
    match &answer["refused"] {
        Value::String(why) => lines.push(format!("refused: {why}")),
        _ if pool.is_empty() => lines.push("an exit of these is chosen at its first use".to_owned()),
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
    fn the_funnel_is_told_step_by_step() {
        let answer = json!({
            "funnel": [{"step": "known", "left": 2041}, {"step": "in us", "left": 312}],
            "pool": [{"ip": "192.0.2.7"}], "refused": null, "session": null, "pin": {"ip": "192.0.2.7"},
        });
        assert_eq!(why(&answer), "   2041 known\n    312 in us\npool: 192.0.2.7\npinned to: 192.0.2.7");
        let answer = json!({ "funnel": [], "pool": [], "refused": "none of the known exits is in jp" });
        assert_eq!(why(&answer), "refused: none of the known exits is in jp");
    }

    #[test]
    fn the_connections_say_why_no_target_is_shown() {
        let of = |target| json!({ "total": 1, "connections": [{"id": 1, "client": "192.0.2.1:5", "target": target}] });
        assert!(connections(&of(json!(null)), None).contains("log.targets"));
        assert!(!connections(&of(json!("a.test:80")), None).contains("log.targets"));
        assert!(connections(&json!({ "total": 0, "connections": [] }), None).ends_with("0 connections"));
    }

    #[test]
    fn a_check_is_told_in_a_line_a_site() {
        let good = json!({ "verdict": "good", "why": "", "ips": ["192.0.2.7"], "sites": {"steam": {"passed": false, "why": "403"}} });
        assert_eq!(checked(&good), "good: sites see 192.0.2.7\n  steam: 403");
        let bad = json!({ "verdict": "bad", "why": "no answer", "ips": [], "sites": {} });
        assert_eq!(checked(&bad), "bad: no answer");
    }
}
