//! All HTTP answers that the gateway writes itself: the success answer to a CONNECT, the answer to a failed request,
//! and web pages.
//!
//! The fields `X-Exitgate-…` describe the exit. These fields are the same in the answer to a CONNECT and in a forwarded
//! answer. The field `X-Exitgate-Id` contains the connection's id in the logs.
//!
//! An error stands in three places of an answer: in `Proxy-Status` (RFC 9209) for programs, in `X-Exitgate-Error` for
//! people, and, cut to one line, in the reason phrase of the status line. The reason phrase is all that HTTP libraries
//! show of a failed CONNECT.
//!
//! This module reduces texts that the gateway did not write itself to printable ASCII, because these texts become part
//! of a head. For example, an error may quote a username.

use std::fmt::Write as _;

use crate::exit::identity::Identity;
use crate::gateway::failure::Failure;
use crate::gateway::gate::{ExitFacts, Refusal};
use crate::telemetry::trace_id::TraceId;

/// The field that asks a client for a username and a key.
const CHALLENGE: &str = "Proxy-Authenticate: Basic realm=\"exitgate\", charset=\"UTF-8\"\r\n";

/// The maximum length of a reason phrase, in bytes. Clients write the phrase into one line of their log. Not tuned.
const REASON_MAX: usize = 120;

/// The interim answer that asks the client to send the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Returns the header fields that describe the exit. Each field is a whole line. `identity` is `None` if the client did
/// not ask for it, or if it is unknown.
pub fn fields(facts: &ExitFacts, identity: Option<&Identity>) -> String {
    let mut out = String::new();
    exit_fields(facts, &mut out);
    identity.into_iter().for_each(|identity| identity_fields(identity, &mut out));
    out
}

fn exit_fields(facts: &ExitFacts, out: &mut String) {
    if let Some(ip) = facts.ip {
        let _ = write!(out, "X-Exitgate-Exit-Ip: {ip}\r\n");
    }
    if let Some(country) = facts.country {
        let _ = write!(out, "X-Exitgate-Exit-Country: {}\r\n", ascii(&String::from_utf8_lossy(&country)));
    }
    let _ = write!(out, "X-Exitgate-Exit: {}\r\n", facts.exit);
    if let Some(age) = facts.checked {
        let _ = write!(out, "X-Exitgate-Exit-Checked: {}\r\n", age.as_secs());
    }
    let _ = write!(out, "X-Exitgate-Route: {}\r\n", ascii(&facts.route));
    if let Some(moved) = &facts.moved {
        let _ = write!(out, "X-Exitgate-Moved: {}\r\n", ascii(moved));
    }
}

/// Writes the header fields for a client that asked for the identity of the exit. The city is not among the fields,
/// because the name of a city can contain characters that are not allowed in a header field.
fn identity_fields(identity: &Identity, out: &mut String) {
    let Identity { time_zone, locale, languages, latitude, longitude, precision, .. } = identity;
    let _ = write!(out, "X-Exitgate-Exit-Timezone: {}\r\nX-Exitgate-Exit-Locale: {locale}\r\n", ascii(time_zone));
    let _ = write!(out, "X-Exitgate-Exit-Languages: {}\r\n", languages.join(", "));
    let _ = write!(out, "X-Exitgate-Exit-Coordinates: {latitude},{longitude}\r\n");
    let _ = write!(out, "X-Exitgate-Exit-Precision: {}\r\n", precision.as_str());
}

