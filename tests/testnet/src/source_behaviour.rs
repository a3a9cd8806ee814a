//! How a source of data goes wrong on order.

use bytes::Bytes;
use http::StatusCode;

use crate::page::{self, Page};

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// It does not.
    #[default]
    Normal,
    /// This status and nothing else (500, 503, …).
    Status(u16),
    /// Half of the body, then the connection closes.
    Truncated,
    /// 200 and a body that is not what was asked for.
    Garbage,
    /// 304 whatever the request says.
    NotModified,
    /// Good data that is this many hours old, and says so.
    Stale(u64),
    /// No answer at all.
    Hang,
    /// 200 and exactly this.
    Says(&'static str),
}

/// What is sent in place of a good answer.
pub(crate) enum Instead {
    Page(Box<Page>),
    Nothing,
}

impl Behaviour {
    /// What is sent in place of `body`, if anything is.
    pub(crate) fn instead(self, kind: &'static str, body: &Bytes) -> Option<Instead> {
        let page = match self {
            Self::Normal | Self::Stale(_) => return None,
            Self::Hang => return Some(Instead::Nothing),
            Self::Says(body) => page::typed(kind, body),
            Self::Status(code) => page::status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)),
            Self::Truncated => page::cut_short(kind, body),
            Self::Garbage => page::typed("text/html", "<html><body>This is fine.</body></html>"),
            Self::NotModified => {
                let mut page = page::of(http_body_util::Empty::new());
                *page.status_mut() = StatusCode::NOT_MODIFIED;
                page
            }
        };
        Some(Instead::Page(Box::new(page)))
    }
}

impl Instead {
    /// The page; nothing if there is to be no answer.
    pub(crate) fn into_page(self) -> Option<Page> {
        match self {
            Self::Page(page) => Some(*page),
            Self::Nothing => None,
        }
    }
}
