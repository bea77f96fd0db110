//! How output looks: width, colour, and lines that know how wide they are.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a bar, and polls in a chart.
pub(super) const BAR_COLUMNS: usize = 10;

/// How output looks where it goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Columns.
    pub(super) width: usize,
    /// Whether long lines are cut to the width. Not where nobody scrolls sideways: in files and pipes.
    pub(super) cut: bool,
    /// Whether ANSI colours are written.
    pub(super) color: bool,
    /// Whether characters beyond ASCII are written for bars and marks.
    pub(super) unicode: bool,
    /// Most lines of series, logs or spans per delivery.
    pub(super) max_lines: usize,
}

/// The few meanings that a colour has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// The thing itself.
    Plain,
    /// What explains it.
    Dim,
    /// What a block is about.
    Bold,
    /// Worth a look.
    Yellow,
    /// Trouble.
    Red,
}

impl Paint {
    /// The code that switches it on (ECMA-48 §8.3.117).
    fn code(self) -> &'static str {
        match self {
            Paint::Plain => "",
            Paint::Dim => "\u{1b}[2m",
            Paint::Bold => "\u{1b}[1m",
            Paint::Yellow => "\u{1b}[33m",
            Paint::Red => "\u{1b}[31m",
        }
    }
}

const RESET: &str = "\u{1b}[0m";

impl Style {
    /// What stands for the rest of a text that was cut.
    pub(super) fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    /// A text of at most so many columns; the end of a longer one is replaced by an ellipsis.
    pub(super) fn fit(&self, text: &str, columns: usize) -> String {
        if text.width() <= columns {
            return text.to_owned();
        }
        let room = columns.saturating_sub(self.ellipsis().width());
        prefix(text, room).to_owned() + self.ellipsis()
    }

    /// A bar of ten columns for a fraction of 0 to 1.
    pub(super) fn bar(&self, fraction: f64) -> (String, String) {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        // Within 0 to 80, so the conversion is exact.
        let eighths = (fraction.clamp(0.0, 1.0) * 80.0).round() as usize;
        let (full, part) = if self.unicode { (eighths / 8, eighths % 8) } else { ((eighths + 4) / 8, 0) };
        let part = PARTS.get(part).copied().unwrap_or_default();
        let filled = (if self.unicode { "█" } else { "#" }).repeat(full) + part;
        let rest = (if self.unicode { "·" } else { "." }).repeat(BAR_COLUMNS.saturating_sub(filled.width()));
        (filled, rest)
    }

    /// A chart of ten columns for fractions of 0 to 1, the newest last; the places of polls that were not yet
    /// first. `None` where there are no such characters, or no values.
    pub(super) fn sparks(&self, fractions: &[f64]) -> Option<(String, String)> {
        const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        if !self.unicode || fractions.is_empty() {
            return None;
        }
        let newest = fractions.get(fractions.len().saturating_sub(BAR_COLUMNS)..).unwrap_or_default();
        // Within 0 to 7, so the conversion is exact.
        let spark = |fraction: &f64| SPARKS.get((fraction.clamp(0.0, 1.0) * 7.0).round() as usize);
        let sparks: String = newest.iter().filter_map(spark).collect();
        Some(("·".repeat(BAR_COLUMNS.saturating_sub(newest.len())), sparks))
    }

    /// A number with its unit, in ASCII where nothing else can be shown: `us`, `C`, `inf`.
    pub(super) fn sign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.unicode || text.is_ascii() {
            return text.into();
        }
        text.replace('µ', "u").replace('°', "").replace('∞', "inf").into()
    }

    /// Text from outside, safe to print: nothing in it can move the cursor, change colours or turn
    /// the direction of reading.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.trim_end().chars() {
            match c {
                '\n' if self.unicode => out.push('⏎'),
                '\n' => out.push_str("\\n"),
                '\t' => out.push(' '),
                '\r' => {}
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
                c if c.is_control() => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        out
    }
}

