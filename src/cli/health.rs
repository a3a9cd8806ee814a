//! `exitgate health`: checks that the running gateway answers. Container engines and shell scripts use the exit code.
//!
//! This command checks whether the process is alive, not whether an exit is usable (`GET /ready` tells that). A
//! container engine restarts an unhealthy container, but a restart does not help a gateway that is waiting for Tor's
//! directory.

use std::io::Write as _;
use std::path::PathBuf;

use http::Method;
use serde_json::Value;

use super::ExitStatus;
use super::client::{ClientError, request};
use crate::config::Loaded;

pub(super) fn run(loaded: Loaded, _config: Option<PathBuf>) -> anyhow::Result<ExitStatus> {
    let (text, status) = describe(request(&loaded.config, Method::GET, "/health", None));
    writeln!(std::io::stdout(), "{text}")?;
    Ok(status)
}

/// Returns the line to print, and the exit code. Every kind of failure has the code 69, because health checks expect a
/// single number.
fn describe(answer: Result<Value, ClientError>) -> (String, ExitStatus) {
    match answer {
        Ok(answer) => (answer["status"].as_str().unwrap_or("alive").to_owned(), ExitStatus::Ok),
        Err(error) => (error.to_string(), ExitStatus::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_answer_of_a_gateway_is_healthy() {
        assert_eq!(describe(Ok(json!({"status": "alive"}))), ("alive".to_owned(), ExitStatus::Ok));
        let refused = json!({"error": {"code": "x", "message": "this Host is not one of ours"}});
        for error in [
            ClientError::Refused { status: StatusCode::MISDIRECTED_REQUEST, answer: refused, path: "/health".into() },
            ClientError::Timeout { base: "http://gate.example".into(), seconds: 75 },
        ] {
            let text = error.to_string();
            assert_eq!(describe(Err(error)), (text, ExitStatus::Unavailable));
        }
    }
}
