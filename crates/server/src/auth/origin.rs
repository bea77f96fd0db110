//! Which site and which machine a request comes from.
//!
//! Browsers tell it by `Origin` (RFC 6454) and, on secure connections and loopback addresses, by
//! `Sec-Fetch-Site` (Fetch Metadata, W3C). Pages cannot change either.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, ORIGIN, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What proxies add. Behind one everybody seems to be on this machine.
const PROXIED: [HeaderName; 6] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

/// The host and port that the request was sent to; `None` if that is not said exactly once.
pub fn host(parts: &Parts) -> Option<&str> {
    match parts.headers.contains_key(HOST) {
        true => only(&parts.headers, &HOST),
        // HTTP/2 has it in the address of the request.
        false => parts.uri.authority().map(http::uri::Authority::as_str),
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}

/// Whether an `Origin` is the server that the request was sent to, as its `Host` or its configured
/// address says. The scheme does not count: TLS may end at a proxy.
fn is_origin_of(origin: &str, host: Option<&str>, public_url: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let same = |host: &str| authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host));
    // The configured address may have a path; an origin has none (RFC 6454 §6.1).
    let end = public_url.find("://").and_then(|at| public_url.get(at + 3..)?.find('/').map(|slash| at + 3 + slash));
    let public_origin = end.and_then(|end| public_url.get(..end)).unwrap_or(public_url);
    host.is_some_and(same) || origin.eq_ignore_ascii_case(public_origin)
}

/// Whether a browser says that the request comes from a page of this server.
pub fn is_own(parts: &Parts, public_url: &str) -> bool {
    if parts.headers.contains_key(FETCH_SITE) {
        return only(&parts.headers, &FETCH_SITE) == Some("same-origin");
    }
    only(&parts.headers, &ORIGIN).is_some_and(|origin| is_origin_of(origin, host(parts), public_url))
}

/// Whether a browser says that the request comes from a page of another server. Programs say nothing.
pub fn is_foreign(parts: &Parts, public_url: &str) -> bool {
    let foreign_site = parts.headers.contains_key(FETCH_SITE)
        && !matches!(only(&parts.headers, &FETCH_SITE), Some("same-origin" | "none"));
    let foreign_origin = parts.headers.contains_key(ORIGIN)
        && !only(&parts.headers, &ORIGIN).is_some_and(|origin| is_origin_of(origin, host(parts), public_url));
    foreign_site || foreign_origin
}

/// Whether a program on this machine asks, and no page in a browser on this machine, and no proxy.
///
/// # Errors
/// Why it is not taken for one; nothing for what is plainly another machine.
pub fn local_program(parts: &Parts, peer: Option<IpAddr>) -> Result<(), Option<&'static str>> {
    if !peer.is_some_and(|address| address.is_loopback()) {
        return Err(None);
    }
    if PROXIED.iter().any(|name| parts.headers.contains_key(name)) {
        return Err(Some("this request came through a proxy"));
    }
    // A name that somebody else's name server resolves to this machine makes pages of that name
    // pages of this server ("DNS rebinding").
    if !host(parts).is_some_and(is_loopback_host) {
        return Err(Some("this request was not sent to a loopback address such as 127.0.0.1"));
    }
    if is_foreign(parts, "") {
        return Err(Some("this request came from a page of another site"));
    }
    Ok(())
}

/// Whether a `Host` is this machine and nothing else: `localhost:8088`, `127.0.0.1`, `[::1]:8088`.
fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost")
            || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "https://weir.example.org";

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::post("/api/metrics");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("request").into_parts().0
    }

    #[test]
    fn a_page_of_this_server_is_told_from_a_page_of_another() {
        let host = ("host", "10.0.0.5:8088");
        for own in [
            &[host, ("sec-fetch-site", "same-origin")][..],
            &[host, ("origin", "http://10.0.0.5:8088")],
            &[host, ("origin", "https://10.0.0.5:8088")],
            // A proxy that ends TLS and asks under its own name for the server.
            &[host, ("origin", "https://weir.example.org")],
        ] {
            assert!(is_own(&parts(own), PUBLIC), "{own:?}");
            assert!(!is_foreign(&parts(own), PUBLIC), "{own:?}");
        }
        for foreign in [
            &[host, ("sec-fetch-site", "cross-site")][..],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "same-site"), ("origin", "http://10.0.0.5:8088")],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://10.0.0.5:3000")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "http://10.0.0.5:8088.evil.example")],
            &[host, ("host", "evil.example"), ("origin", "http://evil.example")],
        ] {
            assert!(!is_own(&parts(foreign), PUBLIC), "{foreign:?}");
            assert!(is_foreign(&parts(foreign), PUBLIC), "{foreign:?}");
        }
        let through_proxy = parts(&[("host", "127.0.0.1:8088"), ("origin", PUBLIC)]);
        assert!(!is_foreign(&through_proxy, &format!("{PUBLIC}/weir")), "the configured address has a path");
        assert!(is_foreign(&through_proxy, "https://weir.example.or/g"));
        // A program says nothing: neither own nor foreign.
        assert!(!is_own(&parts(&[host]), PUBLIC) && !is_foreign(&parts(&[host]), PUBLIC));
    }

    #[test]
    fn a_local_program_is_what_comes_from_loopback_to_loopback_without_a_browser_or_a_proxy() {
        let loopback = Some(IpAddr::from([127, 0, 0, 1]));
        for host in ["localhost:8088", "127.0.0.1:8088", "127.1.2.3", "[::1]:8088", "LOCALHOST"] {
            assert_eq!(local_program(&parts(&[("host", host)]), loopback), Ok(()), "{host}");
        }
        assert_eq!(local_program(&parts(&[("host", "[::1]")]), "::1".parse().ok()), Ok(()));
        let page = [("host", "127.0.0.1:8088"), ("origin", "http://127.0.0.1:8088")];
        assert_eq!(local_program(&parts(&page), loopback), Ok(()));

        let other = [Some(IpAddr::from([192, 0, 2, 1])), None];
        assert!(other.into_iter().all(|peer| local_program(&parts(&[("host", "localhost")]), peer) == Err(None)));
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.5", "a@localhost", "", "x y"]
        {
            assert!(matches!(local_program(&parts(&[("host", host)]), loopback), Err(Some(_))), "{host}");
        }
        assert!(matches!(local_program(&parts(&[]), loopback), Err(Some(_))), "no host at all");
        for extra in [
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("via", "1.1 proxy"),
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:3000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("host", "evil.example"),
        ] {
            let request = parts(&[("host", "localhost:8088"), extra]);
            assert!(matches!(local_program(&request, loopback), Err(Some(_))), "{extra:?}");
        }
    }
}
