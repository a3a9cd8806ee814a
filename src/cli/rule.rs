//! Reads the value of `--rule`: a rule by destination in one line, in the form in which the API shows rules.

use serde_json::{Map, Value, json};

/// The help text for a value of `--rule` that cannot be read.
const FORM: &str = "a rule is hosts, ports or both, and one thing to do: \"*.shop.example,example.org use us-strict\", \
    \"port 25,465 refuse\", \"cdn.example port 443 route cheap\", \"10.0.0.0/8 direct\"";

/// Reads a rule into the JSON of the API. The gateway validates the hosts and the selector.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut words = text.split_whitespace().peekable();
    let list = |text: &str| text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let mut rule = Map::new();
    let is_keyword = |word: &&str| ["port", "use", "route", "refuse", "direct"].contains(word);
    if let Some(hosts) = words.next_if(|word| !is_keyword(word)) {
        rule.insert("host".to_owned(), list(hosts).into());
    }
    if words.next_if(|word| *word == "port").is_some() {
        let ports = list(words.next().ok_or(FORM)?);
        let number = |port: &String| port.parse::<u16>().map_or_else(|_| json!(port), |port| json!(port));
        rule.insert("port".to_owned(), ports.iter().map(number).collect());
    }
    let action = words.next().filter(is_keyword).filter(|word| *word != "port").ok_or(FORM)?;
    let value = if ["use", "route"].contains(&action) { json!(words.next().ok_or(FORM)?) } else { json!(true) };
    rule.insert(action.to_owned(), value);
    if words.next().is_some() || rule.len() < 2 { Err(FORM.to_owned()) } else { Ok(rule.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_in_one_line_becomes_the_json_of_the_api() {
        for (text, want) in [
            (
                "*.shop.example,example.org use us-strict",
                json!({"host": ["*.shop.example", "example.org"], "use": "us-strict"}),
            ),
            ("port 25,8000-8099 refuse", json!({"port": [25, "8000-8099"], "refuse": true})),
            ("cdn.example  port 443 route cheap", json!({"host": ["cdn.example"], "port": [443], "route": "cheap"})),
            ("* direct", json!({"host": ["*"], "direct": true})),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for text in
            ["", "refuse", "shop.example", "shop.example use", "shop.example port refuse", "a b refuse", "a refuse b"]
        {
            assert_eq!(parse(text), Err(FORM.to_owned()), "{text}");
        }
    }
}
