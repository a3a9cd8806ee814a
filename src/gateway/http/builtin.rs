//! `http://exit.gate/`: a client that cannot read CONNECT headers asks which exit it has, and may ask for another.
//!
//! It is matched on the request's target, never on a `Host` field, so nobody gets here by naming it in a header. A web
//! page could get here, because a browser with this proxy sends it all its requests: so whatever changes something is a
//! POST that carries `X-Exitgate: 1`, which a page of another origin cannot send without a preflight that nobody
//! answers, and no answer carries a CORS field that would let it read one.

use super::answer::Page;
use super::request::Request;
use crate::gateway::gate::BuiltinRequest;
use crate::net::{Host, Target};

/// The name. It is in no DNS, so nothing real is hidden by it.
const NAME: &str = "exit.gate";

/// The longest report. A site, an exit and an outcome take a hundred bytes.
pub const REPORT_MAX: usize = 16 * 1024;

/// Whether a target is the errand desk, on whatever port.
pub fn is_here(target: &Target) -> bool {
    matches!(&target.host, Host::Name(name) if &**name == NAME)
}

/// Which errand a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinKind {
    /// `GET /`.
    WhoAmI,
    /// `POST /rotate`.
    Rotate,
    /// `POST /report`, with its body.
    Report,
}

impl BuiltinKind {
    /// The errand, once its body is there.
    pub fn with(self, body: &[u8]) -> BuiltinRequest<'_> {
        match self {
            Self::WhoAmI => BuiltinRequest::WhoAmI,
            Self::Rotate => BuiltinRequest::Rotate,
            Self::Report => BuiltinRequest::Report(body),
        }
    }
}

/// Which errand this is, or the status and sentence that refuse it.
pub fn read(request: &Request<'_>, path: &str) -> Result<BuiltinKind, (u16, &'static str)> {
    let wanted = match path.split('?').next().unwrap_or_default() {
        "" | "/" => BuiltinKind::WhoAmI,
        "/rotate" => BuiltinKind::Rotate,
        "/report" => BuiltinKind::Report,
        _ => return Err((404, "exit.gate has /, /rotate and /report")),
    };
    let reads = matches!(request.method, "GET" | "HEAD");
    match wanted {
        BuiltinKind::WhoAmI if reads => Ok(wanted),
        BuiltinKind::Rotate | BuiltinKind::Report if request.method == "POST" => {
            let meant = request.fields.get("x-exitgate").is_some_and(|field| field.value == b"1");
            if meant { Ok(wanted) } else { Err((403, "say that you mean it: X-Exitgate: 1")) }
        }
        BuiltinKind::WhoAmI => Err((405, "only GET / is answered here")),
        _ => Err((405, "this is a POST")),
    }
}

/// What an errand came to, or why it did not come to anything.
pub fn answer(result: Result<&str, (u16, &str)>, keep: bool, bare: bool) -> Vec<u8> {
    match result {
        Ok(json) => Page { status: 200, kind: "application/json", fields: "", body: json }.write(keep, bare),
        Err((status, sentence)) => {
            let body = format!("{sentence}\n");
            Page { status, kind: "text/plain; charset=utf-8", fields: "", body: &body }.write(keep, bare)
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
    fn only_who_means_it_changes_something() {
        let meant = "X-Exitgate: 1\r\n";
        for (line, fields, want) in [
            ("GET http://exit.gate/", "", Ok(BuiltinKind::WhoAmI)),
            ("GET http://exit.gate", "", Ok(BuiltinKind::WhoAmI)),
            ("HEAD http://exit.gate/?x", "", Ok(BuiltinKind::WhoAmI)),
            ("POST http://exit.gate/", meant, Err(405)),
            ("POST http://exit.gate/rotate", meant, Ok(BuiltinKind::Rotate)),
            ("POST http://exit.gate/rotate", "", Err(403)),
            ("POST http://exit.gate/rotate", "X-Exitgate: 0\r\n", Err(403)),
            ("GET http://exit.gate/rotate", meant, Err(405)),
            ("POST http://exit.gate/report?", meant, Ok(BuiltinKind::Report)),
            ("PUT http://exit.gate/report", meant, Err(405)),
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
            assert_eq!(is_here(&target.parse().unwrap()), here, "{target}");
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
