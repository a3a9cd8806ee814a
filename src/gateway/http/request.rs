//! A client's HTTP request: its form, its target, and how the request is written for that target.
//!
//! A [`Request`] borrows the bytes of its head. The gateway changes only what RFC 9112 requires of a proxy. The
//! absolute URL becomes a path. `Host` becomes the host and port of the target, whatever the client sent (section
//! 3.2.2). Fields that concern only one hop are dropped.
//!
//! The fields that decide the length of the body are written in the form that every parser knows: `chunked` in lower
//! case, and a length without leading zeros. The reason: a program that compares bytes, or that reads a number with
//! leading zeros as octal, would find another end of the body.
//!
//! All other fields keep their order and their case, so the target sees the client's fingerprint and not that of a
//! gateway. For the same reason the gateway adds no `Via` and no `Forwarded`. Other proxies use these two fields to
//! find loops. Here loops cannot occur, because the gateway refuses its own listeners as targets.
//!
//! An HTTP/1.0 request stays an HTTP/1.0 request. The answer then has a form that the client can read, and the gateway
//! does not have to decode it.

use super::body::Body;
use super::framing::{self, Options, Version};
use super::head::{Fields, HeadFault, is_token};
use crate::gateway::failure::{ClientFault, Failure};
use crate::net::{Host, Target};

/// The maximum length of a method's name. The longest registered name, `UPDATEREDIRECTREF`, has 17 characters.
const METHOD_MAX: usize = 24;

/// Fields that the answer to a TRACE omits. Programs log and show answers, so an answer must not contain a key.
const TRACE_HIDES: [&str; 3] = ["proxy-authorization", "authorization", "cookie"];

/// The four forms of a request target (RFC 9112, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form<'b> {
    /// A request for a tunnel, such as `CONNECT host:port`.
    Authority(Target),
    /// A request for a proxy, such as `GET http://host/path`.
    Absolute {
        target: Target,
        /// The host and the port as the client wrote them.
        authority: &'b str,
        /// The path with its query. The leading `/` may be missing.
        path: &'b str,
    },
    /// `GET /path`: comes from a browser that opens the proxy port as a web site. The field is the path.
    Origin(&'b str),
    /// The request `OPTIONS *`, which concerns the server as a whole.
    Asterisk,
}

/// One HTTP request of a client. Its fields borrow the bytes of the head.
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// The method, in the case in which the client sent it.
    pub method: &'b str,
    pub form: Form<'b>,
    pub version: Version,
    pub fields: Fields<'b>,
    pub body: Body,
    /// The options of the field `Connection`.
    pub options: Options<'b>,
    /// The protocol to which the client offers to switch. `None` if there is no offer that may be forwarded.
    pub upgrade: Option<&'b [u8]>,
    /// True if the client waits for `100 Continue` before it sends the body.
    pub expects: bool,
}

impl From<HeadFault> for Failure {
    /// Returns the failure for a request whose head is bad.
    fn from(fault: HeadFault) -> Self {
        Self::Client(match fault {
            HeadFault::TooLong | HeadFault::TooMany => ClientFault::HeadTooLarge,
            HeadFault::Version => ClientFault::Version,
            HeadFault::Expectation => ClientFault::Expectation,
            HeadFault::Scheme => ClientFault::Scheme,
            HeadFault::Target | HeadFault::Userinfo => ClientFault::Target,
            _ => ClientFault::Head,
        })
    }
}

