//! A client's request: which of HTTP's four forms it has, what it asks for, and how it goes on to the target.
//!
//! Parsing borrows: a [`Request`] is a view of the bytes of its head. Writing it for the target changes what RFC 9112
//! has a forwarder change and nothing else: the absolute target becomes a path, `Host` becomes the target's authority
//! (whatever the client put there: section 3.2.2), and what is hop-by-hop ends here. What says where the body ends is
//! written in the one form that every reader knows (`chunked` in small letters, a length without zeros before it), because
//! programs that compare by the byte or count in octal would find another end. Order and case of everything else stay,
//! because they are the client's fingerprint and not ours. There is no `Via` and no `Forwarded`: a target is not
//! told that anybody stands between, and loops cannot come about, because our own listeners are refused as targets.
//!
//! An HTTP/1.0 request goes on as HTTP/1.0, so that the answer comes in a form that its client can read and nothing
//! has to be decoded on the way back.

use super::body::Body;
use super::framing::{self, Options, Version};
use super::head::{Fault, Fields, is_token};
use crate::gateway::failure::{ClientFault, Failure};
use crate::net::{Host, Target};

/// The longest method. Arbitrary: the longest registered one is `UPDATEREDIRECTREF` with 17.
const METHOD_MAX: usize = 24;

/// What a TRACE keeps to itself: answers are logged and shown by programs that would never show a key.
const TRACE_HIDES: [&str; 3] = ["proxy-authorization", "authorization", "cookie"];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form<'b> {
    /// `CONNECT host:port`.
    Authority(Target),
    /// `GET http://host/path`.
    Absolute {
        /// Where to.
        target: Target,
        /// Host and port as the client wrote them.
        authority: &'b str,
        /// The path with its query; may lack the leading `/`.
        path: &'b str,
    },
    /// `GET /path`: a browser that was pointed at a proxy as if it were a site.
    Origin(&'b str),
    /// `OPTIONS *`.
    Asterisk,
}

/// One request, as a view of its head.
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// The method, case as it came.
    pub method: &'b str,
    /// What it asks for.
    pub form: Form<'b>,
    /// The client's version.
    pub version: Version,
    /// Its fields.
    pub fields: Fields<'b>,
    /// What follows the head.
    pub body: Body,
    /// What it says about the connection.
    pub options: Options<'b>,
    /// The protocol that it would rather speak.
    pub upgrade: Option<&'b [u8]>,
    /// It waits for a 100 before it sends the body.
    pub expects: bool,
}

impl From<Fault> for Failure {
    /// What a client is told of a bad head of its own.
    fn from(fault: Fault) -> Self {
        Self::Client(match fault {
            Fault::TooLong | Fault::TooMany => ClientFault::HeadTooLarge,
            Fault::Version => ClientFault::Version,
            Fault::Expectation => ClientFault::Expectation,
            Fault::Scheme => ClientFault::Scheme,
            Fault::Target | Fault::Userinfo => ClientFault::Target,
            _ => ClientFault::Head,
        })
    }
}

impl<'b> Request<'b> {
    /// Reads a whole head, empty line and all.
    pub fn parse(head: &'b [u8]) -> Result<Self, Fault> {
        let (line, lines) = split_start(head)?;
        let mut words = line.split(|&b| b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::StartLine);
        };
        let version = Version::parse(version)?;
        let method = token(method).ok_or(Fault::StartLine)?;
        let target = graphic(target).ok_or(Fault::Target)?;
        let fields = Fields::check(lines)?;
        let hosts = fields.iter().filter(|field| field.is("host")).count();
        if hosts > 1 || (hosts == 0 && version == Version::Current) {
            return Err(Fault::Host);
        }
        let body = framing::body(&fields, version)?.unwrap_or(Body::NONE);
        if matches!(method, "CONNECT" | "TRACE") && body != Body::NONE {
            return Err(Fault::UnexpectedBody);
        }
        let options = Options::read(&fields)?;
        let upgrade = upgrade(&fields, &options, version, body);
        let expects = expects(&fields, version)?;
        let form = form(method, target)?;
        Ok(Self { method, form, version, fields, body, options, upgrade, expects })
    }

    /// Whether sending it twice does what sending it once does (RFC 9110, section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// How many more may hand it on: TRACE and OPTIONS alone count (RFC 9110, section 7.6.2).
    pub fn hops_left(&self) -> Option<u64> {
        let counts = matches!(self.method, "TRACE" | "OPTIONS");
        let field = self.fields.get("max-forwards").filter(|_| counts)?;
        // What is no number, or two, is the target's to make sense of.
        let digits = !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit);
        str::from_utf8(field.value).ok().filter(|_| digits)?.parse().ok()
    }

    /// The head as it came to us, without what is for us alone: what a TRACE shows its client.
    pub fn trace(&self, target: &str) -> String {
        let mut out = [self.method, " ", target, " ", self.version.as_str(), "\r\n"].concat();
        for field in self.fields.iter().filter(|field| !TRACE_HIDES.iter().any(|name| field.is(name))) {
            out.push_str(&String::from_utf8_lossy(field.line));
        }
        out.push_str("\r\n");
        out
    }

    /// Whether the client reads another answer on this connection.
    pub fn persists(&self) -> bool {
        self.options.persists(self.version)
    }

    /// Writes the head as the target gets it. Only for absolute-form, which is the only form that goes on.
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

    /// Our own `Connection`, where the client had its: the target then sees what it would see without us between.
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

