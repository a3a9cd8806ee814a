//! Parses a URL, makes the request for it, and resolves redirects.

use bytes::Bytes;
use http::header;
use http::{Request, Uri};
use http_body_util::Empty;

use super::{FetchError, Validators};
use crate::net::{Host, Target};

/// A URL after parsing.
pub(super) struct Location {
    pub(super) target: Target,
    pub(super) tls: bool,
    path: String,
}

impl Location {
    pub(super) fn of(url: &Uri) -> Result<Self, FetchError> {
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(FetchError::Scheme),
        };
        let host = Host::parse(url.host().unwrap_or_default())?;
        let target = Target::new(host, url.port_u16().unwrap_or(if tls { 443 } else { 80 }))?;
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { target, tls, path })
    }

    /// Returns the value of the `Host` header. The value contains the port only if the port is not the default of the
    /// scheme.
    fn authority(&self) -> String {
        let own = if self.tls { 443 } else { 80 };
        if self.target.port == own { self.target.host.to_string() } else { self.target.to_string() }
    }
}

/// Resolves the target of a redirect. A redirect from https to http is an error.
pub(super) fn follow(from: &Uri, location: &str) -> Result<Uri, FetchError> {
    let to: Uri = location.parse().map_err(|_| FetchError::Redirect("to an invalid URL"))?;
    let whole = if to.scheme().is_some() {
        to
    } else if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = to.into_parts().path_and_query;
        Uri::from_parts(parts).map_err(|_| FetchError::Redirect("to an invalid URL"))?
    } else {
        return Err(FetchError::Redirect("in a form that is not followed"));
    };
    if from.scheme_str() == Some("https") && whole.scheme_str() != Some("https") {
        return Err(FetchError::Redirect("from https to http"));
    }
    Ok(whole)
}

pub(super) fn request(place: &Location, known: &Validators) -> Result<Request<Empty<Bytes>>, FetchError> {
    let agent = concat!("exitgate/", env!("CARGO_PKG_VERSION"));
    let mut request = Request::get(&place.path)
        .header(header::HOST, place.authority())
        .header(header::USER_AGENT, agent)
        .header(header::ACCEPT_ENCODING, "gzip")
        .header(header::CONNECTION, "close");
    for (name, value) in [(header::IF_NONE_MATCH, &known.etag), (header::IF_MODIFIED_SINCE, &known.last_modified)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new()).map_err(|error| FetchError::Http(error.to_string().into()))
}