impl<'b> Request<'b> {
    /// Parses a whole head, including the empty line at its end.
    pub fn parse(head: &'b [u8]) -> Result<Self, HeadFault> {
        let (line, lines) = split_start(head)?;
        let mut words = line.split(|&b| b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeadFault::StartLine);
        };
        let version = Version::parse(version)?;
        let method = token(method).ok_or(HeadFault::StartLine)?;
        let target = graphic(target).ok_or(HeadFault::Target)?;
        let fields = Fields::check(lines)?;
        let hosts = fields.iter().filter(|field| field.is("host")).count();
        if hosts > 1 || (hosts == 0 && version == Version::Current) {
            return Err(HeadFault::Host);
        }
        let body = framing::body(&fields, version)?.unwrap_or(Body::NONE);
        if matches!(method, "CONNECT" | "TRACE") && body != Body::NONE {
            return Err(HeadFault::UnexpectedBody);
        }
        let options = Options::read(&fields)?;
        let upgrade = upgrade(&fields, &options, version, body);
        let expects = expects(&fields, version)?;
        let form = form(method, target)?;
        Ok(Self { method, form, version, fields, body, options, upgrade, expects })
    }

    /// Returns true if sending the request twice has the same effect as sending it once (RFC 9110, section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Returns true if the client asks for the identity of the exit in the answer.
    pub fn asks_identity(&self) -> bool {
        self.fields.get("x-exitgate-identity").is_some_and(|field| field.value == b"1")
    }

    /// Returns the field with which the client reports that the site refused the previous request.
    pub fn report(&self) -> Option<Box<str>> {
        self.fields.get("x-exitgate-report").map(|field| String::from_utf8_lossy(field.value).into())
    }

    /// Returns the number in the field `Max-Forwards`. Returns `None` if the field is missing or has no meaning. The
    /// field has a meaning only for TRACE and OPTIONS (RFC 9110, section 7.6.2).
    pub fn hops_left(&self) -> Option<u64> {
        let counts = matches!(self.method, "TRACE" | "OPTIONS");
        let field = self.fields.get("max-forwards").filter(|_| counts)?;
        // A value that is not a single number is ignored here and is forwarded to the target.
        let digits = !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit);
        str::from_utf8(field.value).ok().filter(|_| digits)?.parse().ok()
    }

    /// Returns the body of the answer to a TRACE request: the head as the client sent it, without the fields that
    /// contain secrets.
    pub fn trace(&self, target: &str) -> String {
        let mut out = [self.method, " ", target, " ", self.version.as_str(), "\r\n"].concat();
        for field in self.fields.iter().filter(|field| !TRACE_HIDES.iter().any(|name| field.is(name))) {
            out.push_str(&String::from_utf8_lossy(field.line));
        }
        out.push_str("\r\n");
        out
    }

    /// Returns true if the client wants to keep the connection.
    pub fn persists(&self) -> bool {
        self.options.persists(self.version)
    }

    /// Writes the head for the target. Call this only for a request in absolute form, the only form that is forwarded.
    pub fn write_for(&self, authority: &str, path: &str, out: &mut Vec<u8>) {
        let slash = if path.starts_with('/') || path == "*" { "" } else { "/" };
        out.extend([self.method, " ", slash, path, " ", self.version.as_str(), "\r\n"].concat().as_bytes());
        if self.fields.get("host").is_none() {
            push(out, "Host", authority.as_bytes());
        }
        let mut said = false;
        let left = self.hops_left().map(|left| left.saturating_sub(1).to_string());
        for field in self.fields.iter() {
            if field.is("host") {
                push(out, field.name, authority.as_bytes());
            } else if field.is("transfer-encoding") {
                push(out, field.name, b"chunked");
            } else if field.is("content-length") {
                push(out, field.name, plain_number(field.value));
            } else if let Some(left) = left.as_ref().filter(|_| field.is("max-forwards")) {
                push(out, field.name, left.as_bytes());
            } else if (field.is("connection") || field.is("proxy-connection")) && !said {
                said = true;
                self.write_connection(out);
            } else if field.is("upgrade") && self.upgrade.is_some() {
                out.extend_from_slice(field.line);
            } else if !(self.options.ends(&field) || (field.is("expect") && !self.expects)) {
                out.extend_from_slice(field.line);
            }
        }
        if !said {
            self.write_connection(out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes a `Connection` field for the next hop, in place of the client's field. The target gets the same options
    /// as without a proxy.
    fn write_connection(&self, out: &mut Vec<u8>) {
        let trailers =
            self.fields.get("te").is_some_and(|te| te.members().any(|m| m.eq_ignore_ascii_case(b"trailers")));
        let first = if self.upgrade.is_some() {
            "Upgrade"
        } else if !self.persists() || self.version == Version::Old {
            "close"
        } else if self.options.keep_alive {
            "keep-alive"
        } else {
            ""
        };
        match (first, trailers) {
            ("", false) => {}
            ("", true) => push(out, "Connection", b"TE"),
            (first, false) => push(out, "Connection", first.as_bytes()),
            (first, true) => push(out, "Connection", [first, ", TE"].concat().as_bytes()),
        }
        if trailers {
            push(out, "TE", b"trailers");
        }
    }
}

fn push(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Returns a number without its leading zeros, because some parsers read a number with leading zeros as octal.
fn plain_number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros.min(digits.len().saturating_sub(1))..]
}

/// Splits a head into its start line and its fields.
fn split_start(head: &[u8]) -> Result<(&[u8], &[u8]), HeadFault> {
    let head = head.strip_suffix(b"\r\n").ok_or(HeadFault::StartLine)?;
    let end = head.windows(2).position(|pair| pair == b"\r\n").ok_or(HeadFault::StartLine)?;
    Ok((&head[..end], &head[end + 2..]))
}

fn token(bytes: &[u8]) -> Option<&str> {
    let good = (1..=METHOD_MAX).contains(&bytes.len()) && bytes.iter().all(|&b| is_token(b));
    good.then(|| str::from_utf8(bytes).ok())?
}

fn graphic(bytes: &[u8]) -> Option<&str> {
    let good = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
    good.then(|| str::from_utf8(bytes).ok())?
}

fn form<'b>(method: &str, target: &'b str) -> Result<Form<'b>, HeadFault> {
    if method == "CONNECT" {
        return if target.contains('@') {
            Err(HeadFault::Userinfo)
        } else {
            target.parse().map(Form::Authority).map_err(|_| HeadFault::Target)
        };
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok(Form::Asterisk) } else { Err(HeadFault::Target) };
    }
    if target.contains('#') {
        return Err(HeadFault::Target);
    }
    if target.starts_with('/') {
        return Ok(Form::Origin(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(HeadFault::Target)?;
    // A `ws://` target is treated like an `http://` target, as RFC 6455, section 3, defines. The client library
    // aiohttp sends `ws://` targets.
    if !["http", "ws"].iter().any(|plain| scheme.eq_ignore_ascii_case(plain)) {
        return Err(HeadFault::Scheme);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(HeadFault::Userinfo);
    }
    let path = if path.is_empty() && method == "OPTIONS" { "*" } else { path };
    Ok(Form::Absolute { target: authority_target(authority)?, authority, path })
}

/// Parses a target of the form `host`, `host:` or `host:port`.
fn authority_target(authority: &str) -> Result<Target, HeadFault> {
    let bare = authority.strip_suffix(':').unwrap_or(authority);
    let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if has_port && bare.len() == authority.len() {
        return authority.parse().map_err(|_| HeadFault::Target);
    }
    Host::parse(bare).and_then(|host| Target::new(host, 80)).map_err(|_| HeadFault::Target)
}

/// Returns the protocol that the field `Upgrade` offers, if the offer may be forwarded. The request must be HTTP/1.1
/// and have no body, and the protocol must not be h2c. RFC 9113 withdrew h2c, and requests inside h2c would reach the
/// origin server without any check.
fn upgrade<'b>(fields: &Fields<'b>, options: &Options<'_>, version: Version, body: Body) -> Option<&'b [u8]> {
    let offers = options.upgrade && version == Version::Current && body == Body::NONE;
    let mut offered = fields.iter().filter(|field| offers && field.is("upgrade"));
    let (first, second) = (offered.next()?, offered.next());
    let good = second.is_none() && !first.value.is_empty() && !first.members().any(|m| m.eq_ignore_ascii_case(b"h2c"));
    good.then_some(first.value)
}

/// Returns true if the client waits for a `100 Continue`. An HTTP/1.0 client cannot wait for a `100 Continue` (RFC
/// 9110, section 10.1.1), so its `Expect` field is ignored.
fn expects(fields: &Fields<'_>, version: Version) -> Result<bool, HeadFault> {
    match fields.get("expect") {
        None => Ok(false),
        Some(_) if version == Version::Old => Ok(false),
        Some(field) if field.value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(HeadFault::Expectation),
    }
}

#[cfg(test)]
pub(crate) use tests::SMUGGLED;

#[cfg(test)]
mod tests;
