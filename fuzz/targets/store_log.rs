//! The log of the store and its compressed chunks: whatever stands on the disk is read without panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_store::{decode_and_encode, replay_bytes, replay_payload};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => {
            let found = replay_bytes(bytes);
            let damaged: usize = found.damaged.iter().map(|(_, length)| length).sum();
            assert!(damaged <= bytes.len() && found.torn.is_none_or(|at| at <= bytes.len()));
        }
        // Behind a checksum that is right, where a search would hardly ever get.
        1 => {
            let found = replay_payload(bytes);
            assert!(found.samples + found.orphans <= bytes.len() as u64, "every sample takes a byte");
        }
        _ => {
            let Some((begin, bits)) = bytes.split_first_chunk::<9>() else { return };
            let [count, first @ ..] = *begin;
            assert!(decode_and_encode(bits, i64::from_le_bytes(first), u16::from(count)), "decoded samples come back");
        }
    }
});
