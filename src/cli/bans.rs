//! `exitgate bans`: lists, makes and lifts bans of a running gateway. A ban says that an exit is not used for a site.

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value};

use super::ExitStatus;
use super::remote::{ApiRequest, Remote, Watch, cell, encode, time, with_query};
use super::table::Table;

#[derive(Debug, Subcommand)]
pub(super) enum Bans {
    /// List the bans that have not ended
    List {
        /// Only bans of the site that this host belongs to
        #[arg(long)]
        site: Option<String>,
        /// Only bans of this exit: its id or address
        #[arg(long)]
        exit: Option<String>,
        /// The most bans to list
        #[arg(long)]
        limit: Option<u16>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Ban an exit for a site; a ban that exists gets the new end
    Add {
        /// A host of the site
        site: String,
        /// The id or address of the exit
        exit: String,
        /// How long: 30m, 2h, 7d [default: check.ban_for]
        #[arg(long = "for", value_name = "TIME")]
        length: Option<String>,
        /// The reason, for people
        #[arg(long)]
        why: Option<String>,
    },
    /// Lift the bans of a site, or that of one exit there
    Lift {
        /// A host of the site
        site: String,
        /// The id or address of the exit [default: all exits]
        exit: Option<String>,
    },
}

impl Bans {
    fn request(self) -> ApiRequest {
        match self {
            Self::List { site, exit, limit, .. } => {
                let limit = limit.map(|limit| limit.to_string());
                ApiRequest::get(with_query("/bans", &[("site", site), ("exit", exit), ("limit", limit)]))
            }
            Self::Add { site, exit, length, why } => {
                let mut body = Map::from_iter([("site".to_owned(), site.into()), ("exit".to_owned(), exit.into())]);
                body.extend(length.map(|length| ("for".to_owned(), Value::from(length))));
                body.extend(why.map(|why| ("why".to_owned(), Value::from(why))));
                ApiRequest::with_body(Method::POST, "/bans", body.into())
            }
            Self::Lift { site, exit: None } => ApiRequest::delete(format!("/bans/{}", encode(&site))),
            Self::Lift { site, exit: Some(exit) } => {
                ApiRequest::delete(format!("/bans/{}/{}", encode(&site), encode(&exit)))
            }
        }
    }

    pub(super) fn run(self, remote: Remote) -> ExitStatus {
        let watch = if let Self::List { watch, .. } = &self { *watch } else { Watch::default() };
        let show: fn(&Value, Option<usize>) -> String = match &self {
            Self::List { .. } => table,
            Self::Add { .. } => |answer, _| {
                let (site, exit) = (cell(&answer["site"]), cell(&answer["exit"]));
                format!("{exit} is not used for {site} until {} UTC", time(&answer["until"]))
            },
            Self::Lift { .. } => |answer, _| format!("{} bans are lifted", cell(&answer["lifted"])),
        };
        remote.run(watch, &self.request(), show)
    }
}

fn table(answer: &Value, width: Option<usize>) -> String {
    let mut table = Table::new(["SITE", "IP", "EXIT", "UNTIL"]);
    let bans = answer["bans"].as_array().into_iter().flatten();
    let mut shown = 0;
    for ban in bans {
        shown += 1;
        table.row([cell(&ban["site"]), cell(&ban["ip"]), cell(&ban["exit"]), time(&ban["until"])]);
    }
    match answer["total"].as_u64() {
        Some(0) | None => "no site has banned an exit".to_owned(),
        Some(total) if total > shown => {
            format!("{}\n{shown} of {total}; add --site, --exit or --limit", table.text(width))
        }
        Some(_) => table.text(width),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        bans: Bans,
    }

    #[test]
    fn a_command_line_becomes_a_request() {
        for (line, method, path, body) in [
            ("list --site a.test --limit 5", "GET", "/bans?site=a.test&limit=5", Value::Null),
            (
                "add a.test 192.0.2.1 --for 2h --why captcha",
                "POST",
                "/bans",
                json!({"site": "a.test", "exit": "192.0.2.1", "for": "2h", "why": "captcha"}),
            ),
            ("lift a.test", "DELETE", "/bans/a.test", Value::Null),
            ("lift a.test 2001:db8::1", "DELETE", "/bans/a.test/2001%3Adb8%3A%3A1", Value::Null),
        ] {
            let words = std::iter::once("bans").chain(line.split(' '));
            let request = CommandLine::try_parse_from(words).unwrap().bans.request();
            let got = (request.method.to_string(), request.path, request.body.unwrap_or_default());
            assert_eq!(got, (method.to_owned(), path.to_owned(), body), "{line}");
        }
    }

    #[test]
    fn a_list_says_what_it_leaves_out() {
        let ban = json!({"site": "a.test", "exit": "X", "ip": null, "until": null});
        let text = |total: u64| table(&json!({"total": total, "bans": [ban]}), None);
        assert!(text(3).ends_with("1 of 3; add --site, --exit or --limit"));
        assert!(text(1).contains("a.test") && !text(1).contains("of"));
        assert_eq!(table(&json!({"total": 0, "bans": []}), None), "no site has banned an exit");
    }
}
