//! Holds `docs/coming-from.md` to the gateway: its environment variables, its URLs, the names of its fields, its
//! usernames, its commands and its configuration keys.

use std::process::Command;

use exitgate::app::validate_selector;
use exitgate::config::Groups;
use exitgate_testnet::public::Kind;

use super::{Bed, json};
use crate::gateway::until;

const PAGE: &str = include_str!("../../../docs/coming-from.md");
const KEYS: &str = include_str!("../../../config/exitgate.toml");

/// The words in backticks of the prose and the tables.
fn quoted() -> Vec<&'static str> {
    let prose = PAGE.lines().filter(|line| !line.starts_with("    "));
    prose.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The commands: the indented lines, without their comments, joined where they end with a backslash.
fn commands() -> Vec<String> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("    "));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    text.lines().map(|line| line.split("  # ").next().unwrap().trim().to_owned()).collect()
}

/// Runs a line in a shell in which `exitgate` is the tested binary. Returns its exit code and what it printed.
fn shell(line: &str) -> (i32, String) {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_exitgate")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // Nothing listens at this port.
    command.args(["-c", line]).env("PATH", path).env("EXITGATE_URL", "http://127.0.0.1:9").current_dir(empty.path());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Whether the configuration has a key such as `gateway.listen`, `api.token_file` or `check.echo`.
fn is_key(path: &str) -> bool {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut here = "";
    KEYS.lines().any(|line| {
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            here = header.trim_start_matches('[').trim_end_matches(']');
        }
        here == section && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
    })
}

#[test]
fn commands_variables_and_usernames_of_the_page_are_accepted() {
    let all = commands();
    let serves: Vec<_> = all.iter().filter(|line| line.ends_with("exitgate serve")).collect();
    assert!(serves.len() >= 3, "{serves:?}");
    for line in serves {
        let said = shell(&line.replace("exitgate serve", "exitgate check-config"));
        assert_eq!(said, (0, "config ok: defaults\n".to_owned()), "{line}");
    }
    let routes: Vec<_> = all.iter().filter(|line| line.starts_with("exitgate routes")).collect();
    assert!(routes.len() >= 4, "{routes:?}");
    for line in routes {
        let (code, said) = shell(line);
        assert!(code == 69 && said.contains("cannot connect"), "{line} is no command: {code} {said}");
    }
    let usernames: Vec<&str> =
        all.iter().filter_map(|line| line.split_once("://")?.1.split_once('@').map(|(name, _)| name)).collect();
    let words = quoted()
        .into_iter()
        .filter(|word| word.starts_with("any-") || word.starts_with("de+") || word.starts_with("us-"));
    let words = words.filter(|word| !word.contains(' ')).map(|word| word.split(':').next().unwrap());
    let usernames: Vec<&str> = usernames.into_iter().filter(|name| !name.contains('/')).chain(words).collect();
    assert!(usernames.len() >= 8, "{usernames:?}");
    for name in usernames {
        if let Err(why) = validate_selector(name, &Groups::default()) {
            panic!("{name} is no selector: {why}");
        }
    }
}

#[test]
fn configuration_keys_of_the_page_exist() {
    let sections = ["gateway", "api", "tor", "check", "sources", "log"];
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
    let words = quoted().into_iter().filter(plain);
    let keys: Vec<_> = words.filter(|word| sections.iter().any(|name| word.starts_with(&format!("{name}.")))).collect();
    assert!(keys.len() >= 12, "{keys:?}");
    for key in keys {
        assert!(is_key(key), "{key} is no key of the configuration");
    }
    for (section, keys) in [
        ("routes", &["pool", "rotate_every", "name", "selector", "port"][..]),
        ("sources.list", &["name", "url", "every", "protocol", "format"]),
        ("gateway.keys", &["name", "key_file"]),
        ("gateway.tls", &["cert", "key"]),
        ("", &["data_dir"]),
    ] {
        for key in keys {
            let path = if section.is_empty() { (*key).to_owned() } else { format!("{section}.{key}") };
            assert!(is_key(&path) && PAGE.contains(key), "{path}");
        }
    }
    assert!(!is_key("gateway.gone") && !is_key("listen"));
    let compose = include_str!("../../../docker-compose.yml");
    assert!(PAGE.contains("`\"127.0.0.1:1080:1080\"`") && compose.contains("\"127.0.0.1:1080:1080\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_the_urls_and_the_fields_of_the_page() {
    let bed = Bed::start(&[(Kind::Good, 16)]).await;
    let gateway = bed.launch("");
    let full = until(|| gateway.api("/list"), |got| got.body.lines().count() == 16).await;
    assert_eq!(full.body.lines().count(), 16, "{}\n{}", full.body, gateway.log());

    let mut urls: Vec<String> = Vec::new();
    for word in quoted() {
        if word.starts_with("/list") || word.starts_with("/random") {
            urls.push(word.to_owned());
        } else if word.starts_with("?country=") {
            urls.push(format!("/list{word}"));
        } else if word.starts_with("format=") {
            urls.push(format!("/list?{word}"));
        }
    }
    urls.sort_unstable();
    urls.dedup();
    assert!(urls.len() >= 8, "{urls:?}");
    for url in &urls {
        let got = gateway.api(url).await;
        // A country without a proxy is an empty list, and a wrong parameter is status 400.
        assert_eq!(got.status, 200, "{url}: {}", got.body);
    }
    for filter in ["protocol=socks5", "https=true", "anonymity=elite"] {
        assert!(quoted().contains(&filter.split('=').next().unwrap()), "the page does not name {filter}");
        assert_eq!(gateway.api(&format!("/random?{filter}")).await.status, 200, "{filter}");
    }
    assert_eq!(gateway.api("/list?limit=3").await.body.lines().count(), 3);
    assert_eq!(gateway.api("/list?quantity=3").await.status, 400, "the page says that `quantity` is `limit` here");

    let list = json(&gateway.api("/list?format=json").await);
    let first = &list[0];
    for field in [
        "url",
        "protocol",
        "ip",
        "port",
        "https",
        "anonymity",
        "country",
        "exit_ip",
        "reliability",
        "connect",
        "response_ms",
        "checked",
        "age_seconds",
        "list",
    ] {
        assert!(quoted().contains(&field) && first.get(field).is_some(), "{field} is missing: {first}");
    }
    for field in ["proxy", "geolocation", "city", "score"] {
        assert!(first.get(field).is_none(), "the page says that there is no {field}: {first}");
    }
    let times: Vec<_> = list.as_array().unwrap().iter().map(|one| one["response_ms"].as_u64()).collect();
    assert!(times.is_sorted(), "the page says that the fastest is first: {times:?}");
    let csv = gateway.api("/list?format=csv").await.body;
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert!(head.contains(&"url") && head.contains(&"exit_ip"), "the first line of CSV has no names: {head:?}");

    let paths = json(&gateway.api("/openapi.json").await)["paths"].clone();
    for (word, path) in [
        ("POST /proxies/NAME/rotate", "/proxies/{route}/rotate"),
        ("GET /proxies", "/proxies"),
        ("GET /exits", "/exits"),
        ("GET /ready", "/ready"),
    ] {
        let method = word.split(' ').next().unwrap().to_ascii_lowercase();
        assert!(PAGE.contains(word) && paths[path].get(&method).is_some(), "{word} is no endpoint");
    }
}
