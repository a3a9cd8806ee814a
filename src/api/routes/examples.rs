//! The proxy URLs of a route, and example commands with these URLs that a user can paste into a shell or a program.

use serde::Serialize;
use utoipa::ToSchema;

/// Lines to paste. They ask the page of `api.example_url`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Examples {
    /// The page that the lines ask.
    pub(super) url: String,
    pub(super) curl: String,
    pub(super) python: String,
    pub(super) playwright: String,
}

/// The proxy URLs of a route for clients.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Urls {
    pub(super) socks5: String,
    pub(super) http: String,
}

impl Examples {
    pub(super) fn of(urls: &Urls, url: &str) -> Self {
        let Urls { socks5, http } = urls;
        Self {
            url: url.to_owned(),
            curl: format!("curl -x {socks5} {url}"),
            python: format!("requests.get(\"{url}\", proxies={{\"http\": \"{http}\", \"https\": \"{http}\"}})"),
            playwright: playwright(http),
        }
    }
}

/// Returns an example for Playwright. Playwright does not read a login from the proxy's URL but needs the username and
/// the password as separate fields.
fn playwright(http: &str) -> String {
    let (server, login) = match http.strip_prefix("http://").and_then(|rest| rest.rsplit_once('@')) {
        Some((login, address)) => {
            let (username, password) = login.split_once(':').unwrap_or((login, ""));
            (format!("http://{address}"), format!(", username: \"{username}\", password: \"{password}\""))
        }
        None => (http.to_owned(), String::new()),
    };
    format!("await chromium.launch({{ proxy: {{ server: \"{server}\"{login} }} }})")
}

/// Returns the proxy URLs for a port. If the port requires a key, `username` is the route's name, and the text
/// `YOUR_KEY` stands for the key. The key itself is never shown.
pub(super) fn urls(host: &str, port: u16, username: Option<&str>) -> Urls {
    let login = username.map_or(String::new(), |name| format!("{name}:YOUR_KEY@"));
    Urls { socks5: format!("socks5h://{login}{host}:{port}"), http: format!("http://{login}{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_the_route_and_never_the_key() {
        let Urls { socks5, http } = urls("[::1]", 20_001, Some("shop"));
        assert_eq!((&*socks5, &*http), ("socks5h://shop:YOUR_KEY@[::1]:20001", "http://shop:YOUR_KEY@[::1]:20001"));
        assert_eq!(urls("127.0.0.1", 1, None).http, "http://127.0.0.1:1");
    }

    #[test]
    fn examples_ask_the_configured_page_and_give_playwright_its_login() {
        let examples = |username| Examples::of(&urls("127.0.0.1", 20_001, username), "https://echo.example/ip");
        let keyed = examples(Some("shop"));
        assert_eq!(keyed.curl, "curl -x socks5h://shop:YOUR_KEY@127.0.0.1:20001 https://echo.example/ip");
        assert_eq!(
            keyed.playwright,
            "await chromium.launch({ proxy: { server: \"http://127.0.0.1:20001\", username: \"shop\", password: \"YOUR_KEY\" } })"
        );
        let open = examples(None).playwright;
        assert_eq!(open, "await chromium.launch({ proxy: { server: \"http://127.0.0.1:20001\" } })");
    }
}
