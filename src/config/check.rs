//! `[check]`: how exits are tested, and with which pages.

mod presets;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use regex::bytes::Regex;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::text_value::{List, Text, TextValue as _};
use super::{schema, tls};

/// The settings of `[check]`.
#[derive(Clone, Debug)]
pub struct Check {
    /// URLs of servers that answer with the client's address.
    pub echo: Vec<Uri>,
    /// URLs of pages that are the same for every client. A different answer shows that an exit changes content.
    pub canary: Vec<Uri>,
    /// The check targets that routes may use: those of the file, and the presets that the file does not replace.
    pub targets: Vec<CheckTarget>,
    /// A file with at least one certificate. These certificates are trusted in addition to the public roots. `None`:
    /// only the public roots are trusted.
    pub ca_file: Option<PathBuf>,
    /// The largest number of new checks per second. Above 0.
    pub per_second: f64,
    /// The largest number of checks at the same time.
    pub concurrency: NonZeroU32,
    /// The time between two checks of the same exit.
    pub every: Duration,
    /// The time limit of one probe (one request of a check).
    pub timeout: Duration,
    /// The number of probes in one check.
    pub probes: NonZeroU32,
    /// The number of probes that must pass. Not more than `probes`.
    pub passes: NonZeroU32,
    /// The age after which the result of a check no longer counts. Longer than `every`.
    pub stale_after: Duration,
    /// How long an exit is not used for a site after this site refused the exit.
    pub ban_for: Duration,
    /// The largest number of requests per hour that checks make to each echo server by themselves. Above 0.
    pub echo_per_hour: f64,
    /// The settings for tests of public proxies (`[check.public]`).
    pub public: CheckPublic,
    /// The settings for tests of exits of one's own (`[check.upstream]`).
    pub upstream: CheckUpstream,
}

/// A page that is fetched through exits, and the answer that a good exit must get.
#[derive(Clone, Debug)]
pub struct CheckTarget {
    /// The name that a route's key `check` refers to.
    pub name: String,
    pub url: Uri,
    /// The accepted HTTP statuses, at least one.
    pub expect_status: Vec<u16>,
    /// Text that the body must contain. `None`: the body need not contain a certain text.
    pub expect_body: Option<String>,
    /// A regular expression that must match the body. `None`: the body is not matched.
    pub expect_regex: Option<Regex>,
    /// The time limit from opening the stream to the end of the page. `None`: no limit for this page.
    pub expect_latency: Option<Duration>,
    /// The site that an exit is banned from if it fails this check.
    pub site: String,
    /// True for a built-in check target, which is tested only while a route uses it.
    pub preset: bool,
}

/// The settings of `[check.public]`: how public proxies are tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPublic {
    /// `http://` URLs of servers that answer with the client's address.
    pub echo: Vec<Uri>,
    /// An `http://` page that shows the headers of the request. `None`: the anonymity of proxies stays unknown.
    pub headers: Option<Uri>,
    /// The largest number of checks at the same time.
    pub concurrency: NonZeroU32,
    /// The time limit for connecting to the proxy.
    pub connect_timeout: Duration,
    /// The time limit for the first byte of a proxy's answer.
    pub reply_timeout: Duration,
    /// The time limit of a probe after the connection to the proxy is open.
    pub timeout: Duration,
    /// The time between a failed check of a proxy and its next check. It doubles with each failure in a row.
    pub failed_every: Duration,
    /// The longest time between a failed check and the next. Not less than `failed_every`.
    pub failed_at_most: Duration,
    /// The time between two checks of a proxy that works.
    pub working_every: Duration,
    /// The number of requests in the extended check, which is made after the first success. 0 turns it off.
    pub extended_probes: u32,
    /// The number of requests of the extended check that must succeed. Not more than `extended_probes`.
    pub extended_passes: u32,
    /// The number of failures in a row after which a proxy is removed.
    pub remove_after: NonZeroU32,
    /// How long a removed proxy is ignored if a list contains it again.
    pub removed_for: Duration,
    /// The largest number of proxies that are kept from all lists together.
    pub most: NonZeroU32,
}

