//! Shared code of the commands that send requests to a running gateway: their options, the loop that prints answers,
//! and the conversion of JSON values into table cells.

use std::io::{self, Write as _};
use std::time::Duration;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{ClientError, request};
use super::table::terminal_width;
use super::{ConfigFile, ExitStatus, load};
use crate::config::Config;

/// Options of every command that asks a gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Remote {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the answer as the API's JSON
    #[arg(long, global = true)]
    json: bool,
}

/// The option of commands that only show something.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Watch {
    /// Ask again every so many seconds until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    watch: Option<u16>,
}

/// A request of a command to the API.
pub(super) struct ApiRequest {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    /// A field of the body that the command added by itself, with a line that explains where its value came from. If
    /// the API refuses this field, the line is printed.
    pub(super) implied: Option<(&'static str, String)>,
}

impl ApiRequest {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, implied: None }
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    pub(super) fn with_body(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { method, body: Some(body), ..Self::get(path) }
    }
}

impl Remote {
    /// Sends a request and prints the answer. The function `show` converts the answer to text for the width of the
    /// terminal. With `--watch`, the request is repeated. If a list has several pages, all pages are read.
    pub(super) fn run(
        self,
        watch: Watch,
        request: &ApiRequest,
        show: impl Fn(&Value, Option<usize>) -> String,
    ) -> ExitStatus {
        let config = match self.config() {
            Ok(config) => config,
            Err(status) => return status,
        };
        let mut out = io::stdout();
        loop {
            let answer = match all_pages(&config, request) {
                Ok(answer) => answer,
                Err(error) => {
                    // If stderr is closed, the error cannot be shown anywhere.
                    _ = writeln!(io::stderr(), "exitgate: {}", explain(&error, request));
                    return error.exit_status();
                }
            };
            let width = terminal_width();
            let text = if self.json { format!("{answer:#}") } else { show(&answer, width) };
            let clear = if watch.watch.is_some() && width.is_some() { "\x1b[H\x1b[2J" } else { "" };
            if writeln!(out, "{clear}{}", text.trim_end()).is_err() {
                return ExitStatus::Ok; // the program that reads the pipe has closed it
            }
            match watch.watch {
                None => return ExitStatus::Ok,
                Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.into())),
            }
        }
    }

    /// Loads the configuration. If the configuration has faults, returns the defaults if `EXITGATE_URL` is set, because
    /// the address of the API then does not come from the configuration. Otherwise prints the faults.
    fn config(&self) -> Result<Config, ExitStatus> {
        match load(self.file.clone()) {
            Ok(loaded) => Ok(loaded.config),
            Err(_) if std::env::var_os("EXITGATE_URL").is_some() => Ok(Config::default()),
            Err(faults) => {
                _ = writeln!(io::stderr(), "{faults}");
                Err(ExitStatus::Usage)
            }
        }
    }
}

fn explain(error: &ClientError, request: &ApiRequest) -> String {
    match &request.implied {
        Some((field, reason)) if error.field() == Some(field) => format!("{error}\n  {reason}"),
        _ => error.to_string(),
    }
}

/// Returns an answer that contains the entries of all pages of a list.
fn all_pages(config: &Config, asked: &ApiRequest) -> Result<Value, ClientError> {
    let send = |path: &str| request(config, asked.method.clone(), path, asked.body.as_ref());
    let mut answer = send(&asked.path)?;
    let list_name = |answer: &Value| {
        let lists = answer.as_object()?.iter().filter(|(_, value)| value.is_array());
        lists.map(|(name, _)| name.clone()).next()
    };
    let paged = asked.method == Method::GET && !asked.path.contains("limit=");
    let Some(name) = list_name(&answer).filter(|_| paged) else { return Ok(answer) };
    loop {
        let after = match &answer["next"] {
            Value::String(after) => encode(after),
            Value::Number(after) => after.to_string(),
            _ => return Ok(answer),
        };
        let joint = if asked.path.contains('?') { '&' } else { '?' };
        let mut next = send(&format!("{}{joint}after={after}", asked.path))?;
        answer["next"] = next["next"].take();
        if let (Some(all), Value::Array(more)) = (answer[&name].as_array_mut(), next[&name].take()) {
            all.extend(more);
        }
    }
}

/// The characters that are percent-encoded in URLs: all but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes a text for use as one segment of a path or as one value of a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Returns the path with a query. The query contains the fields that have a value.
pub(super) fn with_query(path: &str, fields: &[(&str, Option<String>)]) -> String {
    let set = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
    let set: Vec<_> = set.collect();
    if set.is_empty() { path.to_owned() } else { format!("{path}?{}", set.join("&")) }
}

/// Converts a JSON value to the text of a table cell. A missing value is shown as `-`.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "-".to_owned(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Shows a number of bytes with a unit, such as `1.5k`.
pub(super) fn bytes(value: &Value) -> String {
    let count = value.as_u64().unwrap_or_default();
    let units = [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "k")];
    match units.into_iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1}{unit}", count as f64 / size as f64),
        None => count.to_string(),
    }
}

/// Shows a time of the API (`2026-09-02T02:00:00.000Z`) without the fraction of a second and without the zone.
pub(super) fn time(value: &Value) -> String {
    match value.as_str().and_then(|text| text.get(..19)) {
        Some(text) => text.replace('T', " "),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_field_that_nobody_wrote_is_explained() {
        let error = |field: &str| {
            let details = json!({ "field": field });
            let answer = json!({ "error": { "code": "bad_field", "message": "no", "details": details } });
            ClientError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, answer, path: "/proxies".into() }
        };
        let mut request = ApiRequest::with_body(Method::POST, "/proxies", json!({}));
        assert_eq!(explain(&error("selector"), &request), "no (422)");
        request.implied = Some(("selector", "it was made of the name".to_owned()));
        assert_eq!(explain(&error("selector"), &request), "no (422)\n  it was made of the name");
        assert_eq!(explain(&error("port"), &request), "no (422)");
    }

    #[test]
    fn fields_become_a_query_and_values_become_cells() {
        let fields = [("country", Some("??".to_owned())), ("usable", None), ("after", Some("a b&c=é".to_owned()))];
        assert_eq!(with_query("/exits", &fields), "/exits?country=%3F%3F&after=a%20b%26c%3D%C3%A9");
        assert_eq!(with_query("/exits", &[("x", None)]), "/exits");
        assert_eq!(encode("us-strict_a.b~c+d/e"), "us-strict_a.b~c%2Bd%2Fe");
        for (value, want) in [(json!(null), "-"), (json!(true), "yes"), (json!(["a", "b"]), "a,b"), (json!(7), "7")] {
            assert_eq!(cell(&value), want);
        }
        for (count, want) in [(0_u64, "0"), (1023, "1023"), (1536, "1.5k"), (5_u64 << 30, "5.0G")] {
            assert_eq!(bytes(&json!(count)), want);
        }
        assert_eq!(time(&json!("2026-09-02T02:00:00.000Z")), "2026-09-02 02:00:00");
    }
}
