//! What the API says of itself: `/openapi.json`, made from the code, and a page that reads it to people, `/docs`.
//!
//! The page is ours and small, and asks nobody but this server: it works on a machine without internet, and under a
//! policy that lets no other script run.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

/// Nothing from elsewhere, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What stands above the URLs.
pub(super) fn base() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("exitgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Create, list and destroy proxies, and watch everything. Writes carry `Content-Type: application/json`; where \
             a token is set it travels in the `Authorization` header. Errors have one shape: `{ \"error\": { \"code\", \
             \"message\", \"details\" } }`.",
        ))
        .license(Some(license));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`api.token`")).build();
    let components = ComponentsBuilder::new().security_scheme("token", SecurityScheme::Http(bearer));
    // Without a token in the configuration none is needed, so an empty requirement stands beside it.
    let needs = [SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())];
    OpenApiBuilder::new().info(info.build()).components(Some(components.build())).security(Some(needs)).build()
}

/// The description and its reader.
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
    fn every_url_is_described_and_refuses_in_one_shape() {
        let all = serde_json::to_value(description()).unwrap();
        let paths = all["paths"].as_object().unwrap();
        assert!(paths.len() > 15 && all["openapi"].as_str().unwrap().starts_with("3.1"), "{}", all["openapi"]);
        for (path, item) in paths {
            for (method, said) in item.as_object().unwrap() {
                let refusal = &said["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(refusal, "#/components/schemas/Problem", "{method} {path}");
                // A write that is not behind `json_only` would say so here: its body is not described.
                let writes = matches!(method.as_str(), "post" | "patch" | "put");
                assert!(!writes || said["requestBody"]["content"]["application/json"].is_object(), "{method} {path}");
                let says = said["summary"].as_str().or(said["description"].as_str()).unwrap_or_default();
                assert!(says.len() > 10, "{method} {path} does not say what it does");
            }
        }
    }
}
