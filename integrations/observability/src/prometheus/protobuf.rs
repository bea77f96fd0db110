//! Protobuf's wire format, as much of it as remote write needs (protobuf.dev "Encoding").

/// Wire type 0.
const VARINT: u32 = 0;
/// Wire type 1.
const FIXED_64: u32 = 1;
/// Wire type 2.
const LENGTH_DELIMITED: u32 = 2;

/// Appends a variable-length integer.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits and the continuation bit: fits by construction.
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

/// Maps signed integers so that small ones stay short, whatever their sign (`sint32`, `sint64`).
pub(super) fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

/// An unsigned field, 0 included: for members of a `oneof`, whose presence counts.
pub(super) fn uint_always(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

/// An unsigned field or enum; 0 is the default and not written.
pub(super) fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        uint_always(out, field, value);
    }
}

/// An `int64` field.
pub(super) fn int(out: &mut Vec<u8>, field: u32, value: i64) {
    uint(out, field, value.cast_unsigned());
}

/// A `sint32` or `sint64` field.
pub(super) fn sint(out: &mut Vec<u8>, field: u32, value: i64) {
    uint(out, field, zigzag(value));
}

/// A `double` field; only the default, positive zero, is left out. NaN keeps its bits.
pub(super) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        key(out, field, FIXED_64);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

/// A `string`, `bytes`, message or packed field.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, LENGTH_DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A `string` field; the empty text is the default and not written.
pub(super) fn string(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, field, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_those_that_an_independent_reader_reads(unsigned in any::<u64>(), signed in any::<i64>()) {
            let mut out = Vec::new();
            varint(&mut out, unsigned);
            prop_assert_eq!(prost::encoding::decode_varint(&mut out.as_slice()).unwrap(), unsigned);
            let mut own = Vec::new();
            sint(&mut own, 4, signed);
            let mut theirs = Vec::new();
            if signed != 0 {
                prost::encoding::sint64::encode(4, &signed, &mut theirs);
            }
            prop_assert_eq!(own, theirs);
        }
    }
}
