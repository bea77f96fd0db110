//! The credentials and headers of HTTP requests, as several integrations configure them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use weir_config::Secret;
use weir_pipeline::Fault;

/// What an integration's block says.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    /// Extra headers.
    pub headers: Option<&'a BTreeMap<String, Secret>>,
    /// `Authorization: Bearer TOKEN`.
    pub bearer_token: Option<&'a Secret>,
    /// `Authorization: Basic`, with the password.
    pub username: Option<&'a str>,
    /// Belongs to `username`.
    pub password: Option<&'a Secret>,
}

impl Credentials<'_> {
    /// The headers, with those of `reserved` refused: the protocol sets them.
    ///
    /// # Errors
    /// Which option makes no sense; never with its content.
    pub(crate) fn headers(&self, reserved: &[HeaderName]) -> Result<HeaderMap, Fault> {
        let mut all = HeaderMap::new();
        for (name, value) in self.headers.into_iter().flatten() {
            let header: HeaderName = name
                .parse()
                .map_err(|_| Fault::configuration(format!("headers: `{name}` cannot be the name of a header")))?;
            if reserved.contains(&header) {
                let message = format!("headers: `{name}` is set by the protocol and cannot be changed; remove it");
                return Err(Fault::configuration(message));
            }
            all.insert(header, secret_value(&format!("headers: the value of `{name}`"), value.expose())?);
        }
        let authorization = match (self.bearer_token, self.username) {
            (Some(_), Some(_)) => {
                return Err(Fault::configuration("bearer_token and username exclude each other; keep one of them"));
            }
            (Some(token), None) => Some(format!("Bearer {}", token.expose())),
            (None, Some(name)) => Some(basic(name, self.password.map_or("", Secret::expose))),
            (None, None) if self.password.is_some() => {
                return Err(Fault::configuration("password needs username"));
            }
            (None, None) => None,
        };
        if let Some(text) = authorization {
            if all.contains_key(AUTHORIZATION) {
                let message = "headers: `authorization` is set by bearer_token or username; keep one of them";
                return Err(Fault::configuration(message));
            }
            all.insert(AUTHORIZATION, secret_value("the token or password", &text)?);
        }
        Ok(all)
    }
}

/// Moves `user:password@` of an address into a header, so that it is in no message about the address.
///
/// # Errors
/// If the credentials cannot be a header.
pub(crate) fn take_from_url(url: &mut Url, headers: &mut HeaderMap) -> Result<(), Fault> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    let text = basic(&percent_decoded(url.username()), &percent_decoded(url.password().unwrap_or_default()));
    // Both fail only for addresses without a host, which an `Endpoint` never is.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if !headers.contains_key(AUTHORIZATION) {
        headers.insert(AUTHORIZATION, secret_value("the credentials in the address", &text)?);
    }
    Ok(())
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn secret_value(what: &str, text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Fault::configuration(format!("{what} has a character that no header can have")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `%40` to `@`; what is no escape stays.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        match escape.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = escape.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = escape.get(1..).unwrap_or_default();
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_an_address_become_a_header_and_leave_the_address() {
        let mut url: Url = "http://us%40er:p%25w@host:9090/x".parse().unwrap();
        let mut headers = HeaderMap::new();
        take_from_url(&mut url, &mut headers).unwrap();
        assert_eq!(url.as_str(), "http://host:9090/x");
        let sent = headers[AUTHORIZATION].to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(sent).unwrap(), b"us@er:p%w");
        assert!(headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn contradictions_are_refused_without_their_secrets() {
        let token = Secret::new("hunter2");
        let both = Credentials { bearer_token: Some(&token), username: Some("a"), ..Credentials::default() };
        assert!(both.headers(&[]).unwrap_err().message.contains("exclude"));
        let broken = Secret::new("hunter2\n");
        let fault = Credentials { bearer_token: Some(&broken), ..Credentials::default() }.headers(&[]).unwrap_err();
        assert!(!fault.message.contains("hunter2"), "{fault}");
        let headers = BTreeMap::from([("Content-Type".to_owned(), Secret::new("x"))]);
        let reserved = Credentials { headers: Some(&headers), ..Credentials::default() };
        assert!(reserved.headers(&[http::header::CONTENT_TYPE]).unwrap_err().message.contains("set by the protocol"));
    }
}
