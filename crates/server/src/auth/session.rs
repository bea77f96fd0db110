//! People at the dashboard: the cookie of their session, and the link that starts one.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, header::COOKIE};
use weir_config::Secret;
use weir_metadata::MetadataError;

use super::origin;
use crate::state::{State, now_ms};

/// The name of the cookie.
pub const NAME: &str = "weir_session";

/// How long browsers keep the cookie, in seconds: 400 days, the most that they do (RFC 6265bis). The
/// server ends sessions that are not used much earlier.
const KEPT_SECONDS: u32 = 400 * 24 * 3600;

/// Time between two removals of what has expired.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// The text of the session that a request shows.
pub fn shown(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, text)| *name == NAME && !text.is_empty()).map(|(_, text)| text)
}

/// The `Set-Cookie` that starts a session, for scripts out of reach, and for this server's pages alone.
pub fn cookie(text: &Secret, secure: bool) -> String {
    set_cookie(text.expose(), KEPT_SECONDS, secure)
}

/// The `Set-Cookie` that makes a browser forget its session.
pub fn no_cookie(secure: bool) -> String {
    set_cookie("", 0, secure)
}

fn set_cookie(text: &str, kept_seconds: u32, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{NAME}={text}; Path=/; Max-Age={kept_seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Whether the browser reached the server by https. The server itself speaks http: TLS ends at a
/// proxy, whose address `public_url` says. Under any other address a `Secure` cookie would be lost.
pub fn is_secure(parts: &Parts, public_url: &str) -> bool {
    let Some(public) = public_url.strip_prefix("https://") else { return false };
    let public_host = public.split('/').next().unwrap_or(public);
    let is_public = |host: &str| host.eq_ignore_ascii_case(public_host);
    let origin = parts.headers.get(http::header::ORIGIN).and_then(|value| value.to_str().ok());
    origin::host(parts).is_some_and(is_public)
        || origin.and_then(|origin| origin.strip_prefix("https://")).is_some_and(is_public)
}

/// The address that signs a browser in, once. The token stands behind `#`, so that it is in no log
/// of a proxy and in no `Referer`.
pub fn link(public_url: &str, token: &Secret) -> String {
    format!("{public_url}/#t={}", token.expose())
}

/// A new link that signs a browser in, once, within 10 minutes.
///
/// # Errors
/// The database fails.
pub async fn login_link(state: &State) -> Result<String, MetadataError> {
    let token = state.metadata.create_login_token("dashboard", now_ms()).await?;
    Ok(link(&state.options.public_url, &token))
}

/// Removes what has expired, every hour, until it is dropped.
pub async fn sweep(state: &Arc<State>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match state.metadata.sweep(now_ms()).await {
            Ok(removed) => tracing::debug!("{removed} expired sessions, keys and tokens were removed"),
            Err(error) => tracing::warn!("expired sessions, keys and tokens stay for another hour: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::post("/api/v1/login");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("request").into_parts().0
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        for (cookies, expected) in [
            (&["weir_session=abc"][..], Some("abc")),
            (&["a=1; weir_session=abc; b=2"], Some("abc")),
            (&["a=1", "weir_session=a=b"], Some("a=b")),
            (&["xweir_session=abc", "weir_session_2=abc", "weir_session", "weir_session="], None),
            (&[], None),
        ] {
            let headers: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
            assert_eq!(shown(&parts(&headers).headers), expected, "{cookies:?}");
        }
    }

    #[test]
    fn a_cookie_is_for_http_requests_of_this_site_alone_and_secure_where_https_is_in_front() {
        let plain = cookie(&Secret::new("abc"), false);
        assert_eq!(plain, "weir_session=abc; Path=/; Max-Age=34560000; HttpOnly; SameSite=Strict");
        assert!(no_cookie(true).ends_with("Max-Age=0; HttpOnly; SameSite=Strict; Secure"));

        let public = "https://weir.example.org";
        assert!(is_secure(&parts(&[("host", "weir.example.org")]), public));
        assert!(is_secure(&parts(&[("host", "127.0.0.1:8088"), ("origin", "https://weir.example.org")]), public));
        assert!(!is_secure(&parts(&[("host", "10.0.0.5:8088")]), public), "by its own address, plain");
        assert!(!is_secure(&parts(&[("host", "weir.example.org")]), "http://weir.example.org"));
    }
}