/// A line that is being written, and the columns that it takes.
pub(super) struct Line<'a> {
    style: &'a Style,
    parts: Vec<(String, Paint)>,
    columns: usize,
}

impl<'a> Line<'a> {
    pub(super) fn new(style: &'a Style, indent: usize) -> Self {
        let mut line = Self { style, parts: Vec::new(), columns: 0 };
        line.pad_to(indent);
        line
    }

    /// Columns so far.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn push(&mut self, text: &str, paint: Paint) -> &mut Self {
        if !text.is_empty() {
            self.columns += text.width();
            self.parts.push((text.to_owned(), paint));
        }
        self
    }

    /// Spaces up to a column.
    pub(super) fn pad_to(&mut self, column: usize) -> &mut Self {
        let missing = column.saturating_sub(self.columns);
        if missing > 0 {
            self.push(&" ".repeat(missing), Paint::Plain);
        }
        self
    }

    /// A text whose last character stands at a column.
    pub(super) fn right(&mut self, text: &str, column: usize, paint: Paint) -> &mut Self {
        self.pad_to(column.saturating_sub(text.width())).push(text, paint)
    }

    /// Writes the line and its end, cut to the width where the style says so.
    pub(super) fn write(&self, out: &mut String) {
        let too_long = self.style.cut && self.columns > self.style.width;
        let mut room =
            if too_long { self.style.width.saturating_sub(self.style.ellipsis().width()) } else { usize::MAX };
        let visible = self.parts.iter().rposition(|(text, _)| !text.trim_end().is_empty()).map_or(0, |at| at + 1);
        for (text, paint) in self.parts.iter().take(visible) {
            let fitting = prefix(text, room);
            room -= fitting.width();
            let end = if fitting.len() < text.len() { self.style.ellipsis() } else { "" };
            match (self.style.color, *paint) {
                (false, _) | (_, Paint::Plain) => [fitting, end].into_iter().for_each(|text| out.push_str(text)),
                (true, paint) => [paint.code(), fitting, end, RESET].into_iter().for_each(|text| out.push_str(text)),
            }
            if !end.is_empty() {
                break;
            }
        }
        out.push('\n');
    }
}

/// The beginning of a text that takes at most so many columns.
fn prefix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    end.and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { width: 20, cut: true, color: false, unicode: true, max_lines: 9 };

    fn line(style: Style, parts: &[&str]) -> String {
        let mut line = Line::new(&style, 2);
        for part in parts {
            line.push(part, Paint::Dim);
        }
        let mut out = String::new();
        line.write(&mut out);
        out
    }

    #[test]
    fn a_line_is_cut_at_the_width_and_never_before_it() {
        assert_eq!(line(STYLE, &["123456789", "123456789"]), "  123456789123456789\n");
        assert_eq!(line(STYLE, &["123456789", "1234567890"]), "  12345678912345678…\n");
        assert_eq!(line(STYLE, &["123456789", "123456789", "tail"]), "  12345678912345678…\n");
        assert_eq!(line(STYLE, &["漢字漢字漢字漢字漢字"]), "  漢字漢字漢字漢字…\n", "wide characters take two columns");
        assert_eq!(line(Style { cut: false, ..STYLE }, &["123456789", "1234567890"]), "  1234567891234567890\n");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(STYLE.clean("a\u{1b}[2Jb\r\nc\td\u{9b}\u{202e}\n"), "a\\u{1b}[2Jb⏎c d\\u{9b}\\u{202e}");
    }

    #[test]
    fn bars_always_take_ten_columns() {
        for unicode in [true, false] {
            let style = Style { unicode, ..STYLE };
            for percent in 0..=100 {
                let (filled, rest) = style.bar(f64::from(percent) / 100.0);
                assert_eq!(filled.width() + rest.width(), 10, "{percent} {filled}{rest}");
            }
        }
        assert_eq!(STYLE.bar(0.5), ("█████".into(), "·····".into()));
        assert_eq!(STYLE.bar(7.0).0.width(), 10);
    }
}
