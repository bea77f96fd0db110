//! The one shape of every error answer.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was not done, for programs (`code`) and people (`message`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Always `error`.
    #[schema(example = "error")]
    pub status: &'static str,
    /// The kind of error, for programs.
    pub code: Code,
    /// What is wrong and what to do, for people.
    #[schema(example = "metrics[2].cpuUsage: expected a number from 0 to 100, found \"high\"")]
    pub message: String,
    /// Path of the field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was expected there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body is not JSON.
    InvalidJson,
    /// A field, parameter or header has a wrong value.
    InvalidField,
    /// No key, or one that is not known.
    Unauthorized,
    /// The key is known and may not do this.
    Forbidden,
    /// There is nothing at this path or of this name.
    NotFound,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// The name is taken.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The content type or encoding is not understood.
    UnsupportedMediaType,
    /// Too many failed attempts.
    TooManyRequests,
    /// Not now; come again.
    Unavailable,
    /// The enrolment token was never given out.
    TokenUnknown,
    /// The enrolment token was used as often as it may be.
    TokenUsedUp,
    /// The enrolment token's time is over.
    TokenExpired,
    /// The enrolment token was withdrawn.
    TokenRevoked,
    /// An error of Weir.
    Internal,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Code::InvalidJson | Code::InvalidField => StatusCode::BAD_REQUEST,
            Code::Unauthorized | Code::TokenUnknown => StatusCode::UNAUTHORIZED,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::Conflict => StatusCode::CONFLICT,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::TokenUsedUp | Code::TokenExpired | Code::TokenRevoked => StatusCode::GONE,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    body: ErrorBody,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// An error with a message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let body = ErrorBody { status: "error", code, message: message.into(), field: None, expected: None };
        Self { body, retry_after: None }
    }

    /// A field with a wrong value: where, what was expected, what was found there.
    pub fn field(path: impl Into<String>, expected: impl Into<String>, found: &str) -> Self {
        let (path, expected) = (path.into(), expected.into());
        let mut error = Self::new(Code::InvalidField, format!("{path}: expected {expected}, found {found}"));
        (error.body.field, error.body.expected) = (Some(path), Some(expected));
        error
    }

    /// Names the field that is wrong, and what was expected there.
    pub fn set_field(&mut self, path: impl Into<String>, expected: impl Into<String>) {
        (self.body.field, self.body.expected) = (Some(path.into()), Some(expected.into()));
    }

    /// The same error, with the delay after which it is worth to come again.
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What is answered, for channels other than HTTP.
    pub fn body(&self) -> &ErrorBody {
        &self.body
    }

    /// Not now, because of the server itself.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message).after(Duration::from_secs(2))
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.body.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.body.code.status();
        let mut response = (status, axum::Json(self.body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(delay) = self.retry_after {
            // Whole seconds, at least one: `Retry-After: 0` would invite a storm.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<weir_net::BodyError> for ApiError {
    fn from(error: weir_net::BodyError) -> Self {
        if error == weir_net::BodyError::Busy {
            return Self::unavailable(error.to_string());
        }
        let code = match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            _ => Code::InvalidField,
        };
        if let weir_net::BodyError::TooLarge { limit, decompressed } = error {
            let when = if decompressed { " after decompression" } else { "" };
            let message = format!("the body is larger than the limit of {limit} bytes{when}; send smaller requests");
            return Self::new(code, message);
        }
        Self::new(code, error.to_string())
    }
}

impl From<weir_metadata::MetadataError> for ApiError {
    fn from(error: weir_metadata::MetadataError) -> Self {
        use weir_metadata::MetadataError as E;
        match &error {
            E::NotFound { .. } => Self::new(Code::NotFound, error.to_string()),
            E::Conflict { .. } => Self::new(Code::Conflict, error.to_string()),
            E::Invalid { .. } => Self::new(Code::InvalidField, error.to_string()),
            E::Unavailable { .. } => {
                tracing::warn!("{error}");
                Self::unavailable("servers, agents and keys cannot be read or written now; the server's log says why")
            }
            E::Corrupt { .. } | E::Internal { .. } => {
                tracing::error!("{error}");
                Self::new(Code::Internal, "an error of the metadata database; the server's log says more")
            }
        }
    }
}
