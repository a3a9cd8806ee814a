//! What the commands that speak over the API share: where the gateway is, how an answer is shown, what a refusal says.

use std::io::Write as _;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::client::ask_with;
use super::table::terminal;
use super::{ConfigFile, Exit, load};
use crate::config::Config;

/// Where the gateway is and how its answer is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Remote {
    #[command(flatten)]
    file: ConfigFile,
    /// The answer as JSON, as the API gives it
    #[arg(long, global = true)]
    json: bool,
    /// Ask again every so many seconds until interrupted
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    watch: Option<u16>,
}

/// One question.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

impl Question {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    pub(super) fn send(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { method, path: path.into(), body: Some(body) }
    }
}

impl Remote {
    /// Asks and shows. A list that has more pages is read to its end.
    pub(super) fn run(self, question: &Question, show: impl Fn(&Value, Option<usize>) -> String) -> Exit {
        let config = match self.config() {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        let mut out = std::io::stdout();
        loop {
            let answer = match whole(&config, question) {
                Ok(answer) => answer,
                Err((said, exit)) => {
                    // Nothing can be done about a closed terminal.
                    _ = writeln!(std::io::stderr(), "exitgate: {said}");
                    return exit;
                }
            };
            let text = if self.json { format!("{answer:#}") } else { show(&answer, terminal()) };
            let clear = if self.watch.is_some() && terminal().is_some() { "\x1b[H\x1b[2J" } else { "" };
            if writeln!(out, "{clear}{}", text.trim_end()).is_err() {
                return Exit::Ok; // whoever read has seen enough
            }
            match self.watch {
                None => return Exit::Ok,
                Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.into())),
            }
        }
    }

    /// With `EXITGATE_URL` the configuration of this machine may be broken, or another's.
    fn config(&self) -> Result<Config, Exit> {
        match load(self.file.clone()) {
            Ok(loaded) => Ok(loaded.config),
            Err(_) if std::env::var_os("EXITGATE_URL").is_some() => Ok(Config::default()),
            Err(faults) => {
                _ = writeln!(std::io::stderr(), "{faults}");
                Err(Exit::Usage)
            }
        }
    }
}

/// The answer with the entries of all its pages.
fn whole(config: &Config, question: &Question) -> Result<Value, (String, Exit)> {
    let mut answer = once(config, question, &question.path)?;
    let list = |answer: &Value| {
        let lists = answer.as_object()?.iter().filter(|(_, value)| value.is_array());
        lists.map(|(name, _)| name.clone()).next()
    };
    let paged = question.method == Method::GET && !question.path.contains("limit=");
    let Some(name) = list(&answer).filter(|_| paged) else { return Ok(answer) };
    loop {
        let after = match &answer["next"] {
            Value::String(after) => piece(after),
            Value::Number(after) => after.to_string(),
            _ => return Ok(answer),
        };
        let joint = if question.path.contains('?') { '&' } else { '?' };
        let mut next = once(config, question, &format!("{}{joint}after={after}", question.path))?;
        answer["next"] = next["next"].take();
        if let (Some(all), Value::Array(more)) = (answer[&name].as_array_mut(), next[&name].take()) {
            all.extend(more);
        }
    }
}

fn once(config: &Config, question: &Question, path: &str) -> Result<Value, (String, Exit)> {
    match ask_with(config, question.method.clone(), path, question.body.as_ref()) {
        Ok((status, answer)) if status.is_success() => Ok(answer),
        Ok((status, answer)) => Err((refusal(status, &answer), exit(status))),
        Err(why) => Err((format!("{why:#}"), Exit::Unavailable)),
    }
}

/// A refusal as a sentence, with what follows from it.
pub(super) fn refusal(status: StatusCode, answer: &Value) -> String {
    let message = answer["error"]["message"].as_str().unwrap_or("the gateway refused and did not say why");
    let next = match answer["error"]["code"].as_str().unwrap_or_default() {
        "unauthorized" => "\n  set EXITGATE_TOKEN, or run this where the gateway's data_dir can be read",
        "unknown_host" => "\n  say the name that api.hosts lists: EXITGATE_URL=http://NAME:PORT",
        "no_exit" | "no_other_exit" => "\n  `exitgate why USERNAME` shows where all exits went",
        "read_only" => "\n  change it in the configuration, then `exitgate reload`",
        "not_found" => "\n  `exitgate routes list` and `exitgate exits` show what there is",
        _ => "",
    };
    format!("{message} ({}){next}", status.as_u16())
}

/// What a script learns: 64, the request is wrong; 69, it may be good later.
fn exit(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => Exit::Unavailable,
        status if status.is_client_error() => Exit::Usage,
        _ => Exit::Unavailable,
    }
}

/// A text as one piece of a path or a query.
pub(super) fn piece(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A query of those words that were said.
pub(super) fn query(path: &str, words: &[(&str, Option<String>)]) -> String {
    let said = words.iter().filter_map(|(name, value)| Some(format!("{name}={}", piece(value.as_deref()?))));
    let said: Vec<_> = said.collect();
    if said.is_empty() { path.to_owned() } else { format!("{path}?{}", said.join("&")) }
}

/// A value as a cell: what is not there is a dash.
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

/// Bytes in few characters.
pub(super) fn bytes(value: &Value) -> String {
    let count = value.as_u64().unwrap_or_default();
    let units = [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "k")];
    match units.into_iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1}{unit}", count as f64 / size as f64),
        None => count.to_string(),
    }
}

/// A moment of the API without what a person does not read.
pub(super) fn moment(value: &Value) -> String {
    match value.as_str().and_then(|text| text.get(..19)) {
        Some(text) => text.replace('T', " "),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_a_sentence_with_the_next_step() {
        let body = json!({ "error": { "code": "no_exit", "message": "no exit would serve this" } });
        let said = refusal(StatusCode::CONFLICT, &body);
        assert!(said.starts_with("no exit would serve this (409)\n") && said.contains("exitgate why"), "{said}");
        assert_eq!(exit(StatusCode::CONFLICT), Exit::Usage);
        assert_eq!(exit(StatusCode::UNAUTHORIZED), Exit::Unavailable);
        assert_eq!(exit(StatusCode::INTERNAL_SERVER_ERROR), Exit::Unavailable);
    }

    #[test]
    fn words_become_a_query_and_values_cells() {
        let words = [("country", Some("??".to_owned())), ("usable", None), ("after", Some("a b".to_owned()))];
        assert_eq!(query("/exits", &words), "/exits?country=%3F%3F&after=a%20b");
        assert_eq!(query("/exits", &[("x", None)]), "/exits");
        for (value, want) in [(json!(null), "-"), (json!(true), "yes"), (json!(["a", "b"]), "a,b"), (json!(7), "7")] {
            assert_eq!(cell(&value), want);
        }
        for (count, want) in [(0_u64, "0"), (1023, "1023"), (1536, "1.5k"), (5_u64 << 30, "5.0G")] {
            assert_eq!(bytes(&json!(count)), want);
        }
        assert_eq!(moment(&json!("2026-09-02T02:00:00.000Z")), "2026-09-02 02:00:00");
    }
}