/// The settings of `[check.upstream]`: how exits of one's own are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckUpstream {
    /// The time between two checks of the same exit.
    pub every: Duration,
    /// The age after which the result of a check no longer counts. Longer than `every`.
    pub stale_after: Duration,
    /// The largest number of checks at the same time.
    pub concurrency: NonZeroU32,
}

impl Check {
    /// Returns the check target of this name.
    pub fn target(&self, name: &str) -> Option<&CheckTarget> {
        self.targets.iter().find(|target| target.name == name)
    }

    pub(super) fn validate(file: &schema::Check, findings: &mut Findings) -> Self {
        check_numbers(file, findings);
        let ca_file = file.ca_file.clone();
        if let Some(path) = &ca_file {
            tls::certificates(findings, &"check.ca_file".into(), path);
        }
        Self {
            echo: echo(&file.echo, findings),
            canary: file.canary.iter().map(|(_, url)| url.0.clone()).collect(),
            targets: targets(&file.targets, findings),
            ca_file,
            per_second: file.per_second,
            concurrency: file.concurrency.positive(),
            every: file.every.0,
            timeout: file.timeout.0,
            probes: file.probes.positive(),
            passes: file.passes.positive(),
            stale_after: file.stale_after.0,
            ban_for: file.ban_for.0,
            echo_per_hour: file.echo_per_hour,
            public: public(&file.public, findings),
            upstream: upstream(&file.upstream, findings),
        }
    }
}

fn upstream(file: &schema::CheckUpstream, findings: &mut Findings) -> CheckUpstream {
    if file.stale_after.0 <= file.every.0 && findings.is_sound(&"check.upstream.every".into()) {
        let what = format!(
            "is {}, which is not longer than check.upstream.every ({})",
            file.stale_after.0.write(),
            file.every.0.write()
        );
        findings.fault("check.upstream.stale_after", what, "raise it to several times check.upstream.every");
    }
    let concurrency = file.concurrency.positive();
    CheckUpstream { every: file.every.0, stale_after: file.stale_after.0, concurrency }
}

fn public(file: &schema::CheckPublic, findings: &mut Findings) -> CheckPublic {
    let echo: Vec<_> = file.echo.iter().map(|(_, url)| url.0.clone()).collect();
    let headers = file.headers.as_ref().map(|Text(url)| url.clone());
    if echo.is_empty() {
        let hint = "name two servers that answer with the caller's address over plain http://";
        findings.fault("check.public.echo", "is empty", hint);
    }
    let secure = |url: &Uri| url.scheme_str() == Some("https");
    for url in echo.iter().filter(|url| secure(url)) {
        let hint = "write http://: this check measures what a proxy does to unencrypted traffic";
        findings.fault("check.public.echo", format!("names {url}"), hint);
    }
    if headers.as_ref().is_some_and(secure) {
        let hint = "write http://: a proxy adds headers only to requests that it can read";
        findings.fault("check.public.headers", "is an https:// page", hint);
    }
    if file.extended_passes.0 > file.extended_probes.0 && findings.is_sound(&"check.public.extended_probes".into()) {
        let what =
            format!("is {}, but there are only {} extended probes", file.extended_passes.0, file.extended_probes.0);
        findings.fault("check.public.extended_passes", what, "lower it, or raise check.public.extended_probes");
    }
    if file.failed_at_most.0 < file.failed_every.0 && findings.is_sound(&"check.public.failed_every".into()) {
        let what = format!("is {}, which is less than check.public.failed_every", file.failed_at_most.0.write());
        findings.fault("check.public.failed_at_most", what, "raise it, or lower check.public.failed_every");
    }
    CheckPublic {
        echo,
        headers,
        concurrency: file.concurrency.positive(),
        connect_timeout: file.connect_timeout.0,
        reply_timeout: file.reply_timeout.0,
        timeout: file.timeout.0,
        failed_every: file.failed_every.0,
        failed_at_most: file.failed_at_most.0,
        working_every: file.working_every.0,
        extended_probes: file.extended_probes.0,
        extended_passes: file.extended_passes.0,
        remove_after: file.remove_after.positive(),
        removed_for: file.removed_for.0,
        most: file.most.positive(),
    }
}

