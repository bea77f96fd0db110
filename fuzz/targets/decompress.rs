//! Compressed bodies: never more than the limit comes out, and what is compressed comes back.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_net::Compression;

/// The largest body that is allowed.
const LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let body = Bytes::copy_from_slice(bytes);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        if let Ok(out) = compression.decompress(body.clone(), LIMIT_BYTES) {
            assert!(out.len() <= LIMIT_BYTES);
        }
        let small = compression.compress(body.clone()).expect("there is memory");
        assert_eq!(compression.decompress(small, body.len()).as_ref(), Ok(&body));
    }
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = Compression::from_header(name);
    }
});
