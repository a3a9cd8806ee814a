//! Every path that a document or a module page names must exist, because readers follow it. A path is a word in backticks
//! that looks like one: `gateway/connection.rs`, `docs/security.md`, `tests/it/`.

use std::fs;
use std::path::{Path, PathBuf};

/// A word with one of these endings is a file.
const ENDINGS: [&str; 12] = ["rs", "md", "toml", "js", "mjs", "py", "sh", "yml", "json", "sql", "service", "html"];

/// A word that begins with one of these is a path, whatever it ends with.
const FOLDERS: [&str; 9] = ["src/", "docs/", "tests/", "config/", "benches/", "examples/", "fuzz/", "grafana/", ".ci/"];

/// Files of users or of other projects, and one that must not exist.
const ELSEWHERE: [&str; 4] = ["exitgate.toml", "openapi.json", "meta/data.json", "mod.rs"];

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The path in a quoted word, if it is one: `src/net.rs: a_test_in_it` names a file too.
fn path_in(word: &str) -> Option<&str> {
    let path = word.split(": ").next().unwrap_or_default().trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let named = path.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && ENDINGS.contains(&ending));
    let in_folder = FOLDERS.iter().any(|folder| word.starts_with(folder));
    let path_like = path.chars().all(plain) && !path.starts_with(['/', '.']) || in_folder && path.chars().all(plain);
    (path_like && (named || in_folder) && !ELSEWHERE.contains(&path)).then_some(path)
}

/// The paths in `text` that exist below none of `roots`.
fn dead(text: &str, roots: &[PathBuf]) -> Vec<String> {
    let paths = quoted(text).filter_map(path_in);
    paths.filter(|path| !roots.iter().any(|root| root.join(path).exists())).map(str::to_owned).collect()
}

/// The lines of a module page without their comment marks.
fn module_page(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with("//!"));
    lines.map(|line| line.trim_start_matches("//!")).collect::<Vec<_>>().join("\n")
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|ext| ext == ending) {
            found.push(path);
        }
    }
}

#[test]
fn every_path_that_a_module_page_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (mut pages, mut wrong) = (Vec::new(), Vec::new());
    files(&root.join("src"), "rs", &mut pages);
    for page in &pages {
        // As they are written: from the root, from `src/`, from the module's own folder, or from the folder above.
        let beside = page.parent().unwrap().to_owned();
        let mut roots = vec![root.clone(), root.join("src"), page.with_extension(""), beside.clone()];
        roots.extend(beside.parent().filter(|above| above.starts_with(root.join("src"))).map(Path::to_owned));
        let text = module_page(&fs::read_to_string(page).unwrap());
        let shown = page.strip_prefix(&root).unwrap().display().to_string();
        wrong.extend(dead(&text, &roots).into_iter().map(|path| format!("{shown}: `{path}`")));
    }
    assert!(pages.len() > 100, "only {} module pages were found", pages.len());
    assert!(wrong.is_empty(), "module pages name files that do not exist:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_path_that_a_document_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (mut pages, mut wrong) = (vec![root.join("README.md"), root.join("CONTRIBUTING.md")], Vec::new());
    files(&root.join("docs"), "md", &mut pages);
    for page in pages {
        let roots = [root.clone(), root.join("src"), page.parent().unwrap().to_owned()];
        // Blocks of code hold commands for the reader's own folders.
        let text = fs::read_to_string(&page).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        let shown = page.strip_prefix(&root).unwrap().display().to_string();
        wrong.extend(dead(&prose, &roots).into_iter().map(|path| format!("{shown}: `{path}`")));
    }
    assert!(wrong.is_empty(), "documents name files that do not exist:\n  {}", wrong.join("\n  "));
}

#[test]
fn a_dead_path_is_found() {
    let roots = [PathBuf::from(env!("CARGO_MANIFEST_DIR")), Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    for text in
        ["see `net/gone.rs`", "`docs/gone.md`", "`src/net.rs: x` and `src/gone.rs: x`", "`tests/gone/`", "`gone.rs`"]
    {
        assert_eq!(dead(text, &roots).len(), 1, "{text}");
    }
    for text in [
        "`net.rs`",
        "`docs/security.md`",
        "`src/net.rs: x`",
        "`tests/it/`",
        "`a.example`",
        "`exitgate.db`",
        "src/gone.rs",
    ] {
        assert_eq!(dead(text, &roots), Vec::<String>::new(), "{text}");
    }
    assert_eq!(module_page("//! One `a.rs`.\n//!\n//! Two.\n\n//! no\nuse x;"), " One `a.rs`.\n\n Two.");
}
