//! Headers on every answer that keep browsers from doing what nobody asked for.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderName, HeaderValue};

/// Everything comes from this server: no inline script or style, no frame, no form to elsewhere.
/// <https://www.w3.org/TR/CSP3/>
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

const ALWAYS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // For browsers that do not know `frame-ancestors`.
    (X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: under that, browsers send `Origin: null` with some requests of our own pages
    // (Fetch, "append a request `Origin` header"), and by plain http that header is all there is.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the headers. What says nothing about caching is not cached: it belongs to whoever showed a
/// key, and may hold one.
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn every_answer_forbids_frames_sniffing_and_caching_unless_it_says_otherwise() {
        let cached = || async { ([(CACHE_CONTROL, "no-cache")], "file") };
        let router = Router::new()
            .route("/file", get(cached))
            .route("/data", get(|| async { "data" }))
            .layer(axum::middleware::from_fn(secure));
        for (path, cache) in [("/file", "no-cache"), ("/data", "no-store"), ("/none", "no-store")] {
            let request = http::Request::get(path).body(Body::empty()).expect("request");
            let response = router.clone().oneshot(request).await.expect("answer");
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
            assert_eq!(header("cache-control"), cache, "{path}");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "same-origin");
            assert!(header("content-security-policy").contains("frame-ancestors 'none'"));
            assert!(!header("content-security-policy").contains("unsafe"));
        }
    }
}
