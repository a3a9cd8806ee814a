//! Serves the web console, which is compiled into the binary: no folder to install, nothing loaded from elsewhere.
//!
//! The page at `/` is open, because it holds nothing: whatever it shows it asks of the API, with the token that a person
//! typed and that stays in that page's memory. It is the one address that must not be cached blindly. Everything else
//! lies below `/console/` and a digest of all of it, so that a browser may keep it for ever and still never mixes two
//! versions: a new binary has a new digest, and its page names it.
//!
//! The policy that goes with the page (`POLICY`) forbids what the console does not do: script or style in the page,
//! anything from another origin, being framed, and HTML made out of text (trusted types). A hostile nickname of a relay
//! is then text on a screen and nothing more, even where the console itself had a fault.
//!
//! Next: `console/assets/app.js`, where a browser starts to read.

mod file;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use self::file::{File, digest};

/// What a browser may do on the console's page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// For a page that names its parts by their digest: ask every time, and 304 is enough of an answer.
const ASK: &str = "no-cache";
/// For a file whose address changes with its content.
const KEEP: &str = "public, max-age=31536000, immutable";

/// Where the page says `ASSETS`, the folder of this version goes.
const FOLDER_MARK: &str = "ASSETS";
const PAGE: &str = include_str!("console/assets/index.html");

macro_rules! assets {
    ($($name:literal)*) => {
        /// Every file but the page: its name below the folder, and its content.
        const ASSETS: &[(&str, &[u8])] = &[$(($name, include_bytes!(concat!("console/assets/", $name)))),*];
    };
}

assets! {
    "api.js" "app.css" "app.js" "chart.js" "icon.svg" "lines.js" "live.js" "parts.js" "search.js" "view.js" "words.js"
    "pages/change.js" "pages/connections.js" "pages/create.js" "pages/engines.js" "pages/events.js" "pages/exit.js" "pages/exits.js"
    "pages/public.js" "pages/route.js" "pages/routes.js" "pages/sources.js" "pages/why.js"
    "vendor/LICENSES.txt" "vendor/hooks.js" "vendor/htm.js" "vendor/preact.js"
}

/// The console as it is served.
struct Console {
    /// The digest in the addresses of all files.
    version: String,
    page: File,
    files: Vec<(&'static str, File)>,
}

static CONSOLE: LazyLock<Arc<Console>> = LazyLock::new(|| Arc::new(Console::new()));

impl Console {
    fn new() -> Self {
        let all = ASSETS.iter().flat_map(|(name, content)| [name.as_bytes(), b"\0", *content, b"\0"]);
        let version = digest(all);
        let page = PAGE.replace(FOLDER_MARK, &format!("/console/{version}"));
        let files = ASSETS.iter().map(|(name, content)| (*name, File::new(name, content))).collect();
        Self { page: File::new("index.html", page.as_bytes()), version, files }
    }

    fn file(&self, version: &str, name: &str) -> Option<&File> {
        let (_, file) = self.files.iter().find(|(known, _)| *known == name)?;
        (version == self.version).then_some(file)
    }
}

/// The page and its files; the API's gate stands before them as before everything else on that port.
pub fn router() -> Router {
    Router::new().route("/", get(page)).route("/console/{version}/{*name}", get(asset))
}

async fn page(headers: HeaderMap) -> Response {
    with(
        CONSOLE.page.answer(&headers),
        &[
            (header::CACHE_CONTROL, ASK),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
        ],
    )
}

async fn asset(Path((version, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    match CONSOLE.file(&version, &name) {
        Some(file) => with(
            file.answer(&headers),
            &[
                (header::CACHE_CONTROL, KEEP),
                // An SVG is a document too when somebody opens it alone.
                (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
                (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            ],
        ),
        None => (StatusCode::NOT_FOUND, "this version of the console is not here any more: reload the page\n")
            .into_response(),
    }
}

fn with(mut response: Response, headers: &[(HeaderName, &'static str)]) -> Response {
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
