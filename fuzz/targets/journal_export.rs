//! What journalctl prints for `journald`, the journal's export format, and the records that its entries become.

#![no_main]
// The files are included as they are; not all of them is used here.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weir_fuzz::encode_and_accept_again;

#[path = "../../integrations/system/src/journald/config.rs"]
mod config;
#[path = "../../integrations/system/src/logs/encoding.rs"]
mod encoding;
#[path = "../../integrations/system/src/journald/entry.rs"]
mod entry;
#[path = "../../integrations/system/src/journald/export.rs"]
mod export;
#[path = "../../integrations/system/src/logs/parse/mod.rs"]
mod parse;
#[path = "../../integrations/system/src/logs/record.rs"]
mod record;

/// The names under which the files know each other.
mod logs {
    pub(crate) use crate::{encoding, parse, record};

    pub mod config {
        /// Where to begin.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
        pub enum From {
            #[default]
            Beginning,
            End,
        }

        pub fn file_name(instance: &str) -> String {
            instance.to_owned()
        }
    }
}

use config::{Fields, Settings};
use export::{Decoder, Entry};
use record::{Gathered, Origin};

/// Most bytes that are kept of a value.
const MOST_VALUE_BYTES: usize = 64;

/// The entries of what comes in pieces of this size, and whether it is in the format.
fn decoded(bytes: &[u8], piece: usize, most_value_bytes: usize) -> (Vec<Entry>, bool) {
    let (mut decoder, mut entries) = (Decoder::new(most_value_bytes), Vec::new());
    let is_in_format = bytes.chunks(piece).all(|piece| decoder.feed(piece, &mut entries).is_ok());
    (entries, is_in_format)
}

/// Writes an entry, all values with their lengths.
fn written(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &entry.fields {
        out.extend([name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat());
    }
    out.push(b'\n');
    out
}

/// Every entry is a record, which can be encoded.
fn gathered(entries: &[Entry], fields: Fields, host_of_record: bool) {
    let settings = Settings {
        journalctl: String::new(),
        source: Vec::new(),
        filter: Vec::new(),
        kernel: true,
        from: logs::config::From::Beginning,
        ignore_older: Duration::ZERO,
        fields,
        max_field_bytes: MOST_VALUE_BYTES,
        resource: vec![("host.name".to_owned(), "agent".to_owned())],
        host_of_record,
        has_service_name: false,
        checkpoint: PathBuf::new(),
    };
    let origin: Origin = Arc::from([]);
    let mut gathered = Gathered::new("journald", &settings.resource);
    for entry in entries {
        assert!(entry::is_wanted(entry, &settings), "nothing is left out unless that is configured");
        entry::gather(entry, &settings, &origin, 1_767_355_200_000_000_000, &mut gathered);
    }
    assert_eq!(gathered.len(), entries.len(), "every entry is a record");
    if let Some(payload) = gathered.finish() {
        encode_and_accept_again(&payload);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (entries, is_in_format) = decoded(bytes, bytes.len().max(1), MOST_VALUE_BYTES);
    let values = || entries.iter().flat_map(|entry| &entry.fields).map(|(_, value)| value.len());
    assert!(values().all(|length| length <= MOST_VALUE_BYTES), "longer than the limit");
    assert!(values().sum::<usize>() <= bytes.len(), "nothing is invented");
    let piece = usize::from(bytes.first().copied().unwrap_or(1) % 32) + 1;
    assert_eq!(decoded(bytes, piece, MOST_VALUE_BYTES), (entries.clone(), is_in_format), "the same, however it comes");
    // Without a name there is nothing that could be written.
    let whole = |entry: &&Entry| entry.cut_bytes == 0 && entry.fields.iter().all(|(name, _)| !name.is_empty());
    let whole: Vec<Entry> = entries.iter().filter(whole).cloned().collect();
    let again: Vec<u8> = whole.iter().flat_map(written).collect();
    assert_eq!(decoded(&again, piece, MOST_VALUE_BYTES), (whole, true), "written again it is the same");
    gathered(&entries, Fields::All, true);
    gathered(&entries, Fields::Known, false);
});