/// A number without zeros before it: to some readers they mean octal.
fn plain_number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros.min(digits.len().saturating_sub(1))..]
}

/// The start line and the lines behind it.
fn split_start(head: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let head = head.strip_suffix(b"\r\n").ok_or(Fault::StartLine)?;
    let end = head.windows(2).position(|pair| pair == b"\r\n").ok_or(Fault::StartLine)?;
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

fn form<'b>(method: &str, target: &'b str) -> Result<Form<'b>, Fault> {
    if method == "CONNECT" {
        return if target.contains('@') {
            Err(Fault::Userinfo)
        } else {
            target.parse().map(Form::Authority).map_err(|_| Fault::Target)
        };
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok(Form::Asterisk) } else { Err(Fault::Target) };
    }
    if target.contains('#') {
        return Err(Fault::Target);
    }
    if target.starts_with('/') {
        return Ok(Form::Origin(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(Fault::Target)?;
    // A `ws://` target is an `http://` one by its definition (RFC 6455, section 3), and aiohttp writes it like that.
    if !["http", "ws"].iter().any(|plain| scheme.eq_ignore_ascii_case(plain)) {
        return Err(Fault::Scheme);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(Fault::Userinfo);
    }
    let path = if path.is_empty() && method == "OPTIONS" { "*" } else { path };
    Ok(Form::Absolute { target: authority_target(authority)?, authority, path })
}

/// `host`, `host:` or `host:port`.
fn authority_target(authority: &str) -> Result<Target, Fault> {
    let bare = authority.strip_suffix(':').unwrap_or(authority);
    let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if has_port && bare.len() == authority.len() {
        return authority.parse().map_err(|_| Fault::Target);
    }
    Host::parse(bare).and_then(|host| Target::new(host, 80)).map_err(|_| Fault::Target)
}

/// The offer of another protocol, if it can be taken: in HTTP/1.1, without a body, and never h2c, which RFC 9113 took
/// back and which is a way to speak to an origin behind everybody's back.
fn upgrade<'b>(fields: &Fields<'b>, options: &Options<'_>, version: Version, body: Body) -> Option<&'b [u8]> {
    let offers = options.upgrade && version == Version::Current && body == Body::NONE;
    let mut offered = fields.iter().filter(|field| offers && field.is("upgrade"));
    let (first, second) = (offered.next()?, offered.next());
    let good = second.is_none() && !first.value.is_empty() && !first.members().any(|m| m.eq_ignore_ascii_case(b"h2c"));
    good.then_some(first.value)
}

/// An HTTP/1.0 client cannot wait for a 100 (RFC 9110, section 10.1.1): its expectation is ignored.
fn expects(fields: &Fields<'_>, version: Version) -> Result<bool, Fault> {
    match fields.get("expect") {
        None => Ok(false),
        Some(_) if version == Version::Old => Ok(false),
        Some(field) if field.value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(Fault::Expectation),
    }
}

#[cfg(test)]
pub(crate) use tests::SMUGGLED;

#[cfg(test)]
mod tests;
