//! Rooms know only the rooms below them. This reads every `crate::…` path in `src/` and fails on an arrow that points
//! up or sideways, because an architecture that nothing enforces is gone in a month.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The levels of `docs/ARCHITECTURE.md`, lowest first. Rooms on one level do not know each other.
const LEVELS: [&[&str]; 11] = [
    &["net", "lifecycle", "telemetry"],
    &["exit"],
    &["route"],
    &["config"],
    &["tor", "store", "limit"],
    &["dial", "listen"],
    &["state"],
    &["gateway", "check", "source"],
    &["admin"],
    &["api", "console"],
    &["app", "cli", "main", "lib", "dead_code"],
];

/// Rooms of the top level that may look down on one another: main → cli → app.
const WITHIN_TOP: [(&str, &str); 3] = [("cli", "app"), ("main", "cli"), ("main", "app")];

fn level(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The room that a file belongs to: the first piece of its path below `src/`.
fn room(src: &Path, file: &Path) -> String {
    let piece = file.strip_prefix(src).unwrap().components().next().unwrap();
    piece.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The code of a file without comments (a doc link may point up: that is how a reader finds the next page).
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every room named by a `crate::` path, also inside a nested `use crate::{a::b, c}`.
fn named_rooms(code: &str) -> BTreeSet<String> {
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut expect = true;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expect = true,
                c if expect && (c.is_alphanumeric() || c == '_') => {
                    rooms.insert(word(&list[i..]));
                    expect = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

fn faults(from: &str, code: &str) -> Vec<String> {
    let here = level(from).unwrap_or_else(|| panic!("room `{from}` has no level: add it to LEVELS"));
    named_rooms(code)
        .into_iter()
        .filter(|to| to != from && !WITHIN_TOP.contains(&(from, to.as_str())))
        .filter_map(|to| match level(&to) {
            None => Some(format!("{from} names crate::{to}, which is no room")),
            Some(there) if there >= here => Some(format!("{from} (level {here}) → {to} (level {there})")),
            Some(_) => None,
        })
        .collect()
}

#[test]
fn arrows_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "only {} files seen: does the walk still work?", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let found = faults(&room(&src, &file), &code(&text));
        wrong.extend(found.into_iter().map(|fault| format!("{}: {fault}", file.display())));
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways:\n  {}", wrong.join("\n  "));
}

/// Crates whose words must not spread: what is behind them can then be exchanged in one room.
const KEPT_IN: &[(&str, &[&str])] =
    &[("rusqlite::", &["store"]), ("axum::", &["api", "console", "app"]), ("clap::", &["cli"])];

fn strayed(room: &str, code: &str) -> Vec<&'static str> {
    let stray = KEPT_IN.iter().filter(|(name, rooms)| code.contains(name) && !rooms.contains(&room));
    stray.map(|(name, _)| *name).collect()
}

#[test]
fn a_crate_stays_in_its_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let found = strayed(&room(&src, &file), &code(&text));
        wrong.extend(found.into_iter().map(|name| format!("{} names {name}", file.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(strayed("gateway", "use rusqlite::Connection;"), ["rusqlite::"]);
    assert!(strayed("store", "use rusqlite::Connection;").is_empty());
}

#[test]
fn the_check_can_fail() {
    assert_eq!(faults("dial", "use crate::gateway::Failure;").len(), 1);
    assert_eq!(faults("dial", "use crate::{net::{Host, Target}, listen, tor::Tor};").len(), 1);
    assert_eq!(faults("exit", "use crate::route::Isolation;").len(), 1);
    assert_eq!(faults("gateway", "let x = crate::nowhere::y();").len(), 1);
    assert!(faults("dial", "use crate::{net::{Host, Target}, tor::Tor};").is_empty());
    assert!(faults("route", "use crate::exit::ExitId; use crate::route::pool;").is_empty());
    assert!(named_rooms(&code("//! see [`crate::gateway`]")).is_empty());
}
