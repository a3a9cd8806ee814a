//! Every head that we write in our own name: a tunnel is open, a request failed, a page.
//!
//! What a client needs to know of the exit is said in `X-Exitgate-…` fields, the same on a CONNECT answer and on a plain
//! one; why something failed is said twice, in `Proxy-Status` (RFC 9209) for programs and in `X-Exitgate-Error` for
//! people. Texts that come from elsewhere (a detail that quotes a username) are held to printable ASCII here, at the
//! place where they become a header.

use std::fmt::Write as _;

use crate::gateway::failure::Failure;
use crate::gateway::gate::{Facts, Refusal};

/// What a failed key is asked for.
const CHALLENGE: &str = "Proxy-Authenticate: Basic realm=\"exitgate\", charset=\"UTF-8\"\r\n";

/// The body may come.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The fields that name the exit, each a whole line.
pub fn facts(facts: &Facts, out: &mut String) {
    if let Some(ip) = facts.ip {
        let _ = write!(out, "X-Exitgate-Exit-Ip: {ip}\r\n");
    }
    if let Some(country) = facts.country {
        let _ = write!(out, "X-Exitgate-Exit-Country: {}\r\n", plain(&String::from_utf8_lossy(&country)));
    }
    let _ = write!(out, "X-Exitgate-Exit: {}\r\n", facts.exit);
    if let Some(age) = facts.checked {
        let _ = write!(out, "X-Exitgate-Exit-Checked: {}\r\n", age.as_secs());
    }
    let _ = write!(out, "X-Exitgate-Route: {}\r\n", plain(&facts.route));
    if let Some(moved) = &facts.moved {
        let _ = write!(out, "X-Exitgate-Moved: {}\r\n", plain(moved));
    }
}

/// The tunnel is open.
pub fn established(through: Option<&Facts>) -> Vec<u8> {
    let mut out = String::from("HTTP/1.1 200 Connection established\r\n");
    if let Some(through) = through {
        facts(through, &mut out);
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// Why not. `keep`: the connection lives on; `bare`: it answers a HEAD.
pub fn refusal(refusal: &Refusal, keep: bool, bare: bool) -> Vec<u8> {
    let failure = refusal.failure;
    let mut said = failure.sentence().to_owned();
    if let Some(detail) = &refusal.detail {
        let _ = write!(said, ": {}", plain(detail));
    }
    let mut fields = String::new();
    let quoted = said.replace('\\', "\\\\").replace('"', "\\\"");
    let _ = write!(fields, "Proxy-Status: exitgate; error={}; details=\"{quoted}\"\r\n", failure.token());
    let _ = write!(fields, "X-Exitgate-Error: {said}\r\n");
    if let Failure::Auth(_) = failure {
        fields.push_str(CHALLENGE);
    }
    if let Some(after) = refusal.retry_after {
        // Rounded up: whoever comes back when told to is not refused again.
        let _ = write!(fields, "Retry-After: {}\r\n", after.as_millis().div_ceil(1000));
    }
    said.push('\n');
    Page { status: failure.status(), kind: "text/plain; charset=utf-8", fields: &fields, body: &said }.write(keep, bare)
}

/// An answer of ours with a body.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The status code.
    pub status: u16,
    /// The media type.
    pub kind: &'a str,
    /// Further fields, each a whole line.
    pub fields: &'a str,
    /// The body.
    pub body: &'a str,
}

impl Page<'_> {
    /// The whole answer. Nothing of ours is kept by caches, guessed at by browsers or shown to other origins.
    pub fn write(&self, keep: bool, bare: bool) -> Vec<u8> {
        let Self { status, kind, fields, body } = self;
        let connection = if keep { "keep-alive" } else { "close" };
        let mut out = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{fields}Connection: {connection}\r\n\r\n",
            reason(*status),
            body.len()
        );
        if !bare {
            out.push_str(body);
        }
        out.into_bytes()
    }
}

/// The reason phrase that goes with a status.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

/// Printable ASCII as it is, everything else as `?`.
fn plain(text: &str) -> String {
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::exit::ExitId;
    use crate::gateway::failure::{AuthFault, ClientFault, Limited, NoExit};
    use crate::gateway::record::RouteMeters;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_open_tunnel_names_its_exit() {
        let told = Facts {
            exit: ExitId::Tor("0008D9640FE4947F73E355F67E20C2D290BBC72C".parse().unwrap()),
            ip: Some([192, 0, 2, 7].into()),
            country: Some(*b"US"),
            checked: Some(Duration::from_millis(90_999)),
            moved: Some("192.0.2.1->192.0.2.7\r\nX: y".into()),
            route: "us-session-a".into(),
            meters: Arc::new(RouteMeters::new("implicit")),
        };
        let want = "HTTP/1.1 200 Connection established\r\nX-Exitgate-Exit-Ip: 192.0.2.7\r\nX-Exitgate-Exit-Country: US\r\n\
             X-Exitgate-Exit: 0008D9640FE4947F73E355F67E20C2D290BBC72C\r\nX-Exitgate-Exit-Checked: 90\r\n\
             X-Exitgate-Route: us-session-a\r\nX-Exitgate-Moved: 192.0.2.1->192.0.2.7??X: y\r\n\r\n";
        assert_eq!(text(established(Some(&told))), want);
        let bare = Facts { ip: None, country: None, checked: None, moved: None, exit: ExitId::Direct, ..told };
        let want =
            "HTTP/1.1 200 Connection established\r\nX-Exitgate-Exit: direct\r\nX-Exitgate-Route: us-session-a\r\n\r\n";
        assert_eq!(text(established(Some(&bare))), want);
    }

    #[test]
    fn a_refusal_says_why_to_programs_and_to_people() {
        let token = Refusal::because(Failure::Client(ClientFault::Username), "`st\"ict\u{1}` is no token");
        let want = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 54\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Proxy-Status: exitgate; error=http_request_error; details=\"the username is no selector: `st\\\"ict?` is no token\"\r\n\
             X-Exitgate-Error: the username is no selector: `st\"ict?` is no token\r\nConnection: keep-alive\r\n\r\n\
             the username is no selector: `st\"ict?` is no token\n";
        assert_eq!(text(refusal(&token, true, false)), want.replace("Length: 54", &format!("Length: {}", 51)));

        let said = text(refusal(&Failure::Auth(AuthFault::Missing).into(), false, true));
        assert!(said.starts_with("HTTP/1.1 407 Proxy Authentication Required\r\n"), "{said}");
        assert!(said.contains("\r\nProxy-Authenticate: Basic realm=\"exitgate\""), "{said}");
        assert!(said.ends_with("Connection: close\r\n\r\n"), "a HEAD gets no body: {said}");

        let later =
            Refusal { retry_after: Some(Duration::from_millis(1001)), ..Failure::Limited(Limited::Rate).into() };
        let said = text(refusal(&later, true, false));
        assert!(said.starts_with("HTTP/1.1 429 ") && said.contains("\r\nRetry-After: 2\r\n"), "{said}");

        let none = text(refusal(&Failure::NoExit(NoExit::NoneMatch).into(), true, false));
        assert!(none.starts_with("HTTP/1.1 503 ") && !none.contains("Retry-After"), "{none}");
    }
}
