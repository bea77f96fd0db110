//! The dashboard's files, embedded.
//!
//! There is no data in them, so they need no key; what they show comes over the API, with one.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// One embedded file.
struct File {
    /// The path that browsers ask for, such as `/assets/index-B2xk.js`.
    path: &'static str,
    /// Changes with the content.
    tag: &'static str,
    plain: &'static [u8],
    /// The gzip form, where it is smaller.
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// The view of every path that is none of a file.
const INDEX: &str = "/index.html";

/// What is shown where the dashboard was not built.
const MISSING: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Weir</title>\n\
    <h1>Weir runs, without its dashboard</h1>\n\
    <p>This program was built without the dashboard: run <code>make build</code>.\n\
    <p>The API works: <a href=\"/health\">/health</a>, <code>/api/v1/hosts</code>, <code>/api/v1/openapi.json</code>.\n\
    </html>\n";

/// The answer to a request for a file or a view of the dashboard; `None` for what is neither.
pub fn file(request: &Request) -> Option<Response> {
    answer(FILES, request)
}

fn answer(files: &'static [File], request: &Request) -> Option<Response> {
    let head = request.method() == Method::HEAD;
    if !head && request.method() != Method::GET {
        return None;
    }
    let path = request.uri().path();
    let find = |path: &str| files.iter().find(|file| file.path == path);
    if let Some(file) = find(path) {
        return Some(send(file, request.headers(), head));
    }
    if !is_view(path) {
        return None;
    }
    match find(INDEX) {
        Some(index) => Some(send(index, request.headers(), head)),
        None => Some(missing(head)),
    }
}

/// Whether the path is one of the dashboard's own views. Names of hosts (`/h/NAME`) may hold dots; a
/// dot elsewhere means a file, and one that is missing must not look like a page.
fn is_view(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let reserved = ["/api", "/v1", "/ws", "/join", "/assets", "/health", "/ready", "/metrics"].into_iter().any(below);
    !reserved && (below("/h") || below("/hosts") || !path.contains('.'))
}

fn send(file: &File, headers: &HeaderMap, head: bool) -> Response {
    let gzip = file.gzip.filter(|_| takes_gzip(headers));
    let (body, suffix) = gzip.map_or((file.plain, ""), |gzip| (gzip, "-gzip"));
    let tag = format!("\"{}{suffix}\"", file.tag);
    let unchanged = headers.get_all(IF_NONE_MATCH).iter().any(|value| matches(value, &tag));
    let mut response = Response::new(Body::empty());
    let mut set = |name: HeaderName, value: &str| {
        // All values are our own ASCII texts.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(ETAG, &tag);
    set(VARY, ACCEPT_ENCODING.as_str());
    // The names of files below `assets` change with their content.
    let immutable = file.path.starts_with("/assets/");
    set(CACHE_CONTROL, if immutable { "public, max-age=31536000, immutable" } else { "no-cache" });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    set(CONTENT_TYPE, content_type(file.path));
    set(CONTENT_LENGTH, &body.len().to_string());
    if gzip.is_some() {
        set(CONTENT_ENCODING, "gzip");
    }
    if !head {
        *response.body_mut() = Body::from(Bytes::from_static(body));
    }
    response
}

/// Whether an `If-None-Match` names the tag (RFC 9110 section 13.1.2, weak comparison).
fn matches(value: &HeaderValue, tag: &str) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Whether `Accept-Encoding` lists gzip, and not with the weight 0 (RFC 9110 section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn missing(head: bool) -> Response {
    let mut response = Response::new(if head { Body::empty() } else { Body::from(MISSING) });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(INDEX)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    static SOME: &[File] = &[
        File { path: "/index.html", tag: "1", plain: b"<!doctype html>", gzip: None },
        File { path: "/assets/app-x1.js", tag: "2", plain: b"plain script", gzip: Some(b"packed") },
    ];

    fn ask(files: &'static [File], method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Option<Response> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        answer(files, &request.body(Body::empty()).expect("request"))
    }

    fn get(path: &str) -> Option<Response> {
        ask(SOME, Method::GET, path, &[])
    }

    fn header(response: &Response, name: HeaderName) -> &str {
        response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
    }

    async fn body(response: Response) -> Bytes {
        response.into_body().collect().await.expect("body").to_bytes()
    }

    #[tokio::test]
    async fn views_get_the_first_page_and_everything_else_is_left_alone() {
        for path in ["/", "/hosts", "/h/web-1.example.org", "/hosts/web-1.example.org", "/keys", "/h/a/processes"] {
            let response = get(path).expect(path);
            assert_eq!(header(&response, CONTENT_TYPE), "text/html; charset=utf-8");
            assert_eq!(header(&response, CACHE_CONTROL), "no-cache");
            assert_eq!(body(response).await, &b"<!doctype html>"[..], "{path}");
        }
        for path in [
            "/api",
            "/api/v2/x",
            "/v1/metrics",
            "/ws",
            "/favicon.ico",
            "/assets/app-x0.js",
            "/assets/x",
            "/join/x",
            "/health/",
            "/ready/",
        ] {
            assert!(get(path).is_none(), "{path}");
        }
        assert!(ask(SOME, Method::POST, "/", &[]).is_none());
    }

    #[tokio::test]
    async fn hashed_files_are_kept_for_ever_and_packed_for_those_who_take_it() {
        for (accepted, expected) in
            [("gzip, br", "packed"), ("br", "plain script"), ("gzip;q=0", "plain script"), ("GZIP;q=0.5", "packed")]
        {
            let response = ask(SOME, Method::GET, "/assets/app-x1.js", &[(ACCEPT_ENCODING, accepted)]).expect("file");
            assert!(header(&response, CACHE_CONTROL).contains("immutable"));
            assert_eq!(header(&response, VARY), "accept-encoding");
            assert_eq!(header(&response, CONTENT_ENCODING) == "gzip", expected == "packed");
            assert_eq!(body(response).await, expected, "{accepted}");
        }
    }

    #[tokio::test]
    async fn what_the_browser_has_already_is_not_sent_again_and_a_head_has_no_body() {
        let first = ask(SOME, Method::GET, "/", &[]).expect("file");
        let tag = header(&first, ETAG).to_owned();
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let again = ask(SOME, Method::GET, "/", &[(IF_NONE_MATCH, &sent)]).expect("file");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{sent}");
            assert!(body(again).await.is_empty());
        }
        let other = ask(SOME, Method::GET, "/", &[(IF_NONE_MATCH, "\"other\"")]).expect("file");
        assert_eq!(other.status(), StatusCode::OK);
        let head = ask(SOME, Method::HEAD, "/", &[]).expect("file");
        assert_eq!(header(&head, CONTENT_LENGTH), "15");
        assert!(body(head).await.is_empty());
    }

    #[tokio::test]
    async fn a_program_without_the_dashboard_says_how_to_get_it() {
        let response = ask(&[], Method::GET, "/hosts/web-1", &[]).expect("page");
        let text = String::from_utf8(body(response).await.to_vec()).expect("text");
        assert!(text.contains("make build"), "{text}");
        assert!(ask(&[], Method::GET, "/favicon.svg", &[]).is_none());
    }

    #[test]
    fn what_is_embedded_begins_with_a_page_or_is_nothing() {
        assert_eq!(FILES.iter().any(|file| file.path == INDEX), !FILES.is_empty());
        for file in FILES {
            assert_ne!(content_type(file.path), "application/octet-stream", "{}", file.path);
        }
    }
}
