//! What `docs/security.md` promises, held to the tree: every test that it names is there, and secrets are compared in
//! one place, in a time that tells nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The words of the page that name a test: `path.rs: name`.
fn named(page: &str) -> BTreeSet<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| word.split_once(".rs: ")).collect()
}

/// True if the text of a file has a test of this name: a function behind `#[test]` or a runtime's form of it.
fn has_test(text: &str, name: &str) -> bool {
    let (at, quoted) = (text.find(&format!("fn {name}(")), name.is_empty());
    at.is_some_and(|at| {
        !quoted
            && text[..at].lines().rev().take(6).any(|line| line.trim_start().starts_with("#[") && line.contains("test"))
    })
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named = named(&page);
    assert!(named.len() > 40, "only {} tests are named: is the table still read?", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(path, name)| {
            let text = fs::read_to_string(root().join(format!("{path}.rs"))).unwrap_or_default();
            !has_test(&text, name)
        })
        .collect();
    assert!(missing.is_empty(), "named in docs/security.md and not in the tree: {missing:?}");
}

#[test]
fn every_attack_of_the_attack_tests_is_on_the_security_page() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named = named(&page);
    for entry in fs::read_dir(root().join("tests/e2e/attack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "rs") {
            continue;
        }
        let (text, stem) = (fs::read_to_string(&path).unwrap(), path.file_stem().unwrap().to_str().unwrap());
        for at in text.match_indices("#[tokio::test").map(|(at, _)| at) {
            let name = text[at..].split_once("async fn ").unwrap().1.split('(').next().unwrap();
            let file = format!("tests/e2e/attack/{stem}");
            assert!(named.contains(&(&file, name)), "docs/security.md does not name {file}.rs: {name}");
        }
    }
}

#[test]
fn the_search_for_tests_can_fail() {
    let text = "#[tokio::test]\nasync fn here() {}\n\n\n\n\n\n\n\nfn helper() {}\n";
    assert!(has_test(text, "here"));
    assert!(!has_test(text, "helper") && !has_test(text, "her") && !has_test(text, ""));
    assert_eq!(named("`a/b.rs: c` and `d.rs` and `x: y`"), BTreeSet::from([("a/b", "c")]));
}

/// Where the text of a secret is taken out, file by file.
fn exposed(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            exposed(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().filter(|line| line.contains(".expose()"));
            found.extend(lines.map(|line| (path.clone(), line.to_owned())));
        }
    }
}

/// A comparison of what a secret holds: its time tells how much of a guess was right.
fn compares(line: &str) -> bool {
    ["==", "!=", "starts_with(", "eq_ignore_ascii_case(", ".eq(", ".cmp(", "contains("]
        .iter()
        .any(|word| line.contains(word))
}

/// Timing is not measured: on a busy machine such a test would fail at random. The test checks that secrets are compared
/// by `subtle` only.
#[test]
fn secrets_are_compared_in_constant_time_and_nowhere_else() {
    let mut found = Vec::new();
    exposed(&root().join("src"), &mut found);
    assert!(found.len() > 5, "only {} uses seen: does the walk still work?", found.len());
    let wrong: Vec<_> = found
        .iter()
        .filter(|(path, line)| compares(line) && !path.ends_with("tests.rs") && !line.contains("is_empty"))
        .collect();
    assert!(wrong.is_empty(), "compare with Secret::matches: {wrong:?}");
    let net = fs::read_to_string(root().join("src/net.rs")).unwrap();
    let matches = net.split_once("pub fn matches(").unwrap().1.split_once("\n    }").unwrap().0;
    assert!(matches.contains("ct_eq("), "Secret::matches does not take the same time for all guesses: {matches}");
    assert!(compares("if key.expose() == given {") && !compares("let text = key.expose();"));
}
