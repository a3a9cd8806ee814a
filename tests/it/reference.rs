//! `docs/configuration.md` is generated from `config/exitgate.toml`, which a test in `src/config/schema.rs` holds equal to
//! the code in both directions. `UPDATE_DOCS=1` writes the page again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../config/exitgate.toml");

const OPENING: &str = "\
# Configuration reference

Every key, its default, and the reason for the default. This page is generated from [config/exitgate.toml](../config/exitgate.toml),
which can be copied and changed, and which a test compares with the code; `UPDATE_DOCS=1 cargo test --test it reference` generates it again.

- No file is needed. exitgate reads the file of `--config FILE`, or `./exitgate.toml`, or `/etc/exitgate/exitgate.toml`; without any of
  them these defaults apply.
- Environment variables override the file: `EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080` sets `gateway.listen`.
- Durations: `500ms` `30s` `10m` `2h` `7d` `1h30m`. Sizes: `500000` `500KB` `10MiB`.
- A value in *italics* is an example of a key that has no default. Keys marked **restart** take effect at the next start; `exitgate reload`
  or SIGHUP applies all others, or none if one is wrong.
- `exitgate check-config` lists every fault with its line and key, and opens no port.
";

/// One line of the page.
#[derive(Debug)]
enum Entry<'p> {
    Section(&'p str),
    Key { name: &'p str, default: &'p str, example: bool },
}

fn entry(line: &str) -> Option<Entry<'_>> {
    let example = line.starts_with('#');
    let text = line.strip_prefix('#').unwrap_or(line);
    if let Some(section) = text.strip_prefix('[') {
        return Some(Entry::Section(section.trim_end_matches(']').trim_start_matches('[')));
    }
    let (name, default) = text.split_once(" = ")?;
    let is_key = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_key.then_some(Entry::Key { name, default, example })
}

/// The text of a table cell, with `|` escaped.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn rendered() -> String {
    let mut page = OPENING.to_owned();
    let heading = |page: &mut String, title: &str, why: &str| {
        let _ = write!(page, "\n## {title}\n\n");
        if !why.is_empty() {
            let _ = write!(page, "{why}\n\n");
        }
        page.push_str("| key | default | meaning |\n| --- | --- | --- |\n");
    };
    let (mut why, mut begun) = (String::new(), false);
    for line in PAGE.lines() {
        match entry(line) {
            Some(Entry::Section(name)) => {
                heading(&mut page, &format!("`{name}`"), &why);
                begun = true;
            }
            Some(Entry::Key { name, default, example }) => {
                if !begun {
                    heading(&mut page, "At the top", "");
                    begun = true;
                }
                let restart = why.contains("(restart)");
                let text = why.replace(" (restart)", "").replace("(restart) ", "").replace("(restart)", "");
                let default = if example { format!("*`{default}`*") } else { format!("`{default}`") };
                let mark = if restart { " **restart**" } else { "" };
                let _ = writeln!(page, "| `{name}` | {} | {}{mark} |", cell(&default), cell(text.trim()));
            }
            None => {
                if let Some(more) = line.strip_prefix("# ") {
                    if !why.is_empty() {
                        why.push(' ');
                    }
                    why.push_str(more);
                    continue;
                }
            }
        }
        why.clear();
    }
    page
}

#[test]
fn the_reference_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let wanted = rendered();
    assert!(
        wanted.lines().filter(|line| line.starts_with("| `")).count() > 90,
        "only a few keys were found:\n{wanted}"
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == wanted, "docs/configuration.md is not up to date: UPDATE_DOCS=1 cargo test --test it reference");
}

#[test]
fn links_in_documents_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let documents = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for document in documents.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(&document).unwrap();
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let link = rest.split(')').next().unwrap_or_default();
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let there = match fs::read_to_string(&file) {
                Ok(text) => anchor.is_empty() || anchors(&text).any(|heading| heading == anchor),
                Err(_) => anchor.is_empty() && file.is_dir(),
            };
            if !there {
                wrong.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n  {}", wrong.join("\n  "));
}

/// The anchors of headings, as GitHub makes them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| line.strip_prefix('#')).map(|heading| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
    })
}
