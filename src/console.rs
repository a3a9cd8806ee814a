//! Serves the web console, which is compiled into the binary. So there is no folder to install, and nothing is loaded
//! from other servers.
//!
//! The page at `/` needs no token, because it contains no data. The page requests all data from the API, with the token
//! that the user typed. The token stays in the memory of the page.
//!
//! A browser must check for a new version of the page at `/` each time. All other files have URLs that contain a digest
//! of all files (`/console/DIGEST/app.js`), so browsers may cache these files for ever. A new binary has a new digest,
//! so files of two versions are never mixed.
//!
//! The content security policy of the page (`POLICY`) forbids everything that the console does not need: scripts and
//! styles inside the page, anything from another origin, frames, and HTML that is made from text (trusted types). So
//! the nickname of a hostile relay cannot run a script, even if the console has a bug.
//!
//! Next: `console/assets/app.js`, which the browser runs first.

mod file;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use self::file::{File, digest};

/// The content security policy of the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// The `Cache-Control` of the page at `/`, which contains the current digest. A browser must ask for the page each
/// time, and the answer may be 304.
const REVALIDATE: &str = "no-cache";
/// The `Cache-Control` of files whose URL changes whenever their content changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The placeholder in the page that is replaced by the folder name of the current version.
const FOLDER_MARK: &str = "ASSETS";
const PAGE: &str = include_str!("console/assets/index.html");

macro_rules! assets {
    ($($name:literal)*) => {
        /// Every file except the page: its name in the folder, and its content.
        const ASSETS: &[(&str, &[u8])] = &[$(($name, include_bytes!(concat!("console/assets/", $name)))),*];
    };
}

assets! {
    "api.js" "app.css" "app.js" "chart.js" "history.js" "icon.svg" "lines.js" "live.js" "map.js" "parts.js" "search.js"
    "steps.js" "view.js" "words.js" "pages/change.js" "pages/connections.js" "pages/create.js" "pages/engines.js"
    "pages/events.js" "pages/exit.js" "pages/exits.js" "pages/first.js" "pages/history.js" "pages/map.js"
    "pages/public.js" "pages/route.js" "pages/routes.js" "pages/sources.js" "pages/why.js"
    "vendor/LICENSES.txt" "vendor/hooks.js" "vendor/htm.js" "vendor/preact.js"
}

/// All files of the console, ready to be sent.
struct Console {
    /// The digest of all files. It is a part of the URL of each file.
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

/// Serves the page and its files. The API's checks of the headers `Host` and `Origin` also apply to these URLs.
pub fn router() -> Router {
    Router::new().route("/", get(page)).route("/console/{version}/{*name}", get(asset))
}

async fn page(headers: HeaderMap) -> Response {
    with(
        CONSOLE.page.answer(&headers),
        &[
            (header::CACHE_CONTROL, REVALIDATE),
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
                (header::CACHE_CONTROL, IMMUTABLE),
                // A browser treats an SVG that is opened by itself as a document that may run scripts. This policy
                // forbids that.
                (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
                (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            ],
        ),
        None => (StatusCode::NOT_FOUND, "this version of the console is gone: reload the page\n").into_response(),
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
