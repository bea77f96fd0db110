//! Keys and sessions in the OpenAPI document.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder};

use super::session;

/// Answers that every request may get which needs a key.
const SHARED: [(&str, &str, &str); 4] = [
    ("401", "Unauthorized", "No key, or one that is not known, has expired or was revoked."),
    ("403", "Forbidden", "The key is known and may not do this, or a session is used from another site."),
    ("429", "TooManyRequests", "Too many wrong keys came from this address; `Retry-After` says when to try again."),
    ("503", "Unavailable", "Keys cannot be looked up now; `Retry-After` says when to try again."),
];

/// What every operation with a body may answer.
const OF_BODIES: [(&str, &str, &str); 2] = [
    ("413", "TooLarge", "The body is too large."),
    ("415", "UnsupportedMediaType", "The content encoding is not known."),
];

/// Adds the ways to show a key to every operation that does not say by `security(())` that it needs
/// none, and to each the answers that are not its own: to those without a key, to bodies that are not
/// read.
pub fn describe(document: &mut OpenApi) {
    let components = document.components.take().unwrap_or_default();
    let mut components = ComponentsBuilder::from(components);
    for (name, scheme) in schemes() {
        components = components.security_scheme(name, scheme);
    }
    for (_, name, description) in SHARED.into_iter().chain(OF_BODIES) {
        components = components.response(name, answer(description));
    }
    document.components = Some(components.build());
    document.security = Some(vec![
        SecurityRequirement::new("bearer", NO_SCOPES),
        SecurityRequirement::new("key", NO_SCOPES),
        SecurityRequirement::new("key_id", NO_SCOPES).add("key_secret", NO_SCOPES),
        SecurityRequirement::new("session", NO_SCOPES),
    ]);
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let shared = SHARED.into_iter().filter(|_| operation.security.is_none());
            let of_bodies = OF_BODIES.into_iter().filter(|_| operation.request_body.is_some());
            let answers: Vec<_> = shared.chain(of_bodies).collect();
            for (status, name, _) in answers {
                let answer = RefOr::Ref(Ref::from_response_name(name));
                operation.responses.responses.entry(status.to_owned()).or_insert(answer);
            }
        }
    }
}

const NO_SCOPES: [&str; 0] = [];

fn schemes() -> [(&'static str, SecurityScheme); 5] {
    let header = |name: &str, description: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, description)))
    };
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("weir_<id>_<secret>")
        .description(Some("A key, made by `weir keys create NAME` or `POST /api/v1/keys`."))
        .build();
    let cookie = ApiKeyValue::with_description(
        session::NAME,
        "A browser's session. Whatever is no GET must also come from the dashboard itself (`Origin`).",
    );
    [
        ("bearer", SecurityScheme::Http(bearer)),
        ("key", header("X-API-Key", "The same key in a header of its own.")),
        ("key_id", header("X-API-Key-ID", "The part `<id>` of a key; goes with `X-API-Key-Secret`.")),
        ("key_secret", header("X-API-Key-Secret", "The part `<secret>` of a key; goes with `X-API-Key-ID`.")),
        ("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie))),
    ]
}

fn answer(description: &str) -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name("ErrorBody"));
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi as _;

    use super::*;
    use crate::error::ErrorBody;

    #[utoipa::path(get, path = "/open", security(()), responses((status = 200)))]
    #[allow(dead_code, reason = "only its description is used")]
    fn open() {}

    #[utoipa::path(get, path = "/closed", responses((status = 200), (status = 403, description = "own words", body = ErrorBody)))]
    #[allow(dead_code, reason = "only its description is used")]
    fn closed() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(open, closed))]
    struct Document;

    #[test]
    fn what_needs_a_key_says_so_and_what_needs_none_too() {
        let mut document = Document::openapi();
        describe(&mut document);
        let json = serde_json::to_value(&document).expect("JSON");
        let closed = &json["paths"]["/closed"]["get"]["responses"];
        assert_eq!(closed["401"]["$ref"], "#/components/responses/Unauthorized");
        assert_eq!(closed["403"]["description"], "own words");
        assert_eq!(json["paths"]["/open"]["get"]["security"], serde_json::json!([{}]));
        assert!(json["paths"]["/open"]["get"]["responses"].get("401").is_none());
        assert_eq!(json["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        assert_eq!(json["components"]["securitySchemes"]["session"]["in"], "cookie");
        assert_eq!(json["security"].as_array().map(Vec::len), Some(4));
        assert!(json["components"]["schemas"]["ErrorBody"].is_object());
    }
}
