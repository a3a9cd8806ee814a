//! Writes the answers of the API about routes as text for the terminal or a shell.

use serde_json::Value;

use crate::cli::remote::{bytes, cell, time};
use crate::cli::table::Table;

pub(super) fn routes_table(answer: &Value, width: Option<usize>) -> String {
    let mut table =
        Table::new(["NAME", "PORT", "SELECTOR", "POOL", "EXIT", "OPEN", "REQUESTS", "ERRORS", "UP", "DOWN", "STATE"]);
    for route in answer["proxies"].as_array().into_iter().flatten() {
        let (pool, live) = (&route["pool"], &route["live"]);
        table.row([
            cell(&route["name"]),
            cell(&route["port"]),
            cell(&route["selector"]),
            format!("{}/{}", cell(&pool["have"]), cell(&pool["wanted"])),
            cell(&route["exit"]["ip"]),
            cell(&live["connections"]),
            cell(&live["requests"]),
            cell(&live["errors"]),
            bytes(&live["bytes_up"]),
            bytes(&live["bytes_down"]),
            cell(&route["state"]),
        ]);
    }
    if answer["total"] == 0 {
        return "no routes; create one: exitgate routes create shop --country us --strict".to_owned();
    }
    table.text(width)
}

pub(super) fn batch(answer: &Value, width: Option<usize>) -> String {
    let (have, wanted) = (cell(&answer["have"]), cell(&answer["wanted"]));
    let short = if answer["have"].as_u64() < answer["wanted"].as_u64() { "; there are no more" } else { "" };
    format!("{}\n{have} of {wanted} IPs{short}", routes_table(answer, width))
}

pub(super) fn details(route: &Value) -> String {
    let mut lines =
        vec![format!("{}  {}  {}", cell(&route["name"]), cell(&route["selector"]), cell(&route["urls"]["socks5"]))];
    for (name, value) in [
        ("exits", cell(&route["summary"])),
        ("check", cell(&route["check"])),
        ("auth", cell(&route["auth"])),
        ("created", time(&route["created"])),
        ("expires", time(&route["expires"])),
        ("curl", cell(&route["examples"]["curl"])),
        ("python", cell(&route["examples"]["python"])),
        ("playwright", cell(&route["examples"]["playwright"])),
    ] {
        if value != "-" {
            lines.push(format!("  {name:<11}{value}"));
        }
    }
    let sources = route["live"]["by_source"].as_object().into_iter().flatten();
    lines.extend(sources.map(|(source, carried)| {
        let (up, down) = (bytes(&carried["bytes_up"]), bytes(&carried["bytes_down"]));
        format!("  {:<11}{} requests, {up} up, {down} down", format!("by {source}"), cell(&carried["requests"]))
    }));
    let rules = route["rules"].as_array().into_iter().flatten().enumerate();
    lines.extend(rules.map(|(at, rule)| format!("  {:<11}{}", format!("rule {}", at + 1), rule_line(rule))));
    lines.join("\n")
}

/// Returns a rule in the form that `--rule` reads.
fn rule_line(rule: &Value) -> String {
    let list = |field: &str| -> Option<String> {
        let items = rule[field].as_array()?.iter();
        let texts: Vec<_> = items.map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
        Some(texts.join(","))
    };
    let mut words: Vec<String> = list("host").into_iter().collect();
    words.extend(list("port").map(|ports| format!("port {ports}")));
    for action in ["use", "route", "refuse", "direct"] {
        match &rule[action] {
            Value::String(value) => words.push(format!("{action} {value}")),
            Value::Bool(true) => words.push(action.to_owned()),
            _ => {}
        }
    }
    words.join(" ")
}

/// Returns lines that set environment variables in a shell.
pub(super) fn shell_lines(answer: &Value) -> String {
    let all: Vec<&Value> = answer["proxies"].as_array().map_or_else(|| vec![answer], |all| all.iter().collect());
    let mut lines = Vec::new();
    for (at, route) in all.into_iter().enumerate() {
        let (socks5, http) = (cell(&route["urls"]["socks5"]), cell(&route["urls"]["http"]));
        let name = cell(&route["name"]).to_ascii_uppercase().replace('-', "_");
        lines.push(format!("export EXITGATE_{name}={socks5}"));
        if at == 0 {
            lines.push(format!("export ALL_PROXY={socks5} HTTP_PROXY={http} HTTPS_PROXY={http}"));
            lines.push(format!("export http_proxy={http} https_proxy={http} NO_PROXY=localhost,127.0.0.1,::1"));
        }
    }
    lines.join("\n")
}
