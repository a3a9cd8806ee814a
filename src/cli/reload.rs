//! `exitgate reload`: makes the running gateway read its configuration again, and prints which keys changed.

use std::io::Write as _;
use std::path::PathBuf;

use http::Method;
use serde_json::Value;

use super::ExitStatus;
use super::client::{ClientError, request};
use crate::config::Loaded;

pub(super) fn run(loaded: Loaded, _config: Option<PathBuf>) -> anyhow::Result<ExitStatus> {
    let (text, status) = describe(request(&loaded.config, Method::POST, "/reload", None));
    writeln!(std::io::stdout(), "{text}")?;
    Ok(status)
}

/// Returns the lines to print, and the exit code: 64 if the configuration has faults, 69 for every other failure.
fn describe(answer: Result<Value, ClientError>) -> (String, ExitStatus) {
    match answer {
        Ok(answer) => (changes(&answer), ExitStatus::Ok),
        Err(ClientError::Refused { answer, .. }) if answer["error"]["details"]["faults"].is_string() => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (message, faults) = (text(&answer["error"]["message"]), text(&answer["error"]["details"]["faults"]));
            (format!("{message}\n{faults}"), ExitStatus::Usage)
        }
        Err(error) => (error.to_string(), ExitStatus::Unavailable),
    }
}

fn changes(answer: &Value) -> String {
    let list = |key: &str| {
        let keys = answer[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        keys.collect::<Vec<_>>().join(", ")
    };
    let (changed, waiting) = (list("changed"), list("needs_restart"));
    match (changed.as_str(), waiting.as_str()) {
        ("", "") => "nothing changed".to_owned(),
        (changed, "") => format!("changed: {changed}"),
        ("", waiting) => format!("waits for a restart: {waiting}"),
        (changed, waiting) => format!("changed: {changed}\nwaits for a restart: {waiting}"),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_become_lines_and_exit_codes() {
        for (answer, text) in [
            (json!({"changed": [], "needs_restart": []}), "nothing changed"),
            (json!({"changed": ["a", "b"], "needs_restart": []}), "changed: a, b"),
            (json!({"changed": ["a"], "needs_restart": ["c"]}), "changed: a\nwaits for a restart: c"),
        ] {
            assert_eq!(describe(Ok(answer)), (text.to_owned(), ExitStatus::Ok));
        }
        let refused = |status, answer| {
            let status = StatusCode::from_u16(status).unwrap();
            describe(Err(ClientError::Refused { status, answer, path: "/reload".into() }))
        };
        let faults = json!({"error": {"message": "bad", "details": {"faults": "x.toml:1: no"}}});
        assert_eq!(refused(422, faults), ("bad\nx.toml:1: no".to_owned(), ExitStatus::Usage));
        let (text, status) = refused(401, json!({"error": {"code": "unauthorized", "message": "send the token"}}));
        assert!(text.starts_with("send the token (401)\n") && text.contains("EXITGATE_TOKEN"), "{text}");
        assert_eq!(status, ExitStatus::Unavailable);
    }
}
