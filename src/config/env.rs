//! Environment variables named `EXITGATE__SECTION__KEY` override keys of the file. Containers are often configured this
//! way.
//!
//! The value of a variable is read as TOML (`true`, `8`, `["de", "fr"]`, `{ cert = "…", key = "…" }`). If it is not
//! TOML, it is used as plain text, so `EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080` needs no quotes. An empty variable is
//! ignored, because compose files often contain `${TOKEN:-}`, which makes an empty variable if `TOKEN` is not set.

use std::sync::Arc;

use super::finding::{Finding, Location};
use super::tree::{Node, Value};

/// The prefix of the variables that override keys. It ends with two underscores. Variables with one underscore, such as
/// `EXITGATE_URL` and `EXITGATE_TOKEN`, belong to the client commands.
const PREFIX: &str = "EXITGATE__";

/// Writes the value of every variable whose name begins with `EXITGATE__` into the tree. Shorter names come first, so a
/// variable for a key overrides a variable for its whole section.
pub(super) fn lay_on(root: &mut Node, vars: impl IntoIterator<Item = (String, String)>) -> Vec<Finding> {
    let ours = |(name, value): &(String, String)| name.starts_with(PREFIX) && !value.is_empty();
    let mut vars: Vec<_> = vars.into_iter().filter(ours).collect();
    vars.sort();
    vars.iter().filter_map(|(name, value)| lay(root, name, value).err()).collect()
}

fn lay(root: &mut Node, name: &str, value: &str) -> Result<(), Finding> {
    let place = Location::Variable(name.into());
    let fault =
        |what: String, hint: &str| Finding { place: place.clone(), key: String::new(), what, hint: hint.into() };
    let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(fault("holds bytes that are not UTF-8".into(), "write it in UTF-8"));
    }
    if path.iter().any(String::is_empty) {
        return Err(fault(
            "does not name a key".into(),
            "write EXITGATE__SECTION__KEY, as in EXITGATE__GATEWAY__LISTEN",
        ));
    }
    let node = value_of(&place, value).map_err(|why| {
        fault(format!("is not a valid list or table: {why}"), "write it as in the file: [\"de\", \"fr\"]")
    })?;
    let mut here = root;
    for key in &path {
        let entries = match &mut here.value {
            Value::Table(entries) => entries,
            Value::List(_) => {
                let hint = "set the whole list: EXITGATE__ROUTES='[{ name = \"a\", selector = \"us\" }]'";
                return Err(fault(format!("looks for `{key}` inside a list"), hint));
            }
            _ => {
                return Err(fault(format!("looks for `{key}` inside a plain value"), "drop the last part of the name"));
            }
        };
        here =
            entries.entry(key.clone()).or_insert_with(|| Node { place: place.clone(), ..Node::empty(&Arc::from("")) });
    }
    merge(here, node);
    Ok(())
}

/// Reads a variable's text as a TOML value, or else as plain text. A text that begins like a list or a table must be
/// valid TOML.
fn value_of(place: &Location, text: &str) -> Result<Node, String> {
    match Node::parse_value(place, text) {
        Ok(Node { value: Value::Text(text), place, .. }) => Ok(Node { place, raw: None, value: Value::Text(text) }),
        Ok(node) => Ok(Node { raw: Some(text.to_owned()), ..node }),
        Err(why) if text.starts_with(['[', '{']) => Err(why),
        Err(_) => Ok(Node { place: place.clone(), raw: None, value: Value::Text(text.to_owned()) }),
    }
}