/// Returns the success answer to a CONNECT. `exit` has the facts about the exit and, if the client asked for it, the
/// identity of the exit. `exit` is `None` for a tunnel to exit.gate.
pub fn established(exit: Option<(&ExitFacts, Option<&Identity>)>) -> Vec<u8> {
    let mut out = String::from("HTTP/1.1 200 Connection established\r\n");
    if let Some((facts, identity)) = exit {
        out.push_str(&fields(facts, identity));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// Returns the answer to a request that failed. `keep` is true if the connection can serve another request. `head_only`
/// is true if the method was HEAD.
pub fn refusal(refusal: &Refusal, id: TraceId, keep: bool, head_only: bool) -> Vec<u8> {
    let failure = refusal.failure;
    let mut text = failure.sentence().to_owned();
    if let Some(detail) = &refusal.detail {
        let _ = write!(text, ": {}", ascii(detail));
    }
    let mut fields = String::new();
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    let _ = write!(fields, "Proxy-Status: exitgate; error={}; details=\"{quoted}\"\r\n", failure.token());
    let _ = write!(fields, "X-Exitgate-Error: {text}\r\nX-Exitgate-Id: {id}\r\n");
    if let Failure::Auth(_) = failure {
        fields.push_str(CHALLENGE);
    }
    if let Some(after) = refusal.retry_after {
        // The number of seconds is rounded up. Otherwise a client that tries again exactly after this time would be too
        // early and would be refused again.
        let _ = write!(fields, "Retry-After: {}\r\n", after.as_millis().div_ceil(1000));
    }
    if let Some(moved) = &refusal.moved {
        let _ = write!(fields, "X-Exitgate-Moved: {}\r\n", ascii(moved));
    }
    let reason = reason_phrase(&text);
    text.push('\n');
    let page = Page { status: failure.status(), kind: "text/plain; charset=utf-8", fields: &fields, body: &text };
    page.write_with(&reason, keep, head_only)
}

/// Returns text for a status line. `text` must be ASCII, and is cut if it is longer than [`REASON_MAX`].
fn reason_phrase(text: &str) -> String {
    const CUT: &str = "...";
    if text.len() <= REASON_MAX { text.to_owned() } else { text[..REASON_MAX - CUT.len()].to_owned() + CUT }
}

/// An HTTP answer with a body that the gateway writes itself.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub status: u16,
    /// The media type of the body.
    pub kind: &'a str,
    /// Additional header fields. Each field is a whole line with its CRLF.
    pub fields: &'a str,
    pub body: &'a str,
}

impl Page<'_> {
    /// Returns the whole answer. Its fields forbid caches to store it and browsers to guess its media type, and no
    /// other web site can read it.
    pub fn write(&self, keep: bool, head_only: bool) -> Vec<u8> {
        self.write_with(standard_reason(self.status), keep, head_only)
    }

    fn write_with(&self, reason: &str, keep: bool, head_only: bool) -> Vec<u8> {
        let Self { status, kind, fields, body } = self;
        let connection = if keep { "keep-alive" } else { "close" };
        let mut out = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{fields}Connection: {connection}\r\n\r\n",
            body.len()
        );
        if !head_only {
            out.push_str(body);
        }
        out.into_bytes()
    }
}

fn standard_reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

