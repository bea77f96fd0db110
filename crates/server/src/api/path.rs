//! A part of a path, with errors in the API's shape.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;

use crate::error::{ApiError, Code};

/// The one part of a path that names something, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            // Nothing has a name that is no text.
            Err(_) => Err(ApiError::new(
                Code::NotFound,
                "the path is not readable, so it is the name of nothing; percent-encode it as UTF-8",
            )),
        }
    }
}
