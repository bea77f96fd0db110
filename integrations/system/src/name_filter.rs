//! Which names (devices, mount points, programs) are meant: patterns in which `*` stands for any
//! characters.

/// A name in which each `*` stands for any number of any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// A pattern; every text is one.
    pub(crate) fn new(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    /// The pattern as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole name fits.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(mut name) = name.strip_prefix(first) else {
            return false;
        };
        let mut pieces = rest.split('*').peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                return name.ends_with(piece);
            }
            let Some(at) = name.find(piece) else {
                return false;
            };
            name = name.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }
}

/// Names that are watched: those of one list, without those of another.
#[derive(Clone, Debug)]
pub(crate) struct NameFilter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl NameFilter {
    /// Without `include` every name is meant; without `exclude`, too, all but `defaults`.
    pub(crate) fn new(include: &[String], exclude: Option<&[String]>, defaults: &[&str]) -> NameFilter {
        let exclude = match exclude {
            Some(exclude) => exclude.iter().map(|text| Pattern::new(text)).collect(),
            None if include.is_empty() => defaults.iter().map(|text| Pattern::new(text)).collect(),
            None => Vec::new(),
        };
        let include = include.iter().map(|text| Pattern::new(text)).collect();
        NameFilter { include, exclude }
    }

    /// Whether a name is watched.
    pub(crate) fn allows(&self, name: &str) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.include.is_empty() || fits(&self.include)) && !fits(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_the_whole_name_must_fit() {
        for (pattern, name, fits) in [
            ("sda", "sda", true),
            ("sda", "sda1", false),
            ("sd*", "sda1", true),
            ("*", "", true),
            ("*1", "sda1", true),
            ("*1", "sda12", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
            ("/var/*/x", "/var/a/b/x", true),
            ("postgres*", "postgresql", true),
            ("", "x", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn defaults_are_left_out_only_while_nothing_is_configured() {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let filter = NameFilter::new(&[], None, &["lo"]);
        assert!(filter.allows("eth0") && !filter.allows("lo"));
        let filter = NameFilter::new(&owned(&["lo", "eth*"]), None, &["lo"]);
        assert!(filter.allows("lo") && filter.allows("eth0") && !filter.allows("wlan0"));
        let filter = NameFilter::new(&[], Some(&owned(&["eth1"])), &["lo"]);
        assert!(filter.allows("lo") && filter.allows("eth0") && !filter.allows("eth1"));
        let filter = NameFilter::new(&owned(&["eth*"]), Some(&owned(&["eth1"])), &["lo"]);
        assert!(filter.allows("eth0") && !filter.allows("eth1"));
    }
}
