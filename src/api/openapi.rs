//! The description of the API. `/openapi.json` is generated from the code, and the page `/docs` shows it to people.
//!
//! The page loads nothing from other servers. So it works on a machine without internet, and with a content policy that
//! allows no scripts of other servers.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

/// The content security policy of the page: it may load files of this server only. Inline scripts, and frames around
/// the page, are forbidden.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the general part of the description. `api/endpoints.rs` adds the endpoints.
pub(super) fn base() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("exitgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Create, change and delete proxies, and watch the gateway. A request with a body needs `Content-Type: \
             application/json`. Where a token is set, send it in the `Authorization` header. All errors have one form: `{ \
             \"error\": { \"code\", \"message\", \"details\", \"request_id\" } }`. One idea has three names: `selector` \
             says which exits to use in the words of a username (`us-strict`), `geo_category` is a short form of it for \
             the three commonest (`US`, `NON_US`, `ANY`), and `--country` is the short form of the command line. Answers \
             through a proxy name their exit in headers: `X-Exitgate-Exit-Checked` is the age of its last check in \
             seconds.",
        ))
        .license(Some(license));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`api.token`")).build();
    let components = ComponentsBuilder::new().security_scheme("token", SecurityScheme::Http(bearer));
    // A request must meet one of these requirements. The first one is empty, because a gateway without a configured
    // token needs no token.
    let needs = [SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())];
    OpenApiBuilder::new().info(info.build()).components(Some(components.build())).security(Some(needs)).build()
}

/// Serves the description, and the page that shows it.
pub(super) fn router(description: OpenApi) -> Router {
    let json = serde_json::to_string_pretty(&description).unwrap_or_default();
    let page = |kind: &'static str, body: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)], body) })
    };
    Router::new()
        .route(
            "/openapi.json",
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], json.clone()).into_response() }),
        )
        .route("/docs", page("text/html; charset=utf-8", include_str!("docs/docs.html")))
        .route("/docs/docs.css", page("text/css; charset=utf-8", include_str!("docs/docs.css")))
        .route("/docs/icon.svg", page("image/svg+xml", include_str!("docs/icon.svg")))
        .route("/docs/docs.js", page("text/javascript; charset=utf-8", include_str!("docs/docs.js")))
}

#[cfg(test)]
mod tests {
    use super::super::endpoints::description;

    #[test]
    fn the_description_changes_only_on_purpose() {
        insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&description()).unwrap());
    }

    #[test]
    fn every_endpoint_is_described_and_refuses_in_one_form() {
        let all = serde_json::to_value(description()).unwrap();
        let paths = all["paths"].as_object().unwrap();
        assert!(paths.len() > 15 && all["openapi"].as_str().unwrap().starts_with("3.1"), "{}", all["openapi"]);
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                let refusal = &operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(refusal, "#/components/schemas/Problem", "{method} {path}");
                // `endpoint` in `api/endpoints.rs` accepts only JSON for these methods, so each of them must describe a
                // JSON body.
                let writes = matches!(method.as_str(), "post" | "patch" | "put");
                assert!(
                    !writes || operation["requestBody"]["content"]["application/json"].is_object(),
                    "{method} {path}"
                );
                let says = operation["summary"].as_str().or(operation["description"].as_str()).unwrap_or_default();
                assert!(says.len() > 10, "{method} {path} does not say what it does");
            }
        }
    }
}
