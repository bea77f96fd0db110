//! The right name nearest to a wrong one.

/// The name in `names` that `wrong` was most likely meant to be; `None` when no name is close.
#[must_use]
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = plain(wrong);
    let tolerated = (wrong.chars().count() / 3).clamp(1, 3);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, &plain(name)), name))
        .filter(|(distance, _)| *distance <= tolerated)
        // Of equally near names the one that comes first; `min_by_key` does that.
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance < name.chars().count())
        .map(|(_, name)| name)
}

/// `batchSize`, `batch-size` and `Batch_Size` are the same name to a reader. Only the start of a
/// long text counts, which bounds the work.
fn plain(name: &str) -> String {
    name.chars().take(64).filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = ["endpoint", "batch_size", "timeout", "tls_skip_verify", "to", "us1"];

    #[test]
    fn slips_of_the_keyboard_and_other_spellings_find_their_name() {
        for (wrong, right) in [
            ("endpiont", "endpoint"),
            ("Endpoint", "endpoint"),
            ("batchSize", "batch_size"),
            ("batch-size", "batch_size"),
            ("tmeout", "timeout"),
            ("tls_skip_verfy", "tls_skip_verify"),
            ("us2", "us1"),
        ] {
            assert_eq!(nearest(wrong, NAMES), Some(right), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_close_is_not_suggested() {
        for wrong in ["region", "x", "", "password"] {
            assert_eq!(nearest(wrong, NAMES), None, "{wrong}");
        }
    }
}