/// Returns the text with every character that is not printable ASCII replaced by `?`.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::exit::ExitId;
    use crate::gateway::failure::{AuthFault, ClientFault, Limited, NoExit};
    use crate::gateway::meters::RouteMeters;
    use crate::telemetry::trace_id::Kind;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn refused(why: &Refusal, keep: bool, head_only: bool) -> String {
        text(refusal(why, TraceId::next(Kind::Connection), keep, head_only))
    }

    #[test]
    fn an_open_tunnel_names_its_exit() {
        let facts = ExitFacts {
            exit: ExitId::Tor("0008D9640FE4947F73E355F67E20C2D290BBC72C".parse().unwrap()),
            ip: Some([192, 0, 2, 7].into()),
            country: Some(*b"US"),
            checked: Some(Duration::from_millis(90_999)),
            moved: Some("192.0.2.1->192.0.2.7\r\nX: y".into()),
            route: "us-session-a".into(),
            rule: None,
            meters: Arc::new(RouteMeters::new("implicit")),
        };
        let want = "HTTP/1.1 200 Connection established\r\nX-Exitgate-Exit-Ip: 192.0.2.7\r\nX-Exitgate-Exit-Country: US\r\n\
             X-Exitgate-Exit: 0008D9640FE4947F73E355F67E20C2D290BBC72C\r\nX-Exitgate-Exit-Checked: 90\r\n\
             X-Exitgate-Route: us-session-a\r\nX-Exitgate-Moved: 192.0.2.1->192.0.2.7??X: y\r\n\r\n";
        assert_eq!(text(established(Some((&facts, None)))), want);
        let with_identity = text(established(Some((&facts, Some(&crate::gateway::testing::identity())))));
        assert_eq!(with_identity.replace(crate::gateway::testing::IDENTITY, ""), want);
        assert!(with_identity.contains(crate::gateway::testing::IDENTITY), "{with_identity}");
        let unknown = ExitFacts { ip: None, country: None, checked: None, moved: None, exit: ExitId::Direct, ..facts };
        let want =
            "HTTP/1.1 200 Connection established\r\nX-Exitgate-Exit: direct\r\nX-Exitgate-Route: us-session-a\r\n\r\n";
        assert_eq!(text(established(Some((&unknown, None)))), want);
    }

    #[test]
    fn a_refusal_gives_its_reason_to_programs_and_to_people() {
        let token = Refusal::because(Failure::Client(ClientFault::Username), "`st\"ict\u{1}` is no token");
        let id = TraceId::next(Kind::Connection);
        let want = format!(
            "HTTP/1.1 400 the username is not a selector: `st\"ict?` is no token\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 54\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Proxy-Status: exitgate; error=http_request_error; details=\"the username is not a selector: `st\\\"ict?` is no token\"\r\n\
             X-Exitgate-Error: the username is not a selector: `st\"ict?` is no token\r\n\
             X-Exitgate-Id: {id}\r\nConnection: keep-alive\r\n\r\n\
             the username is not a selector: `st\"ict?` is no token\n"
        );
        assert_eq!(text(refusal(&token, id, true, false)), want);

        let missing = refused(&Failure::Auth(AuthFault::Missing).into(), false, true);
        assert!(missing.starts_with("HTTP/1.1 407 a key is needed\r\n"), "{missing}");
        assert!(missing.contains("\r\nProxy-Authenticate: Basic realm=\"exitgate\""), "{missing}");
        assert!(missing.ends_with("Connection: close\r\n\r\n"), "a HEAD gets no body: {missing}");

        let later =
            Refusal { retry_after: Some(Duration::from_millis(1001)), ..Failure::Limited(Limited::Rate).into() };
        let later = refused(&later, true, false);
        assert!(later.starts_with("HTTP/1.1 429 ") && later.contains("\r\nRetry-After: 2\r\n"), "{later}");

        let offline = Refusal {
            moved: Some("tor:A->tor:B\r\nX: y".into()),
            ..Failure::Engine(crate::dial::EngineFault::FirstHop).into()
        };
        let offline = refused(&offline, true, false);
        assert!(offline.starts_with("HTTP/1.1 503 ") && offline.contains("\r\nRetry-After: 10\r\n"), "{offline}");
        assert!(offline.contains("\r\nX-Exitgate-Moved: tor:A->tor:B??X: y\r\n"), "{offline}");

        let none = refused(&Failure::NoExit(NoExit::NoneMatch).into(), true, false);
        assert!(none.starts_with("HTTP/1.1 503 ") && !none.contains("Retry-After"), "{none}");
    }

    #[test]
    fn a_reason_phrase_is_one_short_line_of_ascii_whatever_the_detail_says() {
        for detail in ["a\r\nSet-Cookie: x", "\u{fc}ber\u{202e}", &"x".repeat(1000), &"\u{1F600}".repeat(90), ""] {
            let said = refused(&Refusal::because(Failure::Client(ClientFault::Username), detail), true, false);
            let (line, rest) = said.split_once("\r\n").unwrap();
            let reason = line.strip_prefix("HTTP/1.1 400 ").unwrap();
            assert!(reason.len() <= REASON_MAX && reason.bytes().all(|b| (b' '..=b'~').contains(&b)), "{reason}");
            assert!(
                reason.starts_with("the username is not a selector: ") && rest.starts_with("Content-Type: "),
                "{said}"
            );
        }
        let long = refused(&Refusal::because(Failure::Draining, "x".repeat(1000)), true, false);
        assert!(long.lines().next().unwrap().ends_with("xxx..."), "{long}");
    }
}
