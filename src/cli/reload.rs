//! `exitgate reload`: the running gateway reads its configuration again, and its answer is shown.

use std::io::Write as _;
use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::Value;

use super::Exit;
use super::client::ask;
use crate::config::Loaded;

pub(super) fn run(loaded: Loaded, _asked: Option<PathBuf>) -> anyhow::Result<Exit> {
    let (status, answer) = ask(&loaded.config, Method::POST, "/reload")?;
    let (said, exit) = told(status, &answer);
    writeln!(std::io::stdout(), "{said}")?;
    Ok(exit)
}

/// The answer in a person's words.
fn told(status: StatusCode, answer: &Value) -> (String, Exit) {
    let list = |key: &str| {
        let keys = answer[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        keys.collect::<Vec<_>>().join(", ")
    };
    if status == StatusCode::OK {
        let (changed, waits) = (list("changed"), list("needs_restart"));
        let said = match (changed.as_str(), waits.as_str()) {
            ("", "") => "nothing changed".to_owned(),
            (changed, "") => format!("changed: {changed}"),
            ("", waits) => format!("waits for a restart: {waits}"),
            (changed, waits) => format!("changed: {changed}\nwaits for a restart: {waits}"),
        };
        return (said, Exit::Ok);
    }
    let error = &answer["error"];
    let message = error["message"].as_str().unwrap_or("the gateway refused");
    match error["details"]["faults"].as_str() {
        Some(faults) => (format!("{message}\n{faults}"), Exit::Usage),
        None => (format!("{status}: {message}"), Exit::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_become_sentences() {
        for (status, answer, said, exit) in [
            (200, json!({"changed": [], "needs_restart": []}), "nothing changed", Exit::Ok),
            (200, json!({"changed": ["a", "b"], "needs_restart": []}), "changed: a, b", Exit::Ok),
            (200, json!({"changed": ["a"], "needs_restart": ["c"]}), "changed: a\nwaits for a restart: c", Exit::Ok),
            (
                422,
                json!({"error": {"message": "bad", "details": {"faults": "x.toml:1: no"}}}),
                "bad\nx.toml:1: no",
                Exit::Usage,
            ),
            (
                401,
                json!({"error": {"message": "send the token"}}),
                "401 Unauthorized: send the token",
                Exit::Unavailable,
            ),
        ] {
            let told = told(StatusCode::from_u16(status).unwrap(), &answer);
            assert_eq!(told, (said.to_owned(), exit));
        }
    }
}
