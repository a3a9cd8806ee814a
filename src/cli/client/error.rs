//! The possible errors of a request to the API, with texts for people and exit codes for shell scripts.

use std::fmt;

use http::StatusCode;
use serde_json::Value;

use super::super::ExitStatus;

/// The reason why a request to the API failed.
#[derive(Debug)]
pub(in crate::cli) enum ClientError {
    /// The API is turned off in the configuration, and `EXITGATE_URL` is not set.
    NoAddress,
    /// The value of `EXITGATE_URL` cannot be the URL of an API.
    Url { url: String, reason: String },
    /// The client could not connect to the API, or the TLS handshake failed.
    Unreachable { base: String, reason: String },
    /// The connection ended before the answer was complete.
    Broken { base: String, reason: String },
    /// The answer did not arrive within the time limit.
    Timeout { base: String, seconds: u64 },
    /// The answer does not come from the API of an exitgate gateway.
    NotExitgate { base: String, status: StatusCode },
    /// The API refused the request. `answer` is the JSON of the error, and `path` is the path of the request.
    Refused { status: StatusCode, answer: Value, path: String },
    /// The HTTP client could not be created.
    Setup(String),
}

impl ClientError {
    pub(super) fn refused(status: StatusCode, answer: Value, path: &str) -> Self {
        Self::Refused { status, answer, path: path.to_owned() }
    }

    /// Returns 64 if the request is wrong, and 69 if the same request may succeed later.
    pub(in crate::cli) fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Setup(_) => ExitStatus::Internal,
            Self::NoAddress | Self::Url { .. } => ExitStatus::Usage,
            Self::Refused { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => ExitStatus::Unavailable,
                status if status.is_client_error() => ExitStatus::Usage,
                _ => ExitStatus::Unavailable,
            },
            _ => ExitStatus::Unavailable,
        }
    }

    /// Returns the field of the request that the API reported as wrong, if it reported one.
    pub(in crate::cli) fn field(&self) -> Option<&str> {
        let Self::Refused { answer, .. } = self else { return None };
        answer["error"]["details"]["field"].as_str()
    }
}

impl std::error::Error for ClientError {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("api.listen is empty; set EXITGATE_URL=http://HOST:PORT"),
            Self::Url { url, reason } => {
                write!(f, "EXITGATE_URL={url:?}: {reason}; write http://HOST:PORT or https://HOST")
            }
            Self::Unreachable { base, reason } => write!(
                f,
                "cannot connect to {base} ({reason})\n  is the gateway running? If it is elsewhere, set EXITGATE_URL, \
                 or name its configuration with -c FILE"
            ),
            Self::Broken { base, reason } => write!(f, "the connection to {base} broke: {reason}"),
            Self::Timeout { base, seconds } => write!(f, "{base} sent nothing for {seconds} s"),
            Self::NotExitgate { base, status } => {
                write!(
                    f,
                    "{base} answered {} with something that is not exitgate's JSON: is it a gateway?",
                    status.as_u16()
                )
            }
            Self::Refused { status, answer, path } => {
                let message = answer["error"]["message"].as_str().unwrap_or("the gateway refused and gave no reason");
                let code = answer["error"]["code"].as_str().unwrap_or_default();
                write!(f, "{message} ({}){}", status.as_u16(), next_step(code, path))
            }
            Self::Setup(reason) => write!(f, "the HTTP client cannot start: {reason}"),
        }
    }
}

/// Returns a text that says what the user can do after a refusal with this code.
fn next_step(code: &str, path: &str) -> &'static str {
    match code {
        "unauthorized" => "\n  set EXITGATE_TOKEN, or run this where the gateway's data_dir can be read",
        "unknown_host" => "\n  use a name that api.hosts lists: EXITGATE_URL=http://NAME:PORT",
        "no_exit" | "no_other_exit" => "\n  `exitgate why USERNAME` explains why the others are excluded",
        "read_only" => "\n  change it in the configuration, then run `exitgate reload`",
        "not_found" => match path.split(['/', '?']).nth(1).unwrap_or_default() {
            "proxies" => "\n  `exitgate routes list` lists the routes",
            "exits" => "\n  `exitgate exits` lists the exits",
            "connections" => "\n  `exitgate connections` lists the open connections",
            "sources" => "\n  `exitgate sources` lists the sources",
            _ => "",
        },
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(status: u16, code: &str, path: &str) -> ClientError {
        let answer = json!({ "error": { "code": code, "message": "no" } });
        ClientError::refused(StatusCode::from_u16(status).unwrap(), answer, path)
    }

    #[test]
    fn a_refusal_names_the_next_step() {
        for (status, code, path, step, exit) in [
            (409, "no_exit", "/proxies", "exitgate why", ExitStatus::Usage),
            (401, "unauthorized", "/exits", "EXITGATE_TOKEN", ExitStatus::Unavailable),
            (404, "not_found", "/connections/99", "exitgate connections", ExitStatus::Usage),
            (404, "not_found", "/proxies/x/rotate?session=a", "exitgate routes list", ExitStatus::Usage),
            (404, "not_found", "/exits/x", "exitgate exits", ExitStatus::Usage),
            (404, "not_found", "/sources/x/refresh", "exitgate sources", ExitStatus::Usage),
            (500, "internal", "/exits", "", ExitStatus::Unavailable),
        ] {
            let error = refused(status, code, path);
            let text = error.to_string();
            assert!(text.starts_with(&format!("no ({status})")) && text.contains(step), "{text}");
            assert_eq!(text.contains('\n'), !step.is_empty(), "{text}");
            assert_eq!(error.exit_status(), exit, "{code}");
        }
    }
}
