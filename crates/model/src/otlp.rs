//! stub
use bytes::Bytes;
use crate::batch::{Encoding, Payload, Records, Signal, Wire};
/// stub
#[derive(Clone, Debug, thiserror::Error)]
#[error("not written yet")]
pub struct DecodeError(());
impl DecodeError {
    /// stub
    pub fn empty() -> Self { Self(()) }
}
/// stub
pub fn accept(_signal: Signal, _encoding: Encoding, _bytes: Bytes) -> Result<Payload, DecodeError> { Err(DecodeError::empty()) }
/// stub
pub fn decode(_signal: Signal, _wire: &Wire) -> Result<Records, DecodeError> { Err(DecodeError::empty()) }
/// stub
pub fn encode_protobuf(_records: &Records) -> Bytes { Bytes::new() }
/// stub
pub fn encode_json(_records: &Records) -> Bytes { Bytes::new() }
/// stub
pub fn merge(_payloads: &[Payload]) -> Option<Vec<Bytes>> { None }
