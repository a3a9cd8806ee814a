//! The list of faults for people.

/// Every fault with its comment and its fields, for `simtor faults`: read from the source of [`super::Fault`], so that
/// there is one place.
pub fn list() -> String {
    let (_, variants) = include_str!("../fault.rs").split_once("pub enum Fault {").unwrap_or_default();
    let (variants, _) = variants.split_once("\n}\n").unwrap_or_default();
    let mut text = String::new();
    for line in variants.lines().filter(|line| !line.trim_start().starts_with("#[")) {
        let (indent, line) = (line.len() - line.trim_start().len(), line.trim());
        match (indent, line.strip_prefix("/// ")) {
            (4, Some(comment)) => text.push_str(&format!("    {comment}\n")),
            (4, None) if line.starts_with(|c: char| c.is_ascii_uppercase()) => {
                let name = line.trim_end_matches(['{', ',', ' ']);
                let lower = name.chars().map(|c| match c {
                    'A'..='Z' => format!("_{}", c.to_ascii_lowercase()),
                    c => c.to_string(),
                });
                text.push_str(&format!("{}\n", lower.collect::<String>().trim_start_matches('_')));
            }
            (8, None) => text.push_str(&format!("        {}\n", line.trim_end_matches(','))),
            _ => {}
        }
    }
    text
}