/// Merges two tables key by key. If one of the nodes is not a table, `above` replaces `below`.
fn merge(below: &mut Node, above: Node) {
    match (&mut below.value, above.value) {
        (Value::Table(entries), Value::Table(more)) => {
            for (key, node) in more {
                match entries.get_mut(&key) {
                    Some(entry) => merge(entry, node),
                    None => _ = entries.insert(key, node),
                }
            }
        }
        (_, value) => *below = Node { value, ..above },
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Faults, parse};

    fn with(text: &str, vars: &[(&str, &str)]) -> Result<Config, Faults> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse("t.toml", text, vars, None).map(|(config, _)| config)
    }

    fn fault(text: &str, name: &str, value: &str) -> String {
        with(text, &[(name, value)]).unwrap_err().iter().next().unwrap().to_string()
    }

    #[test]
    fn a_variable_overrides_the_file_and_needs_no_quotes() {
        let file = "data_dir = 'a'\n[gateway]\nlisten = '127.0.0.1:1'\npool = 3\n[groups]\ndach = ['de']";
        let vars = [
            ("EXITGATE__GATEWAY__LISTEN", "127.0.0.2:2"),
            ("EXITGATE__GATEWAY__HEDGE", "0.1"),
            ("EXITGATE__GATEWAY__ALLOW_DIRECT", "true"),
            ("EXITGATE__GATEWAY__PROXY_PROTOCOL", "{ trusted = ['10.0.0.5'] }"),
            ("EXITGATE__GROUPS__BENELUX", "['be', 'nl', 'lu']"),
            ("EXITGATE__ROUTES", "[{ name = 'a', selector = 'us' }]"),
            ("EXITGATE__DATA_DIR", ""),
            ("EXITGATE_TOKEN", "not ours"),
            ("PATH", "/bin"),
        ];
        let config = with(file, &vars).unwrap();
        assert_eq!(config.gateway.listen, ["127.0.0.2:2".parse().unwrap()]);
        assert_eq!((config.gateway.hedge, config.gateway.allow_direct, config.gateway.pool.get()), (0.1, true, 3));
        assert_eq!(config.gateway.proxy_protocol, ["10.0.0.5/32".parse().unwrap()]);
        assert_eq!(config.groups.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["benelux", "dach"]);
        assert_eq!(config.routes[0].name, "a");
        assert_eq!(config.data_dir.to_str(), Some("a"), "an empty variable is ignored");
    }

    #[test]
    fn a_secret_of_digits_or_of_a_date_is_still_text() {
        for token in ["123456789012", "2024-01-01", "true", "1e3", "quote'quote\"!", "'half"] {
            let config = with("", &[("EXITGATE__API__TOKEN", token)]).unwrap();
            assert_eq!(config.api.token.unwrap().expose(), token);
        }
        let config = with("", &[("EXITGATE__LOG__FILE", "2024")]).unwrap();
        assert_eq!(config.log.file.unwrap().to_str(), Some("2024"));
    }

    #[test]
    fn a_fault_names_the_variable() {
        for (name, value, want) in [
            (
                "EXITGATE__GATEWAY__LISEN",
                "x",
                "EXITGATE__GATEWAY__LISEN: gateway.lisen is not a key\n    did you mean `listen`?",
            ),
            (
                "EXITGATE__GATEWAY__POOL",
                "many",
                "EXITGATE__GATEWAY__POOL: gateway.pool is \"many\"\n    write a whole number from 1 to 10000",
            ),
            (
                "EXITGATE____X",
                "1",
                "EXITGATE____X: does not name a key\n    write EXITGATE__SECTION__KEY, as in EXITGATE__GATEWAY__LISTEN",
            ),
            (
                "EXITGATE__DATA_DIR__X",
                "1",
                "EXITGATE__DATA_DIR__X: looks for `x` inside a plain value\n    drop the last part of the name",
            ),
        ] {
            assert_eq!(fault("data_dir = 'a'", name, value), want);
        }
        let reached = fault("[[routes]]\nname = 'a'\nselector = 'us'", "EXITGATE__ROUTES__0__NAME", "b");
        assert!(reached.starts_with("EXITGATE__ROUTES__0__NAME: looks for `0` inside a list\n"), "{reached}");
        let list = fault("", "EXITGATE__GROUPS__DACH", "[de, at]");
        assert!(list.starts_with("EXITGATE__GROUPS__DACH: is not a valid list or table: "), "{list}");
        let bytes = fault("", "EXITGATE__API__TOKEN", "caf\u{fffd}");
        assert_eq!(bytes, "EXITGATE__API__TOKEN: holds bytes that are not UTF-8\n    write it in UTF-8");
    }
}
