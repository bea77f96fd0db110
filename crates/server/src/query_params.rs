//! Parameters of a query string, with errors in the API's shape.

use std::ops::RangeInclusive;

use axum::extract::{FromRequestParts, Query};
use http::Uri;
use http::request::Parts;

use crate::error::{ApiError, Code};

/// Parameters of a query string. Of one that is given twice the first counts; names that nobody asks for are ignored.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// The parameters of an address.
    ///
    /// # Errors
    /// If the query string is not percent-encoded UTF-8.
    pub fn of(uri: &Uri) -> Result<Self, ApiError> {
        match Query::try_from_uri(uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(ApiError::new(Code::InvalidField, "the query string is not readable; percent-encode it")),
        }
    }

    /// A parameter's text; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number.
    ///
    /// # Errors
    /// If it is something else or out of range.
    pub fn integer(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(wrong(name, &expected(), text)),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If it is something else or not finite.
    pub fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(wrong(name, "a number", text)),
        }
    }
}

fn wrong(name: &str, expected: &str, text: &str) -> ApiError {
    let shown: String = text.chars().take(40).collect();
    ApiError::field(name, expected, &format!("{shown:?}"))
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::of(&parts.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Params {
        Params::of(&format!("http://a/b?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn values_are_decoded_and_the_first_of_two_counts() {
        let params = of("serverId=web%2D1+x&hours=24&hours=1&empty=&flag");
        assert_eq!(params.text("serverId"), Some("web-1 x"));
        assert_eq!(params.number("hours").unwrap(), Some(24.0));
        assert_eq!(params.text("empty"), None);
        assert_eq!(params.text("flag"), None);
        assert_eq!(params.integer("absent", 1..=5).unwrap(), None);
    }

    #[test]
    fn wrong_values_say_the_name_and_what_was_expected() {
        let error = of("limit=0").integer("limit", 1..=100).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("limit"));
        assert_eq!(error.body().message, "limit: expected a whole number from 1 to 100, found \"0\"");
        for query in ["hours=NaN", "hours=inf", "hours=a%0Ab", "hours=1e999"] {
            assert!(of(query).number("hours").is_err(), "{query}");
        }
        assert!(of("limit=-1").integer("limit", 0..=9).is_err());
    }
}
