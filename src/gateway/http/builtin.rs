//! Requests to `http://exit.gate/`. With these requests, clients that cannot read the headers of a CONNECT answer can
//! see their exit. Clients can also get another exit.
//!
//! Such a request is recognised by its request target and never by a `Host` field, so a header alone cannot select the
//! built-in service. A web page could send such a request, because a browser sends all requests through this proxy.
//! Therefore every request that changes something must be a POST with the field `X-Exitgate: 1`. A page of another
//! origin cannot send this field without a CORS preflight, which the gateway does not answer. No answer of the gateway
//! has a CORS field, so such a page could not read the answer either.

use super::answer::Page;
use super::request::Request;
use crate::gateway::gate::BuiltinRequest;
use crate::net::{Host, Target};

/// The host name of the built-in service. The top-level domain `gate` does not exist in the DNS, so this name hides no
/// real site.
const NAME: &str = "exit.gate";

/// The maximum length of the body of a report, in bytes. A body with a site, an exit and an outcome has about a hundred
/// bytes.
pub const REPORT_MAX: usize = 16 * 1024;

/// Returns true if the target is exit.gate, on any port.
pub fn is_builtin(target: &Target) -> bool {
    matches!(&target.host, Host::Name(name) if &**name == NAME)
}

/// The requests that exit.gate answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinKind {
    /// `GET /`, which shows the exit of this username.
    WhoAmI,
    /// `POST /rotate`, which gives this username another exit.
    Rotate,
    /// `POST /report`, which reports a site that refuses an exit. The report is in the body.
    Report,
}

impl BuiltinKind {
    /// Combines the kind of the request with the request's body.
    pub fn with(self, body: &[u8]) -> BuiltinRequest<'_> {
        match self {
            Self::WhoAmI => BuiltinRequest::WhoAmI,
            Self::Rotate => BuiltinRequest::Rotate,
            Self::Report => BuiltinRequest::Report(body),
        }
    }
}

/// Returns the kind of a request to exit.gate, or the HTTP status and the text of its refusal.
pub fn read(request: &Request<'_>, path: &str) -> Result<BuiltinKind, (u16, &'static str)> {
    let kind = match path.split('?').next().unwrap_or_default() {
        "" | "/" => BuiltinKind::WhoAmI,
        "/rotate" => BuiltinKind::Rotate,
        "/report" => BuiltinKind::Report,
        _ => return Err((404, "exit.gate has /, /rotate and /report")),
    };
    let reads = matches!(request.method, "GET" | "HEAD");
    match kind {
        BuiltinKind::WhoAmI if reads => Ok(kind),
        BuiltinKind::Rotate | BuiltinKind::Report if request.method == "POST" => {
            let has_header = request.fields.get("x-exitgate").is_some_and(|field| field.value == b"1");
            if has_header { Ok(kind) } else { Err((403, "the header `X-Exitgate: 1` is missing (CSRF protection)")) }
        }
        BuiltinKind::WhoAmI => Err((405, "use GET for /")),
        _ => Err((405, "use POST for /rotate and /report")),
    }
}

/// Returns the HTTP answer to a request to exit.gate. `result` is the JSON text of a success, or the HTTP status and
/// the text of a refusal.
pub fn answer(result: Result<&str, (u16, &str)>, keep: bool, head_only: bool) -> Vec<u8> {
    match result {
        Ok(json) => Page { status: 200, kind: "application/json", fields: "", body: json }.write(keep, head_only),
        Err((status, text)) => {
            let body = format!("{text}\n");
            Page { status, kind: "text/plain; charset=utf-8", fields: "", body: &body }.write(keep, head_only)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str, fields: &str) -> Result<BuiltinKind, u16> {
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let request = Request::parse(head.as_bytes()).unwrap();
        let path = line.split("gate").nth(1).unwrap();
        read(&request, path).map_err(|(status, _)| status)
    }

    #[test]
    fn only_a_post_with_the_header_changes_something() {
        let header = "X-Exitgate: 1\r\n";
        for (line, fields, want) in [
            ("GET http://exit.gate/", "", Ok(BuiltinKind::WhoAmI)),
            ("GET http://exit.gate", "", Ok(BuiltinKind::WhoAmI)),
            ("HEAD http://exit.gate/?x", "", Ok(BuiltinKind::WhoAmI)),
            ("POST http://exit.gate/", header, Err(405)),
            ("POST http://exit.gate/rotate", header, Ok(BuiltinKind::Rotate)),
            ("POST http://exit.gate/rotate", "", Err(403)),
            ("POST http://exit.gate/rotate", "X-Exitgate: 0\r\n", Err(403)),
            ("GET http://exit.gate/rotate", header, Err(405)),
            ("POST http://exit.gate/report?", header, Ok(BuiltinKind::Report)),
            ("PUT http://exit.gate/report", header, Err(405)),
            ("GET http://exit.gate/favicon.ico", "", Err(404)),
        ] {
            assert_eq!(wanted(line, fields), want, "{line} {fields}");
        }
    }

    #[test]
    fn the_name_is_matched_whole() {
        for (target, here) in
            [("exit.gate:80", true), ("EXIT.gate.:443", true), ("a.exit.gate:80", false), ("exit.gat:80", false)]
        {
            assert_eq!(is_builtin(&target.parse().unwrap()), here, "{target}");
        }
    }

    #[test]
    fn no_answer_lets_another_origin_read_it() {
        for said in [answer(Ok("{}"), true, false), answer(Err((403, "no")), true, false)] {
            let said = String::from_utf8(said).unwrap().to_lowercase();
            assert!(
                !said.contains("access-control") && said.contains("nosniff") && said.contains("no-store"),
                "{said}"
            );
        }
    }
}