fn check_numbers(file: &schema::Check, findings: &mut Findings) {
    if !(file.per_second > 0.0 && file.per_second <= 1_000_000.0) {
        findings.fault("check.per_second", format!("is {}", file.per_second), "write a number above 0, such as 5.0");
    }
    if !(file.echo_per_hour >= 1.0 && file.echo_per_hour <= 1_000_000_000.0) {
        let hint = "write a number from 1, such as 500.0";
        findings.fault("check.echo_per_hour", format!("is {}", file.echo_per_hour), hint);
    }
    if file.passes.0 > file.probes.0 && findings.is_sound(&"check.probes".into()) {
        let what = format!("is {}, but a check has only {} probes", file.passes.0, file.probes.0);
        findings.fault("check.passes", what, "lower it, or raise check.probes");
    }
    if file.stale_after.0 <= file.every.0 && findings.is_sound(&"check.every".into()) {
        let what = format!(
            "is {}, which is not longer than check.every ({}): each verdict would be too old before the next check",
            file.stale_after.0.write(),
            file.every.0.write()
        );
        findings.fault("check.stale_after", what, "raise it to several times check.every");
    }
}

fn echo(written: &List<Text<Uri>>, findings: &mut Findings) -> Vec<Uri> {
    let urls: Vec<_> = written.iter().map(|(_, url)| url.0.clone()).collect();
    match urls.len() {
        0 => findings.fault(
            "check.echo",
            "is empty",
            "name two servers of two operators that answer with the caller's address",
        ),
        1 => findings.warn(
            "check.echo",
            "names one server",
            "name a second one of another operator, because one alone could give a wrong address",
        ),
        _ => {}
    }
    urls
}

fn targets(written: &List<schema::CheckTarget>, findings: &mut Findings) -> Vec<CheckTarget> {
    let mut targets: Vec<CheckTarget> = Vec::new();
    for (index, target) in written.iter() {
        let at = KeyPath::from("check.targets").index(index);
        let found = one_target(target, &at, findings);
        let Some(found) = found else { continue };
        if targets.iter().any(|other| other.name == found.name) {
            let what = format!("is {:?}, which another check target has already", found.name);
            findings.fault(at.key("name"), what, "give each target a name of its own");
        }
        targets.push(found);
    }
    targets.extend(presets::beside(&targets));
    targets
}

fn one_target(written: &schema::CheckTarget, at: &KeyPath, findings: &mut Findings) -> Option<CheckTarget> {
    match &written.name {
        None => findings.fault(
            at.key("name"),
            "is missing",
            "write name = \"shop\": a route asks for it by check = \"shop\"",
        ),
        Some(name) if !is_name(name) => {
            let hint = "use up to 63 lower-case letters, digits and `-`, beginning with a letter";
            findings.fault(at.key("name"), format!("is {name:?}"), hint);
        }
        Some(_) => {}
    }
    if written.url.is_none() {
        findings.fault(at.key("url"), "is missing", "write url = \"https://…\": the page to ask for");
    }
    if written.expect_status.0.is_empty() {
        findings.fault(at.key("expect_status"), "is an empty list", "write a status such as 200, or leave the key out");
    }
    let expect_regex = written.expect_regex.as_ref().and_then(|text| match Regex::new(text) {
        Ok(regex) => Some(regex),
        Err(why) => {
            let hint = "correct the expression, or use expect_body for plain text; 'single quotes' keep backslashes";
            findings.fault(at.key("expect_regex"), format!("is not a regular expression: {}", last_line(&why)), hint);
            None
        }
    });
    let (name, url) = (written.name.clone()?, written.url.as_ref()?.0.clone());
    let site = written.site.clone().or_else(|| url.host().map(str::to_owned)).unwrap_or_default();
    let expect_status = written.expect_status.0.iter().map(|(_, status)| status.0.0).collect();
    let (expect_body, expect_latency) =
        (written.expect_body.clone(), written.expect_latency.as_ref().map(|span| span.0));
    Some(CheckTarget { name, url, expect_status, expect_body, expect_regex, expect_latency, site, preset: false })
}

/// Returns the last line of the text of a `regex` error. This line contains the reason. The lines before it only show
/// the expression.
fn last_line(why: &regex::Error) -> String {
    let text = why.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Returns true if the text is allowed as the name of a route or check target.
pub(super) fn is_name(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && (1..=63).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_lowercase())
}
