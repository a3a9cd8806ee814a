//! `exitgate health`: whether the running gateway answers, for container engines and scripts, which read the exit code.
//!
//! It asks whether the process is alive, and not whether an exit is usable (`GET /ready` says that): a gateway that waits
//! for Tor's network gets nothing from being started again.

use std::io::Write as _;
use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::Value;

use super::Exit;
use super::client::ask;
use crate::config::Loaded;

pub(super) fn run(loaded: Loaded, _asked: Option<PathBuf>) -> anyhow::Result<Exit> {
    let (said, exit) = told(ask(&loaded.config, Method::GET, "/health"));
    writeln!(std::io::stdout(), "{said}")?;
    Ok(exit)
}

/// The answer, or the want of one, in a person's words.
fn told(answer: anyhow::Result<(StatusCode, Value)>) -> (String, Exit) {
    match answer {
        Ok((StatusCode::OK, answer)) => (answer["status"].as_str().unwrap_or("alive").to_owned(), Exit::Ok),
        Ok((status, answer)) => {
            let message = answer["error"]["message"].as_str().unwrap_or("the gateway refused");
            (format!("{status}: {message}"), Exit::Unavailable)
        }
        Err(why) => (format!("{why:#}"), Exit::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_answer_of_its_own_is_health() {
        let refused = json!({"error": {"message": "this Host is not one of ours"}});
        for (answer, said, exit) in [
            (Ok((StatusCode::OK, json!({"status": "alive"}))), "alive", Exit::Ok),
            (
                Ok((StatusCode::MISDIRECTED_REQUEST, refused)),
                "421 Misdirected Request: this Host is not one of ours",
                Exit::Unavailable,
            ),
            (Err(anyhow!("refused").context("no gateway")), "no gateway: refused", Exit::Unavailable),
        ] {
            assert_eq!(told(answer), (said.to_owned(), exit));
        }
    }
}
