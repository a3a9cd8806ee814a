//! How a fake source of data answers: well, or with a fault that a test sets.

use bytes::Bytes;
use http::StatusCode;

use crate::http_response::{self, HttpResponse};

/// How a source answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// With what was asked for.
    #[default]
    Normal,
    /// With this status only (500, 503, …).
    Status(u16),
    /// With half of the body; then the connection closes.
    Truncated,
    /// With 200 and a body of another kind.
    Garbage,
    /// With 304, whatever the request says.
    NotModified,
    /// With data that is this many hours old and has that date.
    Stale(u64),
    /// Not at all.
    Hang,
    /// With 200 and exactly this body.
    Says(&'static str),
}

/// What is sent instead of a good answer.
pub(crate) enum Instead {
    Response(Box<HttpResponse>),
    Nothing,
}

impl Behaviour {
    /// What is sent instead of `body`; none if `body` itself is sent.
    pub(crate) fn instead(self, kind: &'static str, body: &Bytes) -> Option<Instead> {
        let page = match self {
            Self::Normal | Self::Stale(_) => return None,
            Self::Hang => return Some(Instead::Nothing),
            Self::Says(body) => http_response::typed(kind, body),
            Self::Status(code) => {
                http_response::status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            }
            Self::Truncated => http_response::cut_short(kind, body),
            Self::Garbage => http_response::typed("text/html", "<html><body>This is fine.</body></html>"),
            Self::NotModified => {
                let mut page = http_response::of(http_body_util::Empty::new());
                *page.status_mut() = StatusCode::NOT_MODIFIED;
                page
            }
        };
        Some(Instead::Response(Box::new(page)))
    }
}

impl Instead {
    /// The response; none if the source does not answer.
    pub(crate) fn into_response(self) -> Option<HttpResponse> {
        match self {
            Self::Response(page) => Some(*page),
            Self::Nothing => None,
        }
    }
}
