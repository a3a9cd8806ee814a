use std::collections::BTreeSet;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use super::*;

/// The largest number of bytes (compressed) that a browser may have to load before it shows the first page.
const FIRST_PAINT: usize = 100_000;

/// The files that a browser loads only when the page of exits is open: the world map.
const LATER: &[&str] = &["map.js", "pages/map.js"];

/// The largest number of bytes (compressed) of the world map.
const MAP: usize = 25_000;

fn is_later(name: &str) -> bool {
    LATER.contains(&name)
}

fn folder() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("src/console/assets")
}

fn walk(dir: &FilePath, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.insert(path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn every_file_of_the_folder_is_served() {
    let mut found = BTreeSet::new();
    walk(&folder(), &mut found);
    let mut served: BTreeSet<_> = ASSETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    served.insert("index.html".to_owned());
    assert_eq!(found, served);
}

#[test]
fn the_first_paint_is_small() {
    let all: usize = CONSOLE
        .files
        .iter()
        .filter(|(name, _)| !name.ends_with(".txt") && !is_later(name))
        .map(|(_, f)| f.compressed())
        .sum();
    let sum = all + CONSOLE.page.compressed();
    assert!(sum < FIRST_PAINT, "all files together have {sum} bytes compressed");
    assert!(sum > 10_000, "{sum} bytes: are the files in it?");
}

#[test]
fn the_world_map_is_small_and_loaded_later() {
    let sum: usize = CONSOLE.files.iter().filter(|(name, _)| is_later(name)).map(|(_, f)| f.compressed()).sum();
    assert!((5_000..MAP).contains(&sum), "the world map has {sum} bytes compressed");
    assert!(LATER.iter().all(|name| !PAGE.contains(name)), "the page loads the map at once");
}

#[test]
fn the_page_names_every_module_of_this_version_and_nothing_else() {
    let page = PAGE.replace(FOLDER_MARK, &format!("/console/{}", CONSOLE.version));
    for (name, _) in ASSETS.iter().filter(|(name, _)| !name.ends_with(".txt") && !is_later(name)) {
        assert!(page.contains(&format!("\"/console/{}/{name}\"", CONSOLE.version)), "the page does not load {name}");
    }
    assert!(!page.contains(FOLDER_MARK));
}

#[test]
fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
    for (name, content) in ASSETS.iter().chain([&("index.html", PAGE.as_bytes())]) {
        if name.starts_with("vendor/") {
            continue;
        }
        let text = std::str::from_utf8(content).unwrap();
        for word in
            ["innerHTML", "outerHTML", "document.write", "eval(", "new Function", "localStorage.setItem(\"token"]
        {
            assert!(!text.contains(word), "{name} uses {word}");
        }
    }
    for word in ["<script>", "<style", " style=", " onclick=", " onload=", "javascript:", "http://", "https://"] {
        assert!(!PAGE.contains(word), "the page has {word}");
    }
}

#[test]
fn a_file_is_found_by_version_and_name_alone() {
    let version = CONSOLE.version.clone();
    assert!(CONSOLE.file(&version, "app.js").is_some());
    for name in ["", "app", "../console.rs", "./app.js", "pages/../app.js", "APP.JS", "index.html"] {
        assert!(CONSOLE.file(&version, name).is_none(), "{name}");
    }
    assert!(CONSOLE.file("0000000000000000", "app.js").is_none());
}

#[tokio::test]
async fn the_page_is_revalidated_and_its_files_are_immutable() {
    let answer = page(HeaderMap::new()).await;
    assert_eq!(answer.headers()[header::CACHE_CONTROL], REVALIDATE);
    assert!(answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("trusted-types 'none'"));
    let path = |version: &str| Path((version.to_owned(), "app.css".to_owned()));
    let answer = asset(path(&CONSOLE.version), HeaderMap::new()).await;
    assert_eq!(answer.headers()[header::CACHE_CONTROL], IMMUTABLE);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
    assert_eq!(asset(path("old"), HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
}
